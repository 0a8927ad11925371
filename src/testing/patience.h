// SPDX-License-Identifier: Apache-2.0
//
// How long tests wait for what is to come: as long as the busiest machine may take. Nobody waits to the end but for
// what does not come.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace aw::testing {

inline constexpr std::chrono::minutes kPatience{10};

/// Whether it holds, in the end; it is looked at again whenever `wait` returns.
template <typename Wait>
bool comes_true(const std::function<bool()>& holds, const Wait& wait) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    wait();
  }
  return true;
}
inline bool comes_true(const std::function<bool()>& holds) {
  return comes_true(holds, [] { std::this_thread::sleep_for(std::chrono::milliseconds{5}); });
}

/// The same, while the loop turns, as long as it can.
template <typename Loop>
bool turn_until(Loop& loop, const std::function<bool()>& holds) {
  bool turns = true;
  const bool over = comes_true([&] { return !turns || holds(); },
                               [&] { turns = loop.iterate(std::chrono::milliseconds{20}).has_value(); });
  return over && turns;
}

}  // namespace aw::testing
