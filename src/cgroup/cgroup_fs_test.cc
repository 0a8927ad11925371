// SPDX-License-Identifier: Apache-2.0
//
// The adapter on a directory with the kernel's file names.
#include "cgroup/cgroup_fs.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "testing/patience.h"
#include "testing/temporary_folder.h"

namespace aw::cgroup {
namespace {

using supervise::find_drift;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

class ATree : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::vector<supervise::Ancestor> ancestors_of_runs_in(const std::string& parent) {
    return CgroupFs::open_fixture(loop_, root_, parent, {}).value()->read_ancestors();
  }

  const testing::TemporaryFolder folder_;
  const std::filesystem::path& root_ = folder_.path();
  loop::Loop loop_ = loop::Loop::create().value();
};

TEST_F(ATree, TellsHowOftenTheLimitsAboveTheRunsWereReached) {
  write("user.slice/memory.events.local", "low 0\nhigh 1\nmax 2\noom 0\noom_kill 0\n");
  write("user.slice/a.service/analysis.slice/memory.events.local", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n");

  const auto ancestors = ancestors_of_runs_in("/user.slice/a.service/analysis.slice");

  ASSERT_EQ(ancestors.size(), 2U);  // Of the service in between nothing can be read.
  EXPECT_EQ(ancestors[0].path, "/user.slice/a.service/analysis.slice");
  EXPECT_EQ(ancestors[0].ooms, 3U);
  EXPECT_EQ(ancestors[1].path, "/user.slice");
  EXPECT_EQ(ancestors[1].ooms, 0U);
}

TEST_F(ATree, HasNothingToTellOfAParentThatIsNotThere) { EXPECT_TRUE(ancestors_of_runs_in("/analysis.slice").empty()); }

/// The slice of one run, with what is held open of it.
class ARunsTree : public ATree {
 protected:
  ARunsTree() {
    write(kSlice + "/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n");
    write(kSlice + "/memory.stat", "anon 0\n");
    write(kSlice + "/cgroup.events", "populated 1\nfrozen 0\n");
    fs_ = CgroupFs::open_fixture(
              loop_, root_, "/analysis.slice",
              {.on_changed = [this](supervise::RunKey key, const Now&) { changed_.push_back(key); },
               .on_limits_written = [this](supervise::RunKey key, const Now&) { limits_written_.push_back(key); },
               .on_notice = [](const std::string&) {},
               .on_lost = [](const Now&) {}})
              .value();
  }
  std::unique_ptr<supervise::RunCgroup> open() { return fs_->open(7, "analysis-job.slice").value(); }
  void iterate() { ASSERT_TRUE(loop_.iterate(std::chrono::seconds{5})); }
  std::string text_of(const std::string& file) const {
    std::ifstream in(root_ / (kSlice + "/" + file));
    return {std::istreambuf_iterator<char>(in), {}};
  }

  const std::string kSlice = "analysis.slice/analysis-job.slice";
  std::unique_ptr<CgroupFs> fs_;
  std::vector<supervise::RunKey> changed_;
  std::vector<supervise::RunKey> limits_written_;
};

TEST_F(ARunsTree, IsReadByNobodyElseAndPassedThroughByEverybody) {
  std::filesystem::permissions(root_ / kSlice, std::filesystem::perms{0755});

  const auto held = open();

  // With the right to read a directory comes the one to read its attributes of the user namespace, the note's.
  EXPECT_EQ(std::filesystem::status(root_ / kSlice).permissions(), std::filesystem::perms{0711});
}

TEST_F(ARunsTree, TellsAWriteToALimitFromAChangeOfCounters) {
  write(kSlice + "/memory.max", "max\n");
  const auto held = open();
  std::ofstream(root_ / (kSlice + "/memory.max"), std::ios::app) << "1";
  iterate();
  EXPECT_THAT(limits_written_, ElementsAre(7));
  EXPECT_THAT(changed_, IsEmpty());
  std::ofstream(root_ / (kSlice + "/memory.events"), std::ios::app) << "x 1\n";
  iterate();
  EXPECT_THAT(changed_, ElementsAre(7));
  EXPECT_THAT(limits_written_, ElementsAre(7));
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

TEST_F(ARunsTree, GivesASampleFromFilesThatStayOpen) {
  write(kSlice + "/memory.current", "4096\n");
  write(kSlice + "/memory.stat", "anon 1024\nfile 3072\n");
  write(kSlice + "/cpu.stat", "usage_usec 77\nuser_usec 70\nsystem_usec 7\n");
  write(kSlice + "/pids.current", "3\n");
  const auto held = open();
  const std::size_t before = open_descriptors();

  const auto first = held->read_gauge();
  const std::size_t after = open_descriptors();
  std::ofstream(root_ / (kSlice + "/memory.current")) << "8192\n";
  const auto second = held->read_gauge();

  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->memory_current, Bytes(4096));
  EXPECT_EQ(first->memory.anon, Bytes(1024));
  EXPECT_EQ(first->cpu, Span(77));
  EXPECT_EQ(first->tasks, 3U);
  EXPECT_EQ(second->memory_current, Bytes(8192));
  EXPECT_EQ(after, before + 3);
  EXPECT_EQ(open_descriptors(), after);
}

TEST_F(ARunsTree, GivesNoSampleWhereAFileIsMissing) {
  write(kSlice + "/memory.current", "4096\n");
  const auto held = open();

  EXPECT_FALSE(held->read_gauge());
}

TEST_F(ARunsTree, HasTheLimitsThatItsFilesSay) {
  write(kSlice + "/memory.high", "1073741824\n");
  write(kSlice + "/memory.max", "max\n");
  write(kSlice + "/memory.swap.max", "0\n");
  write(kSlice + "/pids.max", "100\n");
  write(kSlice + "/cpu.max", "50000 100000\n");
  write(kSlice + "/cpu.weight", "50\n");
  write(kSlice + "/analysis-job.scope/memory.oom.group", "1\n");
  write(kSlice + "/analysis-job-2.scope/memory.oom.group", "0\n");
  write(kSlice + "/analysis-job-3.scope/cgroup.procs", "");  // No such file: nothing is known.
  const auto found = open()->read_limits().value();
  EXPECT_EQ(found.tripwire, kGiB);
  EXPECT_EQ(found.ceiling, Bytes::infinite());
  EXPECT_EQ(found.swap, Bytes(0));
  EXPECT_EQ(found.tasks_max, 100U);
  EXPECT_EQ(found.cpu_quota_per_second, Span(std::chrono::milliseconds{500}));
  EXPECT_EQ(found.cpu_weight, 50U);
  EXPECT_THAT(found.scopes, ElementsAre(Pair("analysis-job-2.scope", false), Pair("analysis-job.scope", true)));
}

TEST_F(ARunsTree, HasNoLimitsWhereItHasNoFilesForThem) {
  const auto found = open()->read_limits().value();
  EXPECT_EQ(found.tripwire, std::nullopt);
  EXPECT_EQ(found.swap, std::nullopt);
  EXPECT_EQ(found.cpu_quota_per_second, std::nullopt);
  EXPECT_THAT(found.scopes, IsEmpty());
}

TEST_F(ARunsTree, IsGivenItsLimitsInTheFormOfEachFile) {
  for (const char* file : {"memory.high", "memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight"}) {
    write(kSlice + "/" + file, "");
  }
  const auto held = open();
  ASSERT_TRUE(held->write_limits({kGiB, Bytes::infinite(), 5'000'000, std::chrono::milliseconds{1500}, 50}));
  EXPECT_EQ(text_of("memory.high"), "1073741824");
  EXPECT_EQ(text_of("memory.max"), "max");
  EXPECT_EQ(text_of("memory.swap.max"), "0");
  EXPECT_EQ(text_of("pids.max"), "max");
  EXPECT_EQ(text_of("cpu.max"), "150000 100000");
  EXPECT_EQ(text_of("cpu.weight"), "50");
  const auto again = held->read_limits().value();
  EXPECT_THAT(find_drift(again, {kGiB, Bytes::infinite(), 5'000'000, std::chrono::milliseconds{1500}, 50}, std::nullopt,
                         Bytes(4096)),
              IsEmpty());
}

TEST_F(ARunsTree, IsGivenSmallQuotasInPeriodsThatTheKernelTakes) {
  struct {
    Span quota;
    const char* text;
  } const cases[] = {{Span(1), "1000 1000000"},
                     {Span(5000), "1000 200000"},
                     {std::chrono::milliseconds{10}, "1000 100000"},
                     {std::chrono::hours{24 * 365 * 90}, "283824000000000 100000"},
                     {kForever, "max 100000"}};
  for (const auto& [quota, text] : cases) {
    write(kSlice + "/cpu.max", "");
    (void)open()->write_limits({kGiB, kGiB, 1, quota, {}});
    EXPECT_EQ(text_of("cpu.max"), text);
  }
}

TEST_F(ARunsTree, TriesEachFileAndTellsTheFirstFailure) {
  write(kSlice + "/pids.max", "");
  const auto done = open()->write_limits({kGiB, kGiB, 100});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, std::errc::no_such_file_or_directory);
  EXPECT_EQ(text_of("pids.max"), "100");
}

TEST_F(ARunsTree, HasAScopeThatTheKernelIsToKillWhole) {
  write(kSlice + "/analysis-job.scope/memory.oom.group", "0");
  const auto held = open();
  ASSERT_TRUE(held->write_group_oom("analysis-job.scope"));
  EXPECT_EQ(text_of("analysis-job.scope/memory.oom.group"), "1");
  EXPECT_FALSE(held->write_group_oom("analysis-other.scope"));
}

TEST_F(ARunsTree, IsKilledThroughADescriptorThatIsHeld) {
  write(kSlice + "/cgroup.kill", "");
  const auto held = open();
  std::filesystem::rename(root_ / (kSlice + "/cgroup.kill"), root_ / (kSlice + "/was.kill"));
  ASSERT_TRUE(held->write_kill());
  EXPECT_EQ(text_of("was.kill"), "1");
}

TEST_F(ARunsTree, SaysWhyItCannotBeKilled) {
  const auto killed = open()->write_kill();
  ASSERT_FALSE(killed);
  EXPECT_NE(killed.error().message.find("cgroup.kill"), std::string::npos);
}

/// Nothing is left but the reserve.
class WithoutDescriptors {
 public:
  WithoutDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit low{100, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &low);
    for (UniqueFd fd(open_null()); fd; fd.reset(open_null())) held_.push_back(std::move(fd));
  }
  ~WithoutDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  WithoutDescriptors(const WithoutDescriptors&) = delete;
  WithoutDescriptors& operator=(const WithoutDescriptors&) = delete;

