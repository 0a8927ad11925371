// SPDX-License-Identifier: Apache-2.0
//
// From a request to a watched run: admission, placement by systemd, and taking over what is there. The launcher's way
// is the main road: its child waits at a gate and has no descendants yet. A live tree is gathered as found.
#include <algorithm>

#include "base/assert.h"
#include "base/failpoint.h"
#include "supervise/refusal.h"
#include "supervise/run_note.h"
#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

/// Rounds of gathering, or of giving back: each moves what the one before has left, and reads all of /proc for it,
/// while nothing else is looked after. Two or three are enough for a tree that forks now and then.
constexpr int kGatherRounds = 32;

/// Whether anything else can belong to the tree of `root`: it has children, or founded a group or a session that a
/// reparented descendant may still be in. The launcher's child at its gate has none of it, and /proc is not walked.
bool may_have_tree(const Processes& processes, pid_t root) {
  const auto stat = processes.find_stat(root);
  return stat && (stat->process_group == root || stat->session == root || processes.has_children(root));
}

/// Why a process that was `uid`'s may not stay where it was put: it has executed a set-uid program since. Root's may
/// become whose they like. Nothing, too, if it has ended: that is another matter.
std::optional<Error> refuse_changed(const Processes& processes, const ProcessKey& process, uid_t uid) {
  if (uid == 0 || processes.find_uid(process.pid) == uid) return std::nullopt;
  const auto stat = processes.find_stat(process.pid);
  if (!stat || key_of(*stat) != process || stat->state == 'Z') return std::nullopt;
  return refuse(Refusal::kAccessDenied, "process " + std::to_string(process.pid) + " (" + stat->comm +
                                            ") is not, or no more, of uid " + std::to_string(uid) +
                                            " alone, as a set-uid program is not");
}

}  // namespace

const Run* Supervisor::find_home(const std::string& cgroup) const {
  for (const auto& [key, run] : runs_) {
    if (run->cgroup && is_within(cgroup, run->cgroup->path())) return run.get();
  }
  return nullptr;
}

bool Supervisor::is_in_a_run(const std::string& cgroup) const {
  // Also in one that this daemon could not open yet.
  return find_home(cgroup) != nullptr || std::any_of(unadopted_.begin(), unadopted_.end(), [&](const auto& entry) {
           return is_within(cgroup, ports_.cgroups.path_of(entry.first));
         });
}

Result<void> Supervisor::refuse_registered(const ProcessHandle& process) const {
  const auto cgroup = ports_.processes.find_cgroup(process.key().pid);
  const Run* home = cgroup ? find_home(*cgroup) : nullptr;
  for (const auto& [key, run] : runs_) {
    if (run.get() != home && run->leader_key != process.key()) continue;
    // The id is its owner's to know. Whoever asks for a process of another's is an administrator.
    const bool own = ports_.processes.find_uid(process.key().pid) == run->uid;
    return refuse(Refusal::kProcessAlreadyRegistered, "process " + std::to_string(process.key().pid) + " belongs to " +
                                                          (own ? "the live analysis \"" + run->id.text() + "\""
                                                               : std::string("a live analysis of another user")));
  }
  if (cgroup && is_in_a_run(*cgroup)) {
    return refuse(Refusal::kProcessAlreadyRegistered, "process " + std::to_string(process.key().pid) + " is in " +
                                                          *cgroup + ", which belongs to a live analysis");
  }
  return {};
}

