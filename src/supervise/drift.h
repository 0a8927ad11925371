// SPDX-License-Identifier: Apache-2.0
//
// Whether the limits of a run are what systemd was told. Anybody with root can write to the files of its cgroup, or set
// a property of its slice, and daemon-reload undoes what was only written to a file: then a limit is none, and nothing
// says so.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "supervise/limits.h"

namespace aw::supervise {

/// What systemd would have a run's slice enforce.
struct SliceLimits {
  Bytes tripwire;
  Bytes ceiling;
  std::uint64_t tasks_max = kUnlimited;
  Span cpu_quota_per_second = kForever;
  std::optional<std::uint64_t> cpu_weight{};

  bool operator==(const SliceLimits&) const = default;
};

/// What the files of a run's cgroup say. A file that is not there (no swap, a controller that is off) or can't be read
/// is an absent value.
struct LimitsFound {
  std::optional<Bytes> tripwire;             ///< memory.high
  std::optional<Bytes> ceiling;              ///< memory.max
  std::optional<Bytes> swap;                 ///< memory.swap.max
  std::optional<std::uint64_t> tasks_max;    ///< pids.max
  std::optional<Span> cpu_quota_per_second;  ///< cpu.max
  std::optional<std::uint64_t> cpu_weight;   ///< cpu.weight
  /// memory.oom.group of each scope in it.
  std::vector<std::pair<std::string, bool>> scopes;
};

/// One value that is not what it should be. Sizes in bytes, the quota in microseconds per second, no limit is "max".
struct Drift {
  std::string file;   ///< "memory.max"; with the scope before it where it is a scope's
  std::string scope;  ///< empty: the slice's
  std::string found;
  std::string wanted;

  bool operator==(const Drift&) const = default;
};

inline constexpr char kGroupOomFile[] = "memory.oom.group";

/// What is not as `wanted`. While systemd has been told of new limits and has not answered, `before` is as good, value
/// by value. The kernel rounds memory down to pages and knows no number of tasks above 4194304; systemd chooses the
/// period of a quota, and rounds for it.
std::vector<Drift> find_drift(const LimitsFound& found, const SliceLimits& wanted,
                              const std::optional<SliceLimits>& before, Bytes page_size);

}  // namespace aw::supervise
