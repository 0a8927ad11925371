// SPDX-License-Identifier: Apache-2.0
//
// systemd is slow, and told by pid whom to move: by the time it does, somebody else has that pid, or the daemon that
// asked is dead.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using namespace aw::testing;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ASlowSystemd : public AWorld {
 protected:
  ASlowSystemd() { world.placer.by_pid = true; }

  /// Asks for the run "job", whose leader has the descendants of the fixture.
  void ask(const Limits& limits = {}) {
    world.placer.hold();
    answer = world.request_register("job", leader, limits);
    world.deliver();
  }
  /// The first is not answered, and placed when it was asked for again. What was asked for the first time.
  Limits ask_twice() {
    Limits limits;
    limits.wall_clock = 7min;
    ask(limits);
    const auto late = world.placer.lose();
    world.deliver();
    EXPECT_EQ(refusal_of(*answer), Refusal::kScopeFailed);
    world.advance(20s);  // For so long the id is refused.
    answer = world.request_register("job", leader);
    late();
    return limits;
  }
  void replace(pid_t pid) { world.replace(pid, world.user_shell); }
  void restart() {
    world.restart_daemon();
    world.advance(1s);
    world.adopt();
  }
  std::string cgroup_of(pid_t pid) { return world.process(pid).cgroup; }

  const std::string session = "/user.slice/user-1000.slice/session-1.scope";
  Answer answer;
};

TEST_F(ASlowSystemd, PlacesARunForTheNextDaemonWithWhatWasAskedFor) {
  Limits limits;
  limits.wall_clock = 7min;
  limits.labels["step"] = "align";
  ask(limits);
  const Instant asked = world.now().monotonic;
  world.placer.carry_out();
  restart();

  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->limits, limits);
  EXPECT_EQ(find()->deadline, asked + 7min);
  EXPECT_EQ(find()->owner->key().pid, owner);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kAdopted));
  EXPECT_EQ(cgroup_of(child), scope_path()) << "what had been forked before was not gathered";
  EXPECT_THAT(world.placements.list(), IsEmpty());

  world.advance(8min);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(ASlowSystemd, PlacesItAlsoWhenTheNextDaemonIsThere) {
  ask();
  auto late = world.placer.take();
  restart();
  EXPECT_EQ(find(), nullptr);
  late();
  world.advance(1min);

  ASSERT_NE(find(), nullptr);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kAdopted));
  EXPECT_THAT(world.placements.list(), IsEmpty());
}

TEST_F(ASlowSystemd, PlacesTheFirstOfTwoRegistrationsWithWhatWasAskedForIt) {
  const Limits limits = ask_twice();
  world.placer.release();
  world.advance(1min);

  EXPECT_EQ(refusal_of(*answer), Refusal::kAlreadyRegistered);
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->limits, limits);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kAdopted));
  EXPECT_THAT(world.placements.list(), IsEmpty());
}

TEST_F(ASlowSystemd, PlacesTheFirstOfTwoRegistrationsForTheNextDaemon) {
  const Limits limits = ask_twice();
  restart();
  world.advance(1min);

  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->limits, limits);
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kAdopted));
  world.advance(11min);
  EXPECT_THAT(world.placements.list(), IsEmpty());
}

TEST_F(ASlowSystemd, IsNotWaitedForForEver) {
  ask();
  restart();
  EXPECT_THAT(world.placements.list(), SizeIs(1));
  world.advance(11min);
  EXPECT_THAT(world.placements.list(), IsEmpty());
  const auto before = world.wakeups;
  world.advance(10min);
  EXPECT_EQ(world.wakeups, before);
}

TEST_F(ASlowSystemd, TakesAnotherForTheLeaderWhoGoesBackUnharmed) {
  ask();
  replace(leader);
  world.placer.carry_out();
  EXPECT_EQ(cgroup_of(leader), scope_path());
  restart();
  world.advance(1h);

  expect_left_alone(leader);
  EXPECT_EQ(cgroup_of(leader), session);
  EXPECT_EQ(find(), nullptr);
  EXPECT_FALSE(world.has_slice("job"));
  EXPECT_THAT(world.records("job"), IsEmpty());
  EXPECT_THAT(world.placements.list(), IsEmpty());
}

TEST_F(ASlowSystemd, GivesAScopeToOneWhoComesFromNowhereKnown) {
  ask();
  replace(leader);
  world.process(leader).stat.parent = 1;
  world.placer.carry_out();
  restart();
  world.advance(1h);

  expect_left_alone(leader);
  EXPECT_TRUE(cgroup_of(leader).starts_with("/analysis.slice/analysis-job-r")) << cgroup_of(leader);
  EXPECT_FALSE(world.has_slice("job"));
}

