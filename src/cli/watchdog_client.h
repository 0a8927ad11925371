// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bus/connection.h"

namespace aw::cli {

/// The daemon as analysisctl sees it: one blocking call after the other. Errors are worded for a person and say what
/// to do.
class WatchdogClient {
 public:
  /// Placing waits for PID 1, which may be reloading.
  static constexpr Span kPatience = std::chrono::minutes{3};

  static Result<WatchdogClient> connect(bus::BusKind kind);

  /// Calls a method of the manager with what `fill` appends.
  template <class Fill>
  Result<bus::Message> call(const char* member, Fill&& fill) {
    auto message = new_call(member);
    fill(message);
    return send(std::move(message));
  }

  Result<std::vector<bus::Dict>> list_analyses();
  Result<std::vector<bus::Dict>> list_events(const bus::Dict& filter, Span timeout = kPatience);
  Result<bus::Dict> manager_properties();
  Result<bus::Dict> analysis_properties(const std::string& id);

  bus::Connection& connection() { return *connection_; }

 private:
  WatchdogClient(std::unique_ptr<bus::Connection> connection, bus::BusKind kind)
      : connection_(std::move(connection)), kind_(kind) {}
  bus::Message new_call(const char* member);
  Result<bus::Message> send(bus::Message message, Span timeout = kPatience);
  Result<bus::Dict> get_all(const std::string& path, const char* interface);

  std::unique_ptr<bus::Connection> connection_;
  bus::BusKind kind_;
};

/// The bus as the tools use it: asked for a watchdog that is not there, it says so and does not start it.
Result<std::unique_ptr<bus::Connection>> open_bus(bus::BusKind kind);
/// … as the launcher does: a user's own watchdog is started by the first analysis that needs it, so that nobody has to
/// set anything up. The system's is its administrator's to start.
Result<std::unique_ptr<bus::Connection>> open_bus_to_launch(bus::BusKind kind);

/// A D-Bus error in words, with what to do about it.
Error describe_error(const bus::RemoteError& error, bus::BusKind kind);

/// The options of an analysis that are not in force, as a list for people; empty if all are.
std::string limits_not_in_force(const bus::Dict& properties);

}  // namespace aw::cli
