// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "analysis_watchdog/words.h"
#include "base/time.h"
#include "supervise/limits.h"
#include "supervise/orphan_rule.h"

namespace aw::supervise {

/// A live run as it is kept on disk: what a daemon that starts again must know of it. A row of watchdog_processes.
struct RunRow {
  std::string run_id;
  std::string registered_as;  ///< the analysis id
  std::string host;
  std::string boot_id;  ///< pids, start times and instants below are of this boot
  std::string unit;     ///< the scope that its processes are in now
  ProcessKey leader;
  std::optional<ProcessKey> owner;
  std::uint32_t uid = 0;
  Limits limits;
  WallTime registered_at{};
  std::optional<WallTime> deadline_at;  ///< none: it has no deadline
  Instant registered{};                 ///< the same two on CLOCK_MONOTONIC, which decides
  Instant deadline = kNever;
  State state = State::kPlacing;

  bool operator==(const RunRow&) const = default;
};

}  // namespace aw::supervise
