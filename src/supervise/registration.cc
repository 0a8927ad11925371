// SPDX-License-Identifier: Apache-2.0
//
// From a request to a watched run: admission, placement by systemd, and taking over what is there. The launcher's way
// is the main road: its child waits at a gate and has no descendants yet. A live tree is gathered as found.
#include <algorithm>
#include <utility>

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

/// Of a live tree: all are moved in one turn, or it would fork away meanwhile.
constexpr std::size_t kMostGathered = 2048;

/// Whether anything else can belong to the tree of `root`: it has children, or founded a group or a session that a
/// reparented descendant may still be in. The launcher's child at its gate has none of it, and /proc is not walked.
bool may_have_tree(const Processes& processes, const ProcessKey& root) {
  const auto stat = processes.find_stat(root.pid);
  return stat && key_of(*stat) == root &&
         (stat->process_group == root.pid || stat->session == root.pid || processes.has_children(root.pid));
}

/// Whether the pid of `process` is another's by now.
bool is_anothers(const Processes& processes, const ProcessKey& process) {
  const auto stat = processes.find_stat(process.pid);
  return stat && key_of(*stat) != process;
}

Error refuse_anothers(const ProcessKey& process) {
  return refuse(Refusal::kNoSuchProcess,
                "process " + std::to_string(process.pid) + " ended, and its pid is another's by now");
}

