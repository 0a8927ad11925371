// SPDX-License-Identifier: Apache-2.0
#include "base/descriptor_reserve.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/unique_fd.h"

namespace aw {
namespace {

int open_null() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

/// Puts the limits back, and holds descriptors until no more can be had.
class AProcessWithoutDescriptors : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    ASSERT_GT(before_.rlim_max, 200U);
    const rlimit low{100, before_.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
    for (UniqueFd fd(open_null()); fd; fd.reset(open_null())) held_.push_back(std::move(fd));
    ASSERT_EQ(errno, EMFILE);
  }
  void TearDown() override { ::setrlimit(RLIMIT_NOFILE, &before_); }

  static rlim_t soft_limit() {
    rlimit now{};
    ::getrlimit(RLIMIT_NOFILE, &now);
    return now.rlim_cur;
  }

  rlimit before_{};
  std::vector<UniqueFd> held_;
};

TEST_F(AProcessWithoutDescriptors, GetsOneFromTheReserve) {
  const UniqueFd fd(open_with_reserve(open_null));
  EXPECT_TRUE(fd);
}

TEST_F(AProcessWithoutDescriptors, GetsNoneOtherwiseNorAfterwards) {
  EXPECT_LT(UniqueFd(open_null()).get(), 0);
  const UniqueFd fd(open_with_reserve(open_null));
  EXPECT_EQ(soft_limit(), 100U);
  EXPECT_LT(UniqueFd(open_null()).get(), 0);
  EXPECT_EQ(errno, EMFILE);
}

TEST_F(AProcessWithoutDescriptors, IsNotHelpedByTheReserveWhereTheWholeSystemHasNone) {
  int calls = 0;
  const int fd = open_with_reserve([&] {
    ++calls;
    errno = ENFILE;  // The whole system's: the limit of this process is not the trouble.
    return -1;
  });
  EXPECT_LT(fd, 0);
  EXPECT_EQ(errno, ENFILE);
  EXPECT_EQ(calls, 1);
}

TEST_F(AProcessWithoutDescriptors, KeepsWhatTheSecondAttemptSays) {
  const int fd = open_with_reserve([] { return ::open("/nonexistent", O_RDONLY | O_CLOEXEC); });
  EXPECT_LT(fd, 0);
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(AProcessWithoutDescriptors, KeepsTheReserveBelowItsHardLimit) {
  keep_descriptor_reserve();
  EXPECT_EQ(soft_limit(), before_.rlim_max - std::min<rlim_t>(kDescriptorReserve, before_.rlim_max / 4));
}

}  // namespace
}  // namespace aw
