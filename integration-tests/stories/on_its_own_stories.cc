// SPDX-License-Identifier: Apache-2.0
//
// What the daemon leans on goes away or does not answer: the bus, PID 1, its own ledger thread, the daemon itself. What
// is due is done all the same.
#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/analysis_id.h"
#include "support/ledger.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Eq;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Lt;
using ::testing::Ne;
using ::testing::SizeIs;

constexpr char kDaemon[] = "/usr/sbin/analysis-watchdogd";

class OnItsOwn : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    daemon_ = daemon_pid(watchdog);
  }
  void TearDown() override {
    if (!drop_in_.empty()) {
      std::filesystem::remove_all(drop_in_);
      EXPECT_TRUE(systemctl({"daemon-reload"}));
      EXPECT_TRUE(systemctl({"restart", kDaemonUnit}));
    }
    Story::TearDown();
  }

  /// Settings of the daemon's unit for this story; the daemon is started anew with them.
  void configure_unit(const std::string& lines) {
    drop_in_ = "/run/systemd/system/analysis-watchdogd.service.d";
    std::filesystem::create_directories(drop_in_);
    write_file(drop_in_ + "/story.conf", lines);
    ASSERT_TRUE(systemctl({"daemon-reload"}));
    ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
    daemon_ = daemon_pid(watchdog);
  }
  static std::string state_of(const std::string& unit) {
    const std::string word = run_command({"systemctl", "is-active", unit}).out;
    return word.substr(0, word.find('\n'));
  }
  /// One of the daemon's threads; 0 if it has none of that name.
  pid_t thread_named(const std::string& name) const {
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(daemon_) + "/task")) {
      if (read_file(task.path() / "comm") == name + "\n") return std::stoi(task.path().filename());
    }
    return 0;
  }
  /// Not through the bus.
  static bool await_gone(const std::string& folder, Span patience) {
    const Instant until = monotonic_now() + patience;
    while (!processes_in(folder).empty()) {
      if (monotonic_now() > until) return false;
      (void)run_command({"sleep", "0.05"});
    }
    return true;
  }
  std::vector<Dict> ends_of(const std::string& id) { return watchdog.events_of(id, "ended"); }
  /// Of a run whose end nobody could be told of.
  std::string reason_on_record(const Started& run) {
    EXPECT_TRUE(watchdog.wait_until([&] { return !ends_of(run.id).empty(); })) << run.id << " has not ended";
    const auto ends = ends_of(run.id);
    EXPECT_THAT(ends, SizeIs(1));
    return ends.empty() ? "" : text(ends[0], "reason");
  }

  pid_t daemon_ = 0;

 private:
  std::string drop_in_;
};

// ---- the bus ----

/// A bus of its own life: stopped and started by systemctl, which needs none.
class WithoutABus : public OnItsOwn {
 protected:
  void TearDown() override {
    bring_bus_back();
    OnItsOwn::TearDown();
  }
  void take_bus_away() {
    ASSERT_TRUE(systemctl({"stop", "dbus.socket", "dbus.service"}));
    away_ = true;
  }
  void bring_bus_back() {
    if (!std::exchange(away_, false)) return;
    ASSERT_TRUE(systemctl({"start", "dbus.socket", "dbus.service"}));
    ASSERT_TRUE(watchdog.reconnect());
    // It is active all the time; that it has its name again is what counts.
    ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.call("ListAnalyses").ok(); }));
  }

 private:
  bool away_ = false;
};

TEST_F(WithoutABus, WhatIsDueIsDone) {
  auto overdue = start(How::kRegistered, new_id("overdue without a bus"), {wall_clock(8s), grace(1s)}, {"stay"});
  auto leaking = start(How::kRegistered, new_id("leaking without a bus"), {memory_limit(32), headroom(64)},
                       {"leak-on-usr1", path("ready"), "64", "20"});
  await_file("ready");
  const Instant began = monotonic_now();
  take_bus_away();

  ::kill(leaking.leader, SIGUSR1);
  EXPECT_TRUE(await_gone(leaking.folder, kPatience)) << "a breach waits for the bus";
  EXPECT_TRUE(await_gone(overdue.folder, kPatience)) << "a deadline waits for the bus";
  EXPECT_THAT(monotonic_now() - began, Lt(Span(20s))) << "that was systemd's backstop";
  bring_bus_back();

  EXPECT_EQ(daemon_pid(watchdog), daemon_) << "it was started anew";
  EXPECT_EQ(reason_on_record(leaking), "memory");
  EXPECT_EQ(reason_on_record(overdue), "wall-clock");
}

