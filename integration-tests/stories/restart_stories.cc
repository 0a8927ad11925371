// SPDX-License-Identifier: Apache-2.0
//
// One daemon after another: what the first began, the next goes on with. It is killed for real, at a chosen system call
// where that matters, and systemd starts the next.
#include <csignal>
#include <filesystem>

#include "base/analysis_id.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Ge;
using ::testing::IsEmpty;
using ::testing::Lt;
using ::testing::SizeIs;

class TheNextDaemon : public Story {
 protected:
  void TearDown() override {
    EXPECT_TRUE(systemctl({"unmask", "--runtime", kSecondNet}));
    EXPECT_TRUE(systemctl({"daemon-reload"}));
    Story::TearDown();
  }

  void await_next_after(pid_t before) {
    ASSERT_TRUE(watchdog.wait_until([&] {
      const pid_t now = daemon_pid(watchdog);
      return now > 0 && now != before && unit_text(watchdog, kDaemonUnit, "ActiveState") == "active";
    }));
  }
  void kill_daemon() {
    const pid_t before = daemon_pid(watchdog);
    ::kill(before, SIGKILL);
    await_next_after(before);
  }
  /// What the ledger has of a run, whoever wrote it.
  std::vector<Dict> on_record(const std::string& id, const std::string& kind) { return watchdog.events_of(id, kind); }

  static constexpr char kSecondNet[] = "analysis-watchdog-once.timer";
};

TEST_F(TheNextDaemon, KeepsTheDeadlinesAndReportsToWhoWaits) {
  const Instant began = monotonic_now();
  auto launched = start(How::kLaunched, new_id("deadline launched"), {wall_clock(15s)}, {"stay"});
  auto registered = start(How::kRegistered, new_id("deadline registered"), {wall_clock(15s)}, {"stay"});

  kill_daemon();

  for (Started* run : {&launched, &registered}) {
    const Dict end = await_end(*run);
    EXPECT_EQ(text(end, "reason"), "wall-clock");
    EXPECT_THAT(number(end, "duration_usec"), Ge(15'000'000U));
    EXPECT_THAT(on_record(run->id, "adopted"), SizeIs(1));
  }
  EXPECT_THAT(monotonic_now() - began, Lt(Span(60s)));
  EXPECT_EQ(launched.process.reap(), 124) << "the launcher did not wait for the next daemon's word";
}

TEST_F(TheNextDaemon, ClosesWhatEndedMeanwhileWithTheTrueReason) {
  auto quick = start(How::kRegistered, new_id("exits meanwhile"), {}, {"stay"});
  auto big = start(How::kLaunched, new_id("oom meanwhile"), {memory_limit(32), headroom(16)},
                   {"leak-on-usr1", path("ready"), "1024", "0"});
  await_file("ready");
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));

  ::kill(quick.leader, SIGTERM);
  ::kill(big.leader, SIGUSR1);
  EXPECT_TRUE(quick.process.reap());
  EXPECT_TRUE(big.process.await_end());
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));

  ASSERT_TRUE(watchdog.wait_until([&] { return on_record(big.id, "ended").size() == 1; }));
  EXPECT_EQ(text(on_record(big.id, "ended").at(0), "reason"), "oom");
  ASSERT_THAT(on_record(quick.id, "ended"), SizeIs(1));
  EXPECT_EQ(text(on_record(quick.id, "ended").at(0), "reason"), "exited");
  EXPECT_TRUE(watchdog.wait_until([&] { return find_units(watchdog, {quick.id, big.id}).empty(); }));
}

TEST_F(TheNextDaemon, ArmsTheTripwireAgain) {
  auto run = start(How::kLaunched, new_id("tripwire again"), {memory_limit(64), headroom(64)},
                   {"leak-on-usr1", path("ready"), "1024", "20"});
  await_file("ready");
  kill_daemon();
  ASSERT_TRUE(watchdog.wait_until([&] { return line_of(run.folder + "/memory.high") == std::to_string(64U << 20U); }));

  ::kill(run.leader, SIGUSR1);

  EXPECT_EQ(text(await_end(run), "reason"), "memory");
}

