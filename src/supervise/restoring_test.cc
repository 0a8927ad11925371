// SPDX-License-Identifier: Apache-2.0
//
// Limits that somebody else has changed.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::mib;
using testing::OnTerm;
using ::testing::Pair;
using testing::Reply;
using ::testing::SizeIs;
using testing::Slice;
using testing::Told;
using testing::ToldNothing;
using testing::ToldToEnd;
using testing::World;

Limits some_limits() {
  Limits limits;
  limits.memory = mib(1024);
  limits.tasks_max = 100;
  limits.cpu_quota_per_second = milliseconds{500};
  limits.cpu_weight = 50;
  limits.wall_clock = std::chrono::hours{24};
  return limits;
}

class ALimitedRun : public testing::ARun {
 protected:
  ALimitedRun() : ARun(some_limits()) {}

  Slice& slice() { return world.slice("job"); }
  /// echo max > memory.max, and the kernel tells.
  void lift_ceiling() {
    slice().ceiling = Bytes::infinite();
    world.tell_of_limits(slice());
  }
  std::vector<EventRecord> restored() const { return world.records("job", EventKind::kLimitsRestored); }
  void expect_limits_as_registered() {
    EXPECT_EQ(slice().tripwire, mib(1024));
    EXPECT_EQ(slice().ceiling, mib(1152));
    EXPECT_EQ(slice().swap, Bytes(0));
    EXPECT_EQ(slice().tasks_max, 100U);
    EXPECT_EQ(slice().cpu_quota_per_second, Span(milliseconds{500}));
    EXPECT_EQ(slice().cpu_weight, 50U);
    EXPECT_THAT(slice().killed_singly, IsEmpty());
  }
};

TEST_F(ALimitedRun, IsLeftAloneWhileItsLimitsAreThere) {
  world.advance(minutes{10});
  EXPECT_THAT(restored(), IsEmpty());
  EXPECT_EQ(slice().limit_writes, 0U);
}

TEST_F(ALimitedRun, GetsACeilingBackAMomentAfterItWasLifted) {
  lift_ceiling();
  world.advance(milliseconds{200});
  expect_limits_as_registered();
  ASSERT_THAT(restored(), SizeIs(1));
  EXPECT_THAT(restored()[0].details,
              ElementsAre(Pair("memory.max_before", supervise::DetailValue(std::string("max"))),
                          Pair("memory.max", supervise::DetailValue(std::to_string(mib(1152).count())))));
}

TEST_F(ALimitedRun, GetsACeilingBackAtOnceThoughTheLoopIsNeverAtRest) {
  world.busy_loop = true;
  for (const Span after : {seconds{1}, seconds{16}}) {  // Then a round waits for the loop.
    world.advance(after);
    lift_ceiling();
    world.advance(seconds{1});
    expect_limits_as_registered();
  }
}

TEST_F(ALimitedRun, GetsEverythingBackWithin30SecondsThoughNothingTold) {
  world.losing_notifications = true;
  slice().tripwire = slice().ceiling = Bytes::infinite();
  slice().swap = Bytes::infinite();
  slice().tasks_max = kUnlimited;
  slice().cpu_quota_per_second = kForever;
  slice().cpu_weight = 10000;
  slice().killed_singly.insert(World::scope_name("job"));
  world.advance(seconds{30});
  expect_limits_as_registered();
  ASSERT_THAT(restored(), SizeIs(1));
  EXPECT_THAT(restored()[0].details, SizeIs(14));
}

TEST_F(ALimitedRun, GetsThemBackForGood) {
  slice().limits = {Bytes::infinite(), Bytes::infinite()};  // systemctl set-property: systemd has them too.
  world.placer.hold();
  lift_ceiling();
  world.advance(seconds{1});
  EXPECT_EQ(slice().ceiling, mib(1152)) << "at once, whatever systemd is busy with";
  EXPECT_EQ(slice().limits.ceiling, Bytes::infinite());
  world.placer.release();
  world.deliver();
  EXPECT_EQ(slice().limits.ceiling, mib(1152)) << "and where the next daemon-reload takes them from";
}

