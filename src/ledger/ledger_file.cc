// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger_file.h"

#include <chrono>
#include <cstdio>
#include <ctime>

#include "base/failpoint.h"
#include "ledger/migrations.h"

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;
using supervise::EventRecord;

constexpr int kPatience = 5'000;  // For another writer's lock: analysisctl prune holds it for milliseconds.

constexpr std::int64_t kMostPagesOfAnEntry = 64;  // Its row, a dozen index entries, and all that they split.

// auto_vacuum comes first: it is for a file without tables only. The log is moved into the file after 1,000 pages, by
// whoever commits then; it stays below journal_size_limit on disk unless a reader holds it up. As many pages are kept in
// memory: the others are in the kernel's.
constexpr char kSettings[] = R"sql(
PRAGMA auto_vacuum=INCREMENTAL;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA foreign_keys=ON;
PRAGMA journal_size_limit=16777216;
PRAGMA cache_size=1000;
)sql";

// A row that is written as it was. A read-only file or a full disk shows here and not with the first event.
constexpr char kProbe[] = "UPDATE watchdog_owner SET owner = owner";

// Not for a run that has its row: that is adopted, and its analysis may have been deleted since it was registered.
constexpr char kAddAnalysis[] = R"sql(
INSERT INTO analyses (id, created_at)
SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM watchdog_processes WHERE run_id = ?3)
ON CONFLICT (id) DO NOTHING)sql";

// For a host's table, of which we know no more than that it should have an id.
constexpr char kAddNoAnalysis[] = "SELECT ?1, ?2, ?3";

int stop_when_late(void* deadline) {
  return std::chrono::steady_clock::now() > *static_cast<std::chrono::steady_clock::time_point*>(deadline) ? 1 : 0;
}

Result<void> prepare_file(Database& database, std::optional<std::uint32_t> most_pages) {
  AW_FAILPOINT("ledger.opened");
  if (auto set = database.execute(kSettings); !set) return set;
  database.keep_log();
  if (most_pages) {
    const std::string bound = "PRAGMA max_page_count=" + std::to_string(*most_pages);
    if (auto set = database.execute(bound.c_str()); !set) return set;
  }
  if (auto migrated = migrate(database); !migrated) return migrated;
  return database.execute(kProbe);
}

std::string name_of(const Entry& entry) {
  if (const auto* event = std::get_if<EventRecord>(&entry)) {
    return "event " + event->event_id + " (" + std::string(to_string(event->kind)) + ")";
  }
  if (const auto* begin = std::get_if<BeginRun>(&entry)) return "run " + begin->row.run_id;
  if (const auto* change = std::get_if<ChangeRun>(&entry)) return "run " + change->row.run_id;
  if (const auto* keep = std::get_if<KeepSeries>(&entry)) return "curve of run " + keep->row.run_id;
  return "end of run " + std::get<EndRun>(entry).run_id;
}

}  // namespace

