// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/numbers.h"

namespace aw {
namespace {

struct Unit {
  char letter;
  std::uint64_t factor;
};

// Largest first: systemd wants the terms of a sum in this order, each unit once.
constexpr std::array kUnits{
    Unit{'E', std::uint64_t{1} << 60U}, Unit{'P', std::uint64_t{1} << 50U}, Unit{'T', std::uint64_t{1} << 40U},
    Unit{'G', std::uint64_t{1} << 30U}, Unit{'M', std::uint64_t{1} << 20U}, Unit{'K', std::uint64_t{1} << 10U},
    Unit{'B', std::uint64_t{1}},
};

constexpr std::string_view kWhitespace = " \t\n\r";

Error refuse(std::string_view text, std::string_view why) {
  return invalid("\"" + std::string(text) + "\" " + std::string(why) + "; write e.g. 512M, 2G or infinity");
}

void skip_whitespace(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kWhitespace), text.size()));
}

/// Takes the unit off `text`, and all larger ones off `allowed`. Without a letter it is bytes.
std::optional<std::uint64_t> take_unit(std::string_view& text, std::size_t& allowed) {
  for (std::size_t i = allowed; i < kUnits.size(); ++i) {
    if (!text.starts_with(kUnits[i].letter)) continue;
    text.remove_prefix(1);
    allowed = i + 1;
    return kUnits[i].factor;
  }
  if (allowed > kUnits.size()) return std::nullopt;
  allowed = kUnits.size() + 1;
  return 1;
}

std::uint64_t saturating_multiple(const Decimal& number, std::uint64_t factor) {
  if (number.whole > Bytes::infinite().count() / factor) return Bytes::infinite().count();
  return (Bytes(number.whole * factor) + Bytes(fraction_of(number.fraction, factor))).count();
}

}  // namespace

Result<Bytes> parse_size(std::string_view text) {
  if (text == "infinity") return Bytes::infinite();
  if (text.starts_with('-')) return refuse(text, "is negative");
  if (text.ends_with('%')) return refuse(text, "is a percentage, not a size");

  Bytes sum;
  std::size_t allowed = 0;
  std::string_view rest = text;
  do {
    skip_whitespace(rest);
    const auto number = rest.starts_with('.') ? std::nullopt : take_decimal(rest);
    if (!number) return refuse(text, "is not a size");
    skip_whitespace(rest);
    const auto factor = take_unit(rest, allowed);
    if (!factor) return refuse(text, "is not a size");
    sum = sum + Bytes(saturating_multiple(*number, *factor));
  } while (!rest.empty());

  if (sum.is_infinite()) return refuse(text, "is too large");
  return sum;
}

std::string format_size(Bytes size) {
  if (size.is_infinite()) return "infinity";
  for (const Unit& unit : kUnits) {
    if (size.count() < unit.factor) continue;
    const std::uint64_t rest = size.count() % unit.factor;
    std::string text = std::to_string(size.count() / unit.factor);
    if (rest != 0) text += "." + std::to_string(rest * 10 / unit.factor);
    return text + unit.letter;
  }
  return "0B";
}

}  // namespace aw