TEST_F(ALimitedRun, GetsThemBackThroughSystemdWhereFilesCanNotBeWritten) {
  world.cgroups.read_only = true;
  world.placer.hold();
  lift_ceiling();
  world.advance(seconds{1});
  EXPECT_EQ(slice().ceiling, Bytes::infinite());
  ASSERT_THAT(restored(), SizeIs(1));
  EXPECT_THAT(restored()[0].details, Contains(Pair("memory.max", supervise::DetailValue(std::string("max")))))
      << "the record says what is there";
  world.placer.release();
  world.advance(seconds{30});
  expect_limits_as_registered();
}

TEST_F(ALimitedRun, ToleratesWhatSystemdAndItselfWrite) {
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  Limits wanted = some_limits();
  wanted.memory = mib(2048);
  world.placer.hold();
  supervisor.request_set_limits(World::id("job"), wanted, world.caller(), world.now(), World::keep(reply));
  world.tell_of_limits(slice());
  world.advance(seconds{40});
  world.placer.release();
  world.advance(minutes{1});
  EXPECT_EQ(slice().ceiling, mib(2048 + 256));
  EXPECT_THAT(restored(), IsEmpty());
}

TEST_F(ALimitedRun, ThatIsEndingKeepsItsMercy) {
  set_on_term(OnTerm::kIgnores);
  world.placer.hold();  // The property comes late, and what systemd has is the old tripwire.
  end();
  const Bytes mercy = slice().tripwire;
  EXPECT_GT(mercy, mib(1024));
  slice().tripwire = mib(1024);
  world.tell_of_limits(slice());
  world.advance(seconds{1});
  EXPECT_THAT(restored(), IsEmpty()) << "a daemon-reload that undid the write is no drift";
  slice().tripwire = mib(1);
  world.tell_of_limits(slice());
  world.advance(seconds{2});
  EXPECT_THAT(restored(), SizeIs(1));
  EXPECT_EQ(slice().tripwire, mercy);
  world.placer.release();
  world.deliver();
  EXPECT_EQ(slice().limits.tripwire, mercy);
}

TEST_F(ALimitedRun, ThatHasGrownIsToldToEndBeforeItsCeilingIsBack) {
  set_on_term(OnTerm::kCleansUp, seconds{3});
  slice().tripwire = slice().ceiling = Bytes::infinite();
  world.use_memory("job", mib(4000));
  world.tell_of_limits(slice());
  world.advance(seconds{1});
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_TRUE(world.alive(leader)) << "the kernel would have killed it at the old ceiling";
  EXPECT_EQ(slice().ceiling, mib(4000 + 128)) << "it grows no further";
  EXPECT_THAT(restored(), SizeIs(1));
  world.advance(seconds{5});
  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_FALSE(end_record().escalated);
}

TEST_F(ALimitedRun, ThatIsAboveItsLimitButBelowItsCeilingIsEndedAtTheOldOne) {
  set_on_term(OnTerm::kIgnores);
  slice().tripwire = slice().ceiling = Bytes::infinite();
  world.use_memory("job", mib(1060));
  world.tell_of_limits(slice());
  world.advance(seconds{1});
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_EQ(slice().ceiling, mib(1152));
}

TEST_F(ALimitedRun, ThatSomebodyFightsOverIsRestoredEachTimeAndReportedNowAndThen) {
  unsigned restorations = 0;
  for (int i = 0; i < 20 * 60; ++i) {  // Once a second for 20 minutes.
    lift_ceiling();
    world.advance(seconds{1} + milliseconds{200});
    restorations += slice().ceiling == mib(1152) ? 1 : 0;
  }
  EXPECT_EQ(restorations, 20U * 60U);
  EXPECT_THAT(restored(), SizeIs(::testing::AllOf(::testing::Ge(2), ::testing::Le(3))));
  EXPECT_THAT(restored()[1].details, Contains(Pair("times", ::testing::_)));
}

