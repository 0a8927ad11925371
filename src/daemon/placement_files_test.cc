// SPDX-License-Identifier: Apache-2.0
#include "daemon/placement_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace aw::daemon {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class PlacementNotes : public ::testing::Test {
 protected:
  PlacementNotes() {
    std::string pattern = ::testing::TempDir() + "placements-XXXXXX";
    place_ = ::mkdtemp(pattern.data());
  }
  ~PlacementNotes() override { std::filesystem::remove_all(place_); }

  std::filesystem::path place_;
};

TEST_F(PlacementNotes, AreThereForTheNextDaemonUntilTheyAreRemoved) {
  PlacementFiles(place_ / "placing").write("analysis-a.slice", "run_id=1\n");
  PlacementFiles(place_ / "placing").write("analysis-b.slice", std::string(10'000, 'b'));

  PlacementFiles next(place_ / "placing");
  EXPECT_THAT(next.list(), UnorderedElementsAre("analysis-a.slice", "analysis-b.slice"));
  EXPECT_EQ(next.read("analysis-a.slice"), "run_id=1\n");
  EXPECT_EQ(next.read("analysis-b.slice"), std::string(10'000, 'b'));

  next.remove("analysis-a.slice");
  EXPECT_EQ(next.read("analysis-a.slice"), std::nullopt);
  EXPECT_THAT(next.list(), UnorderedElementsAre("analysis-b.slice"));
}

TEST_F(PlacementNotes, AreWrittenAnewForTheNextOfThatName) {
  PlacementFiles files(place_ / "placing");
  files.write("analysis-a.slice", "a longer one\n");
  files.write("analysis-a.slice", "short\n");

  EXPECT_EQ(files.read("analysis-a.slice"), "short\n");
}

TEST_F(PlacementNotes, CanBeReadByNobodyElse) {
  PlacementFiles(place_ / "placing").write("analysis-a.slice", "cmdline=secret\n");

  struct stat directory {};
  struct stat file {};
  ASSERT_EQ(::stat((place_ / "placing").c_str(), &directory), 0);
  ASSERT_EQ(::stat((place_ / "placing/analysis-a.slice").c_str(), &file), 0);
  EXPECT_EQ(directory.st_mode & 0777, 0700U);
  EXPECT_EQ(file.st_mode & 0777, 0600U);
}

TEST_F(PlacementNotes, AreNoneWhereNothingCanBeWritten) {
  std::ofstream(place_ / "placing") << "a file where the directory should be";
  PlacementFiles files(place_ / "placing");
  files.write("analysis-a.slice", "run_id=1\n");

  EXPECT_EQ(files.read("analysis-a.slice"), std::nullopt);
  EXPECT_THAT(files.list(), IsEmpty());
  files.remove("analysis-a.slice");
}

}  // namespace
}  // namespace aw::daemon
