// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ledger/database.h"
#include "supervise/event_record.h"
#include "supervise/run_record.h"
#include "supervise/series.h"

namespace aw::ledger {

/// Which events a reader wants.
struct EventQuery {
  std::optional<WallTime> since = {};
  std::optional<WallTime> until = {};           ///< that moment included
  std::optional<std::string> analysis_id = {};  ///< as registered
  std::optional<std::string> run_id = {};       ///< with analysis_id: there is no index for it alone
  std::optional<Reason> reason = {};
  std::optional<EventKind> kind = {};
  std::optional<std::uint32_t> uid = {};  ///< that user's runs, and what is of nobody's
  std::size_t limit = 100;
};

/// The statement for it. To be bound: the texts in their order, then the limit.
struct EventSelect {
  std::string sql;
  std::vector<std::string> texts;
};
EventSelect select_events(const EventQuery& query);

struct StoredEvent {
  std::int64_t seq;
  supervise::EventRecord event;
};

/// A piece of the ledger, for who keeps a copy.
struct Outbox {
  std::string ledger_id;            ///< seq means something in this ledger only
  std::int64_t newest = 0;          ///< the newest event; 0 while there is none
  std::int64_t highest = 0;         ///< the highest number that was ever given: `newest` may have been pruned
  std::int64_t up_to = 0;           ///< the last that was looked at
  std::size_t unreadable = 0;       ///< that were looked at and are not among `events`
  std::vector<StoredEvent> events;  ///< in the order in which they were written
};

struct StoredSeries {
  std::int64_t change;
  supervise::SeriesRow row;
};

/// Curves that have changed.
struct ChangedSeries {
  std::int64_t highest = 0;  ///< the highest number of a change that was ever given
  std::int64_t up_to = 0;    ///< the last that was looked at; what can't be read is passed over
  std::vector<StoredSeries> series;
};

struct LiveRuns {
  std::vector<supervise::RunRow> rows;
  std::set<std::string> event_ids;  ///< of what is on record of them, of the kinds of supervise::kOncePerRun
};

/// How many runs were ended for one reason in a quarter of an hour; `exited` is no kill.
struct KillCount {
  std::string at;  ///< when that quarter began, as the column has it: "2026-11-03T14:15:00Z"
  std::string reason;
  std::uint64_t count;
};

/// Reads a ledger, whoever writes it meanwhile. Opens the file when it is first asked, and anew when another one has
/// taken its place. Fails where there is none. For one thread at a time; each call reads files.
class LedgerReader {
 public:
  explicit LedgerReader(std::filesystem::path path) : path_(std::move(path)) {}

  /// read_events() and count_kills() give up after this time, with errc::timed_out.
  void set_time_limit(Span limit) { time_limit_ = limit; }

  Result<std::vector<supervise::EventRecord>> read_events(const EventQuery& query);  ///< newest first
  /// The newest `count` in the order in which they were written, one by one. What was visited before a failure is no
  /// part that makes sense: the newest ones are missing.
  Result<void> visit_newest(std::size_t count, const std::function<void(const supervise::EventRecord&)>& take);
  /// Oldest first.
  Result<std::vector<KillCount>> count_kills(WallTime since);
  /// What follows `after`, in the order in which it was written: for who keeps a copy.
  Result<std::vector<StoredEvent>> read_events_after(std::int64_t after, std::size_t limit);
  /// The same with what it is a part of. Whatever takes the file's place meanwhile, it is all of one ledger.
  Result<Outbox> read_outbox(std::int64_t after, std::size_t limit);
  Result<std::int64_t> read_newest_seq();  ///< 0 while there is no event
  Result<std::string> read_ledger_id();    ///< the same as long as the ledger lives
  Result<std::vector<supervise::RunRow>> read_runs();
  Result<LiveRuns> read_live_runs();
  /// The curve of a run, as it was last kept; nothing where there is none that can be read.
  Result<std::optional<supervise::SeriesRow>> read_series(const std::string& run_id);
  /// What has changed after `after`, in that order, at most `limit`: for who keeps a copy.
  Result<ChangedSeries> read_series_after(std::int64_t after, std::size_t limit);

 private:
  Result<Database*> connection();
  /// Nothing where the file is older than curves are.
  Result<Database*> connection_with_series();

  std::filesystem::path path_;
  Span time_limit_ = kForever;
  std::optional<Database> database_;
};

}  // namespace aw::ledger
