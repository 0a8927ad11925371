// SPDX-License-Identifier: Apache-2.0
#include "supervise/chronicle.h"

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <iterator>

#include "base/uuid.h"
#include "supervise/limit_details.h"

namespace aw::supervise {
namespace {

void add(Details& details, std::string name, DetailValue value) {
  details.emplace_back(std::move(name), std::move(value));
}

/// Of a tree that is too large to be looked at as a whole: the leader, those that were the largest a few seconds ago,
/// and the rest from the newest back.
std::vector<pid_t> by_interest(const Run& run, const std::vector<pid_t>& ascending) {
  std::vector<pid_t> first{run.leader_key.pid};
  first.insert(first.end(), run.largest.begin(), run.largest.end());
  std::erase_if(first, [&](pid_t pid) { return !std::binary_search(ascending.begin(), ascending.end(), pid); });
  if (first.size() > 1) first.erase(std::remove(first.begin() + 1, first.end(), run.leader_key.pid), first.end());
  std::vector<pid_t> order = first;
  std::sort(first.begin(), first.end());
  std::copy_if(ascending.rbegin(), ascending.rend(), std::back_inserter(order),
               [&](pid_t pid) { return !std::binary_search(first.begin(), first.end(), pid); });
  return order;
}

/// What counts up. `when` is put behind each name: nothing, or "_before" for what was so at the decision.
void add_counts(Details& details, const Reading& reading, const std::string& when) {
  if (reading.counters.tasks) add(details, "tasks" + when, *reading.counters.tasks);
  const auto refused = reading.counters.tasks_refused.value_or(0);
  if (refused > 0) add(details, "tasks_refused" + when, refused);
  add(details, "memory_events_high" + when, reading.events.high);
  add(details, "memory_events_max" + when, reading.events.max);
  add(details, "memory_events_oom" + when, reading.events.oom);
  add(details, "memory_events_oom_kill" + when, reading.events.oom_kill);
  if (reading.pressure) {
    add(details, "memory_pressure_some_usec" + when, to_usec(reading.pressure->some_total));
    add(details, "memory_pressure_full_usec" + when, to_usec(reading.pressure->full_total));
  }
}

/// What goes up and down: what the memory is made of.
void add_memory(Details& details, const MemoryStat& stat) {
  add(details, "memory_anon_bytes", stat.anon.count());
  add(details, "memory_shmem_bytes", stat.shmem.count());
  add(details, "memory_kernel_bytes", stat.kernel.count());
  add(details, "memory_sock_bytes", stat.sock.count());
  add(details, "memory_file_bytes", stat.file.count());
  add(details, "memory_slab_reclaimable_bytes", stat.slab_reclaimable.count());
}

Reading read(const Run& run) {
  Reading reading;
  reading.counters = run.cgroup->read_counters();
  reading.events = run.memory.last_events;
  if (const auto stat = run.cgroup->read_memory_stat()) reading.stat = *stat;
  if (const auto pressure = run.cgroup->read_memory_pressure()) reading.pressure = *pressure;
  return reading;
}

/// A reading as an event's own: it was taken when the event happened.
void add_reading(EventRecord& event, const Run& run, const Reading& reading) {
  event.memory = reading.stat ? reading.stat->unreclaimable() : run.memory.unreclaimable;
  event.memory_peak = reading.counters.memory_peak;
  event.cpu = reading.counters.cpu;
  if (reading.stat) add_memory(event.details, *reading.stat);
  add_counts(event.details, reading, "");
  if (run.memory.precharged > Bytes(0)) {
    add(event.details, "memory_precharged_bytes", run.memory.precharged.count());
  }
}

void add_processes(EventRecord& event, const Evidence& evidence) {
  event.processes = evidence.survey.largest;
  for (ProcessSummary& process : event.processes) {
    // Came in when the record of the decision was written already.
    if (process.cmdline.empty() && evidence.survey.cmdlines)
      process.cmdline = evidence.survey.cmdlines->find(process.pid).value_or("");
  }
  add(event.details, "process_count", std::uint64_t{evidence.processes});
  if (evidence.survey.looked_at < evidence.processes) {
    add(event.details, "processes_looked_at", std::uint64_t{evidence.survey.looked_at});
  }
  if (event.processes.size() < evidence.processes) add(event.details, "processes_truncated", true);
}

/// On the calendar, as far as one goes.
std::optional<WallTime> find_deadline_at(const Run& run) {
  constexpr Span kCentury = std::chrono::hours{24} * 36525;
  if (run.deadline == kNever || run.deadline - run.registered_at >= kCentury) return std::nullopt;
  return run.registered_real + (run.deadline - run.registered_at);
}

void add_limits(EventRecord& event, const Run& run) {
  for (auto& detail : limit_details(run.limits)) event.details.push_back(std::move(detail));
  if (const auto at = find_deadline_at(run)) add(event.details, "deadline_at", format_iso8601(*at));
}

void add_cause(EventRecord& event, const Run& run) {
  if (event.reason) add(event.details, "limit_of", std::string(to_string(limit_of(*event.reason, run.cause))));
  if (!run.cause) return;
  if (!run.cause->limit_cgroup.empty()) add(event.details, "limit_cgroup", run.cause->limit_cgroup);
  if (event.reason == Reason::kRequested) {
    const Requester who = run.cause->requester.value_or(Requester{0, 1, "systemd"});
    if (run.cause->requester) add(event.details, "requested_by_uid", std::uint64_t{who.uid});
    if (who.pid != 0) add(event.details, "requested_by_pid", static_cast<std::uint64_t>(who.pid));
    if (!who.comm.empty()) add(event.details, "requested_by_comm", who.comm);
  }
  if (!run.cause->moved_to.empty()) add(event.details, "moved_to", run.cause->moved_to);
  if (!run.cause->detail.empty()) add(event.details, "cause", run.cause->detail);
}

/// What was known at the decision, for the record of the end.
void add_evidence(EventRecord& event, const Run& run, const Now& now) {
  const Evidence& evidence = *run.evidence;
  add(event.details, "decided_at", format_iso8601(evidence.decided.real));
  add(event.details, "ending_usec", to_usec(now.monotonic - evidence.decided.monotonic));
  const bool told = run.signal && run.cause && !run.cause->term_sent_elsewhere;
  if (told) add(event.details, "sigterm_sufficed", !run.escalated);
  const Reading& before = evidence.reading;
  if (before.counters.memory_peak) add(event.details, "memory_peak_bytes_before", before.counters.memory_peak->count());
  if (before.counters.cpu) add(event.details, "cpu_usec_before", to_usec(*before.counters.cpu));
  if (before.stat) {
    add(event.details, "memory_bytes_before", before.stat->unreclaimable().count());
    add_memory(event.details, *before.stat);
  }
  add_counts(event.details, before, "_before");
  add_processes(event, evidence);
}

void add_kill_problem(EventRecord& event, const Run& run) {
  if (!run.kill_problem.empty()) add(event.details, "cgroup_kill_error", run.kill_problem);
}

void add_exit_status(EventRecord& event, const Run& run) {
  if (!run.leader_end.wait_status) return;
  const int status = *run.leader_end.wait_status;
  if (WIFEXITED(status)) event.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) event.exit_signal = WTERMSIG(status);
}

}  // namespace

