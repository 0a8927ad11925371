// SPDX-License-Identifier: Apache-2.0
#include "base/numbers.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace aw {
namespace {

TEST(ParseNumber, ReadsTheWholeText) {
  EXPECT_EQ(parse_number<unsigned>("0"), 0U);
  EXPECT_EQ(parse_number<unsigned>("0042"), 42U);
  EXPECT_EQ(parse_number<int>("-7"), -7);
  EXPECT_EQ(parse_number<std::uint64_t>("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
}

TEST(ParseNumber, RefusesWhatIsNoNumber) {
  for (const char* text : {"", " ", " 1", "1 ", "+1", "1x", "x", "0x10", "1.0", "--1", "max"}) {
    EXPECT_EQ(parse_number<int>(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_number<int>(std::string_view("1\0", 2)), std::nullopt);
}

TEST(ParseNumber, RefusesASignWhereTheTypeHasNone) { EXPECT_EQ(parse_number<unsigned>("-1"), std::nullopt); }

TEST(ParseNumber, RefusesWhatTheTypeCannotHold) {
  EXPECT_EQ(parse_number<std::uint8_t>("256"), std::nullopt);
  EXPECT_EQ(parse_number<std::uint64_t>("18446744073709551616"), std::nullopt);
  EXPECT_EQ(parse_number<std::int64_t>("-9223372036854775809"), std::nullopt);
  EXPECT_EQ(parse_number<std::uint64_t>(std::string(1000, '9')), std::nullopt);
}

struct Taken {
  const char* text;
  std::uint64_t whole;
  const char* fraction;
  const char* rest;
};

TEST(TakeDecimal, TakesTheNumberAtTheStart) {
  for (const Taken& expected : {Taken{"12", 12, "", ""}, Taken{"1.5h", 1, "5", "h"}, Taken{".25G", 0, "25", "G"},
                                Taken{"1.2.3", 1, "2", ".3"}, Taken{"0 x", 0, "", " x"}}) {
    std::string_view rest = expected.text;

    const auto number = take_decimal(rest);

    ASSERT_TRUE(number) << expected.text;
    EXPECT_EQ(number->whole, expected.whole) << expected.text;
    EXPECT_EQ(number->fraction, expected.fraction) << expected.text;
    EXPECT_EQ(rest, expected.rest) << expected.text;
  }
}

TEST(TakeDecimal, LeavesTheTextAloneWhereNoNumberStands) {
  for (const std::string_view text : {"", ".", "x", "-1", "+1", " 1", "1.", "1.x"}) {
    std::string_view rest = text;

    EXPECT_FALSE(take_decimal(rest)) << text;
    EXPECT_EQ(rest, text);
  }
}

TEST(TakeDecimal, SaturatesBeyond64Bits) {
  std::string_view rest = "18446744073709551616G";

  EXPECT_EQ(take_decimal(rest)->whole, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(rest, "G");
}

TEST(FractionOf, IsExactAndRoundsDown) {
  EXPECT_EQ(fraction_of("", 1000), 0U);
  EXPECT_EQ(fraction_of("5", 1000), 500U);
  EXPECT_EQ(fraction_of("05", 1000), 50U);
  EXPECT_EQ(fraction_of("0009", 1000), 0U);
  EXPECT_EQ(fraction_of("3333333333333333333333333333", 3), 0U);
  EXPECT_EQ(fraction_of(std::string(500, '9'), std::uint64_t{1} << 60U), (std::uint64_t{1} << 60U) - 1);
}

}  // namespace
}  // namespace aw
