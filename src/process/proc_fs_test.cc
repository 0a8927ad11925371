// SPDX-License-Identifier: Apache-2.0
//
// The real /proc, with processes of the test's own.
#include "process/proc_fs.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/io_uring.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <ctime>
#include <thread>

#include "testing/patience.h"
#include "testing/temporary_folder.h"

namespace aw::process {
namespace {

using namespace std::chrono_literals;
using testing::kPatience;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

/// A child that is there until the test is over.
class Child {
 public:
  /// `act` runs in the child, before it waits; it may replace its program.
  template <class Act>
  explicit Child(Act act) {
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    act();
    for (;;) ::pause();
  }
  Child() : Child([] {}) {}
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

class AProcFs : public ::testing::Test {
 protected:
  std::string wait_for_cmdline(pid_t pid, const std::string& begin) {
    std::string line;
    EXPECT_TRUE(testing::comes_true([&] {
      line = processes_.read_cmdline(pid);
      return line.starts_with(begin);
    }));
    return line;
  }

  loop::Loop loop_ = loop::Loop::create().value();
  /// Opens a file that nothing comes from, until somebody writes to it or resets the writer.
  static LockedFileReader::Open pipe_to(UniqueFd& writer) {
    return [&](pid_t) {
      std::array<int, 2> ends{};
      EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
      writer.reset(ends[1]);
      return UniqueFd(ends[0]);
    };
  }

