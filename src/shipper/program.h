// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "config/settings.h"
#include "loop/loop.h"
#include "shipper/shipper.h"

namespace aw::shipper {

/// What the program was started for.
struct Options {
  bool user = false;
  bool once = false;
  bool is_configured = false;
  std::string config;
};

/// Does it; the exit status.
int run(const Options& options);

/// What the settings mean for the shipper, with the credential that systemd has given.
ShipperOptions shipper_options(const config::Settings& settings, bool user);

/// The service: a shipper on a loop.
class Service {
 public:
  Service(loop::Loop loop, config::Settings settings, config::SearchPath search, bool user);

  Result<void> start();
  int run() { return loop_.run(); }

 private:
  void round();
  void on_ledger_changed(loop::DirectoryChange change);
  void watch_ledger();
  void reload();
  void tell_status();

  loop::Loop loop_;
  config::Settings settings_;
  config::SearchPath search_;
  bool user_;
  std::unique_ptr<Shipper> shipper_;
  std::vector<loop::Source> signals_;
  loop::Source timer_;
  loop::Source ledger_watch_;
  Instant due_ = kNever;
  Instant recounted_{};
  Span look_again_{0};      ///< after a change of the ledger; 0: not any more
  bool waits_out_ = false;  ///< a fault: a change of the ledger is no reason to try again
  std::string status_;
};

}  // namespace aw::shipper
