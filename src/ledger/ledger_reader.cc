// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger_reader.h"

#include <algorithm>
#include <chrono>

#include "ledger/migrations.h"
#include "ledger/rows.h"

namespace aw::ledger {
namespace {

using supervise::EventRecord;
using supervise::RunRow;

constexpr int kPatience = 2'000;  // Readers don't wait for the writer in WAL mode; only for a recovery.

constexpr char kNewestSeq[] = "SELECT max(seq) FROM watchdog_events";
// A quarter of an hour is what every time zone's hours and days are made of.
constexpr char kCountKills[] =
    "SELECT substr(occurred_at, 1, 14) || printf('%02d:00Z', CAST(substr(occurred_at, 15, 2) AS INTEGER) / 15 * 15), "
    "reason, count(*) FROM watchdog_kills WHERE reason IS NOT NULL AND occurred_at >= ?1 GROUP BY 1, 2 ORDER BY 1, 2";
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

/// Ends a statement of this connection that takes longer. A limit of kForever is none.
class TimeLimit {
 public:
  TimeLimit(Database& database, Span limit) : database_(database) {
    if (limit == kForever) return;
    end_ = std::chrono::steady_clock::now() + limit;
    constexpr int kInstructions = 10'000;  // A millisecond or so: the clock is looked at in between.
    sqlite3_progress_handler(
        database_.handle(), kInstructions,
        [](void* self) -> int { return static_cast<TimeLimit*>(self)->look() ? 1 : 0; }, this);
  }
  ~TimeLimit() { sqlite3_progress_handler(database_.handle(), 0, nullptr, nullptr); }
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  bool passed() const { return passed_; }

