// SPDX-License-Identifier: Apache-2.0
#include "cli/limit_options.h"

#include <algorithm>
#include <functional>

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/time.h"

namespace aw::cli {
namespace {

using bus::Value;
using Parse = std::function<Result<Value>(const std::string&)>;

Result<Value> size_value(const std::string& text) {
  return parse_size(text).transform([](Bytes size) { return Value{size.count()}; });
}

Result<Value> span_value(const std::string& text) {
  return parse_span(text).transform([](Span span) { return Value{to_usec(span)}; });
}

Result<Value> count_value(const std::string& text) {
  if (text == "infinity") return Value{std::uint64_t{UINT64_MAX}};
  const auto number = parse_number<std::uint64_t>(text);
  if (!number) return invalid("\"" + text + "\" is not a number; write e.g. 512, or infinity");
  return Value{*number};
}

Result<Value> quota_value(const std::string& text) {
  if (text == "infinity") return Value{std::uint64_t{UINT64_MAX}};
  std::string_view rest = text;
  const auto percent = take_decimal(rest);
  if (!percent || rest != "%" || percent->whole > 100'000'000) {
    return invalid("\"" + text +
                   "\" is not a share of CPU time; write e.g. 50%, 150% (one and a half CPUs) or infinity");
  }
  return Value{percent->whole * 10000 + fraction_of(percent->fraction, 10000)};
}

/// A value for a name as it is on the bus, where a bare number is microseconds.
Result<Value> usec_value(const std::string& text, const Parse& parse) {
  const auto usec = parse_number<std::uint64_t>(text);
  return usec ? Result<Value>(Value{*usec}) : parse(text);
}

Parse one_of(const char* a, const char* b) {
  return [a, b](const std::string& text) -> Result<Value> {
    if (text == a || text == b) return Value{text};
    return invalid("\"" + text + "\" is neither \"" + a + "\" nor \"" + b + "\"");
  };
}

Result<Value> text_value(const std::string& text) { return Value{text}; }

Result<Value> labels_value(const std::vector<std::string>& labels) {
  bus::StringMap map;
  for (const std::string& label : labels) {
    const auto equals = label.find('=');
    if (equals == std::string::npos || equals == 0) return invalid("\"" + label + "\" is not a label; write KEY=VALUE");
    map[label.substr(0, equals)] = label.substr(equals + 1);
  }
  return Value{std::move(map)};
}

/// One limit: its option here, its name on the bus (and a short form of it), and how its text is read.
struct Limit {
  const char* option;
  const char* placeholder;
  const char* help;
  const char* property;
  const char* alias;
  std::string LimitOptions::*text;
  Parse parse;
};

const std::vector<Limit>& limits() {
  static const std::vector<Limit> kAll{
      {"--memory", "SIZE", "Memory that can't be reclaimed; page cache does not count (2G)", "MemoryLimit", "Memory",
       &LimitOptions::memory, size_value},
      {"--headroom", "SIZE", "From the limit to the kernel's hard ceiling (an eighth, at least 64M)", "MemoryHeadroom",
       "Headroom", &LimitOptions::headroom, size_value},
      {"--wall-clock", "TIME", "How long it may run (30min)", "WallClockLimitUSec", "WallClockLimit",
       &LimitOptions::wall_clock, span_value},
      {"--grace", "TIME", "From SIGTERM to SIGKILL (10s)", "GraceUSec", "Grace", &LimitOptions::grace, span_value},
      {"--tasks", "N", "Processes and threads", "TasksMax", "Tasks", &LimitOptions::tasks, count_value},
      {"--cpu-quota", "PERCENT", "CPU time; 100% is one CPU", "CPUQuotaPerSecUSec", "CPUQuota",
       &LimitOptions::cpu_quota, quota_value},
      {"--cpu-weight", "N", "Share of CPU time beside others, 1 to 10000 (100)", "CPUWeight", "CPUWeight",
       &LimitOptions::cpu_weight, count_value},
      {"--orphans", "kill|report", "What happens to reparented processes (kill)", "OrphanPolicy", "Orphans",
       &LimitOptions::orphans, one_of("kill", "report")},
      {"--owner", "kill|ignore", "What happens when the owner dies (kill)", "OwnerPolicy", "Owner",
       &LimitOptions::owner, one_of("kill", "ignore")},
      {"--description", "TEXT", "For lists and records", "Description", "Description", &LimitOptions::description,
       text_value},
  };
  return kAll;
}

}  // namespace

void add_limit_options(CLI::App& app, LimitOptions& options) {
  for (const Limit& limit : limits()) {
    app.add_option(limit.option, options.*limit.text, limit.help)
        ->type_name(limit.placeholder)
        ->group("Limits (the daemon's defaults in brackets; sizes 512M, 2G, times 30s, 1h 30min, infinity for none)");
  }
  app.add_option("--label", options.labels, "A label for lists and records; again for more")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

Result<bus::Dict> to_bus_options(const LimitOptions& options) {
  bus::Dict dict;
  for (const Limit& limit : limits()) {
    const std::string& text = options.*limit.text;
    if (text.empty()) continue;
    auto value = limit.parse(text);
    if (!value) return std::move(value).error().within(limit.option);
    dict.emplace_back(limit.property, std::move(*value));
  }
  if (!options.labels.empty()) {
    auto labels = labels_value(options.labels);
    if (!labels) return std::move(labels).error().within("--label");
    dict.emplace_back("Labels", std::move(*labels));
  }
  return dict;
}

Result<std::pair<std::string, Value>> parse_assignment(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) return invalid("\"" + text + "\" is no assignment; write e.g. MemoryLimit=4G");
  const std::string name = text.substr(0, equals);
  std::string accepted;
  for (const Limit& limit : limits()) {
    if (name == limit.property || name == limit.alias) {
      const std::string given = text.substr(equals + 1);
      auto value = name.ends_with("USec") ? usec_value(given, limit.parse) : limit.parse(given);
      if (!value) return std::move(value).error().within(name);
      return std::pair<std::string, Value>(limit.property, std::move(*value));
    }
    const bool plain = !std::string_view(limit.property).ends_with("USec");
    accepted += std::string(accepted.empty() ? "" : ", ") + (plain ? limit.property : limit.alias);
  }
  return invalid("there is no option \"" + name + "\"; there are " + accepted);
}

}  // namespace aw::cli
