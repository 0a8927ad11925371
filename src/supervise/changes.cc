// SPDX-License-Identifier: Apache-2.0
//
// Changes to a live run. RuntimeMaxUSec of a live scope can't be changed (measured), so what moves the backstop gets a
// fresh scope: a new one in the run's slice, into which the processes are moved until the old one is empty.
#include <algorithm>

#include "base/failpoint.h"
#include "supervise/limit_details.h"
#include "supervise/refusal.h"
#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

/// A fork bomb outruns any number of rounds; anything else is over in two or three.
constexpr int kMoveRounds = 200;

/// A move takes some 50 us, in which nothing else is looked after, and all processes of a run are moved in one turn:
/// who is half out of a run is hard to tell from who has escaped. So the next move of a user's processes has to wait
/// for a time that is twenty times as long, after one or two that do not.
constexpr Span kMovePrice = std::chrono::milliseconds{1};
constexpr Span kMoveCredit = std::chrono::seconds{2};
constexpr Span kMostOwed = std::chrono::seconds{30};
/// So few take a few milliseconds, as other calls do.
constexpr std::size_t kMovedForNothing = 64;

/// What a port said, as an answer to whoever asked for the change; a refusal of ours stays what it is.
Result<void> to_answer(const AnalysisId& id, Result<void> done) {
  if (done || done.error().code.category() == refusal_category()) return done;
  return refuse(Refusal::kScopeFailed, "the analysis \"" + id.text() + "\" stays as it was: " + done.error().message);
}

}  // namespace

Run* Supervisor::find_changeable(const AnalysisId& id, Change change, Error& why) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) {
    why = refuse(Refusal::kNoSuchAnalysis, "no analysis \"" + id.text() + "\" is running");
    return nullptr;
  }
  Run& run = *runs_.at(it->second);
  const bool busy = run.rehousing || run.changing || (change != Change::kAttach && run.attaching > 0);
  const bool emptied = run.emptied || run.settling;
  if (run.phase == Phase::kRunning && !busy && !run.cause && !emptied) return &run;
  if (busy && !run.cause && !emptied) {
    why = refuse(Refusal::kScopeFailed, "another change of this analysis is under way; try again");
    return nullptr;
  }
  const std::string state = run.cause ? "is being ended (" + std::string(to_string(run.cause->reason)) + ")"
                            : emptied ? "has just ended"
                                      : "is being placed; try again in a moment";
  why = refuse(Refusal::kNoSuchAnalysis, "the analysis \"" + id.text() + "\" " + state);
  return nullptr;
}

void Supervisor::charge_moves(uid_t uid, std::size_t processes, const Now& now) {
  std::erase_if(moves_paid_at_, [&](const auto& entry) { return entry.second <= now.monotonic; });
  if (processes <= kMovedForNothing) return;
  Instant& paid_at = moves_paid_at_.try_emplace(uid, now.monotonic).first->second;
  paid_at = std::min(paid_at + kMovePrice * static_cast<std::int64_t>(processes), now.monotonic + kMostOwed);
}

std::optional<Error> Supervisor::refuse_move(const Run& run, const Caller& caller, const Now& now) const {
  auto often = refuse_moves(run.uid, caller, now);
  if (!often) return std::nullopt;
  const auto pids = run.cgroup->read_processes();
  return pids && pids->size() > kMovedForNothing ? std::move(often) : std::nullopt;
}

std::optional<Error> Supervisor::refuse_moves(uid_t uid, const Caller& caller, const Now& now) const {
  const auto paid = moves_paid_at_.find(uid);
  if (caller.administrator || paid == moves_paid_at_.end()) return std::nullopt;
  const Span wait = paid->second - now.monotonic - kMoveCredit;
  if (wait <= Span(0)) return std::nullopt;
  return refuse(Refusal::kScopeFailed,
                "too many processes of uid " + std::to_string(uid) + " were moved a moment ago; try again in " +
                    std::to_string(std::chrono::ceil<std::chrono::milliseconds>(wait).count()) + " ms");
}

