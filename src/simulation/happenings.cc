// SPDX-License-Identifier: Apache-2.0
//
// What the processes of runs do, and what the kernel does about it.
#include <csignal>

#include "simulation/history.h"

namespace aw::simulation {

using std::chrono::milliseconds;
using testing::Process;
using testing::Sender;
using testing::Slice;
using testing::World;

bool History::is_at_work(pid_t pid) {
  if (pid == 0) return false;
  const Process& process = world_.process(pid);
  const auto name = process.cgroup.substr(0, process.cgroup.rfind('/'));
  const auto slice = world_.slices().find(name.substr(name.rfind('/') + 1));
  const bool frozen = slice != world_.slices().end() && slice->second->frozen;
  return !process.sleeps_uninterruptibly && process.stat.state != 'T' && !frozen;
}

void History::fork() {
  pid_t parent = any_member(any_id());
  if (!is_at_work(parent)) return;
  for (unsigned i = 1 + dice_.below(4); i > 0; --i) {
    const pid_t child = fork_of(parent, "python");
    say("  process ", parent, " forks ", child);
    if (dice_.chance(50)) parent = child;
  }
}

void History::daemonize() {
  const pid_t parent = any_member(any_id());
  if (!is_at_work(parent)) return;
  const pid_t between = fork_of(parent, "sh");
  const pid_t daemon = fork_of(between, "daemon");
  world_.setsid(daemon);
  world_.exit(between);
  say("  process ", parent, " has left the daemon ", daemon);
}

void History::exit() {
  const pid_t pid = any_member(any_id());
  if (!is_at_work(pid)) return;
  say("  process ", pid, " exits");
  world_.exit(pid, static_cast<int>(dice_.below(3)));
}

void History::exit_whole() {
  const std::string& id = any_id();
  say("  all of \"", id, "\" exits");
  for (const pid_t pid : members_of(id)) {
    if (is_at_work(pid)) world_.exit(pid);
  }
}

void History::die_of_signal() {
  const pid_t pid = any_member(any_id());
  if (pid == 0) return;
  const int signal = dice_.one_of<int>({SIGSEGV, SIGTERM, SIGINT});
  say("  process ", pid, " gets signal ", signal);
  if (signal == SIGTERM) return world_.kill(pid, SIGTERM);
  if (!world_.process(pid).sleeps_uninterruptibly) world_.die(pid, signal);
}

void History::be_killed() {
  const std::string& id = any_id();
  const bool all = dice_.chance(50);
  say("  somebody kills ", all ? "all of" : "a process of", " \"", id, "\"");
  if (const pid_t one = any_member(id); one != 0 && !all) return world_.kill(one, SIGKILL);
  for (const pid_t pid : members_of(id)) world_.kill(pid, SIGKILL);
}

void History::lose_owner() {
  const pid_t worker = any_worker();
  say("  the worker ", worker, " dies");
  world_.die(worker, SIGKILL);
}

void History::grow_over(Slice& slice, const std::string& id) {
  const auto members = world_.members(slice.path);
  const std::string& cgroup = world_.process(dice_.one_of(members)).cgroup;
  say("  the kernel kills ", cgroup);
  world_.oom_kill(id, cgroup.substr(cgroup.rfind('/') + 1));
}

void History::grow() {
  const std::string& id = any_id();
  if (members_of(id).empty()) return;
  Slice& slice = world_.slice(id);
  const Bytes ceiling = slice.limits.ceiling;
  const Bytes scale = ceiling.is_infinite() ? kGiB : ceiling;
  const Bytes anonymous(scale.count() / 100 * (20 + dice_.below(90)));
  const Bytes cache(dice_.chance(50) ? 0 : scale.count() / 100 * dice_.below(100));
  say("  \"", id, "\" has ", format_size(anonymous), " and ", format_size(cache), " of page cache");
  if (anonymous > ceiling) {
    if (dice_.chance(50)) ++slice.events.high;  // Too fast for anybody to see it.
    return grow_over(slice, id);
  }
  world_.use_memory(id, anonymous, std::min(cache, ceiling - anonymous));
}

void History::overrun_parent() {
  const std::string& id = any_id();
  const pid_t victim = any_member(id);
  if (victim == 0) return;
  const std::string& cgroup = world_.process(victim).cgroup;
  const bool host = dice_.chance(50);
  say("  the kernel kills ", cgroup, " for ", host ? "the host's" : "the parent's", " limit");
  if (!host) ++world_.cgroups.parent_ooms;
  if (Known* known = witness_.find_by_cgroup(cgroup_of(id))) known->killed = true;
  world_.oom_kill(id, cgroup.substr(cgroup.rfind('/') + 1), false);
}

void History::stall() {
  const std::string& id = any_id();
  if (members_of(id).empty()) return;
  say("  \"", id, "\" stalls for memory");
  Slice& slice = world_.slice(id);
  if (Known* known = witness_.find_by_cgroup(cgroup_of(id))) known->stalled = true;
  const unsigned looks = 2 + dice_.below(20);
  for (unsigned i = 0; i < looks && !members_of(id).empty() && !seen(); ++i) {
    slice.pressure.full_total += milliseconds{950};
    slice.pressure.some_total += milliseconds{990};
    slice.stat.workingset_refault_file += 1000;
    ++slice.events.high;
    world_.notify(slice);
    pass(milliseconds{1000});
  }
}

void History::sleep_or_wake() {
  const pid_t pid = any_member(any_id());
  if (pid == 0) return;
  Process& process = world_.process(pid);
  if (process.sleeps_uninterruptibly) {
    say("  process ", pid, " wakes");
    return world_.wake(pid);
  }
  say("  process ", pid, " sleeps uninterruptibly");
  process.sleeps_uninterruptibly = true;
}

void History::stop_or_freeze() {
  const std::string& id = any_id();
  const pid_t pid = any_member(id);
  if (pid == 0) return;
  if (dice_.chance(50)) {
    say("  process ", pid, " is stopped");
    return world_.kill(pid, SIGSTOP);
  }
  say("  \"", id, "\" is frozen");
  world_.slice(id).frozen = true;
}

}  // namespace aw::simulation