TEST_F(ALimitedRun, IsReportedOnceMoreWhenTheFightIsOverAndAnotherBegins) {
  lift_ceiling();
  world.advance(minutes{1});
  slice().tasks_max = 7;
  world.tell_of_limits(slice());
  world.advance(minutes{1});
  EXPECT_THAT(restored(), SizeIs(2));
}

TEST_F(ALimitedRun, WhoseValuesAreNewEachTimeDoesNotFillTheLedger) {
  for (std::uint64_t i = 0; i < 100; ++i) {
    slice().tasks_max = 1000 + i;
    world.tell_of_limits(slice());
    world.advance(seconds{2});
    EXPECT_EQ(slice().tasks_max, 100U);
  }
  EXPECT_THAT(restored(), SizeIs(16));
}

TEST_F(ALimitedRun, IsNotLookedAtWhileItIsReleased) {
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  world.placer.hold();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(reply));
  lift_ceiling();
  world.advance(minutes{1});
  EXPECT_THAT(restored(), IsEmpty());
}

TEST_F(ALimitedRun, GetsATripwireBackThatTheDaemonBeforeHasLifted) {
  slice().tripwire = Bytes::infinite();
  world.restart_daemon();
  world.adopt();
  EXPECT_EQ(slice().tripwire, mib(1024));
  world.advance(minutes{1});
  EXPECT_THAT(restored(), IsEmpty()) << "that was the watchdog's own";
}

