// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "base/time.h"
#include "supervise/memory.h"
#include "supervise/ports.h"

namespace aw::supervise {

/// What the kernel says of a run at one moment.
struct Reading {
  Counters counters;
  MemoryEvents events;
  std::optional<MemoryStat> stat;
  std::optional<MemoryPressure> pressure;
};

/// What was known of a run when its end was decided: gathered once, before the first signal, and kept until the end, so
/// that the record of the end answers alone.
struct Evidence {
  Now decided;
  Reading reading;
  std::size_t processes = 0;  ///< how many there were
  ProcessSurvey survey;
};

}  // namespace aw::supervise
