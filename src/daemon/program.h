// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cgroup/cgroup_fs.h"
#include "loop/loop.h"

namespace aw::daemon {

/// What the program was started for.
struct Options {
  bool user = false;
  bool check_config = false;
  bool lift_tripwires = false;
  bool once = false;
  std::string config;
};

/// Opens the cgroups below a parent slice; a test has its own.
using OpenCgroups = std::function<Result<std::unique_ptr<cgroup::CgroupFs>>(loop::Loop&, std::string parent)>;
OpenCgroups host_cgroups();

/// The exit status when a start anew would fail again: systemd does not try (sysexits.h calls it EX_CONFIG).
inline constexpr int kCannotServe = 78;

/// Does it; the exit status. Lifting the tripwires needs no configuration and no bus: it is what is left to be done
/// when the daemon has died, perhaps of just those.
int run(const Options& options, const OpenCgroups& open_cgroups = host_cgroups());

}  // namespace aw::daemon
