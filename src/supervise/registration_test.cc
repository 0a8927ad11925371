// SPDX-License-Identifier: Apache-2.0
//
// From a request to a watched run, and what is left of one that came to nothing.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::Answer;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::mib;
using testing::refusal_of;
using ::testing::SizeIs;
using testing::ToldToEnd;
using testing::World;

class ALeader : public testing::AWorld {
 protected:
  ALeader() = default;
  explicit ALeader(const Policy& policy) : AWorld(policy) {}

  /// Everything that a registration could leave behind.
  void expect_nothing_left() {
    EXPECT_THAT(supervisor.runs(), IsEmpty());
    EXPECT_EQ(world.alarm(), std::nullopt);
    EXPECT_EQ(world.watch_count(), 0);
    EXPECT_EQ(world.slice_count(), 0);
    EXPECT_THAT(world.recorder.records, IsEmpty());
  }
  /// The leader and its child are where they were, as they were, and nothing tells that they have been elsewhere.
  void expect_back_in(const std::string& home) {
    for (const pid_t pid : {leader, child}) {
      EXPECT_EQ(world.process(pid).cgroup, home);
      expect_left_alone(pid);
    }
    expect_nothing_left();
  }
  void expect_in_scope(pid_t pid) {
    EXPECT_EQ(world.process(pid).cgroup, scope_path()) << world.process(pid).stat.comm;
  }
};

TEST_F(ALeader, IsInItsScopeWithTheLimitsInForceWhenTheAnswerComes) {
  Limits limits;
  limits.wall_clock = minutes{5};
  limits.grace = seconds{7};
  limits.tasks_max = 64;

  world.register_run("job", leader, limits);

  expect_in_scope(leader);
  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048));
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(2048 + 256));
  EXPECT_EQ(world.slice("job").limits.tasks_max, 64);
  ASSERT_THAT(world.placer.orders, SizeIs(1));
  const ScopeOrder& order = world.placer.orders[0];
  EXPECT_EQ(order.runtime_max, minutes{5} + seconds{7} + Supervisor::kBackstopMargin);
  EXPECT_EQ(order.stop_timeout, seconds{7});
  EXPECT_TRUE(order.kill_whole_on_oom);
}

TEST_F(ALeader, IsOnRecordWithItsOwner) {
  world.register_run("job", leader);

  const auto records = world.records("job");
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_EQ(records[0].kind, EventKind::kRegistered);
  EXPECT_EQ(records[0].pid, leader);
  EXPECT_EQ(records[0].comm, "analysis");
  EXPECT_EQ(records[0].cmdline, "/usr/bin/analysis");
  EXPECT_EQ(records[0].uid, World::kUser);
  EXPECT_EQ(records[0].unit, World::scope_name("job"));
  EXPECT_THAT(records[0].details, Contains(std::pair(std::string("owner_pid"), DetailValue(std::uint64_t(owner)))));
}

TEST_F(ALeader, HasNoBackstopWithoutADeadline) {
  Limits limits;
  limits.wall_clock = kForever;

  world.register_run("job", leader, limits);

  EXPECT_EQ(world.placer.orders.at(0).runtime_max, kForever);
  world.advance(std::chrono::hours{20});
  expect_left_alone(leader);
}

// ---- a live tree ----

TEST_F(ALeader, BringsItsWholeTree) {
  world.setsid(leader);
  const pid_t grandchild = world.spawn(child);
  const pid_t middle = world.spawn(leader);
  world.process(middle).stat.process_group = world.process(middle).stat.session = leader;
  const pid_t daemonized = world.spawn(middle);
  world.exit(middle);  // Its child is init's now, and of the leader's session still.
  const pid_t sibling = world.spawn(owner);

  world.register_run("job", leader);

  for (const pid_t pid : {leader, child, grandchild, daemonized}) expect_in_scope(pid);
  EXPECT_EQ(world.process(sibling).cgroup, world.process(owner).cgroup);
  EXPECT_EQ(world.process(owner).cgroup, world.process(world.user_shell).cgroup);
}

