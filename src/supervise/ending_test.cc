// SPDX-License-Identifier: Apache-2.0
//
// How a run ends: the reasons of the contract, the ladder, and memory.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::mib;
using testing::OnTerm;
using testing::Sender;
using testing::Sent;
using ::testing::SizeIs;
using testing::ToldNothing;
using testing::ToldToEnd;
using testing::World;

constexpr Span kLimit = minutes{30};
constexpr Span kGrace = seconds{10};

class ARunningRun : public testing::ARun {
 protected:
  void exit_all(int code = 0) {
    world.exit(child);
    world.exit(leader, code);
  }
};

// ---- the end of itself ----

TEST_F(ARunningRun, EndsAsExitedWhenItsTreeHasEnded) {
  exit_all(3);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().exit_code, 3);
  EXPECT_EQ(end_record().signal, std::nullopt);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kRegistered, EventKind::kEnded));
  EXPECT_EQ(find(), nullptr);
  EXPECT_FALSE(world.has_slice("job"));
}

TEST_F(ARunningRun, EndsAsExitedWhereTheStatusIsNotToBeHad) {
  world.process(owner).reaps = testing::Reaps::kAtOnce;

  exit_all(3);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().exit_code, std::nullopt);
}

TEST_F(ARunningRun, EndsAsExitedWhenItDiesOfItsOwnBug) {
  world.exit(child);
  world.die(leader, SIGSEGV);
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().exit_signal, SIGSEGV);
}

TEST_F(ARunningRun, EndsThoughTheLastNotificationsAreLost) {
  world.losing_notifications = true;

  exit_all();
  world.advance(seconds{10});

  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ARunningRun, EndsOnceHoweverOftenItIsToldOf) {
  exit_all();
  for (int i = 0; i < 3; ++i) {
    supervisor.on_cgroup_changed(key, world.now());
    supervisor.on_events_lost(world.now());
    world.advance(seconds{1});
  }

  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ARunningRun, EndsWhenItsCgroupIsGoneBeforeWeLook) {
  world.remove_slice(World::slice_name("job"));
  world.advance(seconds{5});

  EXPECT_NE(end_of(), std::nullopt);
  EXPECT_EQ(find(), nullptr);
}

TEST_F(ARunningRun, EndsWhenItHasLeftItsScope) {
  world.exit(child);
  world.process(leader).cgroup = "/elsewhere";
  world.notify(world.slice("job"));
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kExternal);
  expect_left_alone(leader);
}

// ---- the ladder ----

TEST_F(ARunningRun, IsLeftAloneUntilItsDeadline) {
  advance_to(kLimit - Span(1));

  expect_left_alone(leader);
  expect_left_alone(child);
  EXPECT_EQ(find()->state(), State::kRunning);
}

TEST_F(ARunningRun, IsToldToEndAtItsDeadline) {
  advance_to(kLimit);

  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_THAT(world.signals_to(child), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_EQ(end_record().signal, SIGTERM);
  EXPECT_FALSE(end_record().escalated);
  EXPECT_EQ(end_record().duration, kLimit);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kRegistered, EventKind::kEnding, EventKind::kEnded));
}

TEST_F(ARunningRun, IsOverAsSoonAsNothingIsLeftToWaitFor) {
  set_on_term(OnTerm::kCleansUp, seconds{2});

  advance_to(kLimit + seconds{1});
  EXPECT_EQ(find()->state(), State::kEnding);
  EXPECT_EQ(supervisor.ending(), 1);
  advance_to(kLimit + seconds{2});

  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_EQ(supervisor.ending(), 0);
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
}

TEST_F(ARunningRun, HasItsWholeGrace) {
  set_on_term(OnTerm::kIgnores);

  advance_to(kLimit + kGrace - Span(1));

  EXPECT_TRUE(world.alive(leader));
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
}

TEST_F(ARunningRun, IsKilledThroughItsCgroupWhenGraceExpires) {
  set_on_term(OnTerm::kIgnores);

  advance_to(kLimit + kGrace);

  EXPECT_THAT(world.signals_to(leader), ElementsAre(SIGTERM, SIGCONT, SIGKILL));
  EXPECT_THAT(world.signals_to(child), ElementsAre(SIGTERM, SIGCONT, SIGKILL));
  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_TRUE(end_record().escalated);
  EXPECT_THAT(world.kinds("job"),
              ElementsAre(EventKind::kRegistered, EventKind::kEnding, EventKind::kEscalated, EventKind::kEnded));
}

