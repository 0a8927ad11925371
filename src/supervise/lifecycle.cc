// SPDX-License-Identifier: Apache-2.0
#include "supervise/lifecycle.h"

#include "base/assert.h"

namespace aw::supervise {
namespace {

Step step_placing(Happening happening) {
  switch (happening) {
    case Happening::kPlaced:
      return {Phase::kRunning, {Action::kRecordRegistered, Action::kWatch}};
    case Happening::kPlaceFailed:
      return {Phase::kGone, {Action::kReplyPlaceFailed, Action::kForget}};
    case Happening::kCause:
      return {Phase::kStopWhilePlacing, {}};
    case Happening::kReleased:  // Nobody has its name yet but the one who waits for the registration.
    case Happening::kKernelKilled:
    case Happening::kGraceExpired:
    case Happening::kKillExpired:
    case Happening::kEmptied:  // The cgroup is new and empty until the placement is done.
      return {Phase::kPlacing, {}};
  }
  unreachable(happening);
}

Step step_stop_while_placing(Happening happening) {
  switch (happening) {
    case Happening::kPlaced:
      return {Phase::kEnding,
              {Action::kRecordRegistered, Action::kWatch, Action::kRecordEnding, Action::kLiftTripwire,
               Action::kSendTerm, Action::kArmGrace}};
    case Happening::kPlaceFailed:
      return {Phase::kGone, {Action::kReplyPlaceFailed, Action::kForget}};
    case Happening::kCause:
    case Happening::kReleased:
    case Happening::kKernelKilled:
    case Happening::kGraceExpired:
    case Happening::kKillExpired:
    case Happening::kEmptied:
      return {Phase::kStopWhilePlacing, {}};
  }
  unreachable(happening);
}

Step step_running(Happening happening) {
  switch (happening) {
    case Happening::kCause:
      return {Phase::kEnding, {Action::kRecordEnding, Action::kLiftTripwire, Action::kSendTerm, Action::kArmGrace}};
    case Happening::kKernelKilled:
      return {Phase::kKilling, {Action::kRecordEscalated, Action::kWriteKill, Action::kArmKillRetry}};
    case Happening::kEmptied:
      return {Phase::kEnded, {Action::kRecordEnd, Action::kForget}};
    case Happening::kReleased:
      return {Phase::kGone, {Action::kLetLive, Action::kForget}};
    case Happening::kPlaced:
    case Happening::kPlaceFailed:
    case Happening::kGraceExpired:
    case Happening::kKillExpired:
      return {Phase::kRunning, {}};
  }
  unreachable(happening);
}

Step step_ending(Happening happening) {
  switch (happening) {
    case Happening::kGraceExpired:
    case Happening::kKernelKilled:  // A breach that reaches the ceiling within its grace: the rest goes too.
      return {Phase::kKilling,
              {Action::kDisarmGrace, Action::kRecordEscalated, Action::kWriteKill, Action::kArmKillRetry}};
    case Happening::kEmptied:
      return {Phase::kEnded, {Action::kDisarmGrace, Action::kRecordEnd, Action::kForget}};
    case Happening::kPlaced:
    case Happening::kPlaceFailed:
    case Happening::kCause:
    case Happening::kKillExpired:
    case Happening::kReleased:  // Too late to let it live: the reason is on record.
      return {Phase::kEnding, {}};
  }
  unreachable(happening);
}

Step step_killing(Happening happening) {
  switch (happening) {
    case Happening::kEmptied:
      return {Phase::kEnded, {Action::kDisarmKillRetry, Action::kRecordEnd, Action::kForget}};
    case Happening::kKillExpired:
      return {Phase::kUnkillable, {Action::kReportUnkillable, Action::kWriteKill, Action::kArmKillRetry}};
    case Happening::kPlaced:
    case Happening::kPlaceFailed:
    case Happening::kCause:
    case Happening::kKernelKilled:
    case Happening::kGraceExpired:
    case Happening::kReleased:
      return {Phase::kKilling, {}};
  }
  unreachable(happening);
}

Step step_unkillable(Happening happening) {
  switch (happening) {
    case Happening::kEmptied:
      return {Phase::kEnded, {Action::kDisarmKillRetry, Action::kRecordEnd, Action::kForget}};
    case Happening::kKillExpired:
      return {Phase::kUnkillable, {Action::kWriteKill, Action::kArmKillRetry}};
    case Happening::kPlaced:
    case Happening::kPlaceFailed:
    case Happening::kCause:
    case Happening::kKernelKilled:
    case Happening::kGraceExpired:
    case Happening::kReleased:
      return {Phase::kUnkillable, {}};
  }
  unreachable(happening);
}

}  // namespace

Step step(Phase phase, Happening happening) {
  switch (phase) {
    case Phase::kPlacing:
      return step_placing(happening);
    case Phase::kStopWhilePlacing:
      return step_stop_while_placing(happening);
    case Phase::kRunning:
      return step_running(happening);
    case Phase::kEnding:
      return step_ending(happening);
    case Phase::kKilling:
      return step_killing(happening);
    case Phase::kUnkillable:
      return step_unkillable(happening);
    case Phase::kEnded:
    case Phase::kGone:
      return {phase, {}};
  }
  unreachable(phase);
}

}  // namespace aw::supervise