TEST_F(ALeader, BringsWhatIsForkedWhileItIsMoved) {
  std::vector<pid_t> forked;
  world.cgroups.before_move = [&](pid_t pid) {
    if (forked.size() < 20 && world.process(pid).cgroup != scope_path()) forked.push_back(world.spawn(pid));
  };

  world.register_run("job", leader);

  ASSERT_THAT(forked, SizeIs(20));
  for (const pid_t pid : forked) expect_in_scope(pid);
}

TEST_F(ALeader, ThatForksFasterThanItCanBeMovedIsRefused) {
  world.cgroups.before_move = [&](pid_t pid) {
    if (pid != leader) (void)world.spawn(pid);
  };

  const Answer answer = world.request_register("job", leader);
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  world.advance(seconds{1});
  expect_nothing_left();
}

TEST_F(ALeader, WithADescendantThatCannotBeMovedIsRefused) {
  world.cgroups.immovable = {child};

  const Answer answer = world.request_register("job", leader);
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  EXPECT_THAT((**answer).error().message, HasSubstr("python"));
  world.advance(seconds{1});
  expect_nothing_left();
}

TEST_F(ALeader, LivesOnWhereItWasWhenItIsRefused) {
  const std::string home = world.process(leader).cgroup;
  const pid_t stubborn = world.spawn(child, "stubborn");
  world.cgroups.immovable = {stubborn};

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  for (const pid_t pid : {leader, child, stubborn}) {
    EXPECT_EQ(world.process(pid).cgroup, home);
    expect_left_alone(pid);
  }
  expect_nothing_left();
}

TEST_F(ALeader, LivesOnInAScopeOfItsOwnWhereItsCgroupIsGone) {
  world.cgroups.removed = {world.process(leader).cgroup};
  world.cgroups.immovable = {child};

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  EXPECT_THAT(world.process(leader).cgroup, ::testing::StartsWith("/analysis.slice/analysis-job-r"));
  EXPECT_EQ(world.placer.orders.back().runtime_max, kForever);
  expect_left_alone(leader);
  expect_left_alone(child);
  expect_nothing_left();
}

TEST_F(ALeader, DoesNotStopTheUnitsOfARunThatIsNotOurs) {
  const pid_t of_a_watchdog_that_is_gone = world.spawn(world.user_shell);
  const auto process = world.handle(of_a_watchdog_that_is_gone);
  const ScopeOrder order{World::scope_name("job"), World::slice_name("job"), process.get(), kForever, {}, true, ""};
  world.placer.request_place(order, {}, [](const Result<void>&, const Now&) {});
  world.deliver();
  ASSERT_TRUE(world.has_slice("job"));

  const Answer answer = world.request_register("job", leader);
  world.advance(seconds{5});

  EXPECT_EQ(refusal_of(*answer), Refusal::kAlreadyRegistered);
  EXPECT_THAT((**answer).error().message, HasSubstr("systemctl stop"));
  EXPECT_TRUE(world.has_slice("job"));
  expect_left_alone(of_a_watchdog_that_is_gone);
  expect_left_alone(leader);
}

TEST_F(ALeader, DoesNotBringWhatBelongsToAnotherRun) {
  world.register_run("inner", child);

  world.register_run("job", leader);

  expect_in_scope(leader);
  EXPECT_THAT(world.process(child).cgroup, HasSubstr(World::scope_name("inner")));
}

TEST_F(ALeader, DoesNotBringWhatIsProtected) {
  world.process(child).protected_as = "the bus";

  world.register_run("job", leader);

  EXPECT_EQ(world.process(child).cgroup, world.process(owner).cgroup);
}

// ---- whose it is ----

TEST_F(ALeader, ThatBecomesASetUidProgramWhileItIsPlacedIsGivenBack) {
  const std::string home = world.process(leader).cgroup;
  world.placer.hold();
  const Answer answer = world.request_register("job", leader);
  world.deliver();

  world.process(leader).uid = 0;
  world.placer.release();
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kAccessDenied);
  expect_back_in(home);
}