Result<void> Supervisor::move_all(Run& run, const std::string& slice, const std::string& scope, const Now& now) {
  const std::string& home = run.cgroup->path();
  const std::string to = ports_.cgroups.path_of(slice) + "/" + scope;
  const bool leaves = !is_within(to, home);
  bool was_quiet = false;
  std::size_t all_moved = 0;
  const auto charged = [&](Result<void> done) {
    charge_moves(run.uid, all_moved, now);
    return done;
  };
  for (int round = 0; round < kMoveRounds; ++round) {
    const auto pids = run.cgroup->read_processes();
    if (!pids) return charged(pids.error());
    bool moved = false;
    bool lost = false;
    for (const pid_t pid : *pids) {
      // In this order: whoever still has the pid after the move had it when the cgroup was read.
      const auto stat = ports_.processes.find_stat(pid);
      const auto where = stat ? ports_.processes.find_cgroup(pid) : std::nullopt;
      if (!where) lost = true;  // It may have left a child where it was, which came after the list.
      if (!where || !is_within(*where, home) || is_within(*where, to)) continue;
      auto done = move_only(key_of(*stat), to, home, [&] { return ports_.cgroups.move(pid, slice, scope); });
      ++all_moved;
      if (!done && !says_process_gone(done.error())) return charged(std::move(done));
      moved = true;
    }
    // Its slice is taken down behind it, and whoever forks and ends between any two lists must not go with that: the
    // kernel knows. It does not count who is listed for its threads, and can't be moved any more when they are out.
    const auto populated = run.cgroup->read_populated();
    if (leaves && populated ? !*populated : !moved && (!lost || was_quiet)) return charged({});
    was_quiet = !moved;
  }
  return charged(refuse(Refusal::kScopeFailed, "the tree forks faster than it can be moved"));
}

void Supervisor::bring_back(Run& run, const std::string& scope) {
  const std::string from = ports_.cgroups.path_of(ports_.placer.parent_slice()) + "/" + scope;
  (void)clear_out(from, [&](const ProcessStat& stat) {
    const auto move = [&] { return ports_.cgroups.move(stat.pid, run.slice, run.scope); };
    return move_only(key_of(stat), run.cgroup->path() + "/" + run.scope, from, move).has_value();
  });
}

bool Supervisor::is_lived_in(const std::string& scope) const {
  const std::string path = ports_.cgroups.path_of(ports_.placer.parent_slice()) + "/" + scope;
  const auto all = ports_.processes.read_all();
  return std::any_of(all.begin(), all.end(), [&](const ProcessStat& stat) {
    const auto where = stat.state == 'Z' ? std::nullopt : ports_.processes.find_cgroup(stat.pid);
    return where && is_within(*where, path);
  });
}

bool Supervisor::finish_release(Run& run, const Now& now) {
  if (!run.release_begun || run.phase != Phase::kRunning || run.rehousing || run.attaching > 0) return false;
  const std::string shelter = shelter_unit(run.id, run.run_id);
  if (!is_lived_in(shelter)) return false;
  run.release_begun = false;
  const auto events = run.cgroup->read_memory_events();
  if (events && events->oom_kill > 0) {
    // The kernel has killed a part of it meanwhile: what is out must not live on by halves, and goes with the rest.
    run.memory.last_events = *events;
    if (!run.cause) run.cause = kernel_kill(*events, now);
    happen(run, Happening::kKernelKilled, now);
    ports_.placer.request_stop(shelter, [](const Result<void>&, const Now&) {});
    return true;
  }
  if (!move_all(run, ports_.placer.parent_slice(), shelter, now)) {
    bring_back(run, shelter);
    remember(run);
    return false;
  }
  AW_FAILPOINT("change.all-moved");
  happen(run, Happening::kReleased, now);
  return true;
}

