// SPDX-License-Identifier: Apache-2.0
#include "postgres/projection.h"

#include <array>
#include <optional>
#include <string_view>

#include "base/time.h"

namespace aw::postgres {
namespace {

using supervise::EventRecord;

/// Columns that an event tells as details of the same name.
constexpr std::array<std::string_view, 6> kDetailColumns{"memory_headroom_bytes",  "grace_usec", "tasks_max",
                                                         "cpu_quota_per_sec_usec", "cpu_weight", "description"};
constexpr std::string_view kLabel = "label_";

std::optional<std::uint64_t> find_number(const EventRecord& event, std::string_view name) {
  for (const auto& [key, value] : event.details) {
    if (const auto* number = std::get_if<std::uint64_t>(&value); number != nullptr && key == name) return *number;
  }
  return std::nullopt;
}

/// The wall clock runs on CLOCK_MONOTONIC; this is where that is on the calendar. Null: there is no deadline, or none
/// that a calendar can hold.
Json deadline(const EventRecord& event) {
  std::optional<Span> left;
  if (event.wall_clock_limit && *event.wall_clock_limit != kForever) {
    left = *event.wall_clock_limit - event.duration.value_or(Span(0));
  }
  if (const auto told = find_number(event, "left_usec")) left = from_usec(*told);
  constexpr Span kCentury = std::chrono::hours{24} * 36525;
  if (!left || *left > kCentury) return nullptr;
  return format_iso8601(event.occurred_at + *left);
}

/// What every event of a run says of it, unless it is about another process.
Json limits_and_place(const EventRecord& event, const Json& all) {
  Json json = Json::object();
  json["unit"] = all.value("unit", Json());
  json["memory_limit_bytes"] = all.value("memory_limit_bytes", Json());
  json["wall_clock_limit_usec"] = all.value("wall_clock_limit_usec", Json());
  json["deadline_at"] = deadline(event);
  const Json details = all.value("details", Json::object());
  Json labels = Json::object();
  for (const auto& [key, value] : details.items()) {
    if (key.starts_with(kLabel)) labels[key.substr(kLabel.size())] = value;
  }
  if (!labels.empty()) json["labels"] = std::move(labels);
  for (const std::string_view column : kDetailColumns) {
    if (const auto it = details.find(column); it != details.end()) json[std::string(column)] = *it;
  }
  return json;
}

Json full_row(const EventRecord& event, const Json& all) {
  Json row = limits_and_place(event, all);
  for (const char* column : {"run_id", "registered_as", "host", "boot_id", "uid", "comm", "cmdline"}) {
    row[column] = all.value(column, Json());
  }
  row["leader_pid"] = all.value("pid", Json());
  row["registered_at"] = format_iso8601(event.occurred_at - event.duration.value_or(Span(0)));
  row["state"] = to_string(State::kRunning);
  return row;
}

}  // namespace

void Projection::apply(const EventRecord& event) {
  if (event.kind == EventKind::kDaemonStarted && !event.host.empty() && !event.boot_id.empty()) {
    boots[event.host] = event.boot_id;
  }
  if (event.run_id.empty()) return;
  const auto change = [&](Json what) {
    const auto row = rows.find(event.run_id);
    (row != rows.end() ? row->second : changes.try_emplace(event.run_id, Json::object()).first->second).update(what);
  };
  switch (event.kind) {
    case EventKind::kRegistered:
      rows.insert_or_assign(event.run_id, full_row(event, event_to_json(event)));
      return;
    case EventKind::kAdopted: {
      const Json all = event_to_json(event);
      Json now = limits_and_place(event, all);
      now["state"] = to_string(State::kRunning);
      change(std::move(now));
      rows.try_emplace(event.run_id, full_row(event, all));
      return;
    }
    case EventKind::kLimitsChanged:
    case EventKind::kLimitsRestored:  // Its unit may be another.
    case EventKind::kExtended:
      return change(limits_and_place(event, event_to_json(event)));
    case EventKind::kEnding:
      return change({{"state", to_string(State::kEnding)}});
    case EventKind::kUnkillable:
      return change({{"state", to_string(State::kUnkillable)}});
    case EventKind::kEnded:
    case EventKind::kUnregistered:
      rows.erase(event.run_id);
      changes.erase(event.run_id);
      gone.insert(event.run_id);
      return;
    case EventKind::kOrphanFound:
    case EventKind::kEscaped:
    case EventKind::kEscalated:
    case EventKind::kUnreaped:
    case EventKind::kDaemonStarted:
    case EventKind::kDaemonStopped:
      return;
  }
  unreachable(event.kind);
}

}  // namespace aw::postgres
