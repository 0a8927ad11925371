// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "bus/value.h"

namespace aw::cli {

/// The limits on a command line, as they were typed.
struct LimitOptions {
  std::string memory, headroom, wall_clock, grace, tasks, cpu_quota, cpu_weight, orphans, owner, description;
  std::vector<std::string> labels;
};

/// Adds --memory, --wall-clock and the rest, in a group of their own.
void add_limit_options(CLI::App& app, LimitOptions& options);

/// What was typed as the options of RegisterAnalysis; what was not typed is left to the daemon. The error names the
/// option and says what would be accepted.
Result<bus::Dict> to_bus_options(const LimitOptions& options);

/// One "MemoryLimit=4G" of `analysisctl set`; names as on the bus, values in systemd's spelling.
Result<std::pair<std::string, bus::Value>> parse_assignment(const std::string& text);

}  // namespace aw::cli
