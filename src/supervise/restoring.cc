// SPDX-License-Identifier: Apache-2.0
//
// Limits that are not what systemd was told any more: noticed, put back and put on record (drift.h compares). Nobody is
// killed by it: a tree that has grown while its ceiling was lifted is told to end first.
#include <algorithm>

#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

/// A limit is back within two of these, whether or not a notification told of it.
constexpr Span kDriftInterval = std::chrono::seconds{15};
/// systemd writes the files of a unit one after the other; so does whoever has a script for it.
constexpr Span kDriftDebounce = std::chrono::milliseconds{100};
/// Somebody who writes all the time gets one answer a second: each is a call to PID 1 as well.
constexpr Span kDriftPause = std::chrono::seconds{1};
/// Who fights is heard of again after this.
constexpr Span kReportAgain = std::chrono::minutes{10};
/// … and with ever new values not more often than this meanwhile.
constexpr std::size_t kMostReported = 16;

constexpr char kAboveRestored[] = "unreclaimable memory was above the limit when the limit was restored";

}  // namespace

void Supervisor::tell_limits(Run& run, Done done) {
  const SliceLimits limits = slice_limits(run);
  ++run.limit_watch.telling;
  ports_.placer.request_limits(
      run.slice, limits, [this, key = run.key, limits, done = std::move(done)](Result<void> set, const Now& when) {
        if (const auto it = runs_.find(key); it != runs_.end()) {
          --it->second->limit_watch.telling;
          if (set) it->second->limit_watch.in_force = limits;
        }
        if (done) done(std::move(set), when);
      });
}

void Supervisor::arm_drift_look(Run& run, Instant due) {
  run.limit_watch.next_look = due;
  arm(run, Purpose::kDriftRound, due);
}

void Supervisor::begin_drift_rounds(Run& run, const Now& now) {
  // Runs that begin together, as after a start of the daemon, are not looked at together.
  constexpr std::int64_t kPlaces = 16;
  const auto place = static_cast<std::int64_t>(run.key % kPlaces);
  arm_drift_look(run, now.monotonic + kDriftInterval / 2 + kDriftInterval / 2 * place / kPlaces);
}

void Supervisor::on_limits_written(RunKey key, const Now& now) {
  finished_.clear();
  const auto it = runs_.find(key);
  if (it == runs_.end() || !it->second->cgroup) return;
  // By systemd, by us, or by somebody else: a look will tell.
  LimitWatchState& watch = it->second->limit_watch;
  watch.written = true;
  Instant due = now.monotonic + kDriftDebounce;
  if (watch.restored_at) due = std::max(due, *watch.restored_at + kDriftPause);
  if (due < watch.next_look) arm_drift_look(*it->second, due);
}

bool Supervisor::spare_what_it_has(Run& run, const LimitsFound& found) {
  if (!found.ceiling || *found.ceiling <= slice_limits(run).ceiling) return false;
  const auto stat = run.cgroup->read_memory_stat();
  if (!stat) return false;
  const Bytes used = stat->unreclaimable() + memory_elsewhere(run, *stat);
  Limits held = run.memory.still_held_to.value_or(run.limits);
  if (used <= held.mercy()) return false;
  held.headroom = held.effective_headroom();
  held.memory = used;
  run.memory.still_held_to = held;
  return true;
}

void Supervisor::look_for_drift(Run& run, const Now& now) {
  arm_drift_look(run, now.monotonic + kDriftInterval);
  run.limit_watch.written = false;
  const bool placed = run.phase != Phase::kPlacing && run.phase != Phase::kStopWhilePlacing;
  const bool busy = run.rehousing || run.changing || run.releasing || run.attaching > 0;
  if (!run.cgroup || !placed || run.over() || run.emptied || run.settling || busy) return;
  LimitWatchState& watch = run.limit_watch;
  if (!watch.lost_unit.empty()) return restore_unit(run, now);
  const bool telling = watch.telling > 0 || watch.mercy_due;
  if (telling && !watch.in_force) return;  // Adopted a moment ago: nobody knows yet what systemd makes of it.

  const auto found = run.cgroup->read_limits();
  if (!found) return;
  const auto before = telling ? watch.in_force : std::nullopt;
  if (find_drift(*found, slice_limits(run), before, machine_.page_size).empty()) return;
  if (spare_what_it_has(run, *found) && run.phase == Phase::kRunning) {
    cause(run, {Reason::kMemory, kAboveRestored, false}, now);
  }
  restore_limits(run, find_drift(*found, slice_limits(run), before, machine_.page_size), now);
}

