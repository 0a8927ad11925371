// SPDX-License-Identifier: Apache-2.0
#include "daemon/program.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "config/settings.h"
#include "daemon/instance_lock.h"
#include "daemon/wiring.h"
#include "log/service_log.h"
#include "process/parse.h"

namespace aw::daemon {
namespace {

int refuse(const std::vector<config::Problem>& problems) {
  for (const config::Problem& problem : problems) log::critical(config::to_string(problem));
  return kCannotServe;
}

int refuse(const Error& error, int status = EXIT_FAILURE) {
  log::critical(error.message);
  return status;
}

/// Where a user's manager has its units, without asking it: it may be gone by now.
std::string user_managers_cgroup() {
  const std::string uid = std::to_string(::getuid());
  return "/user.slice/user-" + uid + ".slice/user@" + uid + ".service";
}

/// What the service's failure path calls: nobody watches now, so no tripwire may hold a tree in a stall.
int lift_tripwires(const Options& options, const OpenCgroups& open_cgroups) {
  auto loop = loop::Loop::create();
  if (!loop) return refuse(loop.error());
  const std::string manager = options.user ? user_managers_cgroup() : "";
  auto cgroups = open_cgroups(*loop, manager + "/" + systemd::kParentSlice);
  if (!cgroups) return refuse(cgroups.error());
  log::info("lifted the tripwires of " + std::to_string((*cgroups)->lift_tripwires()) + " slices; the ceilings stay");
  return EXIT_SUCCESS;
}

/// Whether a watchdog can do its work here at all. What a host can't give now it can't give in a second either.
Result<void> check_host() {
  if (auto host = cgroup::check_host(cgroup::kMount); !host) return host;
  std::ifstream file("/proc/self/cgroup");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto own = process::parse_proc_cgroup(text);
  if (!own) return own.error();
  return cgroup::check_writable(cgroup::kMount, std::string(*own));
}

}  // namespace

OpenCgroups host_cgroups() {
  return [](loop::Loop& loop, std::string parent) {
    return cgroup::CgroupFs::open(loop, cgroup::kMount, std::move(parent), {});
  };
}

int run(const Options& options, const OpenCgroups& open_cgroups) {
  if (options.lift_tripwires) return lift_tripwires(options, open_cgroups);

  config::SearchPath search;
  if (options.user) search = config::user_search_path();
  if (!options.config.empty()) {
    search.main_file = options.config;
    search.presence = config::MainFile::kMustExist;
  }
  auto settings = config::load_settings(search);
  if (const auto* problems = std::get_if<std::vector<config::Problem>>(&settings)) return refuse(*problems);
  if (options.check_config) return EXIT_SUCCESS;

  if (auto host = check_host(); !host) return refuse(host.error(), kCannotServe);
  const auto bus = options.user ? bus::BusKind::kUser : bus::BusKind::kSystem;
  auto lock = InstanceLock::take(lock_file(bus));
  if (!lock && options.once && lock.error().code == std::errc::device_or_resource_busy) {
    log::info("nothing to do: " + lock.error().message);
    return EXIT_SUCCESS;
  }
  if (!lock) return refuse(lock.error());

  auto loop = loop::Loop::create();
  if (!loop) return refuse(loop.error());
  Daemon daemon(std::move(*loop), std::get<config::Settings>(std::move(settings)), search, bus, std::move(*lock),
                options.once ? Stay::kOnePass : Stay::kForGood);
  if (auto started = daemon.start(); !started) return refuse(started.error());
  return daemon.run();
}

}  // namespace aw::daemon
