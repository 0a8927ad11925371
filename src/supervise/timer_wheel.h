// SPDX-License-Identifier: Apache-2.0
//
// A hierarchical timing wheel (Varghese and Lauck): arm and cancel in constant time and without allocation in
// the steady state, however many timers there are. One timer source of the loop drives it, armed for
// next_expiry(); with nothing armed nothing ticks.
//
//   level 0   |0|1|2|...|63|   slots of 1 us
//   level 1   |0|1|2|...|63|   slots of 64 us
//   ...
//   level 10  |0|1|...|15|     slots of 2^60 us: together every instant there is
//
// A due time and the present are numbers of eleven 6-bit digits. A timer lives at the level of the highest digit in
// which the two differ, in the slot of its own digit there. When the present enters a slot, that slot's timers
// cascade to lower levels; a timer does so at most ten times.
//
// Invariants
//  - Every linked timer lives where the present and its due time say, so timers with the same due time share a
//    bucket, and a bucket's order is the order of arming.
//  - All of a level are due before all of the next; within a level, by slot.
//  - A bit of the occupancy maps is set exactly while its bucket holds a timer.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"

namespace aw::supervise {

/// Names one arming. A handle of a timer that fired or was cancelled is stale and matches nothing ever again.
struct TimerHandle {
  std::uint32_t slot = UINT32_MAX;
  std::uint32_t generation = 0;
  bool operator==(const TimerHandle&) const = default;
};

/// What a timer carries back when it fires: whose it is and what it was for. The wheel does not look at it.
struct TimerTag {
  std::uint64_t owner = 0;
  std::uint32_t purpose = 0;
  std::uint32_t detail = 0;
  bool operator==(const TimerTag&) const = default;
};

class TimerWheel {
 public:
  /// The resolution, which is that of Instant: nothing is rounded. A timer fires in the first advance() whose `now`
  /// is at its due time or later.
  static constexpr Span kTick{1};

  /// `first_generation` is for tests of what happens at the end of a slot's generations.
  explicit TimerWheel(Instant now, std::uint32_t first_generation = 0);

  /// Arms a timer; one that is due already fires at the next advance(). kNever is legal and never fires.
  TimerHandle arm(Instant due, TimerTag tag);

  /// True if the timer was armed and is not any more.
  bool cancel(TimerHandle handle);

  /// Appends the tags of all timers due at `now` to `fired`, in the order of their due times (equal ones in the
  /// order of arming), and disarms them. Time that runs backwards is ignored.
  void advance(Instant now, std::vector<TimerTag>& fired);

  /// When advance() has to be called next; never later than the first timer's expiry. Nothing if nothing is armed
  /// (or only kNever). It is the first due time itself, unless that timer was cancelled among more than kLookAt that
  /// are near to each other: then it may be that of the cancelled one, and the wake-up that finds nothing to fire
  /// sorts the bucket, so that advance(*next_expiry()) always makes progress.
  std::optional<Instant> next_expiry() const;

  /// Armed timers, those for kNever included.
  std::size_t size() const { return armed_; }

 private:
  static constexpr unsigned kDigitBits = 6;
  static constexpr unsigned kSlots = 1U << kDigitBits;
  static constexpr unsigned kLevels = (64 + kDigitBits - 1) / kDigitBits;
  static constexpr unsigned kLookAt = 64;

  /// Where a node is, when it is not in one of the wheel's slots.
  static constexpr std::uint32_t kOverdue = kLevels * kSlots;  ///< armed when it was due already
  static constexpr std::uint32_t kUnlinked = kOverdue + 1;     ///< armed for kNever
  static constexpr std::uint32_t kFree = kOverdue + 2;
  static constexpr std::uint32_t kNone = UINT32_MAX;

  /// An Instant as an unsigned number of the same order.
  using Position = std::uint64_t;

  struct Node {
    Position due;
    TimerTag tag;
    std::uint32_t next;  ///< in the bucket, or in the free list
    std::uint32_t previous;
    std::uint32_t generation;
    std::uint32_t bucket;
  };
  struct Bucket {
    std::uint32_t first = kNone;
    std::uint32_t last = kNone;
    Position earliest = 0;  ///< no timer in here is due before
    bool exact = true;      ///< and one is due then
  };
  struct Overdue {
    Position due;
    std::uint32_t order;
    std::uint32_t slot;
  };

  static Position position_of(Instant instant);
  static Instant instant_of(Position position);

  std::uint32_t acquire();
  void release(std::uint32_t slot);
  std::uint32_t bucket_for(Position due) const;
  void link(std::uint32_t slot);
  void unlink(std::uint32_t slot);
  std::uint32_t take_all(std::uint32_t bucket);
  void mark_occupied(std::uint32_t bucket);
  void mark_empty(std::uint32_t bucket);
  std::uint32_t first_bucket() const;
  Position start_of(std::uint32_t bucket) const;
  bool fires_at_once(std::uint32_t bucket, Position until) const;
  void fire(std::uint32_t bucket, std::vector<TimerTag>& fired);
  void fire_overdue(std::vector<TimerTag>& fired);
  void fire_node(std::uint32_t slot, std::vector<TimerTag>& fired);
  void cascade(std::uint32_t bucket);
  Position earliest_in(const Bucket& bucket) const;

  Position current_;
  std::uint32_t first_generation_;
  std::uint32_t free_ = kNone;
  std::size_t armed_ = 0;
  std::uint32_t occupied_levels_ = 0;
  std::array<std::uint64_t, kLevels> occupied_slots_{};
  std::array<Bucket, kOverdue + 1> buckets_{};
  std::vector<Node> nodes_;  ///< never shrinks: 40 bytes for each timer of the busiest moment
  std::vector<Overdue> overdue_;
};

}  // namespace aw::supervise
