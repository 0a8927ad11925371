// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/text_fuzz.h"

namespace aw {
namespace {

TEST(TheFuzzersCorpusOfTexts, BreaksNoPromise) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AW_SOURCE_DIR "/src/base/corpus/text")) {
    std::ifstream file(entry.path(), std::ios::binary);
    SCOPED_TRACE(entry.path());
    fuzz_text(std::string(std::istreambuf_iterator<char>(file), {}));
    ++files;
  }
  EXPECT_GE(files, 20);
}

}  // namespace
}  // namespace aw
