// SPDX-License-Identifier: Apache-2.0
//
// The daemon away: killed, stopped, started again. The limits hold, and the analyses are left alone. That is so without
// the second net too (analysis-watchdog-once.timer), which has stories of its own.
#include <csignal>
#include <filesystem>

#include "base/analysis_id.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Ge;
using ::testing::Lt;

class TheDaemon : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    forget_bystander();
    std::filesystem::create_directories(kDropInFolder);
    write_file(std::string(kDropInFolder) + "/story.conf", "[Service]\nRestart=no\n");
    ASSERT_TRUE(systemctl({"mask", "--runtime", kSecondNet}));
    ASSERT_TRUE(systemctl({"daemon-reload"}));
  }

  void TearDown() override {
    std::filesystem::remove_all(kDropInFolder);
    EXPECT_TRUE(systemctl({"unmask", "--runtime", kSecondNet}));
    EXPECT_TRUE(systemctl({"daemon-reload"}));
    (void)run_command({"systemctl", "reset-failed", kDaemonUnit});
    EXPECT_TRUE(systemctl({"start", kDaemonUnit}));
    Story::TearDown();
  }

  /// From here on no story may call the watchdog's name: the bus would start it.
  void kill_daemon() {
    const pid_t pid = daemon_pid(watchdog);
    ASSERT_GT(pid, 0);
    ::kill(pid, SIGKILL);
    ASSERT_TRUE(watchdog.wait_until([&] { return unit_text(watchdog, kDaemonUnit, "ActiveState") == "failed"; }));
  }

  bool await_gone(const std::vector<Held>& processes) { return await_all_gone(processes, 3min); }

  static constexpr char kDropInFolder[] = "/run/systemd/system/analysis-watchdogd.service.d";
  static constexpr char kSecondNet[] = "analysis-watchdog-once.timer";
};

TEST_F(TheDaemon, KilledLeavesTheMemoryCeilingInForce) {
  std::vector<Started> runs;
  std::vector<pid_t> leakers;
  std::vector<std::vector<Held>> trees;
  for (const How how : {How::kLaunched, How::kRegistered}) {
    const std::string name = to_string(how);
    runs.push_back(start(how, new_id("ceiling " + name), {memory_limit(32), headroom(16)},
                         {"parent", path("child " + name), "leak-on-usr1", path("ready " + name), "1024", "0"}));
    leakers.push_back(static_cast<pid_t>(std::stol(await_file("child " + name))));
    await_file("ready " + name);
    trees.push_back(hold_members(runs.back()));
    ASSERT_EQ(trees.back().size(), 2U);
  }
  kill_daemon();

  for (const pid_t pid : leakers) ::kill(pid, SIGUSR1);

  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_TRUE(await_gone(trees[i])) << runs[i].id << " is held at its tripwire, or only a part was killed";
    EXPECT_GT(counter_in(runs[i].folder + "/memory.events", "oom_kill"), 0U);
    EXPECT_EQ(line_of(runs[i].folder + "/memory.max"), std::to_string(48U << 20U));
  }
  EXPECT_EQ(runs[0].process.reap(), 128 + SIGKILL) << "the launcher passes on what it saw";
  EXPECT_TRUE(runs[1].process.reap());
  for (const Started& run : runs) {
    (void)run_command({"systemctl", "stop", slice_unit(AnalysisId::parse(run.id).value())});
  }
}

TEST_F(TheDaemon, KilledLeavesTheWallClockToSystemd) {
  std::vector<Started> runs;
  std::vector<std::vector<Held>> trees;
  const Instant began = monotonic_now();
  for (const How how : {How::kLaunched, How::kRegistered}) {
    runs.push_back(start(how, new_id("backstop " + to_string(how)), {wall_clock(6s), grace(2s)}, {"stay"}));
    trees.push_back(hold_members(runs.back()));
    ASSERT_EQ(trees.back().size(), 1U);
  }
  kill_daemon();

  for (const auto& tree : trees) EXPECT_TRUE(await_gone(tree));

  // The limit, the grace, and the margin by which the daemon would have been first.
  EXPECT_THAT(monotonic_now() - began, Ge(Span(22s)));
  EXPECT_THAT(monotonic_now() - began, Lt(Span(60s)));
  for (Started& run : runs) {
    EXPECT_TRUE(run.process.reap());
    (void)run_command({"systemctl", "stop", slice_unit(AnalysisId::parse(run.id).value())});
  }
}