EventRecord Chronicle::begin(EventKind kind, const Now& now) {
  EventRecord event;
  event.event_id = identity_.new_uuid();
  event.occurred_at = now.real;
  event.host = identity_.host();
  event.boot_id = identity_.boot_id();
  event.kind = kind;
  return event;
}

EventRecord Chronicle::begin(const RunRow& row, EventKind kind, const Now& now) {
  EventRecord event = begin(kind, now);
  if (std::find(kOncePerRun.begin(), kOncePerRun.end(), kind) != kOncePerRun.end()) {
    event.event_id = derived_uuid(row.run_id, to_string(kind));
  }
  event.run_id = row.run_id;
  event.registered_as = row.registered_as;
  event.unit = row.unit;
  event.pid = row.leader.pid;
  event.uid = row.uid;
  event.memory_limit = row.limits.memory;
  event.wall_clock_limit = row.limits.wall_clock;
  return event;
}

EventRecord Chronicle::begin(const Run& run, EventKind kind, const Now& now) {
  EventRecord event = begin(kind, now);
  if (std::find(kOncePerRun.begin(), kOncePerRun.end(), kind) != kOncePerRun.end()) {
    event.event_id = derived_uuid(run.run_id, to_string(kind));
  }
  event.run_id = run.run_id;
  event.registered_as = run.id.text();
  event.unit = run.scope;
  event.pid = run.leader_key.pid;
  event.comm = run.comm;
  event.cmdline = run.cmdline;
  event.uid = run.uid;
  event.memory_limit = run.limits.memory;
  event.wall_clock_limit = run.limits.wall_clock;
  event.duration = std::max(Span(0), now.monotonic - run.registered_at);
  if (run.cause) event.reason = run.cause->reason;
  event.escalated = run.escalated;
  event.signal = run.signal;
  return event;
}

