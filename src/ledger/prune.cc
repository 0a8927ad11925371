// SPDX-License-Identifier: Apache-2.0
#include "ledger/prune.h"

#include <algorithm>
#include <set>
#include <string>

#include "base/failpoint.h"
#include "ledger/migrations.h"

namespace aw::ledger {
namespace {

constexpr std::int64_t kRows = 500;           // A few milliseconds.
constexpr std::int64_t kSparePages = 256;     // Left free for the events to come: 1 MiB.
constexpr std::int64_t kManyRows = 5'000;     // Where who waits for the disk waits for this anyway.
constexpr std::int64_t kMostAtOnce = 50'000;  // Some seconds: what waits must not look as if the disk hung.
constexpr std::uint32_t kPagesToDelete = 64;  // A full file may need some to delete what it holds: 256 KiB.
constexpr char kFreePages[] = "PRAGMA freelist_count";

constexpr char kDelete[] = R"sql(
DELETE FROM watchdog_events WHERE seq IN (
  SELECT seq FROM watchdog_events e
  WHERE occurred_at < ?1 AND seq <= ?2
    AND (run_id IS NULL OR NOT EXISTS (SELECT 1 FROM watchdog_processes p WHERE p.run_id = e.run_id))
  ORDER BY occurred_at LIMIT ?3)
RETURNING analysis_id)sql";

// What a run and whoever may change it can have put on record as often as they like: of each run the newest stay,
// others have to make no room for the rest.
constexpr char kDeleteSurplus[] = R"sql(
DELETE FROM watchdog_events WHERE seq IN (
  SELECT seq FROM (
    SELECT seq, row_number() OVER (PARTITION BY run_id ORDER BY seq DESC) AS place FROM watchdog_events
    WHERE kind IN ('extended', 'limits-changed', 'limits-restored', 'orphan-found', 'escaped'))
  WHERE place > 100 ORDER BY seq LIMIT ?1)
RETURNING analysis_id)sql";

// By number: after a step of the clock, what is new may bear an old time. Of a live run how it began stays, and how it
// is being ended; what was changed meanwhile is in its row.
constexpr char kDeleteOldest[] = R"sql(
DELETE FROM watchdog_events WHERE seq IN (
  SELECT seq FROM watchdog_events e
  WHERE run_id IS NULL OR kind IN ('extended', 'limits-changed', 'limits-restored', 'orphan-found', 'escaped')
    OR NOT EXISTS (SELECT 1 FROM watchdog_processes p WHERE p.run_id = e.run_id)
  ORDER BY seq LIMIT ?1)
RETURNING analysis_id)sql";

// With the events of their time, and as they: not before the shared store has what came before them.
constexpr char kDeleteSeries[] = R"sql(
DELETE FROM watchdog_series WHERE change IN (
  SELECT change FROM watchdog_series s
  WHERE last_at < ?1 AND event_seq <= ?2
    AND NOT EXISTS (SELECT 1 FROM watchdog_processes p WHERE p.run_id = s.run_id)
  ORDER BY last_at LIMIT ?3)
RETURNING NULL)sql";

constexpr char kDeleteOldestSeries[] = R"sql(
DELETE FROM watchdog_series WHERE change IN (
  SELECT change FROM watchdog_series s
  WHERE event_seq < (SELECT coalesce(min(seq), 9223372036854775807) FROM watchdog_events
                     WHERE run_id IS NULL OR run_id NOT IN (SELECT run_id FROM watchdog_processes))
    AND NOT EXISTS (SELECT 1 FROM watchdog_processes p WHERE p.run_id = s.run_id)
  ORDER BY event_seq LIMIT ?1)
RETURNING NULL)sql";

constexpr char kForget[] = R"sql(
DELETE FROM analyses WHERE id = ?1
  AND EXISTS (SELECT 1 FROM watchdog_owner WHERE of = 'analyses' AND owner = 'watchdog')
  AND NOT EXISTS (SELECT 1 FROM watchdog_events e WHERE e.analysis_id = ?1)
  AND NOT EXISTS (SELECT 1 FROM watchdog_processes p WHERE p.analysis_id = ?1))sql";

Result<void> forget_analyses(Database& database, const std::set<std::string>& ids) {
  auto statement = database.prepare(kForget);
  if (!statement) return std::move(statement).error();
  for (const std::string& id : ids) {
    statement->bind(1, std::string_view(id));
    if (auto forgotten = statement->run(); !forgotten) return forgotten;
  }
  return {};
}

