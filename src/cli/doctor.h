// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "bus/connection.h"

namespace aw::cli {

enum class Health { kOk, kWarn, kFail };

/// One thing that was looked at.
struct Finding {
  std::string what;
  Health health = Health::kOk;
  std::string found;
  std::string fix;  ///< what to do, where it is not ok
};

/// Looks whether this host can serve, and whether the watchdog does.
std::vector<Finding> examine_host(bus::BusKind kind);

}  // namespace aw::cli