TEST_F(ALeader, OfAUserDoesNotBringAProcessOfAnothers) {
  const std::string home = world.process(leader).cgroup;
  world.process(child).uid = 0;

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kAccessDenied);
  EXPECT_THAT((**answer).error().message, HasSubstr("python"));
  expect_back_in(home);
}

TEST_F(ALeader, OfAUserDoesNotBringOneThatBecomesAnothersWhileItIsMovedEither) {
  const std::string home = world.process(leader).cgroup;
  world.cgroups.on_move = [&](pid_t pid, const std::string&) {
    if (pid == child) world.process(pid).uid = 0;
  };

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kAccessDenied);
  expect_back_in(home);
}

TEST_F(ALeader, OfRootBringsWhatItHasStartedAsOthers) {
  world.process(leader).uid = 0;
  Answer answer = std::make_shared<std::optional<Result<RunKey>>>();
  supervisor.request_register({World::id("job"), world.handle(leader), {}, world.caller(0)}, world.now(),
                              [answer](Result<RunKey> done, const Now&) { *answer = std::move(done); });
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), std::nullopt);
  expect_in_scope(leader);
  expect_in_scope(child);
}

TEST_F(ALeader, IsToldTheIdOfTheRunThatItBelongsToOnlyWhereThatIsItsOwners) {
  world.register_run("job", leader);
  EXPECT_THAT((**[&] {
                const Answer answer = world.request_register("another", child);
                world.deliver();
                return answer;
              }())
                  .error()
                  .message,
              HasSubstr("\"job\""));

  world.process(child).uid = 2000;
  Answer answer = std::make_shared<std::optional<Result<RunKey>>>();
  supervisor.request_register({World::id("another"), world.handle(child), {}, {2000, 0, false}}, world.now(),
                              [answer](Result<RunKey> done, const Now&) { *answer = std::move(done); });
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kProcessAlreadyRegistered);
  EXPECT_THAT((**answer).error().message, ::testing::Not(HasSubstr("job")));
}

// ---- whose pid it is ----

TEST_F(ALeader, BringsNobodyWhoHasThePidOfADescendantByThen) {
  bool replaced = false;
  world.cgroups.before_move = [&](pid_t pid) {
    if (pid == child && !std::exchange(replaced, true)) replace_by_roots(child);
  };

  world.register_run("job", leader);

  expect_in_scope(leader);
  expect_with_cron(child);
  world.advance(minutes{40});
  EXPECT_EQ(end_of(), Reason::kWallClock);
  expect_with_cron(child);
}

TEST_F(ALeader, WhosePidIsAnothersInItsScopeByThenIsRefused) {
  const pid_t roots_child = world.spawn(cron);
  bool opened = false;
  world.on_port_call = [&](const char* call) {
    if (call != std::string_view("open") || std::exchange(opened, true)) return;
    replace_by_roots(leader);
    world.process(leader).cgroup = scope_path();
    world.process(roots_child).stat.parent = leader;
  };

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kNoSuchProcess);
  expect_with_cron(leader);
  expect_with_cron(roots_child);
  expect_left_alone(child);
  expect_nothing_left();
}

TEST_F(ALeader, WhosePidIsAnothersByThenSendsNobodyToWhereThatOneCameFrom) {
  const std::string home = world.process(leader).cgroup;
  const pid_t worker = world.spawn(child, "worker");
  world.cgroups.immovable = {worker};
  bool replaced = false;
  world.cgroups.before_move = [&](pid_t pid) {
    if (pid != worker || std::exchange(replaced, true)) return;
    replace_by_roots(leader);
    world.process(leader).cgroup = scope_path();
  };

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kNoSuchProcess);
  expect_with_cron(leader);
  for (const pid_t pid : {child, worker}) {
    expect_left_alone(pid);
    EXPECT_EQ(world.process(pid).cgroup, home);
  }
  expect_nothing_left();
}

