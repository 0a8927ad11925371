// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "analysis_watchdog/words.h"
#include "base/analysis_id.h"
#include "supervise/evidence.h"
#include "supervise/lifecycle.h"
#include "supervise/memory.h"
#include "supervise/ports.h"
#include "supervise/timer_wheel.h"

namespace aw::supervise {

/// What a run's timer is for. Each run has at most one armed timer of each purpose.
enum class Purpose : std::uint32_t {
  kDeadline,
  kGrace,
  kKillRetry,
  kMemoryLook,
  kMercyProperty,  ///< tell systemd of a lifted tripwire, if the run still lives
  kOrphanRound,
  kOrphanConfirm,
  kOrphanKill,
  kLeaderConfirm,  ///< the leader ended a moment ago: are processes left?
  kOwnerConfirm,
  kEmptyConfirm,  ///< the cgroup is empty, but the leader has not said so
  kDriftRound,    ///< are its limits still there?
  kKernelKill,    ///< the kernel has killed a scope a moment ago: is anything left?
  kUnreaped,      ///< of no run: have those that ended left zombies?
  kAdoptAgain,    ///< of no run: what could not be watched at the start is tried again
  kSweep,         ///< of no run: are there slices that nobody accounts for?
  kPulse,         ///< of no run: somebody wants to know whether the wheel turns
  kLateRounds,    ///< of no run: rounds have waited for too long for the loop to have nothing else to do
};
inline constexpr std::size_t kPurposes = 18;

/// What a run has told of its memory so far.
struct MemoryWatchState {
  MemoryEvents last_events;
  Bytes unreclaimable;                  ///< at the last look
  Bytes highest_unreclaimable;          ///< of all looks
  Bytes precharged;                     ///< memory of a registered tree that is charged to where it came from
  Instant next_look{};                  ///< an earlier look at memory.stat is put off to here
  std::optional<Limits> still_held_to;  ///< by systemd: lower ones came when it had more, and it is ended for that
  StallDetector stall;
  /// As long as it is not known what was precharged. A daemon that takes the run over does not ask again.
  std::shared_ptr<const AnonymousShares> precharge_asked = nullptr;
  Bytes precharge_known{};  ///< of that, before the processes were moved
  Bytes elsewhere{};        ///< of what is precharged, what was still there at the last look
};

/// Orphans beside a living leader.
struct OrphanState {
  std::vector<ProcessKey> suspects;        ///< seen once
  std::map<ProcessKey, Instant> reported;  ///< confirmed and on record, and when it is killed (kNever: it lives)
  std::uint32_t count = 0;                 ///< at the last round
  std::vector<ProcessKey> members;         ///< at the last round, ascending; at first the roots
  std::vector<ProcessKey> escaped;         ///< were members, and live elsewhere
};

/// What is known of the limits that the run's cgroup has.
struct LimitWatchState {
  std::optional<SliceLimits> in_force;  ///< what systemd has taken last
  unsigned telling = 0;                 ///< requests to it that are not answered yet
  bool mercy_due = false;               ///< the tripwire is lifted, and systemd is told of it in a moment
  bool written = false;                 ///< somebody has, since the last look
  Instant next_look = kNever;
  std::string lost_unit;               ///< systemd has it no more, and processes were in it; empty: none
  std::optional<Instant> restored_at;  ///< the last time
  /// What was put on record, by file and value found, and when: somebody who fights is reported now and then.
  std::map<std::pair<std::string, std::string>, Instant> reported;
  std::uint64_t unreported = 0;  ///< restorations since the last record, with the one that it is of
};

/// Whose limit an end was for.
enum class LimitOf { kNone, kRun, kParent, kHost };
std::string_view to_string(LimitOf limit_of);  ///< "none", "run", "parent", "host"

/// Who asked for an end, as it was then.
struct Requester {
  uid_t uid = 0;
  pid_t pid = 0;     ///< 0: not known
  std::string comm;  ///< empty: not known
};

/// Who or what set the end going.
struct Cause {
  Reason reason;
  std::string detail;                    ///< for the record: "the owner died", "asked by uid 1000", …
  bool term_sent_elsewhere = false;      ///< systemd is stopping the scope and has sent SIGTERM itself
  LimitOf limit_of = LimitOf::kNone;     ///< of an end that the kernel made for another's limit; the rest follows
  std::string limit_cgroup{};            ///< … whose it was, if it was a parent's
  std::optional<Requester> requester{};  ///< none: nobody asked, or systemd did
  std::string moved_to{};                ///< the cgroup that the leader was moved out to: nobody has killed anything
};

/// Whose limit it was when a run has ended for `reason`.
LimitOf limit_of(Reason reason, const std::optional<Cause>& cause);

/// How the leader ended, as far as it can be known.
struct LeaderEnd {
  bool ended = false;
  std::optional<int> wait_status;  ///< as wait(2) gives it, read from the zombie
};

/// One registration of an analysis, from the request to the end.
struct Run {
  Run(RunKey run_key, AnalysisId analysis_id, StallDetector detector)
      : key(run_key), id(std::move(analysis_id)), memory{{}, {}, {}, {}, {}, {}, detector} {}