 private:
  static int open_null() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
  rlimit before_{};
  std::vector<UniqueFd> held_;
};

TEST_F(ARunsTree, CanBeEndedWithoutADescriptorAndNoOtherIsOpened) {
  for (const char* file : {"cgroup.kill", "memory.high", "cgroup.freeze"}) write(kSlice + "/" + file, "");
  write(kSlice + "/cgroup.procs", "");
  write(kSlice + "/analysis-job.scope/cgroup.procs", "11\n12\n");
  write(kSlice + "/analysis-job.scope/cgroup.freeze", "");
  const auto held = open();
  // UBSan looks at each object once, and needs a pipe for that: what is called is called before, and judged after.
  (void)held->write_tripwire(kGiB);
  ASSERT_EQ(std::error_code(EMFILE, std::generic_category()), std::errc::too_many_files_open);
  ASSERT_EQ(std::error_code(EMFILE, std::system_category()), std::errc::too_many_files_open);
  bool tripwire = false, thawed = false, killed = false;
  std::vector<pid_t> processes;
  Result<std::unique_ptr<supervise::RunCgroup>> other = invalid("");
  {
    const WithoutDescriptors none;
    tripwire = held->write_tripwire(kGiB).has_value();
    thawed = held->write_thaw().has_value();
    if (auto read = held->read_processes()) processes = *std::move(read);
    killed = held->write_kill().has_value();
    other = fs_->open(8, "analysis-job.slice");
  }
  EXPECT_TRUE(tripwire);
  EXPECT_TRUE(thawed);
  EXPECT_THAT(processes, ElementsAre(11, 12));
  EXPECT_TRUE(killed);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, std::errc::too_many_files_open);
}

