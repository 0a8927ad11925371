// SPDX-License-Identifier: Apache-2.0
//
// Processes whose parent has died: found beside a living leader, ended or reported, and nobody else with them.
#include <unistd.h>

#include <csignal>

#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;

class AnOrphan : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, AnOrphan, kBothWays, way_name);

TEST_P(AnOrphan, BesideALivingLeaderIsFoundAndEndedAlone) {
  const auto run = start_it({grace(5s)}, {"daemonize", path("orphan")});
  const auto pid = static_cast<pid_t>(std::stol(await_file("orphan")));
  std::vector<Held> orphan;
  orphan.emplace_back(pid);
  const Held leader(run.leader);

  const auto found = watchdog.await_signal("OrphanFound", run.id);

  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, static_cast<std::uint32_t>(pid));
  EXPECT_EQ(found->comm, "workload");
  EXPECT_TRUE(await_all_gone(orphan)) << "it was found, but not ended";
  EXPECT_TRUE(leader.alive());
  const auto properties = watchdog.find(run.id);
  ASSERT_TRUE(properties) << "the whole run was ended for one orphan";
  EXPECT_EQ(text(*properties, "State"), "running");
  const auto on_record = watchdog.events_of(run.id, "orphan-found");
  ASSERT_EQ(on_record.size(), 1U);
  EXPECT_EQ(number(on_record[0], "pid"), static_cast<std::uint64_t>(pid));
}

TEST_P(AnOrphan, IsOnlyReportedWhereThatIsThePolicy) {
  const auto run = start_it({orphan_policy("report")}, {"daemonize", path("orphan")});
  const Held orphan(static_cast<pid_t>(std::stol(await_file("orphan"))));

  ASSERT_TRUE(watchdog.await_signal("OrphanFound", run.id));
  watchdog.let_pass(7s);  // A round and more.

  EXPECT_TRUE(orphan.alive());
  EXPECT_EQ(watchdog.events_of(run.id, "orphan-found").size(), 1U) << "reported again and again";
  const auto properties = watchdog.find(run.id);
  ASSERT_TRUE(properties);
  EXPECT_EQ(number(*properties, "OrphanCount"), 1U);
}

TEST_P(AnOrphan, LeftByItsLeaderIsOnlyReportedWhereThatIsThePolicy) {
  const auto run = start_it({orphan_policy("report")}, {"leave", "2"});

  ASSERT_TRUE(watchdog.await_event(run.id, "orphan-found"));
  watchdog.let_pass(3s);

  EXPECT_EQ(processes_in(run.folder).size(), 2U);
  EXPECT_TRUE(watchdog.find(run.id)) << "the run lasts as long as what is left of it";
}

class ALivingTree : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, ALivingTree, kBothWays, way_name);

TEST_P(ALivingTree, HasNoOrphans) {
  const auto run = start_it({}, {"children", "4", path("ready")});
  await_file("ready");
  const auto members = hold_members(run);

  watchdog.let_pass(8s);  // A round, and its confirmation.

  for (const Held& member : members) EXPECT_TRUE(member.alive()) << member.pid();
  EXPECT_TRUE(watchdog.events_of(run.id, "orphan-found").empty());
}

class AZombie : public Story {};

TEST_F(AZombie, WhoseParentNeverReapsIsReportedWithThatParent) {
  // This story is the parent, and does not reap.
  const auto run = start(How::kRegistered, new_id("zombie"), {}, {"live", "200"});
  ASSERT_EQ(text(await_end(run), "reason"), "exited");

  const auto unreaped = watchdog.await_event(run.id, "unreaped");

  ASSERT_TRUE(unreaped);
  EXPECT_EQ(number(details(*unreaped), "parent_pid"), static_cast<std::uint64_t>(::getpid()));
  const auto processes = dicts(*unreaped, "processes");
  ASSERT_EQ(processes.size(), 1U);
  EXPECT_EQ(number(processes[0], "pid"), static_cast<std::uint64_t>(run.leader));
  EXPECT_EQ(number(processes[0], "ppid"), static_cast<std::uint64_t>(::getpid()));
}

}  // namespace
}  // namespace aw::stories