void Supervisor::rehouse(Run& run, std::string slice, std::string scope, Span runtime_max, const Now& now,
                         Rehoused done) {
  // systemd wants one process to begin with: the leader, or whoever is left.
  std::shared_ptr<ProcessHandle> first;
  if (auto pids = run.cgroup->read_processes()) {
    const auto leader = std::find(pids->begin(), pids->end(), run.leader_key.pid);
    if (leader != pids->end()) std::rotate(pids->begin(), leader, leader + 1);
    for (auto pid = pids->begin(); !first && pid != pids->end(); ++pid) {
      auto opened = ports_.processes.open(*pid);
      const auto where = opened ? ports_.processes.find_cgroup(*pid) : std::nullopt;
      // Looked up while it is held: whoever had the pid when the list was read may have ended since.
      if (where && is_within(*where, run.cgroup->path()) && (*opened)->alive()) first = std::move(*opened);
    }
  }
  const RunKey key = run.key;
  if (!first) {
    run.rehousing = false;
    return done(&run, refuse(Refusal::kNoSuchAnalysis, "no process of it is left"), now);
  }
  run.rehousing = true;
  run.asked.push_back(first->key());
  remember(run);
  const bool stays = slice == run.slice;
  const ScopeOrder order{scope, slice, first.get(), runtime_max, run.limits.grace, stays, run.describe()};
  ports_.placer.request_scope(
      order, [this, key, first, slice, scope, done = std::move(done)](Result<void> placed, const Now& when) {
        finished_.clear();
        const auto it = runs_.find(key);
        if (it == runs_.end()) return done(nullptr, refuse(Refusal::kNoSuchAnalysis, "it ended meanwhile"), when);
        Run& moved = *it->second;
        forget_asked(moved, first->key());
        const auto mistaken = find_mistaken(first->key(), ports_.cgroups.path_of(slice) + "/" + scope);
        if (mistaken) {
          give_back(ports_.cgroups.path_of(slice) + "/" + scope, {*mistaken},
                    shelter_unit(moved.id, ports_.identity.new_uuid()), when, [](const Result<void>&, const Now&) {});
          placed = refuse(Refusal::kNoSuchProcess, "a process of it ended meanwhile");
        }
        if (moved.releasing) look_at_memory(moved, when);
        // The zombie of what was to be let out: its scope would stay for ever, and the run has ended by itself.
        const bool gone = moved.releasing && !first->alive() && is_empty(moved);
        if (gone || (moved.releasing && (moved.phase != Phase::kRunning || moved.cause))) {
          // The kernel has killed a part of it meanwhile; what systemd has let out must not live on by halves.
          if (!gone && moved.phase == Phase::kRunning) {
            happen(moved, Happening::kKernelKilled, when);  // On record first.
          }
          if (!mistaken) ports_.placer.request_stop(scope, [](const Result<void>&, const Now&) {});
          placed = refuse(Refusal::kNoSuchAnalysis, "it reached its end meanwhile");
        } else if (placed) {
          placed = move_all(moved, slice, scope, when);
          AW_FAILPOINT("change.all-moved");
          if (!placed && moved.releasing) bring_back(moved, scope);
        }
        // systemd has not said that it let nobody out: what it did, or does yet, is finished then.
        if (moved.releasing && moved.phase == Phase::kRunning && is_unanswered(placed)) moved.release_begun = true;
        placed = to_answer(moved.id, std::move(placed));
        moved.rehousing = false;
        if (placed) {
          done(&moved, std::move(placed), when);
          if (runs_.contains(key)) look(moved, when);  // What was passed over meanwhile.
          return;
        }
        look(moved, when);  // Before anything that was put off: it may have ended by itself.
        done(runs_.contains(key) ? &moved : nullptr, std::move(placed), when);
      });
}