Result<std::unique_ptr<Run>> Supervisor::admit(Registration& registration) {
  const AnalysisId& id = registration.id;
  if (by_id_.contains(id)) {
    return refuse(Refusal::kAlreadyRegistered,
                  "an analysis \"" + id.text() + "\" is running; end it first (analysisctl kill), or use another id");
  }
  for (const auto& [key, run] : runs_) {
    // One that nobody registered, whose slice does not tell its id: it may be of this very one.
    if (run->slice != slice_unit(id)) continue;
    return refuse(Refusal::kAlreadyRegistered, "the analysis \"" + run->id.text() + "\" runs in " + run->slice +
                                                   "; end it first, or use another id");
  }
  if (auto ok = check_limits(registration.limits, policy_.caps, registration.caller, machine_.memory); !ok) {
    return std::move(ok).error();
  }
  if (const auto problem = ports_.recorder.find_problem()) {
    return refuse(Refusal::kRecordUnavailable, "its end could not be put on record: " + *problem);
  }
  if (runs_.size() >= policy_.caps.analyses) {
    return refuse(Refusal::kTooManyAnalyses, "this host runs its " + std::to_string(policy_.caps.analyses) +
                                                 " analyses already ([Caps] MaxAnalyses=)");
  }
  const auto theirs = std::count_if(runs_.begin(), runs_.end(),
                                    [&](const auto& entry) { return entry.second->uid == registration.caller.uid; });
  if (!registration.caller.administrator && static_cast<std::uint64_t>(theirs) >= policy_.caps.analyses_per_user) {
    return refuse(Refusal::kTooManyAnalyses, "you run your " + std::to_string(policy_.caps.analyses_per_user) +
                                                 " analyses already ([Caps] MaxAnalysesPerUser=)");
  }
  const auto stat = check_process(ports_.processes, *registration.process, registration.caller);
  if (!stat) return stat.error();
  if (auto ok = refuse_registered(*registration.process); !ok) return std::move(ok).error();

  auto run = std::make_unique<Run>(++last_key_, id, StallDetector(policy_.stall.pressure_percent, policy_.stall.time));
  run->run_id = ports_.identity.new_uuid();
  run->uid = ports_.processes.find_uid(stat->pid).value_or(registration.caller.uid);
  run->limits = std::move(registration.limits);
  run->slice = slice_unit(id);
  run->scope = scope_unit(id);
  run->leader = std::move(registration.process);
  run->leader_key = key_of(*stat);
  run->comm = stat->comm;
  run->cmdline = ports_.processes.read_cmdline(stat->pid);
  if (run->limits.owner_policy == OwnerPolicy::kKill) run->owner = find_owner(ports_.processes, *stat);
  return run;
}

void Supervisor::request_register(Registration registration, const Now& now, RegisterDone done) {
  finished_.clear();
  auto admitted = admit(registration);
  if (!admitted) return done(std::move(admitted).error(), now);
  Run& run = **admitted;
  const RunKey key = run.key;

  run.origin = ports_.processes.find_cgroup(run.leader_key.pid).value_or("");
  run.memory.precharged = read_precharge(run);

  const Span beyond = run.limits.grace + kBackstopMargin;
  const Span runtime_max =
      run.limits.wall_clock == kForever || run.limits.grace > kForever - run.limits.wall_clock - kBackstopMargin
          ? kForever
          : run.limits.wall_clock + beyond;
  const ScopeOrder order{run.scope, run.slice, run.leader.get(), runtime_max, run.limits.grace, true, run.describe()};
  run.backstop = add_span(now.monotonic, runtime_max);
  run.registered_at = now.monotonic;
  run.registered_real = now.real;
  run.deadline = add_span(now.monotonic, run.limits.wall_clock);
  by_id_.emplace(run.id, key);
  waiting_.emplace(key, std::move(done));
  run.limit_watch.in_force = slice_limits(run);
  runs_.emplace(key, std::move(*admitted));
  const auto place = [this, key, order] { request_place(*runs_.at(key), order); };
  // A run of this id that has just ended keeps its slice until its end is on the disk.
  const auto leaving = leaving_.find(order.slice);
  if (leaving == leaving_.end()) return place();
  leaving->second.emplace_back(place);
}

void Supervisor::request_place(const Run& run, const ScopeOrder& order) {
  ports_.placements.write(run.slice, format_note(note_of(run)));
  AW_FAILPOINT("registration.noted");
  ports_.placer.request_place(
      order, *run.limit_watch.in_force,
      [this, key = run.key](Result<void> placed, const Now& when) { on_placed(key, std::move(placed), when); });
  AW_FAILPOINT("registration.asked");
}

