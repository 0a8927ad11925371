// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/time.h"

namespace aw::simulation {

/// Chance from a seed, the same with every compiler and library: those of <random> are free to differ.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed) {}

  /// SplitMix64.
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  unsigned below(unsigned bound) { return static_cast<unsigned>(next() % bound); }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <class T>
  const T& one_of(const std::vector<T>& choices) {
    return choices[below(static_cast<unsigned>(choices.size()))];
  }
  /// Small ones as often as large ones.
  Span span(Span least, Span most) {
    std::int64_t bound = 1;
    for (std::int64_t left = (most - least).count(); left > 0 && !chance(15); left /= 2) bound = left;
    return least + Span(static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(bound + 1)));
  }

 private:
  std::uint64_t state_;
};

}  // namespace aw::simulation
