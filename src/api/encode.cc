// SPDX-License-Identifier: Apache-2.0
#include "api/encode.h"

#include "api/options.h"

namespace aw::api {
namespace {

using bus::Dict;

std::uint64_t usec(WallTime time) {
  return time == WallTime::max() ? supervise::kUnlimited : static_cast<std::uint64_t>(time.time_since_epoch().count());
}
std::uint64_t usec(Instant time) {
  return time == kNever ? supervise::kUnlimited : static_cast<std::uint64_t>(time.time_since_epoch().count());
}

/// As far as the wall clock goes: it may say what it likes, and a deadline come after its end.
WallTime deadline_real(const supervise::Run& run) {
  if (run.deadline == kNever) return WallTime::max();
  const Instant registered(run.registered_real.time_since_epoch());
  return WallTime(add_span(registered, run.deadline - run.registered_at).time_since_epoch());
}

std::uint64_t count(const std::optional<Bytes>& bytes) { return bytes ? bytes->count() : supervise::kUnlimited; }

std::uint32_t pid_of(const std::unique_ptr<supervise::ProcessHandle>& process) {
  return process ? static_cast<std::uint32_t>(process->key().pid) : 0;
}

}  // namespace

Dict to_dict(const supervise::Run& run, const supervise::Usage& usage) {
  Dict dict{{"Id", {run.id.text()}},
            {"RunId", {run.run_id}},
            {"Unit", {run.scope}},
            {"LeaderPid", {static_cast<std::uint32_t>(run.leader_key.pid)}},
            {"OwnerPid", {pid_of(run.owner)}},
            {"Uid", {static_cast<std::uint32_t>(run.uid)}},
            {"State", {std::string(to_string(run.state()))}},
            {"RegisteredAtUSec", {usec(run.registered_at)}},
            {"RegisteredAtRealtimeUSec", {usec(run.registered_real)}},
            {"DeadlineUSec", {usec(run.deadline)}},
            {"DeadlineRealtimeUSec", {usec(deadline_real(run))}},
            {"MemoryCurrent", {count(usage.counters.memory_current)}},
            {"MemoryUnreclaimable", {count(usage.unreclaimable)}},
            {"MemoryPeak", {count(usage.counters.memory_peak)}},
            {"CPUUsageUSec", {usage.counters.cpu ? to_usec(*usage.counters.cpu) : supervise::kUnlimited}},
            {"ProcessCount", {usage.processes}},
            {"OrphanCount", {run.orphans.count}},
            {"LimitsNotInForce", {usage.not_in_force}}};
  for (auto& option : to_options(run.limits)) dict.push_back(std::move(option));
  return dict;
}

}  // namespace aw::api
