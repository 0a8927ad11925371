// SPDX-License-Identifier: Apache-2.0
//
// Memory: a warning before the ceiling, the ceiling for those who can't be warned, and page cache is no crime.
#include <fcntl.h>

#include <csignal>
#include <cstdio>
#include <filesystem>

#include "support/manager.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Gt;
using ::testing::Lt;

constexpr std::uint64_t kMiB = 1U << 20U;

class ALeak : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, ALeak, kBothWays, way_name);

TEST_P(ALeak, GetsSigtermBeforeItsCeilingAndCompletesItsHandler) {
  const auto run = start_it({memory_limit(48), headroom(32), grace(60s)}, {"leak", "256", "5", path("marker"), "500"});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "memory");
  EXPECT_EQ(read_file(path("marker")), "entered\ncompleted\n");
  EXPECT_FALSE(flag(end, "escalated"));
  EXPECT_LT(number(end, "memory_peak_bytes"), 80 * kMiB);
  EXPECT_EQ(number(details(end), "memory_events_oom_kill"), 0U) << describe(end);
  const auto ending = watchdog.events_of(run.id, "ending");
  ASSERT_EQ(ending.size(), 1U);
  EXPECT_THAT(number(ending[0], "memory_bytes"), Gt(40 * kMiB));
  EXPECT_THAT(number(ending[0], "memory_bytes"), Lt(60 * kMiB));
}

TEST_P(ALeak, TakesItsWholeTreeWithIt) {
  const auto run =
      start_it({memory_limit(48), grace(5s)}, {"parent", path("child"), "parent", path("grandchild"), "leak"});
  await_file("grandchild");
  const auto members = hold_members(run);

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "memory");
  EXPECT_TRUE(await_all_gone(members, 5s));
}

TEST_P(ALeak, ThatTheKernelEndsAtTheCeilingIsAnOom) {
  const auto run =
      start_it({memory_limit(48), headroom(0)}, {"parent", path("child"), "leak-on-usr1", path("ready"), "4096", "0"});
  const auto child = static_cast<pid_t>(std::stol(await_file("child")));
  await_file("ready");
  const auto members = hold_members(run);
  ASSERT_EQ(members.size(), 2U);
  // What the kernel does before the daemon has decided anything.
  const pid_t daemon = daemon_pid(watchdog);
  ASSERT_GT(daemon, 0);
  ::kill(daemon, SIGSTOP);

  ::kill(child, SIGUSR1);

  const bool gone = await_all_gone(members);
  ::kill(daemon, SIGCONT);
  ASSERT_TRUE(gone) << "the kernel has killed a part, or nothing";
  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "oom") << describe(end);
  EXPECT_GT(number(details(end), "memory_events_oom_kill"), 0U);
  EXPECT_TRUE(watchdog.events_of(run.id, "ending").empty());
}

class MemoryFromBefore : public Story {};

TEST_F(MemoryFromBefore, ThatIsMoreThanTheLimitIsAReason) {
  const Child process = spawn_workload({"hold", "100", path("held")});
  await_file("held");
  const std::string id = new_id("had too much");

  const auto registered =
      watchdog.register_process(id, static_cast<std::uint32_t>(process.pid()), {memory_limit(64), grace(5s)});

  EXPECT_EQ(registered.error, "") << registered.message;
  EXPECT_EQ(text(await_end(id), "reason"), "memory");
}

TEST_F(MemoryFromBefore, ThatATreeSharesCountsOnce) {
  const Child process = spawn_workload({"share", "100", "8", path("held")});
  await_file("held");
  const std::string id = new_id("workers");

  const auto registered = watchdog.register_process(id, static_cast<std::uint32_t>(process.pid()), {memory_limit(256)});

  ASSERT_EQ(registered.error, "") << registered.message;
  watchdog.let_pass(2s);
  const auto properties = watchdog.find(id);
  ASSERT_TRUE(properties) << "nine processes with 100 MiB between them were taken for 900 MiB";
  EXPECT_EQ(number(*properties, "ProcessCount"), 9U);
  EXPECT_GE(number(*properties, "MemoryUnreclaimable"), 90 * kMiB);
  EXPECT_LT(number(*properties, "MemoryUnreclaimable"), 160 * kMiB);
  ASSERT_EQ(watchdog.kill(id).error, "");
  EXPECT_EQ(text(await_end(id), "reason"), "requested");
}

/// A file on the disk that is to be read from there.
void drop_from_memory(const std::string& file) {
  if (!is_users()) return write_file("/proc/sys/vm/drop_caches", "1");
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0) << file;
}

class PageCache : public EitherWay {
 protected:
  /// A file that is on the disk and not in memory.
  std::string make_file(std::uint64_t mib) {
    const std::string file = path("big");
    const auto written = run_command({workload_program(), "write", file, std::to_string(mib)});
    EXPECT_EQ(written.status, 0);
    EXPECT_EQ(run_command({"sync", file}).status, 0);
    drop_from_memory(file);
    return file;
  }

