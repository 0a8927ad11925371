// SPDX-License-Identifier: Apache-2.0
#include "api/turns.h"

#include <gmock/gmock.h>

#include <optional>
#include <vector>

namespace aw::api {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CallsThatWait : public ::testing::Test {
 protected:
  static constexpr Turns::Bounds kFew{3, 2};

  bool add(uid_t uid, const std::string& what, Pace pace = Pace::kQuick, const std::string& client = ":1.1") {
    return turns.add(uid, kFew, client, pace, [this, what](Turns::Place place) {
      done.push_back(what);
      if (place) places.push_back(std::move(place));
    });
  }
  void take_all() {
    while (turns.take()) {
    }
  }

  unsigned told_ready = 0;
  Turns turns{[this] { ++told_ready; }};
  std::vector<std::string> done;
  std::vector<Turns::Place> places;
};

TEST_F(CallsThatWait, AreDoneInTheOrderInWhichTheyCame) {
  add(1, "a");
  add(1, "b", Pace::kSlow);
  add(1, "c");

  take_all();

  EXPECT_THAT(done, ElementsAre("a", "b", "c"));
  EXPECT_FALSE(turns.ready());
}

TEST_F(CallsThatWait, OfOneUidLeaveEverySecondTurnToAnother) {
  for (const char* what : {"a1", "a2", "a3"}) add(1, what);
  for (const char* what : {"b1", "b2"}) add(2, what);
  add(3, "c1");

  take_all();

  EXPECT_THAT(done, ElementsAre("a1", "b1", "c1", "a2", "b2", "a3"));
}

TEST_F(CallsThatWait, GoOnBeforeTheOthersOfTheirUidAndLeaveEachOtherTurnToAnother) {
  unsigned parts = 3;
  std::function<void(Turns::Place)> part = [&](Turns::Place) {
    done.push_back("part");
    if (--parts > 0) turns.go_on(1, ":1.1", part);
  };
  turns.add(1, kFew, ":1.1", Pace::kQuick, part);
  add(1, "a");
  add(1, "b", Pace::kSlow);
  for (const char* what : {"c", "d"}) add(2, what);

  take_all();

  EXPECT_THAT(done, ElementsAre("part", "c", "part", "d", "part", "a", "b"));
}

TEST_F(CallsThatWait, ThatHaveBegunAreForgottenWithTheirClient) {
  turns.add(1, kFew, ":1.1", Pace::kQuick,
            [&](Turns::Place) { turns.go_on(1, ":1.1", [&](Turns::Place) { FAIL(); }); });
  ASSERT_TRUE(turns.take());

  turns.drop(":1.1");

  EXPECT_FALSE(turns.take());
}

TEST_F(CallsThatWait, AreNoMoreThanTheUidMayHave) {
  for (const char* what : {"a", "b"}) EXPECT_TRUE(add(1, what));
  EXPECT_TRUE(add(1, "c", Pace::kSlow));

  EXPECT_FALSE(add(1, "d"));
  EXPECT_FALSE(add(1, "e", Pace::kSlow));
  EXPECT_TRUE(add(2, "f"));
  EXPECT_EQ(turns.waiting(), 4U);

  turns.take();
  EXPECT_TRUE(turns.take());
  EXPECT_TRUE(add(1, "g"));
}

TEST_F(CallsThatWait, ForPid1HoldUpNothingElseOfTheirUid) {
  for (const char* what : {"a", "b"}) add(1, what, Pace::kSlow);
  take_all();
  add(1, "held back", Pace::kSlow);
  add(1, "quick");
  EXPECT_TRUE(turns.ready());

  take_all();

  EXPECT_THAT(done, ElementsAre("a", "b", "quick"));
  EXPECT_FALSE(turns.ready());
  EXPECT_EQ(told_ready, 0U);

  places.pop_back();
  EXPECT_EQ(told_ready, 1U);
  EXPECT_TRUE(turns.ready());
  take_all();
  EXPECT_THAT(done, ElementsAre("a", "b", "quick", "held back"));
}

TEST_F(CallsThatWait, ForPid1HoldUpNobodyElses) {
  for (const char* what : {"a", "b", "c"}) add(1, what, Pace::kSlow);
  take_all();

  add(2, "d", Pace::kSlow);
  take_all();

  EXPECT_THAT(done, ElementsAre("a", "b", "d"));
}

TEST_F(CallsThatWait, AreForgottenWhenTheirClientGoes) {
  add(1, "a", Pace::kQuick, ":1.7");
  add(1, "b", Pace::kSlow, ":1.7");
  add(1, "c", Pace::kQuick, ":1.8");

  turns.drop(":1.7");
  take_all();

  EXPECT_THAT(done, ElementsAre("c"));
  EXPECT_EQ(turns.waiting(), 0U);
}

TEST_F(CallsThatWait, KeepTheirPlaceAsLongAsAnybodyHoldsIt) {
  add(1, "a", Pace::kSlow);
  add(1, "b", Pace::kSlow);
  take_all();
  add(1, "c", Pace::kSlow);
  const Turns::Place copy = places.front();

  places.erase(places.begin());
  EXPECT_FALSE(turns.ready());
  EXPECT_EQ(told_ready, 0U);
}

TEST(APlace, MayOutliveThoseWhoGaveIt) {
  Turns::Place place;
  {
    Turns turns([] {});
    turns.add(1, {1, 1}, ":1.1", Pace::kSlow, [&](Turns::Place given) { place = std::move(given); });
    turns.take();
  }
  ASSERT_NE(place.use_count(), 0);
  place.reset();
}

}  // namespace
}  // namespace aw::api
