// SPDX-License-Identifier: Apache-2.0
#include "record/event_dict.h"

namespace aw::record {
namespace {

using bus::Dict;
using bus::Value;

Value to_value(const std::string& text) { return {text}; }
Value to_value(std::uint64_t number) { return {number}; }
Value to_value(std::int64_t number) { return {number}; }
Value to_value(bool flag) { return {flag}; }
Value to_value(WallTime time) { return {static_cast<std::uint64_t>(time.time_since_epoch().count())}; }

Value to_value(const std::vector<supervise::ProcessSummary>& processes) {
  std::vector<Dict> list;
  for (const auto& process : processes) {
    list.push_back({{"pid", {std::int64_t{process.pid}}},
                    {"ppid", {std::int64_t{process.parent}}},
                    {"comm", {process.comm}},
                    {"rss", {process.resident.count()}},
                    {"cmdline", {process.cmdline}},
                    {"cpu_usec", {to_usec(process.cpu)}}});
  }
  return {list};
}

Value to_value(const supervise::Details& details) {
  Dict dict;
  for (const auto& [name, value] : details) {
    dict.emplace_back(name, std::visit([](const auto& held) { return Value{held}; }, value));
  }
  return {dict};
}

}  // namespace

Dict to_dict(const supervise::EventRecord& event) {
  Dict dict;
  supervise::visit_fields(event,
                          [&](const char* name, const auto& value) { dict.emplace_back(name, to_value(value)); });
  return dict;
}

}  // namespace aw::record