Bytes Supervisor::read_precharge(const Run& run) const {
  // What the tree has now stays charged to where it is (kernel, "Memory Ownership").
  std::vector<pid_t> members{run.leader_key.pid};
  if (may_have_tree(ports_.processes, run.leader_key.pid)) {
    for (const ProcessKey& member : find_tree(run.leader_key.pid, ports_.processes.read_all(), {})) {
      const auto where = ports_.processes.find_cgroup(member.pid);
      if (where && is_in_a_run(*where)) continue;  // Another run's.
      if (member != run.leader_key) members.push_back(member.pid);
    }
  }
  Bytes at_most(0);
  for (const pid_t pid : members) at_most = at_most + ports_.processes.read_anonymous(pid);
  if (at_most <= negligible_precharge(run.limits.memory)) return Bytes(0);
  // Workers forked by one that has much share it with that one: nobody is ended for what is there but once.
  Bytes precharge(0);
  for (const pid_t pid : members) precharge = precharge + ports_.processes.read_anonymous_share(pid);
  return precharge > negligible_precharge(run.limits.memory) ? precharge : Bytes(0);
}

void Supervisor::on_placed(RunKey key, Result<void> placed, const Now& now) {
  finished_.clear();
  Run& run = *runs_.at(key);  // Nothing but this ends a run that is being placed.
  const RegisterDone done = std::move(waiting_.at(key));
  waiting_.erase(key);
  bool made = placed || placed.error().code == std::errc::operation_canceled;
  // Not that it was refused: systemd has not said, and may have done it, or do it yet.
  const bool unanswered = is_unanswered(placed);
  const bool lived = run.leader->alive();
  std::vector<Moved> moved{{run.leader_key, run.origin}};
  const std::string folder = ports_.cgroups.path_of(run.slice);
  if (placed && lived && lives_outside(run.leader_key, folder) && !find_mistaken(run.leader_key, folder)) {
    // Whoever is in units of that name, it is not for us to move them.
    made = false;
    placed = refuse(Refusal::kScopeFailed, "systemd has units of that name, and the process is not in them");
    arm_sweep(now);
  }
  AW_FAILPOINT("registration.placed");
  if (placed && lived) placed = take_over(run, moved, now);
  AW_FAILPOINT("registration.taken-over");
  if (placed && lived) {
    const bool first = !ancestor_ooms_;
    follow_ancestors(now);
    if (first) overrun_.reset();  // Long before this run, for all we know.
    happen(run, Happening::kPlaced, now);
    ports_.placements.remove(run.slice);
    AW_FAILPOINT("registration.recorded");
    done(key, now);
    return keep_backstop_behind(key, now);
  }

  Error why = refuse(Refusal::kNoSuchProcess,
                     "process " + std::to_string(run.leader_key.pid) + " ended before it was registered");
  if (run.leader->alive()) {
    why = std::move(placed).error();
    if (why.code == std::errc::file_exists) {
      why = refuse(Refusal::kAlreadyRegistered, "systemd has units of an analysis \"" + run.id.text() +
                                                    "\" that this watchdog did not start; end them (systemctl stop " +
                                                    run.slice + "), or use another id");
    } else if (why.code.category() != refusal_category()) {
      why = refuse(Refusal::kScopeFailed, "no scope for \"" + run.id.text() + "\": " + why.message);
    }
  }
  const std::string slice = run.slice;
  const std::string shelter = shelter_unit(run.id, run.run_id);
  if (auto mistaken = find_mistaken(run.leader_key, ports_.cgroups.path_of(slice))) moved = {std::move(*mistaken)};
  run.cgroup.reset();
  happen(run, Happening::kPlaceFailed, now);
  if (unanswered) arm_sweep(now);
  if (!unanswered) ports_.placements.remove(slice);
  if (!made) return done(std::move(why), now);
  // Whoever is refused goes on as before. What is removed is empty: a scope that a zombie was put into stays for ever.
  // The id is free again, but not yet its slice: the next one of that id would go with it.
  leaving_.emplace(slice, std::vector<std::function<void()>>());
  give_back(ports_.cgroups.path_of(slice), std::move(moved), shelter, now,
            [this, slice, done, why = std::move(why)](const Result<void>& empty, const Now& when) {
              if (!empty) {
                arm_sweep(when);
                place_waiting(slice);
                return done(Error(why).within("processes are left in " + slice), when);
              }
              ports_.placer.request_remove(slice,
                                           [this, slice, done, why](const Result<void>& removed, const Now& then) {
                                             if (!removed) arm_sweep(then);
                                             place_waiting(slice);
                                             done(why, then);
                                           });
            });
}

