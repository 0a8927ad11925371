// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/failpoint.h"
#include "base/version.h"
#include "log/service_log.h"
#include "shipper/program.h"

using namespace aw;

int main(int argc, char** argv) {
  log::set_up("analysis-watchdog-shipper");
  shipper::Options options;
  CLI::App app{"Brings the events of this host's ledger to PostgreSQL.", "analysis-watchdog-shipper"};
  app.set_version_flag("--version", std::string("analysis-watchdog-shipper ") + kVersion);
  app.add_flag("--once", options.once, "Ship what is there, and exit; status 1 if PostgreSQL does not take it");
  app.add_flag("--user", options.user, "Ship the ledger of the calling user's own watchdog");
  app.add_option("--config", options.config, "Read FILE instead of /etc/analysis-watchdog/analysis-watchdog.conf")
      ->type_name("FILE");
  app.add_flag("--is-configured", options.is_configured,
               "Exit with status 0 if PostgresUri= is set, 1 if not, 255 if the configuration has mistakes");
#ifdef AW_FAILPOINTS
  bool list_failpoints = false;
  app.add_flag("--failpoints", list_failpoints, "List the points at which AW_FAILPOINTS= may have things go wrong");
#endif
  app.footer("See analysis-watchdog-shipper(8) and analysis-watchdog.conf(5).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
  }
#ifdef AW_FAILPOINTS
  if (list_failpoints)
    return std::fputs(failpoint::describe_points().c_str(), stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
  if (auto armed = failpoint::arm_from_environment(); !armed) {
    log::critical(armed.error().message);
    return 2;
  }
#endif
  return shipper::run(options);
}
