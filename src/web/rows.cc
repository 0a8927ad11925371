// SPDX-License-Identifier: Apache-2.0
#include "web/rows.h"

#include <array>
#include <string_view>

#include "base/uuid.h"
#include "cli/report.h"

namespace aw::web {
namespace {

/// What is shown to everybody is named one by one: what a later version adds is not shown unless somebody thought of
/// it.
constexpr std::array<std::string_view, 22> kOfRows{"key",
                                                   "state",
                                                   "registered_at_usec",
                                                   "registered_at",
                                                   "deadline_usec",
                                                   "deadline_at",
                                                   "memory_current_bytes",
                                                   "memory_bytes",
                                                   "memory_peak_bytes",
                                                   "cpu_usec",
                                                   "process_count",
                                                   "orphan_count",
                                                   "memory_limit_bytes",
                                                   "memory_headroom_bytes",
                                                   "wall_clock_limit_usec",
                                                   "grace_usec",
                                                   "tasks_max",
                                                   "cpu_quota_per_sec_usec",
                                                   "cpu_weight",
                                                   "orphan_policy",
                                                   "owner_policy",
                                                   "reason"};
constexpr std::array<std::string_view, 16> kOfEvents{"key",
                                                     "event_id",
                                                     "occurred_at",
                                                     "kind",
                                                     "reason",
                                                     "memory_bytes",
                                                     "memory_peak_bytes",
                                                     "memory_limit_bytes",
                                                     "duration_usec",
                                                     "wall_clock_limit_usec",
                                                     "cpu_usec",
                                                     "signal",
                                                     "escalated",
                                                     "exit_code",
                                                     "exit_signal",
                                                     "leftover_memory_bytes"};

template <std::size_t N>
Json only(const Json& full, const std::array<std::string_view, N>& names) {
  Json some = Json::object();
  for (const auto& [name, value] : full.items()) {
    for (const std::string_view known : names) {
      if (known == name) some[name] = value;
    }
  }
  return some;
}

std::string to_line(const Json& json) { return cli::to_text(json, cli::JsonStyle::kShort); }

}  // namespace

std::string run_key(const std::string& run_id) {
  // A run id is a random UUID, so nobody can try all of them.
  return run_id.empty() ? "" : derived_uuid("key of a run", run_id);
}

Row to_row(bus::Dict properties) {
  Row row;
  row.analysis_id = cli::text_of(properties, "Id");
  row.run_id = cli::text_of(properties, "RunId");
  row.key = run_key(row.run_id);
  row.uid = static_cast<uid_t>(cli::number_of(properties, "Uid").value_or(static_cast<uid_t>(-1)));
  Json json = cli::analysis_to_json(properties);
  json["key"] = row.key;
  row.full = to_line(json);
  row.anonymous = to_line(only(json, kOfRows));
  row.properties = std::move(properties);
  return row;
}

Event to_event(bus::Dict record) {
  Event event;
  event.event_id = cli::text_of(record, "event_id");
  event.analysis_id = cli::text_of(record, "registered_as");
  event.run_id = cli::text_of(record, "run_id");
  if (const auto uid = cli::number_of(record, "uid")) event.uid = static_cast<uid_t>(*uid);
  event.occurred_at = cli::number_of(record, "occurred_at").value_or(0);
  Json json = cli::record_to_json(record);
  if (const std::string key = run_key(event.run_id); !key.empty()) json["key"] = key;
  event.full = to_line(json);
  event.anonymous = to_line(only(json, kOfEvents));
  event.record = std::move(record);
  return event;
}

std::string status_json(const bus::Dict* properties, const std::vector<const std::string*>& recent_events) {
  Json json{{"monitored_count", 0}, {"grace_count", 0}, {"kills_last_24h", 0}};
  Json more = Json::object();
  if (properties != nullptr) {
    json["monitored_count"] = cli::number_of(*properties, "MonitoredCount").value_or(0);
    json["grace_count"] = cli::number_of(*properties, "EndingCount").value_or(0);
    json["kills_last_24h"] = cli::number_of(*properties, "KillsLast24h").value_or(0);
    more["available"] = true;
    more["version"] = cli::text_of(*properties, "Version");
    const bus::Value* healthy = bus::find(*properties, "StoreHealthy");
    more["store_healthy"] = healthy != nullptr && *healthy == bus::Value{true};
    more["unshipped_events"] = cli::number_of(*properties, "UnshippedEvents").value_or(0);
  }
  std::string text = to_line(json);
  text.pop_back();
  text += ",\"recent_events\":" + join_array(recent_events);
  if (properties != nullptr) text += "," + to_line(more).substr(1);
  return properties == nullptr ? text + "}" : text;
}

}  // namespace aw::web