std::optional<pid_t> Supervisor::put_back_all(const std::string& cgroup, const std::vector<Moved>& moved) {
  std::optional<pid_t> left;
  for (int round = 0; round < kGatherRounds; ++round) {
    bool progress = false;
    left.reset();
    for (const ProcessStat& stat : ports_.processes.read_all()) {
      const auto where = ports_.processes.find_cgroup(stat.pid);
      if (stat.state == 'Z' || !where || !is_within(*where, cgroup)) continue;
      left = stat.pid;
      // Forked since: to where the first of them goes.
      const auto known =
          std::find_if(moved.begin(), moved.end(), [&](const Moved& m) { return m.process == key_of(stat); });
      const std::string& origin = known == moved.end() ? moved.front().origin : known->origin;
      if (origin.empty() || !ports_.cgroups.put_back(stat.pid, origin)) continue;
      progress = true;
      forget_member(key_of(stat));
    }
    if (!progress) return left;
  }
  return left;
}

void Supervisor::give_back(const std::string& cgroup, std::vector<Moved> moved, const std::string& shelter,
                           const Now& now, Done done) {
  const auto left = put_back_all(cgroup, moved);
  if (!left) return done({}, now);
  // systemd removes a scope that everybody has left: those who came from it get one of their own, without limits.
  auto opened = ports_.processes.open(*left);
  if (!opened) return done(std::move(opened).error(), now);
  const std::shared_ptr<ProcessHandle> first = std::move(*opened);
  const ScopeOrder order{shelter, ports_.placer.parent_slice(), first.get(), kForever, Span(0),
                         false,   "Given back by the watchdog"};
  ports_.placer.request_scope(
      order, [this, cgroup, first, done = std::move(done)](Result<void> placed, const Now& when) {
        finished_.clear();
        forget_member(first->key());
        const auto where = ports_.processes.find_cgroup(first->key().pid);
        if (placed && where && !is_within(*where, cgroup) && put_back_all(cgroup, {{first->key(), *where}})) {
          placed = invalid("not all processes could be given back");
        }
        done(std::move(placed), when);
      });
}

void Supervisor::keep_backstop_behind(RunKey key, const Now& now) {
  // systemd counts from when it has started the scope, the deadline from when it has said so. Where it was slow to say,
  // its backstop may come first.
  const auto it = runs_.find(key);
  if (it == runs_.end() || it->second->phase != Phase::kRunning) return;
  if (add_span(it->second->deadline, it->second->limits.grace) <= it->second->backstop) return;
  apply_deadline(*it->second, false, now, [this, key](const Result<void>& housed, const Now&) {
    const auto found = runs_.find(key);
    if (!housed || found == runs_.end()) return;
    remember(*found->second);
    ports_.recorder.change_run(chronicle_.row_of(*found->second));
  });
}

