// SPDX-License-Identifier: Apache-2.0
#include "api/news.h"

#include <gmock/gmock.h>

namespace aw::api {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class NewsOfSeveralUids : public ::testing::Test {
 protected:
  void add(uid_t uid, const std::string& what) {
    news.add(uid, [this, what](const std::string& observer) { told.push_back(what + ">" + observer); });
  }

  std::map<uid_t, std::vector<std::string>> observers{{1, {"a", "b"}}, {2, {"c"}}};
  std::vector<std::string> told;
  News news{[this](uid_t uid) { return observers[uid]; }};
};

TEST_F(NewsOfSeveralUids, AreToldToWhoMaySeeThemInTheirOrder) {
  add(1, "one");
  add(1, "two");

  EXPECT_TRUE(news.take());

  EXPECT_THAT(told, ElementsAre("one>a", "one>b", "two>a", "two>b"));
  EXPECT_FALSE(news.take());
}

TEST_F(NewsOfSeveralUids, TakeTurnsHoweverManyOneHas) {
  for (std::size_t i = 0; i < News::kMostAtOnce; ++i) add(1, "x");
  add(2, "mine");

  EXPECT_TRUE(news.take());
  EXPECT_TRUE(news.take());

  ASSERT_THAT(told, SizeIs(News::kMostAtOnce + 1));
  EXPECT_EQ(told.back(), "mine>c");
  EXPECT_TRUE(news.take());
  EXPECT_THAT(told, SizeIs(2 * News::kMostAtOnce + 1));
  EXPECT_TRUE(news.empty());
}

TEST_F(NewsOfSeveralUids, OfOneThatHundredsHearGoInSeveralTurnsToEachOnce) {
  for (int i = 0; i < 100; ++i) observers[3].push_back(std::to_string(i));
  add(3, "x");
  std::vector<std::string> expected;
  for (const std::string& observer : observers[3]) expected.push_back("x>" + observer);

  EXPECT_TRUE(news.take());
  EXPECT_THAT(told, SizeIs(News::kMostAtOnce));
  observers[3] = {"a later one"};
  while (news.take()) {
  }

  EXPECT_EQ(told, expected);
}

TEST_F(NewsOfSeveralUids, ThatNobodyHearsAreOver) {
  add(7, "x");

  EXPECT_TRUE(news.take());

  EXPECT_THAT(told, IsEmpty());
  EXPECT_TRUE(news.empty());
}

TEST_F(NewsOfSeveralUids, AreNeverLeftOutAndNeverMoreThanTheUidMayHaveWaiting) {
  const std::size_t many = News::kMostWaiting + 100;
  for (std::size_t i = 0; i < many; ++i) add(2, std::to_string(i));

  EXPECT_GE(told.size(), 100U);
  news.flush();

  ASSERT_THAT(told, SizeIs(many));
  for (std::size_t i = 0; i < many; ++i) EXPECT_EQ(told[i], std::to_string(i) + ">c");
}

TEST_F(NewsOfSeveralUids, AreToldBeforeTheEndIfTheyAreFlushedAlsoWhereATurnHasBegun) {
  for (int i = 0; i < 100; ++i) observers[1].push_back(std::to_string(i));
  add(1, "x");
  add(2, "y");
  EXPECT_TRUE(news.take());

  news.flush();

  EXPECT_THAT(told, SizeIs(103));
  EXPECT_TRUE(news.empty());
}

}  // namespace
}  // namespace aw::api
