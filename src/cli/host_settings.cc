// SPDX-License-Identifier: Apache-2.0
#include "cli/host_settings.h"

#include <unistd.h>

#include "cli/terminal.h"

namespace aw::cli {

Result<config::Settings> read_settings(bus::BusKind bus, const std::string& file, std::vector<std::string>& warnings) {
  config::SearchPath search;
  if (bus == bus::BusKind::kUser) search = config::user_search_path();
  if (!file.empty()) {
    search.main_file = file;
    search.presence = config::MainFile::kMustExist;
  }
  auto loaded = config::load_settings(search);
  if (auto* settings = std::get_if<config::Settings>(&loaded)) return std::move(*settings);
  std::string text;
  for (const config::Problem& problem : std::get<std::vector<config::Problem>>(loaded)) {
    text += (text.empty() ? "" : "; ") + printable(config::to_string(problem));
  }
  if (!file.empty()) return invalid(text);
  warnings.push_back("the configuration is not used: " + text);
  config::Settings defaults;
  defaults.ledger.path = search.ledger;
  return defaults;
}

postgres::Target shared_store(const config::PostgresSettings& settings, postgres::Access access) {
  postgres::Target target;
  target.uri = settings.uri;
  target.schemas = settings.schemas;
  if (!settings.passfile.empty() && ::access(settings.passfile.c_str(), R_OK) == 0) target.passfile = settings.passfile;
  target.application_name = "analysisctl";
  target.access = access;
  target.connect_timeout = std::chrono::seconds{3};
  return target;
}

}  // namespace aw::cli