/// Whose a process is that was admitted: of all but an administrator it was seen to be the caller's own, and what has
/// become of it since is no reason to take it for another's.
uid_t owner_of(const Processes& processes, const ProcessStat& process, const Caller& caller) {
  return caller.administrator ? processes.find_uid(process.pid).value_or(caller.uid) : caller.uid;
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

Sums Supervisor::sums_of(uid_t uid, const Run* without) const {
  Sums sums;
  for (const auto& [key, run] : runs_) {
    if (run->uid == uid && run.get() != without) sums.add(run->limits);
  }
  return sums;
}

Result<std::unique_ptr<Run>> Supervisor::admit(Registration& registration) {
  const AnalysisId& id = registration.id;
  if (by_id_.contains(id)) {
    return refuse(Refusal::kAlreadyRegistered,
                  "an analysis \"" + id.text() + "\" is running; end it first (analysisctl kill), or use another id");
  }
  if (unread_) {
    return refuse(Refusal::kScopeFailed, "which analyses run can't be seen at present; try again in a moment");
  }
  if (std::any_of(unadopted_.begin(), unadopted_.end(),
                  [&](const auto& waiting) { return waiting.first == slice_unit(id); })) {
    return refuse(Refusal::kAlreadyRegistered,
                  "an analysis \"" + id.text() + "\" is running, and can't be watched yet; try again in a moment");
  }
  for (const auto& [key, run] : runs_) {
    // One that nobody registered, whose slice does not tell its id: it may be of this very one.
    if (run->slice != slice_unit(id)) continue;
    return refuse(Refusal::kAlreadyRegistered, "the analysis \"" + run->id.text() + "\" runs in " + run->slice +
                                                   "; end it first, or use another id");
  }
  if (unanswered_.contains(slice_unit(id))) {
    return refuse(Refusal::kScopeFailed, "systemd has not said whether it began \"" + id.text() +
                                             "\" when that was asked for before; it is watched within half a minute "
                                             "if it did: look (analysisctl show), or use another id");
  }
  if (auto ok = check_limits(registration.limits, policy_.caps, registration.caller, machine_.memory); !ok) {
    return std::move(ok).error();
  }
  if (const auto problem = ports_.recorder.find_problem()) {
    return refuse(Refusal::kRecordUnavailable, "its end could not be put on record: " + *problem);
  }
  // What the users have together keeps no administrator from what must be done; a script that runs away is stopped.
  const std::uint64_t most = policy_.caps.analyses;
  const std::uint64_t here = registration.caller.administrator && most <= kUnlimited / 2 ? 2 * most : most;
  if (runs_.size() >= here) {
    return refuse(Refusal::kTooManyAnalyses,
                  "this host runs " + std::to_string(runs_.size()) + " analyses, and its configuration allows " +
                      std::to_string(here) + " ([Caps] MaxAnalyses=" + std::to_string(most) +
                      ", administrators twice as many); one more is accepted when one of them has ended");
  }
  const Sums theirs = sums_of(registration.caller.uid, nullptr);
  if (!registration.caller.administrator && theirs.runs >= policy_.caps.analyses_per_user) {
    return refuse(Refusal::kTooManyAnalyses,
                  "you run " + std::to_string(theirs.runs) + " analyses of the " +
                      std::to_string(policy_.caps.analyses_per_user) +
                      " that this host's configuration allows a user ([Caps] MaxAnalysesPerUser=); one more is "
                      "accepted when one of them has ended");
  }
  if (auto ok = check_sums(registration.limits, theirs, policy_.caps, registration.caller); !ok) {
    return std::move(ok).error();
  }
  const auto stat = check_process(ports_.processes, *registration.process, registration.caller);
  if (!stat) return stat.error();
  if (auto ok = refuse_registered(*registration.process); !ok) return std::move(ok).error();

  auto run = std::make_unique<Run>(++last_key_, id, StallDetector(policy_.stall.pressure_percent, policy_.stall.time));
  run->run_id = ports_.identity.new_uuid();
  run->uid = owner_of(ports_.processes, *stat, registration.caller);
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

  auto members = admit_tree(run.leader_key, run.uid, registration.caller, now);
  if (!members) return done(std::move(members).error(), now);
  run.origin = ports_.processes.find_cgroup(run.leader_key.pid).value_or("");
  ask_precharge(run, *std::move(members));

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
  if (const auto departure = departures_.take(order.slice)) remove(*departure);
}

void Supervisor::request_place(const Run& run, const ScopeOrder& order) {
  ports_.placements.write(run.run_id, format_note(note_of(run)));
  AW_FAILPOINT("registration.noted");
  ports_.placer.request_place(
      order, *run.limit_watch.in_force,
      [this, key = run.key](Result<void> placed, const Now& when) { on_placed(key, std::move(placed), when); });
  AW_FAILPOINT("registration.asked");
}

std::vector<pid_t> Supervisor::find_movable(const ProcessKey& root) const {
  std::vector<pid_t> members{root.pid};
  for (const ProcessKey& member : find_tree(root.pid, ports_.processes.read_all(), {})) {
    const auto where = ports_.processes.find_cgroup(member.pid);
    if (where && is_in_a_run(*where)) continue;  // Another run's.
    if (member != root) members.push_back(member.pid);
    if (members.size() > kMostGathered) break;
  }
  return members;
}

Result<std::vector<pid_t>> Supervisor::admit_tree(const ProcessKey& root, uid_t uid, const Caller& caller,
                                                  const Now& now) {
  if (!may_have_tree(ports_.processes, root)) return std::vector<pid_t>{root.pid};
  // To find it takes a walk through /proc, so who owes for others has to wait with that, too.
  if (auto often = refuse_moves(uid, caller, now)) return std::move(*often);
  auto members = find_movable(root);
  if (members.size() <= kMostGathered) return members;
  charge_moves(uid, kMostGathered, now);
  return refuse(Refusal::kScopeFailed, "the tree has more than " + std::to_string(kMostGathered) +
                                           " processes, which is the most that a live one may come with; register "
                                           "its leader earlier, or start it with analysis-run");
}

void Supervisor::ask_precharge(Run& run, std::vector<pid_t> members) const {
  constexpr std::size_t kMost = 256;  // More would hold too many files open; the largest are what matters.
  // What the tree has now stays charged to where it is (kernel, "Memory Ownership").
  Bytes at_most(0);
  std::vector<std::pair<Bytes, pid_t>> largest;
  for (const pid_t pid : members) {
    largest.emplace_back(ports_.processes.read_anonymous(pid), pid);
    at_most = at_most + largest.back().first;
  }
  if (at_most <= negligible_precharge(run.limits.memory)) return;
  std::sort(largest.rbegin(), largest.rend());
  if (largest.size() > kMost) largest.resize(kMost);
  members.clear();
  for (const auto& [bytes, pid] : largest) members.push_back(pid);
  // Workers forked by one that has much share it with that one: nobody is ended for what is there but once.
  auto shares = ports_.processes.request_anonymous_shares(members);
  const bool complete = shares->complete();  // What comes between the two lines is late.
  run.memory.precharge_known = shares->known();
  if (!complete) run.memory.precharge_asked = std::move(shares);
  if (run.memory.precharge_known > negligible_precharge(run.limits.memory)) {
    run.memory.precharged = run.memory.precharge_known;
  }
}

bool Supervisor::take_late_precharge(Run& run, Bytes charged) const {
  if (!run.memory.precharge_asked || !run.memory.precharge_asked->complete()) return false;
  const auto shares = std::exchange(run.memory.precharge_asked, nullptr);
  // What they took since they were moved was read along.
  const Bytes late = shares->known() - run.memory.precharge_known - charged;
  const Bytes negligible = negligible_precharge(run.limits.memory);
  const bool was_little = run.memory.precharge_known <= negligible;
  const Bytes whole = (was_little ? run.memory.precharge_known : run.memory.precharged) + late;
  if (late == Bytes(0) || whole <= negligible) return false;
  run.memory.precharged = whole;
  return true;
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
    ports_.placements.remove(run.run_id);
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
  const std::string run_id = run.run_id;
  const std::string shelter = shelter_unit(run.id, run_id);
  add_mistaken(run.leader_key, ports_.cgroups.path_of(slice), moved);
  run.cgroup.reset();
  happen(run, Happening::kPlaceFailed, now);
  if (unanswered) {
    unanswered_.insert(slice);
    arm_sweep(now);
  }
  if (!unanswered) ports_.placements.remove(run_id);
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
              remove_slice(slice, [this, slice, done, why](const Now& then) {
                place_waiting(slice);
                done(why, then);
              });
            });
}

