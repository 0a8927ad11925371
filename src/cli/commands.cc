// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "analysis_watchdog/names.h"
#include "analysis_watchdog/words.h"
#include "base/bytes.h"
#include "base/numbers.h"
#include "base/time.h"
#include "cli/doctor.h"
#include "cli/event_table.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/watchdog_client.h"
#include "cli/when.h"

namespace aw::cli {
namespace {

using bus::Dict;

std::string size_text(const Dict& properties, std::string_view key) {
  const auto number = number_of(properties, key);
  return number ? format_size(Bytes(*number)) : "-";
}

std::string limit_text(const Dict& properties, std::string_view key) {
  const auto number = number_of(properties, key);
  return number ? format_size(Bytes(*number)) : "none";
}

std::string left_text(const Dict& properties, Instant now) {
  const auto deadline = number_of(properties, "DeadlineUSec");
  if (!deadline) return "-";
  const auto left = static_cast<std::int64_t>(*deadline) - now.time_since_epoch().count();
  return left > 0 ? rough_span(static_cast<std::uint64_t>(left)) : "over";
}

std::string runtime_text(const Dict& properties, Instant now) {
  const auto since = number_of(properties, "RegisteredAtUSec");
  const auto age = now.time_since_epoch().count() - static_cast<std::int64_t>(since.value_or(0));
  return since && *since > 0 && age >= 0 ? rough_span(static_cast<std::uint64_t>(age)) : "-";
}

Style style_of_state(const std::string& state) {
  if (state == to_string(State::kRunning)) return Style::kGood;
  return state == to_string(State::kUnkillable) ? Style::kBad : Style::kWarn;
}

std::string analyses_table(const std::vector<Dict>& analyses, bool legend) {
  const Instant now = read_clocks().monotonic;
  Table table({"ID", "STATE", "LEADER", "MEMORY", "LIMIT", "CPU", "RUNTIME", "LEFT", "PROCS"});
  for (const Dict& a : analyses) {
    const std::string state = text_of(a, "State");
    const auto cpu = number_of(a, "CPUUsageUSec");
    table.add({text_of(a, "Id"),
               {state, style_of_state(state)},
               std::to_string(number_of(a, "LeaderPid").value_or(0)),
               size_text(a, "MemoryUnreclaimable"),
               limit_text(a, "MemoryLimit"),
               cpu ? rough_span(*cpu) : "-",
               runtime_text(a, now),
               left_text(a, now),
               std::to_string(number_of(a, "ProcessCount").value_or(0))});
  }
  std::string text = table.to_string(terminal_columns(), legend);
  if (legend) text += "\n" + std::to_string(analyses.size()) + " analyses listed.\n";
  return text;
}

}  // namespace

int list_command(const Common& common) {
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  const auto analyses = client->list_analyses();
  if (!analyses) return fail(analyses.error());
  if (common.json != JsonStyle::kOff) {
    Json list = Json::array();
    for (const Dict& analysis : *analyses) list.push_back(analysis_to_json(analysis));
    print(to_text(list, common.json) + "\n");
    return 0;
  }
  page(analyses_table(*analyses, common.legend), common.pager);
  return 0;
}

int show_command(const Common& common, const std::string& id) {
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  const auto a = client->analysis_properties(id);
  if (!a) return fail(a.error());
  if (common.json != JsonStyle::kOff) {
    print(to_text(analysis_to_json(*a), common.json) + "\n");
    return 0;
  }
  const Instant now = read_clocks().monotonic;
  const std::string state = text_of(*a, "State");
  std::string text = styled("● ", style_of_state(state)) + printable(text_of(*a, "Id"));
  if (const auto description = text_of(*a, "Description"); !description.empty()) text += " - " + printable(description);
  text += "\n";
  const auto line = [&](const char* name, const std::string& value) {
    text += std::string(11 - std::string_view(name).size(), ' ') + name + ": " + value + "\n";
  };
  const auto number = [&](const char* name) { return std::to_string(number_of(*a, name).value_or(0)); };
  line("State", styled(state, style_of_state(state)) + " since " +
                    format_local(WallTime(from_usec(number_of(*a, "RegisteredAtRealtimeUSec").value_or(0)))) + "; " +
                    runtime_text(*a, now));
  line("Unit", printable(text_of(*a, "Unit")));
  line("Run", text_of(*a, "RunId"));
  line("Leader", number("LeaderPid") + " of uid " + number("Uid") +
                     (number_of(*a, "OwnerPid").value_or(0) > 0 ? ", owned by " + number("OwnerPid") : ", no owner"));
  line("Processes", number("ProcessCount") + ", orphans: " + number("OrphanCount"));
  line("Memory", size_text(*a, "MemoryUnreclaimable") + " of " + limit_text(*a, "MemoryLimit") + " (with cache " +
                     size_text(*a, "MemoryCurrent") + ", peak " + size_text(*a, "MemoryPeak") + ", headroom " +
                     limit_text(*a, "MemoryHeadroom") + ")");
  const auto cpu = number_of(*a, "CPUUsageUSec");
  line("CPU", cpu ? rough_span(*cpu) : "-");
  const auto wall_clock = number_of(*a, "WallClockLimitUSec");
  line("Wall clock", wall_clock ? left_text(*a, now) + " left of " + rough_span(*wall_clock) : "no limit");
  line("Grace", rough_span(number_of(*a, "GraceUSec").value_or(0)));
  line("Orphans", text_of(*a, "OrphanPolicy") + "; owner: " + text_of(*a, "OwnerPolicy"));
  if (const std::string missing = limits_not_in_force(*a); !missing.empty()) {
    line("Not limited", missing + " (this host does not delegate that to users)");
  }
  if (const auto* labels =
          bus::find(*a, "Labels") == nullptr ? nullptr : bus::find(*a, "Labels")->get_if<bus::StringMap>()) {
    for (const auto& [key, value] : *labels) line("Label", printable(key) + "=" + printable(value));
  }
  if (auto events = client->list_events({{"AnalysisId", {id}}, {"Limit", {std::uint32_t{10}}}});
      events && !events->empty()) {
    std::reverse(events->begin(), events->end());
    text += "\n" + events_text(*events, common.json, Legend::kNone);
  }
  page(text, common.pager);
  return 0;
}

int status_command(const Common& common) {
  Json json{{"monitored_count", 0}, {"grace_count", 0}, {"kills_last_24h", 0}, {"recent_events", Json::array()}};
  std::string text;
  int status = 0;
  auto client = WatchdogClient::connect(common.bus);
  auto properties = client ? client->manager_properties() : Result<Dict>(client.error());
  auto events = properties ? client->list_events({{"Limit", {std::uint32_t{10}}}})
                           : Result<std::vector<Dict>>(properties.error());
  if (properties && events) {
    json["monitored_count"] = number_of(*properties, "MonitoredCount").value_or(0);
    json["grace_count"] = number_of(*properties, "EndingCount").value_or(0);
    json["kills_last_24h"] = number_of(*properties, "KillsLast24h").value_or(0);
    for (const Dict& event : *events) json["recent_events"].push_back(record_to_json(event));
    json["available"] = true;
    json["version"] = text_of(*properties, "Version");
    const bus::Value* healthy = bus::find(*properties, "StoreHealthy");
    json["store_healthy"] = healthy != nullptr && *healthy == bus::Value{true};
    json["unshipped_events"] = number_of(*properties, "UnshippedEvents").value_or(0);
    text = styled("● ", Style::kGood) + "analysis-watchdogd " + text_of(*properties, "Version") + "\n" +
           "  Monitored: " + std::to_string(json["monitored_count"].get<std::uint64_t>()) + "\n" +
           "     Ending: " + std::to_string(json["grace_count"].get<std::uint64_t>()) + "\n" +
           "Kills (24h): " + std::to_string(json["kills_last_24h"].get<std::uint64_t>()) + "\n";
    std::reverse(events->begin(), events->end());
    if (!events->empty())
      text += "\n" + events_text(*events, JsonStyle::kOff, common.legend ? Legend::kShown : Legend::kNone);
  } else {
    json["available"] = false;  // The empty form, never a stale number.
    status = fail(properties ? events.error() : properties.error());
  }
  if (common.json != JsonStyle::kOff) {
    print(to_text(json, common.json) + "\n");
  } else {
    page(text, common.pager);
  }
  return status;
}

int doctor_command(const Common& common) {
  const auto findings = examine_host(common.bus);
  const bool bad =
      std::any_of(findings.begin(), findings.end(), [](const Finding& f) { return f.health == Health::kFail; });
  const auto word = [](Health health) {
    return health == Health::kOk ? "ok" : health == Health::kWarn ? "warn" : "fail";
  };
  if (common.json != JsonStyle::kOff) {
    Json list = Json::array();
    for (const Finding& f : findings) {
      list.push_back({{"what", f.what}, {"health", word(f.health)}, {"found", f.found}, {"fix", f.fix}});
    }
    print(to_text(list, common.json) + "\n");
    return bad ? 1 : 0;
  }
  for (const Finding& f : findings) {
    const Style style = f.health == Health::kOk ? Style::kGood : f.health == Health::kWarn ? Style::kWarn : Style::kBad;
    print(styled(word(f.health), style) + std::string(5 - std::string_view(word(f.health)).size(), ' ') + f.what +
          ": " + printable(f.found) + "\n");
    if (!f.fix.empty()) print("     " + printable(f.fix) + "\n");
  }
  return bad ? 1 : 0;
}

int register_command(const Common& common, const std::string& id, const std::string& pid, const LimitOptions& limits) {
  const auto number = parse_number<std::uint32_t>(pid);
  if (!number) return fail(invalid("\"" + printable(pid) + "\" is no pid"));
  const auto options = to_bus_options(limits);
  if (!options) return fail(options.error());
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  // Held by pidfd it can't become another process on the way; where it can't be held, the daemon says why not.
  const UniqueFd pidfd(
      static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(std::min<std::uint32_t>(*number, INT32_MAX)), 0)));
  auto reply =
      pidfd ? client->call("RegisterAnalysisByPidfd",
                           [&](bus::Message& m) { m.append(id).append(pidfd).append(*options); })
            : client->call("RegisterAnalysis", [&](bus::Message& m) { m.append(id).append(*number).append(*options); });
  if (!reply) return fail(reply.error());
  return 0;
}

int simple_command(const Common& common, const char* method, const std::string& id) {
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  auto reply = client->call(method, [&](bus::Message& m) { m.append(id); });
  return reply ? 0 : fail(reply.error());
}

int extend_command(const Common& common, const std::string& id, const std::string& text) {
  const auto span = parse_span(text);
  if (!span) return fail(span.error());
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  auto reply = client->call("ExtendDeadline", [&](bus::Message& m) { m.append(id).append(to_usec(*span)); });
  return reply ? 0 : fail(reply.error());
}

int set_command(const Common& common, const std::string& id, const std::vector<std::string>& assignments) {
  Dict options;
  for (const std::string& assignment : assignments) {
    auto parsed = parse_assignment(assignment);
    if (!parsed) return fail(parsed.error());
    options.push_back(std::move(*parsed));
  }
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  auto reply = client->call("SetLimits", [&](bus::Message& m) { m.append(id).append(options); });
  return reply ? 0 : fail(reply.error());
}

}  // namespace aw::cli
