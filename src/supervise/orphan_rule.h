// SPDX-License-Identifier: Apache-2.0
//
// The orphan rule (design D6). A process is rooted if it is a root (the leader, or a process attached later), or
// its parent is in the run and rooted. What is not rooted is an orphan. The rule asks whether the parent is inside
// the run, not what number it has: under a subreaper (a user manager, tmux, the launcher) the parent of a
// reparented process is not pid 1, and a subreaper inside the run counts as rooted, that is what it is for.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/time.h"

namespace aw::supervise {

/// A process as /proc/PID/stat shows it. Pid and start time together name it; the pid alone is only a number.
struct ProcessStat {
  pid_t pid = 0;
  pid_t parent = 0;
  pid_t process_group = 0;
  pid_t session = 0;
  char state = '?';              ///< R, S, D, T, Z, … as proc(5) has them
  bool kernel_thread = false;    ///< PF_KTHREAD
  std::uint64_t start_time = 0;  ///< clock ticks since boot
  std::uint64_t resident_pages = 0;
  std::uint64_t cpu_ticks = 0;  ///< user and system
  int exit_status = 0;          ///< a wait status; only of a zombie, and only where we may read it
  std::string comm;
};

/// Pid and start time: what stays true of one process and of no other.
struct ProcessKey {
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  auto operator<=>(const ProcessKey&) const = default;
};
inline ProcessKey key_of(const ProcessStat& stat) { return {stat.pid, stat.start_time}; }

/// The orphans among `members` (the processes of the run), topmost only: a descendant of an orphan is not listed,
/// it goes with it. Ascending by pid. Roots that are not members are of no meaning. Cycles in the data (a snapshot
/// is not atomic) end the walk and make nobody an orphan. A process is not the parent of one that started before it:
/// its pid was another's then. O(n log n), like the two below.
std::vector<ProcessKey> find_orphans(std::span<const ProcessStat> members, std::span<const ProcessKey> roots);

/// `root` and its descendants among `members`, ascending by pid; nothing if it is not a member. A process of `spared`
/// (the roots of the run, when an orphan is to be ended) stays out, and what is only below it with it.
std::vector<ProcessKey> subtree_of(pid_t root, std::span<const ProcessStat> members,
                                   std::span<const ProcessKey> spared = {});

/// The processes among `all` that belong to the tree of `root`: descendants, and those whose process group or
/// session was founded by a member (a process whose parent died before we looked is found by these), but not the
/// siblings of `root`: the other commands of its pipeline.
/// `known` are processes seen as members earlier in the same sweep, dead ones too. `root` is included while it lives;
/// where `known` has its start time, another process that has got its pid since is not taken for it.
std::vector<ProcessKey> find_tree(pid_t root, std::span<const ProcessStat> all, std::span<const ProcessKey> known);

}  // namespace aw::supervise