Evidence Chronicle::gather(const Run& run, const Now& now) {
  Evidence evidence;
  evidence.decided = now;
  if (!run.cgroup) return evidence;
  evidence.reading = read(run);
  if (const auto pids = run.cgroup->read_processes()) {
    evidence.processes = pids->size();
    evidence.survey = processes_.survey(by_interest(run, *pids));
  }
  return evidence;
}

void Chronicle::add_terms(EventRecord& event, const Run& run) {
  if (!run.limits.description.empty()) add(event.details, "description", run.limits.description);
  for (const auto& [key, value] : run.limits.labels) add(event.details, "label_" + key, value);
  if (run.owner) add(event.details, "owner_pid", static_cast<std::uint64_t>(run.owner->key().pid));
  add_limits(event, run);
  if (run.memory.precharged > Bytes(0)) {
    add(event.details, "memory_precharged_bytes", run.memory.precharged.count());
  }
}

/// A limit that was asked for and is not there must never look like one that is.
void Chronicle::add_not_in_force(EventRecord& event, const Run& run) const {
  std::string options;
  for (const std::string& option : limits_not_in_force(run.limits, undelegated_)) {
    options += (options.empty() ? "" : ", ") + option;
  }
  if (!options.empty()) add(event.details, "limits_not_in_force", options);
}

void Chronicle::registered(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kRegistered, now);
  add_terms(event, run);
  add_not_in_force(event, run);
  recorder_.begin_run(row_of(run));
  put(event);
}

void Chronicle::adopted(const Run& run, bool stranger, const Now& now) {
  EventRecord event = begin(run, EventKind::kAdopted, now);
  add_terms(event, run);
  add_not_in_force(event, run);
  if (stranger) add(event.details, "without_record", true);
  recorder_.begin_run(row_of(run));
  put(event);
}

void Chronicle::lost(const RunRow& row, const std::string& why, const Now& now) {
  EventRecord event = begin(row, EventKind::kEnded, now);
  event.reason = Reason::kLost;
  add(event.details, "cause", why);
  add(event.details, "limit_of", std::string(to_string(LimitOf::kNone)));
  put(event);
  recorder_.end_run(row.run_id);
}

void Chronicle::released(const RunRow& row, const Now& now) {
  put(begin(row, EventKind::kUnregistered, now));
  recorder_.end_run(row.run_id);
}

void Chronicle::pass_over(const std::string& run_id,
                          const std::function<bool(const std::string& event_id)>& is_recorded) {
  for (const EventKind kind : kOncePerRun) {
    if (auto id = derived_uuid(run_id, to_string(kind)); is_recorded && is_recorded(id)) recorded_.insert(id);
  }
}

bool Chronicle::has_ended(const std::string& run_id) const {
  return recorded_.contains(derived_uuid(run_id, to_string(EventKind::kEnded))) ||
         recorded_.contains(derived_uuid(run_id, to_string(EventKind::kUnregistered)));
}

