// SPDX-License-Identifier: Apache-2.0
//
// The life of a run, as a function.
//
//   Placing ──Placed──▶ Running ──Cause──▶ Ending ──GraceExpired──▶ Killing ──KillExpired──▶ Unkillable
//      │ │                 │  │               │                        │                         │
//      │ └──Cause──▶ StopWhilePlacing         │                        │                         │
//      │                 │ Placed: Ending     │                        │                         │
//      │                 │  │                 │                        │                         │
//      │ PlaceFailed     │  └─Released─▶ Gone │ Emptied                │ Emptied                 │ Emptied
//      └──▶ Gone ◀───────┘     Running ──Emptied──▶ Ended ◀────────────┴─────────────────────────┘
//
// Invariants
//  - Ended and Gone are final. Ended is entered only when the cgroup is empty, and records the one end of the run;
//    Gone is a registration that never came to be (PlaceFailed) or was undone by its owner (Released).
//  - The first cause wins: once a run is ending, later causes change nothing.
//  - A grace is armed exactly while the phase is Ending, a retry exactly while it is Killing or Unkillable.
//  - Every event is legal in every phase. Events repeat and arrive late, because inotify merges them and PID 1 answers
//    when it likes; an event with nothing to say is ignored.
#pragma once

#include <array>
#include <initializer_list>

namespace aw::supervise {

enum class Phase { kPlacing, kStopWhilePlacing, kRunning, kEnding, kKilling, kUnkillable, kEnded, kGone };
inline constexpr std::array kAllPhases{Phase::kPlacing, Phase::kStopWhilePlacing, Phase::kRunning, Phase::kEnding,
                                       Phase::kKilling, Phase::kUnkillable,       Phase::kEnded,   Phase::kGone};

enum class Happening {
  kPlaced,        ///< the scope is there, its members verified, the limits in force
  kPlaceFailed,   ///< it is not, and will not be
  kCause,         ///< a limit was passed, an owner died, somebody asked: there is a reason to end it
  kKernelKilled,  ///< the kernel killed one scope of the run at its ceiling; the rest must not live on
  kGraceExpired,
  kKillExpired,  ///< cgroup.kill was written a while ago and processes are still there
  kEmptied,      ///< the cgroup has no process any more
  kReleased,     ///< unregistered: the tree lives on without us
};
inline constexpr std::array kAllHappenings{Happening::kPlaced,       Happening::kPlaceFailed,  Happening::kCause,
                                           Happening::kKernelKilled, Happening::kGraceExpired, Happening::kKillExpired,
                                           Happening::kEmptied,      Happening::kReleased};

enum class Action {
  kRecordRegistered,
  kWatch,         ///< deadline, tripwire, orphan rounds
  kRecordEnding,  ///< the intent with its evidence, before the act
  kLiftTripwire,  ///< so that a handler can finish (design D3.3)
  kSendTerm,      ///< thaw, SIGTERM, SIGCONT
  kArmGrace,
  kDisarmGrace,
  kRecordEscalated,
  kWriteKill,  ///< cgroup.kill
  kArmKillRetry,
  kDisarmKillRetry,
  kReportUnkillable,
  kRecordEnd,
  kReplyPlaceFailed,
  kForget,   ///< watches, timers, handles, units: nothing is left behind
  kLetLive,  ///< every limit lifted, record "unregistered"
};

/// The actions of one step, in order. A fixed array: a step allocates nothing.
class Actions {
 public:
  constexpr Actions(std::initializer_list<Action> actions) {  // NOLINT(google-explicit-constructor)
    for (const Action action : actions) items_.at(count_++) = action;
  }
  constexpr const Action* begin() const { return items_.data(); }
  constexpr const Action* end() const { return items_.data() + count_; }
  constexpr std::size_t size() const { return count_; }

 private:
  std::array<Action, 8> items_{};
  std::size_t count_ = 0;
};

struct Step {
  Phase next;
  Actions actions;
};

/// What `happening` means to a run in `phase`. Pure: the caller carries out the actions in order.
Step step(Phase phase, Happening happening);

}  // namespace aw::supervise
