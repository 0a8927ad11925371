// SPDX-License-Identifier: Apache-2.0
#include "daemon/program.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace aw::daemon {
namespace {

/// A directory with the kernel's file names, two runs below their tripwires, and a configuration that is broken.
class AHostWithABrokenConfiguration : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* run : {"analysis-a.slice", "analysis-b.slice"}) write(high(run), "2147483648\n");
    write(config_, "[Defaults]\nMemoryLimit=a lot\n");
  }
  ~AHostWithABrokenConfiguration() override { std::filesystem::remove_all(root_); }

  static void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  static std::string read(const std::filesystem::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::filesystem::path high(const std::string& run) const { return root_ / "analysis.slice" / run / "memory.high"; }
  OpenCgroups fixture() const {
    return [this](loop::Loop& loop, std::string parent) {
      return cgroup::CgroupFs::open_fixture(loop, root_.string(), std::move(parent), {});
    };
  }

  const std::filesystem::path root_ =
      std::filesystem::temp_directory_path() / ("aw-program-" + std::to_string(::getpid()));
  const std::filesystem::path config_ = root_ / "broken.conf";
};

TEST_F(AHostWithABrokenConfiguration, HasItsTripwiresLiftedAllTheSame) {
  EXPECT_EQ(run({.lift_tripwires = true, .config = config_.string()}, fixture()), EXIT_SUCCESS);

  for (const char* one : {"analysis-a.slice", "analysis-b.slice"}) EXPECT_TRUE(read(high(one)).starts_with("max"));
}

TEST_F(AHostWithABrokenConfiguration, HasAUsersTripwiresLiftedWhereTheirManagerHasThem) {
  const std::string uid = std::to_string(::getuid());
  const auto own = root_ / "user.slice" / ("user-" + uid + ".slice") / ("user@" + uid + ".service") / "analysis.slice" /
                   "analysis-c.slice" / "memory.high";
  write(own, "2147483648\n");

  EXPECT_EQ(run({.user = true, .lift_tripwires = true, .config = config_.string()}, fixture()), EXIT_SUCCESS);

  EXPECT_TRUE(read(own).starts_with("max"));
  EXPECT_EQ(read(high("analysis-a.slice")), "2147483648\n");
}

TEST_F(AHostWithABrokenConfiguration, IsToldSoWhereTheConfigurationIsNeeded) {
  EXPECT_EQ(run({.check_config = true, .config = config_.string()}, fixture()), kCannotServe);

  EXPECT_EQ(read(high("analysis-a.slice")), "2147483648\n");
}

}  // namespace
}  // namespace aw::daemon
