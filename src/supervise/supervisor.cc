// SPDX-License-Identifier: Apache-2.0
#include "supervise/supervisor.h"

#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include "base/assert.h"
#include "base/failpoint.h"
#include "supervise/limit_details.h"
#include "supervise/refusal.h"

namespace aw::supervise {
namespace {

/// How soon memory.stat is read again for a run at its tripwire: at once when it is near its limit, at most ten times
/// a second when what fills it is page cache.
constexpr Span kNearLimitPause = std::chrono::milliseconds{10};
constexpr Span kCachePause = std::chrono::milliseconds{100};
/// … and where each of its processes must be looked at, so that a tree of thousands takes a twentieth of our time: such
/// a look takes some 10 us.
constexpr Span kPauseForEach = std::chrono::microseconds{200};
constexpr Span kLongestPause = std::chrono::seconds{1};
/// Whoever asks how much a run has is told what the last look found, where one more would be at more processes.
constexpr std::uint32_t kMostLookedAtForUsage = 256;
constexpr Span kMercyDelay = std::chrono::milliseconds{250};
/// The cgroup is empty before the leader's pidfd says that it is gone, by microseconds.
constexpr Span kLeaderPatience = std::chrono::seconds{1};
/// What the kernel has killed is gone after this, or is not all there is.
constexpr Span kKernelKillPatience = std::chrono::milliseconds{200};
/// For one overrun of a parent's limit the kernel may kill several runs; all of them are heard of within this.
constexpr Span kOverrunMemory = std::chrono::seconds{5};
/// Parents get this long to reap what a run left, before it is reported.
constexpr Span kReapPatience = std::chrono::seconds{2};

/// memory.high and memory.max of a run whose whole limit is charged elsewhere.
constexpr Bytes kLeastTripwire(4 * kMiB.count());

constexpr int kTermThenContinue[] = {SIGTERM, SIGCONT};
constexpr int kKill[] = {SIGKILL};

/// Rounds of killing one by one: a fork bomb outruns any number of them, anything else is over in two or three. What is
/// left is for the retry.
constexpr int kKillRounds = 16;

void kill_one_by_one(const RunCgroup& cgroup, Processes& processes) {
  std::vector<pid_t> told;
  for (int round = 0; round < kKillRounds; ++round) {
    const auto pids = cgroup.read_processes();
    if (!pids) return;
    bool any_new = false;
    for (const pid_t pid : *pids) {
      if (std::binary_search(told.begin(), told.end(), pid)) continue;  // On its way out.
      any_new = true;
      (void)processes.signal_member(pid, cgroup.path(), kKill);  // Gone meanwhile is fine.
    }
    if (!any_new) return;
    told = *pids;
  }
}

}  // namespace

Supervisor::Supervisor(Ports ports, Policy policy, Machine machine, const Now& now)
    : ports_(std::move(ports)),
      policy_(policy),
      machine_(std::move(machine)),
      chronicle_(ports_.identity, ports_.processes, ports_.recorder, tally_, machine_.undelegated),
      wheel_(now.monotonic),
      sampler_(sampling(), policy_.series),
      rounds_(rounds()) {}

Supervisor::~Supervisor() = default;

// ---- timers ----

void Supervisor::arm(Run& run, Purpose purpose, Instant due) {
  TimerHandle& handle = run.timers.at(static_cast<std::size_t>(purpose));
  (void)wheel_.cancel(handle);  // A stale handle matches nothing.
  handle = due == kNever ? TimerHandle{} : wheel_.arm(due, {run.key, static_cast<std::uint32_t>(purpose), 0});
  update_alarm();
}

void Supervisor::disarm(Run& run, Purpose purpose) { arm(run, purpose, kNever); }

void Supervisor::update_alarm() {
  const auto next = wheel_.next_expiry();
  if (next == alarm_) return;
  alarm_ = next;
  ports_.set_alarm(next);
}

void Supervisor::on_timer(const Now& now) {
  finished_.clear();
  due_.clear();
  wheel_.advance(now.monotonic, due_);
  alarm_.reset();  // It has fired: whatever is next must be set anew.
  for (const TimerTag& tag : std::exchange(due_, {})) {
    const auto purpose = static_cast<Purpose>(tag.purpose);
    if (purpose == Purpose::kUnreaped) {
      rounds_.add(tag.owner, purpose, now);
    } else if (purpose == Purpose::kAdoptAgain) {
      adopt_again(now);
    } else if (purpose == Purpose::kSweep) {
      sweep(now);
    } else if (purpose == Purpose::kPulse) {
      std::exchange(beat_, {})(now);
    } else if (purpose == Purpose::kLateRounds) {
      rounds_.on_late(now);
    } else if (const auto it = runs_.find(tag.owner); it != runs_.end()) {
      on_due(*it->second, purpose, now);
    }
  }
  update_alarm();
}

void Supervisor::on_due(Run& run, Purpose purpose, const Now& now) {
  switch (purpose) {
    // Look first: what has ended unseen is neither overdue nor unkillable.
    case Purpose::kDeadline:
      look(run, now);
      if (!run.over()) cause(run, {Reason::kWallClock, "", false}, now);
      return;
    case Purpose::kGrace:
      look(run, now);
      return happen(run, Happening::kGraceExpired, now);
    case Purpose::kKillRetry:
      look(run, now);
      // Nobody is left but who is on the way in, for whom systemd is waited for.
      if (!run.over() && run.attaching > 0 && run.cgroup->read_processes().value_or({}).empty()) {
        return arm(run, Purpose::kKillRetry, now.monotonic + kKillPatience);
      }
      return happen(run, Happening::kKillExpired, now);
    case Purpose::kMemoryLook:
      return weigh_memory(run, now);
    case Purpose::kMercyProperty:
      run.limit_watch.mercy_due = false;
      return tell_limits(run);
    case Purpose::kOrphanRound:
      return rounds_.add(run.key, purpose, now);
    case Purpose::kDriftRound:
      if (run.limit_watch.written) return look_for_drift(run, now);
      run.limit_watch.next_look = kNever;  // What is written meanwhile does not wait for this round.
      return rounds_.add(run.key, purpose, now);
    case Purpose::kOrphanConfirm:
      return look_for_orphans(run, true, now);
    case Purpose::kOrphanKill:
      return kill_orphans(run, now);
    case Purpose::kLeaderConfirm:
      return confirm_leader(run, now);
    case Purpose::kOwnerConfirm:
      return confirm_owner(run, now);
    case Purpose::kEmptyConfirm:
      return confirm_empty(run, now);
    case Purpose::kKernelKill:
      look(run, now);
      if (!run.over()) happen(run, Happening::kKernelKilled, now);
      return;
    case Purpose::kUnreaped:
    case Purpose::kAdoptAgain:
    case Purpose::kSweep:
    case Purpose::kPulse:
    case Purpose::kLateRounds:
      return;  // Of no run that lives; on_timer() has them.
  }
  unreachable(purpose);
}

Rounds::Ports Supervisor::rounds() {
  return {[this](RunKey key, Purpose purpose, const Now& now) { make_round(key, purpose, now); },
          [this] { ports_.request_rounds(); },
          [this](Instant due) {
            (void)wheel_.arm(due, {0, static_cast<std::uint32_t>(Purpose::kLateRounds), 0});
            update_alarm();
          },
          [this] { return ports_.read_clock(); }};
}

void Supervisor::on_rounds_due(const Now& now) {
  finished_.clear();
  rounds_.on_due(now);
}

void Supervisor::make_round(RunKey key, Purpose purpose, const Now& now) {
  if (purpose == Purpose::kUnreaped) return report_unreaped(now);
  const auto it = runs_.find(key);
  if (it == runs_.end()) return;
  Run& run = *it->second;
  if (purpose == Purpose::kDriftRound) return look_for_drift(run, now);
  look(run, now);  // A notification that was lost costs a round, not the run.
  if (!run.over()) look_for_orphans(run, false, now);
}

void Supervisor::request_pulse(Instant due, std::function<void(const Now&)> beat) {
  beat_ = std::move(beat);
  (void)wheel_.arm(due, {0, static_cast<std::uint32_t>(Purpose::kPulse), 0});
  update_alarm();
}

// ---- the life of a run ----

void Supervisor::happen(Run& run, Happening happening, const Now& now) {
  const Step next = step(run.phase, happening);
  run.phase = next.next;
  for (const Action action : next.actions) carry_out(run, action, now);
}

void Supervisor::cause(Run& run, Cause cause, const Now& now) {
  if (run.releasing) {
    if (!run.put_off) run.put_off = std::move(cause);
    return;
  }
  if (run.release_begun) {
    // Whoever asks for its end means also those who are out already.
    if (cause.reason != Reason::kRequested && finish_release(run, now)) return;
    bring_back(run, shelter_unit(run.id, run.run_id));
    run.release_begun = false;
  }
  const bool emptied = run.emptied || run.settling;
  // It has ended by itself. What is waited for is only whether somebody had asked for it.
  if (emptied && cause.reason != Reason::kRequested) return;
  if (!run.cause) run.cause = std::move(cause);
  happen(run, Happening::kCause, now);
  if (emptied && is_empty(run)) happen(run, Happening::kEmptied, now);  // There was nobody left to end.
}

void Supervisor::carry_out(Run& run, Action action, const Now& now) {
  switch (action) {
    case Action::kRecordRegistered:
      remember(run);
      AW_FAILPOINT("run.registered-noted");
      return chronicle_.registered(run, now);
    case Action::kWatch:
      return begin_watching(run, now);
    case Action::kRecordEnding:
      if (run.phase == Phase::kEnding) run.signal = SIGTERM;
      if (run.ending_since == Instant{}) run.ending_since = now.monotonic;
      renew_names(run);
      remember(run);
      AW_FAILPOINT("run.ending-noted");
      chronicle_.ending(run, now);
      AW_FAILPOINT("run.ending-recorded");
      sampler_.stir(run.key, now);
      return sample_decision(run);
    case Action::kLiftTripwire:
      if (run.limits.memory.is_infinite()) return;
      // At once by hand, and for good through systemd a little later, if the run is still there by then: what is
      // written behind systemd lasts only until its next write.
      (void)run.cgroup->write_tripwire(slice_limits(run).tripwire);  // Without it a handler is slow.
      run.limit_watch.mercy_due = true;
      return arm(run, Purpose::kMercyProperty, now.monotonic + kMercyDelay);
    case Action::kSendTerm:
      if (run.told) return;  // By the daemon before this one.
      if (!run.cause || !run.cause->term_sent_elsewhere) {
        send_term(run, run.cgroup->path());
        measure_signal(run);
      }
      AW_FAILPOINT("run.term-sent");
      run.told = true;
      return remember(run);
    case Action::kArmGrace:
      disarm(run, Purpose::kDeadline);
      return arm(run, Purpose::kGrace, add_span(now.monotonic, run.limits.grace));
    case Action::kDisarmGrace:
      return disarm(run, Purpose::kGrace);
    case Action::kRecordEscalated:
      run.escalated = true;
      renew_names(run);
      remember(run);
      AW_FAILPOINT("run.escalated-noted");
      return chronicle_.escalated(run, now);
    case Action::kWriteKill:
      return kill_whole(run);
    case Action::kArmKillRetry:
      return arm(run, Purpose::kKillRetry, now.monotonic + kKillPatience);
    case Action::kDisarmKillRetry:
      return disarm(run, Purpose::kKillRetry);
    case Action::kReportUnkillable:
      return chronicle_.unkillable(run, now);
    case Action::kRecordEnd:
      return record_end(run, now);
    case Action::kReplyPlaceFailed:
      return;  // on_placed() holds the reply and the error.
    case Action::kLetLive:
      remember(run);
      AW_FAILPOINT("run.released-noted");
      chronicle_.unregistered(run, now);
      return close_series(run, now);
    case Action::kForget:
      return forget(run);
  }
  unreachable(action);
}

void Supervisor::renew_names(Run& run) {
  // The leader may have become another program since it was registered; a zombie keeps its name, but no command line.
  const auto stat = ports_.processes.find_stat(run.leader_key.pid);
  if (!stat || key_of(*stat) != run.leader_key) return;
  run.comm = stat->comm;
  if (auto cmdline = ports_.processes.read_cmdline(run.leader_key.pid); !cmdline.empty()) {
    run.cmdline = std::move(cmdline);
  }
}

void Supervisor::kill_whole(Run& run) {
  const auto killed = run.cgroup->write_kill();
  if (killed || says_gone(killed.error())) return;
  // A threaded cgroup has no cgroup.kill (EOPNOTSUPP), a file system that is read-only takes none.
  run.kill_problem = killed.error().message;
  kill_one_by_one(*run.cgroup, ports_.processes);
}

void Supervisor::send_term(Run& run, const std::string& path) {
  (void)run.cgroup->write_thaw();  // A frozen process runs no handler; one that is not frozen does not mind.
  std::vector<pid_t> told;
  // A second reading catches what was forked while the first was being told.
  for (int reading = 0; reading < 2; ++reading) {
    const auto pids = run.cgroup->read_processes();
    if (!pids) return;
    for (const pid_t pid : *pids) {
      if (std::binary_search(told.begin(), told.end(), pid)) continue;
      (void)ports_.processes.signal_member(pid, path, kTermThenContinue);  // Gone meanwhile is fine.
    }
    told = *pids;
  }
}

/// As it was for the last process that was told: thawing, and a large tree, take their time as well.
void Supervisor::measure_signal(const Run& run) {
  if (!run.cause) return;
  const Instant sent = ports_.read_clock();
  tally_.breach_to_signal.at(static_cast<std::size_t>(run.cause->reason)).add(sent - run.ending_since);
  if (run.cause->reason == Reason::kWallClock && run.deadline != kNever)
    tally_.deadline_lateness.add(sent - run.deadline);
}

Reason Supervisor::reason_of_end(const Run& run) const {
  if (run.cause) return run.cause->reason;
  const auto& status = run.leader_end.wait_status;
  if (status && WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL) return Reason::kExternal;
  return Reason::kExited;
}

Cause Supervisor::kernel_kill(const MemoryEvents& events, const Now& now) {
  // `oom` is counted where the limit is, `oom_kill` where the victim is: a kill without an oom of our own tree is
  // another's limit, a parent's if one was reached just now, else the host's.
  if (events.oom > 0) return {Reason::kOom, "the kernel killed it at its ceiling"};
  follow_ancestors(now);
  Cause cause{Reason::kExternal, "the kernel killed it because the host was out of memory"};
  cause.limit_of = LimitOf::kHost;
  if (overrun_ && now.monotonic - overrun_->seen <= kOverrunMemory) {
    cause.limit_of = LimitOf::kParent;
    cause.limit_cgroup = overrun_->cgroup;
    cause.detail = "the kernel killed it at the limit of " + overrun_->cgroup + ", which it shares with others";
  } else if (ancestor_ooms_ && ancestor_ooms_->empty()) {
    cause.limit_of = LimitOf::kNone;
    cause.detail = "the kernel killed it for a limit that is not its own";
  }
  return cause;
}

void Supervisor::follow_ancestors(const Now& now) {
  std::map<std::string, std::uint64_t> ooms;
  for (Ancestor& ancestor : ports_.cgroups.read_ancestors()) {
    // Before the first look a limit that was ever reached is all that can be known, and that is a good deal: a host
    // that has run out of memory leaves these at 0.
    const std::uint64_t known = ancestor_ooms_ ? (*ancestor_ooms_)[ancestor.path] : 0;
    if (ancestor.ooms > known) overrun_ = {ancestor.path, now.monotonic};
    ooms.emplace(std::move(ancestor.path), ancestor.ooms);
  }
  ancestor_ooms_ = std::move(ooms);
}

void Supervisor::record_end(Run& run, const Now& now) {
  if (const auto events = run.cgroup->read_memory_events()) run.memory.last_events = *events;
  if (!run.cause && run.memory.last_events.oom_kill > 0) run.cause = kernel_kill(run.memory.last_events, now);
  AW_FAILPOINT("run.empty");
  if (const auto members = read_members(run))
    look_for_escapes(run, *members, now);  // Who was moved out since the last round outlives the run.
  chronicle_.ended(run, reason_of_end(run), now);
  AW_FAILPOINT("run.end-recorded");
  close_series(run, now);
  if (run.cgroup->read_counters().tasks.value_or(0) == 0) return;
  if (ended_.empty()) arm_unreaped(now);
  ended_.push_back({now.monotonic + kReapPatience, chronicle_.last_end(), run.cgroup->path()});
}

void Supervisor::forget(Run& run) {
  for (TimerHandle& timer : run.timers) (void)wheel_.cancel(std::exchange(timer, {}));
  update_alarm();
  sampler_.end(run.key);
  const bool placed = run.cgroup != nullptr;
  run.cgroup.reset();
  run.leader.reset();
  run.owner.reset();
  if (placed) remove_when_kept(run.slice, run.uid);
  if (const auto it = by_id_.find(run.id); it != by_id_.end() && it->second == run.key) by_id_.erase(it);
  const auto it = runs_.find(run.key);
  AW_ASSERT(it != runs_.end());
  finished_.push_back(std::move(it->second));
  runs_.erase(it);
}

// ---- looking ----

void Supervisor::on_cgroup_changed(RunKey key, const Now& now) {
  finished_.clear();
  if (const auto it = runs_.find(key); it != runs_.end()) look(*it->second, now);
}

void Supervisor::on_events_lost(const Now& now) {
  ++tally_.events_lost;
  std::vector<RunKey> keys;
  for (const auto& [key, run] : runs_) keys.push_back(key);
  for (const RunKey key : keys) on_cgroup_changed(key, now);
}

void Supervisor::look(Run& run, const Now& now) {
  if (!run.cgroup || run.over()) return;
  look_at_memory(run, now);
  if (run.over() || run.releasing) return;
  if (is_empty(run)) on_emptied(run, now);
}

bool Supervisor::is_empty(const Run& run) const {
  if (run.attaching > 0) return false;  // Whoever is on the way in is not to go with the slice.
  const auto populated = run.cgroup->read_populated();
  return populated ? !*populated : says_gone(populated.error());  // Gone: somebody stopped the slice.
}

void Supervisor::look_at_memory(Run& run, const Now& now) {
  const auto events = run.cgroup->read_memory_events();
  if (!events) return;
  const MemoryEvents before = std::exchange(run.memory.last_events, *events);
  if (events->oom_kill > before.oom_kill) {
    if (!run.cause) run.cause = kernel_kill(*events, now);
    if (run.phase != Phase::kRunning) return happen(run, Happening::kKernelKilled, now);
    // It kills a scope whole, within milliseconds. Of a tree with several, the rest must not live on: never a half.
    return arm(run, Purpose::kKernelKill, now.monotonic + kKernelKillPatience);
  }
  if (events->high == before.high) return;
  sampler_.stir(run.key, now);
  weigh_memory(run, now);
}

bool Supervisor::has_more_than_allowed(const Run& run) const {
  const auto stat = run.cgroup->read_memory_stat();
  return stat && is_breach(run, stat->unreclaimable() + memory_elsewhere(run, *stat));
}

bool Supervisor::is_breach(const Run& run, Bytes unreclaimable) const {
  const Bytes slack = batching_slack(machine_.cpus, machine_.page_size);
  return judge_memory(unreclaimable, Bytes(0), run.limits.memory, slack) == MemoryVerdict::kBreach;
}

Bytes Supervisor::memory_elsewhere(const Run& run, const MemoryStat& stat, std::size_t* looked_at) const {
  if (run.memory.precharged == Bytes(0)) return Bytes(0);
  // What was charged elsewhere before the registration may have been freed since: it is at most what the processes
  // have and this cgroup was not charged for.
  Bytes held(0);
  if (const auto pids = run.cgroup->read_processes()) {
    for (const pid_t pid : *pids) held = held + ports_.processes.read_anonymous(pid);
    if (looked_at != nullptr) *looked_at = pids->size();
  }
  return std::min(run.memory.precharged, held - stat.anon);
}

void Supervisor::follow_precharge(Run& run, Bytes elsewhere) {
  if (run.releasing) return;  // Those who are out already may be back in a moment.
  // What was freed elsewhere may be used again here. It never grows back: whatever is new is charged to the run.
  if (run.memory.precharged - elsewhere <= negligible_precharge(run.limits.memory)) return;
  run.memory.precharged = elsewhere;
  hold_to_precharge(run);
}

void Supervisor::hold_to_precharge(Run& run) {
  (void)run.cgroup->write_tripwire(slice_limits(run).tripwire);  // At once; for good through systemd.
  tell_limits(run);
}

void Supervisor::weigh_memory(Run& run, const Now& now) {
  if (run.phase != Phase::kRunning) return;
  if (now.monotonic < run.memory.next_look) return arm(run, Purpose::kMemoryLook, run.memory.next_look);
  const auto stat = run.cgroup->read_memory_stat();
  if (!stat) return;
  if (take_late_precharge(run, stat->anon)) {
    hold_to_precharge(run);
    remember(run);
  }
  std::size_t looked_at = 0;
  const Bytes elsewhere = memory_elsewhere(run, *stat, &looked_at);
  const Bytes used = stat->unreclaimable() + elsewhere;
  const bool near_limit = used > run.limits.memory - run.limits.memory / 8;
  const Span for_all = std::min(kPauseForEach * static_cast<std::int64_t>(looked_at), kLongestPause);
  run.memory.next_look = now.monotonic + std::max(near_limit ? kNearLimitPause : kCachePause, for_all);
  run.memory.elsewhere = elsewhere;
  run.memory.unreclaimable = used;
  run.memory.highest_unreclaimable = std::max(run.memory.highest_unreclaimable, used);
  if (is_breach(run, used)) {
    return cause(run, {Reason::kMemory, "unreclaimable memory passed the limit", false}, now);
  }
  follow_precharge(run, elsewhere);
  if (const auto pressure = run.cgroup->read_memory_pressure()) {
    if (run.memory.stall.observe(now.monotonic, *pressure, *stat)) {
      return cause(run, {Reason::kMemory, "stalled: nothing but full memory pressure and refaults", false}, now);
    }
    if (run.memory.stall.suspects()) arm(run, Purpose::kMemoryLook, now.monotonic + std::chrono::seconds{1});
  }
  if (run.memory.precharge_asked) arm(run, Purpose::kMemoryLook, now.monotonic + std::chrono::seconds{1});
}

void Supervisor::on_emptied(Run& run, const Now& now) {
  if (finish_release(run, now)) return;
  if (!run.leader_end.ended && run.leader && run.leader->alive()) {
    // Its pidfd will say so, with its exit status to be read; if it never does, it was taken out of its scope.
    if (!run.emptied) arm(run, Purpose::kEmptyConfirm, now.monotonic + kLeaderPatience);
    run.emptied = true;
    return;
  }
  if (!run.leader_end.ended) return on_leader_ended(run.key, now);
  if (run.phase != Phase::kRunning || !may_have_been_stopped(run)) return happen(run, Happening::kEmptied, now);
  if (std::exchange(run.settling, true)) return;
  // systemd tells of a stop job before it sends SIGTERM, but the bus may be slower than the death.
  arm(run, Purpose::kEmptyConfirm, now.monotonic + kLeaderPatience);
  ports_.placer.request_settled([this, key = run.key](const Result<void>& settled, const Now& when) {
    finished_.clear();
    if (!settled) return;  // The timer's turn, then: what it had to tell may come until then.
    if (const auto it = runs_.find(key); it != runs_.end()) confirm_empty(*it->second, when);
  });
}

void Supervisor::confirm_empty(Run& run, const Now& now) {
  if (is_empty(run)) {
    if (finish_release(run, now)) return;
    const auto sought = run.leader_end.ended ? Result(std::optional<std::string>()) : find_outside(run, run.leader_key);
    if (!sought) return arm(run, Purpose::kEmptyConfirm, now.monotonic + kLeaderPatience);
    const std::optional<std::string>& outside = *sought;
    if (outside && !run.cause) {
      // `external`: neither the tree nor anybody who may ask for it has ended the run, and neither has the watchdog.
      // Somebody else has ended that it is watched.
      Cause moved{Reason::kExternal, "its leader was moved out of its scope to " + *outside};
      moved.moved_to = *outside;
      run.cause = std::move(moved);
    }
    return happen(run, Happening::kEmptied, now);
  }
  // A process was attached meanwhile, or the leader has come back.
  run.emptied = run.settling = false;
  disarm(run, Purpose::kEmptyConfirm);
  if (run.phase != Phase::kRunning) return;
  arm(run, Purpose::kDeadline, run.deadline);
  if (run.leader_end.ended) arm(run, Purpose::kLeaderConfirm, now.monotonic);
}

bool Supervisor::may_have_been_stopped(const Run& run) const {
  if (run.cause) return false;
  const auto& status = run.leader_end.wait_status;
  if (!status) return true;
  return (WIFSIGNALED(*status) && WTERMSIG(*status) == SIGTERM) ||
         (WIFEXITED(*status) && WEXITSTATUS(*status) == 128 + SIGTERM);
}

void Supervisor::on_leader_ended(RunKey key, const Now& now) {
  const auto it = runs_.find(key);
  if (it == runs_.end() || it->second->leader_end.ended) return;
  Run& run = *it->second;
  run.leader_end.ended = true;
  renew_names(run);
  read_leader_status(run);
  if (!run.cgroup) return;  // Being placed: on_placed() looks at the leader.
  look(run, now);
  if (!run.over() && run.phase == Phase::kRunning) {
    arm(run, Purpose::kLeaderConfirm, now.monotonic + policy_.orphans.confirmation);
  }
}

void Supervisor::read_leader_status(Run& run) const {
  // Its parent may not have reaped it yet: then the status can be read from the zombie.
  const auto stat = ports_.processes.find_stat(run.leader_key.pid);
  if (stat && key_of(*stat) == run.leader_key && stat->state == 'Z') run.leader_end.wait_status = stat->exit_status;
}

void Supervisor::confirm_leader(Run& run, const Now& now) {
  const Instant again = add_span(now.monotonic, policy_.orphans.confirmation);
  if (run.rehousing) return arm(run, Purpose::kLeaderConfirm, again);
  if (!run.leader_end.ended) {  // It could not be watched.
    if (run.leader->alive()) return arm(run, Purpose::kLeaderConfirm, again);
    return on_leader_ended(run.key, now);
  }
  look(run, now);
  if (run.over() || run.phase != Phase::kRunning || run.emptied || run.settling) return;
  if (run.limits.orphan_policy == OrphanPolicy::kKill) {
    return cause(run, {Reason::kOrphaned, "the leader ended and left processes behind", false}, now);
  }
  report_leftovers(run, now);
}

void Supervisor::on_owner_ended(RunKey key, const Now& now) {
  const auto it = runs_.find(key);
  if (it == runs_.end()) return;
  // A leader that ends with its owner is not orphaned: it gets the time of a second look.
  arm(*it->second, Purpose::kOwnerConfirm, now.monotonic + policy_.orphans.confirmation);
}

void Supervisor::confirm_owner(Run& run, const Now& now) {
  if (run.rehousing) return arm(run, Purpose::kOwnerConfirm, add_span(now.monotonic, policy_.orphans.confirmation));
  look(run, now);
  // It is the leader whom its owner's death orphans. What a dead leader left has a policy of its own.
  if (run.over() || run.leader_end.ended || run.limits.owner_policy != OwnerPolicy::kKill) return;
  cause(run, {Reason::kOrphaned, "the owner died", false}, now);
}

void Supervisor::arm_unreaped(const Now& now) {
  (void)wheel_.arm(now.monotonic + kReapPatience, {0, static_cast<std::uint32_t>(Purpose::kUnreaped), 0});
  update_alarm();
}

// No list has zombies but that of all processes of the host. It is read once for all runs that have ended in the last
// seconds: of a thousand that end together, each would hold the loop up for as long as a walk through /proc takes.
void Supervisor::report_unreaped(const Now& now) {
  const auto later =
      std::find_if(ended_.begin(), ended_.end(), [&](const auto& run) { return run.look > now.monotonic; });
  std::vector<Ended> due(std::make_move_iterator(ended_.begin()), std::make_move_iterator(later));
  ended_.erase(ended_.begin(), later);
  if (!ended_.empty()) arm_unreaped(now);
  std::unordered_map<std::string, std::vector<ProcessStat>> zombies;  // by the cgroup of a run
  for (const Ended& run : due) {
    // Where a later run of its id lives, zombies are that one's.
    if (find_home(run.cgroup_path) == nullptr) zombies.try_emplace(run.cgroup_path);
  }
  if (zombies.empty()) return;
  for (const ProcessStat& stat : ports_.processes.read_all()) {
    if (stat.state != 'Z') continue;
    std::string cgroup = ports_.processes.find_cgroup(stat.pid).value_or("");
    while (!cgroup.empty() && !zombies.contains(cgroup)) cgroup.erase(cgroup.rfind('/'));
    if (!cgroup.empty()) zombies[cgroup].push_back(stat);
  }
  for (const Ended& run : due) {
    const auto left = zombies.find(run.cgroup_path);
    if (left != zombies.end() && !left->second.empty()) chronicle_.unreaped(run.record, left->second, now);
  }
}

// ---- requests and readings that need no flow of their own ----

Result<void> Supervisor::end(const AnalysisId& id, const Caller& caller, const Now& now) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return refuse(Refusal::kNoSuchAnalysis, "no analysis \"" + id.text() + "\" is running");
  if (runs_.at(it->second)->releasing) {
    // Where the release succeeds there is no run left to be ended: nobody is told that it was.
    return refuse(Refusal::kScopeFailed, "the analysis \"" + id.text() + "\" is being unregistered; try again");
  }
  Requester requester{caller.uid, caller.pid, ""};
  std::string detail = "asked by uid " + std::to_string(caller.uid);
  if (const auto stat = ports_.processes.find_stat(caller.pid)) {
    requester.comm = stat->comm;
    detail += " (" + stat->comm + ", process " + std::to_string(caller.pid) + ")";
  }
  Cause asked{Reason::kRequested, std::move(detail)};
  asked.requester = std::move(requester);
  cause(*runs_.at(it->second), std::move(asked), now);
  return {};
}

