// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "ledger/rows_fuzz.h"

namespace aw::ledger {
namespace {

TEST(TheFuzzersCorpusOfRows, BreaksNoPromise) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AW_SOURCE_DIR "/src/ledger/corpus/rows")) {
    std::ifstream file(entry.path(), std::ios::binary);
    SCOPED_TRACE(entry.path());
    fuzz_rows(std::string(std::istreambuf_iterator<char>(file), {}));
    ++files;
  }
  EXPECT_GE(files, 6);
}

}  // namespace
}  // namespace aw::ledger
