// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "bus/connection.h"

namespace aw::cli {

/// The watchdog's signals: of whoever has its name, and of nobody else. Anybody can send us alone one that says what
/// they like.
class WatchdogSignals {
 public:
  WatchdogSignals() = default;
  WatchdogSignals(const WatchdogSignals&) = delete;
  WatchdogSignals& operator=(const WatchdogSignals&) = delete;

  /// Of a connection that a loop drives, and that outlives us or goes with us. What comes before the bus has said who
  /// has the name is passed over; whoever asks the watchdog after this is told of it in the answer.
  /// `on_change`: another one has the name now, or nobody has.
  Result<void> listen(bus::Connection& connection, bus::OnMessage on_signal, std::function<void()> on_change);

 private:
  std::string owner_;  ///< its unique name; "": there is none, or it is not known yet
  bus::Slot signals_, changes_;
};

}  // namespace aw::cli
