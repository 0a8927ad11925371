// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"
#include "bus/connection.h"

namespace aw::daemon {

/// One watchdog per host, or per user: two would end the same run twice. The bus name says so as well, but a bus can be
/// away.
class InstanceLock {
 public:
  /// Refused (device_or_resource_busy), with the other's pid in words, while another process has it.
  static Result<InstanceLock> take(const std::filesystem::path& file);

 private:
  explicit InstanceLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// Where the lock of a watchdog on that bus is: in /run/analysis-watchdog, or in $XDG_RUNTIME_DIR/analysis-watchdog.
std::filesystem::path lock_file(bus::BusKind bus);

}  // namespace aw::daemon