TEST_F(TheDaemon, WorksAgainAfterItWasKilled) {
  kill_daemon();

  ASSERT_TRUE(systemctl({"reset-failed", kDaemonUnit}));
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));

  for (const How how : {How::kLaunched, How::kRegistered}) {
    const auto run = start(how, new_id("afterwards " + to_string(how)), {wall_clock(1s)}, {"stay"});
    EXPECT_EQ(text(await_end(run), "reason"), "wall-clock");
  }
}

TEST_F(TheDaemon, ServesManyAtOnceRightAfterItsStart) {
  ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));

  const auto all = run_command({"sh", "-c",
                                "for i in $(seq 20); do analysis-run -- true & pids=\"$pids $!\"; done; "
                                "for pid in $pids; do wait $pid || exit 1; done"});

  EXPECT_EQ(all.status, 0) << all.err;
}

TEST_F(TheDaemon, KilledIsStartedAgainBySystemd) {
  std::filesystem::remove_all(kDropInFolder);
  ASSERT_TRUE(systemctl({"daemon-reload"}));
  const pid_t before = daemon_pid(watchdog);

  ::kill(before, SIGKILL);

  EXPECT_TRUE(watchdog.wait_until([&] {
    const pid_t now = daemon_pid(watchdog);
    return now > 0 && now != before && unit_text(watchdog, kDaemonUnit, "ActiveState") == "active";
  }));
}

TEST_F(TheDaemon, StoppedAndStartedLeavesAnalysesUntouched) {
  std::vector<Started> runs;
  std::vector<Held> members;
  for (const How how : {How::kLaunched, How::kRegistered}) {
    const std::string letters = path("letters " + to_string(how));
    runs.push_back(start(how, new_id("untouched " + to_string(how)), {wall_clock(1h)}, {"witness", letters}));
    ASSERT_TRUE(watchdog.wait_until([&] { return exists(letters); }));
    members.emplace_back(runs.back().leader);
  }

  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  EXPECT_EQ(unit_text(watchdog, kDaemonUnit, "ActiveState"), "inactive") << "it did not stop cleanly";
  for (const Held& member : members) EXPECT_TRUE(member.alive());
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));

  watchdog.let_pass(3s);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_TRUE(members[i].alive()) << runs[i].id;
    EXPECT_EQ(read_file(path("letters " + to_string(runs[i].how))), "") << "it got signals";
    EXPECT_EQ(processes_in(runs[i].folder), std::vector<pid_t>{members[i].pid()});
  }
  for (Started& run : runs) {
    ::kill(run.leader, SIGKILL);
    EXPECT_TRUE(run.process.reap());
    (void)run_command({"systemctl", "stop", slice_unit(AnalysisId::parse(run.id).value())});
  }
}

TEST_F(TheDaemon, KeepsTheNamesOfRunsThatItFound) {
  const auto run = start(How::kRegistered, new_id("taken"), {}, {"stay"});
  const Held leader(run.leader);
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  const Child other = spawn_workload({"stay"});

  const auto refused = watchdog.register_process(run.id, static_cast<std::uint32_t>(other.pid()));

  EXPECT_EQ(refused.error, names::error::kAlreadyRegistered) << refused.message;
  EXPECT_TRUE(leader.alive()) << "somebody else's registration has ended it";
  EXPECT_EQ(processes_in(run.folder), std::vector<pid_t>{run.leader});
  (void)run_command({"systemctl", "stop", slice_unit(AnalysisId::parse(run.id).value())});
}

}  // namespace
}  // namespace aw::stories
