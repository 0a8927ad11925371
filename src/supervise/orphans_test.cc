// SPDX-License-Identifier: Apache-2.0
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Matches;
using ::testing::Not;
using testing::OnTerm;
using ::testing::Pair;
using ::testing::SizeIs;
using testing::ToldToEnd;
using testing::World;

constexpr Span kConfirmation = milliseconds{500};
constexpr Span kRound = seconds{5};
constexpr Span kGrace = seconds{10};
/// An orphan is found by the next round and confirmed.
constexpr Span kFound = kRound + kConfirmation;

Limits with(OrphanPolicy orphans, OwnerPolicy owner = OwnerPolicy::kKill) {
  Limits limits;
  limits.orphan_policy = orphans;
  limits.owner_policy = owner;
  return limits;
}

class ARun : public testing::ARun {
 protected:
  using testing::ARun::ARun;

  /// A process of the run whose parent forked it and ended, with a child of its own.
  pid_t daemonize(const std::string& comm = "daemon") {
    const pid_t middle = world.spawn(leader);
    const pid_t daemonized = world.spawn(middle, comm);
    (void)world.spawn(daemonized);
    world.setsid(daemonized);
    world.exit(middle);
    return daemonized;
  }
  pid_t child_of(pid_t pid) const {
    for (const auto& [number, process] : world.all()) {
      if (process.stat.parent == pid) return number;
    }
    return 0;
  }
  auto orphans_found() const { return world.records("job", EventKind::kOrphanFound); }
};

// ---- the leader's death ----

TEST_F(ARun, WhoseLeaderLeavesProcessesBehindIsOrphaned) {
  world.exit(leader);

  world.advance(kConfirmation - Span(1));
  expect_left_alone(child);
  world.advance(Span(1));

  EXPECT_THAT(world.signals_to(child), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(ARun, WhoseTreeFollowsItsLeaderAtOnceHasExited) {
  world.exit(leader);
  world.advance(kConfirmation - Span(1));
  world.exit(child);
  world.advance(seconds{3});

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().exit_code, 0);
}

TEST_F(ARun, WhoseLeaderWasKilledAndLeftProcessesIsOrphaned) {
  world.kill(leader, SIGKILL);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kOrphaned);
  EXPECT_EQ(end_record().exit_signal, SIGKILL);
}

TEST_F(ARun, HasNoOrphansAsLongAsItsProcessesCannotBeRead) {
  const pid_t grandchild = world.spawn(child);
  world.processes.unreadable = {child};
  world.advance(minutes{1});
  expect_left_alone(grandchild);
  EXPECT_THAT(orphans_found(), SizeIs(0));

  world.processes.unreadable.clear();
  world.exit(child);
  world.advance(kFound);

  EXPECT_THAT(orphans_found(), SizeIs(1));
  EXPECT_THAT(world.signals_to(grandchild), ToldToEnd());
}

class AReportingRun : public ARun {
 protected:
  AReportingRun() : ARun(with(OrphanPolicy::kReport)) {}
};

