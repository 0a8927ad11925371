// SPDX-License-Identifier: Apache-2.0
#include "support/units.h"

#include <gtest/gtest.h>

#include <set>

#include "base/analysis_id.h"

namespace aw::stories {
namespace {

constexpr char kSystemd[] = "org.freedesktop.systemd1";
constexpr char kManager[] = "org.freedesktop.systemd1.Manager";
constexpr char kPath[] = "/org/freedesktop/systemd1";

const char* interface_of(const std::string& unit, std::string_view property) {
  for (const std::string_view of_unit : {"ActiveState", "LoadState", "Description", "SubState", "Id"}) {
    if (property == of_unit) return "org.freedesktop.systemd1.Unit";
  }
  if (unit.ends_with(".scope")) return "org.freedesktop.systemd1.Scope";
  if (unit.ends_with(".slice")) return "org.freedesktop.systemd1.Slice";
  return "org.freedesktop.systemd1.Service";
}

std::optional<Value> unit_property(Watchdog& client, const std::string& unit, const char* property) {
  auto found = client.call_at(kSystemd, kPath, kManager, "GetUnit", [&](bus::Message& m) { m.append(unit); });
  if (!found.ok()) return std::nullopt;
  const auto path = found.reply.read_path();
  if (!path) return std::nullopt;
  auto got = client.call_at(kSystemd, *path, "org.freedesktop.DBus.Properties", "Get",
                            [&](bus::Message& m) { m.append(interface_of(unit, property)).append(property); });
  if (!got.ok()) return std::nullopt;
  auto value = got.reply.read_variant();
  if (!value) return std::nullopt;
  return std::move(*value);
}

}  // namespace

std::vector<std::string> find_units(Watchdog& client, const std::vector<std::string>& ids) {
  std::set<std::string> heads;
  for (const std::string& id : ids) {
    const std::string slice = slice_unit(AnalysisId::parse(id).value());
    heads.insert(slice.substr(0, slice.rfind(".slice")));
  }
  auto listed = client.call_at(kSystemd, kPath, kManager, "ListUnits");
  std::vector<std::string> units;
  if (!listed.ok() || !listed.reply.enter('a', "(ssssssouso)")) return units;
  while (!listed.reply.at_end()) {
    if (!listed.reply.enter('r', "ssssssouso")) return units;
    const auto name = listed.reply.read_string();
    listed.reply.skip("sssssouso");
    (void)listed.reply.leave();
    if (!name || !name->starts_with("analysis-")) continue;
    // "analysis-ESC.slice", "analysis-ESC.scope", "analysis-ESC-2.scope": ESC has no '-', and may have a '.'.
    const std::string head = name->substr(0, name->rfind('.'));
    const auto dash = head.find('-', std::string_view("analysis-").size());
    if (heads.contains(head) || heads.contains(head.substr(0, dash))) units.push_back(*name);
  }
  return units;
}

std::vector<std::string> find_units(Watchdog& client, const std::string& id) {
  return find_units(client, std::vector<std::string>{id});
}

std::optional<std::uint64_t> unit_number(Watchdog& client, const std::string& unit, const char* property) {
  const auto value = unit_property(client, unit, property);
  if (!value) return std::nullopt;
  return find_number(Dict{{"value", *value}}, "value");
}

std::string unit_text(Watchdog& client, const std::string& unit, const char* property) {
  const auto value = unit_property(client, unit, property);
  return value ? text(Dict{{"value", *value}}, "value") : "";
}

bool systemctl(const Words& arguments) {
  Words words{"systemctl"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const auto result = run_command(words);
  if (result.status == 0) return true;
  std::string said;
  for (const std::string& word : words) said += word + " ";
  ADD_FAILURE() << said << "exited with status " << result.status << ": " << result.err;
  return false;
}

pid_t daemon_pid(Watchdog& client) {
  return static_cast<pid_t>(unit_number(client, kDaemonUnit, "MainPID").value_or(0));
}

}  // namespace aw::stories
