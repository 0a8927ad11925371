// SPDX-License-Identifier: Apache-2.0
#include "supervise/memory.h"

#include <algorithm>

namespace aw::supervise {

namespace {

/// `full` of `window` above `percent` of it. The kernel's counter and our clock are read one after the other, so the
/// stall may seem longer than the window.
bool above_share(Span full, Span window, unsigned percent) {
  return std::min(full, window).count() * 100 > window.count() * std::int64_t{percent};
}

}  // namespace

Bytes MemoryStat::unreclaimable() const { return anon + shmem + (kernel - slab_reclaimable) + sock; }

Bytes batching_slack(unsigned cpus, Bytes page_size) {
  constexpr std::uint64_t kPagesPerCpu = 64;  // MEMCG_CHARGE_BATCH in include/linux/memcontrol.h
  return std::max(Bytes(kPagesPerCpu * cpus * page_size.count()), kMiB + kMiB);
}

MemoryVerdict judge_memory(Bytes unreclaimable, Bytes precharged, Bytes limit, Bytes slack) {
  if (limit.is_infinite()) return MemoryVerdict::kInnocent;
  const Bytes allowed = limit - std::min(slack, limit / kLargestSlackShare);
  return unreclaimable + precharged > allowed ? MemoryVerdict::kBreach : MemoryVerdict::kInnocent;
}

bool StallDetector::observe(Instant now, MemoryPressure pressure, const MemoryStat& stat) {
  const std::uint64_t refaults = stat.workingset_refault_anon + stat.workingset_refault_file;
  if (!looks_.empty() && now - looks_.back().when < window_) return false;
  looks_.push_back({now, pressure.full_total, refaults});
  while (looks_.size() > 2 && now - looks_[1].when >= time_) looks_.pop_front();
  if (looks_.size() < 2) return false;

  const bool stalled = stalled_since(0);
  suspects_ = stalled || stalled_since(looks_.size() - 2);
  return stalled && now - looks_.front().when >= time_;
}

bool StallDetector::stalled_since(std::size_t first) const {
  std::size_t grown = 0;
  for (std::size_t i = first + 1; i < looks_.size(); ++i) grown += looks_[i].refaults > looks_[i - 1].refaults ? 1 : 0;
  const Look& then = looks_[first];
  const Look& now = looks_.back();
  return grown * 2 > looks_.size() - 1 - first &&
         above_share(now.full_total - then.full_total, now.when - then.when, percent_);
}

}  // namespace aw::supervise