std::optional<pid_t> Supervisor::clear_out(const std::string& cgroup,
                                           const std::function<bool(const ProcessStat&)>& move) {
  std::optional<pid_t> left;
  for (int round = 0; round < kGatherRounds; ++round) {
    bool progress = false;
    left.reset();
    for (const ProcessStat& stat : ports_.processes.read_all()) {
      const auto where = ports_.processes.find_cgroup(stat.pid);
      if (stat.state == 'Z' || !where || !is_within(*where, cgroup)) continue;
      left = stat.pid;
      if (move(stat)) progress = true;
    }
    if (!progress) return left;
  }
  return left;
}

std::optional<pid_t> Supervisor::put_back_all(const std::string& cgroup, const std::vector<Moved>& moved) {
  return clear_out(cgroup, [&](const ProcessStat& stat) {
    // Forked since: to where the first of them goes.
    const auto known =
        std::find_if(moved.begin(), moved.end(), [&](const Moved& m) { return m.process == key_of(stat); });
    const std::string& origin = known == moved.end() ? moved.front().origin : known->origin;
    const auto put_back = [&] { return ports_.cgroups.put_back(stat.pid, origin); };
    if (origin.empty() || !move_only(key_of(stat), origin, cgroup, put_back)) return false;
    forget_member(key_of(stat));
    return true;
  });
}

