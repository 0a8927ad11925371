// SPDX-License-Identifier: Apache-2.0
#include "ledger/rows_fuzz.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  aw::ledger::fuzz_rows({reinterpret_cast<const char*>(data), size});
  return 0;
}