void Supervisor::on_manager_job(const std::string& unit, ManagerJob job, const Now& now) {
  finished_.clear();
  for (const auto& [key, run] : runs_) {
    if ((run->scope != unit && run->slice != unit) || run->rehousing || !run->cgroup) continue;
    if (job == ManagerJob::kOver && !is_empty(*run)) return;
    // systemd sends SIGTERM itself, to the scope it stops; a run of several scopes needs ours for the others.
    return cause(*run, {Reason::kRequested, "systemd was asked to stop " + unit, run->generation == 1}, now);
  }
}

const Run* Supervisor::find(const AnalysisId& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : find(it->second);
}

const Run* Supervisor::find_by_run_id(const std::string& run_id) const {
  const auto it =
      std::find_if(runs_.begin(), runs_.end(), [&](const auto& entry) { return entry.second->run_id == run_id; });
  return it == runs_.end() ? nullptr : it->second.get();
}

const Run* Supervisor::find(RunKey key) const {
  const auto it = runs_.find(key);
  return it == runs_.end() ? nullptr : it->second.get();
}

Usage Supervisor::read_usage(const Run& run) const {
  Usage usage;
  usage.not_in_force = limits_not_in_force(run.limits, machine_.undelegated);
  if (!run.cgroup) return usage;
  usage.counters = run.cgroup->read_counters();
  if (const auto pids = run.cgroup->read_processes()) usage.processes = static_cast<std::uint32_t>(pids->size());
  if (const auto stat = run.cgroup->read_memory_stat()) {
    const bool small = usage.processes <= kMostLookedAtForUsage;
    usage.unreclaimable = stat->unreclaimable() + (small ? memory_elsewhere(run, *stat) : run.memory.elsewhere);
  }
  return usage;
}

