// SPDX-License-Identifier: Apache-2.0
#include "web/request_fuzz.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  aw::web::fuzz_request({reinterpret_cast<const char*>(data), size});
  return 0;
}
