// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/time.h"
#include "ledger/database.h"
#include "ledger/prune.h"
#include "ledger/rows.h"
#include "supervise/event_record.h"
#include "supervise/run_record.h"

namespace aw::ledger {

struct BeginRun {
  supervise::RunRow row;
};
struct ChangeRun {
  supervise::RunRow row;
};
struct EndRun {
  std::string run_id;
};

struct KeepSeries {
  supervise::SeriesRow row;  ///< without its samples
  std::string samples;       ///< which are these, as encode_series() has them
};

/// One thing to be written.
using Entry = std::variant<supervise::EventRecord, BeginRun, ChangeRun, EndRun, KeepSeries>;

/// What of the ledger is durable.
struct Extent {
  std::string ledger_id;
  std::int64_t first = 0;   ///< the oldest event that has not been pruned; 0 while there is none
  std::int64_t newest = 0;  ///< the newest

  /// How many events there may be above `seq`.
  std::uint64_t above(std::int64_t seq) const {
    return newest == 0 || newest <= seq ? 0 : static_cast<std::uint64_t>(newest - std::max(seq, first - 1));
  }
};

/// Looks the file through for damage, for two seconds at most: of a large one only the beginning, and the rest is
/// found when it is come upon.
Result<void> look_for_damage(const std::filesystem::path& path);

/// The file that is written, opened by its one keeper. Each call waits for the disk.
class LedgerFile {
 public:
  /// Makes the file where there is none, brings its schema up to date and sees whether it takes a write. `most_pages`
  /// bounds the file; beyond it the file is full, as if the disk were.
  static Result<LedgerFile> open(const std::filesystem::path& path, std::optional<std::uint32_t> most_pages);

  /// Writes `entries` in one transaction, durable when it returns. An entry that is refused for its own sake is left
  /// out, and a sentence about it is returned. After an error nothing or all of it is there; to write it again changes
  /// nothing.
  Result<std::vector<std::string>> commit(const std::deque<Entry>& entries);

  /// Whether it is the bound of the file that commit() of these has come upon, and not that of the disk. Writes
  /// nothing.
  Result<bool> exceeds_bound(const std::deque<Entry>& entries, std::uint32_t most_pages);

  Result<Extent> read_extent();

  Result<PruneStep> prune_step(const PruneOrder& order) { return ledger::prune_step(database_, order); }

  Result<std::int64_t> prune_oldest(std::uint32_t most_pages) { return ledger::prune_oldest(database_, most_pages); }

  bool has_moved() const { return database_.has_moved(); }
  /// Nothing is written any more, not even by closing it.
  void forget() { database_.forget(); }

 private:
  LedgerFile(Database database, EventInsert events, RunUpsert runs, SeriesInsert series, Statement end,
             Statement analysis)
      : database_(std::move(database)),
        insert_event_(std::move(events)),
        upsert_run_(std::move(runs)),
        insert_series_(std::move(series)),
        end_run_(std::move(end)),
        add_analysis_(std::move(analysis)) {}

  Result<void> write(const Entry& entry) {
    return std::visit([this](const auto& what) { return write(what); }, entry);
  }
  Result<void> write(const supervise::EventRecord& event);
  Result<void> write(const BeginRun& begin);
  Result<void> write(const ChangeRun& change);
  Result<void> write(const EndRun& end);
  Result<void> write(const KeepSeries& keep);
  Result<void> add_analysis(const std::string& id, const std::string& run_id, WallTime at);

  Database database_;  // Before the statements, which it outlives.
  EventInsert insert_event_;
  RunUpsert upsert_run_;
  SeriesInsert insert_series_;
  Statement end_run_;
  Statement add_analysis_;
};

/// Renames the ledger and what belongs to it to NAME.corrupt-YYYYmmddTHHMMSSZ, beside any earlier one. The new name.
Result<std::filesystem::path> set_aside(const std::filesystem::path& path, WallTime now);

}  // namespace aw::ledger
