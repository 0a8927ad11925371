// SPDX-License-Identifier: Apache-2.0
#include "supervise/limit_details.h"

namespace aw::supervise {
namespace {

void note_change(Details& what, const std::string& name, const DetailValue& before, const DetailValue& after) {
  if (before == after) return;
  if (std::holds_alternative<std::uint64_t>(before)) what.emplace_back(name + "_before", before);
  what.emplace_back(name, after);
}

}  // namespace

Details limit_details(const Limits& limits) {
  return {{"memory_headroom_bytes", limits.effective_headroom().count()},
          {"grace_usec", to_usec(limits.grace)},
          {"tasks_max", limits.tasks_max},
          {"cpu_quota_per_sec_usec", to_usec(limits.cpu_quota_per_second)},
          {"cpu_weight", limits.cpu_weight.value_or(kUnlimited)},
          {"orphan_policy", std::string(to_string(limits.orphan_policy))},
          {"owner_policy", std::string(to_string(limits.owner_policy))}};
}

std::vector<std::string> limits_not_in_force(const Limits& limits, const std::vector<std::string>& undelegated) {
  std::vector<std::string> options;
  for (const std::string& controller : undelegated) {
    if (controller == "memory" && !limits.memory.is_infinite()) options.emplace_back("MemoryLimit");
    if (controller == "pids" && limits.tasks_max != kUnlimited) options.emplace_back("TasksMax");
    if (controller == "cpu" && limits.cpu_quota_per_second != kForever) options.emplace_back("CPUQuotaPerSecUSec");
    if (controller == "cpu" && limits.cpu_weight) options.emplace_back("CPUWeight");
  }
  return options;
}

Details differences(const Limits& before, const Limits& after) {
  Details what;
  note_change(what, "memory_limit_bytes", before.memory.count(), after.memory.count());
  note_change(what, "wall_clock_limit_usec", to_usec(before.wall_clock), to_usec(after.wall_clock));
  const Details old = limit_details(before);
  const Details wanted = limit_details(after);
  for (std::size_t i = 0; i < old.size(); ++i) note_change(what, old[i].first, old[i].second, wanted[i].second);
  if (before.description != after.description) what.emplace_back("description", after.description);
  if (before.labels != after.labels) {
    for (const auto& [key, value] : after.labels) what.emplace_back("label_" + key, value);
  }
  return what;
}

}  // namespace aw::supervise
