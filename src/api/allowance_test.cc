// SPDX-License-Identifier: Apache-2.0
#include "api/allowance.h"

#include <gtest/gtest.h>

namespace aw::api {
namespace {

constexpr uid_t kUser = 1000;
constexpr Instant kBegin{std::chrono::hours{1}};

class AnAllowance : public ::testing::Test {
 protected:
  int take_all(uid_t uid, Instant now) {
    int taken = 0;
    while (!allowance.take(uid, now)) ++taken;
    return taken;
  }

  Allowance allowance;
};

TEST_F(AnAllowance, LetsABurstPassAndNoMore) { EXPECT_EQ(take_all(kUser, kBegin), Allowance::kBurst); }

TEST_F(AnAllowance, SaysInHowLongThereIsMoreAndKeepsThatPromise) {
  take_all(kUser, kBegin);
  const Instant later = kBegin + std::chrono::milliseconds{50};

  const auto wait = allowance.take(kUser, later);
  ASSERT_EQ(wait, std::chrono::milliseconds{150});
  EXPECT_TRUE(allowance.take(kUser, later + *wait - Span(1)));
  EXPECT_FALSE(allowance.take(kUser, later + *wait));
}

TEST_F(AnAllowance, GrowsAgainByFiveASecondAndToNoMoreThanABurst) {
  take_all(kUser, kBegin);

  EXPECT_EQ(take_all(kUser, kBegin + std::chrono::seconds{3}), 15);
  EXPECT_EQ(take_all(kUser, kBegin + std::chrono::hours{3}), Allowance::kBurst);
}

TEST_F(AnAllowance, OfOneUidIsNotAnothers) {
  take_all(kUser, kBegin);

  EXPECT_EQ(take_all(kUser + 1, kBegin), Allowance::kBurst);
}

TEST_F(AnAllowance, IsNotUsedUpByWhoIsRefused) {
  take_all(kUser, kBegin);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(allowance.take(kUser, kBegin));

  EXPECT_EQ(take_all(kUser, kBegin + std::chrono::seconds{1}), 5);
}

}  // namespace
}  // namespace aw::api
