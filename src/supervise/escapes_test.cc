// SPDX-License-Identifier: Apache-2.0
//
// Processes that somebody else has moved out of their run.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using testing::Reply;
using ::testing::SizeIs;
using testing::World;

constexpr char kElsewhere[] = "/system.slice/other.service";

class ARunThatIsRobbed : public testing::ARun {
 protected:
  /// As echo PID > cgroup.procs does.
  void move_out(pid_t pid) { ASSERT_TRUE(world.cgroups.put_back(pid, kElsewhere)); }
  void move_in(pid_t pid) { ASSERT_TRUE(world.cgroups.put_back(pid, scope_path())); }
  std::vector<EventRecord> escapes() const { return world.records("job", EventKind::kEscaped); }
};

TEST_F(ARunThatIsRobbed, SaysWhoWasMovedOutAndWhere) {
  world.advance(seconds{6});
  move_out(child);
  world.advance(seconds{5});
  ASSERT_THAT(escapes(), SizeIs(1));
  EXPECT_EQ(escapes()[0].pid, child);
  EXPECT_EQ(escapes()[0].comm, "python");
  EXPECT_EQ(escapes()[0].cmdline, "/usr/bin/python");
  EXPECT_THAT(escapes()[0].details[0], Pair("cgroup", supervise::DetailValue(std::string(kElsewhere))));
  expect_left_alone(child);
}

TEST_F(ARunThatIsRobbed, SaysSoOnceAndAgainAfterItWasBack) {
  world.advance(seconds{6});
  move_out(child);
  world.advance(seconds{60});
  EXPECT_THAT(escapes(), SizeIs(1));
  move_in(child);
  world.advance(seconds{6});
  move_out(child);
  world.advance(seconds{60});
  EXPECT_THAT(escapes(), SizeIs(2));
}

TEST_F(ARunThatIsRobbed, TakesNobodyWhoEndedForAnEscape) {
  world.process(leader).reaps = testing::Reaps::kNever;
  const pid_t second = world.spawn(leader);
  world.advance(seconds{6});
  world.exit(child);  // A zombie from here on.
  world.kill(second, SIGKILL);
  world.advance(seconds{20});
  EXPECT_THAT(escapes(), IsEmpty());
}

TEST_F(ARunThatIsRobbed, TakesAnotherWithTheSamePidForNobody) {
  world.advance(seconds{6});
  world.exit(child);
  world.advance(seconds{1});
  auto other = world.process(bystander);
  other.stat.pid = child;
  other.stat.start_time += 1'000'000;
  other.cgroup = kElsewhere;
  ASSERT_EQ(world.find_process(child), nullptr);
  world.insert(other);
  world.advance(seconds{20});
  EXPECT_THAT(escapes(), IsEmpty());
}

TEST_F(ARunThatIsRobbed, SaysNothingOfWhomTheWatchdogItselfHasMoved) {
  const pid_t guest = world.spawn(world.user_shell, "guest");
  const auto attached = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_attach(World::id("job"), world.handle(guest), world.caller(), world.now(), World::keep(attached));
  world.advance(seconds{6});
  const auto extended = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_extend(World::id("job"), std::chrono::hours{1}, world.caller(), world.now(),
                            World::keep(extended));
  world.advance(seconds{6});
  const auto released = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(released));
  world.advance(seconds{6});
  ASSERT_TRUE(*released && **released);
  EXPECT_THAT(escapes(), IsEmpty());
}

TEST_F(ARunThatIsRobbed, WhoseLeaderWasTheWholeTreeEndsAsExternal) {
  world.exit(child);
  world.advance(seconds{1});
  move_out(leader);
  world.advance(seconds{3});
  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_EQ(end_record().signal, std::nullopt) << "nobody has killed it";
  EXPECT_THAT(
      end_record().details,
      ::testing::Contains(Pair(
          "cause", supervise::DetailValue(std::string("its leader was moved out of its scope to ") + kElsewhere))));
  EXPECT_THAT(escapes(), SizeIs(1));
  EXPECT_TRUE(world.alive(leader));
  EXPECT_THAT(world.signals_to(leader), IsEmpty());
}

TEST_F(ARunThatIsRobbed, WhoseLeaderComesBackInTimeGoesOn) {
  world.exit(child);
  world.advance(seconds{1});
  move_out(leader);
  world.advance(std::chrono::milliseconds{500});
  const pid_t second = world.spawn(leader);  // systemd keeps a scope that has a process.
  world.process(second).cgroup = scope_path();
  world.advance(seconds{3});
  EXPECT_EQ(end_of(), std::nullopt);
}

TEST_F(ARunThatIsRobbed, DoesNotTakeTheChildrenOfALeaderThatLivesElsewhereForOrphans) {
  world.advance(seconds{6});
  move_out(leader);
  world.advance(seconds{60});
  EXPECT_THAT(escapes(), SizeIs(1));
  EXPECT_THAT(world.records("job", EventKind::kOrphanFound), IsEmpty());
  expect_left_alone(child);
  EXPECT_EQ(end_of(), std::nullopt);
  world.exit(leader);  // Now they are.
  world.advance(seconds{20});
  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(ARunThatIsRobbed, EndsAsExternalWhenTheLastOfItIsGoneAndItsLeaderLivesElsewhere) {
  world.advance(seconds{6});
  move_out(leader);
  world.advance(seconds{6});
  world.exit(child);
  world.advance(seconds{6});
  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_THAT(escapes(), SizeIs(1));
}

TEST_F(ARunThatIsRobbed, FindsOrphansBesideWhatWasMovedOut) {
  const pid_t middle = world.spawn(leader, "middle");
  const pid_t lost = world.spawn(middle, "lost");
  world.advance(seconds{6});
  move_out(child);
  world.exit(middle);
  world.advance(seconds{12});
  const auto orphans = world.records("job", EventKind::kOrphanFound);
  ASSERT_THAT(orphans, SizeIs(1));
  EXPECT_EQ(orphans[0].pid, lost);
}

TEST_F(ARunThatIsRobbed, SaysSoAtTheLatestWhenItEnds) {
  world.advance(seconds{6});
  move_out(child);
  end();
  world.advance(seconds{1});
  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_THAT(escapes(), SizeIs(1));
  expect_left_alone(child);
}

TEST_F(ARunThatIsRobbed, SaysSoOfALeaderThatWasMovedWhileNobodyWatched) {
  world.restart_daemon();
  move_out(leader);
  world.adopt();
  world.advance(seconds{6});
  EXPECT_THAT(escapes(), SizeIs(1));
  EXPECT_EQ(end_of(), std::nullopt);
}

}  // namespace
}  // namespace aw::supervise
