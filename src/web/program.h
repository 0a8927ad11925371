// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/settings.h"
#include "loop/loop.h"
#include "web/gateway.h"

namespace aw::web {

/// What the program was started for.
struct Options {
  bool user = false;
  std::string config = {};
  std::vector<std::string> listen = {};  ///< --listen, in place of Listen=
  std::string page = {};                 ///< --page, in place of where it is installed
};

/// Serves until it is told to stop; the exit status.
int run(const Options& options);

/// Who sees everything by these settings. Fails where the token is configured and can't be read.
Result<Gatekeeper> make_gatekeeper(const config::Settings& settings, bool user);

/// All parts together, on a loop.
class Service {
 public:
  Service(loop::Loop loop, config::Settings settings, config::SearchPath search, const Options& options);

  Result<void> start(std::vector<UniqueFd> sockets);
  int run() { return loop_.run(); }

 private:
  void reload();

  loop::Loop loop_;
  config::Settings settings_;
  config::SearchPath search_;
  Options options_;
  Live live_;
  History history_;
  std::optional<Gateway> gateway_;
  std::unique_ptr<Server> server_;
  std::vector<loop::Source> signals_;
};

}  // namespace aw::web
