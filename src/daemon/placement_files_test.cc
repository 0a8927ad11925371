// SPDX-License-Identifier: Apache-2.0
#include "daemon/placement_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "testing/temporary_folder.h"

namespace aw::daemon {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr char kA[] = "00000000-0000-4000-8000-00000000000a";
constexpr char kB[] = "00000000-0000-4000-8000-00000000000b";

class PlacementNotes : public ::testing::Test {
 protected:
  const testing::TemporaryFolder folder_;
  const std::filesystem::path& place_ = folder_.path();
};

TEST_F(PlacementNotes, AreThereForTheNextDaemonUntilTheyAreRemoved) {
  PlacementFiles(place_ / "placing").write(kA, "run_id=1\n");
  PlacementFiles(place_ / "placing").write(kB, std::string(10'000, 'b'));

  PlacementFiles next(place_ / "placing");
  EXPECT_THAT(next.list(), UnorderedElementsAre(kA, kB));
  EXPECT_EQ(next.read(kA), "run_id=1\n");
  EXPECT_EQ(next.read(kB), std::string(10'000, 'b'));

  next.remove(kA);
  EXPECT_EQ(next.read(kA), std::nullopt);
  EXPECT_THAT(next.list(), UnorderedElementsAre(kB));
}

TEST_F(PlacementNotes, AreWrittenAnewForTheSameRun) {
  PlacementFiles files(place_ / "placing");
  files.write(kA, "a longer one\n");
  files.write(kA, "short\n");

  EXPECT_EQ(files.read(kA), "short\n");
}

TEST_F(PlacementNotes, CanBeReadByNobodyElse) {
  PlacementFiles(place_ / "placing").write(kA, "cmdline=secret\n");

  struct stat directory {};
  struct stat file {};
  ASSERT_EQ(::stat((place_ / "placing").c_str(), &directory), 0);
  ASSERT_EQ(::stat((place_ / "placing" / kA).c_str(), &file), 0);
  EXPECT_EQ(directory.st_mode & 0777, 0700U);
  EXPECT_EQ(file.st_mode & 0777, 0600U);
}

TEST_F(PlacementNotes, AreNoneWhereNothingCanBeWritten) {
  std::ofstream(place_ / "placing") << "a file where the directory should be";
  PlacementFiles files(place_ / "placing");
  files.write(kA, "run_id=1\n");

  EXPECT_EQ(files.read(kA), std::nullopt);
  EXPECT_THAT(files.list(), IsEmpty());
  files.remove(kA);
}

}  // namespace
}  // namespace aw::daemon
