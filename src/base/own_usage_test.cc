// SPDX-License-Identifier: Apache-2.0
#include "base/own_usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "base/unique_fd.h"

namespace aw {
namespace {

TEST(OwnUsage, CountsADescriptorMoreOnceOneIsOpened) {
  const std::uint64_t before = read_own_usage().descriptors;

  const UniqueFd more(::open("/dev/null", O_RDONLY | O_CLOEXEC));

  ASSERT_TRUE(more);
  EXPECT_GE(before, 3U);
  EXPECT_EQ(read_own_usage().descriptors, before + 1);
  EXPECT_GE(read_own_usage().most_descriptors, before);
}

TEST(OwnUsage, SeesMemoryThatIsTouchedAndTimeThatIsSpent) {
  const OwnUsage before = read_own_usage();

  std::string much(32UL << 20U, 'x');
  while (read_own_usage().cpu - before.cpu < std::chrono::milliseconds{20}) much.back() = much.front();

  const OwnUsage after = read_own_usage();
  EXPECT_GE(after.resident.count(), before.resident.count() + (24UL << 20U));
  EXPECT_GT(after.cpu, before.cpu);
}

TEST(OwnStart, IsWhenThisProcessBegan) {
  const auto now = std::chrono::duration_cast<Span>(std::chrono::system_clock::now().time_since_epoch());

  const Span age = now - read_own_start().time_since_epoch();

  EXPECT_GE(age, -std::chrono::milliseconds{20});
  EXPECT_LT(age, std::chrono::minutes{10});
  ::usleep(50'000);
  const auto before = std::chrono::duration_cast<Span>(std::chrono::system_clock::now().time_since_epoch());
  const pid_t child = ::fork();
  if (child == 0) {  // It began after that, and not when its parent did.
    ::_exit(read_own_start().time_since_epoch() - before >= -std::chrono::milliseconds{20} ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace aw
