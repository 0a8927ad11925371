// SPDX-License-Identifier: Apache-2.0
#include "supervise/series_fuzz.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  aw::supervise::fuzz_series({reinterpret_cast<const char*>(data), size});
  return 0;
}