/// Runs one of the above in a transaction of its own.
template <class Bind>
Result<std::int64_t> delete_some(Database& database, const char* sql, const Bind& bind) {
  AW_FAILPOINT("ledger.prune");
  auto transaction = Transaction::begin(database);
  if (!transaction) return std::move(transaction).error();
  auto statement = database.prepare(sql);
  if (!statement) return std::move(statement).error();
  bind(*statement);
  std::int64_t deleted = 0;
  std::set<std::string> ids;
  for (;;) {
    const auto row = statement->step();
    if (!row) return Error(row.error());
    if (!*row) break;
    ++deleted;
    if (!statement->is_null(0)) ids.insert(statement->text(0));
  }
  statement->reset();
  if (auto forgotten = forget_analyses(database, ids); !forgotten) return std::move(forgotten).error();
  if (auto committed = transaction->commit(); !committed) return std::move(committed).error();
  return deleted;
}

/// True when nothing is left to give back.
Result<bool> free_some(Database& database) {
  const auto free = database.read_number(kFreePages);
  if (!free) return Error(free.error());
  if (*free > kSparePages) {
    if (auto freed = database.execute("PRAGMA incremental_vacuum(1000)"); !freed) return std::move(freed).error();
    const auto left = database.read_number(kFreePages);
    if (!left) return Error(left.error());
    if (*left < *free) return false;  // A file that was made without auto_vacuum keeps its pages, and uses them again.
  }
  // The file shrinks when the log is moved into it. A reader that holds it up has it done later.
  sqlite3_wal_checkpoint_v2(database.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  return true;
}

Result<void> bound_pages(Database& database, std::uint64_t most) {
  return database.execute(("PRAGMA max_page_count=" + std::to_string(most)).c_str());
}

}  // namespace

Result<PruneStep> prune_step(Database& database, const PruneOrder& order) {
  const auto deleted = delete_some(database, kDelete, [&](Statement& statement) {
    statement.bind(1, format_iso8601(order.older_than));
    statement.bind(2, order.up_to_seq);
    statement.bind(3, kRows);
  });
  if (!deleted) return Error(deleted.error());
  if (*deleted > 0) return PruneStep{*deleted, false};
  const auto curves = delete_some(database, kDeleteSeries, [&](Statement& statement) {
    statement.bind(1, format_iso8601(order.older_than));
    statement.bind(2, order.up_to_seq);
    statement.bind(3, kRows);
  });
  if (!curves) return Error(curves.error());
  if (*curves > 0) return PruneStep{0, false};
  const auto done = free_some(database);
  if (!done) return Error(done.error());
  return PruneStep{0, *done};
}

Result<std::int64_t> prune_oldest(Database& database, std::uint32_t most_pages) {
  const auto events = database.read_number("SELECT count(*) FROM watchdog_events");
  if (!events) return Error(events.error());
  const std::int64_t most = std::min(*events / 10 + 1, kMostAtOnce);
  const auto pages = database.read_number("PRAGMA page_count");
  if (!pages) return Error(pages.error());
  if (auto set = bound_pages(database, static_cast<std::uint64_t>(*pages) + kPagesToDelete); !set) {
    return std::move(set).error();
  }
  std::int64_t deleted = 0;
  Result<std::int64_t> some = 0;
  for (const char* what : {kDeleteSurplus, kDeleteOldest}) {
    while (deleted < most) {
      some = delete_some(database, what,
                         [&](Statement& statement) { statement.bind(1, std::min(most - deleted, kManyRows)); });
      if (!some || *some == 0) break;
      deleted += *some;
    }
    if (!some) break;
  }
  // Curves are larger than events; they go with the last event of their run.
  for (Result<std::int64_t> curves = 1; deleted > 0 && curves && *curves > 0;) {
    curves = delete_some(database, kDeleteOldestSeries, [&](Statement& statement) { statement.bind(1, kManyRows); });
  }
  // Of what it has grown by. Where that does not go, the next time takes it from where it is.
  if (deleted > 0)
    (void)database.execute(("PRAGMA incremental_vacuum(" + std::to_string(kPagesToDelete) + ")").c_str());
  if (auto set = bound_pages(database, most_pages); !set) return std::move(set).error();
  if (!some && deleted == 0) return Error(some.error());
  return deleted;
}

Result<std::int64_t> prune(const std::filesystem::path& path, const PruneOrder& order) {
  auto database = open_for_upkeep(path);
  if (!database) return std::move(database).error();
  std::int64_t deleted = 0;
  for (;;) {
    const auto step = prune_step(*database, order);
    if (!step) return Error(step.error()).within("prune " + path.string());
    deleted += step->deleted;
    if (step->done) return deleted;
  }
}

}  // namespace aw::ledger
