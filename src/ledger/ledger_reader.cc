// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger_reader.h"

#include <algorithm>

#include "ledger/migrations.h"
#include "ledger/rows.h"

namespace aw::ledger {
namespace {

using supervise::EventRecord;
using supervise::RunRow;

constexpr int kPatience = 2'000;  // Readers don't wait for the writer in WAL mode; only for a recovery.

constexpr char kNewestSeq[] = "SELECT max(seq) FROM watchdog_events";
constexpr char kLedgerId[] = "SELECT id FROM watchdog_ledger";

/// A newer program may have changed what the columns mean.
Result<void> check_version(Database& database) {
  const auto version = database.read_number("PRAGMA user_version");
  if (!version) return Error(version.error());
  if (*version <= migrations().back().version && *version > 0) return {};
  return Error{std::make_error_code(std::errc::not_supported), "its schema is version " + std::to_string(*version) +
                                                                   ", and this program reads version 1 to " +
                                                                   std::to_string(migrations().back().version)};
}

/// f(row) for each row.
template <class F>
Result<void> for_each_row(Statement& statement, F&& f) {
  for (;;) {
    const auto row = statement.step();
    if (!row) return Error(row.error());
    if (!*row) return {};
    f(statement);
  }
}

std::int64_t sql_limit(std::size_t limit) {
  return limit > static_cast<std::size_t>(INT64_MAX) ? -1 : static_cast<std::int64_t>(limit);  // -1: none.
}

}  // namespace

Result<Database*> LedgerReader::connection() {
  if (database_ && database_->has_moved()) database_.reset();
  if (!database_) {
    auto opened = Database::open(path_, Database::Access::kRead, kPatience);
    if (!opened) return std::move(opened).error();
    if (auto checked = check_version(*opened); !checked) return std::move(checked).error().within(path_.string());
    database_.emplace(std::move(*opened));
  }
  return &*database_;
}

Result<std::vector<EventRecord>> LedgerReader::read_events(const EventQuery& query) {
  auto database = connection();
  if (!database) return std::move(database).error();

  // Only the wanted conditions stand in the statement, so that each kind of query gets its index.
  std::string where;
  std::vector<std::string> texts;
  const auto require = [&](const char* condition, std::string value) {
    where += where.empty() ? " WHERE " : " AND ";
    where += condition;
    texts.push_back(std::move(value));
  };
  if (query.since) require("occurred_at >= ?", format_iso8601(*query.since));
  if (query.until) require("occurred_at <= ?", format_iso8601(*query.until));
  if (query.analysis_id) require("registered_as = ?", storable(*query.analysis_id));
  if (query.run_id) require("run_id = ?", storable(*query.run_id));
  if (query.reason) require("reason = ?", std::string(to_string(*query.reason)));
  if (query.kind) require("kind = ?", std::string(to_string(*query.kind)));
  if (query.uid) require("uid = CAST(? AS INTEGER)", std::to_string(*query.uid));

  auto statement = (*database)->prepare(std::string("SELECT ") + kEventColumns + " FROM watchdog_events" + where +
                                        " ORDER BY occurred_at DESC, seq DESC LIMIT ?");
  if (!statement) return std::move(statement).error();
  int parameter = 0;
  for (const std::string& text : texts) statement->bind(++parameter, std::string_view(text));
  statement->bind(++parameter, sql_limit(query.limit));

  std::vector<EventRecord> events;
  auto read = for_each_row(*statement, [&](const Statement& row) {
    if (auto event = to_event(row)) events.push_back(*std::move(event));
  });
  if (!read) return std::move(read).error();
  return events;
}

Result<std::vector<StoredEvent>> LedgerReader::read_events_after(std::int64_t after, std::size_t limit) {
  return read_outbox(after, limit).transform([](Outbox outbox) { return std::move(outbox.events); });
}

Result<Outbox> LedgerReader::read_outbox(std::int64_t after, std::size_t limit) {
  auto database = connection();
  if (!database) return std::move(database).error();
  auto id = (*database)->read_text(kLedgerId);
  if (!id) return std::move(id).error();
  const auto newest = (*database)->read_number(kNewestSeq);
  if (!newest) return Error(newest.error());
  auto statement = (*database)->prepare(std::string("SELECT ") + kEventColumns +
                                        " FROM watchdog_events WHERE seq > ?1 ORDER BY seq LIMIT ?2");
  if (!statement) return std::move(statement).error();
  statement->bind(1, after);
  statement->bind(2, sql_limit(limit));
  const auto highest = (*database)->read_number("SELECT seq FROM sqlite_sequence WHERE name = 'watchdog_events'");
  if (!highest) return Error(highest.error());
  Outbox outbox{*std::move(id), *newest, *highest, after, 0, {}};
  auto read = for_each_row(*statement, [&](const Statement& row) {
    outbox.up_to = row.number(0).value_or(0);
    auto event = to_event(row);
    if (event) outbox.events.push_back({outbox.up_to, *std::move(event)});
    if (!event) ++outbox.unreadable;
  });
  if (!read) return std::move(read).error();
  outbox.newest = std::max(outbox.newest, outbox.up_to);  // Written between the looks.
  return outbox;
}

Result<std::string> LedgerReader::read_ledger_id() {
  auto database = connection();
  if (!database) return std::move(database).error();
  return (*database)->read_text(kLedgerId);
}

Result<std::int64_t> LedgerReader::read_newest_seq() {
  auto database = connection();
  if (!database) return std::move(database).error();
  return (*database)->read_number(kNewestSeq);
}

Result<bool> LedgerReader::has_event(const std::string& event_id) {
  auto database = connection();
  if (!database) return std::move(database).error();
  auto statement = (*database)->prepare("SELECT 1 FROM watchdog_events WHERE event_id = ?1");
  if (!statement) return std::move(statement).error();
  statement->bind(1, storable(event_id));
  bool found = false;
  auto read = for_each_row(*statement, [&](const Statement&) { found = true; });
  if (!read) return std::move(read).error();
  return found;
}

Result<std::vector<RunRow>> LedgerReader::read_runs() {
  auto database = connection();
  if (!database) return std::move(database).error();
  auto statement =
      (*database)->prepare(std::string("SELECT ") + kRunColumns + " FROM watchdog_processes ORDER BY registered_at");
  if (!statement) return std::move(statement).error();
  std::vector<RunRow> runs;
  auto read = for_each_row(*statement, [&](const Statement& row) {
    if (auto run = to_run(row)) runs.push_back(*std::move(run));
  });
  if (!read) return std::move(read).error();
  return runs;
}

}  // namespace aw::ledger
