// SPDX-License-Identifier: Apache-2.0
#include "cli/when.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <ctime>

namespace aw::cli {
namespace {

/// In Berlin, on 2026-11-21 at 12:00:00: an hour east of Greenwich, two in summer.
class AMoment : public ::testing::Test {
 protected:
  AMoment() {
    if (const char* zone = std::getenv("TZ")) before_ = zone;
    set_zone("CET-1CEST,M3.5.0,M10.5.0/3");
  }
  ~AMoment() override { set_zone(before_.c_str()); }
  static void set_zone(const char* zone) {
    if (*zone == '\0')
      ::unsetenv("TZ");
    else
      ::setenv("TZ", zone, 1);
    ::tzset();
  }
  /// As UTC, or "" where it is refused.
  static std::string utc(std::string_view text) {
    const auto moment = parse_when(text, WallTime(std::chrono::seconds(1'795'258'800)));
    return moment ? format_iso8601(*moment) : "";
  }

 private:
  std::string before_;
};

TEST_F(AMoment, IsLocalTime) {
  EXPECT_EQ(utc("2026-11-03 10:00:00"), "2026-11-03T09:00:00.000000Z");
  EXPECT_EQ(utc("2026-07-03 10:00"), "2026-07-03T08:00:00.000000Z");
  EXPECT_EQ(utc("2026-11-03"), "2026-11-02T23:00:00.000000Z");
  EXPECT_EQ(utc("Tue 2026-11-03 10:00:00"), "2026-11-03T09:00:00.000000Z");
}

TEST_F(AMoment, IsTodayWithoutADate) {
  EXPECT_EQ(utc("10:00"), "2026-11-21T09:00:00.000000Z");
  EXPECT_EQ(utc("10:00:30.25"), "2026-11-21T09:00:30.250000Z");
  EXPECT_EQ(utc("10:00 UTC"), "2026-11-21T10:00:00.000000Z");
}

TEST_F(AMoment, MayNameItsZone) {
  EXPECT_EQ(utc("2026-11-03 10:00:00 UTC"), "2026-11-03T10:00:00.000000Z");
  EXPECT_EQ(utc("2026-11-03T10:00:00Z"), "2026-11-03T10:00:00.000000Z");
  EXPECT_EQ(utc("2026-11-03T10:00:00+05:30"), "2026-11-03T04:30:00.000000Z");
  EXPECT_EQ(utc("2026-11-03T10:00:00.5-01:00"), "2026-11-03T11:00:00.500000Z");
}

TEST_F(AMoment, OfOurJsonIsReadBack) { EXPECT_EQ(utc("2026-11-03T10:00:00.123456Z"), "2026-11-03T10:00:00.123456Z"); }

TEST_F(AMoment, MayBeRelative) {
  EXPECT_EQ(utc("1 hour ago"), "2026-11-21T10:00:00.000000Z");
  EXPECT_EQ(utc("-1h 30min"), "2026-11-21T09:30:00.000000Z");
  EXPECT_EQ(utc("5min left"), "2026-11-21T11:05:00.000000Z");
  EXPECT_EQ(utc("today"), "2026-11-20T23:00:00.000000Z");
  EXPECT_EQ(utc("yesterday"), "2026-11-19T23:00:00.000000Z");
  EXPECT_EQ(utc("tomorrow"), "2026-11-21T23:00:00.000000Z");
}

TEST_F(AMoment, MayBeSecondsOfTheEpoch) {
  EXPECT_EQ(utc("@0"), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(utc("@1700000000.5"), "2023-11-14T22:13:20.500000Z");
}

TEST_F(AMoment, IsNotMadeUp) {
  for (const char* text : {"", "soon", "2026-02-29", "2026-04-31 10:00", "24:01", "10:60", "@", "@-1", "@1e9",
                           "@99999999999999", "-", "+", " ago", "infinity ago", "2026-11-03 10:00:00 MARS",
                           "2026-11-03T10:00:00+99:00", "2026-11-03 10:00:00.", "2026-11-03 10:00:00x", ".5"}) {
    EXPECT_EQ(utc(text), "") << text;
  }
  EXPECT_NE(utc("2028-02-29"), "");
}

}  // namespace
}  // namespace aw::cli