TEST_F(ARunningRun, ThatSurvivesKillIsReportedOnceAndTriedAgain) {
  world.process(child).sleeps_uninterruptibly = true;

  advance_to(kLimit + kGrace + Supervisor::kKillPatience - Span(1));
  EXPECT_EQ(find()->state(), State::kEnding);
  EXPECT_EQ(world.slice("job").kills, 1);
  world.advance(Span(1));
  EXPECT_EQ(find()->state(), State::kUnkillable);
  EXPECT_EQ(world.slice("job").kills, 2);
  world.advance(2 * Supervisor::kKillPatience);
  EXPECT_EQ(world.slice("job").kills, 4);

  const auto reports = world.records("job", EventKind::kUnkillable);
  ASSERT_THAT(reports, SizeIs(1));
  EXPECT_THAT(reports[0].details, Contains(std::pair("wait_channel_" + std::to_string(child),
                                                     DetailValue(std::string("rpc_wait_bit_killable")))));
  EXPECT_EQ(end_of(), std::nullopt);

  world.wake(child);
  world.deliver();

  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(ARunningRun, CanActOnItsTermThoughItWasStopped) {
  set_on_term(OnTerm::kCleansUp, seconds{1});
  world.kill(leader, SIGSTOP);

  advance_to(kLimit + seconds{1});

  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_FALSE(end_record().escalated);
}

TEST_F(ARunningRun, CanActOnItsTermThoughItWasFrozen) {
  set_on_term(OnTerm::kCleansUp, seconds{1});
  world.slice("job").frozen = true;

  advance_to(kLimit + seconds{1});

  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_FALSE(end_record().escalated);
}

TEST_F(ARunningRun, HidesNoProcessByForkingWhileItIsTold) {
  set_on_term(OnTerm::kIgnores);
  pid_t late = 0;
  world.on_signal = [&](const Sent& sent) {
    if (sent.pid == child && late == 0) late = world.spawn(child);
  };

  end();

  EXPECT_THAT(world.signals_to(late), ToldToEnd());
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
}

TEST_F(ARunningRun, HasItsIntentOnRecordBeforeTheFirstSignal) {
  bool recorded = false;
  world.on_signal = [&](const Sent&) { recorded = !world.records("job", EventKind::kEnding).empty(); };

  end();

  EXPECT_TRUE(recorded);
  const auto ending = world.records("job", EventKind::kEnding).at(0);
  EXPECT_EQ(ending.reason, Reason::kRequested);
  EXPECT_EQ(ending.signal, SIGTERM);
  EXPECT_THAT(ending.processes, SizeIs(2));
  EXPECT_THAT(ending.details, Contains(std::pair(std::string("cause"),
                                                 DetailValue(std::string("asked by uid 1000 (bash, process " +
                                                                         std::to_string(world.user_shell) + ")")))));
}

// ---- causes ----

TEST_F(ARunningRun, KeepsItsFirstCause) {
  set_on_term(OnTerm::kIgnores);

  advance_to(kLimit);
  world.use_memory("job", mib(3000));
  end();
  world.systemctl_stop("job");
  world.exit(owner);
  world.advance(kGrace);

  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_THAT(world.records("job", EventKind::kEnding), SizeIs(1));
  EXPECT_THAT(world.signals_to(leader), ElementsAre(SIGTERM, SIGCONT, SIGKILL));
}

TEST_F(ARunningRun, KeepsItsFirstCauseWhenItsDeadlinePassesInItsGrace) {
  set_on_term(OnTerm::kIgnores);

  advance_to(kLimit - seconds{1});
  end();
  advance_to(kLimit + kGrace - seconds{1});

  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARunningRun, IsEndedOnRequest) {
  end();

  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARunningRun, ThatHasEmptiedByItselfIsNotEndedByTheDeadlineThatPassesBeforeItIsSure) {
  world.placer.answers_settled = false;
  world.process(owner).reaps = testing::Reaps::kAtOnce;

  advance_to(kLimit - milliseconds{100});
  exit_all();
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_THAT(world.records("job", EventKind::kEnding), SizeIs(0));
}

TEST_F(ARunningRun, ThatHasEmptiedUnseenIsNotEndedByItsDeadline) {
  world.losing_notifications = true;
  world.refuses_watches = true;
  const pid_t second = world.spawn(owner);
  world.register_run("second", second);

  world.advance(kLimit - milliseconds{1});
  world.exit(second);
  world.advance(seconds{20});

  EXPECT_EQ(end_of("second"), Reason::kExited);
}

// ---- somebody else ----

TEST_F(ARunningRun, ThatSomebodyKilledIsExternal) {
  world.exit(child);
  world.kill(leader, SIGKILL);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_EQ(end_record().exit_signal, SIGKILL);
  EXPECT_EQ(end_record().signal, SIGKILL);
}

TEST_F(ARunningRun, ThatSomebodyKilledUnseenIsTakenForExited) {
  world.process(owner).reaps = testing::Reaps::kAtOnce;

  world.exit(child);
  world.kill(leader, SIGKILL);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ARunningRun, ThatIsStoppedBySystemdIsRequestedAndIsNotToldTwice) {
  set_on_term(OnTerm::kCleansUp, seconds{1});

  world.systemctl_stop("job");
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_THAT(world.signals_to(leader), ToldNothing());
  EXPECT_THAT(world.signals_to(leader, Sender::kSystemd), ElementsAre(SIGTERM));
}

TEST_F(ARunningRun, ThatIsStoppedBySystemdIsKilledAfterItsGraceAllTheSame) {
  set_on_term(OnTerm::kIgnores);

  world.systemctl_stop("job");
  world.advance(kGrace);

  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_TRUE(end_record().escalated);
}

TEST_F(ARunningRun, ThatIsStoppedBySystemdIsRequestedThoughTheDeathIsToldFirst) {
  world.kill(child, SIGTERM, Sender::kSystemd);
  world.kill(leader, SIGTERM, Sender::kSystemd);
  world.later([this] { supervisor.on_manager_job(World::scope_name("job"), ManagerJob::kStop, world.now()); });
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARunningRun, ThatIsStoppedBySystemdIsRequestedThoughTheJobWasOverBeforeWeCouldAsk) {
  world.process(owner).reaps = testing::Reaps::kAtOnce;

  world.kill(child, SIGTERM, Sender::kSystemd);
  world.kill(leader, SIGTERM, Sender::kSystemd);
  world.later([this] { supervisor.on_manager_job(World::scope_name("job"), ManagerJob::kOver, world.now()); });
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARunningRun, IsNotTakenForSettledWhereSystemdCouldNotBeAsked) {
  world.placer.refuses_settled = true;

  world.kill(child, SIGTERM, Sender::kSystemd);
  world.kill(leader, SIGTERM, Sender::kSystemd);
  world.advance(milliseconds{500});
  supervisor.on_manager_job(World::scope_name("job"), ManagerJob::kStop, world.now());
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARunningRun, IsNotEndedByAJobThatDidNotStopIt) {
  supervisor.on_manager_job(World::scope_name("job"), ManagerJob::kOver, world.now());
  supervisor.on_manager_job("analysis-other.scope", ManagerJob::kStop, world.now());
  world.advance(seconds{2});

  EXPECT_EQ(find()->state(), State::kRunning);
  expect_left_alone(leader);
}

TEST_F(ARunningRun, ThatDiedOfATermIsExitedWhereNoStopJobWas) {
  world.exit(child);
  world.kill(leader, SIGTERM);
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().exit_signal, SIGTERM);
}

