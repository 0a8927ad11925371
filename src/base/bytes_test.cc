// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace aw {
namespace {

using testing::HasSubstr;

struct Size {
  const char* text;
  std::uint64_t count;
};

constexpr std::uint64_t kK = 1024;
constexpr std::uint64_t kM = kK * kK;
constexpr std::uint64_t kG = kK * kM;

class ASizeInText : public testing::TestWithParam<Size> {};

TEST_P(ASizeInText, IsReadAsSystemdReadsIt) {
  const auto size = parse_size(GetParam().text);

  ASSERT_TRUE(size) << size.error().message;
  EXPECT_EQ(size->count(), GetParam().count) << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(ParseSize, ASizeInText,
                         testing::Values(Size{"0", 0}, Size{"4096", 4096}, Size{"17B", 17}, Size{"512K", 512 * kK},
                                         Size{"512M", 512 * kM}, Size{"2G", 2 * kG}, Size{"2 G", 2 * kG},
                                         Size{"  2G", 2 * kG}, Size{"1.5G", kG + kG / 2}, Size{"0.5K", 512},
                                         Size{"1.0009765625K", 1025}, Size{"1.00097656249K", 1024},
                                         Size{"1G 500M", kG + 500 * kM}, Size{"1G500M", kG + 500 * kM},
                                         Size{"1G 2M 3K 4B", kG + 2 * kM + 3 * kK + 4}, Size{"1M 7", kM + 7},
                                         Size{"1T", kK* kG}, Size{"1P", kM* kG}, Size{"15E", 15 * kG* kG},
                                         Size{"18446744073709551614", 18446744073709551614ULL}));

class NoSizeInText : public testing::TestWithParam<const char*> {};

TEST_P(NoSizeInText, IsRefusedWithWhatWouldBeAccepted) {
  const auto size = parse_size(GetParam());

  ASSERT_FALSE(size) << GetParam();
  EXPECT_THAT(size.error().message, HasSubstr("\"" + std::string(GetParam()) + "\" is "));
  EXPECT_THAT(size.error().message, HasSubstr("; write e.g. 512M, 2G or infinity"));
}

INSTANTIATE_TEST_SUITE_P(ParseSize, NoSizeInText,
                         testing::Values("", " ", "G", "12 GiBs", "1KiB", "1KB", "2g", "two", "1..5G", ".5G", "1.G",
                                         "1.-5G", "+1", "0x10", "1,5G", "1 2", "1M 1G", "1G 1G", "2G ", "1G -1M", "2GG",
                                         "infinity2", "Infinity", "max", "-1", "50%", "%", "16E",
                                         "18446744073709551615", "18446744073709551616",
                                         "9999999999999999999999999999G", "15E 1024P"));

TEST(ParseSize, KnowsInfinity) { EXPECT_EQ(parse_size("infinity").value(), Bytes::infinite()); }

TEST(ParseSize, SaysWhatIsWrong) {
  EXPECT_EQ(parse_size("12 GiBs").error().message, "\"12 GiBs\" is not a size; write e.g. 512M, 2G or infinity");
  EXPECT_THAT(parse_size("50%").error().message, HasSubstr("is a percentage"));
  EXPECT_THAT(parse_size("-5M").error().message, HasSubstr("is negative"));
  EXPECT_THAT(parse_size("16E").error().message, HasSubstr("is too large"));
}

TEST(ParseSize, IsNotEndedByANulByte) { EXPECT_FALSE(parse_size(std::string_view("2G\0", 3))); }

TEST(FormatSize, WritesWholeUnitsAsSuch) {
  EXPECT_EQ(format_size(Bytes(0)), "0B");
  EXPECT_EQ(format_size(Bytes(17)), "17B");
  EXPECT_EQ(format_size(Bytes(1023)), "1023B");
  EXPECT_EQ(format_size(kKiB), "1K");
  EXPECT_EQ(format_size(Bytes(512 * kM)), "512M");
  EXPECT_EQ(format_size(Bytes(2 * kG)), "2G");
  EXPECT_EQ(format_size(Bytes(15 * kG * kG)), "15E");
  EXPECT_EQ(format_size(Bytes::infinite()), "infinity");
}

TEST(FormatSize, WritesOneDecimalOtherwiseAndNeverMoreThanThereIs) {
  EXPECT_EQ(format_size(Bytes(kM + kM / 2)), "1.5M");
  EXPECT_EQ(format_size(Bytes(2 * kG + 1)), "2.0G");
  EXPECT_EQ(format_size(Bytes(kG - 1)), "1023.9M");
  EXPECT_EQ(format_size(Bytes(std::numeric_limits<std::uint64_t>::max() - 1)), "15.9E");
}

TEST(FormatSize, IsReadBackWhereItIsExact) {
  for (const Bytes size : {Bytes(1), Bytes(3 * kK), Bytes(700 * kM), Bytes(kG + kG / 2), Bytes::infinite()}) {
    EXPECT_EQ(parse_size(format_size(size)).value(), size);
  }
}

TEST(BytesArithmetic, SaturatesAtBothEnds) {
  EXPECT_EQ(kGiB + kMiB, Bytes(kG + kM));
  EXPECT_EQ(Bytes::infinite() + kGiB, Bytes::infinite());
  EXPECT_EQ(Bytes(std::numeric_limits<std::uint64_t>::max() - 1) + kKiB, Bytes::infinite());
  EXPECT_EQ(kMiB - kGiB, Bytes(0));
  EXPECT_EQ(Bytes::infinite() - kGiB, Bytes::infinite());
  EXPECT_EQ(Bytes::infinite() / 8, Bytes::infinite());
  EXPECT_EQ(kGiB / 2, Bytes(kG / 2));
}

}  // namespace
}  // namespace aw
