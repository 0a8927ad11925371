// SPDX-License-Identifier: Apache-2.0
#include "supervise/departures.h"

#include <gmock/gmock.h>

#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::World;

class SlicesThatGo : public ::testing::Test {
 protected:
  void add(uid_t uid, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) departures.add(uid, std::to_string(uid) + "-" + std::to_string(i));
  }
  std::vector<std::string> begin_all() {
    std::vector<std::string> begun;
    while (auto departure = departures.next()) begun.push_back(departure->slice);
    return begun;
  }

  Departures departures;
};

TEST_F(SlicesThatGo, OfOneUidAreAFewAtATime) {
  add(1, 20);

  EXPECT_THAT(begin_all(), SizeIs(Departures::kMostOfOne));
  EXPECT_THAT(begin_all(), IsEmpty());
  departures.left(1);
  EXPECT_THAT(begin_all(), ElementsAre("1-8"));
  EXPECT_EQ(departures.waiting(), 11U);
}

TEST_F(SlicesThatGo, OfSeveralUidsTakeTurns) {
  add(1, 20);
  add(2, 2);
  add(3, 1);

  EXPECT_THAT(begin_all(), ElementsAre("1-0", "2-0", "3-0", "1-1", "2-1", "1-2", "1-3", "1-4", "1-5", "1-6", "1-7"));
}

TEST_F(SlicesThatGo, OfAllUidsAreNoMoreThanPid1CanBeAskedForInAMoment) {
  for (uid_t uid = 1; uid <= 100; ++uid) add(uid, 3);

  EXPECT_THAT(begin_all(), SizeIs(Departures::kMostOfAll));
  EXPECT_EQ(departures.under_way(), Departures::kMostOfAll);
}

TEST_F(SlicesThatGo, AreTakenOutOfTurnIfSomebodyWaitsForTheName) {
  add(1, 20);
  (void)begin_all();

  const auto hurried = departures.take("1-15");

  ASSERT_TRUE(hurried);
  EXPECT_EQ(hurried->uid, 1U);
  EXPECT_EQ(departures.under_way(), Departures::kMostOfOne + 1);
  EXPECT_FALSE(departures.take("1-15"));
  departures.left(1);
  EXPECT_THAT(begin_all(), IsEmpty()) << "one too many is under way still";
}

// ---- in the supervisor ----

class AMassEnd : public testing::AWorld {
 protected:
  static constexpr int kMany = 60;

  AMassEnd() {
    for (int i = 0; i < kMany; ++i) {
      leaders_.push_back(world.spawn(world.user_shell));
      world.register_run("run" + std::to_string(i), leaders_.back());
    }
    world.placer.on_stop = [this](const std::string& unit) { stopped_.push_back(unit); };
  }

  std::vector<pid_t> leaders_;
  std::vector<std::string> stopped_;
};

TEST_F(AMassEnd, AsksPid1ForAFewStopsAtATimeAndForAllInTheEnd) {
  world.placer.hold();

  for (const pid_t pid : leaders_) world.exit(pid);
  world.advance(std::chrono::seconds{1});

  EXPECT_EQ(world.placer.waiting(), Departures::kMostOfOne);
  for (int i = 0; i < kMany; ++i) EXPECT_EQ(end_of("run" + std::to_string(i)), Reason::kExited);
  world.placer.release();
  world.advance(std::chrono::seconds{1});
  EXPECT_EQ(world.slice_count(), 0U);
  EXPECT_THAT(stopped_, SizeIs(kMany));
  EXPECT_FALSE(supervisor.busy());
}

TEST_F(AMassEnd, LeavesARegistrationOfAnothersFewStopsBeforeIt) {
  world.placer.hold();
  for (const pid_t pid : leaders_) world.exit(pid);
  world.advance(std::chrono::seconds{1});
  const pid_t anothers = world.spawn(world.user_shell);
  world.process(anothers).uid = World::kUser + 1;

  const auto answer = std::make_shared<std::optional<Result<RunKey>>>();
  supervisor.request_register({World::id("anothers"), world.handle(anothers), {}, world.caller(World::kUser + 1)},
                              world.now(), [answer](Result<RunKey> key, const Now&) { *answer = std::move(key); });

  EXPECT_EQ(world.placer.waiting(), Departures::kMostOfOne + 1);
  world.placer.release();
  ASSERT_TRUE(*answer);
  EXPECT_TRUE((*answer)->has_value());
  EXPECT_THAT(stopped_, SizeIs(Departures::kMostOfOne)) << "the others' turn is after it";
}

TEST_F(AMassEnd, HoldsUpNoRegistrationOfOneOfItsIds) {
  world.placer.hold();
  for (const pid_t pid : leaders_) world.exit(pid);
  world.advance(std::chrono::seconds{1});
  const std::string last = "run" + std::to_string(kMany - 1);

  const auto answer = world.request_register(last, leader);
  const std::size_t asked = world.placer.waiting();
  world.placer.release();

  EXPECT_EQ(asked, Departures::kMostOfOne + 2) << "the stop of the old slice, and the new one";
  ASSERT_TRUE(*answer);
  EXPECT_TRUE((*answer)->has_value());
  world.advance(std::chrono::seconds{1});
  EXPECT_TRUE(world.has_slice(last));
  EXPECT_EQ(world.slice_count(), 1U);
}

TEST_F(AMassEnd, KillsEachTreeAtOnceWhateverPid1HasToDo) {
  world.placer.hold();
  for (const pid_t pid : leaders_) world.process(pid).on_term = testing::OnTerm::kIgnores;

  for (int i = 0; i < kMany; ++i) {
    EXPECT_TRUE(supervisor.end(World::id("run" + std::to_string(i)), world.caller(), world.now()));
  }

  for (const pid_t pid : leaders_) EXPECT_THAT(world.signals_to(pid), testing::ToldToEnd());
  world.advance(std::chrono::seconds{11});
  for (int i = 0; i < kMany; ++i) EXPECT_EQ(world.slice("run" + std::to_string(i)).kills, 1U);
  for (const pid_t pid : leaders_) EXPECT_FALSE(world.alive(pid));
}

TEST_F(AMassEnd, IsFinishedByTheNextDaemonInTheSameManner) {
  world.placer.hold();
  for (const pid_t pid : leaders_) world.exit(pid);
  world.advance(std::chrono::seconds{1});
  world.placer.abandon([] { return false; });

  world.restart_daemon();
  world.placer.hold();
  world.adopt();
  world.advance(std::chrono::seconds{1});

  EXPECT_EQ(world.placer.waiting(), Departures::kMostOfOne);
  world.placer.release();
  world.advance(std::chrono::seconds{1});
  EXPECT_EQ(world.slice_count(), 0U);
  for (int i = 0; i < kMany; ++i) EXPECT_EQ(end_of("run" + std::to_string(i)), Reason::kExited);
}

}  // namespace
}  // namespace aw::supervise