TEST_F(ARunningRun, DoesNotWaitForEverForASystemdThatDoesNotAnswer) {
  world.placer.answers_settled = false;

  world.exit(child);
  world.kill(leader, SIGTERM);
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kExited);
}

// ---- memory ----

class ARunWithALimit : public ARunningRun {
 protected:
  static constexpr Bytes kMemory = mib(2048);
  static constexpr Bytes kMercy = mib(2048 + 128);

  /// A tenth of a second at the tripwire, so much of which is full memory pressure.
  void stall(Span full) {
    if (!world.has_slice("job")) return;
    world.slice("job").pressure.full_total += full;
    ++world.slice("job").stat.workingset_refault_file;
    world.use_memory("job", mib(10), kMemory);
    world.advance(milliseconds{100});
  }
};

TEST_F(ARunWithALimit, HasTripwireAndCeilingInForce) {
  EXPECT_EQ(world.slice("job").limits.tripwire, kMemory);
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(2048 + 256));
}

TEST_F(ARunWithALimit, MayFillItWithPageCache) {
  for (int i = 0; i < 1000; ++i) {
    world.use_memory("job", mib(100), mib(2048));
    world.advance(milliseconds{1});
  }

  expect_left_alone(leader);
  EXPECT_EQ(world.slice("job").tripwire, kMemory);
  EXPECT_LE(world.slice("job").stat_reads, 15);  // Ten looks a second.
  EXPECT_EQ(find()->memory.highest_unreclaimable, mib(100));
}

