// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "support/watchdog.h"

namespace aw::stories {

inline constexpr char kDaemonUnit[] = "analysis-watchdogd.service";

/// Names of the units of these ids' runs that systemd knows of.
std::vector<std::string> find_units(Watchdog& client, const std::vector<std::string>& ids);
std::vector<std::string> find_units(Watchdog& client, const std::string& id);

/// A property of a unit, asked of systemd; nothing if the unit is not loaded.
std::optional<std::uint64_t> unit_number(Watchdog& client, const std::string& unit, const char* property);
std::string unit_text(Watchdog& client, const std::string& unit, const char* property);

/// `systemctl ARGUMENTS`; its output is in the failure when it fails.
bool systemctl(const Words& arguments);

/// The daemon's main process, 0 if it does not run. Asked of systemd, so that nothing is activated.
pid_t daemon_pid(Watchdog& client);

}  // namespace aw::stories
