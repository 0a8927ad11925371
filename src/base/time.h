// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace aw {

/// The unit of every time span in the project: systemd's and the bus's µs.
using Span = std::chrono::duration<std::int64_t, std::micro>;

/// "No limit" for a span; UINT64_MAX on the bus, "infinity" in text. Arithmetic on it goes through add_span().
inline constexpr Span kForever = Span::max();

/// CLOCK_MONOTONIC, as a clock only in name: it has no now(), because time enters as an argument.
struct Monotonic {
  using rep = Span::rep;
  using period = Span::period;
  using duration = Span;
  using time_point = std::chrono::time_point<Monotonic>;
  static constexpr bool is_steady = true;  // NOLINT(readability-identifier-naming): the standard's.
};
using Instant = Monotonic::time_point;

/// CLOCK_REALTIME, for the record only.
struct Realtime {
  using rep = Span::rep;
  using period = Span::period;
  using duration = Span;
  using time_point = std::chrono::time_point<Realtime>;
  static constexpr bool is_steady = false;  // NOLINT(readability-identifier-naming): the standard's.
};
using WallTime = Realtime::time_point;

/// One reading of both clocks, taken by the loop at its wake-up and passed inwards.
struct Now {
  Instant monotonic;
  WallTime real;
};

inline constexpr Instant kNever = Instant::max();

/// instant + span, kNever if either is without end or the sum would overflow.
Instant add_span(Instant instant, Span span);

/// Parses a time span as systemd writes it: "30min", "1h 30s", "500ms", "1.5h", a bare number of seconds,
/// "infinity". Refuses negative spans and anything over 100 years with a message that says what is accepted.
/// Zero is a span; whoever wants a limit refuses it.
Result<Span> parse_span(std::string_view text);

/// The span as systemd prints it: "1h 30min", "250ms", "1.5s", "infinity", "0". parse_span() reads it back.
std::string format_span(Span span);

/// On the bus and in records: microseconds, UINT64_MAX for kForever, 0 for a span that is negative.
std::uint64_t to_usec(Span span);
/// The inverse; anything above INT64_MAX is kForever.
Span from_usec(std::uint64_t usec);

/// ISO 8601 in UTC with microseconds: 2026-11-03T14:05:09.123456Z.
std::string format_iso8601(WallTime time);
/// For people: local time, "2026-11-03 15:05:09".
std::string format_local(WallTime time);

}  // namespace aw