TEST_F(ARunWithALimit, IsEndedWhenItsUnreclaimableMemoryPassesIt) {
  set_on_term(OnTerm::kCleansUp, seconds{1});
  world.advance(seconds{1});

  world.use_memory("job", kMemory + Bytes(1));
  world.deliver();

  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_EQ(world.slice("job").tripwire, kMercy);
  EXPECT_EQ(world.slice("job").limits.tripwire, kMemory);

  world.advance(milliseconds{250});
  EXPECT_EQ(world.slice("job").limits.tripwire, kMercy);

  world.advance(seconds{1});
  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_EQ(end_record().memory, kMemory + Bytes(1));
  EXPECT_EQ(world.records("job", EventKind::kEnding).at(0).memory, kMemory + Bytes(1));
}

TEST_F(ARunWithALimit, IsJudgedWithWhatTheKernelsCountersMayLagBehind) {
  world.use_memory("job", kMemory - mib(3), mib(10));
  world.advance(milliseconds{200});
  expect_left_alone(leader);

  world.use_memory("job", kMemory - mib(1), mib(10));
  world.advance(milliseconds{200});

  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(ARunWithALimit, ThatLeaksBesideItsPageCacheIsFoundWithinTheNextLook) {
  world.use_memory("job", mib(10), kMemory);
  world.deliver();
  world.use_memory("job", kMemory + mib(1), mib(10));
  world.advance(milliseconds{100});

  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(ARunWithALimit, IsEndedThoughTheNotificationIsLost) {
  world.advance(seconds{1});
  world.losing_notifications = true;

  world.use_memory("job", kMemory + mib(1));
  supervisor.on_events_lost(world.now());
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(ARunWithALimit, ThatReachesItsCeilingWithinItsGraceIsStillMemory) {
  set_on_term(OnTerm::kIgnores);

  world.use_memory("job", kMemory + mib(1));
  world.advance(seconds{1});
  world.oom_kill("job", World::scope_name("job"));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_TRUE(end_record().escalated);
}

TEST_F(ARunWithALimit, ThatStallsAtItsTripwireIsEnded) {
  for (int i = 0; i < 620; ++i) stall(milliseconds{95});

  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_THAT(end_record().details,
              Contains(std::pair(std::string("cause"),
                                 DetailValue(std::string("stalled: nothing but full memory pressure and refaults")))));
}

TEST_F(ARunWithALimit, ThatStallsNowAndThenGoesOn) {
  for (int minute = 0; minute < 3; ++minute) {
    for (int i = 0; i < 300; ++i) stall(milliseconds{95});
    world.advance(seconds{30});
  }

  expect_left_alone(leader);
}

class ARunWithoutALimit : public testing::ARun {
 protected:
  static Limits none() {
    Limits limits;
    limits.memory = Bytes::infinite();
    return limits;
  }
  ARunWithoutALimit() : ARun(none()) {}
};

TEST_F(ARunWithoutALimit, IsNotInBreach) {
  world.slice("job").events.high = 1;
  world.slice("job").stat.anon = mib(1 << 20);
  world.notify(world.slice("job"));
  world.advance(seconds{1});

  expect_left_alone(leader);
}

TEST_F(ARunWithoutALimit, HasNoTripwireToLift) {
  set_on_term(OnTerm::kIgnores);
  end();
  world.advance(seconds{1});

  EXPECT_EQ(world.slice("job").tripwire, Bytes::infinite());
}

// ---- the kernel ----

TEST_F(ARunWithALimit, ThatTheKernelKillsBeforeWeDecidedIsOom) {
  world.oom_kill("job", World::scope_name("job"));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kOom);
  EXPECT_EQ(end_record().signal, SIGKILL);
  EXPECT_THAT(world.signals_to(leader), ToldNothing());
  EXPECT_EQ(end_record().exit_signal, SIGKILL);
}

TEST_F(ARunWithALimit, ThatTheKernelKillsUnseenIsOom) {
  world.losing_notifications = true;

  world.oom_kill("job", World::scope_name("job"));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kOom);
}

TEST_F(ARunWithALimit, ThatTheKernelKillsForAnothersLimitIsExternal) {
  world.oom_kill("job", World::scope_name("job"), false);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExternal);
}

