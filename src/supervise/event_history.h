// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "supervise/event_record.h"

namespace aw::supervise {

/// Which events a reader wants.
struct EventFilter {
  std::optional<WallTime> since;
  std::optional<std::string> analysis_id;
  std::optional<Reason> reason;
  std::optional<EventKind> kind;
  std::size_t limit = 100;
  std::function<bool(const EventRecord&)> visible;  ///< unset: all
};

/// The events that the daemon remembers since it started: the newest kCapacity of them.
class EventHistory {
 public:
  static constexpr std::size_t kCapacity = 10000;

  void add(const EventRecord& event);

  /// Those that the filter lets through, newest first.
  std::vector<const EventRecord*> find(const EventFilter& filter) const;

  /// Ends within the 24 hours before `now` that were not `exited`.
  std::uint32_t kills_last_24h(WallTime now) const;

 private:
  std::deque<EventRecord> events_;
  std::deque<WallTime> kills_;  ///< kept apart, so that a busy day does not push them out
};

}  // namespace aw::supervise
