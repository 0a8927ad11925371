// SPDX-License-Identifier: Apache-2.0
//
// What clients ask for.
#include "base/assert.h"
#include "simulation/history.h"

namespace aw::simulation {

using std::chrono::milliseconds;
using std::chrono::seconds;
using supervise::Limits;
using supervise::RunKey;
using testing::World;

void History::request_register(const std::string& id, pid_t pid) {
  auto process = hold(pid);
  if (!process) return;  // The bus has no descriptor left for it.
  const Limits limits = any_limits();
  say("  register process ", pid, " as \"", id, "\": memory ", format_size(limits.memory), ", wall clock ",
      format_span(limits.wall_clock), ", grace ", format_span(limits.grace));
  const auto leader = process->key();
  witness_.on_request(id, leader, limits);
  world_.supervisor.request_register({World::id(id), std::move(process), limits, any_caller()}, world_.now(),
                                     [this, id, leader](const Result<RunKey>& answer, const Now&) {
                                       say("  answer for \"", id,
                                           "\": ", answer ? "registered" : answer.error().message);
                                       tally_.refused += answer ? 0 : 1;
                                       witness_.on_answer(id, leader, answer.has_value());
                                     });
}

void History::register_new() {
  const pid_t leader = fork_of(dice_.chance(30) ? fork_of(any_worker(), "make") : any_worker(), "analysis");
  if (dice_.chance(15)) world_.process(leader).uid = 0;
  request_register(any_id(), leader);
  if (dice_.chance(10)) world_.exit(leader);
}

void History::register_tree() {
  const pid_t leader = fork_of(any_worker(), "analysis");
  std::vector<pid_t> tree{leader};
  for (unsigned i = dice_.below(6); i > 0; --i) tree.push_back(fork_of(dice_.one_of(tree), "python"));
  for (const pid_t pid : tree) {
    if (pid != leader && dice_.chance(15)) world_.exit(pid);
  }
  if (dice_.chance(25)) {  // It forks while it is moved.
    world_.cgroups.before_move = [this, left = 3U](pid_t pid) mutable {
      if (left == 0 || !world_.alive(pid)) return;
      --left;
      (void)world_.spawn(pid, "late");
    };
  }
  request_register(any_id(), leader);
  if (dice_.chance(50)) world_.deliver();
  for (const pid_t pid : tree) {
    if (dice_.chance(10) && world_.alive(pid)) world_.exit(pid);
  }
}

void History::register_odd() {
  const std::string& id = any_id();
  switch (dice_.below(5)) {
    case 0:
      return request_register(id, service_);
    case 1:
      return request_register(id, World::kInit);
    case 2: {  // A zombie.
      const pid_t pid = fork_of(any_worker(), "short");
      world_.exit(pid);
      return request_register(id, pid);
    }
    case 3:  // One that is registered, or belongs to a run.
      if (const pid_t member = any_member(any_id()); member != 0) request_register(id, member);
      return;
    default: {
      const pid_t pid = fork_of(any_worker(), "immovable");
      world_.cgroups.immovable.insert(pid);
      const pid_t parent = fork_of(any_worker(), "analysis");
      world_.process(pid).stat.parent = parent;
      return request_register(id, parent);
    }
  }
}

void History::attach() {
  const pid_t pid = fork_of(any_worker(), "helper");
  if (dice_.chance(40)) (void)fork_of(pid, "helper");
  auto process = hold(pid);
  if (!process) return;
  const std::string& id = any_id();
  say("  attach process ", pid, " to \"", id, "\"");
  world_.supervisor.request_attach(
      World::id(id), std::move(process), any_caller(), world_.now(),
      [this](const Result<void>& done, const Now&) { say("  answer: ", done ? "attached" : done.error().message); });
  if (dice_.chance(10)) world_.exit(pid);
}

void History::unregister() {
  const std::string& id = any_id();
  say("  unregister \"", id, "\"");
  const std::string run_id = witness_.on_release_asked(id);
  world_.supervisor.request_unregister(World::id(id), world_.caller(), world_.now(),
                                       [this, run_id](const Result<void>& done, const Now&) {
                                         say("  answer: ", done ? "released" : done.error().message);
                                         witness_.on_release_answered(run_id);
                                       });
}

void History::set_limits() {
  const std::string& id = any_id();
  Limits wanted = any_limits();
  // As on the bus: what is not asked for stays.
  const Known* known = witness_.find(id);
  if (known != nullptr && dice_.chance(60)) {
    const Limits all = wanted;
    wanted = known->limits;
    switch (dice_.below(4)) {
      case 0:
        wanted.memory = all.memory;
        break;
      case 1:
        wanted.wall_clock = all.wall_clock;
        break;
      case 2:
        wanted.grace = all.grace;
        break;
      default:
        wanted.orphan_policy = all.orphan_policy;
        wanted.owner_policy = all.owner_policy;
    }
  }
  say("  set limits of \"", id, "\": memory ", format_size(wanted.memory), ", wall clock ",
      format_span(wanted.wall_clock), ", grace ", format_span(wanted.grace));
  witness_.on_change_asked(id, wanted);
  world_.supervisor.request_set_limits(World::id(id), wanted, any_caller(), world_.now(),
                                       [this, id, wanted](const Result<void>& done, const Now&) {
                                         say("  answer: ", done ? "set" : done.error().message);
                                         witness_.on_change_answered(id, wanted, done.has_value());
                                       });
}

void History::extend() {
  const std::string& id = any_id();
  const Span by = dice_.chance(5) ? kForever : dice_.span(milliseconds{10}, seconds{60});
  say("  extend \"", id, "\" by ", format_span(by));
  const Known* known = witness_.find(id);
  Limits wanted = known != nullptr ? known->limits : Limits{};
  if (wanted.wall_clock != kForever) wanted.wall_clock = by == kForever ? kForever : wanted.wall_clock + by;
  witness_.on_change_asked(id, wanted);
  world_.supervisor.request_extend(World::id(id), by, any_caller(), world_.now(),
                                   [this, id, wanted](const Result<void>& done, const Now&) {
                                     say("  answer: ", done ? "extended" : done.error().message);
                                     witness_.on_change_answered(id, wanted, done.has_value());
                                   });
}

void History::ask_to_end(const std::string& id) {
  if (Known* known = witness_.find(id)) known->asked = true;
  (void)world_.supervisor.end(World::id(id), world_.caller(), world_.now());  // Refused where there is none.
}

void History::end() {
  const std::string& id = any_id();
  say("  end \"", id, "\"");
  ask_to_end(id);
}

}  // namespace aw::simulation