  void expect_innocent(const Started& run, std::uint64_t limit_mib) {
    const Dict end = await_end(run);
    EXPECT_EQ(text(end, "reason"), "exited") << describe(end);
    EXPECT_EQ(find_number(end, "exit_code"), 0U) << describe(end);
    EXPECT_GT(number(details(end), "memory_events_high"), 0U) << "it never came to its limit: " << describe(end);
    EXPECT_LT(number(end, "memory_bytes"), limit_mib * kMiB) << "what counts of its memory";
    EXPECT_TRUE(watchdog.events_of(run.id, "ending").empty());
  }
};
INSTANTIATE_TEST_SUITE_P(, PageCache, kBothWays, way_name);

TEST_P(PageCache, OfAReaderIsNoReason) {
  const std::string file = make_file(160);

  const auto run = start_it({memory_limit(24)}, {"read", file, "2"});

  expect_innocent(run, 24);
}

TEST_P(PageCache, OfAWriterIsNoReason) {
  const auto run = start_it({memory_limit(24)}, {"write", path("written"), "128"});

  expect_innocent(run, 24);
}

TEST_P(PageCache, BesideMuchMemoryOfItsOwnIsNoReason) {
  const std::string file = make_file(96);

  const auto run = start_it({memory_limit(80)}, {"read", file, "1", "50"});

  expect_innocent(run, 80);
}

TEST_P(PageCache, OfManySmallFilesIsNoReason) {
  const auto run = start_it({memory_limit(8)}, {"many-files", path("files"), "3000"});

  expect_innocent(run, 8);
}

class MemoryInFiles : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, MemoryInFiles, kBothWays, way_name);

TEST_P(MemoryInFiles, ThatIsLeftBehindIsReported) {
  const std::string name = "story-" + to_string(GetParam());
  const auto run = start_it({memory_limit(64)}, {"shm", name, "8"});

  const Dict end = await_end(run);

  EXPECT_EQ(text(end, "reason"), "exited");
  EXPECT_GE(number(end, "leftover_memory_bytes"), 8 * kMiB) << describe(end);
  std::filesystem::remove("/dev/shm/" + name);
}

TEST_P(MemoryInFiles, CountsLikeAnyOther) {
  const std::string name = "story-big-" + to_string(GetParam());
  const auto run = start_it({memory_limit(24), grace(5s)}, {"shm", name, "100"});

  const Dict end = await_end(run);

  std::filesystem::remove("/dev/shm/" + name);
  EXPECT_EQ(text(end, "reason"), "memory") << describe(end);
}

class AStall : public EitherWay {
 protected:
  void SetUp() override {
    if (is_users()) GTEST_SKIP() << "this host does not delegate the io controller to users, by which a disk is slow";
    EitherWay::SetUp();
    std::filesystem::create_directories("/run/analysis-watchdog/analysis-watchdog.conf.d");
    // How much of such a tree's waiting the kernel calls memory pressure differs: 45 % of the time on 6.1, 10 %
    // on 6.12.
    write_file(kDropIn, "[Memory]\nStallTime=10s\nStallPressure=3%\n");
    ASSERT_TRUE(systemctl({"reload", kDaemonUnit}));
  }
  void TearDown() override {
    if (is_users()) return;
    EXPECT_TRUE(let_disk_serve(""));
    std::filesystem::remove(kDropIn);
    EXPECT_TRUE(systemctl({"reload", kDaemonUnit}));
    EitherWay::TearDown();
  }
  /// The guest's disk is its host's memory. A thrashing tree has one that serves a few hundred pages a second.
  bool let_disk_serve(const std::string& pages_per_second) {
    return systemctl({"set-property", "--runtime", "analysis.slice", "IOReadIOPSMax=" + pages_per_second});
  }
  static constexpr char kDropIn[] = "/run/analysis-watchdog/analysis-watchdog.conf.d/50-story.conf";
};
INSTANTIATE_TEST_SUITE_P(, AStall, kBothWays, way_name);

TEST_P(AStall, ThatNeitherProgressesNorDiesIsEnded) {
  const std::string file = path("mapped");
  ASSERT_EQ(run_command({workload_program(), "write", file, "12"}).status, 0);
  ASSERT_EQ(run_command({"sync", file}).status, 0);
  drop_from_memory(file);

  ASSERT_TRUE(let_disk_serve(file + " 300"));
  const auto run = start_it({memory_limit(8), wall_clock(4min), grace(5s)}, {"thrash", file, "4"});

  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "memory") << describe(end);
  EXPECT_THAT(text(details(end), "cause"), ::testing::HasSubstr("stalled"));
}

}  // namespace
}  // namespace aw::stories
