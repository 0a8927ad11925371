// SPDX-License-Identifier: Apache-2.0
//
// Memory readings and the verdict over them (design D3).
//
// Page cache is no crime: a tree that reads a large file sits at memory.high with thousands of `high` events, and
// its memory.peak is the limit. So memory.high is only a tripwire: it wakes us, and what counts is the memory that
// the kernel could not take back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

#include "base/bytes.h"
#include "base/time.h"
#include "supervise/limits.h"

namespace aw::supervise {

/// memory.events of a run: how often something happened since the cgroup was made (Documentation/admin-guide/
/// cgroup-v2.rst). Hierarchical: descendants count too.
struct MemoryEvents {
  std::uint64_t low = 0;
  std::uint64_t high = 0;      ///< throttled and made to reclaim because memory.high was passed
  std::uint64_t max = 0;       ///< about to pass memory.max; proves nothing, page cache does it too
  std::uint64_t oom = 0;       ///< an allocation failed at the limit of this cgroup or one below
  std::uint64_t oom_kill = 0;  ///< processes killed by any OOM killer. With oom.group 6.1 counts the victim twice
  std::uint64_t oom_group_kill = 0;
  bool operator==(const MemoryEvents&) const = default;
};

/// The keys of memory.stat that the verdict and the record need.
struct MemoryStat {
  Bytes anon;
  Bytes file;
  Bytes kernel;  ///< absent before 5.18: then the sum of its parts that are there
  Bytes sock;
  Bytes shmem;  ///< part of file, but nothing can take it back without swap
  Bytes slab_reclaimable;
  std::uint64_t workingset_refault_anon = 0;
  std::uint64_t workingset_refault_file = 0;

  /// anon + shmem + kernel - slab_reclaimable + sock.
  Bytes unreclaimable() const;
};

/// memory.pressure.
struct MemoryPressure {
  Span full_total{0};  ///< time in which all non-idle tasks of the cgroup stalled at once, since it was made
  Span some_total{0};  ///< … in which at least one did
};

/// How far the counters of the kernel may lag behind: 64 pages per CPU, at least 2 MiB.
Bytes batching_slack(unsigned cpus, Bytes page_size);

enum class MemoryVerdict { kInnocent, kBreach };

/// A slack takes at most this part of a limit: on a machine with many CPUs it may be larger than a small limit.
inline constexpr std::uint64_t kLargestSlackShare = 8;

/// Memory that is charged elsewhere, or has been freed there, up to this is not worth a change of the tripwire.
constexpr Bytes negligible_precharge(Bytes limit) { return limit / 16; }

/// A breach is unreclaimable memory (precharged memory of the run that is still charged elsewhere included) above
/// the limit less `slack`, or less an eighth of the limit if that is smaller. No limit, no breach.
MemoryVerdict judge_memory(Bytes unreclaimable, Bytes precharged, Bytes limit, Bytes slack);

/// Finds the tree that neither progresses nor dies: full memory pressure above a share of the last `stall_time`, with
/// refaults growing at most of the looks in it. Pressure alone proves nothing: throttling by memory.high raises it too.
/// Mean and most, not every: the counters come in bursts, and a tree that gets a page now and then is stalled all the
/// same.
class StallDetector {
 public:
  StallDetector(unsigned pressure_percent, Span stall_time)
      : percent_(pressure_percent),
        time_(stall_time),
        window_(std::max<Span>(kMinimumWindow, stall_time / kMostLooks)) {}

  /// One look; it is ignored if it comes within a window of the last. True once the last `stall_time` was a stall.
  bool observe(Instant now, MemoryPressure pressure, const MemoryStat& stat);

  /// The run left its tripwire: begin anew.
  void reset() { looks_.clear(); }

  /// Whether a stall is being timed, so that another look is wanted.
  bool suspects() const { return suspects_ && !looks_.empty(); }

  static constexpr Span kMinimumWindow = std::chrono::milliseconds{900};
  static constexpr int kMostLooks = 64;  ///< that are remembered; of a long stall time, only so many are taken

 private:
  struct Look {
    Instant when;
    Span full_total;
    std::uint64_t refaults;
  };
  bool stalled_since(std::size_t first) const;

  unsigned percent_;
  Span time_;
  Span window_;
  std::deque<Look> looks_;  ///< The oldest is the last one that is `time_` ago or more, if there is one.
  bool suspects_ = false;
};

}  // namespace aw::supervise
