// SPDX-License-Identifier: Apache-2.0
#include "ledger/shipped.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;
using testing::Eq;
using testing::Optional;

class AShippedFile : public testing::Test {
 protected:
  AShippedFile() {
    std::string pattern = (fs::temp_directory_path() / "shipped-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    file_ = dir_ / "shipped";
  }
  ~AShippedFile() override { fs::remove_all(dir_); }
  void write(const std::string& text) const { std::ofstream(file_, std::ios::binary) << text; }

  fs::path dir_;
  fs::path file_;
};

TEST_F(AShippedFile, GivesBackTheLastNumber) {
  ASSERT_TRUE(write_shipped_seq(file_, "a1", 7));
  ASSERT_TRUE(write_shipped_seq(file_, "a1", 12345678901));

  EXPECT_THAT(read_shipped_seq(file_, "a1"), Optional(Eq(12345678901)));
}

TEST_F(AShippedFile, SaysNothingOfAnotherLedger) {
  ASSERT_TRUE(write_shipped_seq(file_, "a1", 7));

  EXPECT_EQ(read_shipped_seq(file_, "a2"), std::nullopt);
  EXPECT_EQ(read_shipped_seq(file_, "a"), std::nullopt);
  EXPECT_EQ(read_shipped_seq(file_, ""), std::nullopt);
}

TEST_F(AShippedFile, ThatIsMissingOrNotWhatTheShipperWritesSaysNothing) {
  EXPECT_EQ(read_shipped_seq(file_, "a1"), std::nullopt);
  for (const char* text :
       {"", "a1", "a1 7", "a1 \n", "a1 -7\n", "a1 7 \n", "a1 7x\n", "a1 99999999999999999999\n", "7\n"}) {
    write(text);
    EXPECT_EQ(read_shipped_seq(file_, "a1"), std::nullopt) << text;
  }
  write("a1 7" + std::string(100'000, '0') + "\n");
  EXPECT_EQ(read_shipped_seq(file_, "a1"), std::nullopt);
}

TEST_F(AShippedFile, IsNoLinkAndNoPipe) {
  const fs::path real = dir_ / "real";
  ASSERT_TRUE(write_shipped_seq(real, "a1", 7));
  fs::create_symlink(real, file_);
  EXPECT_EQ(read_shipped_seq(file_, "a1"), std::nullopt);

  fs::remove(file_);
  ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0);
  EXPECT_EQ(read_shipped_seq(file_, "a1"), std::nullopt);  // And it has not waited for a writer.
}

TEST_F(AShippedFile, ThatCannotBeWrittenIsAFailure) { EXPECT_FALSE(write_shipped_seq(dir_ / "none/shipped", "a1", 7)); }

}  // namespace
}  // namespace aw::ledger
