// SPDX-License-Identifier: Apache-2.0
#include "process/locked_file_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <map>

#include "process/parse.h"
#include "testing/patience.h"

namespace aw::process {
namespace {

using namespace std::chrono_literals;

constexpr Span kLong = testing::kPatience;
constexpr Span kMoment = 1ms;

/// Command lines as pipes: one that nobody has written to blocks its reader, as a process may.
class Lines {
 public:
  UniqueFd open(pid_t pid) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) < 0) return {};
    writers_[pid].reset(ends[1]);
    return UniqueFd(ends[0]);
  }
  void write(pid_t pid, std::string_view text) {
    ASSERT_EQ(::write(writers_.at(pid).get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    writers_.erase(pid);
  }
  /// The same, but there is more to come; returns when the reader has it, and waits for that.
  void begin_to_write(pid_t pid, std::string_view text) {
    ASSERT_EQ(::write(writers_.at(pid).get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    for (int unread = 1; unread > 0;) ASSERT_EQ(::ioctl(writers_.at(pid).get(), FIONREAD, &unread), 0);
  }
  void let_all_go() { writers_.clear(); }

 private:
  std::map<pid_t, UniqueFd> writers_;
};

class ALockedFileReader : public ::testing::Test {
 protected:
  ~ALockedFileReader() override { lines_.let_all_go(); }

  static std::optional<std::string> wait_for(const LockedFileReader::Texts& cmdlines, pid_t pid) {
    EXPECT_TRUE(testing::comes_true([&] { return cmdlines.find(pid).has_value(); }));
    return cmdlines.find(pid);
  }

  Lines lines_;
  LockedFileReader blocking_{"reader", [this](pid_t pid) { return lines_.open(pid); }, readable_cmdline};
  LockedFileReader real_{"reader", opener_of("cmdline"), readable_cmdline};
};

TEST_F(ALockedFileReader, ReadsThoseOfProcesses) {
  const std::array<pid_t, 2> pids{::getpid(), ::getppid()};

  const auto cmdlines = real_.request(pids, 4096, kLong);

  EXPECT_NE(cmdlines->find(pids[0]).value().find("process_test"), std::string::npos);
  EXPECT_TRUE(cmdlines->find(pids[1]));
  EXPECT_FALSE(cmdlines->find(1'000'000'000));  // Was not asked for.
}

TEST_F(ALockedFileReader, FindsNothingOfAProcessThatIsGone) {
  const pid_t gone = 1'000'000'000;
  EXPECT_EQ(real_.request({&gone, 1}, 100, kLong)->find(gone), "");
}

TEST_F(ALockedFileReader, WaitsForNobodyLongerThanItsPatience) {
  const pid_t stuck = 7;

  const auto cmdlines = blocking_.request({&stuck, 1}, 100, kMoment);  // Else for ever.

  EXPECT_EQ(cmdlines->find(stuck), std::nullopt);
}

TEST_F(ALockedFileReader, DeliversLateWhatCameLate) {
  const pid_t slow = 7;
  const auto cmdlines = blocking_.request({&slow, 1}, 100, kMoment);

  lines_.write(slow, std::string_view("late\0-x\0", 8));

  EXPECT_EQ(wait_for(*cmdlines, slow), "late -x");
}

TEST_F(ALockedFileReader, ReadsTheOthersWhileOneIsStuck) {
  const std::array<pid_t, 3> pids{7, 8, 9};
  const auto cmdlines = blocking_.request(pids, 100, kMoment);

  lines_.write(8, "eight");
  lines_.write(9, "nine");

  EXPECT_EQ(wait_for(*cmdlines, 8), "eight");
  EXPECT_EQ(wait_for(*cmdlines, 9), "nine");
  EXPECT_EQ(cmdlines->find(7), std::nullopt);
}

TEST_F(ALockedFileReader, HoldsABoundedNumberOfThoseThatAreStuck) {
  pid_t pid = 0;
  std::shared_ptr<const LockedFileReader::Texts> last;

  for (unsigned i = 0; i < LockedFileReader::kMostThreads + LockedFileReader::kMostWaiting + 10; ++i) {
    ++pid;
    last = blocking_.request({&pid, 1}, 100, Span(100));
  }

  EXPECT_EQ(last->find(pid), "");  // Given up at once.
}

TEST_F(ALockedFileReader, CutsAMegabyteOfArguments) {
  const pid_t huge = 7;
  const auto cmdlines = blocking_.request({&huge, 1}, 256, kMoment);

  lines_.write(huge, std::string(20'000, 'x') + "\x1b[2J\xff\n");

  const std::string line = wait_for(*cmdlines, huge).value();
  EXPECT_EQ(line, std::string(253, 'x') + "\xE2\x80\xA6");
}

TEST_F(ALockedFileReader, GoesWhileOneIsStuck) {
  const pid_t stuck = 7;
  auto reader = std::make_unique<LockedFileReader>(
      "reader", [this](pid_t pid) { return lines_.open(pid); }, readable_cmdline);
  const auto cmdlines = reader->request({&stuck, 1}, 100, kMoment);

  lines_.begin_to_write(stuck, "af");
  reader.reset();

  lines_.write(stuck, "ter");
  EXPECT_EQ(wait_for(*cmdlines, stuck), "after");
}

}  // namespace
}  // namespace aw::process