/// The kernel has no watches left, until it has.
class ARunsTreeWithoutWatches : public ARunsTree {
 protected:
  ARunsTreeWithoutWatches() {
    fs_ = CgroupFs::open_fixture(loop_, root_, "/analysis.slice",
                                 {.on_changed = [this](supervise::RunKey key, const Now&) { on_changed(key); },
                                  .on_limits_written = [](supervise::RunKey, const Now&) {},
                                  .on_notice = [this](const std::string& sentence) { notices_.push_back(sentence); },
                                  .on_lost = [](const Now&) {}},
                                 {.add_watch =
                                      [this](int inotify, const char* path, std::uint32_t mask) {
                                        if (error_ == 0) return ::inotify_add_watch(inotify, path, mask);
                                        ++refused_;
                                        errno = error_;
                                        return -1;
                                      },
                                  .poll = std::chrono::milliseconds{5},
                                  .again = std::chrono::milliseconds{50}})
              .value();
  }
  void on_changed(supervise::RunKey key) {
    changed_.push_back(key);
    if (key == drop_) held_.clear();
  }
  bool iterate_until(const std::function<bool()>& done) { return testing::turn_until(loop_, done); }

  int error_ = ENOSPC;
  int refused_ = 0;
  supervise::RunKey drop_ = 0;
  std::vector<std::string> notices_;
  std::vector<std::unique_ptr<supervise::RunCgroup>> held_;  ///< going, they may have something to notice
};

