// SPDX-License-Identifier: Apache-2.0
#include "support/manager.h"

#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

namespace aw::stories {

bool is_users() {
  static const bool kUsers = [] {
    const char* manager = std::getenv("AW_STORIES_MANAGER");
    if (manager == nullptr || std::string_view(manager) == "system") return false;
    if (std::string_view(manager) != "user") throw std::runtime_error("AW_STORIES_MANAGER is neither user nor system");
    if (::getuid() == 0) throw std::runtime_error("a user's own watchdog is no matter of root's");
    return true;
  }();
  return kUsers;
}

bus::BusKind bus_kind() { return is_users() ? bus::BusKind::kUser : bus::BusKind::kSystem; }

std::string manager_cgroup() {
  if (!is_users()) return "";
  const std::string uid = std::to_string(::getuid());
  return "/user.slice/user-" + uid + ".slice/user@" + uid + ".service";
}

std::string runs_folder() { return "/sys/fs/cgroup" + manager_cgroup() + "/analysis.slice"; }

std::string transient_folder() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return std::string(is_users() && runtime != nullptr ? runtime : "/run") + "/systemd/transient";
}

Words for_manager(const Words& argv) {
  if (!is_users() || argv.empty()) return argv;
  const std::string program = argv.front().substr(argv.front().rfind('/') + 1);
  for (const char* told : {"analysis-run", "analysisctl", "analysis-watchdogd", "systemctl", "systemd-run"}) {
    if (program != told) continue;
    Words words{argv.front(), "--user"};
    words.insert(words.end(), argv.begin() + 1, argv.end());
    return words;
  }
  return argv;
}

}  // namespace aw::stories