bool Chronicle::has_ended_here(const std::string& run_id) {
  return is_ours(derived_uuid(run_id, to_string(EventKind::kEnded))) ||
         is_ours(derived_uuid(run_id, to_string(EventKind::kUnregistered)));
}

bool Chronicle::is_ours(const std::string& event_id) {
  if (ours_.contains(event_id)) return true;
  if (!ours_before_.contains(event_id)) return false;
  keep(event_id);  // What is still asked for is not forgotten.
  return true;
}

void Chronicle::keep(const std::string& event_id) {
  constexpr std::size_t kMost = 8192;
  if (ours_.size() >= kMost) ours_before_ = std::exchange(ours_, {});
  ours_.insert(event_id);
}

void Chronicle::put(const EventRecord& event) {
  if (recorded_.contains(event.event_id) || is_ours(event.event_id)) return;
  if (event.kind == EventKind::kEnded || event.kind == EventKind::kUnregistered) keep(event.event_id);
  ++tally_.events.at(static_cast<std::size_t>(event.kind));
  if (event.kind == EventKind::kEnded && event.reason) ++tally_.ends.at(static_cast<std::size_t>(*event.reason));
  recorder_.record(event);
}

void Chronicle::unregistered(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kUnregistered, now);
  if (run.cgroup) add_reading(event, run, read(run));
  put(event);
  recorder_.end_run(run.run_id);
}

void Chronicle::limits_changed(const Run& run, Details what, const Now& now) {
  EventRecord event = begin(run, EventKind::kLimitsChanged, now);
  event.details = std::move(what);
  add_not_in_force(event, run);
  put(event);
  recorder_.change_run(row_of(run));
}

void Chronicle::limits_restored(const Run& run, std::span<const Drift> drifts, std::uint64_t times, const Now& now) {
  EventRecord event = begin(run, EventKind::kLimitsRestored, now);
  for (const Drift& drift : drifts) {
    add(event.details, drift.file + "_before", drift.found);
    add(event.details, drift.file, drift.wanted);
  }
  if (times > 1) add(event.details, "times", times);
  put(event);
}

void Chronicle::unit_restored(const Run& run, const std::string& lost, const Now& now) {
  EventRecord event = begin(run, EventKind::kLimitsRestored, now);
  add(event.details, "lost_unit", lost);
  add(event.details, "cause", "systemd had lost " + lost + "; what was in it is in " + run.scope + " now");
  put(event);
  recorder_.change_run(row_of(run));
}

void Chronicle::extended(const Run& run, Span by, const Now& now) {
  EventRecord event = begin(run, EventKind::kExtended, now);
  add(event.details, "extended_by_usec", to_usec(by));
  if (run.deadline != kNever) add(event.details, "left_usec", to_usec(run.deadline - now.monotonic));
  put(event);
  recorder_.change_run(row_of(run));
}

void Chronicle::orphan_found(const Run& run, const ProcessStat& orphan, const Now& now) {
  EventRecord event = begin(run, EventKind::kOrphanFound, now);
  event.pid = orphan.pid;
  event.comm = orphan.comm;
  event.cmdline = processes_.read_cmdline(orphan.pid);
  add(event.details, "parent_pid", static_cast<std::uint64_t>(orphan.parent));
  add(event.details, "leader_pid", static_cast<std::uint64_t>(run.leader_key.pid));
  add(event.details, "policy", std::string(to_string(run.limits.orphan_policy)));
  put(event);
}

void Chronicle::escaped(const Run& run, const ProcessStat& process, const std::string& cgroup, const Now& now) {
  EventRecord event = begin(run, EventKind::kEscaped, now);
  event.pid = process.pid;
  event.comm = process.comm;
  event.cmdline = processes_.read_cmdline(process.pid);
  add(event.details, "cgroup", cgroup);
  add(event.details, "leader_pid", static_cast<std::uint64_t>(run.leader_key.pid));
  put(event);
}

