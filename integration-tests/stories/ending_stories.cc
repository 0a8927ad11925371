// SPDX-License-Identifier: Apache-2.0
//
// Why a run ends, and how: every reason, the ladder from SIGTERM to cgroup.kill, and never half a tree.
#include <csignal>

#include "base/analysis_id.h"
#include "support/manager.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::Ge;
using ::testing::Lt;

/// From the decision to the end, as the record has it.
Span time_in_ending(Watchdog& watchdog, const std::string& id) {
  const auto begun = watchdog.events_of(id, "ending");
  const auto over = watchdog.events_of(id, "ended");
  if (begun.size() != 1 || over.size() != 1) {
    ADD_FAILURE() << begun.size() << " ending, " << over.size() << " ended events";
    return kForever;
  }
  return Span(static_cast<std::int64_t>(number(over[0], "occurred_at") - number(begun[0], "occurred_at")));
}

// ---- reasons ----

class AnAnalysis : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, AnAnalysis, kBothWays, way_name);

TEST_P(AnAnalysis, ThatExitsByItselfIsRecordedWithItsStatus) {
  const auto run = start_it({}, {"live", "300", "3"});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "exited");
  EXPECT_EQ(find_number(end, "exit_code"), 3U) << describe(end);
  EXPECT_FALSE(bus::find(end, "signal")) << "we sent it a signal";
  EXPECT_FALSE(flag(end, "escalated"));
  EXPECT_EQ(text(end, "comm"), "workload");
  EXPECT_GE(number(end, "duration_usec"), 200'000U);
}

TEST_P(AnAnalysis, ThatDiesOfASignalOfItsOwnHasExited) {
  const auto run = start_it({}, {"raise", std::to_string(SIGABRT)});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "exited");
  EXPECT_EQ(find_number(end, "exit_signal"), static_cast<std::uint64_t>(SIGABRT)) << describe(end);
}

TEST_P(AnAnalysis, IsEndedByItsWallClock) {
  const auto run = start_it({wall_clock(2s)}, {"stay"});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_EQ(number(end, "wall_clock_limit_usec"), 2'000'000U);
  EXPECT_GE(number(end, "duration_usec"), 2'000'000U);
  EXPECT_EQ(number(end, "signal"), static_cast<std::uint64_t>(SIGTERM));
  EXPECT_FALSE(flag(end, "escalated"));
}

TEST_P(AnAnalysis, IsEndedByItsMemoryLimit) {
  const auto run = start_it({memory_limit(32), grace(20s)}, {"leak"});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "memory");
  EXPECT_EQ(number(end, "memory_limit_bytes"), 32U << 20U);
  EXPECT_GE(number(end, "memory_bytes"), 28U << 20U) << describe(end);
  EXPECT_GE(number(end, "memory_peak_bytes"), 28U << 20U);
}

TEST_P(AnAnalysis, WhoseLeaderLeavesProcessesBehindIsOrphaned) {
  const auto run = start_it({}, {"leave", "3"});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "orphaned");
  EXPECT_EQ(find_number(end, "exit_code"), 0U) << "the leader's own status: " << describe(end);
}

TEST_P(AnAnalysis, WhoseOwnerDiesIsOrphaned) {
  const std::string id = new_id("owner " + to_string(GetParam()));
  std::optional<Child> owner;
  if (GetParam() == How::kLaunched) {
    owner.emplace(Child::spawn({"analysis-run", "--id=" + id, "--", workload_program(), "stay"}));
    ASSERT_TRUE(watchdog.await_signal("AnalysisRegistered", id));
  } else {
    owner.emplace(spawn_workload({"parent", path("leader"), "stay"}));
    const auto leader = std::stoul(await_file("leader"));
    ASSERT_EQ(watchdog.register_process(id, static_cast<std::uint32_t>(leader)).error, "");
  }
  const auto properties = watchdog.find(id);
  ASSERT_TRUE(properties);
  ASSERT_EQ(number(*properties, "OwnerPid"), static_cast<std::uint64_t>(owner->pid()));

  owner->signal(SIGKILL);
  ASSERT_TRUE(owner->reap());

  const Dict end = await_end(id);
  EXPECT_EQ(text(end, "reason"), "orphaned");
  EXPECT_TRUE(watchdog.wait_until([&] { return processes_in(slice_folder(id)).empty(); }));
}

