// SPDX-License-Identifier: Apache-2.0
#include "support/chaos.h"

#include <sys/resource.h>

#include <cstdlib>
#include <random>
#include <sstream>

#include "support/process.h"
#include "support/units.h"

namespace aw::stories {

long number_from_environment(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtol(text, nullptr, 10);
}

bool chaos_is_full() {
  const char* size = std::getenv("AW_CHAOS");
  return size != nullptr && std::string(size) == "full";
}

int chaos_size(int small, int full) { return chaos_is_full() ? full : small; }

bool allow_many_descriptors() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) < 0) return false;
  files.rlim_cur = files.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &files) == 0;
}

std::uint64_t chaos_seed() {
  const char* text = std::getenv("AW_SEED");
  if (text != nullptr && *text != '\0') return std::strtoull(text, nullptr, 10);
  return std::random_device{}();
}

std::vector<std::string> units_of_runs() {
  std::istringstream lines(run_command({"systemctl", "list-units", "--all", "--plain", "--no-legend",
                                        "analysis-*.slice", "analysis-*.scope"})
                               .out);
  std::vector<std::string> units;
  for (std::string line; std::getline(lines, line);) units.push_back(line);
  return units;
}

bool unit_is_active() { return run_command({"systemctl", "is-active", "--quiet", kDaemonUnit}).status == 0; }

}  // namespace aw::stories
