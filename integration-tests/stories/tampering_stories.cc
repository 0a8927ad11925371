// SPDX-License-Identifier: Apache-2.0
//
// What others do to a run behind the watchdog's back, and what the host runs out of. Limits come back, who was moved
// out is told of, and what is due is done with what is left.
#include <sys/mount.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/analysis_id.h"
#include "support/manager.h"
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

class Tampering : public Story {
 protected:
  /// Drift is restored within 30 s; an emulated guest gets a little more.
  static constexpr Span kSoon = std::chrono::seconds{45};

  std::vector<Dict> restored(const Started& run) { return watchdog.events_of(run.id, "limits-restored"); }
  bool becomes(const std::string& file, const std::string& value) {
    return watchdog.wait_until([&] { return line_of(file) == value; }, kSoon);
  }
  /// A cgroup that nobody of systemd's or ours knows of.
  static std::string elsewhere() { return "/sys/fs/cgroup" + manager_cgroup() + "/elsewhere"; }
  static std::string mib(std::uint64_t count) { return std::to_string(count << 20U); }
};

TEST_F(Tampering, WithALimitsFileIsUndoneAndReported) {
  const auto run = start(How::kLaunched, new_id("by hand"), {memory_limit(64), headroom(64), tasks(100)}, {"stay"});

  write_file(run.folder + "/memory.max", "max");
  write_file(run.folder + "/memory.high", "max");
  write_file(run.folder + "/pids.max", "max");

  EXPECT_TRUE(becomes(run.folder + "/memory.max", mib(128)));
  EXPECT_TRUE(becomes(run.folder + "/memory.high", mib(64)));
  EXPECT_TRUE(becomes(run.folder + "/pids.max", "100"));
  ASSERT_TRUE(watchdog.wait_until([&] { return !restored(run).empty(); }));
  const Dict what = details(restored(run).back());
  EXPECT_EQ(text(what, "memory.max_before"), "max") << describe(restored(run).back());
  EXPECT_EQ(text(what, "memory.max"), mib(128));
}

TEST_F(Tampering, ThroughSystemdIsUndoneForGood) {
  const auto run = start(How::kLaunched, new_id("by systemctl"), {memory_limit(64), headroom(64)}, {"stay"});
  const std::string slice = slice_unit(AnalysisId::parse(run.id).value());

  ASSERT_TRUE(systemctl({"set-property", "--runtime", slice, "MemoryMax=infinity", "MemoryHigh=infinity"}));

  EXPECT_TRUE(becomes(run.folder + "/memory.max", mib(128)));
  EXPECT_TRUE(becomes(run.folder + "/memory.high", mib(64)));
  ASSERT_TRUE(systemctl({"daemon-reload"}));
  EXPECT_EQ(line_of(run.folder + "/memory.max"), mib(128));
  EXPECT_EQ(unit_number(watchdog, slice, "MemoryMax"), 128U << 20U);
}

TEST_F(Tampering, WithTheKindOfItsOomKillIsUndone) {
  const auto run = start(How::kLaunched, new_id("oom group"), {memory_limit(64)}, {"stay"});
  const std::string file = scope_folder(run.id) + "/memory.oom.group";
  ASSERT_EQ(line_of(file), "1");

  write_file(file, "0");

  EXPECT_TRUE(becomes(file, "1"));
}

TEST_F(Tampering, SoThatATreeCouldGrowEndsItInTheOrderlyWay) {
  auto run = start(How::kLaunched, new_id("grown"), {memory_limit(48), headroom(16)},
                   {"leak-on-usr1", path("ready"), "1024", "5", path("told")});
  await_file("ready");
  write_file(run.folder + "/memory.high", "max");
  write_file(run.folder + "/memory.max", "max");
  ::kill(run.leader, SIGUSR1);

  EXPECT_EQ(text(await_end(run), "reason"), "memory");
  EXPECT_TRUE(exists(path("told"))) << "it got no SIGTERM";
}

