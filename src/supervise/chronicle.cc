// SPDX-License-Identifier: Apache-2.0
#include "supervise/chronicle.h"

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "base/uuid.h"

namespace aw::supervise {
namespace {

/// What happens to a run at most once has an id that is the same whoever records it: a daemon that is killed between
/// the act and the disk, and the one after it, record one event.
constexpr std::array kOncePerRun{EventKind::kRegistered, EventKind::kUnregistered, EventKind::kEnding,
                                 EventKind::kEscalated, EventKind::kEnded};

void add(Details& details, std::string name, DetailValue value) {
  details.emplace_back(std::move(name), std::move(value));
}

void add_counters(EventRecord& event, const Counters& counters) {
  event.memory_peak = counters.memory_peak;
  event.cpu = counters.cpu;
  if (counters.tasks) add(event.details, "tasks", *counters.tasks);
  if (counters.tasks_refused && *counters.tasks_refused > 0) {
    add(event.details, "tasks_refused", *counters.tasks_refused);
  }
}

void add_memory_events(Details& details, const MemoryEvents& events) {
  add(details, "memory_events_high", events.high);
  add(details, "memory_events_max", events.max);
  add(details, "memory_events_oom", events.oom);
  add(details, "memory_events_oom_kill", events.oom_kill);
}

void add_memory_stat(Details& details, const MemoryStat& stat) {
  add(details, "memory_anon_bytes", stat.anon.count());
  add(details, "memory_shmem_bytes", stat.shmem.count());
  add(details, "memory_file_bytes", stat.file.count());
  add(details, "memory_kernel_bytes", stat.kernel.count());
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

void Chronicle::add_evidence(EventRecord& event, const Run& run) {
  if (!run.cgroup) return;
  event.memory = run.memory.unreclaimable;
  if (const auto stat = run.cgroup->read_memory_stat()) {
    event.memory = stat->unreclaimable();
    add_memory_stat(event.details, *stat);
  }
  add_counters(event, run.cgroup->read_counters());
  add_memory_events(event.details, run.memory.last_events);
  if (run.memory.precharged > Bytes(0)) {
    add(event.details, "memory_precharged_bytes", run.memory.precharged.count());
  }
}

void Chronicle::add_members(EventRecord& event, const Run& run) {
  if (!run.cgroup) return;
  if (const auto pids = run.cgroup->read_processes()) {
    event.processes = processes_.summarize(*pids);
    add(event.details, "process_count", static_cast<std::uint64_t>(pids->size()));
  }
}

void Chronicle::add_terms(EventRecord& event, const Run& run) {
  if (!run.limits.description.empty()) add(event.details, "description", run.limits.description);
  for (const auto& [key, value] : run.limits.labels) add(event.details, "label_" + key, value);
  if (run.owner) add(event.details, "owner_pid", static_cast<std::uint64_t>(run.owner->key().pid));
  add(event.details, "grace_usec", to_usec(run.limits.grace));
  if (run.memory.precharged > Bytes(0)) {
    add(event.details, "memory_precharged_bytes", run.memory.precharged.count());
  }
}

void Chronicle::registered(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kRegistered, now);
  add_terms(event, run);
  recorder_.begin_run(row_of(run));
  put(event);
}

void Chronicle::adopted(const Run& run, bool stranger, const Now& now) {
  EventRecord event = begin(run, EventKind::kAdopted, now);
  add_terms(event, run);
  if (stranger) add(event.details, "without_record", true);
  recorder_.begin_run(row_of(run));
  put(event);
}

void Chronicle::lost(const RunRow& row, const std::string& why, const Now& now) {
  EventRecord event = begin(row, EventKind::kEnded, now);
  event.reason = Reason::kLost;
  add(event.details, "cause", why);
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
  return recorded_.contains(derived_uuid(run_id, to_string(EventKind::kEnded)));
}

void Chronicle::put(const EventRecord& event) {
  if (!recorded_.contains(event.event_id)) recorder_.record(event);
}

void Chronicle::unregistered(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kUnregistered, now);
  add_evidence(event, run);
  put(event);
  recorder_.end_run(run.run_id);
}

void Chronicle::limits_changed(const Run& run, Details what, const Now& now) {
  EventRecord event = begin(run, EventKind::kLimitsChanged, now);
  event.details = std::move(what);
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

void Chronicle::ending(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kEnding, now);
  add_evidence(event, run);
  add_members(event, run);
  add(event.details, "grace_usec", to_usec(run.limits.grace));
  if (run.cause && !run.cause->detail.empty()) add(event.details, "cause", run.cause->detail);
  put(event);
  recorder_.change_run(row_of(run));
}

void Chronicle::escalated(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kEscalated, now);
  add_evidence(event, run);
  add_members(event, run);
  put(event);
}

void Chronicle::unkillable(const Run& run, const Now& now) {
  EventRecord event = begin(run, EventKind::kUnkillable, now);
  add_members(event, run);
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
  if (run.cgroup) {
    add_counters(event, run.cgroup->read_counters());
    add_memory_events(event.details, run.memory.last_events);
    // What is still charged when nobody is left are files in memory: /dev/shm, tmpfs.
    if (const auto stat = run.cgroup->read_memory_stat(); stat && stat->shmem > Bytes(0)) {
      event.leftover_memory = stat->shmem;
    }
  }
  event.memory = run.memory.highest_unreclaimable;
  if (run.unseen) add(event.details, "unseen", true);
  if (!event.signal && (reason == Reason::kOom || reason == Reason::kExternal)) event.signal = SIGKILL;
  if (run.cause && !run.cause->detail.empty()) add(event.details, "cause", run.cause->detail);
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
  if (run.deadline != kNever) row.deadline_at = run.registered_real + (run.deadline - run.registered_at);
  row.state = run.state();
  return row;
}

void Chronicle::daemon(EventKind kind, const std::string& version, const Now& now) {
  EventRecord event = begin(kind, now);
  add(event.details, "version", version);
  put(event);
}

}  // namespace aw::supervise