Result<void> Supervisor::take_over(Run& run, std::vector<Moved>& moved, const Now& now) {
  auto cgroup = ports_.cgroups.open(run.key, run.slice);
  if (!cgroup) return std::move(cgroup).error();
  run.cgroup = std::move(*cgroup);
  const auto where = ports_.processes.find_cgroup(run.leader_key.pid);
  if (!where || *where != run.cgroup->path() + "/" + run.scope) {
    return refuse(Refusal::kScopeFailed, "process " + std::to_string(run.leader_key.pid) + " is in " +
                                             where.value_or("no cgroup") + " instead of its scope " + run.scope);
  }
  if (auto changed = refuse_changed(ports_.processes, run.leader_key, run.uid)) return std::move(*changed);
  if (auto outside = gather_tree(run, run.leader_key.pid, run.scope, moved)) return std::move(*outside);
  run.registered_at = now.monotonic;
  run.registered_real = now.real;
  run.deadline = add_span(now.monotonic, run.limits.wall_clock);
  if (const auto events = run.cgroup->read_memory_events()) run.memory.last_events = *events;
  return {};
}

std::optional<Error> Supervisor::gather_tree(Run& run, pid_t root, const std::string& scope,
                                             std::vector<Moved>& moved) {
  if (!may_have_tree(ports_.processes, root)) return std::nullopt;
  // Who may end the run ends all that is in it: a tree takes nobody else's process along, unless it is root's.
  const uid_t owner = ports_.processes.find_uid(root).value_or(run.uid);
  std::vector<ProcessKey> known;
  for (int round = 0; round < kGatherRounds; ++round) {
    bool progress = false;
    for (const ProcessKey& member : find_tree(root, ports_.processes.read_all(), known)) {
      if (std::find(known.begin(), known.end(), member) == known.end()) known.push_back(member);
      const auto where = ports_.processes.find_cgroup(member.pid);
      if (!where || is_in_a_run(*where)) continue;  // Here already, or another run's: that one keeps it.
      if (ports_.processes.why_protected(member.pid)) continue;
      const auto stat = ports_.processes.find_stat(member.pid);
      if (!stat || key_of(*stat) != member || stat->state == 'Z') continue;
      if (auto others = refuse_changed(ports_.processes, member, owner)) return others;
      auto done = ports_.cgroups.move(member.pid, run.slice, scope);
      if (!done && !says_gone(done.error())) {
        return refuse(Refusal::kScopeFailed, "process " + std::to_string(member.pid) + " (" + stat->comm +
                                                 ") of the tree could not be moved: " + done.error().message);
      }
      moved.push_back({member, *where});
      progress = true;
      if (auto others = refuse_changed(ports_.processes, member, owner)) return others;
    }
    if (!progress) return std::nullopt;
  }
  return refuse(Refusal::kScopeFailed,
                "the tree forks faster than it can be moved; register its leader earlier, or "
                "start it with analysis-run");
}

void Supervisor::begin_watching(Run& run, const Now& now) {
  const RunKey key = run.key;
  arm(run, Purpose::kDeadline, run.deadline);
  arm(run, Purpose::kOrphanRound, add_span(now.monotonic, policy_.orphans.interval));
  begin_drift_rounds(run, now);
  run.orphans.members = run.roots();  // Of the others nobody has seen yet that they are in it.
  std::sort(run.orphans.members.begin(), run.orphans.members.end());
  const bool watched =
      run.leader && run.leader->watch([this, key](const Now& when) { on_leader_ended(key, when); }).has_value();
  // It has ended before this daemon came, or there is no descriptor left: the rounds must do.
  if (!watched) arm(run, Purpose::kLeaderConfirm, now.monotonic);
  watch_owner(run);
  // The tree may have run into its limit, or ended, before the watch was there.
  arm(run, Purpose::kMemoryLook, now.monotonic);
}

void Supervisor::watch_owner(Run& run) {
  if (!run.owner) return;
  const auto watched = run.owner->watch([this, key = run.key](const Now& when) { on_owner_ended(key, when); });
  if (!watched) run.owner.reset();
}

