// SPDX-License-Identifier: Apache-2.0
#include "base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <type_traits>
#include <utility>

namespace aw {
namespace {

int open_null() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, ClosesWhatItHoldsAtTheEndOfItsLife) {
  const int number = open_null();

  { const UniqueFd fd(number); }

  EXPECT_FALSE(is_open(number));
}

TEST(UniqueFd, HoldsNothingByDefault) {
  const UniqueFd fd;

  EXPECT_FALSE(fd);
  EXPECT_EQ(fd.get(), -1);
}

TEST(UniqueFd, TakesZeroForADescriptor) {
  UniqueFd fd(0);

  EXPECT_TRUE(fd);
  EXPECT_EQ(fd.release(), 0);
}

TEST(UniqueFd, LeavesNothingBehindWhenItIsMovedFrom) {
  const int number = open_null();
  UniqueFd from(number);

  const UniqueFd to(std::move(from));

  EXPECT_EQ(to.get(), number);
  EXPECT_FALSE(from);  // NOLINT(bugprone-use-after-move): that is the point.
  EXPECT_TRUE(is_open(number));
}

TEST(UniqueFd, ClosesItsOldDescriptorWhenItIsAssignedTo) {
  const int old_number = open_null();
  const int new_number = open_null();
  UniqueFd fd(old_number);

  fd = UniqueFd(new_number);

  EXPECT_FALSE(is_open(old_number));
  EXPECT_TRUE(is_open(new_number));
  EXPECT_EQ(fd.get(), new_number);
}

TEST(UniqueFd, SurvivesBeingMovedToItself) {
  const int number = open_null();
  UniqueFd fd(number);
  UniqueFd& alias = fd;

  fd = std::move(alias);

  EXPECT_EQ(fd.get(), number);
  EXPECT_TRUE(is_open(number));
}

TEST(UniqueFd, NoLongerClosesWhatItHasReleased) {
  const int number = open_null();
  int released = -1;

  {
    UniqueFd fd(number);
    released = fd.release();
  }

  EXPECT_EQ(released, number);
  EXPECT_TRUE(is_open(number));
  ::close(number);
}

TEST(UniqueFd, ClosesItsDescriptorOnResetAndTakesTheNewOne) {
  const int old_number = open_null();
  const int new_number = open_null();
  UniqueFd fd(old_number);

  fd.reset(new_number);
  EXPECT_FALSE(is_open(old_number));
  EXPECT_TRUE(is_open(new_number));

  fd.reset();
  EXPECT_FALSE(is_open(new_number));
  EXPECT_FALSE(fd);
}

TEST(UniqueFd, IsNeitherCopiedNorMistakenForANumber) {
  EXPECT_FALSE(std::is_copy_constructible_v<UniqueFd>);
  EXPECT_FALSE(std::is_copy_assignable_v<UniqueFd>);
  EXPECT_FALSE((std::is_convertible_v<UniqueFd, int>));
  EXPECT_FALSE((std::is_convertible_v<int, UniqueFd>));
  EXPECT_TRUE(std::is_nothrow_move_constructible_v<UniqueFd>);
}

}  // namespace
}  // namespace aw