TEST_P(AnAnalysis, WithOwnerIgnoredOutlivesItsOwner) {
  const std::string id = new_id("ownerless " + to_string(GetParam()));
  std::optional<Child> owner;
  if (GetParam() == How::kLaunched) {
    owner.emplace(Child::spawn({"analysis-run", "--id=" + id, "--owner=ignore", "--wall-clock=1h", "--",
                                workload_program(), "handle-term", path("ready"), path("marker"), "0"}));
  } else {
    owner.emplace(spawn_workload({"parent", path("leader"), "handle-term", path("ready"), path("marker"), "0"}));
    const auto leader = std::stoul(await_file("leader"));
    ASSERT_EQ(watchdog.register_process(id, static_cast<std::uint32_t>(leader), {owner_policy("ignore")}).error, "");
  }
  // A launcher that dies before its command runs takes the command with it.
  await_file("ready");

  owner->signal(SIGKILL);
  ASSERT_TRUE(owner->reap());
  watchdog.let_pass(4s);

  const auto properties = watchdog.find(id);
  ASSERT_TRUE(properties) << "it ended with its owner";
  EXPECT_EQ(text(*properties, "State"), "running");
  EXPECT_EQ(number(*properties, "ProcessCount"), 1U);
}

TEST_P(AnAnalysis, KilledBySomebodyElseIsExternal) {
  const auto run = start_it({}, {"stay"});
  ASSERT_GT(run.leader, 0);

  ::kill(run.leader, SIGKILL);

  const Dict end = await_end(run);
  // Where nobody can know how a process died that is no child of the launcher's, `exited` is allowed.
  if (run.how == How::kLaunched) {
    EXPECT_EQ(text(end, "reason"), "external") << describe(end);
  } else {
    EXPECT_THAT(text(end, "reason"), AnyOf(Eq("external"), Eq("exited"))) << describe(end);
  }
  EXPECT_TRUE(watchdog.events_of(run.id, "ending").empty()) << "claimed as ours";
}

TEST_P(AnAnalysis, KilledForItsParentSlicesLimitIsExternal) {
  const auto run = start_it({memory_limit(512)}, {"leak-on-usr1", path("ready"), "1024", "1"});
  await_file("ready");
  ASSERT_TRUE(systemctl({"set-property", "--runtime", "analysis.slice", "MemoryMax=96M"}));

  ::kill(run.leader, SIGUSR1);

  const Dict end = await_end(run);
  EXPECT_TRUE(systemctl({"set-property", "--runtime", "analysis.slice", "MemoryMax=infinity"}));
  EXPECT_EQ(text(end, "reason"), "external") << describe(end);
  EXPECT_TRUE(watchdog.events_of(run.id, "ending").empty()) << "claimed as ours";
  EXPECT_EQ(line_of(runs_folder() + "/memory.max"), "max");
}

TEST_P(AnAnalysis, IsEndedOnRequest) {
  const auto run = start_it({}, {"stay"});

  ASSERT_EQ(watchdog.kill(run.id).error, "");

  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "requested");
  EXPECT_EQ(number(end, "signal"), static_cast<std::uint64_t>(SIGTERM));
  EXPECT_FALSE(flag(end, "escalated"));
  const auto ending = watchdog.await_signal("AnalysisEnding", run.id);
  ASSERT_TRUE(ending);
  EXPECT_EQ(ending->reason, "requested");
  EXPECT_EQ(ending->grace, 10'000'000U);
}

TEST_P(AnAnalysis, WhoseScopeIsStoppedIsRequested) {
  const auto run = start_it({}, {"stay"});

  ASSERT_TRUE(systemctl({"stop", scope_unit(AnalysisId::parse(run.id).value())}));

  EXPECT_EQ(text(await_end(run), "reason"), "requested");
}

TEST_P(AnAnalysis, KeepsItsFirstCause) {
  const auto run = start_it({wall_clock(3s), grace(4s)}, {"ignore-term", path("ready")});
  await_file("ready");

  ASSERT_EQ(watchdog.kill(run.id).error, "");

  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "requested") << "its wall clock passed during its grace";
  EXPECT_EQ(watchdog.events_of(run.id, "ending").size(), 1U);
}

TEST_P(AnAnalysis, MayBeRegisteredAgainOnceItHasEnded) {
  const std::string id = new_id("again");
  std::string run_id;
  for (int round = 1; round <= 3; ++round) {
    auto run = start(GetParam(), id, {}, {"stay"});
    const auto properties = watchdog.find(id);
    ASSERT_TRUE(properties);
    EXPECT_NE(text(*properties, "RunId"), std::exchange(run_id, text(*properties, "RunId")));
    ASSERT_EQ(watchdog.kill(id).error, "");
    ASSERT_TRUE(
        watchdog.wait_until([&] { return watchdog.events_of(id, "ended").size() == static_cast<std::size_t>(round); }));
    run.process.signal(SIGKILL);
    ASSERT_TRUE(run.process.reap());
  }
}