TEST_F(Tampering, IsNotWhatSystemdDoesItself) {
  std::vector<Started> runs;
  runs.push_back(start(How::kRegistered, new_id("reload all"),
                       {memory_limit(64),
                        tasks(50),
                        {"CPUQuotaPerSecUSec", {std::uint64_t{250'000}}},
                        {"CPUWeight", {std::uint64_t{50}}}},
                       {"stay"}));
  runs.push_back(start(How::kRegistered, new_id("reload odd"),
                       {memory_limit(63), {"CPUQuotaPerSecUSec", {std::uint64_t{30'000}}}}, {"stay"}));
  runs.push_back(start(How::kLaunched, new_id("reload none"), {{"MemoryLimit", {UINT64_MAX}}}, {"stay"}));

  for (int i = 0; i < 5; ++i) ASSERT_TRUE(systemctl({"daemon-reload"}));
  ASSERT_TRUE(systemctl({"daemon-reexec"}));
  watchdog.let_pass(20s);

  for (const Started& run : runs) EXPECT_THAT(restored(run), IsEmpty()) << describe(restored(run)[0]);
}

TEST_F(Tampering, WithTheUnitsOfARunTakesNoLimitAway) {
  const auto run = start(How::kLaunched, new_id("lost unit"), {memory_limit(64), headroom(64)}, {"stay"});
  const AnalysisId id = AnalysisId::parse(run.id).value();
  // What a transient unit is made of is in these; without them a reload forgets it.
  std::filesystem::remove(transient_folder() + "/" + slice_unit(id));
  std::filesystem::remove(transient_folder() + "/" + scope_unit(id));

  ASSERT_TRUE(systemctl({"daemon-reload"}));

  EXPECT_TRUE(becomes(run.folder + "/memory.high", mib(64)));
  EXPECT_TRUE(becomes(run.folder + "/memory.max", mib(128)));
  EXPECT_THAT(processes_in(run.folder), SizeIs(1));
  EXPECT_TRUE(watchdog.kill(run.id).ok());
  EXPECT_EQ(text(await_end(run), "reason"), "requested");
}

// ---- processes that are moved away ----

TEST_F(Tampering, ByMovingAProcessOutIsReported) {
  const auto run = start(How::kLaunched, new_id("robbed"), {}, {"parent", path("child"), "stay"});
  const auto child = static_cast<pid_t>(std::stol(await_file("child")));
  const Held held(child);
  watchdog.let_pass(6s);  // It was seen in the run: nobody can tell of whom nobody knew.

  std::filesystem::create_directory(elsewhere());
  write_file(elsewhere() + "/cgroup.procs", std::to_string(child));

  const auto escaped = watchdog.await_event(run.id, "escaped");
  ASSERT_TRUE(escaped);
  EXPECT_EQ(number(*escaped, "pid"), static_cast<std::uint64_t>(child));
  EXPECT_EQ(text(details(*escaped), "cgroup"), manager_cgroup() + "/elsewhere");
  EXPECT_TRUE(watchdog.kill(run.id).ok());
  await_end(run);
  EXPECT_TRUE(held.alive()) << "who is in another's cgroup is not ours to kill";
  ::kill(child, SIGKILL);
  ASSERT_TRUE(watchdog.wait_until([&] { return !held.alive(); }));
  std::filesystem::remove(elsewhere());
}

TEST_F(Tampering, ByMovingTheLeaderOutEndsTheRunAndNobody) {
  auto run = start(How::kRegistered, new_id("leader robbed"), {}, {"stay"});
  watchdog.let_pass(6s);
  std::filesystem::create_directory(elsewhere());
  write_file(elsewhere() + "/cgroup.procs", std::to_string(run.leader));

  const Dict end = await_end(run.id);

  EXPECT_EQ(text(end, "reason"), "external") << describe(end);
  EXPECT_EQ(text(details(end), "moved_to"), manager_cgroup() + "/elsewhere");
  EXPECT_EQ(::kill(run.leader, 0), 0);
  ::kill(run.leader, SIGKILL);
  (void)run.process.reap();
  std::filesystem::remove(elsewhere());
}

// ---- what the host runs out of ----

TEST_F(Tampering, InotifyWatchesThatAreUsedUpAreDoneWithout) {
  constexpr char kMost[] = "/proc/sys/fs/inotify/max_user_watches";
  if (is_users()) GTEST_SKIP() << "it needs root to set " << kMost;
  const std::string most = line_of(kMost);
  write_file(kMost, "1");
  auto leaking = start(How::kLaunched, new_id("unwatched leak"), {memory_limit(48), headroom(64)},
                       {"leak-on-usr1", path("ready"), "256", "20"});
  auto exiting = start(How::kLaunched, new_id("unwatched exit"), {}, {"exit", "3"});
  EXPECT_EQ(text(await_end(exiting), "reason"), "exited");
  await_file("ready");
  ::kill(leaking.leader, SIGUSR1);
  EXPECT_EQ(text(await_end(leaking), "reason"), "memory");
  write_file(kMost, most);
}

TEST_F(Tampering, DescriptorsThatAreUsedUpAreKeptForWhatIsDue) {
  const pid_t daemon = daemon_pid(watchdog);
  const auto overdue = start(How::kLaunched, new_id("overdue, no descriptors"), {wall_clock(25s), grace(2s)},
                             {"ignore-term", path("term")});
  await_file("term");
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator("/proc/" + std::to_string(daemon) + "/fd"), {});
  };
  // The files that a run's samples are read from are opened with the first one, and kept. Two are left: for the pidfd
  // of a call, and for the copy of it.
  auto open = count();
  ASSERT_TRUE(watchdog.wait_until([&, since = monotonic_now()]() mutable {
    if (const auto now = count(); now != open) {
      open = now;
      since = monotonic_now();
    }
    return monotonic_now() - since > 4s;
  }));
  const auto limited = run_command({"prlimit", "--pid", std::to_string(daemon),
                                    "--nofile=" + std::to_string(open + 2) + ":" + std::to_string(open + 66)});
  ASSERT_EQ(limited.status, 0) << limited.err;

  const auto refused = run_command({"analysis-run", "--", "true"});
  EXPECT_EQ(refused.status, 125);
  EXPECT_THAT(refused.err, HasSubstr("open files")) << "it does not say what is missing";
  const Dict end = await_end(overdue);

  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_TRUE(flag(end, "escalated"));
  ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
  ASSERT_TRUE(await_daemon());
}

/// A file system that is frozen lets a writer sleep where no signal reaches it.
class AHungDisk : public Tampering {
 protected:
  void SetUp() override {
    if (is_users()) GTEST_SKIP() << "it needs root to mount and to freeze a file system";
    Tampering::SetUp();
    const auto made =
        run_command({"sh", "-c",
                     "truncate -s 64M " + path("disk") + " && mkfs.ext4 -q " + path("disk") + " && mkdir -p " +
                         path("mnt") + " && mount -o loop " + path("disk") + " " + path("mnt")});
    ASSERT_EQ(made.status, 0) << made.err;
  }
  void TearDown() override {
    if (is_users()) return;
    thaw();
    (void)run_command({"umount", path("mnt")});
    Tampering::TearDown();
  }
  void freeze() {
    ASSERT_EQ(run_command({"fsfreeze", "--freeze", path("mnt")}).status, 0);
    frozen_ = true;
  }
  void thaw() {
    if (!std::exchange(frozen_, false)) return;
    EXPECT_EQ(run_command({"fsfreeze", "--unfreeze", path("mnt")}).status, 0);
  }

 private:
  bool frozen_ = false;
};

TEST_F(AHungDisk, MakesItsWriterUnkillableAndHoldsUpNobodyElse) {
  auto writer = start_program(How::kRegistered, new_id("writer"), {wall_clock(15s), grace(1s)},
                              {"sh", "-c", "while :; do date >> " + path("mnt/log") + "; sleep 0.1; done"});
  freeze();

  const auto unkillable = watchdog.await_event(writer.id, "unkillable");
  ASSERT_TRUE(unkillable);
  const Dict why = details(*unkillable);
  const bool waits = std::any_of(why.begin(), why.end(), [](const auto& detail) {
    const auto* channel = detail.second.template get_if<std::string>();
    return detail.first.starts_with("wait_channel_") && channel != nullptr && !channel->empty();
  });
  EXPECT_TRUE(waits) << describe(*unkillable);
  EXPECT_EQ(text(watchdog.find(writer.id).value_or(Dict{}), "State"), "unkillable");
  const auto other = start(How::kLaunched, new_id("beside it"), {wall_clock(1s)}, {"stay"});
  EXPECT_EQ(text(await_end(other), "reason"), "wall-clock");
  thaw();

  EXPECT_EQ(text(await_end(writer), "reason"), "wall-clock");
}

}  // namespace
}  // namespace aw::stories