TEST_F(ALeader, ThatIsGivenBackTakesNobodyToWhereItCameFrom) {
  world.cgroups.immovable = {child};
  bool replaced = false;
  world.cgroups.before_put_back = [&](pid_t pid) {
    if (pid == leader && !std::exchange(replaced, true)) replace_by_roots(leader);
  };

  const Answer answer = world.request_register("job", leader);
  world.advance(minutes{40});

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  expect_with_cron(leader);
  expect_nothing_left();
}

TEST_F(ALeader, OfThousandsIsRefusedBeforeItIsTouched) {
  for (int i = 0; i < 2048; ++i) world.spawn(leader);

  const Answer answer = world.request_register("job", leader);
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  EXPECT_THAT((*answer)->error().message, HasSubstr("more than 2048 processes"));
  EXPECT_THAT(world.placer.orders, IsEmpty());
}

TEST_F(ALeader, WhoseDescendantsAreInRunsOfTheirOwnMayHaveThousands) {
  const pid_t other = world.spawn(owner, "other");
  world.register_run("other", other);
  for (int i = 0; i < 2048; ++i) world.process(world.spawn(leader)).cgroup = world.process(other).cgroup;

  const Answer answer = world.request_register("job", leader);
  world.deliver();

  EXPECT_TRUE((*answer)->has_value());
}

// ---- memory from before ----

class AFatTree : public ALeader {
 protected:
  AFatTree() {
    world.process(leader).anonymous = mib(512);
    world.process(child).anonymous = mib(512);
  }
};

TEST_F(AFatTree, IsChargedForWhatItHadBefore) {
  world.register_run("job", leader);

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(1024));
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(1024 + 256));
  EXPECT_THAT(world.records("job").at(0).details,
              Contains(std::pair(std::string("memory_precharged_bytes"), DetailValue(mib(1024).count()))));
}

TEST_F(AFatTree, IsJudgedByBothTogether) {
  world.register_run("job", leader);
  world.advance(seconds{1});

  world.process(leader).anonymous = mib(512 + 1030);
  world.use_memory("job", mib(1030));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(AFatTree, OfVeryManyProcessesDoesNotKeepAnybodyFromOthersByLooksAtItsMemory) {
  for (int i = 0; i < 998; ++i) world.spawn(leader);
  const RunKey key = world.register_run("job", leader);
  world.advance(seconds{1});
  const std::size_t before = world.processes.anonymous_reads;

  // Page cache holds it at its tripwire all the time.
  world.process(leader).anonymous = mib(512 + 900);
  for (int i = 0; i < 100; ++i) {
    world.use_memory("job", mib(900), mib(200));
    world.advance(std::chrono::milliseconds{10});
  }
  const std::size_t looks = (world.processes.anonymous_reads - before) / 1000;
  (void)supervisor.read_usage(*supervisor.find(key));

  EXPECT_GE(looks, 4U);
  EXPECT_LE(looks, 6U);
  EXPECT_EQ(world.processes.anonymous_reads - before, 1000 * looks) << "who asks is told what is known";
}

TEST_F(AFatTree, MayUseAgainWhatItHasFreed) {
  world.register_run("job", leader);
  world.advance(seconds{1});

  world.process(leader).anonymous = mib(1030);
  world.process(child).anonymous = mib(0);
  world.use_memory("job", mib(1030));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), std::nullopt);
  EXPECT_EQ(world.slice("job").tripwire, mib(2048));
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(2048 + 256));
}

TEST_F(AFatTree, ThatHasMoreThanItMayIsEndedAtOnce) {
  Limits limits;
  limits.memory = mib(900);

  world.register_run("job", leader, limits);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(AFatTree, ThatHasMoreThanItMayGetsLimitsThatSystemdTakes) {
  Limits limits;
  limits.memory = mib(900);
  world.placer.hold();

  world.request_register("job", leader, limits);
  world.placer.answer();

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(4));
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(4) + limits.effective_headroom());
}

TEST_F(AFatTree, CountsOnceWhatItsWorkersShare) {
  world.process(leader).anonymous_share = mib(256);
  world.process(child).anonymous_share = mib(256);

  world.register_run("job", leader);

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048 - 512));
}

