// SPDX-License-Identifier: Apache-2.0
//
// Who it happens to: limits, callers, processes, any of them.
#include <algorithm>

#include "simulation/history.h"

namespace aw::simulation {

using std::chrono::milliseconds;
using std::chrono::seconds;
using supervise::Caller;
using supervise::Limits;
using supervise::OrphanPolicy;
using supervise::OwnerPolicy;
using testing::OnTerm;
using testing::Process;
using testing::Reaps;
using testing::World;

Limits History::any_limits() {
  Limits limits;
  limits.memory = dice_.chance(10) ? Bytes::infinite() : Bytes(kMiB.count() * (32 + dice_.below(480)));
  if (dice_.chance(30)) limits.headroom = Bytes(kMiB.count() * dice_.below(64));
  limits.wall_clock = dice_.chance(10) ? kForever : milliseconds{200 + dice_.below(60'000)};
  limits.grace = milliseconds{100 + dice_.below(8'000)};
  limits.orphan_policy = dice_.chance(70) ? OrphanPolicy::kKill : OrphanPolicy::kReport;
  limits.owner_policy = dice_.chance(60) ? OwnerPolicy::kKill : OwnerPolicy::kIgnore;
  if (dice_.chance(20)) limits.tasks_max = 1 + dice_.below(100);
  if (dice_.chance(20)) limits.labels = {{"team", "data"}, {"what\nelse", "a=b%"}};
  return limits;
}

Caller History::any_caller() { return world_.caller(dice_.chance(70) ? World::kUser : 0); }

pid_t History::fork_of(pid_t parent, const char* comm) {
  const pid_t pid = world_.spawn(parent, comm);
  Process& process = world_.process(pid);
  process.on_term = dice_.one_of<OnTerm>({OnTerm::kDies, OnTerm::kIgnores, OnTerm::kCleansUp});
  process.cleanup = dice_.span(Span(0), seconds{12});
  process.reaps = dice_.one_of<Reaps>({Reaps::kSoon, Reaps::kSoon, Reaps::kAtOnce, Reaps::kNever});
  process.subreaper = dice_.chance(10);
  process.anonymous = Bytes(kMiB.count() * dice_.below(40));
  process.cmdline_blocks = dice_.chance(5);
  if (dice_.chance(20)) world_.setsid(pid);
  return pid;
}

std::vector<pid_t> History::members_of(const std::string& id) const {
  return world_.members(world_.cgroups.path_of(World::slice_name(id)));
}

pid_t History::any_member(const std::string& id) {
  const auto members = members_of(id);
  return members.empty() ? 0 : dice_.one_of(members);
}

pid_t History::any_worker() {
  for (pid_t& worker : workers_) {
    if (world_.alive(worker)) continue;
    worker = world_.spawn(world_.user_shell, "worker");
    witness_.shield(worker);
  }
  return dice_.one_of(workers_);
}

std::unique_ptr<supervise::ProcessHandle> History::hold(pid_t pid) {
  auto opened = world_.processes.open(pid);
  return opened ? std::move(*opened) : nullptr;
}

}  // namespace aw::simulation