void Supervisor::request_unregister(const AnalysisId& id, const Caller& caller, const Now& now, Done done) {
  finished_.clear();
  Error why;
  Run* run = find_changeable(id, Change::kOther, why);
  if (run == nullptr) return done(why, now);
  if (auto often = refuse_move(*run, caller, now)) return done(std::move(*often), now);
  run->releasing = true;
  remember(*run);
  AW_FAILPOINT("change.releasing-noted");
  // Out of the run's slice and its limits altogether.
  rehouse(*run, ports_.placer.parent_slice(), shelter_unit(run->id, run->run_id), kForever, now,
          [this, done = std::move(done)](Run* released, Result<void> moved, const Now& when) {
            if (released == nullptr) return done(std::move(moved), when);
            released->releasing = false;
            remember(*released);
            if (!moved) {
              const RunKey key = released->key;
              const auto put_off = std::exchange(released->put_off, std::nullopt);
              look(*released, when);  // First: it may have ended by itself.
              if (put_off && runs_.contains(key)) cause(*released, *put_off, when);
              if (runs_.contains(key)) look(*released, when);
              return done(std::move(moved), when);
            }
            happen(*released, Happening::kReleased, when);
            done({}, when);
          });
}

Instant Supervisor::backstop_of(const Run& run) {
  return add_span(add_span(run.deadline, run.limits.grace), kBackstopMargin);
}

bool Supervisor::outlasts_backstop(const Run& run, const Limits& limits) {
  return add_span(add_span(run.registered_at, limits.wall_clock), limits.grace) > run.backstop;
}

void Supervisor::apply_deadline(Run& run, bool fresh_scope, const Now& now, Done done) {
  run.deadline = add_span(run.registered_at, run.limits.wall_clock);
  arm(run, Purpose::kDeadline, run.deadline);
  if (!fresh_scope && !outlasts_backstop(run, run.limits)) return done({}, now);
  const Instant backstop = backstop_of(run);
  const Span runtime_max = backstop == kNever ? kForever : std::max(Span(1), backstop - now.monotonic);
  const std::string scope = scope_unit(run.id, ++run.generation);
  rehouse(run, run.slice, scope, runtime_max, now,
          [scope, backstop, done = std::move(done)](Run* moved, Result<void> result, const Now& when) {
            if (moved != nullptr && result) {
              moved->scope = scope;
              moved->backstop = backstop;
            }
            done(std::move(result), when);
          });
}

void Supervisor::take_back(Run& run, const Limits& before) {
  run.limits = before;
  run.deadline = add_span(run.registered_at, before.wall_clock);
  remember(run);  // What was asked for is in its note: the next daemon would hold it to that.
  if (run.phase == Phase::kRunning) arm(run, Purpose::kDeadline, run.deadline);
}

void Supervisor::follow_policies(Run& run, const Limits& before, const Now& now) {
  if (run.limits.owner_policy == OwnerPolicy::kIgnore) run.owner.reset();
  if (run.limits.owner_policy != before.owner_policy && run.limits.owner_policy == OwnerPolicy::kKill) {
    const auto leader = ports_.processes.find_stat(run.leader_key.pid);
    if (leader && key_of(*leader) == run.leader_key) run.owner = find_owner(ports_.processes, *leader);
    watch_owner(run);
  }
  if (run.limits.orphan_policy != before.orphan_policy && run.limits.orphan_policy == OrphanPolicy::kKill) {
    run.orphans = {};  // Those that were only reported are dealt with now.
    if (run.leader_end.ended) arm(run, Purpose::kLeaderConfirm, now.monotonic);
  }
}

