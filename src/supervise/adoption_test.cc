// SPDX-License-Identifier: Apache-2.0
#include "supervise/run_note.h"
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using namespace aw::testing;
using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class ARestart : public ARun {
 protected:
  explicit ARestart(const Limits& limits = {}) : ARun(limits) {}

  /// kill -9 of the daemon; `meanwhile` passes before the next one has looked around.
  void restart(Span meanwhile = 1s) {
    world.restart_daemon();
    world.advance(meanwhile);
    world.adopt();
  }
  std::vector<EventRecord> adopted() const { return world.records("job", EventKind::kAdopted); }
  std::string cause_of(const EventRecord& event) const { return detail_of(event, "cause"); }
  static std::string detail_of(const EventRecord& event, const std::string& name) {
    for (const auto& [key, value] : event.details) {
      if (key == name && std::holds_alternative<std::string>(value)) return std::get<std::string>(value);
      if (key == name && std::holds_alternative<bool>(value)) return std::get<bool>(value) ? "yes" : "no";
    }
    return "";
  }
};

TEST_F(ARestart, LeavesALiveRunAlone) {
  const std::string run_id = find()->run_id;
  restart();

  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->run_id, run_id);
  EXPECT_EQ(find()->state(), State::kRunning);
  EXPECT_THAT(adopted(), SizeIs(1));
  EXPECT_EQ(detail_of(adopted().at(0), "without_record"), "");
  EXPECT_THAT(world.signals_to(leader), ToldNothing());
  EXPECT_THAT(world.signals_to(child), ToldNothing());
}

TEST_F(ARestart, KeepsTheDeadlineThatItHad) {
  const Instant deadline = find()->deadline;
  restart(10min);

  EXPECT_EQ(find()->deadline, deadline);
  advance_to(30min - 1ms);
  EXPECT_THAT(world.signals_to(leader), ToldNothing());
  advance_to(30min + 10s);
  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_EQ(end_record().duration, Span(30min));
}

TEST_F(ARestart, EndsWhatIsOverdueAtOnce) {
  restart(45min);
  world.advance(1s);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(ARestart, ArmsTheTripwireAgain) {
  world.slice("job").tripwire = Bytes::infinite();  // The daemon lifts it when it goes.
  restart();
  EXPECT_EQ(world.slice("job").tripwire, Bytes(2 * kGiB.count()));
  world.use_memory("job", Bytes(3 * kGiB.count()));
  world.advance(1s);
  EXPECT_EQ(end_of(), Reason::kMemory);
}

TEST_F(ARestart, GoesOnWithAnEndingWithoutASecondSigterm) {
  set_on_term(OnTerm::kIgnores);
  end();
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  world.advance(4s);
  restart(2s);

  EXPECT_EQ(find()->state(), State::kEnding);
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  world.advance(3s);
  EXPECT_EQ(end_of(), std::nullopt);
  world.advance(2s);  // Ten seconds of grace in all.
  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_TRUE(end_record().escalated);
  EXPECT_THAT(world.records("job", EventKind::kEnding), SizeIs(1));
}

TEST_F(ARestart, KillsAtOnceWhatHadItsGraceMeanwhile) {
  set_on_term(OnTerm::kIgnores);
  end();
  restart(1min);
  world.advance(1s);
  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(ARestart, ClosesWhatExitedMeanwhileWhenItExited) {
  world.restart_daemon();
  world.advance(5min);
  world.exit(child);
  world.exit(leader, 3);
  world.advance(20min);
  world.adopt();

  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().duration, Span(5min) + Span(1));
  EXPECT_EQ(detail_of(end_record(), "unseen"), "yes");
  EXPECT_THAT(adopted(), IsEmpty());
  EXPECT_FALSE(world.has_slice("job"));
}

class AClockThatIsSet : public ARestart, public ::testing::WithParamInterface<Span> {};

TEST_P(AClockThatIsSet, AfterAnEndThatNobodySawDoesNotMoveIt) {
  world.restart_daemon();
  world.advance(5min);
  world.exit(child);
  world.exit(leader);
  world.advance(1min);
  world.set_wall_clock(GetParam());
  world.advance(14min);
  world.adopt();
  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().duration, Span(5min) + Span(1));
  EXPECT_EQ(end_record().occurred_at, world.now().real - Span(15min)) << "by today's clock";
}

TEST_P(AClockThatIsSet, BeforeAnEndThatNobodySawDoesNotMoveIt) {
  world.restart_daemon();
  world.set_wall_clock(GetParam());
  world.advance(5min);
  world.exit(child);
  world.exit(leader);
  world.advance(15min);
  world.adopt();
  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().duration, Span(5min) + Span(1));
}

