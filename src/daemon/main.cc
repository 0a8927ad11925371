// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "base/failpoint.h"
#include "base/version.h"
#include "daemon/program.h"
#include "log/service_log.h"

using namespace aw;

int main(int argc, char** argv) {
  log::set_up("analysis-watchdogd");
  daemon::Options options;
  CLI::App app{"The analysis watchdog: ends analyses that outlive their time, outgrow their memory or leave orphans.",
               "analysis-watchdogd"};
  app.set_version_flag("--version", std::string("analysis-watchdogd ") + kVersion);
  bool foreground = true;
  app.add_flag("--daemon", foreground, "Watch, in the foreground, as a service of systemd's (the default)");
  app.add_flag("--once", options.once,
               "One pass over what runs: end what is overdue, look for orphans, say what was done, and exit");
  app.add_flag("--user", options.user, "Serve the calling user, on the user's bus");
  app.add_option("--config", options.config, "Read FILE instead of /etc/analysis-watchdog/analysis-watchdog.conf")
      ->type_name("FILE");
  app.add_flag("--check-config", options.check_config, "Read the configuration, say what is wrong with it, and exit");
  app.add_flag("--lift-tripwires", options.lift_tripwires,
               "Lift memory.high of all runs and exit; for the service's stop and failure path");
#ifdef AW_FAILPOINTS
  bool list_failpoints = false;
  app.add_flag("--failpoints", list_failpoints, "List the points at which AW_FAILPOINTS= may have things go wrong");
#endif
  app.footer("See analysis-watchdogd(8) and analysis-watchdog.conf(5).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
  }
#ifdef AW_FAILPOINTS
  if (list_failpoints)
    return std::fputs(failpoint::describe_points().c_str(), stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
  // Not for the service's failure path: it would stumble over the point that has brought it about.
  if (auto armed = options.lift_tripwires ? Result<void>() : failpoint::arm_from_environment(); !armed) {
    log::critical(armed.error().message);
    return 2;
  }
#endif
  return daemon::run(options);
}
