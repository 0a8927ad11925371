// SPDX-License-Identifier: Apache-2.0
#include "supervise/rounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace aw::supervise {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::SizeIs;

class Waiting : public ::testing::Test {
 protected:
  Waiting() { now.monotonic = Instant{1h}; }

  void add(std::size_t runs) {
    for (RunKey run = 1; run <= runs; ++run) rounds.add(run, Purpose::kOrphanRound, now);
  }
  void turn() {
    requested = false;
    rounds.on_due(now);
  }
  void late() {
    now.monotonic = std::exchange(late_alarm, std::nullopt).value_or(now.monotonic);
    rounds.on_late(now);
  }

  Now now{};
  Span takes{0};  ///< each of them
  std::vector<RunKey> made;
  bool requested = false;
  std::optional<Instant> late_alarm;
  Rounds rounds{{[this](RunKey run, Purpose purpose, const Now&) {
                   EXPECT_EQ(purpose, Purpose::kOrphanRound);
                   made.push_back(run);
                   now.monotonic += takes;
                 },
                 [this] { requested = true; }, [this](Instant due) { late_alarm = due; },
                 [this] { return now.monotonic; }}};
};

TEST_F(Waiting, RoundsAreMadeInATurnOfTheirOwn) {
  add(3);
  EXPECT_THAT(made, IsEmpty());
  EXPECT_TRUE(requested);

  turn();

  EXPECT_THAT(made, ElementsAre(1, 2, 3));
  EXPECT_TRUE(rounds.empty());
  EXPECT_FALSE(requested);
}

TEST_F(Waiting, TheLateAlarmIsArmedForTheFirstOfMany) {
  const Instant first = now.monotonic + Rounds::kLongestWait;
  for (int i = 0; i < 10; ++i) {
    add(1);
    turn();
    EXPECT_THAT(late_alarm, Optional(first));
    now.monotonic += 10ms;
  }

  late();

  EXPECT_THAT(made, SizeIs(10));
  EXPECT_EQ(late_alarm, std::nullopt) << "nothing waits";
}

TEST_F(Waiting, AnAlarmForOneThatIsMadeComesAgainForOneThatIsNot) {
  add(1);
  turn();
  now.monotonic += 1s;
  add(1);
  const Instant since = now.monotonic;

  late();

  EXPECT_THAT(made, SizeIs(1));
  EXPECT_THAT(late_alarm, Optional(since + Rounds::kLongestWait));
  late();
  EXPECT_THAT(made, SizeIs(2));
}

TEST_F(Waiting, ManyTakeSeveralTurns) {
  takes = Rounds::kTurn / 4;
  add(9);

  turn();
  EXPECT_THAT(made, SizeIs(4));
  EXPECT_TRUE(requested);
  turn();
  turn();

  EXPECT_THAT(made, SizeIs(9));
  EXPECT_TRUE(rounds.empty());
}

TEST_F(Waiting, OneThatIsLongerThanATurnIsMadeAllTheSame) {
  takes = 3 * Rounds::kTurn;
  add(2);

  turn();

  EXPECT_THAT(made, ElementsAre(1));
}

TEST_F(Waiting, ForALoopThatIsAlwaysBusyEnds) {
  takes = Rounds::kTurn / 2;
  add(3);
  const Instant since = now.monotonic;
  EXPECT_THAT(late_alarm, Optional(since + Rounds::kLongestWait));

  late();
  EXPECT_THAT(made, ElementsAre(1, 2));
  late();

  EXPECT_THAT(made, ElementsAre(1, 2, 3));
  EXPECT_EQ(late_alarm, std::nullopt);
}

TEST_F(Waiting, LeavesTheRestMostOfTheTimeHoweverLate) {
  takes = 20 * Rounds::kTurn;
  add(3);

  late();
  EXPECT_THAT(late_alarm, Optional(now.monotonic + 9 * takes));
  takes = 1us;
  late();

  EXPECT_THAT(made, SizeIs(3));
}

TEST_F(Waiting, AnAlarmThatCameTooEarlyMakesNone) {
  add(1);
  late_alarm = now.monotonic + Rounds::kLongestWait - 1us;
  late();

  EXPECT_THAT(made, IsEmpty());
  EXPECT_THAT(late_alarm, Optional(now.monotonic + Rounds::kBetweenLate));
}

}  // namespace
}  // namespace aw::supervise