TEST_F(ASlowSystemd, TakesAnotherForTheLeaderWhileTheDaemonLives) {
  ask();
  replace(leader);
  world.placer.release();
  world.advance(1h);

  EXPECT_EQ(refusal_of(*answer), Refusal::kNoSuchProcess);
  expect_left_alone(leader);
  EXPECT_EQ(cgroup_of(leader), session);
  EXPECT_FALSE(world.has_slice("job"));
  EXPECT_THAT(world.placements.list(), IsEmpty());
}

TEST_F(ASlowSystemd, LeavesTheOrphansOfALeaderThatWasPlacedToBeEnded) {
  ask();
  world.placer.carry_out();
  const pid_t left = world.spawn(leader);
  world.exit(leader);
  world.reap(leader);
  restart();
  world.advance(1min);

  EXPECT_FALSE(world.alive(left));
  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(ASlowSystemd, HasNoNoteOfAPlacementThatItHasAnswered) {
  world.register_run("job", leader);
  EXPECT_THAT(world.placements.list(), IsEmpty());
}

/// The same for further scopes of a run that is watched.
class ASlowSystemdWithARun : public ARun {
 protected:
  ASlowSystemdWithARun() { world.placer.by_pid = true; }

  void replace(pid_t pid) { world.replace(pid, world.user_shell); }
  void restart() {
    world.restart_daemon();
    world.advance(1s);
    world.adopt();
  }
  void attach_slowly(pid_t pid) {
    world.placer.hold();
    supervisor.request_attach(World::id("job"), world.handle(pid), world.caller(), world.now(), World::keep(reply));
  }
  void expect_back(pid_t pid) {
    expect_left_alone(pid);
    EXPECT_EQ(world.process(pid).cgroup, "/user.slice/user-1000.slice/session-1.scope");
  }
  const Reply reply = std::make_shared<std::optional<Result<void>>>();
};

TEST_F(ASlowSystemdWithARun, TakesAnotherForTheProcessThatIsAttached) {
  for (const bool daemon_dies : {false, true}) {
    const pid_t helper = world.spawn(world.user_shell, "helper");
    attach_slowly(helper);
    replace(helper);
    if (daemon_dies) {
      world.placer.carry_out();
      restart();
    } else {
      world.placer.release();
    }
    world.advance(1s);
    expect_back(helper);
    end();
    world.advance(1min);
    expect_back(helper);
    if (!daemon_dies) world.register_run("job", world.spawn(owner));
  }
}

TEST_F(ASlowSystemdWithARun, MovesAProcessThatIsAttachedWhichNobodyTakesForAnOrphan) {
  const pid_t helper = world.spawn(world.user_shell, "helper");
  attach_slowly(helper);
  world.placer.carry_out();
  world.advance(1min);
  expect_left_alone(helper);

  restart();
  const pid_t helpers_child = world.spawn(helper);
  world.advance(1min);

  expect_left_alone(helper);
  expect_left_alone(helpers_child);
  EXPECT_THAT(find()->attached, ElementsAre(key_of(world.process(helper).stat)));
  EXPECT_THAT(world.records("job", EventKind::kOrphanFound), IsEmpty());
}

TEST_F(ASlowSystemdWithARun, MovesAProcessThatIsAttachedWhenTheNextDaemonIsThere) {
  const pid_t helper = world.spawn(world.user_shell, "helper");
  attach_slowly(helper);
  const auto late = world.placer.take();
  restart();
  late();
  world.advance(1min);

  EXPECT_TRUE(is_within(world.process(helper).cgroup, find()->cgroup->path()));
  expect_left_alone(helper);
}

TEST_F(ASlowSystemdWithARun, TakesAnotherForTheLeaderOfARunWhoseTimeIsExtended) {
  for (const bool daemon_dies : {false, true}) {
    const pid_t first = find()->leader_key.pid;
    world.spawn(first);
    world.placer.hold();
    supervisor.request_extend(World::id("job"), 1h, world.caller(), world.now(), World::keep(reply));
    world.deliver();
    replace(first);
    if (daemon_dies) {
      world.placer.carry_out();
      restart();
    } else {
      world.placer.release();
    }
    world.advance(5min);
    expect_back(first);
    EXPECT_EQ(find(), nullptr);  // Ended as orphaned: the leader is dead.
    if (!daemon_dies) {
      const pid_t next = world.spawn(owner);
      world.register_run("job", next);
    }
  }
}

TEST_F(ASlowSystemdWithARun, TakesAnotherForTheLeaderOfARunThatIsReleased) {
  world.placer.hold();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(reply));
  world.deliver();
  world.exit(child);
  replace(leader);
  world.placer.release();
  world.advance(5min);

  expect_left_alone(leader);
  EXPECT_EQ(find(), nullptr);
  EXPECT_EQ(end_of(), Reason::kExited);
}

}  // namespace
}  // namespace aw::supervise
