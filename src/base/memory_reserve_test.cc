// SPDX-License-Identifier: Apache-2.0
#include "base/memory_reserve.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <new>
#include <vector>

namespace aw {
namespace {

constexpr Bytes kReserve(8 * kMiB.count());
constexpr std::size_t kPiece = 256UL << 10U;  // Larger than what malloc() keeps back for later.

/// Pieces of memory until there are none.
std::vector<std::unique_ptr<char[]>> take_all() {
  std::vector<std::unique_ptr<char[]>> pieces;
  pieces.reserve(4096);
  try {
    while (pieces.size() < pieces.capacity()) pieces.emplace_back(new char[kPiece]);
  } catch (const std::bad_alloc&) {
  }
  return pieces;
}

/// What a process says that may have 64 MiB more than it has: its limit and its reserve are its own.
int in_a_process_with_little(int (*what)()) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::ifstream statm("/proc/self/statm");
    rlim_t pages = 0;
    statm >> pages;
    const rlim_t most = pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + 64 * kMiB.count();
    const rlimit limit{most, most};
    ::_exit(::setrlimit(RLIMIT_AS, &limit) == 0 ? what() : 100);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

/// A sanitizer has an allocator of its own, that calls no handler and takes terabytes of addresses.
#ifdef AW_SANITIZED
constexpr bool kCanRunOut = false;
#else
constexpr bool kCanRunOut = true;
#endif

TEST(AMemoryReserve, IsGivenBackWhenThereIsNoMoreAndSetAsideAgainAfterwards) {
  if (!kCanRunOut) GTEST_SKIP() << "a sanitizer's allocator calls no new-handler";
  EXPECT_EQ(in_a_process_with_little([] {
              keep_memory_reserve(kReserve);
              if (memory_reserve() != kReserve || renew_memory_reserve()) return 1;
              auto pieces = take_all();
              if (memory_reserve() != Bytes(0)) return 2;
              if (pieces.size() * kPiece < 56 * kMiB.count()) return 3;  // With what was in reserve.
              pieces.clear();
              if (!renew_memory_reserve() || memory_reserve() != kReserve) return 4;
              return renew_memory_reserve() ? 5 : 0;
            }),
            0);
}

TEST(AMemoryReserve, IsSetAsideLaterIfThereIsStillNoMemory) {
  if (!kCanRunOut) GTEST_SKIP() << "a sanitizer's allocator calls no new-handler";
  EXPECT_EQ(in_a_process_with_little([] {
              keep_memory_reserve(kReserve);
              auto pieces = take_all();
              if (!renew_memory_reserve() || memory_reserve() != Bytes(0)) return 1;
              pieces.clear();
              return !renew_memory_reserve() && memory_reserve() == kReserve ? 0 : 2;
            }),
            0);
}

}  // namespace
}  // namespace aw