  ProcFs processes_{loop_, {kPatience, kPatience, kPatience}, opener_of("cmdline"), opener_of("smaps_rollup")};
};

TEST_F(AProcFs, ShowsTheLargestFirstWithWhatItsRecordNeeds) {
  const Child small;
  const Child large([] {
    static volatile char* memory = new char[64 << 20];
    for (int at = 0; at < 64 << 20; at += 4096) memory[at] = 1;
    while (std::clock() < CLOCKS_PER_SEC / 10) {
    }
  });
  const std::vector<pid_t> pids{small.pid(), large.pid()};
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto is_large = [&] {
    const auto stat = processes_.find_stat(large.pid());
    return stat->cpu_ticks >= 5 && stat->resident_pages * page > 64 << 20;
  };
  ASSERT_TRUE(testing::comes_true(is_large));

  const auto survey = processes_.survey(pids);

  ASSERT_THAT(survey.largest, SizeIs(2));
  const auto& first = survey.largest[0];
  EXPECT_EQ(first.pid, large.pid());
  EXPECT_EQ(first.parent, ::getpid());
  EXPECT_GT(first.resident, Bytes(60 << 20));
  EXPECT_GT(first.cpu, 40ms);
  EXPECT_LT(first.cpu, 1min);
  EXPECT_THAT(first.comm, StartsWith("process_test"));
  EXPECT_THAT(first.cmdline, HasSubstr("process_test"));
  EXPECT_EQ(survey.looked_at, 2U);
}

TEST_F(AProcFs, PassesOverProcessesThatAreGone) {
  const std::vector<pid_t> pids{1'000'000'000, ::getpid()};

  const auto survey = processes_.survey(pids);

  ASSERT_THAT(survey.largest, SizeIs(1));
  EXPECT_EQ(survey.largest[0].pid, ::getpid());
}

TEST_F(AProcFs, StopsLookingWhenItsTimeIsOver) {
  const ProcFs hasty(loop_, {Span(0), 1ms, 1ms}, opener_of("cmdline"), opener_of("smaps_rollup"));
  const std::vector<pid_t> pids(1000, ::getpid());

  const auto survey = hasty.survey(pids);

  EXPECT_EQ(survey.looked_at, supervise::kMaxProcesses);
  EXPECT_THAT(survey.largest, SizeIs(supervise::kMaxProcesses));
}

TEST_F(AProcFs, LooksAtNoMoreThanItMayInItsTime) {
  const ProcFs real(loop_);
  const std::vector<pid_t> pids(100'000, ::getpid());

  const auto survey = real.survey(pids);

  EXPECT_GT(survey.looked_at, 0U);
  EXPECT_LT(survey.looked_at, pids.size());  // That would take a second.
}

TEST_F(AProcFs, ShowsAProcessWhoseCommandLineCannotBeRead) {
  UniqueFd writer;
  const ProcFs patient(loop_, {kPatience, 1ms, 1ms}, pipe_to(writer), opener_of("smaps_rollup"));
  const pid_t self = ::getpid();

  const auto survey = patient.survey({&self, 1});

  ASSERT_THAT(survey.largest, SizeIs(1));
  EXPECT_EQ(survey.largest[0].cmdline, "");
  EXPECT_EQ(survey.cmdlines->find(self), std::nullopt);
  writer.reset();
}

TEST_F(AProcFs, TellsWhatSharesProcessesHaveOfTheirMemory) {
  std::vector<char> memory(64 << 20, 'x');
  const std::array<pid_t, 2> pids{::getpid(), 1'000'000'000};  // The other one is gone.

  const auto shares = processes_.request_anonymous_shares(pids);

  EXPECT_TRUE(shares->complete());
  EXPECT_GE(shares->known(), Bytes(memory.size()));
  EXPECT_LE(shares->known(), processes_.read_anonymous(::getpid()) + Bytes(16 << 20));
}

TEST_F(AProcFs, TellsNothingOfSharesThatAreNotReadYet) {
  UniqueFd writer;
  const ProcFs patient(loop_, {kPatience, 1ms, 1ms}, opener_of("cmdline"), pipe_to(writer));
  const pid_t self = ::getpid();

  const auto shares = patient.request_anonymous_shares({&self, 1});
  EXPECT_FALSE(shares->complete());
  EXPECT_EQ(shares->known(), Bytes(0));

  const std::string_view rollup = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\nPss_Anon: 3 kB\n";
  ASSERT_EQ(::write(writer.get(), rollup.data(), rollup.size()), static_cast<ssize_t>(rollup.size()));
  writer.reset();
  EXPECT_TRUE(testing::comes_true([&] { return shares->complete(); }));
  EXPECT_EQ(shares->known(), Bytes(3 << 10));
}

/// A shell that waits, and does not mind what else it is given.
Child waiting_shell(std::vector<const char*> more) {
  return Child([&more] {
    std::vector<const char*> arguments{"sh", "-c", "read x; exit"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.push_back(nullptr);
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) == 0) ::dup2(ends[0], STDIN_FILENO);
    ::execve("/bin/sh", const_cast<char**>(arguments.data()), environ);
  });
}

TEST_F(AProcFs, MakesOneSafeLineOfHostileArguments) {
  const Child hostile = waiting_shell({"two\nlines", "\x1b]0;title\x07\x1b[2J", "\xff\xfe not utf-8", "", "end"});

  EXPECT_EQ(wait_for_cmdline(hostile.pid(), "sh -c"),
            "sh -c read x; exit two lines  ]0;title  [2J \xEF\xBF\xBD\xEF\xBF\xBD not utf-8  end");
}

TEST_F(AProcFs, ReadsNoMoreOfAMegabyteThanItShows) {
  const std::string part(100'000, 'x');
  const Child huge = waiting_shell(std::vector<const char*>(10, part.c_str()));

  const std::string line = wait_for_cmdline(huge.pid(), "sh -c");

  EXPECT_THAT(line, StartsWith("sh -c read x; exit xxxx"));
  EXPECT_EQ(line.size(), 4096U);
  EXPECT_THAT(line, EndsWith("x\xE2\x80\xA6"));
  const pid_t pid = huge.pid();
  EXPECT_EQ(processes_.survey({&pid, 1}).largest.at(0).cmdline.size(), supervise::kMaxProcessCmdline);
}

// ---- whose, and which ----

TEST_F(AProcFs, KnowsWhoseAProcessIsUnlessItIsSeveralUsers) {
  EXPECT_EQ(processes_.find_uid(::getpid()), ::getuid());
  if (::getuid() != 0) GTEST_SKIP() << "only root can become others";
  const auto become = [this](uid_t real, uid_t effective, uid_t saved) {
    std::array<int, 2> done{};
    EXPECT_EQ(::pipe(done.data()), 0);
    const UniqueFd read(done[0]);
    const Child child([&] {
      if (::setresuid(real, effective, saved) == 0) (void)!::write(done[1], "x", 1);
    });
    ::close(done[1]);
    char x = 0;
    EXPECT_EQ(::read(read.get(), &x, 1), 1);
    return processes_.find_uid(child.pid());
  };

  EXPECT_EQ(become(1234, 1234, 1234), 1234U);
  EXPECT_EQ(become(1234, 0, 0), std::nullopt);     // As a set-uid program begins.
  EXPECT_EQ(become(1234, 1234, 0), std::nullopt);  // It has put its rights aside, and may take them up again.
}

TEST_F(AProcFs, TakesNoPidfdOfAThread) {
  std::atomic<pid_t> tid = 0;
  std::atomic<bool> over = false;
  std::thread thread([&] {
    tid = static_cast<pid_t>(::syscall(SYS_gettid));
    while (!over) ::usleep(1000);
  });
  while (tid == 0) ::usleep(1000);
  constexpr unsigned kPidfdThread = O_EXCL;
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, tid.load(), kPidfdThread));

  if (pidfd >= 0) {
    const auto adopted = processes_.adopt(pidfd);
    ASSERT_FALSE(adopted);
    EXPECT_THAT(adopted.error().message, HasSubstr("thread of process " + std::to_string(::getpid())));
  }
  over = true;
  thread.join();
  if (pidfd < 0) GTEST_SKIP() << "this kernel has no pidfds of threads (Linux 6.9)";
}

TEST_F(AProcFs, TakesNothingForAPidfdThatIsNone) {
  const auto expect_refused = [this](UniqueFd file, const std::string& what) {
    ASSERT_TRUE(file) << what;
    const auto adopted = processes_.adopt(file.release());
    ASSERT_FALSE(adopted) << what;
    EXPECT_EQ(adopted.error().message, "the descriptor is no pidfd; make one with pidfd_open(2)") << what;
  };
  const std::string self = "/proc/" + std::to_string(::getpid());

  expect_refused(UniqueFd(::eventfd(0, EFD_CLOEXEC)), "an eventfd");
  expect_refused(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)), "a device");
  expect_refused(UniqueFd(::memfd_create("\nPid:\t1\n", MFD_CLOEXEC)), "memory");
  expect_refused(UniqueFd(::open(self.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), "a directory of /proc");
}

/// The kernel lists the files that it was given, by name, in its fdinfo.
TEST_F(AProcFs, TakesNoIoUringForThePidfdThatItSaysItIs) {
  io_uring_params params{};
  UniqueFd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 1, &params)));
  if (!ring) GTEST_SKIP() << "this kernel has no io_uring, or not for us";
  const aw::testing::TemporaryFolder folder;
  const std::string pid = std::to_string(::getpid());
  const std::string path = (folder.path() / ("x\nPid:\t" + pid + "\ny")).string();
  const UniqueFd file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_TRUE(file);
  const int registered = file.get();
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring.get(), IORING_REGISTER_FILES, &registered, 1), 0);

  const auto adopted = processes_.adopt(ring.release());

  ASSERT_FALSE(adopted);
  EXPECT_THAT(adopted.error().message, HasSubstr("is no pidfd"));
}

TEST_F(AProcFs, TakesAPidfd) {
  const Child child;

  const auto adopted = processes_.adopt(static_cast<int>(::syscall(SYS_pidfd_open, child.pid(), 0)));

  ASSERT_TRUE(adopted);
  EXPECT_EQ((*adopted)->key().pid, child.pid());
}

}  // namespace
}  // namespace aw::process