void Supervisor::request_extend(const AnalysisId& id, Span by, const Caller& caller, const Now& now, Done done) {
  finished_.clear();
  Error why;
  Run* run = find_changeable(id, Change::kOther, why);
  if (run == nullptr) return done(why, now);
  if (by <= Span(0)) return done(refuse(Refusal::kInvalidOption, "a deadline is extended by more than 0"), now);
  Limits wanted = run->limits;
  wanted.wall_clock = by == kForever || wanted.wall_clock >= kForever - by ? kForever : wanted.wall_clock + by;
  if (auto ok = check_limits(wanted, policy_.caps, caller, machine_.memory); !ok) return done(std::move(ok), now);
  if (run->deadline == kNever) return done({}, now);  // There is none to extend.
  if (outlasts_backstop(*run, wanted)) {
    if (auto often = refuse_move(*run, caller, now)) return done(std::move(*often), now);
  }
  const Limits before = std::exchange(run->limits, wanted);
  const RunKey key = run->key;
  apply_deadline(*run, false, now,
                 [this, key, by, before, done = std::move(done)](Result<void> result, const Now& when) {
                   if (const auto it = runs_.find(key); it != runs_.end()) {
                     if (result) {
                       remember(*it->second);
                       AW_FAILPOINT("change.deadline-noted");
                       chronicle_.extended(*it->second, by, when);
                     }
                     if (!result) take_back(*it->second, before);
                   }
                   done(std::move(result), when);
                 });
}

void Supervisor::request_set_limits(const AnalysisId& id, const Limits& limits, const Caller& caller, const Now& now,
                                    Done done) {
  finished_.clear();
  Error why;
  Run* run = find_changeable(id, Change::kOther, why);
  if (run == nullptr) return done(why, now);
  if (auto ok = check_limits(limits, policy_.caps, caller, machine_.memory); !ok) return done(std::move(ok), now);
  if (auto ok = check_sums(limits, sums_of(run->uid, run), policy_.caps, caller, &run->limits); !ok) {
    return done(std::move(ok), now);
  }
  // TimeoutStopUSec of a live scope can't be changed either.
  const bool fresh_scope = run->limits.grace != limits.grace;
  if (fresh_scope || outlasts_backstop(*run, limits)) {
    if (auto often = refuse_move(*run, caller, now)) return done(std::move(*often), now);
  }

  const Limits before = std::exchange(run->limits, limits);
  const RunKey key = run->key;
  if (limits.memory < before.memory && has_more_than_allowed(*run)) {
    // systemd would have the kernel kill it at the new ceiling: it gets its SIGTERM below the old one.
    run->memory.still_held_to = before;
    remember(*run);
    chronicle_.limits_changed(*run, differences(before, limits), now);
    cause(*run, {Reason::kMemory, "unreclaimable memory was above the new limit", false}, now);
    return done({}, now);
  }
  run->changing = true;
  // A limit below what it has now takes effect at once, not at its next allocation.
  run->memory.next_look = now.monotonic;
  const auto finish = [this, key, before, done = std::move(done)](Result<void> result, const Now& when) {
    const auto it = runs_.find(key);
    if (it != runs_.end()) {
      it->second->changing = false;
      if (result) {
        follow_policies(*it->second, before, when);  // Finds the owner, which is to be noted.
        remember(*it->second);
        AW_FAILPOINT("change.limits-noted");
        chronicle_.limits_changed(*it->second, differences(before, it->second->limits), when);
      } else {
        take_back(*it->second, before);
      }
      arm(*it->second, Purpose::kMemoryLook, when.monotonic);
    }
    done(std::move(result), when);
  };
  const bool time_changed = before.wall_clock != limits.wall_clock || before.grace != limits.grace;
  tell_limits(*run, [this, key, time_changed, fresh_scope, before, finish](Result<void> set, const Now& when) {
    finished_.clear();
    const auto it = runs_.find(key);
    if (it == runs_.end() || it->second->phase != Phase::kRunning) {
      return finish(refuse(Refusal::kNoSuchAnalysis, "it reached its end meanwhile"), when);
    }
    if (!set) return finish(to_answer(it->second->id, std::move(set)), when);
    if (!time_changed) return finish({}, when);
    apply_deadline(*it->second, fresh_scope, when, [this, key, finish](Result<void> moved, const Now& then) {
      const bool failed = !moved;
      finish(std::move(moved), then);
      const auto found = runs_.find(key);
      if (failed && found != runs_.end()) {  // systemd has the new ones already.
        tell_limits(*found->second);
      }
    });
  });
}

}  // namespace aw::supervise