INSTANTIATE_TEST_SUITE_P(, AClockThatIsSet, ::testing::Values(Span(1h), Span(-1h)),
                         [](const auto& by) { return by.param > Span(0) ? "Forth" : "Back"; });

TEST_F(ARestart, TakesNoClockThatWasSetForSystemdsBackstop) {
  world.restart_daemon();
  world.advance(1min);
  world.exit(child);
  world.exit(leader);
  world.set_wall_clock(-1h);
  world.advance(40min);
  world.adopt();
  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ARestart, ClosesWhatTheKernelKilledMeanwhile) {
  world.restart_daemon();
  world.advance(1min);
  world.oom_kill("job", World::scope_name("job"));
  world.advance(1min);
  world.adopt();
  EXPECT_EQ(end_of(), Reason::kOom);
}

TEST_F(ARestart, ClosesWhatWasBeingEndedForThatReason) {
  set_on_term(OnTerm::kCleansUp, 5s);
  world.use_memory("job", Bytes(3 * kGiB.count()));
  world.advance(1s);
  ASSERT_THAT(world.signals_to(leader), ToldToEnd());
  restart(1min);
  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_EQ(end_record().signal, SIGTERM);
}

TEST_F(ARestart, TellsSystemdsBackstopFromAnExit) {
  world.restart_daemon();
  world.advance(32min);
  EXPECT_FALSE(world.alive(leader));
  world.adopt();
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(ARestart, EndsOrphansOfALeaderThatDiedMeanwhile) {
  world.restart_daemon();
  world.exit(leader);
  world.advance(1min);
  world.adopt();
  world.advance(1min);
  EXPECT_EQ(end_of(), Reason::kOrphaned);
  EXPECT_FALSE(world.alive(child));
}

TEST_F(ARestart, EndsARunWhoseOwnerDiedMeanwhile) {
  world.restart_daemon();
  world.exit(owner);
  world.advance(1min);
  world.adopt();
  world.advance(1min);
  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(ARestart, KeepsTheSliceUntilTheEndIsOnTheDisk) {
  world.recorder.hold();
  world.exit(child);
  world.exit(leader);
  world.advance(1min);
  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_TRUE(world.has_slice("job"));
  const std::string event_id = end_record().event_id;

  restart();  // The record is lost with the daemon.
  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(end_record().event_id, event_id);
  EXPECT_FALSE(world.has_slice("job"));
}

TEST_F(ARestart, RecordsNoSecondEndForASliceThatWasLeft) {
  world.placer.hold();
  world.exit(child);
  world.exit(leader);
  world.advance(1min);
  EXPECT_EQ(end_of(), Reason::kExited);
  ASSERT_TRUE(world.has_slice("job"));
  restart();
  EXPECT_EQ(end_of(), Reason::kExited);
  EXPECT_FALSE(world.has_slice("job"));
}

TEST_F(ARestart, LetsAnIdBeRegisteredAgainOnceTheEndIsOnTheDisk) {
  world.recorder.hold();
  world.exit(child);
  world.exit(leader);
  world.advance(1s);
  const auto answer = world.request_register("job", world.spawn(owner));
  world.advance(1min);
  EXPECT_FALSE(answer->has_value());
  world.recorder.release();
  world.advance(1s);
  ASSERT_TRUE(answer->has_value());
  EXPECT_TRUE((*answer)->has_value());
  world.exit(find()->leader_key.pid);
  world.advance(1s);
  EXPECT_THAT(world.records("job", EventKind::kEnded), SizeIs(2));
}

TEST_F(ARestart, WatchesARunOfWhichNothingIsOnRecord) {
  world.slice("job").note.reset();
  world.recorder.rows.clear();
  restart();
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->leader_key.pid, leader);
  EXPECT_THAT(adopted(), SizeIs(1));
  EXPECT_EQ(detail_of(adopted().at(0), "without_record"), "yes");
  EXPECT_EQ(find()->deadline, world.now().monotonic + 30min);
}

TEST_F(ARestart, KnowsARunThatNobodyRegisteredAgain) {
  // The name of its slice is a hash, so its id is made of that, and makes another name.
  const std::string long_id(255, 'l');
  const pid_t stranger = world.spawn(owner);
  world.register_run(long_id, stranger);
  world.slice(long_id).note.reset();
  for (auto it = world.recorder.rows.begin(); it != world.recorder.rows.end();) {
    it = it->second.registered_as == long_id ? world.recorder.rows.erase(it) : std::next(it);
  }
  restart();
  restart();

  std::vector<std::string> adopted_ids;
  for (const auto& record : world.recorder.records) {
    if (record.kind == EventKind::kAdopted && record.pid == stranger) adopted_ids.push_back(record.run_id);
    EXPECT_NE(record.kind, EventKind::kEnded) << record.registered_as;
  }
  ASSERT_THAT(adopted_ids, SizeIs(2));
  EXPECT_EQ(adopted_ids.at(0), adopted_ids.at(1));
}

TEST_F(ARestart, LeavesSomebodysServiceInSuchASliceAlone) {
  world.slice("job").note.reset();
  world.recorder.rows.clear();
  for (const pid_t pid : {leader, child}) world.process(pid).cgroup = scope_path("nightly.service");
  restart();
  EXPECT_EQ(find(), nullptr);
  world.advance(1h);
  expect_left_alone(leader);
  expect_left_alone(child);
}

TEST_F(ARestart, KnowsARunByTheLedgerWhereThereIsNoNote) {
  const std::string run_id = find()->run_id;
  const Instant deadline = find()->deadline;
  world.slice("job").note.reset();
  restart();
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->run_id, run_id);
  EXPECT_EQ(find()->deadline, deadline);
  ASSERT_TRUE(world.slice("job").note) << "the next daemon may find no ledger";
  EXPECT_EQ(parse_note(*world.slice("job").note)->row.run_id, run_id);
}

