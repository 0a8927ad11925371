// SPDX-License-Identifier: Apache-2.0
#include "base/time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <string>

namespace aw {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

struct InText {
  const char* text;
  Span span;
};

class ASpanInText : public testing::TestWithParam<InText> {};

TEST_P(ASpanInText, IsReadAsSystemdReadsIt) {
  const auto span = parse_span(GetParam().text);

  ASSERT_TRUE(span) << span.error().message;
  EXPECT_EQ(*span, GetParam().span) << GetParam().text;
}

constexpr auto kDay = 24h;
constexpr auto kYear = 31'557'600s;

INSTANTIATE_TEST_SUITE_P(Terms, ASpanInText,
                         testing::Values(InText{"0", 0s}, InText{"5", 5s}, InText{"  5  ", 5s}, InText{"5s", 5s},
                                         InText{"5 s", 5s}, InText{"1h 30s", 1h + 30s}, InText{"1h30min", 1h + 30min},
                                         InText{"1h 30", 1h + 30s}, InText{"30s 1h", 1h + 30s}, InText{"5 6", 11s},
                                         InText{"1y 12month", 2 * kYear}, InText{"2s\t500ms\n", 2500ms},
                                         InText{"100y", 100 * kYear}));

INSTANTIATE_TEST_SUITE_P(
    Units, ASpanInText,
    testing::Values(InText{"7usec", 7us}, InText{"7us", 7us}, InText{"7\u00b5s", 7us}, InText{"7\u03bcs", 7us},
                    InText{"7msec", 7ms}, InText{"7ms", 7ms}, InText{"7seconds", 7s}, InText{"7second", 7s},
                    InText{"7sec", 7s}, InText{"7minutes", 7min}, InText{"7minute", 7min}, InText{"7min", 7min},
                    InText{"7m", 7min}, InText{"7hours", 7h}, InText{"7hour", 7h}, InText{"7hr", 7h}, InText{"7h", 7h},
                    InText{"7days", 7 * kDay}, InText{"7day", 7 * kDay}, InText{"7d", 7 * kDay},
                    InText{"2weeks", 14 * kDay}, InText{"2week", 14 * kDay}, InText{"2w", 14 * kDay},
                    InText{"2months", kYear / 6}, InText{"2month", kYear / 6}, InText{"2M", kYear / 6},
                    InText{"2years", 2 * kYear}, InText{"2year", 2 * kYear}, InText{"2y", 2 * kYear}));

INSTANTIATE_TEST_SUITE_P(Fractions, ASpanInText,
                         testing::Values(InText{"1.5h", 90min}, InText{".5", 500ms}, InText{"0.000001", 1us},
                                         InText{"0.0000019", 1us}, InText{"1.25 ms", 1250us}, InText{"0.5us", 0us},
                                         InText{"12.34s.56", 12900ms}, InText{"12.34 .56", 12900ms}));

INSTANTIATE_TEST_SUITE_P(Infinity, ASpanInText,
                         testing::Values(InText{"infinity", kForever}, InText{" infinity ", kForever}));

class NoSpanInText : public testing::TestWithParam<const char*> {};

TEST_P(NoSpanInText, IsRefusedWithWhatWouldBeAccepted) {
  const auto span = parse_span(GetParam());

  ASSERT_FALSE(span) << GetParam();
  EXPECT_THAT(span.error().message, HasSubstr("\"" + std::string(GetParam()) + "\" is "));
  EXPECT_THAT(span.error().message, HasSubstr("; write e.g. 500ms, 30min, 1h 30s or infinity"));
}

INSTANTIATE_TEST_SUITE_P(ParseSpan, NoSpanInText,
                         testing::Values("", " ", "s", "12 parsecs", "5S", "5mins", "1..5", "12.34.56", "3.", "3.s",
                                         "3. 1", "+5", "1e3", "0x10", "1,5h", "5-6", "-5s", "5s -1s", "-0",
                                         "infinity s", "infinitys", "Infinity", "5 infinity", "101y", "100y 1us",
                                         "99y 2y", "9223372036854775808us", "99999999999999999999999h"));

TEST(ParseSpan, SaysWhatIsWrong) {
  EXPECT_EQ(parse_span("12 parsecs").error().message,
            "\"12 parsecs\" is not a time span; write e.g. 500ms, 30min, 1h 30s or infinity");
  EXPECT_THAT(parse_span("-5s").error().message, HasSubstr("is negative"));
  EXPECT_THAT(parse_span("101y").error().message, HasSubstr("is longer than 100 years"));
}

TEST(ParseSpan, IsNotEndedByANulByte) { EXPECT_FALSE(parse_span(std::string_view("5s\0", 3))); }

TEST(FormatSpan, WritesWhatSystemdPrints) {
  EXPECT_EQ(format_span(0s), "0");
  EXPECT_EQ(format_span(1us), "1us");
  EXPECT_EQ(format_span(250ms), "250ms");
  EXPECT_EQ(format_span(1250us), "1.25ms");
  EXPECT_EQ(format_span(1500ms), "1.5s");
  EXPECT_EQ(format_span(1000001us), "1.000001s");
  EXPECT_EQ(format_span(90min), "1h 30min");
  EXPECT_EQ(format_span(1min + 1us), "1min 1us");
  EXPECT_EQ(format_span(2h + 10500ms), "2h 10.5s");
  EXPECT_EQ(format_span(8 * kDay), "1w 1d");
  EXPECT_EQ(format_span(kYear), "1y");
  EXPECT_EQ(format_span(-90s), "-1min 30s");
  EXPECT_EQ(format_span(kForever), "infinity");
}

TEST(FormatSpan, IsReadBack) {
  std::uint64_t usec = 1;
  for (int i = 0; i < 200; ++i) {
    usec = usec * 2862933555777941757U + 3037000493U;  // Knuth's MMIX generator: any spans will do.
    const Span span(static_cast<std::int64_t>(usec % 3'000'000'000'000'000U >> static_cast<unsigned>(i % 50)));

    EXPECT_EQ(parse_span(format_span(span)).value(), span) << format_span(span);
  }
}

TEST(FormatSpan, WritesTheExtremesToo) {
  EXPECT_THAT(format_span(Span::min()), HasSubstr("-292271y"));
  EXPECT_THAT(format_span(Span::max() - 1us), HasSubstr("292271y"));
}

TEST(AddSpan, AddsAndNeverOverflows) {
  const Instant instant{Span(5s)};

  EXPECT_EQ(add_span(instant, 2s), Instant(Span(7s)));
  EXPECT_EQ(add_span(instant, -7s), Instant(Span(-2s)));
  EXPECT_EQ(add_span(instant, kForever), kNever);
  EXPECT_EQ(add_span(kNever, -1s), kNever);
  EXPECT_EQ(add_span(instant, Span::max() - 1us), kNever);
  EXPECT_EQ(add_span(Instant::min(), -1s), Instant::min());
}

TEST(Usec, TurnsForeverIntoTheBusesNone) {
  constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

  EXPECT_EQ(to_usec(1500ms), 1'500'000U);
  EXPECT_EQ(to_usec(kForever), kNone);
  EXPECT_EQ(to_usec(-1s), 0U);
  EXPECT_EQ(from_usec(1'500'000), Span(1500ms));
  EXPECT_EQ(from_usec(kNone), kForever);
  EXPECT_EQ(from_usec(std::uint64_t{1} << 63U), kForever);
  EXPECT_EQ(from_usec((std::uint64_t{1} << 63U) - 2), kForever - 1us);
}

constexpr WallTime kSomeTime{Span(1'793'714'709'123'456)};  // 2026-11-03 14:05:09.123456 UTC

TEST(FormatIso8601, WritesUtcWithMicroseconds) {
  EXPECT_EQ(format_iso8601(kSomeTime), "2026-11-03T14:05:09.123456Z");
  EXPECT_EQ(format_iso8601(WallTime()), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(format_iso8601(WallTime(-1us)), "1969-12-31T23:59:59.999999Z");
}

class InATimeZone : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* zone = std::getenv("TZ")) before_ = zone;
    ::setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
    ::tzset();
  }
  void TearDown() override {
    before_.empty() ? ::unsetenv("TZ") : ::setenv("TZ", before_.c_str(), 1);
    ::tzset();
  }
  std::string before_;
};

TEST_F(InATimeZone, LocalTimeIsWrittenForPeople) {
  EXPECT_EQ(format_local(kSomeTime), "2026-11-03 15:05:09");
  EXPECT_EQ(format_local(kSomeTime - 24h * 100), "2026-07-26 16:05:09");
}

TEST_F(InATimeZone, Iso8601StaysUtc) { EXPECT_EQ(format_iso8601(kSomeTime), "2026-11-03T14:05:09.123456Z"); }

}  // namespace
}  // namespace aw
