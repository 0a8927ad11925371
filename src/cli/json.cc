// SPDX-License-Identifier: Apache-2.0
#include "cli/json.h"

#include <sys/utsname.h>

#include <cctype>
#include <cstdio>
#include <map>

#include "base/time.h"
#include "base/utf8.h"

namespace aw::cli {
namespace {

Json to_json(const bus::Value& value);

Json to_json(const bus::Dict& dict) {
  Json json = Json::object();
  for (const auto& [key, value] : dict) json[key] = to_json(value);
  return json;
}

struct ToJson {
  Json operator()(const bus::ObjectPath& path) const { return path.text; }
  Json operator()(const bus::StringMap& map) const { return map; }
  /// No limit, and no such number, are null: as a number UINT64_MAX would be rounded by most readers.
  Json operator()(std::uint64_t number) const { return number == UINT64_MAX ? Json(nullptr) : Json(number); }
  Json operator()(const bus::Dict& dict) const { return to_json(dict); }
  Json operator()(const std::vector<bus::Dict>& dicts) const {
    Json list = Json::array();
    for (const bus::Dict& dict : dicts) list.push_back(to_json(dict));
    return list;
  }
  template <class T>
  Json operator()(const T& plain) const {
    return plain;
  }
};

Json to_json(const bus::Value& value) { return std::visit(ToJson{}, value.v); }

Json iso_time(const bus::Value& value) {
  const auto* usec = value.get_if<std::uint64_t>();
  if (usec == nullptr || *usec == UINT64_MAX) return nullptr;
  return format_iso8601(WallTime(from_usec(*usec)));
}

/// What nlohmann writes as it is, and a terminal obeys: C1 controls, and what turns the direction of writing.
bool is_obeyed(char32_t code) {
  return (code >= 0x80 && code <= 0x9f) || (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/// In JSON they stand in strings only, where an escape means the same.
std::string escape_obeyed(std::string_view json) {
  std::string text;
  text.reserve(json.size());
  while (!json.empty()) {
    const auto character = find_character(json);
    const std::size_t bytes = character ? character->bytes : 1;
    if (character && is_obeyed(character->code)) {
      char escape[16];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(character->code));
      text += escape;
    } else {
      text += json.substr(0, bytes);
    }
    json.remove_prefix(bytes);
  }
  return text;
}

}  // namespace

std::string json_key(const std::string& property) {
  static const std::map<std::string, std::string> kNamed{{"Id", "analysis_id"},
                                                         {"Unit", "unit"},
                                                         {"RegisteredAtUSec", "registered_at_usec"},
                                                         {"DeadlineUSec", "deadline_usec"},
                                                         {"RegisteredAtRealtimeUSec", "registered_at"},
                                                         {"DeadlineRealtimeUSec", "deadline_at"},
                                                         {"MemoryLimit", "memory_limit_bytes"},
                                                         {"MemoryHeadroom", "memory_headroom_bytes"},
                                                         {"MemoryCurrent", "memory_current_bytes"},
                                                         {"MemoryUnreclaimable", "memory_bytes"},
                                                         {"MemoryPeak", "memory_peak_bytes"},
                                                         {"CPUUsageUSec", "cpu_usec"},
                                                         {"CPUQuotaPerSecUSec", "cpu_quota_per_sec_usec"},
                                                         {"CPUWeight", "cpu_weight"}};
  if (const auto named = kNamed.find(property); named != kNamed.end()) return named->second;
  std::string text = property;
  if (text.ends_with("USec")) text.replace(text.size() - 4, 4, "Usec");
  std::string key;
  for (const char c : text) {
    if (std::isupper(static_cast<unsigned char>(c)) != 0 && !key.empty()) key += '_';
    key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return key;
}

Json record_to_json(const bus::Dict& record) {
  Json json = Json::object();
  for (const auto& [key, value] : record) json[key] = key == "occurred_at" ? iso_time(value) : to_json(value);
  return json;
}

Json analysis_to_json(const bus::Dict& properties) {
  Json json = Json::object();
  json["host"] = this_host();
  for (const auto& [name, value] : properties) {
    json[json_key(name)] = name.ends_with("RealtimeUSec") ? iso_time(value) : to_json(value);
    if (name == "Id") json["registered_as"] = to_json(value);
  }
  return json;
}

std::string this_host() {
  utsname name{};
  return ::uname(&name) == 0 ? name.nodename : "";
}

std::string to_text(const Json& json, JsonStyle style) {
  return escape_obeyed(json.dump(style == JsonStyle::kPretty ? 2 : -1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace aw::cli