TEST_F(ARunWithALimit, DoesNotLiveOnByHalves) {
  const pid_t attached = world.spawn(world.user_shell);
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_attach(World::id("job"), world.handle(attached), world.caller(), world.now(), World::keep(reply));
  world.deliver();
  ASSERT_TRUE(*reply && **reply);

  world.oom_kill("job", World::scope_name("job"));
  EXPECT_TRUE(world.alive(attached));
  world.advance(seconds{1});

  EXPECT_FALSE(world.alive(attached));
  EXPECT_THAT(world.signals_to(attached), ElementsAre(SIGKILL));
  EXPECT_EQ(end_of(), Reason::kOom);
  EXPECT_TRUE(end_record().escalated);
}

TEST_F(ARunningRun, WhoseCgroupCannotBeKilledIsKilledProcessByProcess) {
  for (const int error : {EOPNOTSUPP, EIO, EROFS}) {
    SCOPED_TRACE(error);
    world.cgroups.kill_error = error;
    const std::string id = "unkilled-" + std::to_string(error);
    const pid_t first = world.spawn(world.user_shell, "first");
    const pid_t second = world.spawn(first, "second");
    for (const pid_t pid : {first, second}) world.process(pid).on_term = OnTerm::kIgnores;
    world.register_run(id, first);
    ASSERT_TRUE(supervisor.end(World::id(id), world.caller(), world.now()));
    world.advance(kGrace + seconds{1});
    EXPECT_FALSE(world.alive(first));
    EXPECT_FALSE(world.alive(second));
    ASSERT_EQ(end_of(id), Reason::kRequested);
    const auto ended = world.records(id, EventKind::kEnded).at(0);
    EXPECT_TRUE(ended.escalated);
    EXPECT_THAT(ended.details, ::testing::Contains(::testing::Key("cgroup_kill_error")));
  }
}

TEST_F(ARunningRun, WhoseCgroupCannotBeKilledIsKilledWithWhatItForksMeanwhile) {
  world.cgroups.kill_error = EOPNOTSUPP;
  set_on_term(OnTerm::kIgnores);
  int forks = 0;
  std::vector<pid_t> forked;
  world.on_signal = [&](const testing::Sent& sent) {
    if (sent.signal != SIGKILL || ++forks > 5) return;
    forked.push_back(world.spawn(sent.pid, "fork"));
  };
  end();
  world.advance(kGrace + seconds{1});
  EXPECT_THAT(forked, ::testing::SizeIs(5));
  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARunningRun, ThatForksWithoutEndIsNotKilledOneByOneWithoutEnd) {
  world.cgroups.kill_error = EOPNOTSUPP;
  set_on_term(OnTerm::kIgnores);
  bool forks = true;
  world.on_signal = [&](const testing::Sent& sent) {
    if (forks && sent.signal == SIGKILL) (void)world.spawn(sent.pid, "fork");
  };
  end();
  world.advance(kGrace + seconds{1});
  EXPECT_EQ(end_of(), std::nullopt);
  forks = false;  // And the retry has it.
  world.advance(seconds{15});
  EXPECT_EQ(end_of(), Reason::kRequested);
}

}  // namespace
}  // namespace aw::supervise
