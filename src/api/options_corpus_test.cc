// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "api/options_fuzz.h"

namespace aw::api {
namespace {

TEST(TheFuzzersCorpusOfOptions, BreaksNoPromise) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AW_SOURCE_DIR "/src/api/corpus/options")) {
    std::ifstream file(entry.path(), std::ios::binary);
    SCOPED_TRACE(entry.path());
    fuzz_options(std::string(std::istreambuf_iterator<char>(file), {}));
    ++files;
  }
  EXPECT_GE(files, 8);
}

}  // namespace
}  // namespace aw::api
