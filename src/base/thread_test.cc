// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>

namespace aw {
namespace {

TEST(AThread, GetsNoSignal) {
  std::atomic<bool> all_blocked = false;
  start_thread("test", [&] {
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    all_blocked = sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGHUP) == 1;
  }).join();
  EXPECT_TRUE(all_blocked);

  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  EXPECT_EQ(sigismember(&blocked, SIGTERM), 0) << "whoever starts it keeps its own mask";
}

TEST(AThread, ThatRunsOrDoesNotExistSleepsNot) {
  EXPECT_FALSE(sleeps_uninterruptibly(::gettid()));
  EXPECT_FALSE(sleeps_uninterruptibly(0));
}

TEST(AThread, ThatWaitsInVforkSleepsUninterruptibly) {
  std::atomic<pid_t> thread = 0;
  std::atomic<bool> over = false;
  std::array<int, 2> gate{};
  ASSERT_EQ(::pipe(gate.data()), 0);
  auto waiting = start_thread("test", [&] {
    thread = ::gettid();
    // The parent of a vfork(2) sleeps in state D until the child is gone.
    const pid_t child = ::vfork();
    if (child == 0) {
      char c = 0;
      (void)!::read(gate[0], &c, 1);
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    over = true;
  });
  while (thread == 0 || (!over && !sleeps_uninterruptibly(thread))) ::usleep(1000);
  EXPECT_FALSE(over);
  ASSERT_EQ(::write(gate[1], "x", 1), 1);
  waiting.join();
  ::close(gate[0]);
  ::close(gate[1]);
}

}  // namespace
}  // namespace aw