TEST_F(ARestart, KnowsARunByItsNoteWhereTheLedgerIsLost) {
  const std::string run_id = find()->run_id;
  world.recorder.rows.clear();
  restart();
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->run_id, run_id);
  EXPECT_THAT(world.recorder.rows, Contains(::testing::Key(run_id)));
}

TEST_F(ARestart, ClosesAsLostWhatHasNoCgroup) {
  world.restart_daemon();
  world.remove_slice(World::slice_name("job"));
  world.adopt();
  EXPECT_EQ(end_of(), Reason::kLost);
  EXPECT_THAT(world.recorder.rows, SizeIs(1));
}

TEST_F(ARestart, RecordsAnUnregistrationThatWasNotOnTheDisk) {
  world.recorder.hold();
  const Reply reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(reply));
  world.advance(1s);
  ASSERT_TRUE(*reply && **reply);
  restart();
  EXPECT_THAT(world.records("job", EventKind::kUnregistered), SizeIs(1));
  EXPECT_EQ(end_of(), std::nullopt);
  expect_left_alone(leader);
  expect_left_alone(child);
}

TEST_F(ARestart, GivesNoProcessOfARunThatItCannotOpenToAnother) {
  world.restart_daemon();
  world.cgroups.out_of_descriptors = true;
  world.adopt();
  world.cgroups.out_of_descriptors = false;

  EXPECT_EQ(refusal_of(*world.request_register("another", child)), Refusal::kProcessAlreadyRegistered);
  EXPECT_EQ(world.process(child).cgroup, scope_path());
}

TEST_F(ARestart, GivesNobodyTheSliceOfARunThatNobodyRegistered) {
  // The name of its slice is a hash, and does not tell its id.
  const std::string long_id(255, 'l');
  const pid_t stranger = world.spawn(owner);
  world.register_run(long_id, stranger);
  world.slice(long_id).note.reset();
  std::erase_if(world.recorder.rows, [&](const auto& row) { return row.second.registered_as == long_id; });
  restart();
  world.placer.hold();
  const Answer answer = world.request_register(long_id, world.spawn(owner));

  EXPECT_EQ(refusal_of(*answer), Refusal::kAlreadyRegistered);
  EXPECT_EQ(world.placer.waiting(), 0);
}

TEST_F(ARestart, DoesNotTakeSystemdForWhatEndedItBeforeItsDeadline) {
  const pid_t late = world.spawn(owner);
  Limits limits;
  limits.wall_clock = 30s;
  limits.grace = 1s;
  world.placer.hold();
  (void)world.request_register("late", late, limits);
  world.advance(5min);  // By the time of the request its backstop has passed already.
  world.placer.release();
  world.restart_daemon();
  world.exit(late);
  world.adopt();

  EXPECT_EQ(end_of("late"), Reason::kExited);
}

