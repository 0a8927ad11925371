// SPDX-License-Identifier: Apache-2.0
//
// Records as rows and back. What is in a column, and its name, comes from supervise::visit_fields().
//
// Text that is no UTF-8, or holds a NUL, would be refused by whoever reads it next (JSON, PostgreSQL, D-Bus): such
// bytes become U+FFFD, as they do in the record of a command line. A size that does not fit into 63 bits is no limit,
// as is a time span on the bus.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "ledger/database.h"
#include "supervise/event_record.h"
#include "supervise/run_record.h"
#include "supervise/series.h"

namespace aw::ledger {

/// "2026-11-03T14:05:09.123456Z", as format_iso8601() writes it.
std::optional<WallTime> parse_iso8601(std::string_view text);

/// `text` with U+FFFD for each NUL and each byte that is no UTF-8.
std::string storable(std::string_view text);

/// Writes events. An event id that is in the table already changes nothing.
class EventInsert {
 public:
  static Result<EventInsert> prepare(Database& database);
  Result<void> run(const supervise::EventRecord& event);

 private:
  explicit EventInsert(Statement statement);
  Statement statement_;
  std::map<std::string, int, std::less<>> parameters_;  ///< by field name
};

/// Writes rows of watchdog_processes, new ones and changed ones.
class RunUpsert {
 public:
  static Result<RunUpsert> prepare(Database& database);
  Result<void> run(const supervise::RunRow& row);

 private:
  explicit RunUpsert(Statement statement) : statement_(std::move(statement)) {}
  Statement statement_;
};

/// Writes rows of watchdog_series.
class SeriesInsert {
 public:
  static Result<SeriesInsert> prepare(Database& database);
  /// `samples` as encode_series() makes them, in place of those in `row`. Of one that continues, what is there of an
  /// earlier time stays in front of it; to write it again changes nothing.
  Result<void> run(const supervise::SeriesRow& row, const std::string& samples);

 private:
  SeriesInsert(Statement find, Statement insert) : find_(std::move(find)), insert_(std::move(insert)) {}
  Result<std::vector<supervise::Sample>> read_before(const std::string& run_id);

  Statement find_;
  Statement insert_;
};

/// The columns that to_series() reads; "change" is the first.
extern const char kSeriesColumns[];
/// Nothing for a row that this version can't understand.
std::optional<supervise::SeriesRow> to_series(const Statement& row);

/// The columns that to_event() reads, in its order; "seq" is the first.
extern const char kEventColumns[];
/// Nothing for an event of a kind or reason that this version does not know.
std::optional<supervise::EventRecord> to_event(const Statement& row);

extern const char kRunColumns[];
/// Nothing for a row that this version can't understand.
std::optional<supervise::RunRow> to_run(const Statement& row);

}  // namespace aw::ledger