void Chronicle::ending(Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kEnding, now);
  run.evidence = gather(run, now);
  add_cause(event, run);
  add_reading(event, run, run.evidence->reading);
  add_limits(event, run);
  add_processes(event, *run.evidence);
  put(event);
  recorder_.change_run(row_of(run));
}

void Chronicle::escalated(Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kEscalated, now);
  Evidence evidence = gather(run, now);
  add_cause(event, run);
  add_reading(event, run, evidence.reading);
  add_processes(event, evidence);
  if (!run.evidence) run.evidence = std::move(evidence);  // The kernel decided, and this is what it left.
  put(event);
}

void Chronicle::unkillable(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kUnkillable, now);
  add_processes(event, gather(run, now));
  add_kill_problem(event, run);
  for (const ProcessSummary& process : event.processes) {
    add(event.details, "wait_channel_" + std::to_string(process.pid), processes_.read_wait_channel(process.pid));
  }
  put(event);
  recorder_.change_run(row_of(run));
}

void Chronicle::ended(const Run& run, Reason reason, const Now& now) {
  EventRecord event = begin(run, EventKind::kEnded, now);
  event.reason = reason;
  add_exit_status(event, run);
  add_cause(event, run);
  event.memory = run.memory.highest_unreclaimable;
  if (run.evidence) {
    add_evidence(event, run, now);
    if (const auto& stat = run.evidence->reading.stat) event.memory = std::max(*event.memory, stat->unreclaimable());
  }
  if (run.cgroup) {
    const Reading after = read(run);
    event.memory_peak = after.counters.memory_peak;
    event.cpu = after.counters.cpu;
    add_counts(event.details, after, "");
    // What is still charged when nobody is left are files in memory: /dev/shm, tmpfs.
    if (after.stat && after.stat->shmem > Bytes(0)) event.leftover_memory = after.stat->shmem;
  }
  add_limits(event, run);
  add_kill_problem(event, run);
  if (run.unseen) add(event.details, "unseen", true);
  const bool killed =
      reason == Reason::kOom || (reason == Reason::kExternal && !(run.cause && !run.cause->moved_to.empty()));
  if (!event.signal && killed) event.signal = SIGKILL;
  put(event);
  recorder_.end_run(run.run_id);
  last_end_ = std::move(event);
}

void Chronicle::unreaped(const EventRecord& end, std::span<const ProcessStat> zombies, const Now& now) {
  EventRecord event = end;
  const EventRecord fresh = begin(EventKind::kUnreaped, now);
  event.event_id = fresh.event_id;
  event.occurred_at = fresh.occurred_at;
  event.kind = fresh.kind;
  event.details.clear();
  event.processes.clear();
  add(event.details, "zombie_count", static_cast<std::uint64_t>(zombies.size()));
  for (const ProcessStat& zombie : zombies.first(std::min(zombies.size(), kMaxProcesses))) {
    event.processes.push_back({zombie.pid, zombie.parent, zombie.comm, Bytes(0)});
  }
  if (!zombies.empty()) {
    const pid_t parent = zombies.front().parent;
    add(event.details, "parent_pid", static_cast<std::uint64_t>(parent));
    if (const auto stat = processes_.find_stat(parent)) add(event.details, "parent_comm", stat->comm);
  }
  put(event);
}

RunRow Chronicle::row_of(const Run& run) const {
  RunRow row;
  row.run_id = run.run_id;
  row.registered_as = run.id.text();
  row.host = identity_.host();
  row.boot_id = identity_.boot_id();
  row.unit = run.scope;
  row.leader = run.leader_key;
  if (run.owner) row.owner = run.owner->key();
  row.uid = run.uid;
  row.limits = run.limits;
  row.registered_at = run.registered_real;
  row.registered = run.registered_at;
  row.deadline = run.deadline;
  row.deadline_at = find_deadline_at(run);
  row.state = run.state();
  return row;
}

void Chronicle::daemon(EventKind kind, const std::string& version, const Now& now) {
  EventRecord event = begin(kind, now);
  add(event.details, "version", version);
  put(event);
}

}  // namespace aw::supervise
