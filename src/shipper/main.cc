// SPDX-License-Identifier: Apache-2.0
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>

#include "base/version.h"
#include "shipper/program.h"

namespace {

using namespace aw;

/// "<4>": the level as journald reads it from a service's output (sd-daemon(3)).
class JournalLevel final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& text) override {
    const std::string_view level = message.level >= spdlog::level::critical ? "<2>"
                                   : message.level == spdlog::level::err    ? "<3>"
                                   : message.level == spdlog::level::warn   ? "<4>"
                                                                            : "<6>";
    text.append(level.data(), level.data() + level.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return spdlog::details::make_unique<JournalLevel>(); }
};

void set_up_log() {
  auto log = spdlog::stderr_logger_mt("analysis-watchdog-shipper");
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<JournalLevel>('*');
  formatter->set_pattern(std::getenv("JOURNAL_STREAM") != nullptr ? "%*%v" : "analysis-watchdog-shipper: %l: %v");
  log->set_formatter(std::move(formatter));
  spdlog::set_default_logger(std::move(log));
}

}  // namespace

int main(int argc, char** argv) {
  set_up_log();
  shipper::Options options;
  CLI::App app{"Brings the events of this host's ledger to PostgreSQL.", "analysis-watchdog-shipper"};
  app.set_version_flag("--version", std::string("analysis-watchdog-shipper ") + kVersion);
  app.add_flag("--once", options.once, "Ship what is there, and exit; status 1 if PostgreSQL does not take it");
  app.add_flag("--user", options.user, "Ship the ledger of the calling user's own watchdog");
  app.add_option("--config", options.config, "Read FILE instead of /etc/analysis-watchdog/analysis-watchdog.conf")
      ->type_name("FILE");
  app.add_flag("--is-configured", options.is_configured,
               "Exit with status 0 if PostgresUri= is set, 1 if not, 255 if the configuration has mistakes");
  app.footer("See analysis-watchdog-shipper(8) and analysis-watchdog.conf(5).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : 2;
  }
  return shipper::run(options);
}
