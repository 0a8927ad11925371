// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "base/result.h"

namespace aw {

/// An amount of memory.
class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(std::uint64_t count) : count_(count) {}

  /// "No limit": UINT64_MAX on the bus, "max" in cgroupfs, "infinity" in text.
  static constexpr Bytes infinite() { return Bytes(std::numeric_limits<std::uint64_t>::max()); }

  constexpr std::uint64_t count() const { return count_; }
  constexpr bool is_infinite() const { return *this == infinite(); }

  constexpr auto operator<=>(const Bytes&) const = default;

  /// Saturating: infinity stays infinity, and a sum that would wrap becomes it.
  friend constexpr Bytes operator+(Bytes a, Bytes b) {
    const std::uint64_t sum = a.count_ + b.count_;
    return sum < a.count_ ? infinite() : Bytes(sum);
  }
  /// Stops at zero.
  friend constexpr Bytes operator-(Bytes a, Bytes b) {
    if (a.is_infinite()) return a;
    return Bytes(a.count_ < b.count_ ? 0 : a.count_ - b.count_);
  }
  friend constexpr Bytes operator/(Bytes a, std::uint64_t divisor) {
    return a.is_infinite() ? a : Bytes(a.count_ / divisor);
  }

 private:
  std::uint64_t count_ = 0;
};

inline constexpr Bytes kKiB{std::uint64_t{1} << 10U};
inline constexpr Bytes kMiB{std::uint64_t{1} << 20U};
inline constexpr Bytes kGiB{std::uint64_t{1} << 30U};

/// Parses a size as systemd writes it: "2G", "512M", "1.5G", "1G 500M", "4096", "infinity"; K, M, G, T, P, E are
/// powers of 1024. Refuses anything else with a message that says what is accepted. Zero is a size; whoever wants
/// a limit refuses it.
Result<Bytes> parse_size(std::string_view text);

/// The size for people: "2G", "1.5M", "512K", "17B", "infinity". Where it is no whole number of units, it is
/// rounded down to one decimal, so "2.0G" is a little more than "2G".
std::string format_size(Bytes size);

}  // namespace aw
