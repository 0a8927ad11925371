// SPDX-License-Identifier: Apache-2.0
//
// Whose watchdog the stories are told of: the host's, by root; or, with AW_STORIES_MANAGER=user, a user's own, by that
// user, on their bus, in their manager and on the subtree that the host has delegated to it (run-stories sees to that).
// Most stories don't know: the same commands and calls go to the one or the other. One that needs what such a user has
// not skips, and says what that is.
#pragma once

#include <string>

#include "bus/connection.h"
#include "support/process.h"

namespace aw::stories {

/// Whether it is a user's own.
bool is_users();
bus::BusKind bus_kind();

/// The manager's cgroup as /proc/PID/cgroup shows it; "" for the root.
std::string manager_cgroup();
/// Where the runs' slices are, in cgroupfs.
std::string runs_folder();
/// What systemd makes transient units of.
std::string transient_folder();

/// The words with `--user` behind the name of a program that has to be told.
Words for_manager(const Words& argv);

}  // namespace aw::stories
