// SPDX-License-Identifier: Apache-2.0
#include "supervise/run.h"

#include "base/assert.h"

namespace aw::supervise {

State Run::state() const {
  switch (phase) {
    case Phase::kPlacing:
    case Phase::kStopWhilePlacing:
      return State::kPlacing;
    case Phase::kRunning:
      return State::kRunning;
    case Phase::kEnding:
    case Phase::kKilling:
    case Phase::kEnded:
    case Phase::kGone:
      return State::kEnding;
    case Phase::kUnkillable:
      return State::kUnkillable;
  }
  unreachable(phase);
}

std::string_view to_string(LimitOf limit_of) {
  switch (limit_of) {
    case LimitOf::kNone:
      return "none";
    case LimitOf::kRun:
      return "run";
    case LimitOf::kParent:
      return "parent";
    case LimitOf::kHost:
      return "host";
  }
  unreachable(limit_of);
}

LimitOf limit_of(Reason reason, const std::optional<Cause>& cause) {
  switch (reason) {
    case Reason::kWallClock:
    case Reason::kMemory:
    case Reason::kOom:
      return LimitOf::kRun;
    case Reason::kExternal:
      return cause ? cause->limit_of : LimitOf::kNone;
    case Reason::kExited:
    case Reason::kOrphaned:
    case Reason::kRequested:
    case Reason::kLost:
      return LimitOf::kNone;
  }
  unreachable(reason);
}

std::vector<ProcessKey> Run::roots() const {
  std::vector<ProcessKey> roots = attached;
  roots.insert(roots.end(), asked.begin(), asked.end());  // It is inside already, perhaps.
  roots.push_back(leader_key);
  return roots;
}

bool is_unanswered(const Result<void>& answer) {
  return !answer &&
         (answer.error().code == std::errc::protocol_error || answer.error().code == std::errc::connection_aborted);
}

bool says_gone(const Error& error) {
  return error.code == std::errc::no_such_device || error.code == std::errc::no_such_file_or_directory ||
         error.code == std::errc::no_such_process;
}

bool says_process_gone(const Error& error) { return error.code == std::errc::no_such_process; }

}  // namespace aw::supervise
