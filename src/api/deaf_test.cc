// SPDX-License-Identifier: Apache-2.0
#include "api/deaf.h"

#include <gmock/gmock.h>

namespace aw::api {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uid_t kUser = 1000;
constexpr Instant kBegin{std::chrono::hours{1}};

TEST(TheDeaf, AreSoForAWhile) {
  Deaf deaf;
  deaf.add(kUser, kBegin);

  EXPECT_TRUE(deaf.contains(kUser, kBegin + Deaf::kFor - Span(1)));
  EXPECT_FALSE(deaf.contains(kUser, kBegin + Deaf::kFor));
  EXPECT_FALSE(deaf.contains(kUser + 1, kBegin));
  EXPECT_THAT(deaf.uids(kBegin), ElementsAre(kUser));
  EXPECT_THAT(deaf.uids(kBegin + Deaf::kFor), IsEmpty());
}

TEST(TheDeaf, AreSoForLongerIfTheyAreFoundToBeAgain) {
  Deaf deaf;
  deaf.add(kUser, kBegin);
  deaf.add(kUser, kBegin + Deaf::kFor / 2);

  EXPECT_TRUE(deaf.contains(kUser, kBegin + Deaf::kFor));
}

TEST(TheDeaf, AreToldSoNoMoreThanAFewTimes) {
  Deaf deaf;
  deaf.add(kUser, kBegin);

  unsigned told = 0;
  for (int i = 0; i < 1000; ++i) told += deaf.take_refusal(kUser) ? 1 : 0;

  EXPECT_EQ(told, Deaf::kMostRefusals);
}

}  // namespace
}  // namespace aw::api
