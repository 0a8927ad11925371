// SPDX-License-Identifier: Apache-2.0
#include "base/time.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <limits>
#include <optional>

#include "base/numbers.h"

namespace aw {
namespace {

constexpr std::uint64_t kMillisecond = 1'000;
constexpr std::uint64_t kSecond = 1'000'000;
constexpr std::uint64_t kMinute = 60 * kSecond;
constexpr std::uint64_t kHour = 60 * kMinute;
constexpr std::uint64_t kDay = 24 * kHour;
constexpr std::uint64_t kWeek = 7 * kDay;
constexpr std::uint64_t kMonth = 2'629'800 * kSecond;  // systemd's: a twelfth of its year of 365.25 days.
constexpr std::uint64_t kYear = 31'557'600 * kSecond;
constexpr std::uint64_t kLongest = 100 * kYear;

struct Unit {
  std::string_view name;
  std::uint64_t usec;
};

constexpr std::array kReadUnits{
    Unit{"usec", 1},
    Unit{"us", 1},
    Unit{"\u00b5s", 1},
    Unit{"\u03bcs", 1},
    Unit{"msec", kMillisecond},
    Unit{"ms", kMillisecond},
    Unit{"seconds", kSecond},
    Unit{"second", kSecond},
    Unit{"sec", kSecond},
    Unit{"s", kSecond},
    Unit{"minutes", kMinute},
    Unit{"minute", kMinute},
    Unit{"min", kMinute},
    Unit{"m", kMinute},
    Unit{"hours", kHour},
    Unit{"hour", kHour},
    Unit{"hr", kHour},
    Unit{"h", kHour},
    Unit{"days", kDay},
    Unit{"day", kDay},
    Unit{"d", kDay},
    Unit{"weeks", kWeek},
    Unit{"week", kWeek},
    Unit{"w", kWeek},
    Unit{"months", kMonth},
    Unit{"month", kMonth},
    Unit{"M", kMonth},
    Unit{"years", kYear},
    Unit{"year", kYear},
    Unit{"y", kYear},
};

constexpr std::array kWrittenUnits{Unit{"y", kYear},   Unit{"month", kMonth},    Unit{"w", kWeek},
                                   Unit{"d", kDay},    Unit{"h", kHour},         Unit{"min", kMinute},
                                   Unit{"s", kSecond}, Unit{"ms", kMillisecond}, Unit{"us", 1}};

constexpr std::string_view kWhitespace = " \t\n\r";
constexpr std::string_view kEndOfUnit = " \t\n\r0123456789.+-";

Error refuse(std::string_view text, std::string_view why) {
  return invalid("\"" + std::string(text) + "\" " + std::string(why) + "; write e.g. 500ms, 30min, 1h 30s or infinity");
}

/// Takes white space off the start of `text` and says whether there was any.
bool skip_whitespace(std::string_view& text) {
  const std::size_t count = std::min(text.find_first_not_of(kWhitespace), text.size());
  text.remove_prefix(count);
  return count > 0;
}

/// Takes the unit off the start of `text`; without one, a number is in seconds.
std::optional<std::uint64_t> take_unit(std::string_view& text) {
  const bool spaced = skip_whitespace(text);
  const std::string_view name = text.substr(0, text.find_first_of(kEndOfUnit));
  // systemd refuses "12.34.56" but takes "12.34 .56".
  if (name.empty()) return spaced || text.empty() ? std::optional(kSecond) : std::nullopt;
  const auto unit = std::ranges::find(kReadUnits, name, &Unit::name);
  if (unit == kReadUnits.end()) return std::nullopt;
  text.remove_prefix(name.size());
  return unit->usec;
}

/// Takes "1.5h" off the start of `text`. Anything over the longest span is a little more than that.
std::optional<std::uint64_t> take_term(std::string_view& text) {
  const auto number = take_decimal(text);
  if (!number) return std::nullopt;
  const auto unit = take_unit(text);
  if (!unit) return std::nullopt;
  if (number->whole > kLongest / *unit) return kLongest + 1;
  return number->whole * *unit + fraction_of(number->fraction, *unit);
}

/// "1.5s": below a minute systemd writes decimals. The unit is a power of ten.
std::string with_decimals(std::uint64_t usec, const Unit& unit) {
  std::string text = std::to_string(usec / unit.usec);
  if (const std::uint64_t rest = usec % unit.usec; rest != 0) {
    const std::string digits = std::to_string(unit.usec + rest).substr(1);  // The 1 in front keeps the zeros.
    text += "." + digits.substr(0, digits.find_last_not_of('0') + 1);
  }
  return text.append(unit.name);
}

std::string format_usec(std::uint64_t usec) {
  if (usec == 0) return "0";
  std::string text;
  for (const Unit& unit : kWrittenUnits) {
    if (usec < unit.usec) continue;
    if (!text.empty()) text += ' ';
    if (usec < kMinute) return text + with_decimals(usec, unit);
    text.append(std::to_string(usec / unit.usec)).append(unit.name);
    usec %= unit.usec;
  }
  return text;
}

std::string format_tm(const std::tm& parts, const char* format) {
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format, &parts)};
}

}  // namespace

Instant add_span(Instant instant, Span span) {
  if (instant == kNever || span == kForever) return kNever;
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(instant.time_since_epoch().count(), span.count(), &sum)) return Instant(Span(sum));
  return span > Span::zero() ? kNever : Instant::min();
}

Result<Span> parse_span(std::string_view text) {
  std::string_view rest = text;
  skip_whitespace(rest);
  if (rest.starts_with("infinity") && rest.find_first_not_of(kWhitespace, 8) == std::string_view::npos) return kForever;
  if (rest.empty()) return refuse(text, "is not a time span");

  std::uint64_t sum = 0;
  for (; !rest.empty(); skip_whitespace(rest)) {
    if (rest.starts_with('-')) return refuse(text, "is negative");
    const auto term = take_term(rest);
    if (!term) return refuse(text, "is not a time span");
    sum += *term;
    if (sum > kLongest) return refuse(text, "is longer than 100 years");
  }
  return Span(static_cast<std::int64_t>(sum));
}

std::string format_span(Span span) {
  if (span == kForever) return "infinity";
  const auto usec = static_cast<std::uint64_t>(span.count());
  return span < Span::zero() ? "-" + format_usec(0 - usec) : format_usec(usec);
}

std::uint64_t to_usec(Span span) {
  if (span == kForever) return std::numeric_limits<std::uint64_t>::max();
  return static_cast<std::uint64_t>(std::max(span, Span::zero()).count());
}

Span from_usec(std::uint64_t usec) {
  constexpr auto kMost = static_cast<std::uint64_t>(kForever.count());
  return usec >= kMost ? kForever : Span(static_cast<std::int64_t>(usec));
}

std::string format_iso8601(WallTime time) {
  const Span since_epoch = time.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
  const std::time_t clock = seconds.count();
  std::tm parts{};
  gmtime_r(&clock, &parts);
  const std::string usec = std::to_string(1'000'000 + (since_epoch - seconds).count()).substr(1);
  return format_tm(parts, "%Y-%m-%dT%H:%M:%S") + "." + usec + "Z";
}

std::string format_local(WallTime time) {
  const std::time_t clock = std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
  std::tm parts{};
  localtime_r(&clock, &parts);
  return format_tm(parts, "%Y-%m-%d %H:%M:%S");
}

}  // namespace aw