TEST_F(WithoutABus, ThatComesBackItServesAgain) {
  for (int i = 0; i < 3; ++i) {
    take_bus_away();
    bring_bus_back();
  }
  ASSERT_EQ(daemon_pid(watchdog), daemon_);

  for (const How how : {How::kLaunched, How::kRegistered}) {
    const auto run = start(how, new_id("after the bus " + to_string(how)), {wall_clock(1s)}, {"stay"});
    EXPECT_EQ(text(await_end(run), "reason"), "wall-clock");
  }
  // Nobody on the new bus is taken for who had that name on the old one.
  const auto refused = run_as("nobody", {"analysisctl", "kill", "bystander"});
  EXPECT_THAT(refused.status, Ne(0));
}

TEST_F(WithoutABus, ADaemonThatStartsWatchesAllTheSame) {
  auto run = start(How::kRegistered, new_id("adopted without a bus"), {wall_clock(10s), grace(1s)}, {"stay"});
  const Instant began = monotonic_now();
  take_bus_away();
  ::kill(daemon_, SIGKILL);

  EXPECT_TRUE(await_gone(run.folder, kPatience));
  EXPECT_THAT(monotonic_now() - began, Lt(Span(22s))) << "that was systemd's backstop";
  bring_bus_back();

  EXPECT_THAT(daemon_pid(watchdog), Ne(daemon_));
  EXPECT_EQ(reason_on_record(run), "wall-clock");
  EXPECT_THAT(watchdog.events_of(run.id, "adopted"), SizeIs(1));
}

// ---- PID 1 ----

TEST_F(OnItsOwn, WithADeafPid1IsOneLikeAnyOther) {
  auto overdue = start(How::kRegistered, new_id("overdue, pid 1 deaf"), {wall_clock(15s), grace(1s)}, {"stay"});
  auto leaking = start(How::kRegistered, new_id("leaking, pid 1 deaf"), {memory_limit(32), headroom(64)},
                       {"leak-on-usr1", path("ready"), "64", "20"});
  await_file("ready");
  {
    // Each look of PID 1 at what has come is put off.
    const auto deaf = Child::spawn({"strace", "-qq", "-o", "/dev/null", "-p", "1", "-e", "trace=epoll_wait", "-e",
                                    "inject=epoll_wait:delay_enter=30000000"});
    const Instant began = monotonic_now();
    ::kill(leaking.leader, SIGUSR1);
    EXPECT_TRUE(await_gone(leaking.folder, 20s)) << "a breach waits for PID 1";
    EXPECT_TRUE(await_gone(overdue.folder, 25s)) << "a deadline waits for PID 1";
    EXPECT_THAT(monotonic_now() - began, Lt(Span(28s)));
  }
  EXPECT_EQ(text(await_end(leaking), "reason"), "memory");
  EXPECT_EQ(text(await_end(overdue), "reason"), "wall-clock");
}

// ---- the daemon itself ----

TEST_F(OnItsOwn, ALedgerThreadThatHangsIsNoticedByTheWatchdog) {
  configure_unit("[Service]\nWatchdogSec=8s\nTimeoutAbortSec=2s\n");
  auto run = start(How::kRegistered, new_id("hanging ledger"), {wall_clock(1h)}, {"stay"});
  const auto holder = spawn_workload({"hang", std::to_string(thread_named("ledger")), path("hangs")});
  await_file("hangs");
  (void)watchdog.extend(run.id, 1'000'000);  // Something to be written.

  ASSERT_TRUE(watchdog.wait_until([&] {
    const pid_t now = daemon_pid(watchdog);
    return now > 0 && now != daemon_ && state_of(kDaemonUnit) == "active";
  }));

  EXPECT_THAT(unit_text(watchdog, kDaemonUnit, "NRestarts"), Ne("0"));
  ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.find(run.id).has_value(); }));
  EXPECT_TRUE(watchdog.kill(run.id).ok());
  EXPECT_EQ(text(await_end(run), "reason"), "requested");
}

