// SPDX-License-Identifier: Apache-2.0
#include "daemon/instance_lock.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <optional>

namespace aw::daemon {
namespace {

using ::testing::HasSubstr;

class ALock : public ::testing::Test {
 protected:
  ~ALock() override { std::filesystem::remove_all(directory_); }

  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("aw-lock-" + std::to_string(::getpid()));
  const std::filesystem::path file_ = directory_ / "deep" / "lock";
};

TEST_F(ALock, IsHadByOneAtATime) {
  std::optional<Result<InstanceLock>> first(InstanceLock::take(file_));
  ASSERT_TRUE(*first) << first->error().message;

  const auto second = InstanceLock::take(file_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, std::errc::device_or_resource_busy);
  EXPECT_THAT(second.error().message, HasSubstr("(process " + std::to_string(::getpid()) + ")"));

  first.reset();
  EXPECT_TRUE(InstanceLock::take(file_));
}

TEST_F(ALock, IsNotForOthersToTake) {
  std::filesystem::create_directories(file_.parent_path());
  std::ofstream(file_) << "1\n";
  std::filesystem::permissions(file_, std::filesystem::perms(0644));  // Of an earlier version.
  ASSERT_TRUE(InstanceLock::take(file_));

  EXPECT_EQ(std::filesystem::status(file_).permissions(), std::filesystem::perms(0600));
}

TEST_F(ALock, SaysWhereItCannotBe) {
  const auto refused = InstanceLock::take("/dev/null/lock");

  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().code, std::errc::device_or_resource_busy);
  EXPECT_THAT(refused.error().message, HasSubstr("/dev/null/lock"));
}

}  // namespace
}  // namespace aw::daemon
