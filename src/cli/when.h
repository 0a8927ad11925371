// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace aw::cli {

/// A moment as journalctl takes it: "2026-11-03 10:00:00", "2026-11-03", "10:00", "now", "today", "yesterday",
/// "tomorrow", "-1h", "+5min", "2h ago", "@1700000000"; and ISO 8601, as our own JSON has it. Local time, unless it
/// ends in "UTC", "Z" or "+02:00"; what is left away is today, or zero.
Result<WallTime> parse_when(std::string_view text, WallTime now);

/// This moment on both clocks.
Now read_clocks();

}  // namespace aw::cli