TEST_F(ARunsTreeWithoutWatches, IsLookedAtAgainAndAgainAndSaysSoOnce) {
  for (const int error : {ENOSPC, ENOMEM}) {
    error_ = error;
    held_.push_back(fs_->open(static_cast<supervise::RunKey>(error), "analysis-job.slice").value());
  }
  const auto times = [&](int error) { return std::count(changed_.begin(), changed_.end(), error); };
  EXPECT_TRUE(iterate_until([&] { return times(ENOSPC) >= 3 && times(ENOMEM) >= 3; }));
  ASSERT_THAT(notices_, SizeIs(1));
  EXPECT_THAT(notices_[0], ::testing::HasSubstr("max_user_watches"));
}

TEST_F(ARunsTreeWithoutWatches, IsWatchedWhenThatIsPossibleAgain) {
  held_.push_back(fs_->open(7, "analysis-job.slice").value());
  EXPECT_TRUE(iterate_until([&] { return refused_ >= 3; })) << "it is tried again";
  error_ = 0;
  EXPECT_TRUE(iterate_until([&] { return notices_.size() == 2; }));
  const auto told = changed_.size();
  for (int i = 0; i < 5; ++i) (void)loop_.iterate(std::chrono::milliseconds{10});
  EXPECT_EQ(changed_.size(), told) << "and polled no more";
  std::ofstream(root_ / (kSlice + "/memory.events"), std::ios::app) << "x 1\n";
  EXPECT_TRUE(iterate_until([&] { return changed_.size() > told; }));
}

TEST_F(ARunsTreeWithoutWatches, MayBeDroppedByWhoIsToldOfIt) {
  drop_ = 7;
  for (const supervise::RunKey key : {7U, 8U}) held_.push_back(fs_->open(key, "analysis-job.slice").value());
  EXPECT_TRUE(iterate_until([&] { return notices_.size() == 2; }));
  const auto told = changed_.size();
  for (int i = 0; i < 5; ++i) (void)loop_.iterate(std::chrono::milliseconds{10});
  EXPECT_EQ(changed_.size(), told);
}

TEST_F(ARunsTreeWithoutWatches, IsRefusedForAnyOtherReason) {
  error_ = EACCES;
  EXPECT_FALSE(fs_->open(7, "analysis-job.slice"));
}

TEST_F(ARunsTree, IsNotLeftByAPathThatLeadsOutOfIt) {
  const std::filesystem::path root(root_);
  const auto outside = root.parent_path() / (root.filename().string() + "-outside");
  std::filesystem::create_directories(outside);
  std::ofstream(outside / "cgroup.procs") << "";
  std::filesystem::create_directory_symlink(outside, root / "link");

  for (const std::string& path : {"/../" + outside.filename().string(), std::string("/link"), "/" + outside.string()}) {
    EXPECT_FALSE(fs_->put_back(::getpid(), path)) << path;
  }
  EXPECT_EQ(std::filesystem::file_size(outside / "cgroup.procs"), 0U);
  std::filesystem::remove_all(outside);
}

TEST(ControllersThatAreMissing, AreThoseThatLimitsNeed) {
  const std::filesystem::path root =
      std::filesystem::temp_directory_path() / ("aw-controllers-" + std::to_string(::getpid()));
  const auto missing = [&](const std::string& text) {
    std::filesystem::create_directories(root / "user");
    std::ofstream(root / "user/cgroup.controllers") << text;
    return read_missing_controllers(root.string(), "/user").value();
  };

  EXPECT_THAT(missing("cpuset cpu io memory pids\n"), ::testing::IsEmpty());
  EXPECT_THAT(missing("memory pids\n"), ::testing::ElementsAre("cpu"));
  EXPECT_THAT(missing("cpuset\n"), ::testing::ElementsAre("memory", "pids", "cpu"));
  EXPECT_FALSE(read_missing_controllers(root.string(), "/nobody"));
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace aw::cgroup
