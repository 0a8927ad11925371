// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/time.h"

namespace aw {

/// What this process has used, and holds. What can't be read is 0.
struct OwnUsage {
  Span cpu{0};  ///< user and system, since it began
  Bytes resident;
  std::uint64_t descriptors = 0;
  std::uint64_t most_descriptors = 0;  ///< the soft limit
};

/// Reads /proc/self: counting a thousand descriptors takes about a tenth of a millisecond.
OwnUsage read_own_usage();

/// When this process began, to a hundredth of a second. To be read once: the clock may be set meanwhile.
WallTime read_own_start();

}  // namespace aw