TEST_F(ARestart, LosesNobodyWhereItCannotBeSeenWhoIsThere) {
  const std::string run_id = find()->run_id;
  for (bool* trouble : {&world.cgroups.cannot_list, &world.cgroups.cannot_tell_populated}) {
    world.restart_daemon();
    *trouble = true;
    world.adopt();
    world.advance(10s);
    EXPECT_EQ(end_of(), std::nullopt);
    EXPECT_EQ(find(), nullptr);
    *trouble = false;
    world.advance(2s);
    ASSERT_NE(find(), nullptr);
    EXPECT_EQ(find()->run_id, run_id);
    EXPECT_EQ(end_of(), std::nullopt);
    expect_left_alone(leader);
  }
}

TEST_F(ARestart, ClosesWhatIsGoneWhenTheRecordCanBeReadAtLast) {
  world.restart_daemon();
  world.remove_slice(World::slice_name("job"));
  world.adopt_without_record();
  EXPECT_EQ(world.recorder.rows.size(), 2);
  EXPECT_EQ(end_of(), std::nullopt);

  world.read_record();

  EXPECT_EQ(end_of(), Reason::kLost);
  EXPECT_EQ(world.recorder.rows.size(), 1);
}

TEST_F(ARestart, ClosesNothingThatIsWatchedWhenTheRecordCanBeReadAtLast) {
  world.restart_daemon();
  world.adopt_without_record();
  world.cgroups.out_of_descriptors = true;
  world.read_record();
  world.advance(1min);

  EXPECT_EQ(end_of(), std::nullopt);
  EXPECT_EQ(world.recorder.rows.size(), 2);
  expect_left_alone(leader);
}

TEST_F(ARestart, KnowsWhoIsAdoptedLaterWhenTheRecordCanBeReadAtLast) {
  const std::string run_id = find()->run_id;
  world.restart_daemon();
  world.slice("job").note.reset();
  world.cgroups.out_of_descriptors = true;
  world.adopt_without_record();
  world.read_record();
  world.cgroups.out_of_descriptors = false;
  world.advance(2s);

  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->run_id, run_id);
}

TEST_F(ARestart, RegistersNobodyWhereItCannotBeSeenWhoIsThere) {
  const pid_t another = world.spawn(owner);
  world.restart_daemon();
  world.cgroups.cannot_list = true;
  world.adopt();
  const Answer blind = world.request_register("job", another);
  world.cgroups.cannot_list = false;
  world.cgroups.out_of_descriptors = true;
  world.advance(1s);
  const Answer unwatched = world.request_register("job", another);
  world.cgroups.out_of_descriptors = false;
  world.advance(2s);

  EXPECT_EQ(refusal_of(*blind), Refusal::kScopeFailed);
  EXPECT_EQ(refusal_of(*unwatched), Refusal::kAlreadyRegistered);
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->leader_key.pid, leader);
  expect_left_alone(leader);
}

TEST_F(ARestart, GivesTheGraceToThoseWhoWereNotToldInTime) {
  set_on_term(OnTerm::kIgnores);
  auto note = parse_note(*world.slice("job").note).value();
  note.cause = Cause{Reason::kRequested, "asked by uid 1000"};
  note.ending_since = world.now().monotonic;
  world.slice("job").note = format_note(note);  // kill -9 before SIGTERM.
  restart(1min);

  world.advance(9s);
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  world.advance(2s);
  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_TRUE(end_record().escalated);
}

TEST_F(ARestart, WaitsForDescriptorsBeforeItWatchesAgain) {
  const std::string run_id = find()->run_id;
  world.restart_daemon();
  world.cgroups.out_of_descriptors = true;
  world.adopt();
  world.advance(10s);
  EXPECT_EQ(end_of(), std::nullopt);
  EXPECT_EQ(find(), nullptr);
  world.cgroups.out_of_descriptors = false;
  world.advance(2s);
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->run_id, run_id);
  EXPECT_EQ(end_of(), std::nullopt);
}

TEST_F(ARestart, KnowsARunThatWasOnItsWayOut) {
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), [](const Result<void>&, const Now&) {});
  const std::string note = *world.slice("job").note;
  world.advance(1s);
  ASSERT_FALSE(world.has_slice("job"));
  ASSERT_TRUE(parse_note(note)->releasing);
  EXPECT_THAT(world.records("job", EventKind::kUnregistered), SizeIs(1));
}

