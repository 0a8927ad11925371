// SPDX-License-Identifier: Apache-2.0
#include "postgres/event_json.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>

#include "base/time.h"

namespace aw::postgres {
namespace {

struct ToJson {
  Json operator()(std::string text) const { return without_nul(std::move(text)); }
  Json operator()(bool flag) const { return flag; }
  Json operator()(std::int64_t number) const { return number; }
  Json operator()(std::uint64_t number) const {
    if (number == std::numeric_limits<std::uint64_t>::max()) return nullptr;
    return std::min(number, static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  }
  Json operator()(WallTime time) const { return format_iso8601(time); }
  Json operator()(const std::vector<supervise::ProcessSummary>& processes) const {
    Json list = Json::array();
    for (const supervise::ProcessSummary& process : processes) {
      list.push_back({{"pid", process.pid},
                      {"ppid", process.parent},
                      {"comm", without_nul(process.comm)},
                      {"rss", process.resident.count()},
                      {"cmdline", without_nul(process.cmdline)},
                      {"cpu_usec", to_usec(process.cpu)}});
    }
    return list;
  }
  Json operator()(const supervise::Details& details) const {
    Json object = Json::object();
    for (const auto& [name, value] : details) object[without_nul(name)] = std::visit(*this, value);
    return object;
  }
};

std::uint64_t number_in(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string text_in(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

std::string without_nul(std::string text) {
  std::erase(text, '\0');
  return text;
}

Json event_to_json(const supervise::EventRecord& event) {
  Json json = Json::object();
  supervise::visit_fields(event, [&json](std::string_view name, const auto& value) {
    // Whether there is such an analysis is for the database to say.
    if (name != "analysis_id") json[std::string(name)] = ToJson{}(value);
  });
  return json;
}

std::vector<supervise::ProcessSummary> to_processes(const Json& json) {
  std::vector<supervise::ProcessSummary> processes;
  if (!json.is_array()) return processes;
  for (const Json& entry : json) {
    if (!entry.is_object()) continue;
    processes.push_back({static_cast<pid_t>(number_in(entry, "pid")), static_cast<pid_t>(number_in(entry, "ppid")),
                         text_in(entry, "comm"), Bytes(number_in(entry, "rss")), text_in(entry, "cmdline"),
                         from_usec(number_in(entry, "cpu_usec"))});
  }
  return processes;
}

supervise::Details to_details(const Json& json) {
  supervise::Details details;
  if (!json.is_object()) return details;
  for (const auto& [name, value] : json.items()) {
    if (value.is_string()) details.emplace_back(name, value.get<std::string>());
    if (value.is_boolean()) details.emplace_back(name, value.get<bool>());
    if (value.is_number_unsigned()) details.emplace_back(name, value.get<std::uint64_t>());
    if (value.is_null()) details.emplace_back(name, std::numeric_limits<std::uint64_t>::max());
  }
  return details;
}

Json parse_json(const std::string& text) { return Json::parse(text, nullptr, false); }

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace aw::postgres