TEST_F(OnItsOwn, AnEndThatOnlyTheLedgerHasIsInTheJournalAfterARestart) {
  // The slice of an end stays some seconds for a journal that is late: where the machine was slower, nothing is shown.
  for (int attempt = 1;; ++attempt) {
    daemon_ = daemon_pid(watchdog);
    const std::string mark = "hangs " + std::to_string(attempt);
    auto released = start(How::kRegistered, new_id("let go"), {wall_clock(1h)}, {"stay"});
    auto killed = start(How::kRegistered, new_id("ended"), {wall_clock(1h)}, {"stay"});
    const auto holder = spawn_workload({"hang", std::to_string(thread_named("journal")), path(mark)});
    await_file(mark);
    ASSERT_TRUE(watchdog.unregister(released.id).ok());
    ASSERT_TRUE(watchdog.kill(killed.id).ok());
    std::vector<std::string> events;
    ASSERT_TRUE(watchdog.wait_until([&] {
      events.clear();
      for (const auto& [run, kind] : {std::pair(&released, "unregistered"), std::pair(&killed, "ended")}) {
        for (const auto& event : read_ledger("registered_as = '" + run->id + "' AND kind = '" + kind + "'")) {
          events.push_back(event.at("event_id"));
        }
      }
      return events.size() == 2;
    }));
    ::kill(daemon_, SIGKILL);
    const bool in_time = std::filesystem::exists(released.folder) && std::filesystem::exists(killed.folder);
    ASSERT_TRUE(watchdog.wait_until([&] {
      const pid_t now = daemon_pid(watchdog);
      return now > 0 && now != daemon_ && state_of(kDaemonUnit) == "active";
    }));
    ASSERT_TRUE(await_daemon());
    if (!in_time && attempt < 5) continue;
    ASSERT_TRUE(in_time) << "the slices are never there long enough";
    for (const std::string& event : events) {
      EXPECT_TRUE(watchdog.wait_until([&] { return !find_journal_records("ANALYSIS_EVENT_ID", event).empty(); }));
      EXPECT_THAT(find_journal_records("ANALYSIS_EVENT_ID", event), SizeIs(1));
    }
    return;
  }
}

TEST_F(OnItsOwn, ADaemonThatIsDoingWellIsFed) {
  configure_unit("[Service]\nWatchdogSec=4s\n");
  watchdog.let_pass(10s);
  EXPECT_EQ(daemon_pid(watchdog), daemon_);
}

// ---- the second net ----

TEST_F(OnItsOwn, WhenTheDaemonIsDownSomebodyPassesBy) {
  forget_bystander();
  EXPECT_EQ(state_of("analysis-watchdog-once.timer"), "inactive");
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  EXPECT_EQ(state_of("analysis-watchdog-once.timer"), "active");
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  EXPECT_EQ(state_of("analysis-watchdog-once.timer"), "inactive");
  ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
  EXPECT_EQ(state_of(kDaemonUnit), "active");
  EXPECT_EQ(state_of("analysis-watchdog-once.timer"), "inactive");
  ASSERT_TRUE(await_daemon());

  // Its grace is so long that systemd's backstop comes much later.
  auto run = start(How::kRegistered, new_id("passed by"), {wall_clock(15s), grace(3min)}, {"stay"});
  auto other = start(How::kRegistered, new_id("not due"), {wall_clock(1h)}, {"stay"});
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  EXPECT_TRUE(await_gone(run.folder, kPatience)) << "nobody came";
  EXPECT_THAT(processes_in(other.folder), SizeIs(1));
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  ASSERT_TRUE(await_daemon());

  EXPECT_EQ(reason_on_record(run), "wall-clock");
  // As an operator would, who comes now.
  const auto killed = run_command({"analysisctl", "kill", other.id});
  EXPECT_EQ(killed.status, 0) << killed.err;
  const auto kinds_of = [&](const std::string& kind) {
    return run_command({"analysisctl", "events", "--no-legend", "--id=" + other.id, "--kind=" + kind}).out;
  };
  EXPECT_TRUE(watchdog.wait_until([&] { return !kinds_of("ended").empty(); }));
  EXPECT_THAT(kinds_of("ended"), HasSubstr("requested"));
  const std::string adopted = kinds_of("adopted");
  EXPECT_EQ(std::count(adopted.begin(), adopted.end(), '\n'), 1) << "who passes by is no news: " << adopted;
}

