// SPDX-License-Identifier: Apache-2.0
//
// Compiled with the points in it, whatever the build's option says.
#include "base/failpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>

namespace aw::failpoint {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::KilledBySignal;

int write_something() { return AW_FAILPOINT_ERRNO("test.write", ENOSPC, EIO); }
void pass_by() { AW_FAILPOINT("test.pass"); }
// Never called, and known all the same.
[[maybe_unused]] void never_called() { AW_FAILPOINT("test.never"); }

Point& find(std::string_view name) {
  for (Point* point : points()) {
    if (point->name() == name) return *point;
  }
  ADD_FAILURE() << "no point " << name;
  std::abort();
}

class AFailpoint : public ::testing::Test {
 protected:
  ~AFailpoint() override {
    ::unsetenv(kVariable);
    EXPECT_TRUE(arm(""));
  }
  /// An order for the nth hit from now on.
  static std::string next(const std::string& name, const std::string& act, unsigned n, const char* behind = "") {
    return name + "=" + act + "@" + std::to_string(find(name).hits() + n) + behind;
  }
};

std::string refusal_of(const char* text) {
  const auto parsed = parse_orders(text);
  return parsed ? "" : parsed.error().message;
}

TEST_F(AFailpoint, IsOrderedByNameActAndHit) {
  const auto orders =
      parse_orders("ledger.commit=crash@3;cgroup.kill=EIO@1;bus.send=delay:5s;a=ENOSPC;b=EIO@2+;*=count");

  ASSERT_TRUE(orders);
  ASSERT_EQ(orders->size(), 6U);
  EXPECT_EQ((*orders)[0].name, "ledger.commit");
  EXPECT_EQ((*orders)[0].act, Act::kCrash);
  EXPECT_EQ((*orders)[0].from, 3U);
  EXPECT_FALSE((*orders)[0].and_all_later);
  EXPECT_EQ((*orders)[1].act, Act::kFail);
  EXPECT_EQ((*orders)[1].error, EIO);
  EXPECT_FALSE((*orders)[1].and_all_later);
  EXPECT_EQ((*orders)[2].act, Act::kDelay);
  EXPECT_EQ((*orders)[2].delay, std::chrono::seconds{5});
  EXPECT_TRUE((*orders)[3].and_all_later) << "without a number it fails at each";
  EXPECT_EQ((*orders)[3].error, ENOSPC);
  EXPECT_EQ((*orders)[4].from, 2U);
  EXPECT_TRUE((*orders)[4].and_all_later);
  EXPECT_EQ((*orders)[5].act, Act::kCount);
}

TEST_F(AFailpoint, CrashesOnceWhereNoHitIsNamed) {
  const auto orders = parse_orders("a=crash");

  ASSERT_TRUE(orders);
  EXPECT_EQ((*orders)[0].from, 1U);
  EXPECT_FALSE((*orders)[0].and_all_later);
}

TEST_F(AFailpoint, IsNotOrderedByMalformedText) {
  EXPECT_THAT(refusal_of("ledger.commit"), HasSubstr("there is no NAME="));
  EXPECT_THAT(refusal_of("=crash"), HasSubstr("there is no NAME="));
  EXPECT_THAT(refusal_of("a=crash;"), IsEmpty());
  EXPECT_THAT(refusal_of("a=crash;;b=crash"), HasSubstr("there is no NAME="));
  EXPECT_THAT(refusal_of("a=explode"), HasSubstr("\"explode\""));
  EXPECT_THAT(refusal_of("a=EWHATEVER"), HasSubstr("\"EWHATEVER\""));
  EXPECT_THAT(refusal_of("a="), HasSubstr("nothing is known"));
  EXPECT_THAT(refusal_of("a=crash@"), HasSubstr("no number of a hit"));
  EXPECT_THAT(refusal_of("a=crash@0"), HasSubstr("no number of a hit"));
  EXPECT_THAT(refusal_of("a=crash@-1"), HasSubstr("no number of a hit"));
  EXPECT_THAT(refusal_of("a=crash@1x"), HasSubstr("no number of a hit"));
  EXPECT_THAT(refusal_of("a=delay:soon"), HasSubstr("AW_FAILPOINTS: \"a=delay:soon\""));
  EXPECT_THAT(refusal_of("a=delay:infinity"), HasSubstr("a delay has an end"));
  EXPECT_THAT(refusal_of("*=crash"), HasSubstr("only counting"));
}

TEST_F(AFailpoint, ThatIsNoneOrCannotFailIsRefusedAndNothingIsArmed) {
  const auto unknown = arm("test.write=EIO;test.unknown=crash");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, HasSubstr("there is no point \"test.unknown\""));
  const auto cannot = arm("test.write=EIO;test.pass=EIO");
  ASSERT_FALSE(cannot);
  EXPECT_THAT(cannot.error().message, HasSubstr("nothing can fail at \"test.pass\""));

