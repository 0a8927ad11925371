// SPDX-License-Identifier: Apache-2.0
//
// The record of this host, kept by a thread of its own: what is handed over is in one transaction on the disk a moment
// later, together with everything else that had come in by then, so that one fsync serves many events. Nobody waits
// for it. When the disk takes no writes the queue is kept and the thread tries again; when the file is damaged it is
// set aside and a new one begun.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "base/unique_fd.h"
#include "ledger/ledger_file.h"
#include "ledger/ledger_reader.h"

namespace aw::ledger {

struct LedgerOptions {
  std::filesystem::path path = {};
  std::size_t capacity = 100'000;  ///< entries that may wait; the last tenth is kept for those that end a run
  std::size_t most_bytes = std::size_t{64} << 20U;  ///< of text in them, roughly, with the same tenth
  Span patience = std::chrono::seconds{10};         ///< how long an entry may wait before that is a problem
  Span retry = std::chrono::seconds{1};             ///< between two attempts while the disk takes no writes
  std::optional<std::uint32_t> most_pages = {};     ///< bounds the file, in pages of 4 KiB; see most_pages_of()
};

/// For a file of that size; nothing for no bound. A file that is full by it loses its oldest events, of live runs
/// only changes, shipped or not, and a notice says how many.
std::optional<std::uint32_t> most_pages_of(Bytes size);

class Ledger {
 public:
  explicit Ledger(LedgerOptions options);  ///< returns at once; the file is opened by the thread
  ~Ledger();                               ///< writes what is queued, unless that fails, then ends
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Each queues one entry and returns at once. They are written in this order, an event only once whatever happens.
  /// While there is no room, further ones are lost, and counted. A tenth of the room is for what ends a run, so that
  /// nothing that a user may do at will (limits-changed, extended) keeps an end from being recorded.
  void write(const supervise::EventRecord& event);
  void begin_run(const supervise::RunRow& row);   ///< a row of watchdog_processes, and its analysis
  void change_run(const supervise::RunRow& row);  ///< the same row, changed; makes it where there is none
  void end_run(const std::string& run_id);        ///< the row goes; the events stay
  /// In place of what there is of that run. While half of the room is taken it is left out: events matter more.
  void keep_series(const supervise::SeriesRow& series);

  /// Has old events deleted, little by little, between what is written. Another order takes the place of one that is
  /// under way.
  void prune(const PruneOrder& order);

  /// How many entries were queued so far, and how many of those, the oldest ones, are durable or never will be.
  std::uint64_t accepted() const;
  std::uint64_t settled() const;
  std::uint64_t waiting() const;  ///< entries that are not durable yet
  std::uint64_t lost() const;     ///< entries that never will be: there were too many, or they were refused
  Extent extent() const;          ///< what is durable, as of the last write or prune
  /// The file is open, the last attempt to write succeeded, nothing has waited for longer than `patience` (a disk that
  /// hangs returns no error), and there is room to wait.
  bool healthy() const;
  std::string problem() const;  ///< a sentence; empty while healthy

  /// What should be said once: a damaged file that was set aside, an entry that was refused, entries that were lost.
  std::vector<std::string> take_notices();
  /// How many times another file had to be begun: the old one was damaged, removed or replaced. The live runs have to
  /// be written again then, by change_run().
  unsigned renewals() const;

  /// Has the thread read which runs are live, before it writes anything if it has not opened the file yet. For who
  /// could not wait for that; take_runs() has them when changed_fd() says that something has changed.
  void request_runs();
  std::optional<LiveRuns> take_runs();

  /// Whether the thread has come round since the last call, or is kept from it by the disk itself (uninterruptible
  /// sleep: starting anew would have to wait for the same disk); and asks it to come round again. True until the first
  /// attempt to open the file is over, which may have a large file to look through.
  bool take_beat();

  /// True once the first attempt to open the file is over, well or badly. For the start, which reads the ledger next.
  bool wait_until_opened(Span at_most);

  /// Readable once health has changed, something is to be noticed, a prune is done, or entries are settled;
  /// take_changed() makes it not so.
  int changed_fd() const { return changed_.get(); }
  void take_changed();

 private:
  enum class Attempt { kDone, kMore, kFailed };

  using Clock = std::chrono::steady_clock;

  struct Waiting {
    Entry entry;
    std::size_t bytes = 0;
    Clock::time_point since;
  };

  void push(Entry entry);
  // With mutex_ held.
  enum class Importance { kSeries, kUsual, kEndsRun };
  static Importance importance_of(const Entry& entry);
  bool has_room(Importance importance) const;
  std::optional<Span> overdue() const;  ///< for how long the oldest entry has waited, if that is too long
  void notify();
  void say(std::string notice);  // With mutex_ held.
  std::size_t waiting_now() const { return queue_.size() + in_flight_count_; }

  void run();
  Attempt attempt();
  Result<void> open();
  Result<void> commit();
  bool make_room();           ///< in a full file; false: there is none to be had
  void read_runs();           ///< if somebody wants them
  Result<bool> prune_some();  ///< true: there is more to prune
  void fail(Error error);
  void recover(const Error& damage);

  const LedgerOptions options_;
  const UniqueFd changed_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable opened_;
  std::deque<Waiting> queue_;
  std::size_t in_flight_count_ = 0;
  std::size_t in_flight_bytes_ = 0;
  Clock::time_point in_flight_since_;  ///< when the oldest of them came
  std::size_t waiting_bytes_ = 0;      ///< in the queue and in flight
  bool overdue_told_ = false;          ///< since the last write
  std::uint64_t settled_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t overflowed_ = 0;  ///< lost for want of room since the last notice
  std::string problem_;
  bool tried_ = false;  ///< the first attempt to open is over
  Extent extent_;
  unsigned renewals_ = 0;
  std::vector<std::string> notices_;
  std::optional<PruneOrder> prune_;
  bool runs_wanted_ = false;
  std::optional<LiveRuns> runs_;
  bool beat_wanted_ = false;
  pid_t thread_id_ = 0;
  bool stop_ = false;

  // The thread's own.
  std::optional<LedgerFile> file_;
  bool checked_ = false;  ///< the file was looked through
  std::deque<Entry> in_flight_;
  std::optional<Clock::time_point> last_set_aside_;
  std::thread thread_;
};

}  // namespace aw::ledger