 private:
  bool look() {
    passed_ |= std::chrono::steady_clock::now() > end_;
    return passed_;
  }
  Database& database_;
  std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::time_point::max();
  bool passed_ = false;
};

Error too_long() {
  return {std::make_error_code(std::errc::timed_out),
          "the ledger has too much to look through for this; ask for less, such as a shorter time"};
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

EventSelect select_events(const EventQuery& query) {
  // Only the wanted conditions stand in the statement, so that each kind of query gets its index. An id has fewer
  // events than any kind or reason, which SQLite does not know: the plus keeps it from their indexes.
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
  if (query.reason) require(query.analysis_id ? "+reason = ?" : "reason = ?", std::string(to_string(*query.reason)));
  if (query.kind) require(query.analysis_id ? "+kind = ?" : "kind = ?", std::string(to_string(*query.kind)));
  if (query.uid) require("(uid IS NULL OR uid = CAST(? AS INTEGER))", std::to_string(*query.uid));
  return {std::string("SELECT ") + kEventColumns + " FROM watchdog_events" + where +
              " ORDER BY occurred_at DESC, seq DESC LIMIT ?",
          std::move(texts)};
}

Result<std::vector<EventRecord>> LedgerReader::read_events(const EventQuery& query) {
  auto database = connection();
  if (!database) return std::move(database).error();
  const EventSelect select = select_events(query);
  auto statement = (*database)->prepare(select.sql);
  if (!statement) return std::move(statement).error();
  int parameter = 0;
  for (const std::string& text : select.texts) statement->bind(++parameter, std::string_view(text));
  statement->bind(++parameter, sql_limit(query.limit));

  std::vector<EventRecord> events;
  const TimeLimit time_limit(**database, time_limit_);
  auto read = for_each_row(*statement, [&](const Statement& row) {
    if (auto event = to_event(row)) events.push_back(*std::move(event));
  });
  if (time_limit.passed()) return too_long();
  if (!read) return std::move(read).error();
  return events;
}

Result<void> LedgerReader::visit_newest(std::size_t count, const std::function<void(const EventRecord&)>& take) {
  auto database = connection();
  if (!database) return std::move(database).error();
  // Rows are counted: their numbers have gaps, where some were pruned or came twice.
  auto statement = (*database)->prepare(
      std::string("SELECT ") + kEventColumns +
      " FROM watchdog_events WHERE seq > coalesce((SELECT seq FROM watchdog_events ORDER BY seq DESC "
      "LIMIT 1 OFFSET ?1), 0) ORDER BY seq");
  if (!statement) return std::move(statement).error();
  statement->bind(1, sql_limit(count));
  return for_each_row(*statement, [&](const Statement& row) {
    if (const auto event = to_event(row)) take(*event);
  });
}

Result<std::vector<KillCount>> LedgerReader::count_kills(WallTime since) {
  auto database = connection();
  if (!database) return std::move(database).error();
  auto statement = (*database)->prepare(kCountKills);
  if (!statement) return std::move(statement).error();
  statement->bind(1, std::string_view(format_iso8601(since)));
  std::vector<KillCount> counts;
  const TimeLimit time_limit(**database, time_limit_);
  auto read = for_each_row(*statement, [&](const Statement& row) {
    counts.push_back({row.text(0), row.text(1), static_cast<std::uint64_t>(row.number(2).value_or(0))});
  });
  if (time_limit.passed()) return too_long();
  if (!read) return std::move(read).error();
  return counts;
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

Result<LiveRuns> LedgerReader::read_live_runs() {
  auto rows = read_runs();
  if (!rows) return std::move(rows).error();
  auto database = connection();
  if (!database) return std::move(database).error();
  std::string once;
  for (const EventKind kind : supervise::kOncePerRun) {
    once += (once.empty() ? "'" : ", '") + std::string(to_string(kind)) + "'";
  }
  auto statement = (*database)->prepare(
      "SELECT event.event_id FROM watchdog_processes AS run JOIN watchdog_events AS event "
      "ON event.registered_as = run.registered_as AND event.run_id = run.run_id WHERE event.kind IN (" +
      once + ")");
  if (!statement) return std::move(statement).error();
  LiveRuns runs{*std::move(rows), {}};
  auto read = for_each_row(*statement, [&](const Statement& row) { runs.event_ids.insert(row.text(0)); });
  if (!read) return std::move(read).error();
  return runs;
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

Result<Database*> LedgerReader::connection_with_series() {
  auto database = connection();
  if (!database) return database;
  const auto there = (*database)->read_number("SELECT count(*) FROM sqlite_schema WHERE name = 'watchdog_series'");
  if (!there) return Error(there.error());
  return *there > 0 ? *database : nullptr;
}

Result<std::optional<supervise::SeriesRow>> LedgerReader::read_series(const std::string& run_id) {
  auto database = connection_with_series();
  if (!database) return std::move(database).error();
  std::optional<supervise::SeriesRow> series;
  if (*database == nullptr) return series;
  auto statement =
      (*database)->prepare(std::string("SELECT ") + kSeriesColumns + " FROM watchdog_series WHERE run_id = ?1");
  if (!statement) return std::move(statement).error();
  statement->bind(1, storable(run_id));
  auto read = for_each_row(*statement, [&](const Statement& row) { series = to_series(row); });
  if (!read) return std::move(read).error();
  return series;
}

Result<ChangedSeries> LedgerReader::read_series_after(std::int64_t after, std::size_t limit) {
  auto database = connection_with_series();
  if (!database) return std::move(database).error();
  ChangedSeries changed;
  changed.up_to = after;
  if (*database == nullptr) return changed;
  auto statement = (*database)->prepare(std::string("SELECT ") + kSeriesColumns +
                                        " FROM watchdog_series WHERE change > ?1 ORDER BY change LIMIT ?2");
  if (!statement) return std::move(statement).error();
  statement->bind(1, after);
  statement->bind(2, sql_limit(limit));
  auto read = for_each_row(*statement, [&](const Statement& row) {
    changed.up_to = row.number(0).value_or(0);
    if (auto series = to_series(row)) changed.series.push_back({changed.up_to, *std::move(series)});
  });
  if (!read) return std::move(read).error();
  const auto highest = (*database)->read_number("SELECT seq FROM sqlite_sequence WHERE name = 'watchdog_series'");
  if (!highest) return Error(highest.error());
  changed.highest = *highest;
  return changed;
}

}  // namespace aw::ledger
