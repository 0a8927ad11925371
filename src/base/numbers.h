// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace aw {

/// The whole text as a decimal number, or nothing: no sign for unsigned types, no white space, no overflow.
template <std::integral T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

/// A number with decimals, as it stands in "1.5h": 1 and "5". A whole part beyond 64 bits is UINT64_MAX.
struct Decimal {
  std::uint64_t whole = 0;
  std::string_view fraction;
};

/// Takes the number at the start of `text` off it. Nothing, and `text` untouched, where no digit stands there or
/// none follows the point.
inline std::optional<Decimal> take_decimal(std::string_view& text) {
  constexpr std::string_view kDigits = "0123456789";
  const std::string_view whole = text.substr(0, text.find_first_not_of(kDigits));
  std::string_view rest = text.substr(whole.size());
  std::string_view fraction;
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    fraction = rest.substr(0, rest.find_first_not_of(kDigits));
    if (fraction.empty()) return std::nullopt;
    rest.remove_prefix(fraction.size());
  }
  if (whole.empty() && fraction.empty()) return std::nullopt;
  text = rest;
  if (whole.empty()) return Decimal{0, fraction};
  return Decimal{parse_number<std::uint64_t>(whole).value_or(std::numeric_limits<std::uint64_t>::max()), fraction};
}

/// 0.DIGITS of `unit`, rounded down. Exact for every unit up to UINT64_MAX / 10.
constexpr std::uint64_t fraction_of(std::string_view digits, std::uint64_t unit) {
  std::uint64_t part = 0;
  for (std::size_t i = digits.size(); i-- > 0;) {
    part = (static_cast<std::uint64_t>(digits[i] - '0') * unit + part) / 10;
  }
  return part;
}

}  // namespace aw
