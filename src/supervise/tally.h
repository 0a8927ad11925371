// SPDX-License-Identifier: Apache-2.0
//
// What a daemon has done since it began, in numbers for whoever watches the watchdog. Nothing is decided by them, and
// counting allocates nothing.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

#include "analysis_watchdog/words.h"
#include "base/time.h"

namespace aw::supervise {

/// How long something took, each time: how many times up to each bound, and altogether.
class Delays {
 public:
  /// From what a busy loop adds to what is a scandal. The last bucket, without a bound, is for the rest.
  static constexpr std::array<Span, 15> kBounds{
      std::chrono::milliseconds{1},   std::chrono::microseconds{2500}, std::chrono::milliseconds{5},
      std::chrono::milliseconds{10},  std::chrono::milliseconds{25},   std::chrono::milliseconds{50},
      std::chrono::milliseconds{100}, std::chrono::milliseconds{250},  std::chrono::milliseconds{500},
      std::chrono::seconds{1},        std::chrono::milliseconds{2500}, std::chrono::seconds{10},
      std::chrono::seconds{30},       std::chrono::minutes{1},         std::chrono::minutes{5}};

  /// A span that is negative took no time.
  void add(Span span) {
    span = std::max(span, Span(0));
    const auto* bound = std::lower_bound(kBounds.begin(), kBounds.end(), span);
    ++counts_.at(static_cast<std::size_t>(bound - kBounds.begin()));
    sum_ += span;
  }

  /// How many took no longer than that bound; with kBounds.size(), all.
  std::uint64_t up_to(std::size_t bound) const {
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= bound; ++i) count += counts_.at(i);
    return count;
  }
  std::uint64_t count() const { return up_to(kBounds.size()); }
  Span sum() const { return sum_; }

 private:
  std::array<std::uint64_t, kBounds.size() + 1> counts_{};
  Span sum_{0};
};

/// Counts of one daemon; they begin at 0 with it.
struct Tally {
  std::array<std::uint64_t, kEventKindWords.size()> events{};  ///< put on record, by kind
  std::array<std::uint64_t, kReasonWords.size()> ends{};       ///< of them the ends of runs, by reason
  std::uint64_t limits_restored = 0;  ///< times that limits were put back which somebody else had changed
  std::uint64_t units_restored = 0;   ///< times that processes were housed anew whose unit systemd had lost
  std::uint64_t events_lost = 0;      ///< times that the kernel's queue of notifications had overflowed
  std::array<Delays, kReasonWords.size()> breach_to_signal{};  ///< from what showed a reason to SIGTERM, by reason
  Delays deadline_lateness{};                                  ///< of SIGTERM behind the deadline

  std::uint64_t events_of(EventKind kind) const { return events.at(static_cast<std::size_t>(kind)); }
};

}  // namespace aw::supervise
