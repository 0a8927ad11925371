// SPDX-License-Identifier: Apache-2.0
#include "daemon/program.h"

#include <spdlog/spdlog.h>

#include <cstdlib>

#include "config/settings.h"
#include "daemon/wiring.h"

namespace aw::daemon {
namespace {

int refuse(const std::vector<config::Problem>& problems) {
  for (const config::Problem& problem : problems) spdlog::critical("{}", config::to_string(problem));
  return EXIT_FAILURE;
}

int refuse(const Error& error) {
  spdlog::critical("{}", error.message);
  return EXIT_FAILURE;
}

/// What the service's failure path calls: nobody watches now, so no tripwire may hold a tree in a stall.
int lift_tripwires(const OpenCgroups& open_cgroups) {
  auto loop = loop::Loop::create();
  if (!loop) return refuse(loop.error());
  auto cgroups = open_cgroups(*loop, std::string("/") + systemd::kParentSlice);
  if (!cgroups) return refuse(cgroups.error());
  spdlog::info("lifted the tripwires of {} slices; the ceilings stay", (*cgroups)->lift_tripwires());
  return EXIT_SUCCESS;
}

}  // namespace

OpenCgroups host_cgroups() {
  return [](loop::Loop& loop, std::string parent) {
    return cgroup::CgroupFs::open(loop, cgroup::kMount, std::move(parent), {});
  };
}

int run(const Options& options, const OpenCgroups& open_cgroups) {
  if (options.lift_tripwires) return lift_tripwires(open_cgroups);

  config::SearchPath search;
  if (options.user) search = config::user_search_path();
  if (!options.config.empty()) {
    search.main_file = options.config;
    search.presence = config::MainFile::kMustExist;
  }
  auto settings = config::load_settings(search);
  if (const auto* problems = std::get_if<std::vector<config::Problem>>(&settings)) return refuse(*problems);
  if (options.check_config) return EXIT_SUCCESS;

  auto loop = loop::Loop::create();
  if (!loop) return refuse(loop.error());
  Daemon daemon(std::move(*loop), std::get<config::Settings>(std::move(settings)), search,
                options.user ? bus::BusKind::kUser : bus::BusKind::kSystem);
  if (auto started = daemon.start(); !started) return refuse(started.error());
  return daemon.run();
}

}  // namespace aw::daemon