TEST_F(ARestart, AmidAnExtensionLeavesNoPartOfARunToTheOldBackstop) {
  advance_to(20min);
  world.placer.hold();
  supervisor.request_extend(World::id("job"), 10min, world.caller(), world.now(),
                            [](const Result<void>&, const Now&) {});
  world.placer.carry_out();
  restart();
  world.placer.release();
  world.deliver();

  EXPECT_EQ(world.process(child).cgroup, world.process(leader).cgroup);
  advance_to(40min - 1s);
  for (const pid_t pid : {leader, child}) expect_left_alone(pid);
  advance_to(40min);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(ARestart, HoldsARunToNothingThatWasRefused) {
  advance_to(20min);
  const Instant deadline = find()->deadline;
  world.placer.hold();
  const auto reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_extend(World::id("job"), 10min, world.caller(), world.now(), World::keep(reply));
  world.placer.fail("no");
  world.placer.release();
  world.deliver();
  ASSERT_TRUE(*reply && !**reply);
  restart();

  EXPECT_EQ(find()->deadline, deadline);
  advance_to(30min);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

class ARunHalfWayOut : public ARestart {
 protected:
  /// kill -9 when systemd has let the leader out, and before the others are moved.
  void SetUp() override {
    shelter = "/analysis.slice/" + shelter_unit(World::id("job"), find()->run_id);
    world.placer.hold();
    supervisor.request_unregister(World::id("job"), world.caller(), world.now(),
                                  [](const Result<void>&, const Now&) {});
  }
  void let_out() {
    world.placer.carry_out();
    ASSERT_EQ(world.process(leader).cgroup, shelter);
    ASSERT_EQ(world.process(child).cgroup, scope_path());
  }
  /// What was on its way to systemd is done after the next daemon has looked around.
  void let_out_late() {
    const auto order = world.placer.orders.back();
    supervise::ScopeOrder late = order;
    const auto handle = world.handle(leader);
    late.process = handle.get();
    world.placer.hold();
    world.placer.request_scope(late, [](const Result<void>&, const Now&) {});
    world.placer.release();
    world.deliver();
  }
  void expect_released() {
    EXPECT_THAT(world.records("job", EventKind::kUnregistered), SizeIs(1));
    EXPECT_EQ(end_of(), std::nullopt);
    EXPECT_FALSE(world.has_slice("job"));
    for (const pid_t pid : {leader, child}) {
      expect_left_alone(pid);
      EXPECT_EQ(world.process(pid).cgroup, shelter);
    }
  }
  std::string shelter;
};

TEST_F(ARunHalfWayOut, IsReleasedByTheNextDaemon) {
  let_out();
  restart();
  world.advance(1h);
  expect_released();
}

TEST_F(ARunHalfWayOut, IsReleasedThoughItsDeadlineHasPassedMeanwhile) {
  let_out();
  restart(30min + 5s);  // systemd, at its backstop, comes later.
  world.advance(1min);
  expect_released();
}

TEST_F(ARunHalfWayOut, IsReleasedWhenSystemdLetsItOutLate) {
  restart();
  ASSERT_NE(find(), nullptr);
  let_out_late();
  world.advance(1h);
  expect_released();
}

TEST_F(ARunHalfWayOut, IsReleasedWhenNobodyIsLeftInItAndItsLeaderIsDead) {
  const pid_t helper = world.spawn(leader);
  world.process(helper).cgroup = scope_path();
  let_out();
  world.process(helper).cgroup = shelter;
  world.exit(leader);
  world.exit(child);
  restart();
  world.advance(1min);

  EXPECT_THAT(world.records("job", EventKind::kUnregistered), SizeIs(1));
  EXPECT_EQ(end_of(), std::nullopt);
  expect_left_alone(helper);
}

TEST_F(ARunHalfWayOut, IsEndedWholeWhenItsEndIsAskedForThen) {
  restart();
  let_out_late();
  end();
  world.advance(1min);

  EXPECT_EQ(end_of(), Reason::kRequested);
  for (const pid_t pid : {leader, child}) EXPECT_THAT(world.signals_to(pid), ToldToEnd());
  EXPECT_THAT(world.records("job", EventKind::kUnregistered), IsEmpty());
}

TEST_F(ARunHalfWayOut, DoesNotLiveOnByHalvesWhenTheKernelHasKilledTheRest) {
  const pid_t other = world.spawn(child);
  world.process(other).cgroup = scope_path(World::scope_name("job", 2));
  world.process(other).on_term = OnTerm::kIgnores;
  let_out();
  world.oom_kill("job", World::scope_name("job"));
  restart();
  world.advance(1min);

  EXPECT_EQ(end_of(), Reason::kOom);
  EXPECT_THAT(world.records("job", EventKind::kUnregistered), IsEmpty());
  for (const pid_t pid : {leader, child, other}) EXPECT_FALSE(world.alive(pid)) << pid;
}

TEST_F(ARestart, MayComeAgainAndAgain) {
  for (int i = 0; i < 5; ++i) restart(1min);
  advance_to(30min + 10s);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST(AReboot, LosesNothingThatWasUnregisteredBefore) {
  World world;
  world.register_run("job", world.spawn(world.user_shell));
  const auto rows = world.recorder.rows;
  world.supervisor.request_unregister(World::id("job"), world.caller(), world.now(),
                                      [](const Result<void>&, const Now&) {});
  world.deliver();
  ASSERT_THAT(world.records("job", EventKind::kUnregistered), SizeIs(1));
  world.recorder.rows = rows;  // That it was let go came to the disk, that it has no row any more did not.
  world.restart_daemon(true);
  world.adopt();

  EXPECT_THAT(world.records("job", EventKind::kEnded), IsEmpty());
  EXPECT_THAT(world.recorder.rows, IsEmpty());
}

TEST(AReboot, LosesWhatRan) {
  World world;
  const pid_t leader = world.spawn(world.user_shell);
  world.register_run("job", leader);
  world.restart_daemon(true);
  world.adopt();
  const auto ends = world.records("job", EventKind::kEnded);
  ASSERT_THAT(ends, SizeIs(1));
  EXPECT_EQ(ends.at(0).reason, Reason::kLost);
  EXPECT_THAT(world.recorder.rows, IsEmpty());
}

// ---- A crash at any step ----

/// Whatever happens to the run, the daemon is killed after each single thing that the supervisor is told, with the disk
/// behind by as much as there is: there is one end, and it says why.
class ACrashAtAnyStep : public ARestart, public ::testing::WithParamInterface<int> {};

TEST_P(ACrashAtAnyStep, LosesAndDoublesNoEnd) {
  set_on_term(OnTerm::kCleansUp, 3s);
  world.recorder.hold();
  world.use_memory("job", Bytes(3 * kGiB.count()));
  const Span step = 250ms;
  world.advance(step * GetParam());
  restart(step);
  world.advance(1min);
  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_FALSE(world.alive(leader));
  EXPECT_FALSE(world.has_slice("job"));
  EXPECT_THAT(world.recorder.rows, SizeIs(1));
}

INSTANTIATE_TEST_SUITE_P(All, ACrashAtAnyStep, ::testing::Range(0, 20));

// ---- The note ----

RunNote full_note() {
  RunNote note;
  note.row.run_id = "7d3c1a52-0d3a-4f3a-8a57-3c2f0d1f5a01";
  note.row.registered_as = "nightly = import\xc3\xa4";
  note.row.host = "node1";
  note.row.boot_id = "0a7c4dd1-6a4c-4a3c-9d37-2f4f7d6ab001";
  note.row.unit = "analysis-nightly\\x20import.scope";
  note.row.leader = {4711, 123'456};
  note.row.owner = ProcessKey{4700, 99};
  note.row.uid = 4'294'967'294;
  note.row.limits.memory = Bytes::infinite();
  note.row.limits.headroom = Bytes(7);
  note.row.limits.wall_clock = kForever;
  note.row.limits.grace = 3s;
  note.row.limits.tasks_max = 64;
  note.row.limits.cpu_quota_per_second = 1500ms;
  note.row.limits.cpu_weight = 20;
  note.row.limits.orphan_policy = OrphanPolicy::kReport;
  note.row.limits.owner_policy = OwnerPolicy::kIgnore;
  note.row.limits.description = "imports\nreason=memory\n%0A";
  note.row.limits.labels = {{"team", "data"}, {"a=b\n", "\x1b[31m"}, {"", ""}};
  note.row.registered_at = WallTime(Span(1'790'000'000'000'001));
  note.row.deadline_at = WallTime(Span(1'790'000'060'000'001));
  note.row.registered = Instant(Span(77));
  note.row.deadline = kNever;
  note.row.state = State::kEnding;
  note.comm = "python3";
  note.cmdline = std::string("python3 \0 -c \n", 13);
  note.generation = 3;
  note.attached = {{1, 2}, {3, 4}};
  note.backstop = Instant(Span(5));
  note.precharged = Bytes(6);
  note.highest_unreclaimable = Bytes(8);
  note.cause = Cause{Reason::kMemory, "for a\nreason", true, LimitOf::kParent, "/a slice", Requester{7, 8, "a\nb"}};
  note.ending_since = Instant(Span(9));
  note.told = true;
  note.escalated = true;
  note.releasing = true;
  note.released = true;
  return note;
}

TEST(ANote, ComesBackAsItWas) {
  for (const RunNote& note : {full_note(), [] {
                                RunNote least;
                                least.row.run_id = "r";
                                least.row.registered_as = "i";
                                least.row.leader = {1, 0};
                                return least;
                              }()}) {
    const auto back = parse_note(format_note(note));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->row, note.row);
    EXPECT_EQ(format_note(*back), format_note(note));
  }
}

TEST(ANote, IsRefusedWhereItIsNone) {
  const std::string whole = format_note(full_note());
  for (const std::string& text :
       {std::string(), std::string("x"), whole + "uid=-1\n", whole + "leader=1\n", whole + "comm=%4\n",
        whole + "reason=tired\n", whole + "registered_as=\n", whole + "deadline=soon\n", std::string("run_id=x\n")}) {
    EXPECT_FALSE(parse_note(text)) << text;
  }
  EXPECT_TRUE(parse_note(whole + "of_a_later_version=7\n"));
}

TEST_F(ARestart, DoesNotTakeAnOwnerForDeadThatCannotBeWatched) {
  world.refuses_watches = true;
  restart();
  world.advance(10s);

  EXPECT_TRUE(world.alive(leader));
  EXPECT_THAT(world.signals_to(leader), ToldNothing());
}

TEST_F(ARestart, EndsARunWhoseOwnerDiedMeanwhileHoweverOftenItIsKilled) {
  world.restart_daemon();
  world.exit(owner);
  for (int i = 0; i < 3; ++i) {
    world.advance(1s);
    world.adopt();
    world.advance(10ms);
    world.restart_daemon();
  }
  world.advance(1s);
  world.adopt();
  world.advance(5s);

  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

// ---- slices that nobody accounts for ----

TEST_F(ARestart, TakesASliceAwayThatSystemdDidNotHearOf) {
  restart();
  world.placer.hold();
  world.exit(child);
  world.exit(leader);
  world.advance(10s);
  ASSERT_EQ(find(), nullptr);
  world.placer.lose();
  world.placer.release();
  ASSERT_TRUE(world.has_slice("job"));

  world.advance(3min);

  EXPECT_FALSE(world.has_slice("job"));
  EXPECT_THAT(world.records("job", EventKind::kEnded), SizeIs(1));
}

TEST_F(ARestart, TakesItAwayAtOnceWhenSystemdIsBack) {
  restart();
  world.placer.hold();
  world.exit(child);
  world.exit(leader);
  world.advance(10s);
  world.placer.lose();
  world.placer.release();
  ASSERT_TRUE(world.has_slice("job"));

  supervisor.on_manager_back(world.now());
  world.advance(1s);

  EXPECT_FALSE(world.has_slice("job"));
}

TEST_F(ARestart, AdoptsWhatSystemdBeganWithoutSayingSoHoweverOftenTheSameIsAskedForAgain) {
  restart();
  const pid_t unheard = world.spawn(owner);
  world.placer.hold();
  const Answer first = world.request_register("unheard", unheard);
  world.placer.lose_answers();
  world.placer.release();
  ASSERT_EQ(refusal_of(*first), Refusal::kScopeFailed);
  ASSERT_TRUE(world.has_slice("unheard"));

  for (int second = 0; second < 40; ++second) {
    world.placer.hold();  // While a name is taken, a placement is tried again for a second.
    const Answer again = world.request_register("unheard", unheard);
    world.advance(1s);
    world.placer.release();
    ASSERT_TRUE(*again && !**again);
  }

  ASSERT_NE(find("unheard"), nullptr);
  EXPECT_THAT(world.records("unheard", EventKind::kRegistered), IsEmpty());
  EXPECT_THAT(world.records("unheard", EventKind::kAdopted), SizeIs(1));
  EXPECT_EQ(refusal_of(*world.request_register("unheard", unheard)), Refusal::kAlreadyRegistered);
}

TEST_F(ARestart, LeavesAnIdThatSystemdDidNotBeginToWhoAsksForItAgain) {
  restart();
  const pid_t unheard = world.spawn(owner);
  world.placer.hold();
  const Answer first = world.request_register("unheard", unheard);
  world.placer.lose();
  world.placer.release();
  ASSERT_EQ(refusal_of(*first), Refusal::kScopeFailed);
  EXPECT_EQ(refusal_of(*world.request_register("unheard", unheard)), Refusal::kScopeFailed);

  world.advance(20s);

  world.register_run("unheard", unheard);
  EXPECT_NE(find("unheard"), nullptr);
}

TEST_F(ARestart, TellsSystemdTheLimitsAgainWhenItIsBack) {
  world.slice("job").limits = {};

  supervisor.on_manager_back(world.now());
  world.deliver();

  EXPECT_EQ(world.slice("job").limits.tripwire, Bytes(2 * kGiB.count()));
}

TEST_F(ARestart, InPassingPutsOnlyStrangersOnRecord) {
  world.restart_daemon();
  supervisor.adopt({.rows = {}, .in_passing = true}, world.now());
  world.deliver();

  ASSERT_NE(find(), nullptr);
  EXPECT_THAT(adopted(), IsEmpty());
}

TEST_F(ARestart, IsBusyWhileSomethingIsBeingEnded) {
  restart();
  set_on_term(OnTerm::kIgnores);
  EXPECT_FALSE(supervisor.busy());

  end();
  EXPECT_TRUE(supervisor.busy());

  world.advance(11s);
  EXPECT_EQ(find(), nullptr);
  EXPECT_FALSE(supervisor.busy());
}

TEST_F(ARestart, HearsThePulseThroughTheWheel) {
  std::vector<Instant> beats;
  const Instant due = world.now().monotonic + 15s;
  supervisor.request_pulse(due, [&](const Now& now) { beats.push_back(now.monotonic); });

  world.advance(14s);
  EXPECT_THAT(beats, IsEmpty());
  world.advance(2s);
  EXPECT_THAT(beats, ElementsAre(due));
}

// ---- killed in the middle of something ----

struct Killed {};

/// Lets `calls` of a port be made, and kills the daemon at the next one.
void kill_daemon_at(World& world, const std::string& port_call, int calls = 0) {
  world.on_port_call = [&world, port_call, left = calls](const std::string& call) mutable {
    if (call != port_call || left-- > 0) return;
    world.on_port_call = nullptr;
    throw Killed();
  };
}

TEST_F(ARestart, KeepsWhyARunIsEndedThatWasRegisteredAtThisVeryMoment) {
  const pid_t second = world.spawn(owner);
  world.process(second).on_term = OnTerm::kCleansUp;
  world.process(second).cleanup = 5s;
  world.register_run("second", second);
  ASSERT_TRUE(supervisor.end(World::id("second"), world.caller(), world.now()));
  for (int calls = 0; calls < 8; ++calls) {
    world.restart_daemon();
    kill_daemon_at(world, "watch", calls);
    try {
      world.adopt();
    } catch (const Killed&) {
    }
  }
  world.on_port_call = nullptr;
  restart(Span(0));
  world.advance(6s);

  EXPECT_EQ(end_of("second"), Reason::kRequested);
}

TEST_F(ARestart, GivesARunThatWasToBeEndedWhileItWasPlacedItsWholeGrace) {
  const pid_t second = world.spawn(owner);
  world.process(second).on_term = OnTerm::kIgnores;
  world.placer.hold();
  (void)world.request_register("second", second);
  ASSERT_TRUE(supervisor.end(World::id("second"), world.caller(), world.now()));
  kill_daemon_at(world, "watch");  // After its note was written, before its end was begun.
  EXPECT_THROW(world.placer.release(), Killed);
  restart();

  world.advance(9s);
  EXPECT_TRUE(world.alive(second));
  EXPECT_THAT(world.signals_to(second), ToldToEnd());
  world.advance(2s);
  EXPECT_EQ(end_of("second"), Reason::kRequested);
}

TEST_F(ARestart, SendsNoWarningOnceTheKernelHasKilled) {
  const pid_t helper = world.spawn(owner);
  supervisor.request_attach(World::id("job"), world.handle(helper), world.caller(), world.now(),
                            [](const Result<void>&, const Now&) {});
  world.deliver();
  world.process(helper).sleeps_uninterruptibly = true;
  world.oom_kill("job", World::scope_name("job"));
  world.advance(1s);
  ASSERT_THAT(world.records("job", EventKind::kEscalated), SizeIs(1));
  restart();
  world.wake(helper);
  world.advance(1s);

  EXPECT_THAT(world.signals_to(helper), Not(Contains(SIGTERM)));
  EXPECT_THAT(world.records("job", EventKind::kEnding), IsEmpty());
  EXPECT_EQ(end_of(), Reason::kOom);
}

TEST_F(ARestart, DoesNotTakeAZombieForOneThatWasReleased) {
  world.process(owner).reaps = Reaps::kNever;
  world.placer.hold();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), [](const Result<void>&, const Now&) {});
  world.oom_kill("job", World::scope_name("job"));
  restart();

  EXPECT_EQ(end_of(), Reason::kOom);
  EXPECT_THAT(world.records("job", EventKind::kUnregistered), IsEmpty());
}

}  // namespace
}  // namespace aw::supervise
