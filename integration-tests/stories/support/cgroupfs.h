// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace aw::stories {

/// Where a run of this id has its slice, and its first scope.
std::string slice_folder(const std::string& id);
std::string scope_folder(const std::string& id);

/// The cgroup of a process as a folder of cgroupfs; "" if it is gone.
std::string folder_of(pid_t pid);

/// All processes in a folder and below it.
std::vector<pid_t> processes_in(const std::string& folder);

/// "oom_kill 3" of memory.events and the like; 0 if it is not there.
std::uint64_t counter_in(const std::string& file, const std::string& key);

/// A file's one line, without its newline.
std::string line_of(const std::string& file);

}  // namespace aw::stories
