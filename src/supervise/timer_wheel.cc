// SPDX-License-Identifier: Apache-2.0
#include "supervise/timer_wheel.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "base/assert.h"

namespace aw::supervise {

TimerWheel::TimerWheel(Instant now, std::uint32_t first_generation)
    : current_(position_of(now)), first_generation_(first_generation) {}

TimerHandle TimerWheel::arm(Instant due, TimerTag tag) {
  const std::uint32_t slot = acquire();
  Node& node = nodes_[slot];
  node.due = position_of(due);
  node.tag = tag;
  node.bucket = kUnlinked;
  if (due != kNever) link(slot);
  ++armed_;
  return {slot, node.generation};
}

bool TimerWheel::cancel(TimerHandle handle) {
  if (handle.slot >= nodes_.size()) return false;
  const Node& node = nodes_[handle.slot];
  if (node.bucket == kFree || node.generation != handle.generation) return false;
  if (node.bucket != kUnlinked) unlink(handle.slot);
  release(handle.slot);
  return true;
}

void TimerWheel::advance(Instant now, std::vector<TimerTag>& fired) {
  const Position until = std::max(position_of(now), current_);
  fire_overdue(fired);
  for (std::uint32_t bucket = first_bucket(); bucket != kNone; bucket = first_bucket()) {
    const Position start = start_of(bucket);
    if (start > until) break;
    current_ = start;
    if (fires_at_once(bucket, until)) {
      fire(bucket, fired);
    } else {
      cascade(bucket);
    }
  }
  current_ = until;
}

std::optional<Instant> TimerWheel::next_expiry() const {
  if (buckets_[kOverdue].first != kNone) return instant_of(buckets_[kOverdue].earliest);
  const std::uint32_t bucket = first_bucket();
  if (bucket == kNone) return std::nullopt;
  return instant_of(earliest_in(buckets_[bucket]));
}

TimerWheel::Position TimerWheel::position_of(Instant instant) {
  return static_cast<Position>(instant.time_since_epoch().count()) ^ (Position{1} << 63U);
}

Instant TimerWheel::instant_of(Position position) {
  return Instant(Span(static_cast<Span::rep>(position ^ (Position{1} << 63U))));
}

std::uint32_t TimerWheel::acquire() {
  if (free_ == kNone) {
    AW_ASSERT(nodes_.size() < kNone);
    nodes_.push_back({0, {}, kNone, kNone, first_generation_, kFree});
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  }
  const std::uint32_t slot = free_;
  free_ = nodes_[slot].next;
  return slot;
}

void TimerWheel::release(std::uint32_t slot) {
  Node& node = nodes_[slot];
  node.bucket = kFree;
  --armed_;
  // A slot whose generations are used up is retired: beginning anew would bring its oldest handles back to life.
  if (node.generation == UINT32_MAX) return;
  ++node.generation;
  node.next = free_;
  free_ = slot;
}

std::uint32_t TimerWheel::bucket_for(Position due) const {
  if (due < current_) return kOverdue;
  const Position difference = due ^ current_;
  const unsigned level = difference == 0 ? 0 : (static_cast<unsigned>(std::bit_width(difference)) - 1) / kDigitBits;
  const auto digit = static_cast<unsigned>(due >> (level * kDigitBits)) % kSlots;
  return level * kSlots + digit;
}

void TimerWheel::link(std::uint32_t slot) {
  Node& node = nodes_[slot];
  node.bucket = bucket_for(node.due);
  Bucket& bucket = buckets_[node.bucket];
  node.previous = bucket.last;
  node.next = kNone;
  if (bucket.last == kNone) {
    bucket = {slot, slot, node.due, true};
    mark_occupied(node.bucket);
    return;
  }
  nodes_[bucket.last].next = slot;
  bucket.last = slot;
  if (node.due <= bucket.earliest) {
    bucket.earliest = node.due;
    bucket.exact = true;
  }
}

void TimerWheel::unlink(std::uint32_t slot) {
  const Node& node = nodes_[slot];
  Bucket& bucket = buckets_[node.bucket];
  (node.previous == kNone ? bucket.first : nodes_[node.previous].next) = node.next;
  (node.next == kNone ? bucket.last : nodes_[node.next].previous) = node.previous;
  if (node.due == bucket.earliest) bucket.exact = false;
  if (bucket.first == kNone) mark_empty(node.bucket);
}

/// Empties the bucket; its nodes hang together from the one returned.
std::uint32_t TimerWheel::take_all(std::uint32_t bucket) {
  const std::uint32_t first = buckets_[bucket].first;
  buckets_[bucket] = {};
  mark_empty(bucket);
  return first;
}

void TimerWheel::mark_occupied(std::uint32_t bucket) {
  if (bucket == kOverdue) return;
  occupied_slots_[bucket / kSlots] |= std::uint64_t{1} << (bucket % kSlots);
  occupied_levels_ |= 1U << (bucket / kSlots);
}

void TimerWheel::mark_empty(std::uint32_t bucket) {
  if (bucket == kOverdue) return;
  std::uint64_t& slots = occupied_slots_[bucket / kSlots];
  slots &= ~(std::uint64_t{1} << (bucket % kSlots));
  if (slots == 0) occupied_levels_ &= ~(1U << (bucket / kSlots));
}

std::uint32_t TimerWheel::first_bucket() const {
  if (occupied_levels_ == 0) return kNone;
  const auto level = static_cast<unsigned>(std::countr_zero(occupied_levels_));
  return level * kSlots + static_cast<unsigned>(std::countr_zero(occupied_slots_[level]));
}

/// The first instant of the bucket: the digits of the present above its level, its own digit, zeros.
TimerWheel::Position TimerWheel::start_of(std::uint32_t bucket) const {
  const unsigned level = bucket / kSlots;
  const unsigned shift = level * kDigitBits;
  const Position above = level + 1 == kLevels ? 0 : current_ >> (shift + kDigitBits) << (shift + kDigitBits);
  return above | (Position{bucket % kSlots} << shift);
}

/// Level 0 holds one instant per bucket. Elsewhere one lonely timer need not wander down through the levels.
bool TimerWheel::fires_at_once(std::uint32_t bucket, Position until) const {
  if (bucket < kSlots) return true;
  const Bucket& found = buckets_[bucket];
  return found.first == found.last && nodes_[found.first].due <= until;
}

void TimerWheel::fire(std::uint32_t bucket, std::vector<TimerTag>& fired) {
  for (std::uint32_t slot = take_all(bucket); slot != kNone;) {
    const std::uint32_t next = nodes_[slot].next;
    fire_node(slot, fired);
    slot = next;
  }
}

void TimerWheel::fire_overdue(std::vector<TimerTag>& fired) {
  overdue_.clear();
  std::uint32_t order = 0;
  for (std::uint32_t slot = take_all(kOverdue); slot != kNone; slot = nodes_[slot].next) {
    overdue_.push_back({nodes_[slot].due, order++, slot});
  }
  const auto earlier = [](const Overdue& a, const Overdue& b) {
    return std::tie(a.due, a.order) < std::tie(b.due, b.order);
  };
  std::sort(overdue_.begin(), overdue_.end(), earlier);
  for (const Overdue& timer : overdue_) fire_node(timer.slot, fired);
}

void TimerWheel::fire_node(std::uint32_t slot, std::vector<TimerTag>& fired) {
  fired.push_back(nodes_[slot].tag);
  release(slot);
}

/// The present has entered the bucket: its timers find their places anew, all of them on lower levels.
void TimerWheel::cascade(std::uint32_t bucket) {
  for (std::uint32_t slot = take_all(bucket); slot != kNone;) {
    const std::uint32_t next = nodes_[slot].next;
    link(slot);
    slot = next;
  }
}

TimerWheel::Position TimerWheel::earliest_in(const Bucket& bucket) const {
  if (bucket.exact) return bucket.earliest;
  Position earliest = nodes_[bucket.first].due;
  std::uint32_t slot = bucket.first;
  for (unsigned seen = 0; slot != kNone; slot = nodes_[slot].next) {
    if (++seen > kLookAt) return bucket.earliest;
    earliest = std::min(earliest, nodes_[slot].due);
  }
  return earliest;
}

}  // namespace aw::supervise