void Supervisor::request_attach(const AnalysisId& id, std::unique_ptr<ProcessHandle> process, const Caller& caller,
                                const Now& now, Done done) {
  finished_.clear();
  Error why;
  Run* run = find_changeable(id, Change::kAttach, why);
  if (run == nullptr) return done(why, now);
  const auto stat = check_process(ports_.processes, *process, caller);
  if (!stat) return done(stat.error(), now);
  if (auto ok = refuse_registered(*process); !ok) return done(std::move(ok).error(), now);

  const RunKey key = run->key;
  ++run->attaching;
  const std::string scope = scope_unit(run->id, ++run->generation);
  const std::string inside = run->cgroup->path() + "/" + scope;
  const std::string shelter = shelter_unit(run->id, ports_.identity.new_uuid());
  const Instant until = std::max(run->backstop, backstop_of(*run));
  const Span left = until == kNever ? kForever : std::max(Span(1), until - now.monotonic);
  const std::shared_ptr<ProcessHandle> held = std::move(process);
  const std::string origin = ports_.processes.find_cgroup(stat->pid).value_or("");
  const uid_t uid = ports_.processes.find_uid(stat->pid).value_or(caller.uid);
  const ScopeOrder order{
      scope, run->slice, held.get(), left, run->limits.grace, true, "Analysis " + run->id.text() + " (attached)"};
  run->asked.push_back(held->key());
  remember(*run);
  ports_.placer.request_scope(order, [=, this, done = std::move(done)](Result<void> placed, const Now& when) {
    finished_.clear();
    std::vector<Moved> moved{{held->key(), origin}};
    const auto it = runs_.find(key);
    if (it != runs_.end()) forget_asked(*it->second, held->key());
    auto changed = refuse_changed(ports_.processes, held->key(), uid);
    Result<void> attached = it == runs_.end() ? refuse(Refusal::kNoSuchAnalysis, "the analysis ended meanwhile")
                            : changed         ? std::move(*changed)
                                              : finish_attach(*it->second, *held, scope, std::move(placed), moved);
    const auto arrive = [this, key](const Now& then) {
      const auto found = runs_.find(key);
      if (found == runs_.end()) return;
      --found->second->attaching;
      look(*found->second, then);  // Put off meanwhile.
    };
    if (attached) {
      done({}, when);
      return arrive(when);
    }
    if (auto mistaken = find_mistaken(held->key(), inside)) moved = {std::move(*mistaken)};
    give_back(
        inside, std::move(moved), shelter, when,
        [this, scope, arrive, done, why = std::move(attached).error()](const Result<void>& empty, const Now& then) {
          if (empty) ports_.placer.request_stop(scope, [](const Result<void>&, const Now&) {});
          arm_sweep(then);  // systemd may have made the slice anew for it.
          done(why, then);
          arrive(then);  // Not before: with the run goes its slice, and whoever is in it.
        });
  });
}

Result<void> Supervisor::finish_attach(Run& run, const ProcessHandle& process, const std::string& scope,
                                       Result<void> placed, std::vector<Moved>& moved) {
  if (!process.alive()) return refuse(Refusal::kNoSuchProcess, "the process ended before it was attached");
  if (!placed) return refuse(Refusal::kScopeFailed, placed.error().message);
  if (run.phase == Phase::kKilling || run.phase == Phase::kUnkillable) {
    return refuse(Refusal::kNoSuchAnalysis, "the analysis is being killed");  // It would be, without a warning.
  }
  // Where the slice was stopped meanwhile, systemd has made another one for the scope, which nobody watches.
  if (const auto populated = run.cgroup->read_populated(); !populated && says_gone(populated.error())) {
    return refuse(Refusal::kNoSuchAnalysis, "the analysis ended meanwhile");
  }
  const auto where = ports_.processes.find_cgroup(process.key().pid);
  if (!where || *where != run.cgroup->path() + "/" + scope) {
    return refuse(Refusal::kScopeFailed, "the process is not in its scope");
  }
  if (auto outside = gather_tree(run, process.key().pid, scope, moved)) return std::move(*outside);
  run.attached.push_back(process.key());
  remember(run);
  // What is ending already must not miss its SIGTERM for having come late; the others have had theirs.
  if (run.phase == Phase::kEnding) send_term(run, run.cgroup->path() + "/" + scope);
  return {};
}

}  // namespace aw::supervise
