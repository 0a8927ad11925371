// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>

#include "supervise/event_record.h"

namespace aw::supervise {

/// Which events a reader wants.
struct EventFilter {
  std::optional<WallTime> since;
  std::optional<std::string> analysis_id;
  std::optional<Reason> reason;
  std::optional<EventKind> kind;
  std::size_t limit = 100;
  /// Of whose runs; nothing: of nobody's, but the daemon's own. Unset: all.
  std::function<bool(const std::optional<std::uint32_t>& uid)> visible;
};

/// The events that the daemon remembers since it started: kCapacity of them. When there are more, the oldest of the uid
/// that has the most goes, so that nobody can have others' forgotten. They are kept packed (packed_event.h).
class EventHistory {
 public:
  static constexpr std::size_t kCapacity = 10000;

  void add(const EventRecord& event);

  /// Those that the filter lets through, newest first, until `take` says false.
  void visit(const EventFilter& filter, const std::function<bool(const EventRecord&)>& take) const;

  /// Ends within the 24 hours before `now` that were not `exited`.
  std::uint32_t kills_last_24h(WallTime now) const;

 private:
  /// What a filter looks at lies open.
  struct Kept {
    WallTime occurred_at;
    EventKind kind;
    std::optional<Reason> reason;
    std::optional<std::uint32_t> uid;
    std::string bytes;
  };
  using Events = std::list<Kept>;
  void forget_one();

  Events events_;  ///< the oldest first
  /// The same by uid; those of the daemon's own are nobody's.
  std::map<std::optional<std::uint32_t>, std::deque<Events::iterator>> by_uid_;
  std::deque<WallTime> kills_;  ///< kept apart, so that a busy day does not push them out
};

}  // namespace aw::supervise