TEST_F(ALimitedRun, ThatHasGrownWhileNobodyWatchedIsToldToEndFirst) {
  set_on_term(OnTerm::kCleansUp, seconds{3});
  slice().tripwire = slice().ceiling = Bytes::infinite();
  world.restart_daemon();
  world.use_memory("job", mib(4000));
  world.adopt();
  world.advance(seconds{1});
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_TRUE(world.alive(leader));
  world.advance(seconds{5});
  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(ALimitedRun, ThatEndsIsLookedAtNoMore) {
  end();
  world.advance(minutes{1});
  EXPECT_NE(end_of(), std::nullopt);
  EXPECT_THAT(restored(), IsEmpty());
}

// ---- units that systemd loses ----

TEST_F(ALimitedRun, WhoseScopeSystemdLosesGetsAnother) {
  const auto deadline = find()->deadline;
  world.lose_unit(World::scope_name("job"));
  world.deliver();
  EXPECT_EQ(world.process(leader).cgroup, scope_path(World::scope_name("job", 2)));
  EXPECT_EQ(world.process(child).cgroup, scope_path(World::scope_name("job", 2)));
  EXPECT_EQ(find()->scope, World::scope_name("job", 2));
  EXPECT_EQ(find()->deadline, deadline);
  ASSERT_THAT(restored(), SizeIs(1));
  EXPECT_EQ(restored()[0].unit, World::scope_name("job", 2));
  EXPECT_THAT(restored()[0].details, Contains(Pair("lost_unit", DetailValue(World::scope_name("job")))));
  EXPECT_EQ(world.recorder.rows.at(find()->run_id).unit, World::scope_name("job", 2));
  expect_limits_as_registered();
}

TEST_F(ALimitedRun, WhoseSliceSystemdLosesGetsItsLimitsAgain) {
  world.lose_unit(World::slice_name("job"));
  world.deliver();
  EXPECT_EQ(slice().limits.ceiling, mib(1152));
  EXPECT_EQ(find()->scope, World::scope_name("job", 2));
  EXPECT_THAT(restored(), SizeIs(1));
}

TEST_F(ALimitedRun, WhoseScopeIsLostTriesAgainWhereThatFails) {
  world.placer.hold();
  world.lose_unit(World::scope_name("job"));
  world.deliver();
  world.placer.fail("busy");
  world.placer.release();
  world.deliver();
  EXPECT_EQ(find()->scope, World::scope_name("job"));
  EXPECT_THAT(restored(), IsEmpty());
  world.advance(seconds{16});
  EXPECT_EQ(find()->scope, World::scope_name("job", 3));
  EXPECT_EQ(world.process(leader).cgroup, scope_path(World::scope_name("job", 3)));
  EXPECT_THAT(restored(), SizeIs(1));
}

TEST_F(ALimitedRun, WhoseScopeSystemdHasLostWhileNobodyWatchedGetsAnother) {
  world.lose_unit(World::scope_name("job"), Told::kNobody);
  world.restart_daemon();
  world.adopt();
  world.advance(seconds{1});
  EXPECT_EQ(find()->scope, World::scope_name("job", 2));
  EXPECT_EQ(world.process(leader).cgroup, scope_path(World::scope_name("job", 2)));
  EXPECT_EQ(world.process(child).cgroup, scope_path(World::scope_name("job", 2)));
  EXPECT_THAT(restored(), SizeIs(1));
  expect_limits_as_registered();
}

TEST_F(ALimitedRun, WhoseSliceSystemdHasLostWhileNobodyWatchedGetsItBack) {
  world.lose_unit(World::slice_name("job"), Told::kNobody);
  world.restart_daemon();
  world.adopt();
  world.advance(seconds{1});
  EXPECT_EQ(find()->scope, World::scope_name("job", 2));
  EXPECT_EQ(slice().limits.ceiling, mib(1152));
  EXPECT_THAT(restored(), SizeIs(1));
}

TEST_F(ALimitedRun, WhoseScopeSystemdLosesWhileTheBusIsAwayGetsAnother) {
  world.lose_unit(World::scope_name("job"), Told::kNobody);
  world.placer.hold();
  (void)world.placer.lose();
  world.placer.release();
  supervisor.on_manager_back(world.now());
  world.advance(seconds{1});
  EXPECT_EQ(find()->scope, World::scope_name("job", 2));
  EXPECT_THAT(restored(), SizeIs(1));
}

TEST_F(ALimitedRun, IsNotMovedWhereSystemdHasAllOfItsUnitsOrDoesNotSay) {
  world.restart_daemon();
  world.placer.hold();
  world.adopt();
  (void)world.placer.lose();
  world.placer.release();
  world.advance(seconds{1});
  world.restart_daemon();
  world.adopt();
  world.advance(seconds{20});
  EXPECT_THAT(restored(), IsEmpty());
  EXPECT_EQ(find()->scope, World::scope_name("job"));
}

TEST_F(ALimitedRun, IsNotMovedForAUnitThatIsEmptyOrAnothers) {
  supervisor.on_unit_removed(World::scope_name("job", 2), world.now());
  supervisor.on_unit_removed("analysis-jo.scope", world.now());
  supervisor.on_unit_removed("analysis-job2.scope", world.now());
  supervisor.on_unit_removed("analysis.slice", world.now());
  world.advance(seconds{20});
  EXPECT_THAT(restored(), IsEmpty());
  EXPECT_EQ(find()->scope, World::scope_name("job"));
}

TEST_F(ALimitedRun, IsNotMovedWhileItMovesAnyhow) {
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_extend(World::id("job"), std::chrono::hours{1}, world.caller(), world.now(), World::keep(reply));
  supervisor.on_unit_removed(World::scope_name("job"), world.now());
  world.advance(seconds{20});
  EXPECT_THAT(restored(), IsEmpty());
  EXPECT_EQ(find()->scope, World::scope_name("job", 2));
}

TEST_F(ALimitedRun, ThatIsEndingEndsWithoutItsScope) {
  set_on_term(OnTerm::kIgnores);
  end();
  world.lose_unit(World::scope_name("job"));
  world.advance(minutes{1});
  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_THAT(restored(), IsEmpty());
}

}  // namespace
}  // namespace aw::supervise
