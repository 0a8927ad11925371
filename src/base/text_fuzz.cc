// SPDX-License-Identifier: Apache-2.0
#include "base/text_fuzz.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  aw::fuzz_text({reinterpret_cast<const char*>(data), size});
  return 0;
}
