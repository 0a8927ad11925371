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

std::vector<ProcessKey> Run::roots() const {
  std::vector<ProcessKey> roots = attached;
  roots.push_back(leader_key);
  return roots;
}

bool says_gone(const Error& error) {
  return error.code == std::errc::no_such_device || error.code == std::errc::no_such_file_or_directory ||
         error.code == std::errc::no_such_process;
}

}  // namespace aw::supervise
