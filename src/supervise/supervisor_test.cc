// SPDX-License-Identifier: Apache-2.0
//
// What holds for all runs together: timers, late events, readings, zombies.
#include "supervise/supervisor.h"

#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::IsEmpty;
using testing::mib;
using testing::OnTerm;
using ::testing::Pair;
using ::testing::SizeIs;
using testing::World;

// ---- timers ----

class ASupervisor : public testing::AWorld {};

TEST_F(ASupervisor, HasNoTimerArmedWhileThereIsNothingToWatch) {
  world.advance(std::chrono::hours{1});

  EXPECT_EQ(world.alarm(), std::nullopt);
  EXPECT_EQ(world.wakeups, 0);
}

TEST_F(ASupervisor, HasNoTimerArmedOnceItsRunsAreOver) {
  world.register_run("job", leader);
  EXPECT_NE(world.alarm(), std::nullopt);

  world.exit(child);
  world.exit(leader);
  world.advance(seconds{10});

  EXPECT_EQ(world.alarm(), std::nullopt);
  EXPECT_EQ(world.watch_count(), 0);
  EXPECT_EQ(world.slice_count(), 0);
}

TEST_F(ASupervisor, IsWokenForRoundsOnlyWhileNothingHappens) {
  world.register_run("job", leader);
  world.advance(seconds{1});
  const unsigned before = world.wakeups;

  world.advance(minutes{1});

  EXPECT_EQ(world.wakeups - before, 12 + 4);  // Orphans every 5 s, limits every 15 s.
}

TEST_F(ASupervisor, DoesNothingWhenItIsWokenForNothing) {
  world.register_run("job", leader);
  world.advance(seconds{1});
  const auto before = world.alarm();

  supervisor.on_timer(world.now());

  EXPECT_EQ(world.alarm(), before);
  expect_left_alone(leader);
}

TEST_F(ASupervisor, CatchesUpWithATimerThatComesLate) {
  Limits limits;
  limits.wall_clock = seconds{3};
  for (const pid_t pid : {leader, child}) world.process(pid).on_term = OnTerm::kIgnores;
  world.register_run("job", leader, limits);
  const Now late{world.now().monotonic + minutes{1}, world.now().real + minutes{1}};

  supervisor.on_timer(late);

  EXPECT_THAT(world.signals_to(leader), testing::ToldToEnd());  // Its grace begins with the signal.
}

// ---- late events ----

TEST_F(ASupervisor, IgnoresEventsOfRunsThatAreOver) {
  const RunKey key = world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});
  const auto before = world.recorder.records.size();

  supervisor.on_cgroup_changed(key, world.now());
  supervisor.on_events_lost(world.now());
  supervisor.on_manager_job(World::scope_name("job"), ManagerJob::kStop, world.now());
  supervisor.on_manager_job(World::slice_name("job"), ManagerJob::kOver, world.now());
  supervisor.on_timer(world.now());

  EXPECT_EQ(world.recorder.records.size(), before);
  EXPECT_FALSE(supervisor.end(World::id("job"), world.caller(), world.now()));
}

TEST_F(ASupervisor, IgnoresEventsOfRunsThatNeverWere) {
  supervisor.on_cgroup_changed(77, world.now());

  EXPECT_THAT(world.recorder.records, IsEmpty());
}

// ---- readings ----

TEST_F(ASupervisor, CountsWhatItMonitorsAndWhatIsEnding) {
  for (const pid_t pid : {leader, child}) world.process(pid).on_term = OnTerm::kIgnores;
  world.register_run("job", leader);
  world.register_run("other", world.spawn(owner));
  EXPECT_EQ(supervisor.monitored(), 2);
  EXPECT_EQ(supervisor.ending(), 0);

  EXPECT_TRUE(supervisor.end(World::id("job"), world.caller(), world.now()));

  EXPECT_EQ(supervisor.monitored(), 2);
  EXPECT_EQ(supervisor.ending(), 1);
}

TEST_F(ASupervisor, ReadsTheUsageOfARun) {
  world.process(leader).anonymous = mib(512);
  world.register_run("job", leader);
  world.process(leader).anonymous = mib(600);
  world.use_memory("job", mib(88), mib(10));

  const Usage usage = supervisor.read_usage(*find());

  EXPECT_EQ(usage.unreclaimable, mib(600));
  EXPECT_EQ(usage.counters.memory_current, mib(98));
  EXPECT_EQ(usage.processes, 2);
}

TEST_F(ASupervisor, ReadsNoUsageOfARunThatIsBeingPlaced) {
  world.placer.hold();
  (void)world.request_register("job", leader);

  const Usage usage = supervisor.read_usage(*find());

  EXPECT_EQ(usage.unreclaimable, std::nullopt);
  EXPECT_EQ(usage.processes, 0);
}

// ---- zombies ----

TEST_F(ASupervisor, ReportsZombiesThatNobodyReapedWithTheirParent) {
  world.process(owner).reaps = testing::Reaps::kNever;
  world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});

  const auto reports = world.records("job", EventKind::kUnreaped);
  ASSERT_THAT(reports, SizeIs(1));
  EXPECT_THAT(reports[0].details, Contains(Pair("zombie_count", DetailValue(std::uint64_t{1}))));
  EXPECT_THAT(reports[0].details, Contains(Pair("parent_pid", DetailValue(std::uint64_t(owner)))));
  EXPECT_THAT(reports[0].details, Contains(Pair("parent_comm", DetailValue(std::string("worker")))));
  EXPECT_EQ(reports[0].run_id, end_record().run_id);
  EXPECT_NE(reports[0].event_id, end_record().event_id);
  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ASupervisor, DoesNotReportZombiesThatAreReapedInTime) {
  world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});

  EXPECT_THAT(world.records("job", EventKind::kUnreaped), IsEmpty());
}

TEST_F(ASupervisor, DoesNotTakeTheZombiesOfALaterRunForThoseOfAnEarlier) {
  world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.deliver();
  const pid_t second = world.spawn(owner);
  const pid_t passing = world.spawn(second);
  world.register_run("job", second);
  world.process(second).reaps = testing::Reaps::kNever;
  world.exit(passing);
  world.advance(seconds{5});

  EXPECT_THAT(world.records("job", EventKind::kUnreaped), IsEmpty());
}

TEST_F(ASupervisor, LooksForTheZombiesOfAllThatEndTogetherOnce) {
  constexpr int kMany = 50;
  std::vector<pid_t> leaders;
  for (int i = 0; i < kMany; ++i) {
    leaders.push_back(world.spawn(owner));
    world.process(leaders.back()).reaps = testing::Reaps::kNever;
    world.register_run("job " + std::to_string(i), leaders.back());
  }
  world.process(owner).reaps = testing::Reaps::kNever;
  const std::size_t before = world.processes.all_reads;
  for (const pid_t pid : leaders) {
    world.exit(pid);
    world.advance(milliseconds{20});
  }
  world.advance(seconds{10});

  for (int i = 0; i < kMany; ++i) {
    EXPECT_THAT(world.records("job " + std::to_string(i), EventKind::kUnreaped), SizeIs(1)) << i;
  }
  EXPECT_LE(world.processes.all_reads - before, 2U);  // One of them for those that ended after the first look was due.
}

}  // namespace
}  // namespace aw::supervise
