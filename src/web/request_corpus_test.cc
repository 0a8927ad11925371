// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "web/request_fuzz.h"

namespace aw::web {
namespace {

TEST(TheFuzzersCorpusOfRequests, BreaksNoPromise) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AW_SOURCE_DIR "/src/web/corpus/request")) {
    std::ifstream file(entry.path(), std::ios::binary);
    SCOPED_TRACE(entry.path());
    fuzz_request(std::string(std::istreambuf_iterator<char>(file), {}));
    ++files;
  }
  EXPECT_GE(files, 15);
}

}  // namespace
}  // namespace aw::web