TEST_F(AReportingRun, ReportsEachProcessThatItsLeaderLeavesOnceAndGoesOn) {
  world.exit(leader);
  world.advance(minutes{1});

  ASSERT_THAT(orphans_found(), SizeIs(1));
  EXPECT_EQ(orphans_found()[0].pid, child);
  EXPECT_EQ(orphans_found()[0].comm, "python");
  expect_left_alone(child);
  EXPECT_EQ(find()->state(), State::kRunning);
  EXPECT_EQ(find()->orphans.count, 1);

  const pid_t another = world.spawn(child);
  world.advance(minutes{1});
  EXPECT_THAT(orphans_found(), SizeIs(2));

  world.exit(another);
  world.exit(child);
  world.advance(seconds{2});
  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(AReportingRun, EndsThoughTheLastDeathIsNotTold) {
  world.exit(leader);
  world.advance(seconds{10});
  world.losing_notifications = true;

  world.exit(child);
  world.advance(kRound + seconds{2});

  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(AReportingRun, KeepsItsDeadlineWithoutItsLeader) {
  world.exit(leader);
  advance_to(minutes{30});

  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AReportingRun, ReportsAnOrphanBesideItsLeaderOnce) {
  const pid_t orphan = daemonize();
  world.advance(minutes{1});

  ASSERT_THAT(orphans_found(), SizeIs(1));
  EXPECT_EQ(orphans_found()[0].pid, orphan);
  EXPECT_EQ(orphans_found()[0].comm, "daemon");
  EXPECT_THAT(orphans_found()[0].details, Contains(Pair("parent_pid", DetailValue(std::uint64_t{1}))));
  expect_left_alone(orphan);
  EXPECT_EQ(find()->orphans.count, 1);
}

TEST_F(AReportingRun, IsReadAsOftenThoughItDaemonizesAllTheTime) {
  int reads = 0;
  world.cgroups.after_list = [&] { ++reads; };
  for (Span passed{0}; passed < 4 * kRound; passed += milliseconds{400}) {
    (void)daemonize();
    world.advance(milliseconds{400});
  }

  EXPECT_LE(reads, 2 * 4 + 20) << "rounds, each with a second look, and the samples of 20 s";
  EXPECT_THAT(orphans_found(), Not(IsEmpty()));
}

TEST_F(AReportingRun, EndsItsOrphansOnceThatPolicyIsSet) {
  const pid_t orphan = daemonize();
  world.advance(minutes{1});
  const auto reply = std::make_shared<std::optional<Result<void>>>();

  supervisor.request_set_limits(World::id("job"), with(OrphanPolicy::kKill), world.caller(), world.now(),
                                World::keep(reply));
  world.advance(kFound);

  EXPECT_THAT(world.signals_to(orphan), ToldToEnd());
  expect_left_alone(leader);
}

TEST_F(AReportingRun, EndsWhatItsLeaderLeftOnceThatPolicyIsSet) {
  world.exit(leader);
  world.advance(minutes{1});
  const auto reply = std::make_shared<std::optional<Result<void>>>();

  supervisor.request_set_limits(World::id("job"), with(OrphanPolicy::kKill), world.caller(), world.now(),
                                World::keep(reply));
  world.advance(kFound);

  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

// ---- beside a living leader ----

TEST_F(ARun, EndsAnOrphanWithItsSubtreeAndNobodyElse) {
  const pid_t orphan = daemonize();
  const pid_t below = child_of(orphan);

  advance_to(kRound);
  expect_left_alone(orphan);  // Seen once.
  world.advance(kConfirmation);

  EXPECT_THAT(world.signals_to(orphan), ToldToEnd());
  EXPECT_THAT(world.signals_to(below), ToldToEnd());
  EXPECT_THAT(orphans_found(), SizeIs(1));
  world.advance(minutes{1});
  EXPECT_FALSE(world.alive(below));
  expect_left_alone(leader);
  expect_left_alone(child);
  EXPECT_EQ(find()->state(), State::kRunning);
}

TEST_F(ARun, EndsAnOrphanThoughTheLoopIsNeverAtRest) {
  world.busy_loop = true;
  const pid_t orphan = daemonize();

  world.advance(kFound + Rounds::kLongestWait + kConfirmation);

  EXPECT_THAT(world.signals_to(orphan), ToldToEnd());
}

TEST_F(ARun, KillsAnOrphanThatIgnoresItsTermAfterTheGrace) {
  const pid_t orphan = daemonize();
  world.process(orphan).on_term = OnTerm::kIgnores;

  advance_to(kFound + kGrace - Span(1));
  EXPECT_TRUE(world.alive(orphan));
  world.advance(Span(1));

  EXPECT_FALSE(world.alive(orphan));
  world.advance(minutes{1});
  expect_left_alone(leader);
  expect_left_alone(child);
}

TEST_F(ARun, DoesNotPutOffTheEndOfAnOrphanForTheNext) {
  std::vector<pid_t> orphans;
  for (int i = 0; i < 10; ++i) {
    orphans.push_back(daemonize());
    world.process(orphans.back()).on_term = OnTerm::kIgnores;
    world.advance(seconds{4});
  }

  EXPECT_FALSE(world.alive(orphans[0]));
  EXPECT_FALSE(world.alive(orphans[4]));
  for (const pid_t orphan : orphans) {
    EXPECT_EQ(world.alive(orphan), !Matches(Contains(SIGKILL))(world.signals_to(orphan)));
  }
}

TEST_F(ARun, GivesEachOrphanItsWholeGrace) {
  const pid_t first = daemonize();
  world.process(first).on_term = OnTerm::kIgnores;
  world.advance(kFound);
  const pid_t second = daemonize();
  world.process(second).on_term = OnTerm::kIgnores;
  world.advance(kRound);
  EXPECT_THAT(world.signals_to(second), ToldToEnd());
  world.advance(kGrace - kRound);

  EXPECT_FALSE(world.alive(first));
  EXPECT_TRUE(world.alive(second));
  world.advance(kRound);
  EXPECT_FALSE(world.alive(second));
}

TEST_F(ARun, LeavesAnOrphanThatIsGoneAtTheSecondLook) {
  const pid_t orphan = daemonize();
  world.advance(kRound);
  world.exit(child_of(orphan));
  world.exit(orphan);
  world.advance(minutes{1});

  EXPECT_THAT(orphans_found(), SizeIs(0));
}

TEST_F(ARun, HasNoOrphanUnderASubreaperOfItsOwn) {
  world.process(leader).subreaper = true;

  const pid_t daemonized = daemonize();
  world.advance(minutes{1});

  EXPECT_EQ(world.process(daemonized).stat.parent, leader);
  expect_left_alone(daemonized);
}

TEST_F(ARun, HasAnOrphanUnderASubreaperOutside) {
  world.process(owner).subreaper = true;

  const pid_t daemonized = daemonize();
  world.advance(kFound);

  EXPECT_THAT(world.signals_to(daemonized), ToldToEnd());
  EXPECT_THAT(orphans_found().at(0).details, Contains(Pair("parent_pid", DetailValue(std::uint64_t(owner)))));
}

TEST_F(ARun, SparesAnAttachedProcessBelowAnOrphan) {
  const pid_t orphan = daemonize();
  const pid_t attached = world.spawn(world.user_shell);
  const pid_t below = world.spawn(attached);
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_attach(World::id("job"), world.handle(attached), world.caller(), world.now(), World::keep(reply));
  world.process(attached).stat.parent = orphan;  // As if the orphan, a subreaper, had adopted it.
  world.advance(kFound);

  EXPECT_THAT(world.signals_to(orphan), ToldToEnd());
  expect_left_alone(attached);
  expect_left_alone(below);
}

TEST_F(ARun, StopsLookingForOrphansOnceItIsEnding) {
  set_on_term(OnTerm::kIgnores);
  const pid_t orphan = daemonize();
  end();
  world.advance(kFound);

  EXPECT_THAT(orphans_found(), SizeIs(0));
  EXPECT_THAT(world.signals_to(orphan), ToldToEnd());
}

// ---- the owner's death ----

TEST_F(ARun, WhoseOwnerDiesIsOrphaned) {
  world.exit(owner);

  world.advance(kConfirmation - Span(1));
  expect_left_alone(leader);
  world.advance(Span(1));

  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_THAT(world.signals_to(child), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

class ARunOnItsOwn : public ARun {
 protected:
  ARunOnItsOwn() : ARun(with(OrphanPolicy::kKill, OwnerPolicy::kIgnore)) {}
};

TEST_F(ARunOnItsOwn, KillsNoOrphanThatIsOnItsWayOut) {
  const pid_t orphan = daemonize();
  world.process(orphan).on_term = testing::OnTerm::kIgnores;
  world.advance(kFound);
  ASSERT_THAT(world.signals_to(orphan), ToldToEnd());
  world.placer.hold();
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(reply));
  world.deliver();

  world.advance(minutes{1});
  EXPECT_TRUE(world.alive(orphan));
  world.placer.release();
  world.advance(minutes{1});

  ASSERT_TRUE(*reply && **reply);
  EXPECT_TRUE(world.alive(orphan));
}

TEST_F(ARunOnItsOwn, OutlivesItsOwner) {
  world.exit(owner);
  world.advance(minutes{1});

  expect_left_alone(leader);
  expect_left_alone(child);
}

TEST_F(ARun, ThatEndsWithItsOwnerHasExited) {
  world.exit(child);
  world.exit(owner);
  world.exit(leader);
  world.advance(seconds{5});

  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ARun, ThatEndsWithItsOwnerHasExitedThoughSystemdIsSlowToAnswer) {
  world.placer.answers_settled = false;

  world.exit(child);
  world.exit(owner);
  world.exit(leader, 128 + SIGTERM);
  world.advance(seconds{5});

  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ARun, WhoseLeaderDiesWithItsOwnerAndLeavesProcessesIsOrphanedOnce) {
  world.exit(owner);
  world.exit(leader);
  world.advance(seconds{5});

  EXPECT_EQ(end_of(), Reason::kOrphaned);
  EXPECT_THAT(world.records("job", EventKind::kEnding), SizeIs(1));
}

TEST_F(ARun, WhoseLeaderEndsWhileItGetsAFreshScopeHasExited) {
  world.exit(child);
  world.placer.hold();
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_extend(World::id("job"), minutes{10}, world.caller(), world.now(), World::keep(reply));
  world.exit(leader, 1);
  world.advance(seconds{27});  // PID 1 reloads.
  world.placer.release();
  world.advance(seconds{5});

  EXPECT_EQ(end_of(), Reason::kExited);
}

}  // namespace
}  // namespace aw::supervise