TEST_F(AFatTree, WhoseMemoryTakesLongToBeReadIsChargedForItThen) {
  world.process(child).share_blocks = true;
  world.register_run("job", leader);
  world.advance(seconds{5});
  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048 - 512));

  world.process(child).share_blocks = false;
  world.advance(seconds{2});

  EXPECT_EQ(world.slice("job").tripwire, mib(1024));
  EXPECT_EQ(world.slice("job").limits.tripwire, mib(1024));
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(1024 + 256));
  EXPECT_EQ(end_of(), std::nullopt);
}

TEST_F(AFatTree, IsChargedForALittleThatIsReadLateAsAPartOfAllOfIt) {
  world.process(leader).anonymous = mib(100);  // A little by itself, as the child's is.
  world.process(child).anonymous = mib(60);
  world.process(child).share_blocks = true;
  world.register_run("job", leader);
  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048));

  world.process(child).share_blocks = false;
  world.advance(seconds{5});

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048 - 160));
}

TEST_F(AFatTree, IsNotChargedTwiceForWhatItTookWhileThatWasRead) {
  world.process(child).share_blocks = true;
  world.register_run("job", leader);
  world.process(child).anonymous = mib(512 + 900);
  world.use_memory("job", mib(900));
  world.advance(seconds{5});

  world.process(child).share_blocks = false;
  world.advance(seconds{2});

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(1024));
  EXPECT_EQ(end_of(), std::nullopt);
}

TEST_F(AFatTree, WhoseMemoryIsNeverReadIsWatchedForWhatComes) {
  world.process(child).share_blocks = true;
  world.register_run("job", leader);

  world.use_memory("job", mib(2100));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(ALeader, IsNotChargedForALittle) {
  world.process(leader).anonymous = mib(20);

  world.register_run("job", leader);

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048));
}

// ---- placements that come to nothing ----

TEST_F(ALeader, IsRefusedWhenSystemdCannotPlaceIt) {
  world.placer.hold();
  const Answer answer = world.request_register("job", leader);
  world.deliver();
  EXPECT_FALSE(answer->has_value());

  world.placer.fail("Access denied");
  world.placer.release();
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  EXPECT_THAT((**answer).error().message, HasSubstr("Access denied"));
  expect_nothing_left();
  expect_left_alone(leader);
}

TEST_F(ALeader, WaitsForTheSliceOfOneThatIsStillGivenBack) {
  world.cgroups.removed = {world.process(leader).cgroup};
  world.cgroups.immovable = {child};
  world.placer.hold();
  const Answer first = world.request_register("job", leader);
  world.placer.release();  // It is refused, and waits for a scope of its own to go back to.
  const pid_t next = world.spawn(world.user_shell);
  const Answer second = world.request_register("job", next);
  world.advance(seconds{1});

  EXPECT_EQ(refusal_of(*first), Refusal::kScopeFailed);
  ASSERT_TRUE(*second && **second);
  expect_left_alone(leader);
  expect_left_alone(next);
  expect_in_scope(next);
}

TEST_F(ALeader, WhomSystemdPlacesLateHasItsWholeTime) {
  Limits limits;
  limits.wall_clock = seconds{20};
  limits.grace = seconds{1};
  world.placer.hold();
  const Answer answer = world.request_register("job", leader, limits);
  world.placer.carry_out();  // The backstop counts from now, the deadline from the answer.
  world.advance(seconds{30});
  world.placer.release();
  world.advance(seconds{19});

  ASSERT_TRUE(*answer && **answer);
  expect_left_alone(leader);
  EXPECT_THAT(world.signals_to(leader, testing::Sender::kSystemd), IsEmpty());
  world.advance(seconds{3});
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(ALeader, ThatBecomesAZombieWhileItIsPlacedLeavesNothingBehind) {
  world.process(owner).reaps = testing::Reaps::kNever;
  world.placer.hold();
  const Answer answer = world.request_register("job", leader);

  world.exit(leader);
  world.placer.release();
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kNoSuchProcess);
  expect_nothing_left();
}

