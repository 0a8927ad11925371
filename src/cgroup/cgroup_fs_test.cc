// SPDX-License-Identifier: Apache-2.0
//
// The adapter on a directory with the kernel's file names.
#include "cgroup/cgroup_fs.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace aw::cgroup {
namespace {

class ATree : public ::testing::Test {
 protected:
  ATree() {
    std::string name = ::testing::TempDir() + "cgroup-XXXXXX";
    root_ = ::mkdtemp(name.data());
  }
  ~ATree() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::vector<supervise::Ancestor> ancestors_of_runs_in(const std::string& parent) {
    return CgroupFs::open_fixture(loop_, root_, parent, {}).value()->read_ancestors();
  }

  std::filesystem::path root_;
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

}  // namespace
}  // namespace aw::cgroup