TEST_F(OnItsOwn, OnePassSaysWhatItDidAndHoldsNobodyAtATripwire) {
  forget_bystander();
  ASSERT_TRUE(systemctl({"mask", "--runtime", "analysis-watchdog-once.timer"}));
  auto overdue = start(How::kRegistered, new_id("once overdue"), {wall_clock(15s), grace(3min)}, {"stay"});
  auto live = start(How::kRegistered, new_id("once live"), {memory_limit(64)}, {"stay"});
  const Instant due = monotonic_now() + 15s;
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  ASSERT_THAT(processes_in(overdue.folder), SizeIs(1));
  while (monotonic_now() < due) (void)run_command({"sleep", "0.2"});

  const auto pass = run_command({kDaemon, "--once"});

  EXPECT_EQ(pass.status, 0) << pass.err;
  EXPECT_THAT(pass.err, HasSubstr(overdue.id));
  EXPECT_THAT(pass.err, HasSubstr("1 analyses ended"));
  EXPECT_THAT(processes_in(overdue.folder), IsEmpty());
  EXPECT_THAT(processes_in(live.folder), SizeIs(1));
  EXPECT_EQ(line_of(live.folder + "/memory.high"), "max");
  EXPECT_THAT(line_of(live.folder + "/memory.max"), Ne("max"));
  ASSERT_TRUE(systemctl({"unmask", "--runtime", "analysis-watchdog-once.timer"}));
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  ASSERT_TRUE(await_daemon());
  EXPECT_EQ(reason_on_record(overdue), "wall-clock");
  ASSERT_TRUE(watchdog.wait_until([&] { return line_of(live.folder + "/memory.high") == std::to_string(64U << 20U); }));
  EXPECT_TRUE(watchdog.kill(live.id).ok());
  await_end(live);
}

TEST_F(OnItsOwn, BesideTheDaemonThereIsNothingToDo) {
  const auto pass = run_command({kDaemon, "--once"});

  EXPECT_EQ(pass.status, 0);
  EXPECT_THAT(pass.err, HasSubstr("(process " + std::to_string(daemon_) + ")"));
  EXPECT_EQ(daemon_pid(watchdog), daemon_);
}

// ---- hosts that can't serve ----

TEST_F(OnItsOwn, OnAHostWhereCgroupsCannotBeWrittenItRefuses) {
  const auto refused =
      run_command({"unshare", "--mount", "sh", "-c",
                   std::string("mount -o remount,bind,ro /sys/fs/cgroup /sys/fs/cgroup && exec ") + kDaemon});

  EXPECT_EQ(refused.status, 78);
  EXPECT_THAT(refused.err, HasSubstr("cgroups cannot be written"));
  EXPECT_THAT(refused.err, HasSubstr("ProtectControlGroups="));
}

TEST_F(OnItsOwn, OnAHostWithCgroupV1ItRefuses) {
  const auto refused = run_command(
      {"unshare", "--mount", "sh", "-c", std::string("mount -t tmpfs none /sys/fs/cgroup && exec ") + kDaemon});

  EXPECT_EQ(refused.status, 78);
  EXPECT_THAT(refused.err, HasSubstr("systemd.unified_cgroup_hierarchy=1"));
}

}  // namespace
}  // namespace aw::stories