TEST_F(ALeader, ThatIsGoneBeforeItIsPlacedLeavesNothingBehind) {
  world.placer.hold();
  const Answer answer = world.request_register("job", leader);

  world.exit(leader);
  world.advance(seconds{1});
  world.placer.release();
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kNoSuchProcess);
  expect_nothing_left();
}

TEST_F(ALeader, ThatEndsWhileItsTreeIsGatheredLeavesNothingBehind) {
  world.cgroups.before_move = [&](pid_t pid) {
    if (pid == child) world.exit(leader);
  };
  const Answer answer = world.request_register("job", leader);
  world.advance(seconds{1});

  EXPECT_EQ(refusal_of(*answer), Refusal::kNoSuchProcess);
  expect_nothing_left();
}

TEST_F(ALeader, ThatEndsRightAfterItWasPlacedHasARunThatEnds) {
  world.exit(child);
  const Answer answer = world.request_register("job", leader);
  world.deliver();
  world.exit(leader, 2);
  world.advance(seconds{1});

  EXPECT_TRUE((*answer)->has_value());
  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().exit_code, 2);
}

TEST_F(ALeader, ThatIsNeverPlacedIsPlacingAndBlocksNobodyElse) {
  world.placer.hold();
  const Answer never = world.request_register("job", leader);
  const Answer again = world.request_register("job", world.spawn(owner));
  world.advance(minutes{40});

  EXPECT_FALSE(never->has_value());
  EXPECT_EQ(refusal_of(*again), Refusal::kAlreadyRegistered);
  EXPECT_EQ(find()->state(), State::kPlacing);
  EXPECT_EQ(supervisor.monitored(), 0);
  expect_left_alone(leader);
}

TEST_F(ALeader, ThatIsToBeEndedWhileItIsPlacedIsEndedThen) {
  world.placer.hold();
  const Answer answer = world.request_register("job", leader);
  EXPECT_TRUE(supervisor.end(World::id("job"), world.caller(), world.now()));
  expect_left_alone(leader);

  world.placer.release();
  world.deliver();

  EXPECT_TRUE((*answer)->has_value());
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_THAT(world.signals_to(child), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kRegistered, EventKind::kEnding, EventKind::kEnded));
}

TEST_F(ALeader, ThatIsToBeEndedWhileItIsPlacedHasNoRunIfThatFails) {
  world.placer.hold();
  const Answer answer = world.request_register("job", leader);
  EXPECT_TRUE(supervisor.end(World::id("job"), world.caller(), world.now()));

  world.placer.fail("no");
  world.placer.release();
  world.deliver();

  EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
  expect_nothing_left();
}

// ---- owners ----

