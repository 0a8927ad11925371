// SPDX-License-Identifier: Apache-2.0
#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace aw {

void assertion_failed(const char* what, const char* file, int line) noexcept {
  std::fprintf(stderr, "broken promise: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace aw
