// SPDX-License-Identifier: Apache-2.0
//
// What the heart needs from outside, in its own words. The real ones live in cgroup/, process/, systemd/ and
// journal/; testing/ has a small world with memory. A run's cgroup is a handle that the heart is given: it does not
// know whether a slice, a scope or a leaf of a delegated tree is behind it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "supervise/drift.h"
#include "supervise/event_record.h"
#include "supervise/limits.h"
#include "supervise/memory.h"
#include "supervise/orphan_rule.h"
#include "supervise/run_record.h"
#include "supervise/series.h"

namespace aw::supervise {

/// Names one run, never another one: counted up from 1, not reused. What arrives late for a run that ended finds
/// nothing under its key.
using RunKey = std::uint64_t;

/// Called from the loop when a request is done, or has failed; never from within the request itself.
using Done = std::function<void(Result<void>, const Now&)>;

/// True for the errors by which a held cgroup or process says that it is gone (ENODEV, ENOENT, ESRCH): an outcome.
bool says_gone(const Error& error);
/// True where a move says that it is the process that has gone (ESRCH), and not the cgroup that it was to go to.
bool says_process_gone(const Error& error);

/// True for the errors by which systemd has not said whether it did what it was asked for, or may do it yet.
bool is_unanswered(const Result<void>& answer);

/// Whether a cgroup is `path` or below it, both as /proc/PID/cgroup shows them.
inline bool is_within(const std::string& cgroup, const std::string& path) {
  return cgroup.starts_with(path) && (cgroup.size() == path.size() || cgroup[path.size()] == '/');
}

/// What the kernel has counted for a run, readable also when the run is over. A value that could not be read is
/// absent.
struct Counters {
  std::optional<Bytes> memory_current;
  std::optional<Bytes> memory_peak;  ///< page cache included
  std::optional<Span> cpu;
  std::optional<std::uint64_t> tasks;          ///< zombies included, other than in read_processes()
  std::optional<std::uint64_t> tasks_refused;  ///< forks that failed at the task limit (pids.events)
};

/// What a sample of a run is made of.
struct Gauge {
  Bytes memory_current;
  MemoryStat memory;
  Span cpu{0};
  std::uint64_t tasks = 0;  ///< threads and zombies included
};

/// One run's cgroup, held by descriptor: no path is resolved again, so a cgroup that was made anew under the same
/// name is never meant.
class RunCgroup {
 public:
  virtual ~RunCgroup() = default;
  virtual const std::string& path() const = 0;  ///< below the cgroup root, as /proc/PID/cgroup shows it; to compare
  virtual Result<MemoryEvents> read_memory_events() const = 0;
  virtual Result<MemoryStat> read_memory_stat() const = 0;
  virtual Result<MemoryPressure> read_memory_pressure() const = 0;
  virtual Result<bool> read_populated() const = 0;
  /// All processes of all its scopes, ascending, each once. Zombies are not among them.
  virtual Result<std::vector<pid_t>> read_processes() const = 0;
  virtual Counters read_counters() const = 0;
  /// From files that stay open after the first time, so that it costs a few reads and nothing else.
  virtual Result<Gauge> read_gauge() const = 0;
  virtual Result<LimitsFound> read_limits() const = 0;   ///< an error only where the cgroup is gone
  virtual Result<void> write_tripwire(Bytes limit) = 0;  ///< memory.high, at once; lasts until systemd writes its own
  /// The files of the slice, all of them, the tripwire first; as long as write_tripwire(). Each is tried; the first
  /// error is told.
  virtual Result<void> write_limits(const SliceLimits& limits) = 0;
  /// memory.oom.group of one of its scopes: the kernel kills it whole or not at all.
  virtual Result<void> write_group_oom(const std::string& scope) = 0;
  virtual Result<void> write_kill() = 0;  ///< cgroup.kill: atomic, includes forks
  virtual Result<void> write_thaw() = 0;
  /// Text that the cgroup carries as long as it is there: what a daemon after this one must know (run_note.h).
  virtual Result<void> write_note(const std::string& note) = 0;
  virtual Result<std::string> read_note() const = 0;
  /// When the last scope in it was removed, or a bit before; nothing where it has had a note for a shorter time.
  virtual std::optional<WallTime> find_last_removal() const = 0;
};

/// A cgroup above the runs, whose limit is not theirs.
struct Ancestor {
  std::string path;        ///< as /proc/PID/cgroup shows it
  std::uint64_t ooms = 0;  ///< how often an allocation has failed at a limit of its own since it was made
};

class Cgroups {
 public:
  virtual ~Cgroups() = default;
  /// Opens the cgroup of a run whose placement is done and begins to watch it: each change of its event files, and
  /// at least every change that matters after the last read, is told as Supervisor::on_cgroup_changed(key).
  /// Dropping the handle ends the watch.
  virtual Result<std::unique_ptr<RunCgroup>> open(RunKey key, const std::string& slice) = 0;
  /// Moves one process into a scope of a run. Gone processes are an error that says_gone().
  virtual Result<void> move(pid_t pid, const std::string& slice, const std::string& scope) = 0;
  /// The slices of runs that are there, whoever made them.
  virtual Result<std::vector<std::string>> list_slices() const = 0;
  /// Where the cgroup of a slice is, or would be, as /proc/PID/cgroup shows it.
  virtual std::string path_of(const std::string& slice) const = 0;
  /// Moves one process to the cgroup that it came from, `path` as /proc/PID/cgroup showed it.
  virtual Result<void> put_back(pid_t pid, const std::string& path) = 0;
  /// What is above the runs, from their parent up; without the root, which has no limit. What can't be read is left
  /// out.
  virtual std::vector<Ancestor> read_ancestors() const = 0;
};

/// The notes (run_note.h) of runs that systemd was asked to place and has not said it did, by run id: several may be
/// for one slice. systemd may do that after the daemon has died, and by then the pid that it was given may be
/// another's. They outlive the daemon, not the boot.
class Placements {
 public:
  virtual ~Placements() = default;
  /// Where that fails, only a crash before the placement is confirmed makes a difference.
  virtual void write(const std::string& run_id, const std::string& note) = 0;
  virtual std::optional<std::string> read(const std::string& run_id) const = 0;
  virtual void remove(const std::string& run_id) = 0;
  virtual std::vector<std::string> list() const = 0;  ///< the runs that have one
};

/// A process held by pidfd: signals go to it and to no other, whoever gets its pid later.
class ProcessHandle {
 public:
  virtual ~ProcessHandle() = default;
  virtual ProcessKey key() const = 0;
  virtual int pidfd() const = 0;
  virtual bool alive() const = 0;
  virtual Result<void> signal(int signal) = 0;
  /// `ended` is called once, from the loop, when the whole thread group is gone; dropping the handle cancels it.
  virtual Result<void> watch(std::function<void(const Now&)> ended) = 0;
};

/// Command lines that have been asked for and come in one by one: reading one waits for a lock of the process's own,
/// which may never be free, so nobody who decides waits for it.
class Cmdlines {
 public:
  virtual ~Cmdlines() = default;
  /// The one of `pid`, empty if it can't be had; nothing as long as it has not come.
  virtual std::optional<std::string> find(pid_t pid) const = 0;
};

/// What is asked of the memory of processes and comes when it comes: the kernel walks page tables for it under the
/// process's own lock, some milliseconds for each GiB where that is free.
class AnonymousShares {
 public:
  virtual ~AnonymousShares() = default;
  virtual Bytes known() const = 0;    ///< of those that have come, together; who is gone by then has nothing
  virtual bool complete() const = 0;  ///< all have come
};

/// What could be learnt of the processes of a run within a fixed time.
struct ProcessSurvey {
  std::vector<ProcessSummary> largest;  ///< first; at most kMaxProcesses of those that were looked at
  std::size_t looked_at = 0;
  std::shared_ptr<const Cmdlines> cmdlines;  ///< of the largest; those that came at once are with them already
};

class Processes {
 public:
  virtual ~Processes() = default;
  /// A handle on the process that has this pid now.
  virtual Result<std::unique_ptr<ProcessHandle>> open(pid_t pid) = 0;
  virtual Result<std::unique_ptr<ProcessHandle>> adopt(int pidfd) = 0;  ///< takes over a client's pidfd
  virtual std::optional<ProcessStat> find_stat(pid_t pid) const = 0;
  /// The same for who must know why there is none: an error that says_gone(), or one that says nothing of the process.
  virtual Result<ProcessStat> read_stat(pid_t pid) const = 0;
  virtual std::vector<ProcessStat> read_all() const = 0;
  virtual bool has_children(pid_t pid) const = 0;                       ///< true also where it can't be known
  virtual std::optional<std::string> find_cgroup(pid_t pid) const = 0;  ///< as /proc/PID/cgroup shows it
  virtual std::optional<uid_t> find_uid(pid_t pid) const = 0;
  /// For the record; empty if it can't be had at once.
  virtual std::string read_cmdline(pid_t pid) const = 0;
  virtual std::string read_wait_channel(pid_t pid) const = 0;
  /// Resident memory that is no file's. What it shares with relatives by copy-on-write counts in full.
  virtual Bytes read_anonymous(pid_t pid) const = 0;
  /// The same, but of what is shared only its part.
  virtual std::shared_ptr<const AnonymousShares> request_anonymous_shares(std::span<const pid_t> pids) const = 0;
  /// Looks at `pids` in their order, and stops when its time is over: a few milliseconds for all of it, however many
  /// there are and whatever they do.
  virtual ProcessSurvey survey(std::span<const pid_t> pids) const = 0;
  /// Sends the signals, in order, to `pid` if it is in the cgroup `path` (or below) while we hold it by pidfd.
  virtual Result<void> signal_member(pid_t pid, const std::string& path, std::span<const int> signals) = 0;
  /// Our own pid, and whatever else must never be registered: a sentence that names it, or nothing.
  virtual std::optional<std::string> why_protected(pid_t pid) const = 0;
};

/// What a scope is made of.
struct ScopeOrder {
  std::string scope;
  std::string slice;
  const ProcessHandle* process = nullptr;  ///< alive as long as the request
  Span runtime_max = kForever;             ///< the backstop; kForever: none
  Span stop_timeout{0};
  bool kill_whole_on_oom = true;
  std::string description;
};

/// A job of systemd's for one of our units that somebody else asked for.
enum class ManagerJob {
  kStop,
  kOver,  ///< it ended before it could be asked what it was: a stop, if the cgroup is empty now
};

/// Makes, changes and removes the units of runs. Every call returns at once.
class Placer {
 public:
  virtual ~Placer() = default;
  /// A new slice with limits, and the first scope in it. An error is std::errc::file_exists if there are units of these
  /// names that are not ours, std::errc::operation_canceled if the units were made but not started; with any other
  /// error nothing was made.
  virtual void request_place(const ScopeOrder& scope, const SliceLimits& limits, Done done) = 0;
  /// A further scope in a slice that is there.
  virtual void request_scope(const ScopeOrder& scope, Done done) = 0;
  virtual void request_limits(const std::string& slice, const SliceLimits& limits, Done done) = 0;
  /// Stops the slice (and with it whatever is still in it).
  virtual void request_remove(const std::string& slice, Done done) = 0;
  /// Asks systemd to stop one scope, e.g. a placement that came to nothing.
  virtual void request_stop(const std::string& unit, Done done) = 0;
  using Units = std::function<void(const Result<std::set<std::string>>&, const Now&)>;
  /// The units of runs that systemd has started and not stopped.
  virtual void request_units(Units done) = 0;
  /// Done when everything that systemd had told us before this call has been delivered. An error: nobody knows.
  virtual void request_settled(Done done) = 0;
  /// The slice in which released trees live on, and runs' slices live.
  virtual const std::string& parent_slice() const = 0;
};

/// Takes the record of an event, and of what a live run is: what a daemon after this one must know of it. Each call
/// returns at once: nothing on the kill path waits for a disk. They are kept in the order of the calls.
class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual void record(const EventRecord& event) = 0;
  virtual void begin_run(const RunRow& row) = 0;
  virtual void change_run(const RunRow& row) = 0;
  virtual void end_run(const std::string& run_id) = 0;
  /// In place of what was kept of that run's curve before. While there is too much to write it may be left out.
  virtual void keep_series(const SeriesRow& series) = 0;
  /// Calls `kept` once all that was recorded before this call is on the disk; while the disk takes no writes, later.
  virtual void when_kept(std::function<void(const Now&)> kept) = 0;
  /// Why nothing can be kept for good at present, in a sentence; nothing while it can.
  virtual std::optional<std::string> find_problem() const = 0;
};

/// New UUIDs, and who we are.
class Identity {
 public:
  virtual ~Identity() = default;
  virtual std::string new_uuid() = 0;
  virtual const std::string& host() const = 0;
  virtual const std::string& boot_id() const = 0;
};

}  // namespace aw::supervise