  EXPECT_EQ(write_something(), 0);
}

TEST_F(AFailpoint, IsListedOnceInOrderWithWhatMayHappenThereWhetherReachedOrNot) {
  EXPECT_EQ(describe_points(), "test.never crash\ntest.pass crash\ntest.write crash fail=ENOSPC,EIO\n");
  EXPECT_EQ(find("test.never").hits(), 0U);
  EXPECT_THAT(find("test.write").errors(), ElementsAre(ENOSPC, EIO));
}

TEST_F(AFailpoint, IsPassedAndCountedWhileNothingIsArmed) {
  const auto before = find("test.write").hits();

  EXPECT_EQ(write_something(), 0);
  EXPECT_EQ(write_something(), 0);

  EXPECT_EQ(find("test.write").hits(), before + 2);
}

TEST_F(AFailpoint, FailsAtTheHitThatWasNamedOnly) {
  ASSERT_TRUE(arm(next("test.write", "EIO", 2)));
  ::testing::internal::CaptureStderr();

  EXPECT_EQ(write_something(), 0);
  EXPECT_EQ(write_something(), EIO);
  EXPECT_EQ(write_something(), 0);

  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "failpoint test.write hit " + std::to_string(find("test.write").hits() - 1) + ": fail EIO\n");
}

TEST_F(AFailpoint, FailsFromAHitOn) {
  ASSERT_TRUE(arm(next("test.write", "ENOSPC", 2, "+")));

  EXPECT_EQ(write_something(), 0);
  EXPECT_EQ(write_something(), ENOSPC);
  EXPECT_EQ(write_something(), ENOSPC);
}

TEST_F(AFailpoint, LetsTimePass) {
  ASSERT_TRUE(arm("test.pass=delay:30ms"));
  const auto before = std::chrono::steady_clock::now();

  pass_by();

  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds{30});
}

TEST_F(AFailpoint, SaysHowOftenItWasHit) {
  ASSERT_TRUE(arm(""));
  while (find("test.pass").hits() < 4) pass_by();
  ASSERT_TRUE(arm("*=count"));
  ::testing::internal::CaptureStderr();

  while (find("test.pass").hits() < 17) pass_by();

  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("failpoint test.pass hit 16: count\n"));
}

TEST_F(AFailpoint, IsArmedByTheEnvironment) {
  ASSERT_TRUE(arm_from_environment());
  EXPECT_EQ(write_something(), 0);

  ::setenv(kVariable, "test.write=EIO", 1);
  ASSERT_TRUE(arm_from_environment());
  EXPECT_EQ(write_something(), EIO);

  ::setenv(kVariable, "test.write", 1);
  EXPECT_FALSE(arm_from_environment());
}

using AFailpointDeathTest = AFailpoint;

TEST_F(AFailpointDeathTest, CrashesAsByKillMinusNineAndSaysSoBefore) {
  const auto hit = std::to_string(find("test.pass").hits() + 2);

  EXPECT_EXIT(
      {
        (void)arm(next("test.pass", "crash", 2));
        pass_by();
        std::fputs("still here\n", stderr);
        pass_by();
        std::fputs("and still\n", stderr);
      },
      KilledBySignal(SIGKILL), "^still here\nfailpoint test.pass hit " + hit + ": crash\n$");
}

}  // namespace
}  // namespace aw::failpoint