TEST_F(ALeader, WhoseOwnerDiesWhileItIsPlacedIsOrphaned) {
  world.placer.hold();
  (void)world.request_register("job", leader);

  world.exit(owner);
  world.placer.release();
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(ALeader, OfTheSystemsManagerHasNoOwnerToLose) {
  world.exit(owner);
  world.advance(seconds{1});

  world.register_run("job", leader);
  world.advance(seconds{10});

  EXPECT_EQ(find()->owner, nullptr);
  expect_left_alone(leader);
}

TEST_F(ALeader, ThatCannotBeWatchedIsNotTakenForDead) {
  world.refuses_watches = true;
  world.process(owner).reaps = testing::Reaps::kNever;

  world.register_run("job", leader);
  world.advance(seconds{10});
  expect_left_alone(leader);
  EXPECT_EQ(find()->state(), State::kRunning);

  world.exit(leader, 4);
  world.advance(seconds{10});
  EXPECT_EQ(end_of(), Reason::kOrphaned);
  EXPECT_EQ(end_record().exit_code, 4);
}

// ---- admission ----

TEST_F(ALeader, IsRegisteredOnce) {
  world.register_run("job", leader);

  EXPECT_EQ(refusal_of(*world.request_register("other", leader)), Refusal::kProcessAlreadyRegistered);
  EXPECT_EQ(refusal_of(*world.request_register("other", child)), Refusal::kProcessAlreadyRegistered);
  EXPECT_EQ(refusal_of(*world.request_register("job", world.spawn(owner))), Refusal::kAlreadyRegistered);
}

TEST_F(ALeader, IsRegisteredOnceWhileItIsPlacedToo) {
  world.placer.hold();
  (void)world.request_register("job", leader);

  EXPECT_EQ(refusal_of(*world.request_register("other", leader)), Refusal::kProcessAlreadyRegistered);
}

TEST_F(ALeader, WithImpossibleLimitsIsRefusedAtOnceAndLeavesNothingBehind) {
  Limits zero;
  zero.memory = Bytes(0);
  Limits high;
  high.memory = kGiB + kGiB + kGiB + kGiB + kGiB;

  EXPECT_EQ(refusal_of(*world.request_register("job", leader, zero)), Refusal::kInvalidOption);
  EXPECT_EQ(refusal_of(*world.request_register("job", leader, high)), Refusal::kLimitTooHigh);
  world.process(leader).protected_as = "the bus";
  EXPECT_EQ(refusal_of(*world.request_register("job", leader)), Refusal::kProtectedProcess);
  expect_nothing_left();
}

Policy two_each_and_three_in_all() {
  Policy policy;
  policy.caps.analyses_per_user = 2;
  policy.caps.analyses = 3;
  return policy;
}

class ACappedHost : public ALeader {
 protected:
  ACappedHost() : ALeader(two_each_and_three_in_all()) {
    world.register_run("first", leader);
    world.placer.hold();
    (void)world.request_register("second", world.spawn(owner));
  }
};

TEST_F(ACappedHost, RefusesOneMoreOfAUserThoseBeingPlacedIncluded) {
  EXPECT_EQ(refusal_of(*world.request_register("third", world.spawn(owner))), Refusal::kTooManyAnalyses);
}

TEST_F(ACappedHost, RefusesOneMoreThanItCarriesToEverybodyAndToAdministratorsAtTwiceAsMany) {
  constexpr uid_t kAnother = 4711;
  const auto ask = [&](const std::string& id, uid_t uid) {
    const pid_t pid = world.spawn(world.user_shell);
    world.process(pid).uid = uid;
    const auto answer = std::make_shared<std::optional<Result<RunKey>>>();
    supervisor.request_register({World::id(id), world.handle(pid), {}, world.caller(uid)}, world.now(),
                                [answer](Result<RunKey> key, const Now&) { *answer = std::move(key); });
    return answer;
  };

  const auto third = ask("third", kAnother);
  const auto fourth = ask("fourth", kAnother);
  std::vector<std::shared_ptr<std::optional<Result<RunKey>>>> roots;
  for (const char* id : {"four", "five", "six", "seven"}) roots.push_back(ask(id, 0));
  world.placer.release();
  world.deliver();

  EXPECT_TRUE((*third)->has_value());
  EXPECT_EQ(refusal_of(*fourth), Refusal::kTooManyAnalyses);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE((*roots.at(i))->has_value()) << i;
  EXPECT_EQ(refusal_of(*roots.at(3)), Refusal::kTooManyAnalyses);
}

TEST_F(ACappedHost, HasRoomAgainAfterAnEnd) {
  world.placer.release();
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{1});

  const Answer third = world.request_register("third", world.spawn(owner));
  world.deliver();

  EXPECT_TRUE((*third)->has_value());
}

// ---- the same id again ----

TEST_F(ALeader, MayHaveTheIdOfARunThatIsOver) {
  const RunKey first = world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{1});
  const pid_t second_leader = world.spawn(owner);
  const RunKey second = world.register_run("job", second_leader);

  EXPECT_NE(first, second);
  supervisor.on_cgroup_changed(first, world.now());
  world.advance(seconds{10});
  EXPECT_EQ(find()->key, second);
  expect_left_alone(second_leader);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kRegistered, EventKind::kEnded, EventKind::kRegistered));
  EXPECT_NE(world.records("job").at(0).run_id, world.records("job").at(2).run_id);
}

}  // namespace
}  // namespace aw::supervise