// ---- the ladder, and whole trees ----

class ATree : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, ATree, kBothWays, way_name);

TEST_P(ATree, GoesWholeAtItsDeadline) {
  const auto run = start_it({wall_clock(4s)}, {"children", "4", path("ready")});
  await_file("ready");
  const auto members = hold_members(run);
  ASSERT_THAT(members.size(), Ge(9U)) << "with the children that lead sessions of their own";

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_TRUE(await_all_gone(members, 5s));
  const auto ending = watchdog.events_of(run.id, "ending");
  ASSERT_EQ(ending.size(), 1U);
  EXPECT_EQ(dicts(ending[0], "processes").size(), members.size()) << "what was alive when it was decided";
}

TEST_P(ATree, ThatIgnoresSigtermIsKilledAfterItsGrace) {
  const auto run = start_it({wall_clock(2s), grace(3s)}, {"ignore-term", path("ready")});
  await_file("ready");
  const auto members = hold_members(run);

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_TRUE(flag(end, "escalated"));
  EXPECT_GE(number(end, "duration_usec"), 5'000'000U);
  EXPECT_EQ(watchdog.events_of(run.id, "escalated").size(), 1U);
  EXPECT_TRUE(await_all_gone(members, 5s));
}

TEST_P(ATree, ThatIsGoneEarlyDoesNotWaitForItsGrace) {
  const auto run = start_it({grace(5min)}, {"children", "3", path("ready")});
  await_file("ready");

  ASSERT_EQ(watchdog.kill(run.id).error, "");

  const Dict end = await_end(run);
  EXPECT_THAT(time_in_ending(watchdog, run.id), Lt(20s));
  EXPECT_FALSE(flag(end, "escalated"));
}

TEST_P(ATree, CompletesItsHandlerWithinItsGrace) {
  const auto run = start_it({grace(60s)}, {"handle-term", path("ready"), path("marker"), "1500"});
  await_file("ready");

  ASSERT_EQ(watchdog.kill(run.id).error, "");

  const Dict end = await_end(run);
  EXPECT_EQ(read_file(path("marker")), "entered\ncompleted\n");
  EXPECT_FALSE(flag(end, "escalated"));
  EXPECT_EQ(find_number(end, "exit_code"), 0U) << describe(end);
}

TEST_P(ATree, ThatHasStoppedItselfRunsItsHandlerAndEnds) {
  const auto run = start_it({grace(60s)}, {"stopped", path("ready"), path("marker")});
  await_file("ready");
  ASSERT_TRUE(watchdog.wait_until(
      [&] { return read_file("/proc/" + std::to_string(run.leader) + "/stat").find(") T ") != std::string::npos; }));

  ASSERT_EQ(watchdog.kill(run.id).error, "");

  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "requested");
  EXPECT_EQ(read_file(path("marker")), "entered\ncompleted\n");
  EXPECT_FALSE(flag(end, "escalated"));
}

TEST_P(ATree, ThatIsFrozenRunsItsHandlerAndEnds) {
  const auto run = start_it({grace(60s)}, {"handle-term", path("ready"), path("marker"), "0"});
  await_file("ready");
  const std::string scope = folder_of(run.leader);
  write_file(scope + "/cgroup.freeze", "1");
  ASSERT_TRUE(watchdog.wait_until([&] { return counter_in(scope + "/cgroup.events", "frozen") == 1; }));

  ASSERT_EQ(watchdog.kill(run.id).error, "");

  const Dict end = await_end(run);
  EXPECT_EQ(read_file(path("marker")), "entered\ncompleted\n");
  EXPECT_FALSE(flag(end, "escalated"));
}

TEST_P(ATree, ThatIsAForkBombIsEndedWhole) {
  const auto run = start_it({tasks(60), wall_clock(8s), grace(2s)}, {"fork-bomb"});
  // Kernels before 6.11 count where the fork failed, later ones where the limit is.
  ASSERT_TRUE(watchdog.wait_until([&] {
    return counter_in(run.folder + "/pids.events", "max") + counter_in(scope_folder(run.id) + "/pids.events", "max") >
           0;
  })) << "it never reached its limit";
  EXPECT_THAT(processes_in(run.folder).size(), Lt(61U));
  const auto members = hold_members(run);

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_TRUE(await_all_gone(members, 10s));
}

}  // namespace
}  // namespace aw::stories
