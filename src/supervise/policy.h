// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/bytes.h"
#include "base/time.h"
#include "supervise/limits.h"

namespace aw::supervise {

/// What anybody who is not an administrator may ask for, and what the host carries.
struct Caps {
  Bytes memory = Bytes::infinite();  ///< highest MemoryLimit
  Span wall_clock = kForever;        ///< highest WallClockLimitUSec
  Span grace = std::chrono::minutes{5};
  std::uint64_t tasks = kUnlimited;
  std::uint64_t analyses_per_user = 500;
  Bytes memory_per_user = Bytes::infinite();  ///< highest sum of the MemoryLimits of a user's live runs
  std::uint64_t tasks_per_user = kUnlimited;  ///< … of their TasksMax
  std::uint64_t analyses = 4000;  ///< on this host, administrators' included; they are refused at twice as many
};

/// How the orphan rule is applied.
struct OrphanRounds {
  Span interval = std::chrono::seconds{5};             ///< between two rounds over a run
  Span confirmation = std::chrono::milliseconds{500};  ///< from the first look to the second
};

/// When a tree that stalls for memory without passing its limit is ended (design D3.5).
struct StallRule {
  unsigned pressure_percent = 80;       ///< full memory pressure, mean over `time`, 1 to 100
  Span time = std::chrono::minutes{1};  ///< over which the mean is taken; kForever: never
};

/// How the curve of each run is drawn (sampler.h).
struct SeriesRule {
  Span interval = std::chrono::seconds{2};  ///< between two samples while memory moves; kForever: none is taken
  Span idle = std::chrono::minutes{1};      ///< … while it rests
  std::uint64_t points = 512;               ///< of one run, at most

  Span longest() const { return std::max(interval, idle); }
};

struct Policy {
  Caps caps;
  OrphanRounds orphans;
  StallRule stall;
  SeriesRule series{};
};

}  // namespace aw::supervise
