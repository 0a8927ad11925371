// SPDX-License-Identifier: Apache-2.0
//
// Named places where a test may have things go wrong: at a point the program dies as by kill -9, a system call fails,
// or time passes. They exist only in a build with -DAW_FAILPOINTS=ON; in any other one the two macros at the end are
// nothing, and no word of a point is in the binary (the tests `….failpoints_absent`).
//
// A point is known from the program's start, whether it is ever reached or not, because it is a static of its own for
// each name: `analysis-watchdogd --failpoints` lists them, and so does the shipper.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace aw::failpoint {

inline constexpr char kVariable[] = "AW_FAILPOINTS";

enum class Act { kCrash, kFail, kDelay, kCount };

/// What is to happen at one point: "NAME=crash@3", "NAME=EIO@1", "NAME=EIO@2+", "NAME=delay:5s", "NAME=count".
struct Order {
  std::string name;  ///< "*" for all points, to be counted
  Act act = Act::kCrash;
  int error = 0;              ///< of kFail
  Span delay{};               ///< of kDelay
  std::uint64_t from = 1;     ///< the first hit that it is for
  bool and_all_later = true;  ///< otherwise it is for that hit only
};

/// Orders with ";" between them. Crashing is for one hit (the first, unless a number says otherwise), everything else
/// for all of them.
Result<std::vector<Order>> parse_orders(std::string_view text);

/// One point. It lives as long as the program.
class Point {
 public:
  Point(const char* name, const int* errors, std::size_t count) noexcept;
  Point(const Point&) = delete;
  Point& operator=(const Point&) = delete;

  /// Counts, and does what was ordered for this hit; the errno to fail with, or 0.
  int hit() noexcept {
    const std::uint64_t number = hits_.fetch_add(1, std::memory_order_relaxed) + 1;
    return orders_.empty() ? 0 : obey(number);
  }

  const char* name() const noexcept { return name_; }
  std::uint64_t hits() const noexcept { return hits_.load(std::memory_order_relaxed); }
  /// Errors that its system call can really give; none: there is nothing that can fail.
  std::vector<int> errors() const { return {errors_, errors_ + count_}; }

 private:
  friend Result<void> arm(std::string_view text);
  friend std::vector<Point*> points();
  int obey(std::uint64_t number) noexcept;

  const char* const name_;
  const int* const errors_;
  const std::size_t count_;
  std::atomic<std::uint64_t> hits_{0};
  std::vector<Order> orders_;
  Point* const next_;
};

/// All points of this program, by name.
std::vector<Point*> points();

/// Has all of them obey these orders from now on, and no others. For the start, before there is a second thread. A name
/// that is no point's, and failing where nothing can fail, are refused.
Result<void> arm(std::string_view text);
/// The same with what the environment says.
Result<void> arm_from_environment();

/// "NAME crash", "NAME crash fail=EIO,ENOSPC": a line for each.
std::string describe_points();

/// A name as a template's argument.
template <std::size_t N>
struct Name {
  constexpr Name(const char (&literal)[N]) {  // NOLINT(google-explicit-constructor)
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
  char text[N];
};

/// The one point of a name. Naming it anywhere in the program is what makes it and has it listed.
template <Name kName, int... kErrors>
struct Registered {
  static constexpr int kList[] = {kErrors..., 0};
  static inline Point point{kName.text, kList, sizeof...(kErrors)};
};

}  // namespace aw::failpoint

#ifdef AW_FAILPOINTS
/// Where it may crash.
#define AW_FAILPOINT(name) static_cast<void>(::aw::failpoint::Registered<name>::point.hit())
/// Where it may also fail, with one of these errnos: the one that was ordered, or 0.
#define AW_FAILPOINT_ERRNO(name, ...) (::aw::failpoint::Registered<name, __VA_ARGS__>::point.hit())
#else
#define AW_FAILPOINT(name) static_cast<void>(0)
#define AW_FAILPOINT_ERRNO(name, ...) 0
#endif
