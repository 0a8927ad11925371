// SPDX-License-Identifier: Apache-2.0
#include "supervise/event_history.h"

#include <algorithm>
#include <iterator>

#include "supervise/packed_event.h"

namespace aw::supervise {

namespace {
constexpr Span kDay = std::chrono::hours{24};
constexpr std::size_t kMaxKills = 1'000'000;  // A day of 11 kills a second; beyond that the count is a lower bound.
}  // namespace

void EventHistory::add(const EventRecord& event) {
  events_.push_back({event.occurred_at, event.kind, event.reason, event.uid, pack(event)});
  by_uid_[event.uid].push_back(std::prev(events_.end()));
  if (events_.size() > kCapacity) forget_one();
  if (event.kind == EventKind::kEnded && event.reason != Reason::kExited) {
    while (!kills_.empty() && kills_.front() + kDay < event.occurred_at) kills_.pop_front();
    kills_.push_back(event.occurred_at);
    if (kills_.size() > kMaxKills) kills_.pop_front();
  }
}

void EventHistory::forget_one() {
  const auto most = std::max_element(by_uid_.begin(), by_uid_.end(), [](const auto& one, const auto& other) {
    return one.second.size() < other.second.size();
  });
  events_.erase(most->second.front());
  most->second.pop_front();
  if (most->second.empty()) by_uid_.erase(most);
}

void EventHistory::visit(const EventFilter& filter, const std::function<bool(const EventRecord&)>& take) const {
  std::size_t taken = 0;
  for (auto it = events_.rbegin(); it != events_.rend() && taken < filter.limit; ++it) {
    if (filter.since && it->occurred_at < *filter.since) continue;
    if (filter.reason && it->reason != filter.reason) continue;
    if (filter.kind && it->kind != *filter.kind) continue;
    if (filter.visible && !filter.visible(it->uid)) continue;
    if (filter.analysis_id && packed_id(it->bytes) != *filter.analysis_id) continue;
    if (!take(unpack(it->bytes))) return;
    ++taken;
  }
}

std::uint32_t EventHistory::kills_last_24h(WallTime now) const {
  return static_cast<std::uint32_t>(
      std::count_if(kills_.begin(), kills_.end(), [&](WallTime when) { return when + kDay >= now; }));
}

}  // namespace aw::supervise
