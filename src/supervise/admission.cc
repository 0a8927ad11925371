// SPDX-License-Identifier: Apache-2.0
#include "supervise/admission.h"

#include <algorithm>

#include "supervise/refusal.h"

namespace aw::supervise {
namespace {

Error zero(const char* option, const char* example) {
  return refuse(Refusal::kInvalidOption, std::string(option) +
                                             "=0 is no limit that anything could live under; give e.g. " + example +
                                             ", or UINT64_MAX (infinity) for none");
}

template <class T, class Format>
Result<void> check_cap(const char* option, T value, T cap, Format format) {
  if (value <= cap) return {};
  return refuse(Refusal::kLimitTooHigh, std::string(option) + " of " + format(value) + " is above the " + format(cap) +
                                            " that this host's configuration allows ([Caps])");
}

std::string format_count(std::uint64_t n) { return n == kUnlimited ? "infinity" : std::to_string(n); }

/// `wanted` and `used` together are above `cap`; they may be infinite.
template <class T, class Format>
Error exceeded(const char* option, const char* key, T wanted, T used, T cap, std::uint64_t runs, Format format) {
  const std::string have = runs == 0   ? "you have no other analysis"
                           : runs == 1 ? "your other analysis has " + format(used)
                                       : "your " + std::to_string(runs) + " other analyses have " + format(used);
  const std::string left = used >= cap ? "nothing is left until one of them has ended or has been given less"
                                       : "up to " + format(cap - used) + " would be accepted now";
  return refuse(Refusal::kLimitTooHigh, std::string(option) + " of " + format(wanted) + " is too much: of the " +
                                            format(cap) + " that this host's configuration allows a user ([Caps] " +
                                            key + "=) " + have + "; " + left);
}

std::string name_of(pid_t pid, const ProcessStat& stat) { return std::to_string(pid) + " (" + stat.comm + ")"; }

}  // namespace

Limits allowed_defaults(Limits defaults, const Caps& caps, const Caller& caller, Bytes machine_memory) {
  if (!defaults.memory.is_infinite()) defaults.memory = std::min(defaults.memory, machine_memory);
  if (caller.administrator) return defaults;
  defaults.memory = std::min({defaults.memory, caps.memory, caps.memory_per_user});
  defaults.wall_clock = std::min(defaults.wall_clock, caps.wall_clock);
  defaults.grace = std::min(defaults.grace, caps.grace);
  defaults.tasks_max = std::min({defaults.tasks_max, caps.tasks, caps.tasks_per_user});
  return defaults;
}

Result<void> check_limits(const Limits& limits, const Caps& caps, const Caller& caller, Bytes machine_memory) {
  if (limits.memory == Bytes(0)) return zero("MemoryLimit", "2147483648 (2G)");
  if (limits.wall_clock <= Span(0)) return zero("WallClockLimitUSec", "1800000000 (30min)");
  if (limits.grace <= Span(0)) return zero("GraceUSec", "10000000 (10s)");
  if (limits.tasks_max == 0) return zero("TasksMax", "512");
  if (limits.cpu_quota_per_second <= Span(0)) return zero("CPUQuotaPerSecUSec", "1000000 (one CPU)");
  if (limits.cpu_weight && (*limits.cpu_weight < 1 || *limits.cpu_weight > 10000)) {
    return refuse(Refusal::kInvalidOption,
                  "CPUWeight of " + std::to_string(*limits.cpu_weight) + " is not between 1 and 10000");
  }
  if (!limits.memory.is_infinite() && limits.memory > machine_memory) {
    return refuse(Refusal::kLimitTooHigh, "MemoryLimit of " + format_size(limits.memory) + " is above the " +
                                              format_size(machine_memory) +
                                              " that this machine has; give less, or UINT64_MAX (infinity) for none");
  }
  if (caller.administrator) return {};
  const auto size = [](Bytes b) { return format_size(b); };
  const auto span = [](Span s) { return format_span(s); };
  if (auto ok = check_cap("MemoryLimit", limits.memory, caps.memory, size); !ok) return ok;
  if (auto ok = check_cap("WallClockLimitUSec", limits.wall_clock, caps.wall_clock, span); !ok) return ok;
  if (auto ok = check_cap("GraceUSec", limits.grace, caps.grace, span); !ok) return ok;
  return check_cap("TasksMax", limits.tasks_max, caps.tasks, format_count);
}

void Sums::add(const Limits& limits) {
  ++runs;
  memory = memory + limits.memory;
  tasks = tasks >= kUnlimited - limits.tasks_max ? kUnlimited : tasks + limits.tasks_max;
}

Result<void> check_sums(const Limits& wanted, const Sums& others, const Caps& caps, const Caller& caller,
                        const Limits* before) {
  if (caller.administrator) return {};
  Sums all = others;
  all.add(wanted);
  const bool more_memory = before == nullptr || wanted.memory > before->memory;
  if (more_memory && all.memory > caps.memory_per_user) {
    return exceeded("MemoryLimit", "MaxMemoryPerUser", wanted.memory, others.memory, caps.memory_per_user, others.runs,
                    [](Bytes b) { return format_size(b); });
  }
  const bool more_tasks = before == nullptr || wanted.tasks_max > before->tasks_max;
  if (more_tasks && all.tasks > caps.tasks_per_user) {
    return exceeded("TasksMax", "MaxTasksPerUser", wanted.tasks_max, others.tasks, caps.tasks_per_user, others.runs,
                    format_count);
  }
  return {};
}

bool is_system_service(const std::string& cgroup) {
  if (cgroup == "/" || cgroup.starts_with("/init.scope")) return true;
  // The user manager itself is one too; what it runs is its user's.
  if (cgroup.starts_with("/user.slice/")) return cgroup.ends_with(".service/init.scope");
  return (cgroup + "/").find(".service/") != std::string::npos;  // In whatever slice: Slice= is anybody's choice.
}

Result<ProcessStat> check_process(const Processes& processes, const ProcessHandle& process, const Caller& caller) {
  const pid_t pid = process.key().pid;
  const auto stat = processes.find_stat(pid);
  if (!stat || key_of(*stat) != process.key()) {
    return refuse(Refusal::kNoSuchProcess, "process " + std::to_string(pid) + " does not exist any more");
  }
  // Its name only to whom it is no news, even where /proc hides others' processes (hidepid=).
  const bool own = caller.administrator || processes.find_uid(pid) == caller.uid;
  const std::string process_name = own ? name_of(pid, *stat) : std::to_string(pid);
  if (stat->state == 'Z' || stat->state == 'X' || !process.alive()) {
    return refuse(Refusal::kNoSuchProcess,
                  "process " + process_name + " has ended and waits for its parent to reap it (a zombie)");
  }
  if (stat->kernel_thread) {
    return refuse(Refusal::kProtectedProcess, "process " + process_name + " is a kernel thread");
  }
  if (const auto why = processes.why_protected(pid)) {
    return refuse(Refusal::kProtectedProcess, "process " + process_name + " is " + *why);
  }
  const auto uid = processes.find_uid(pid);
  if (!uid) {
    if (!processes.find_stat(pid)) {
      return refuse(Refusal::kNoSuchProcess, "process " + std::to_string(pid) + " does not exist any more");
    }
    return refuse(Refusal::kProtectedProcess, "process " + process_name +
                                                  " has more than one uid, as a set-uid program has; register " +
                                                  "what it has started, or start the whole of it with analysis-run");
  }
  if (!caller.administrator && *uid != caller.uid) {
    return refuse(Refusal::kAccessDenied, "process " + process_name + " is not yours: you are uid " +
                                              std::to_string(caller.uid) +
                                              "; register your own, or ask an administrator (group analysis-admin)");
  }
  const auto cgroup = processes.find_cgroup(pid);
  if (!cgroup) return refuse(Refusal::kNoSuchProcess, "process " + std::to_string(pid) + " does not exist any more");
  // Its own uid's processes are a user's to register; root's uid is every service's, so there the service decides.
  const bool own_uid = caller.uid != 0 && *uid == caller.uid;
  const bool manager = cgroup->ends_with("/init.scope");
  if (manager || (!own_uid && is_system_service(*cgroup))) {
    const auto callers = caller.pid > 0 ? processes.find_cgroup(caller.pid) : std::nullopt;
    if (manager || !callers || *callers != *cgroup) {
      return refuse(Refusal::kProtectedProcess,
                    "process " + process_name + " belongs to a service that is not yours (" + *cgroup +
                        "); give that service limits of its own with systemctl set-property");
    }
  }
  return *stat;
}

std::unique_ptr<ProcessHandle> find_owner(Processes& processes, const ProcessStat& leader) {
  if (leader.parent <= 1) return nullptr;
  auto owner = processes.open(leader.parent);
  if (!owner) return nullptr;
  // Still its parent after we hold it? Otherwise the pid may be somebody else's by now.
  const auto again = processes.find_stat(leader.pid);
  if (!again || again->parent != leader.parent) return nullptr;
  const auto cgroup = processes.find_cgroup(leader.parent);
  if (cgroup && cgroup->ends_with("/init.scope")) return nullptr;  // A user manager: it adopted the leader.
  return std::move(*owner);
}

}  // namespace aw::supervise