Result<void> look_for_damage(const fs::path& path) {
  AW_FAILPOINT("ledger.check");
  auto database = Database::open(path, Database::Access::kRead, kPatience);
  if (!database) return std::move(database).error();
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{2};
  sqlite3_progress_handler(database->handle(), 10'000, stop_when_late, &deadline);
  auto found = database->read_text("PRAGMA quick_check(1)");
  if (!found) {
    const bool late = found.error().code == std::error_code(SQLITE_INTERRUPT, sqlite_category());
    return late ? Result<void>() : std::move(found).error().within(path.string());
  }
  if (*found == "ok") return {};
  return Error{{SQLITE_CORRUPT, sqlite_category()}, path.string() + ": quick_check: " + *found};
}

Result<LedgerFile> LedgerFile::open(const fs::path& path, std::optional<std::uint32_t> most_pages) {
  if (auto made = create_file(path); !made) return std::move(made).error();
  auto database = Database::open(path, Database::Access::kReadWrite, kPatience);
  if (!database) return std::move(database).error();
  auto prepared = prepare_file(*database, most_pages);
  if (!prepared) {
    if (trouble_of(prepared.error().code) == Trouble::kCorrupt) database->forget();
    return std::move(prepared).error().within(path.string());
  }
  const auto ours =
      database->read_number("SELECT count(*) FROM watchdog_owner WHERE of = 'analyses' AND owner = 'watchdog'");
  if (!ours) return Error(ours.error()).within(path.string());
  auto events = EventInsert::prepare(*database);
  if (!events) return std::move(events).error().within(path.string());
  auto runs = RunUpsert::prepare(*database);
  if (!runs) return std::move(runs).error().within(path.string());
  auto series = SeriesInsert::prepare(*database);
  if (!series) return std::move(series).error().within(path.string());
  auto end = database->prepare("DELETE FROM watchdog_processes WHERE run_id = ?1");
  if (!end) return std::move(end).error().within(path.string());
  auto analysis = database->prepare(*ours > 0 ? kAddAnalysis : kAddNoAnalysis);
  if (!analysis) return std::move(analysis).error().within(path.string());
  return LedgerFile(std::move(*database), std::move(*events), std::move(*runs), std::move(*series), std::move(*end),
                    std::move(*analysis));
}

Result<std::vector<std::string>> LedgerFile::commit(const std::deque<Entry>& entries) {
  auto transaction = Transaction::begin(database_);
  if (!transaction) return std::move(transaction).error();
  std::vector<std::string> refused;
  for (const Entry& entry : entries) {
    auto written = write(entry);
    if (written) continue;
    // A constraint undoes its own statement only (ON CONFLICT ABORT); the transaction goes on.
    if (trouble_of(written.error().code) != Trouble::kRefused) return std::move(written).error();
    refused.push_back(name_of(entry) + " is refused: " + written.error().message);
  }
  if (auto committed = transaction->commit(); !committed) return std::move(committed).error();
  return refused;
}

Result<bool> LedgerFile::exceeds_bound(const std::deque<Entry>& entries, std::uint32_t most_pages) {
  auto transaction = Transaction::begin(database_);
  if (!transaction) return std::move(transaction).error();
  std::int64_t pages = 0;
  for (const Entry& entry : entries) {
    const auto before = database_.read_number("PRAGMA page_count");
    if (!before) return Error(before.error());
    pages = *before;
    const auto written = write(entry);
    if (!written && trouble_of(written.error().code) != Trouble::kRefused) break;
  }
  return pages + kMostPagesOfAnEntry >= std::int64_t{most_pages};
}

Result<void> LedgerFile::add_analysis(const std::string& id, const std::string& run_id, WallTime at) {
  add_analysis_.bind(1, storable(id));
  add_analysis_.bind(2, format_iso8601(at));
  add_analysis_.bind(3, storable(run_id));
  return add_analysis_.run();
}

Result<void> LedgerFile::write(const EventRecord& event) {
  // With the registration only: an analysis that is deleted later stays deleted.
  if (event.kind == EventKind::kRegistered) {
    if (auto added = add_analysis(event.registered_as, "", event.occurred_at); !added) return added;
  }
  AW_FAILPOINT("ledger.insert-event");
  return insert_event_.run(event);
}

Result<void> LedgerFile::write(const BeginRun& begin) {
  AW_FAILPOINT("ledger.begin-run");
  if (auto added = add_analysis(begin.row.registered_as, begin.row.run_id, begin.row.registered_at); !added)
    return added;
  return upsert_run_.run(begin.row);
}

Result<void> LedgerFile::write(const ChangeRun& change) {
  AW_FAILPOINT("ledger.change-run");
  return upsert_run_.run(change.row);
}

Result<void> LedgerFile::write(const EndRun& end) {
  AW_FAILPOINT("ledger.end-run");
  end_run_.bind(1, storable(end.run_id));
  return end_run_.run();
}

Result<void> LedgerFile::write(const KeepSeries& keep) {
  AW_FAILPOINT("ledger.keep-series");
  return insert_series_.run(keep.row, keep.samples);
}

Result<Extent> LedgerFile::read_extent() {
  auto id = database_.read_text("SELECT id FROM watchdog_ledger");
  if (!id) return std::move(id).error();
  const auto first = database_.read_number("SELECT min(seq) FROM watchdog_events");
  if (!first) return Error(first.error());
  const auto newest = database_.read_number("SELECT max(seq) FROM watchdog_events");
  if (!newest) return Error(newest.error());
  return Extent{*std::move(id), *first, *newest};
}

Result<fs::path> set_aside(const fs::path& path, WallTime now) {
  const std::time_t clock = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
  std::tm parts{};
  ::gmtime_r(&clock, &parts);
  char stamp[32];
  (void)std::strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &parts);

  constexpr const char* kSuffixes[] = {"-journal", "-wal", "-shm", ""};  // The file itself last: while it has its name,
                                                                         // it is found damaged again.
  const auto taken = [&](const std::string& name) {
    std::error_code error;
    for (const char* suffix : kSuffixes) {
      if (fs::exists(fs::symlink_status(name + suffix, error))) return true;
    }
    return false;
  };
  const std::string plain = path.string() + ".corrupt-" + stamp;
  std::string name = plain;
  for (int i = 2; taken(name); ++i) name = plain + "." + std::to_string(i);

  for (const char* suffix : kSuffixes) {
    if (const int e = AW_FAILPOINT_ERRNO("ledger.set-aside", ENOSPC, EIO))
      return errno_error("rename " + path.string(), e);
    if (::rename((path.string() + suffix).c_str(), (name + suffix).c_str()) < 0 && (errno != ENOENT || *suffix == 0)) {
      return errno_error("rename " + path.string() + suffix);
    }
  }
  AW_FAILPOINT("ledger.was-set-aside");
  return fs::path(name);
}

}  // namespace aw::ledger