void Supervisor::give_back(const std::string& cgroup, std::vector<Moved> moved, const std::string& shelter,
                           const Now& now, Done done) {
  const auto left = put_back_all(cgroup, moved);
  if (!left) return done({}, now);
  // systemd removes a scope that everybody has left: those who came from it get one of their own, without limits.
  auto opened = ports_.processes.open(*left);
  if (!opened) return done(std::move(opened).error(), now);
  const std::shared_ptr<ProcessHandle> first = std::move(*opened);
  if (const auto where = ports_.processes.find_cgroup(*left); !where || !is_within(*where, cgroup)) {
    return done(invalid("process " + std::to_string(*left) + " ended before it could be given back"), now);
  }
  const ScopeOrder order{shelter, ports_.placer.parent_slice(), first.get(), kForever, Span(0),
                         false,   "Given back by the watchdog"};
  const std::string there = ports_.cgroups.path_of(ports_.placer.parent_slice()) + "/" + shelter;
  ports_.placer.request_scope(
      order, [this, cgroup, there, first, done = std::move(done)](Result<void> placed, const Now& when) {
        finished_.clear();
        forget_member(first->key());
        if (placed && put_back_all(cgroup, {{first->key(), there}})) {
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
  if (is_anothers(ports_.processes, run.leader_key)) return refuse_anothers(run.leader_key);
  if (auto changed = refuse_changed(ports_.processes, run.leader_key, run.uid)) return std::move(*changed);
  auto outside = gather_tree(run, run.leader_key, run.uid, run.scope, moved);
  charge_moves(run.uid, moved.size() - 1, now);
  if (outside) return std::move(*outside);
  run.registered_at = now.monotonic;
  run.registered_real = now.real;
  run.deadline = add_span(now.monotonic, run.limits.wall_clock);
  if (const auto events = run.cgroup->read_memory_events()) run.memory.last_events = *events;
  return {};
}

std::optional<Error> Supervisor::gather_tree(Run& run, const ProcessKey& root, uid_t owner, const std::string& scope,
                                             std::vector<Moved>& moved) {
  if (!may_have_tree(ports_.processes, root)) return std::nullopt;
  // Who may end the run ends all that is in it: a tree takes nobody else's process along, unless it is root's.
  const std::string to = run.cgroup->path() + "/" + scope;
  std::vector<ProcessKey> known{root};
  for (int round = 0; round < kGatherRounds; ++round) {
    bool progress = false;
    for (const ProcessKey& member : find_tree(root.pid, ports_.processes.read_all(), known)) {
      if (std::find(known.begin(), known.end(), member) == known.end()) known.push_back(member);
      const auto where = ports_.processes.find_cgroup(member.pid);
      if (!where || is_in_a_run(*where)) continue;  // Here already, or another run's: that one keeps it.
      if (ports_.processes.why_protected(member.pid)) continue;
      const auto stat = ports_.processes.find_stat(member.pid);
      if (!stat || key_of(*stat) != member || stat->state == 'Z') continue;
      if (auto others = refuse_changed(ports_.processes, member, owner)) return others;
      auto done = move_only(member, to, to, [&] { return ports_.cgroups.move(member.pid, run.slice, scope); });
      if (!done && !says_process_gone(done.error())) {
        return refuse(Refusal::kScopeFailed, "process " + std::to_string(member.pid) + " (" + stat->comm +
                                                 ") of the tree could not be moved: " + done.error().message);
      }
      if (done) moved.push_back({member, *where});
      progress = true;
      if (moved.size() > 2 * kMostGathered) {
        return refuse(Refusal::kScopeFailed, "the tree has grown by thousands of processes meanwhile");
      }
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
  sampler_.begin(key, Sampler::Earlier::kNone, now);
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

  const uid_t uid = owner_of(ports_.processes, *stat, caller);
  if (auto tree = admit_tree(key_of(*stat), uid, caller, now); !tree) return done(std::move(tree).error(), now);

  const RunKey key = run->key;
  ++run->attaching;
  const std::string scope = scope_unit(run->id, ++run->generation);
  const std::string inside = run->cgroup->path() + "/" + scope;
  const std::string shelter = shelter_unit(run->id, ports_.identity.new_uuid());
  const Instant until = std::max(run->backstop, backstop_of(*run));
  const Span left = until == kNever ? kForever : std::max(Span(1), until - now.monotonic);
  const std::shared_ptr<ProcessHandle> held = std::move(process);
  const std::string origin = ports_.processes.find_cgroup(stat->pid).value_or("");
  const ScopeOrder order{
      scope, run->slice, held.get(), left, run->limits.grace, true, "Analysis " + run->id.text() + " (attached)"};
  run->asked.push_back(held->key());
  remember(*run);
  ports_.placer.request_scope(order, [=, this, done = std::move(done)](Result<void> placed, const Now& when) {
    finished_.clear();
    std::vector<Moved> moved{{held->key(), origin}};
    const auto it = runs_.find(key);
    // Without an answer it may come yet. A stop would come after that, and take it along: a round will see.
    const auto where = ports_.processes.find_cgroup(held->key().pid);
    const bool may_come = is_unanswered(placed) && !(where && is_within(*where, inside));
    if (it != runs_.end() && !may_come) forget_asked(*it->second, held->key());
    auto changed = refuse_changed(ports_.processes, held->key(), uid);
    Result<void> attached = it == runs_.end() ? refuse(Refusal::kNoSuchAnalysis, "the analysis ended meanwhile")
                            : changed         ? std::move(*changed)
                                              : finish_attach(*it->second, *held, uid, scope, std::move(placed), moved);
    charge_moves(uid, moved.size() - 1, when);
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
    add_mistaken(held->key(), inside, moved);
    give_back(inside, std::move(moved), shelter, when,
              [this, scope, arrive, done, may_come, why = std::move(attached).error()](const Result<void>& empty,
                                                                                       const Now& then) {
                if (empty && !may_come) ports_.placer.request_stop(scope, [](const Result<void>&, const Now&) {});
                arm_sweep(then);  // systemd may have made the slice anew for it.
                done(why, then);
                arrive(then);  // Not before: with the run goes its slice, and whoever is in it.
              });
  });
}

Result<void> Supervisor::finish_attach(Run& run, const ProcessHandle& process, uid_t uid, const std::string& scope,
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
  if (is_anothers(ports_.processes, process.key())) return refuse_anothers(process.key());
  if (auto outside = gather_tree(run, process.key(), uid, scope, moved)) return std::move(*outside);
  run.attached.push_back(process.key());
  remember(run);
  // What is ending already must not miss its SIGTERM for having come late; the others have had theirs.
  if (run.phase == Phase::kEnding) send_term(run, run.cgroup->path() + "/" + scope);
  return {};
}

}  // namespace aw::supervise