  RunKey key;
  AnalysisId id;
  std::string run_id;
  uid_t uid = 0;
  Limits limits;
  std::string slice;
  std::string scope;        ///< where its processes are now
  unsigned generation = 1;  ///< of scopes; the next further one has this + 1

  Phase phase = Phase::kPlacing;
  std::optional<Cause> cause;
  std::optional<Evidence> evidence;  ///< of the decision; none as long as there is none

  std::unique_ptr<ProcessHandle> leader;
  ProcessKey leader_key;
  std::string origin;  ///< the cgroup that the leader was in before it was registered
  LeaderEnd leader_end;
  std::unique_ptr<ProcessHandle> owner;  ///< none: pid 1, a manager, or not wanted
  std::vector<ProcessKey> attached;
  std::vector<ProcessKey> asked;  ///< that systemd was given the pids of, for a further scope, and has not answered for
  std::string comm;               ///< the leader's, renewed as long as it can be read
  std::string cmdline;
  std::vector<pid_t> largest;  ///< of a large tree: where its memory was at the last round

  Instant registered_at{};
  WallTime registered_real{};
  Instant deadline = kNever;
  Instant backstop = kNever;  ///< when systemd would end the scope

  std::unique_ptr<RunCgroup> cgroup;
  MemoryWatchState memory;
  OrphanState orphans;
  LimitWatchState limit_watch;
  bool emptied = false;
  bool settling = false;         ///< empty, and waiting for what systemd may have to say about it
  bool rehousing = false;        ///< its processes are on their way into another scope
  bool changing = false;         ///< its limits are being set
  unsigned attaching = 0;        ///< processes on their way into it
  bool releasing = false;        ///< … and out of our hands: its limits are void already
  std::optional<Cause> put_off;  ///< came up while releasing; counts if that fails
  bool release_begun = false;    ///< by a daemon before this one: systemd may have let somebody out, or do it yet
  std::optional<std::uint64_t> sampled_tasks;  ///< when its processes were counted last for a sample
  std::uint32_t sampled_processes = 0;
  Instant counted{};
  Instant ending_since{};
  bool told = false;  ///< SIGTERM was sent
  bool escalated = false;
  std::string kill_problem;  ///< why cgroup.kill did not work; empty: it did, or was not needed
  bool unseen = false;       ///< it ended while no daemon watched
  std::optional<int> signal;
  std::array<TimerHandle, kPurposes> timers{};

  /// What the bus and the tools call it.
  State state() const;
  /// No further cause can change anything, and nothing is left to kill.
  bool over() const { return phase == Phase::kEnded || phase == Phase::kGone; }
  std::vector<ProcessKey> roots() const;
  /// Its units' Description=.
  std::string describe() const { return limits.description.empty() ? "Analysis " + id.text() : limits.description; }
};

}  // namespace aw::supervise
