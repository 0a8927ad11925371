// SPDX-License-Identifier: Apache-2.0
//
// What a run's cgroup carries about the run, as an extended attribute of its directory: written at once, without a
// disk, it outlives the daemon whatever becomes of it, and it goes with the cgroup. A daemon that starts anew knows by
// it what was being done, even where the ledger is damaged or had not been written yet.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "supervise/run.h"

namespace aw::supervise {

struct RunNote {
  RunRow row;  ///< as it was when the note was written
  std::string comm;
  std::string cmdline;
  unsigned generation = 1;           ///< of its scopes
  std::vector<ProcessKey> attached;  ///< besides the leader
  std::vector<ProcessKey> asked;     ///< that systemd was to move into a further scope, by pid
  Instant backstop = kNever;
  Bytes precharged;
  Bytes highest_unreclaimable;
  std::optional<Cause> cause;  ///< it is being ended
  Instant ending_since{};
  bool told = false;       ///< SIGTERM was sent
  bool escalated = false;  ///< cgroup.kill was written
  bool releasing = false;  ///< its processes are on their way out
  bool released = false;   ///< it is no run any more: its processes live on elsewhere
};

/// Text of one line per value. What is in it of the user's (labels, command line) can forge no line.
std::string format_note(const RunNote& note);
/// The inverse; an error names the line that is wrong. Lines of a later version are passed over.
Result<RunNote> parse_note(std::string_view text);

}  // namespace aw::supervise
