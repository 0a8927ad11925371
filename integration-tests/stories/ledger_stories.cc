// SPDX-License-Identifier: Apache-2.0
//
// The ledger on a bad disk: enforcement goes on, what can't be promised is refused, and nothing that was there is lost.
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kFolder[] = "/var/lib/analysis-watchdog";
constexpr char kLedger[] = "/var/lib/analysis-watchdog/ledger.db";

class ALedger : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    forget_bystander();
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_TRUE(systemctl({"stop", kDaemonUnit}));
      EXPECT_EQ(::umount(kFolder), 0) << std::strerror(errno);
      EXPECT_TRUE(systemctl({"start", kDaemonUnit}));
    }
    Story::TearDown();
  }

  /// From here on the ledger is in a small file system of its own.
  void start_with_small_disk(unsigned long flags) {
    ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
    struct stat folder {};
    ASSERT_EQ(::stat(kFolder, &folder), 0);
    std::ostringstream options;
    options << "size=16m,mode=" << std::oct << (folder.st_mode & 07777U) << std::dec << ",gid=" << folder.st_gid;
    ASSERT_EQ(::mount("tmpfs", kFolder, "tmpfs", flags, options.str().c_str()), 0) << std::strerror(errno);
    mounted_ = true;
    ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
  }
  bool store_healthy() { return flag(watchdog.manager_properties(), "StoreHealthy"); }
  /// What the tool finds in the ledger itself.
  static std::vector<nlohmann::json> read_ledger(const std::string& id, const std::string& kind) {
    const auto told = run_command({"analysisctl", "events", "--json", "--id", id, "--kind", kind, "--limit", "1000"});
    EXPECT_EQ(told.status, 0) << told.err;
    EXPECT_THAT(told.err, AnyOf(IsEmpty(), HasSubstr("ledger")));
    std::vector<nlohmann::json> events;
    std::istringstream lines(told.out);
    for (std::string line; std::getline(lines, line);) events.push_back(nlohmann::json::parse(line));
    return events;
  }
  void expect_refused(const std::string& id) {
    const Child process = spawn_workload({"stay"});
    const auto refused = watchdog.register_process(id, static_cast<std::uint32_t>(process.pid()));
    EXPECT_EQ(refused.error, names::error::kRecordUnavailable);
    EXPECT_THAT(refused.message, HasSubstr(kLedger));
    const auto launched = run_command({"analysis-run", "--", "true"});
    EXPECT_EQ(launched.status, 125);
    EXPECT_THAT(launched.err, HasSubstr(kLedger));
  }

 private:
  bool mounted_ = false;
};

TEST_F(ALedger, OnAFullDiskEndsWhatItMustAndTakesNothingNew) {
  start_with_small_disk(0);
  const auto run = start(How::kLaunched, new_id("full disk"), {wall_clock(20s), grace(2s)}, {"stay"});
  const auto full = run_command({"sh", "-c", "cat /dev/zero > /var/lib/analysis-watchdog/filler; true"});
  ASSERT_THAT(full.err, HasSubstr("No space left"));

  // The full disk shows with the next thing that has to be written.
  const auto other = start(How::kLaunched, new_id("before it shows"), {}, {"stay"});
  ASSERT_TRUE(watchdog.kill(other.id).ok());
  ASSERT_TRUE(watchdog.wait_until([&] { return !store_healthy(); }));
  expect_refused(new_id("refused"));
  EXPECT_EQ(text(await_end(run), "reason"), "wall-clock");

  std::filesystem::remove(std::string(kFolder) + "/filler");
  ASSERT_TRUE(watchdog.wait_until([&] { return store_healthy(); }));
  EXPECT_THAT(read_ledger(run.id, "ended"), SizeIs(1));
  EXPECT_THAT(read_ledger(run.id, "ending"), SizeIs(1));
  EXPECT_THAT(read_ledger(other.id, "ended"), SizeIs(1));
  const auto after = start(How::kLaunched, new_id("after it"), {wall_clock(1s)}, {"stay"});
  EXPECT_EQ(text(await_end(after), "reason"), "wall-clock");
}

TEST_F(ALedger, OnAReadOnlyDiskEndsWhatItMustAndTakesNothingNew) {
  const auto run = start(How::kLaunched, new_id("read only"), {wall_clock(15s), grace(2s)}, {"stay"});
  start_with_small_disk(MS_RDONLY);

  EXPECT_TRUE(watchdog.wait_until([&] { return !store_healthy(); }));
  expect_refused(new_id("refused"));
  EXPECT_EQ(text(await_end(run), "reason"), "wall-clock");
}

TEST_F(ALedger, ThatIsCorruptIsSetAsideAndLiveRunsAreKept) {
  const auto run = start(How::kLaunched, new_id("corrupt"), {wall_clock(25s), grace(2s)}, {"stay"});
  ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  std::string bytes = read_file(kLedger);
  ASSERT_GT(bytes.size(), 8192U);
  for (std::size_t i = 4096; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  write_file(kLedger, bytes);
  std::filesystem::remove(std::string(kLedger) + "-wal");

  ASSERT_TRUE(systemctl({"start", kDaemonUnit}));

  std::vector<std::filesystem::path> aside;
  ASSERT_TRUE(watchdog.wait_until([&] {
    aside.clear();
    for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
      if (entry.path().filename().string().starts_with("ledger.db.corrupt-")) aside.push_back(entry.path());
    }
    return !aside.empty();
  }));
  EXPECT_TRUE(std::any_of(aside.begin(), aside.end(), [&](const auto& path) { return read_file(path) == bytes; }))
      << "what was damaged is not what was set aside";
  ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.find(run.id).has_value(); }))
      << "the run is not watched any more";
  EXPECT_EQ(text(await_end(run), "reason"), "wall-clock");
  EXPECT_TRUE(watchdog.wait_until([&] { return read_ledger(run.id, "ended").size() == 1; }));
  for (const auto& path : aside) std::filesystem::remove(path);
}

}  // namespace
}  // namespace aw::stories
