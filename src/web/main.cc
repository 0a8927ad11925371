// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

#include "base/version.h"
#include "log/service_log.h"
#include "web/program.h"

using namespace aw;

int main(int argc, char** argv) {
  log::set_up("analysis-watchdog-web");
  web::Options options;
  CLI::App app{"Shows over HTTP what the watchdog watches; read only.", "analysis-watchdog-web"};
  app.set_version_flag("--version", std::string("analysis-watchdog-web ") + kVersion);
  app.add_flag("--user", options.user, "Show the calling user's own watchdog");
  app.add_option("--config", options.config, "Read FILE instead of /etc/analysis-watchdog/analysis-watchdog.conf")
      ->type_name("FILE");
  app.add_option("--listen", options.listen, "Listen at ADDRESS:PORT or a path instead of Listen=; may be repeated")
      ->type_name("ADDRESS");
  app.add_option("--page", options.page, "Show the page in DIRECTORY instead of the installed one")
      ->type_name("DIRECTORY");
  app.footer("See analysis-watchdog-web(8) and analysis-watchdog.conf(5).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
  }
  return web::run(options);
}
