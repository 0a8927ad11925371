// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/time.h"
#include "bus/connection.h"
#include "cli/json.h"

namespace aw::cli {

struct LaunchOptions {
  std::string id;
  std::vector<std::string> command;
  bus::Dict limits;  ///< as RegisterAnalysis takes them
  bool detach = false;
  bool quiet = false;
  bool report = false;
  std::string report_file;  ///< empty: stderr
  JsonStyle json = JsonStyle::kOff;
  bus::BusKind bus = bus::BusKind::kSystem;
  /// How long the record of the end is waited for while the daemon is away (a restart is shorter), and while the bus
  /// is: whoever has ended the command is asked when it is back.
  Span daemon_patience = std::chrono::seconds{10};
  Span bus_patience = std::chrono::minutes{2};
};

/// The exit statuses of our own, as timeout(1) and the shells have them.
inline constexpr int kExitOwnFailure = 125;
inline constexpr int kExitNotExecutable = 126;
inline constexpr int kExitNotFound = 127;

/// Starts the command at a gate, registers it, opens the gate, and waits for it and for the record of its end. Returns
/// what analysis-run exits with.
///
/// `argv` is the program's own argument vector: the waiting child writes its command over its copy of it, so that it
/// is known by the name of what it will be, also to a record of a command that lives for a moment only.
int launch(const LaunchOptions& options, int argc, char** argv);

/// "python3-1f00ab12": the command's name, made a legal id, and a suffix.
std::string make_id(const std::string& command);

}  // namespace aw::cli