void Supervisor::on_unit_removed(const std::string& unit, const Now& now) {
  finished_.clear();
  for (const auto& [key, run] : runs_) {
    const std::string stem = run->slice.substr(0, run->slice.rfind(".slice"));
    const bool related = unit == run->slice || unit.starts_with(stem + ".") || unit.starts_with(stem + "-");
    if (!related || !run->cgroup || run->rehousing || !is_inhabited(*run, unit)) continue;
    run->limit_watch.lost_unit = unit;
    return restore_unit(*run, now);
  }
}

void Supervisor::look_for_lost_units() {
  std::vector<std::string> ours;
  for (const auto& [key, run] : runs_) {
    if (!run->cgroup || run->over() || run->phase == Phase::kPlacing || run->phase == Phase::kStopWhilePlacing)
      continue;
    ours.push_back(run->slice);
    const auto found = run->cgroup->read_limits();
    if (!found) continue;
    for (const auto& [scope, whole] : found->scopes) ours.push_back(scope);
  }
  if (ours.empty()) return;
  // Of what was there before it was asked: what comes while it answers is not among its units yet.
  ports_.placer.request_units([this, ours](const Result<std::set<std::string>>& units, const Now& when) {
    if (!units) return;
    for (const std::string& unit : ours) {
      if (!units->contains(unit)) on_unit_removed(unit, when);
    }
  });
}

bool Supervisor::is_inhabited(const Run& run, const std::string& unit) const {
  if (unit == run.slice) return !is_empty(run);
  const auto pids = run.cgroup->read_processes();
  const std::string path = run.cgroup->path() + "/" + unit;
  return pids && std::any_of(pids->begin(), pids->end(), [&](pid_t pid) {
           const auto where = ports_.processes.find_cgroup(pid);
           return where && is_within(*where, path);
         });
}

void Supervisor::restore_unit(Run& run, const Now& now) {
  const std::string lost = run.limit_watch.lost_unit;
  // What is ending is killed through its cgroup, which needs no unit.
  if (run.phase != Phase::kRunning || run.cause || run.emptied || run.settling || !is_inhabited(run, lost)) {
    run.limit_watch.lost_unit.clear();
    return;
  }
  if (run.rehousing || run.changing || run.releasing || run.attaching > 0) return;  // The next round will do.
  // A scope that systemd has forgotten can't be had back. A new one brings the slice with it, but not its limits.
  apply_deadline(run, true, now, [this, key = run.key, lost](const Result<void>& housed, const Now& when) {
    const auto it = runs_.find(key);
    if (!housed || it == runs_.end()) return;  // It is tried again at the next round.
    Run& restored = *it->second;
    restored.limit_watch.lost_unit.clear();
    tell_limits(restored);
    remember(restored);
    ++tally_.units_restored;
    chronicle_.unit_restored(restored, lost, when);
  });
}

void Supervisor::restore_limits(Run& run, std::vector<Drift> drifts, const Now& now) {
  LimitWatchState& watch = run.limit_watch;
  watch.restored_at = now.monotonic;
  // At once by hand, and for good through systemd, which writes all of them also where it knows no change.
  (void)run.cgroup->write_limits(slice_limits(run));  // What was not restored is in the record.
  for (const Drift& drift : drifts) {
    if (!drift.scope.empty()) (void)run.cgroup->write_group_oom(drift.scope);
  }
  tell_limits(run);
  if (run.phase == Phase::kRunning) {  // It may have passed its limit while nothing told of it.
    run.memory.next_look = now.monotonic;
    arm(run, Purpose::kMemoryLook, now.monotonic);
  }

  ++tally_.limits_restored;
  ++watch.unreported;
  std::erase_if(watch.reported, [&](const auto& entry) { return now.monotonic - entry.second >= kReportAgain; });
  const bool is_new = std::any_of(drifts.begin(), drifts.end(), [&](const Drift& drift) {
    return !watch.reported.contains({drift.file, drift.found});
  });
  if (!is_new || watch.reported.size() >= kMostReported) return;
  for (const Drift& drift : drifts) watch.reported.insert_or_assign({drift.file, drift.found}, now.monotonic);
  if (const auto after = run.cgroup->read_limits()) {
    for (const Drift& left : find_drift(*after, slice_limits(run), std::nullopt, machine_.page_size)) {
      const auto same = std::find_if(drifts.begin(), drifts.end(), [&](const Drift& d) { return d.file == left.file; });
      if (same != drifts.end()) same->wanted = left.found;  // It could not be restored: the record says what is there.
    }
  }
  chronicle_.limits_restored(run, drifts, std::exchange(watch.unreported, 0), now);
}

}  // namespace aw::supervise
