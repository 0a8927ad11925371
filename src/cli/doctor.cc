// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "cli/report.h"
#include "cli/watchdog_client.h"

namespace aw::cli {
namespace {

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Finding examine_cgroup() {
  struct statfs fs {};
  if (::statfs("/sys/fs/cgroup", &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC)
    return {"cgroup v2", Health::kOk, "alone", ""};
  return {"cgroup v2", Health::kFail, "cgroup v1 or a hybrid of both",
          "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line"};
}

Finding examine_controllers() {
  std::istringstream present(read_text("/sys/fs/cgroup/cgroup.controllers"));
  const std::set<std::string> controllers{std::istream_iterator<std::string>(present), {}};
  std::string missing;
  for (const char* wanted : {"cpu", "memory", "pids"}) {
    if (!controllers.contains(wanted)) missing += std::string(missing.empty() ? "" : ", ") + wanted;
  }
  if (missing.empty()) return {"controllers", Health::kOk, "cpu, memory, pids", ""};
  return {"controllers", Health::kFail, "missing: " + missing, "remove cgroup_disable= from the kernel command line"};
}

Finding examine_kill() {
  // Every cgroup but the root has it.
  const bool has = std::filesystem::exists("/sys/fs/cgroup/init.scope/cgroup.kill") ||
                   std::filesystem::exists("/sys/fs/cgroup/system.slice/cgroup.kill");
  if (has) return {"cgroup.kill", Health::kOk, "there", ""};
  return {"cgroup.kill", Health::kFail, "not there", "it came with Linux 5.14; boot a newer kernel"};
}

Finding examine_pressure() {
  if (::access("/proc/pressure/memory", R_OK) == 0) return {"pressure (PSI)", Health::kOk, "there", ""};
  return {"pressure (PSI)", Health::kWarn, "not there: stalls can't be seen",
          "boot with psi=1 on the kernel command line"};
}

Finding examine_swap() {
  const std::string swaps = read_text("/proc/swaps");
  const bool on = std::count(swaps.begin(), swaps.end(), '\n') > 1;
  return {"swap", Health::kOk, on ? "on; analyses don't use it (MemorySwapMax=0)" : "off", ""};
}

Finding examine_watches() {
  const long watches = std::atol(read_text("/proc/sys/fs/inotify/max_user_watches").c_str());
  const std::string found = std::to_string(watches) + " inotify watches";
  if (watches >= 8192) return {"inotify", Health::kOk, found, ""};
  return {"inotify", Health::kWarn, found, "one for each analysis: sysctl fs.inotify.max_user_watches=65536"};
}

Finding examine_kernel() {
  utsname name{};
  if (::uname(&name) < 0) return {"kernel", Health::kWarn, "unknown", ""};
  return {"kernel", Health::kOk, name.release, ""};
}

Finding examine_manager(bus::Connection& connection) {
  auto call = connection.new_call("org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                  "org.freedesktop.DBus.Properties", "Get");
  call.append("org.freedesktop.systemd1.Manager").append("Version");
  auto reply = connection.call_blocking(std::move(call));
  if (auto* message = std::get_if<bus::Message>(&reply)) {
    const auto version = message->read_variant();
    const auto* text = version ? version->get_if<std::string>() : nullptr;
    if (text != nullptr) return {"systemd", Health::kOk, *text, ""};
  }
  return {"systemd", Health::kFail, "does not answer on this bus", "the watchdog needs systemd as the service manager"};
}

Finding examine_daemon(WatchdogClient& client) {
  const auto properties = client.manager_properties();
  if (!properties) return {"watchdog", Health::kFail, "does not answer", properties.error().message};
  const std::string found = text_of(*properties, "Version") + ", watching " +
                            std::to_string(number_of(*properties, "MonitoredCount").value_or(0)) + " analyses";
  const bus::Value* healthy = bus::find(*properties, "StoreHealthy");
  if (healthy != nullptr && *healthy == bus::Value{true}) return {"watchdog", Health::kOk, found, ""};
  return {"watchdog", Health::kWarn, found + "; records were lost", "see: systemctl status systemd-journald"};
}

}  // namespace

std::vector<Finding> examine_host(bus::BusKind kind) {
  std::vector<Finding> findings{examine_kernel(),   examine_cgroup(), examine_controllers(), examine_kill(),
                                examine_pressure(), examine_swap(),   examine_watches()};
  auto client = WatchdogClient::connect(kind);
  if (!client) {
    findings.push_back({"bus", Health::kFail, client.error().message, "start dbus"});
    return findings;
  }
  findings.push_back(examine_manager(client->connection()));
  findings.push_back(examine_daemon(*client));
  return findings;
}

}  // namespace aw::cli
