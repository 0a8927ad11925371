// SPDX-License-Identifier: Apache-2.0
#include "ledger/prune.h"

#include <set>
#include <string>

#include "ledger/migrations.h"

namespace aw::ledger {
namespace {

constexpr std::int64_t kRows = 500;        // A few milliseconds.
constexpr std::int64_t kSparePages = 256;  // Left free for the events to come: 1 MiB.
constexpr char kFreePages[] = "PRAGMA freelist_count";

constexpr char kDelete[] = R"sql(
DELETE FROM watchdog_events WHERE seq IN (
  SELECT seq FROM watchdog_events e
  WHERE occurred_at < ?1 AND seq <= ?2
    AND (run_id IS NULL OR NOT EXISTS (SELECT 1 FROM watchdog_processes p WHERE p.run_id = e.run_id))
  ORDER BY occurred_at LIMIT ?3)
RETURNING analysis_id)sql";

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

Result<std::int64_t> delete_some(Database& database, const PruneOrder& order) {
  auto transaction = Transaction::begin(database);
  if (!transaction) return std::move(transaction).error();
  auto statement = database.prepare(kDelete);
  if (!statement) return std::move(statement).error();
  statement->bind(1, format_iso8601(order.older_than));
  statement->bind(2, order.up_to_seq);
  statement->bind(3, kRows);
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

}  // namespace

Result<PruneStep> prune_step(Database& database, const PruneOrder& order) {
  const auto deleted = delete_some(database, order);
  if (!deleted) return Error(deleted.error());
  if (*deleted > 0) return PruneStep{*deleted, false};
  const auto done = free_some(database);
  if (!done) return Error(done.error());
  return PruneStep{0, *done};
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
