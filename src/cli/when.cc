// SPDX-License-Identifier: Apache-2.0
#include "cli/when.h"

#include <array>
#include <ctime>
#include <optional>
#include <string>

#include "base/numbers.h"

namespace aw::cli {
namespace {

/// Where a moment's hours and minutes count from: here, or so many seconds east of Greenwich.
using Zone = std::optional<std::int64_t>;

std::tm local_parts(WallTime time) {
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  return parts;
}

WallTime from_parts(std::tm parts, const Zone& zone) {
  parts.tm_isdst = -1;  // Whatever was in force at that moment.
  const std::time_t seconds = zone ? ::timegm(&parts) - *zone : std::mktime(&parts);
  return WallTime(std::chrono::seconds(seconds));
}

WallTime midnight(WallTime now, int days) {
  std::tm parts = local_parts(now);
  parts.tm_mday += days;
  parts.tm_hour = parts.tm_min = parts.tm_sec = 0;
  return from_parts(parts, std::nullopt);
}

/// The whole text by one of strptime's formats, laid over `base`.
bool parse_by(const std::string& text, const char* format, std::tm base, std::tm& parts) {
  parts = base;
  const char* end = ::strptime(text.c_str(), format, &parts);
  return end != nullptr && *end == '\0';
}

bool is_leap(int year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

/// strptime takes the 31st of any month.
bool is_date(const std::tm& parts) {
  constexpr std::array<int, 12> kDays{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const auto month = static_cast<std::size_t>(parts.tm_mon);
  const int leap_day = parts.tm_mon == 1 && is_leap(parts.tm_year + 1900) ? 1 : 0;
  return month < kDays.size() && parts.tm_mday >= 1 && parts.tm_mday <= kDays[month] + leap_day;
}

/// Takes "Z", " UTC" or "+02:00" off the end of a text with a time of day in it.
Zone take_zone(std::string& text) {
  for (const std::string_view utc : {" UTC", "Z"}) {
    if (!text.ends_with(utc)) continue;
    text.resize(text.size() - utc.size());
    return 0;
  }
  if (text.size() < 7 || text[text.size() - 3] != ':' || text.find(':') == text.size() - 3) return std::nullopt;
  const std::string_view offset = std::string_view(text).substr(text.size() - 6);
  const auto hours = parse_number<unsigned>(offset.substr(1, 2));
  const auto minutes = parse_number<unsigned>(offset.substr(4));
  if ((offset[0] != '+' && offset[0] != '-') || !hours || !minutes || *hours > 14 || *minutes > 59) return std::nullopt;
  const std::int64_t seconds = std::int64_t{*hours} * 3600 + std::int64_t{*minutes} * 60;
  const bool west = offset[0] == '-';
  text.resize(text.size() - 6);
  return west ? -seconds : seconds;
}

/// Takes ".123456" off the end.
Span take_fraction(std::string& text) {
  const auto point = text.rfind('.');
  if (point == std::string::npos || point + 1 == text.size() || text.find(':') == std::string::npos)
    return Span::zero();
  const std::string digits = text.substr(point + 1);
  if (digits.find_first_not_of("0123456789") != std::string::npos) return Span::zero();
  text.resize(point);
  return Span(static_cast<Span::rep>(fraction_of(digits, 1'000'000)));
}

/// "-1h", "+5min", "2h ago", "5min left".
std::optional<WallTime> parse_relative(std::string_view text, WallTime now) {
  bool back = false;
  if (text.ends_with(" ago")) {
    back = true;
    text.remove_suffix(4);
  } else if (text.ends_with(" left")) {
    text.remove_suffix(5);
  } else if (text.starts_with('-') || text.starts_with('+')) {
    back = text.starts_with('-');
    text.remove_prefix(1);
  } else {
    return std::nullopt;
  }
  const auto span = parse_span(text);
  if (!span || *span == kForever) return std::nullopt;
  return back ? now - *span : now + *span;
}

/// "@1700000000", "@1700000000.5".
std::optional<WallTime> parse_epoch(std::string_view text) {
  if (!text.starts_with('@')) return std::nullopt;
  text.remove_prefix(1);
  const auto seconds = take_decimal(text);
  if (!seconds || !text.empty() || seconds->whole >= std::uint64_t{1} << 40U) return std::nullopt;
  const std::uint64_t usec = seconds->whole * 1'000'000 + fraction_of(seconds->fraction, 1'000'000);
  return WallTime(Span(static_cast<Span::rep>(usec)));
}

/// A date, a time of day, or both.
std::optional<WallTime> parse_absolute(std::string text, WallTime now) {
  const Zone zone = take_zone(text);
  const Span fraction = take_fraction(text);
  std::tm day = local_parts(now);
  if (zone) {
    const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count() + *zone;
    ::gmtime_r(&seconds, &day);
  }
  day.tm_hour = day.tm_min = day.tm_sec = 0;
  std::tm parts{};
  // With and without the weekday that systemd prints.
  for (const char* format : {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d",
                             "%a %Y-%m-%d %H:%M:%S", "%a %Y-%m-%d %H:%M", "%a %Y-%m-%d", "%H:%M:%S", "%H:%M"}) {
    if (parse_by(text, format, day, parts) && is_date(parts)) return from_parts(parts, zone) + fraction;
  }
  return std::nullopt;
}

}  // namespace

Result<WallTime> parse_when(std::string_view text, WallTime now) {
  if (text == "now") return now;
  if (text == "today") return midnight(now, 0);
  if (text == "yesterday") return midnight(now, -1);
  if (text == "tomorrow") return midnight(now, 1);
  if (const auto epoch = parse_epoch(text)) return *epoch;
  if (const auto relative = parse_relative(text, now)) return *relative;
  if (const auto absolute = parse_absolute(std::string(text), now)) return *absolute;
  return invalid(
      "\"" + std::string(text) +
      "\" is no moment; write e.g. \"2026-11-03 10:00:00\", \"10:00\", yesterday, -1h, \"2h ago\" or @1700000000");
}

Now read_clocks() {
  timespec monotonic{};
  timespec real{};
  ::clock_gettime(CLOCK_MONOTONIC, &monotonic);
  ::clock_gettime(CLOCK_REALTIME, &real);
  const auto usec = [](const timespec& t) { return Span(t.tv_sec * 1'000'000 + t.tv_nsec / 1000); };
  return {Instant(usec(monotonic)), WallTime(usec(real))};
}

}  // namespace aw::cli