std::uint32_t Supervisor::monitored() const {
  return static_cast<std::uint32_t>(std::count_if(
      runs_.begin(), runs_.end(), [](const auto& entry) { return entry.second->state() != State::kPlacing; }));
}

std::uint32_t Supervisor::ending() const {
  return static_cast<std::uint32_t>(std::count_if(runs_.begin(), runs_.end(), [](const auto& entry) {
    return entry.second->state() == State::kEnding || entry.second->state() == State::kUnkillable;
  }));
}

std::uint64_t Supervisor::unkillable_processes() const {
  std::uint64_t count = 0;
  for (const auto& [key, run] : runs_) {
    if (run->phase != Phase::kUnkillable || !run->cgroup) continue;
    if (const auto pids = run->cgroup->read_processes()) count += pids->size();
  }
  return count;
}

bool Supervisor::busy() const {
  if (!leaving_.empty() || !rounds_.empty()) return true;
  return std::any_of(runs_.begin(), runs_.end(), [](const auto& entry) {
    const Run& run = *entry.second;
    if (run.state() != State::kRunning) return run.state() != State::kUnkillable;
    if (run.rehousing || run.attaching > 0) return true;
    const auto& orphans = run.orphans.reported;
    return run.emptied || run.settling || !run.orphans.suspects.empty() ||
           (run.leader_end.ended && run.limits.orphan_policy == OrphanPolicy::kKill) ||
           std::any_of(orphans.begin(), orphans.end(), [](const auto& orphan) { return orphan.second != kNever; });
  });
}

SliceLimits Supervisor::slice_limits(const Run& run) const {
  const Limits& limits = run.limits;
  const Limits& memory = run.memory.still_held_to ? *run.memory.still_held_to : limits;
  const bool ending = run.phase != Phase::kPlacing && run.phase != Phase::kRunning;
  const Bytes elsewhere = run.memory.precharged;
  // What is elsewhere may be all that is allowed. systemd takes no limit of 0, and a handler needs a little.
  const Bytes least = std::min(memory.memory, kLeastTripwire);
  const Bytes tripwire = std::max(least, (ending ? memory.mercy() : memory.memory) - elsewhere);
  const Bytes ceiling = std::max(least + memory.effective_headroom(), memory.ceiling() - elsewhere);
  return {tripwire, ceiling, limits.tasks_max, limits.cpu_quota_per_second, limits.cpu_weight};
}

}  // namespace aw::supervise