TEST_F(TheNextDaemon, WatchesWhatNobodyHasOnRecord) {
  const std::string id = new_id("stranger");
  const std::string scope = scope_unit(AnalysisId::parse(id).value());
  const std::string slice = slice_unit(AnalysisId::parse(id).value());
  auto unknown = Child::spawn(
      {"systemd-run", "--scope", "--quiet", "--unit", scope, "--slice", slice, workload_program(), "stay"});
  ASSERT_TRUE(watchdog.wait_until([&] { return !processes_in(slice_folder(id)).empty(); }));

  kill_daemon();

  ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.find(id).has_value(); }));
  ASSERT_THAT(on_record(id, "adopted"), SizeIs(1));
  EXPECT_TRUE(flag(details(on_record(id, "adopted").at(0)), "without_record"));
  EXPECT_TRUE(watchdog.call("KillAnalysis", [&](bus::Message& m) { m.append(id); }).ok());
  await_end(id);
}

TEST_F(TheNextDaemon, EndsAtItsStartWhatBecameOverdueMeanwhile) {
  ASSERT_TRUE(systemctl({"mask", "--runtime", kSecondNet}));  // It would end them first.
  const Instant began = monotonic_now();
  auto launched = start(How::kLaunched, new_id("overdue launched"), {wall_clock(15s), grace(2s)}, {"stay"});
  auto registered = start(How::kRegistered, new_id("overdue registered"), {wall_clock(15s), grace(2s)}, {"stay"});
  const auto members = {Held(launched.leader), Held(registered.leader)};
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));

  // Past the deadline, and well before systemd's backstop, which is 17 s after it.
  const Span away = Span(began + 17s - monotonic_now());
  if (away > Span(0)) watchdog.let_pass(away);
  for (const Held& member : members) EXPECT_TRUE(member.alive()) << "nobody was there to end it";
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  const Instant back = monotonic_now();

  for (Started* run : {&launched, &registered}) {
    const Dict end = await_end(*run);
    EXPECT_EQ(text(end, "reason"), "wall-clock");
    EXPECT_THAT(number(end, "duration_usec"), Ge(16'000'000U)) << "it can't have ended while nobody was there";
  }
  EXPECT_THAT(monotonic_now() - back, Lt(Span(10s))) << "that was systemd's backstop";
  EXPECT_EQ(launched.process.reap(), 124);
}

TEST_F(TheNextDaemon, RecordsWhatSystemdEndedAtItsBackstopAsTheWallClock) {
  ASSERT_TRUE(systemctl({"mask", "--runtime", kSecondNet}));
  auto run = start(How::kRegistered, new_id("backstop"), {wall_clock(2s), grace(1s)}, {"stay"});
  const Held leader(run.leader);
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));

  // 2 s, the grace, and the margin of 15 s by which the daemon would have been first.
  ASSERT_TRUE(watchdog.wait_until([&] { return !leader.alive(); }, 60s)) << "it outlives its limit with no daemon";
  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));

  ASSERT_TRUE(watchdog.wait_until([&] { return on_record(run.id, "ended").size() == 1; }));
  const Dict end = on_record(run.id, "ended").at(0);
  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_TRUE(flag(details(end), "unseen"));
  EXPECT_THAT(number(end, "duration_usec"), Ge(17'000'000U));
}

TEST_F(TheNextDaemon, IsNotOneThatIsStartedBesideIt) {
  auto run = start(How::kLaunched, new_id("of the first"), {wall_clock(1h)}, {"witness", path("letters")});
  ASSERT_TRUE(watchdog.wait_until([&] { return exists(path("letters")); }));
  const pid_t first = daemon_pid(watchdog);
  const std::string executable = std::filesystem::read_symlink("/proc/" + std::to_string(first) + "/exe");
  const std::string tripwire = line_of(run.folder + "/memory.high");
  const std::string ceiling = line_of(run.folder + "/memory.max");

  const auto second = run_command({executable});

  EXPECT_THAT(second.status, ::testing::AllOf(::testing::Ge(1), ::testing::Lt(128))) << "it did not refuse";
  EXPECT_THAT(second.err, ::testing::HasSubstr("(process " + std::to_string(first) + ")"))
      << "it does not say what is in its way";
  EXPECT_EQ(daemon_pid(watchdog), first);
  EXPECT_EQ(line_of(run.folder + "/memory.high"), tripwire) << "the second one lifted the first one's tripwire";
  EXPECT_EQ(line_of(run.folder + "/memory.max"), ceiling);
  EXPECT_EQ(read_file(path("letters")), "");
  EXPECT_EQ(processes_in(run.folder), std::vector<pid_t>{run.leader});
  EXPECT_THAT(on_record(run.id, "adopted"), IsEmpty());
  ASSERT_TRUE(watchdog.kill(run.id).ok()) << "the first one does not answer any more";
  EXPECT_TRUE(watchdog.await_signal("AnalysisEnding", run.id));
  ::kill(run.leader, SIGKILL);  // It only writes down its SIGTERM.
  EXPECT_EQ(text(await_end(run), "reason"), "requested");
}

// ---- Killed at a system call ----

/// The daemon is killed as it makes the nth call of this name after the end of a run has been set going.
struct Point {
  std::string call;
  int nth;
  bool stubborn = false;  ///< the run ignores SIGTERM
  friend void PrintTo(const Point& point, std::ostream* out) {
    *out << point.call << " " << point.nth << (point.stubborn ? " (ignores SIGTERM)" : "");
  }
};

class KilledAt : public TheNextDaemon, public ::testing::WithParamInterface<Point> {};

TEST_P(KilledAt, LosesAndDoublesNoEnd) {
  const Point& point = GetParam();
  auto run = start(How::kLaunched, new_id("killed at"), {grace(2s)},
                   point.stubborn ? Words{"ignore-term", path("ready")} : Words{"stay"});
  if (point.stubborn) await_file("ready");
  const pid_t before = daemon_pid(watchdog);
  const Held daemon(before);
  const std::string log = path("strace.log");
  auto tracer = Child::spawn({"strace", "-f", "-o", log, "-p", std::to_string(before), "-e", "trace=" + point.call,
                              "-e", "inject=" + point.call + ":signal=KILL:when=" + std::to_string(point.nth)});
  ASSERT_TRUE(watchdog.wait_until([&] {
    return read_file("/proc/" + std::to_string(before) + "/status").find("TracerPid:\t0\n") == std::string::npos;
  }));

  const auto killer = Child::spawn({"analysisctl", "kill", run.id});

  ASSERT_TRUE(watchdog.wait_until([&] { return !daemon.alive(); })) << "it never made that call: " << read_file(log);
  await_next_after(before);
  ASSERT_TRUE(watchdog.wait_until([&] { return !on_record(run.id, "ended").empty() || watchdog.find(run.id); }));
  if (watchdog.find(run.id)) (void)run_command({"analysisctl", "kill", run.id});  // It died before it knew of the wish.
  ASSERT_TRUE(watchdog.wait_until([&] { return !on_record(run.id, "ended").empty() && !watchdog.find(run.id); }));
  EXPECT_THAT(on_record(run.id, "ended"), SizeIs(1));
  EXPECT_THAT(on_record(run.id, "ending").size(), ::testing::Le(1U));
  EXPECT_EQ(text(on_record(run.id, "ended").at(0), "reason"), "requested");
  EXPECT_THAT(processes_in(run.folder), IsEmpty());
  EXPECT_TRUE(run.process.reap());
  EXPECT_TRUE(watchdog.wait_until([&] { return find_units(watchdog, run.id).empty(); }));
}

INSTANTIATE_TEST_SUITE_P(, KilledAt,
                         ::testing::Values(Point{"fsetxattr", 1},          // with the intent made, and written nowhere
                                           Point{"pidfd_send_signal", 1},  // between intent and act
                                           Point{"pidfd_send_signal", 2},  // between SIGTERM and SIGCONT
                                           Point{"fsetxattr", 2},          // between act and its note
                                           Point{"pwrite64", 1}, Point{"pwrite64", 2}, Point{"pwrite64", 3},
                                           Point{"pwrite64", 4}, Point{"pwrite64", 5},    // within a commit
                                           Point{"fdatasync", 1}, Point{"fdatasync", 2},  // before it is durable
                                           Point{"pwrite64", 12, true},
                                           Point{"fdatasync", 3, true},    // … of what comes later
                                           Point{"fsetxattr", 3, true}));  // with the grace over, before cgroup.kill

}  // namespace
}  // namespace aw::stories
