// SPDX-License-Identifier: Apache-2.0
#include "cli/advise.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "analysis_watchdog/words.h"
#include "base/assert.h"
#include "cli/report.h"
#include "cli/terminal.h"

namespace aw::cli {
namespace {

using bus::Dict;

/// The runs that were registered with the label.
std::set<std::string> runs_with(const std::vector<Dict>& events, const std::pair<std::string, std::string>& label) {
  std::set<std::string> runs;
  for (const Dict& event : events) {
    if (text_of(event, "kind") != to_string(EventKind::kRegistered)) continue;
    const bus::Value* details = bus::find(event, "details");
    const auto* dict = details == nullptr ? nullptr : details->get_if<Dict>();
    if (dict != nullptr && text_of(*dict, "label_" + label.first) == label.second)
      runs.insert(text_of(event, "run_id"));
  }
  return runs;
}

std::optional<Spread> spread_of_field(const std::vector<const Dict*>& ends, std::string_view key) {
  std::vector<std::uint64_t> values;
  for (const Dict* end : ends) {
    if (const auto value = number_of(*end, key)) values.push_back(*value);
  }
  if (values.empty()) return std::nullopt;
  return spread_of(std::move(values));
}

std::size_t count_of(const Advice& advice, Reason reason) {
  const auto it = advice.reasons.find(std::string(to_string(reason)));
  return it == advice.reasons.end() ? 0 : it->second;
}

std::vector<Suggestion> suggestions_for(const Advice& advice) {
  std::vector<Suggestion> suggestions;
  // What was ended at a limit would have gone on: nobody knows how far, so the margin is wider.
  if (advice.memory) {
    const std::size_t stopped = count_of(advice, Reason::kMemory) + count_of(advice, Reason::kOom);
    const Bytes most(advice.memory->most);
    suggestions.push_back({"--memory", as_written(round_up(stopped > 0 ? most + most / 2 : most + most / 8)),
                           stopped > 0 ? std::to_string(stopped) + " of them were ended at their memory limit"
                                       : "the most that any of them needed, and an eighth"});
  }
  if (advice.duration) {
    const std::size_t stopped = count_of(advice, Reason::kWallClock);
    const Span most = from_usec(advice.duration->most);
    suggestions.push_back({"--wall-clock", format_span(round_up(stopped > 0 ? most * 2 : most + most / 4)),
                           stopped > 0 ? std::to_string(stopped) + " of them were ended at their wall clock"
                                       : "the longest that any of them took, and a quarter"});
  }
  return suggestions;
}

Json spread_json(const std::optional<Spread>& spread) {
  if (!spread) return nullptr;
  return {{"median", spread->median}, {"p95", spread->p95}, {"max", spread->most}};
}

}  // namespace

Spread spread_of(std::vector<std::uint64_t> values) {
  AW_ASSERT(!values.empty());
  std::sort(values.begin(), values.end());
  const auto rank = [&](std::size_t percent) { return values[(values.size() * percent + 99) / 100 - 1]; };
  return {rank(50), rank(95), values.back()};
}

std::optional<Advice> advise(const std::vector<Dict>& newest_first, const RunPattern& pattern) {
  std::set<std::string> labelled;
  if (pattern.label) labelled = runs_with(newest_first, *pattern.label);
  std::vector<const Dict*> ends;
  for (const Dict& event : newest_first) {
    if (text_of(event, "kind") != to_string(EventKind::kEnded)) continue;
    const std::string id = text_of(event, "registered_as");
    if (!pattern.id.empty() && ::fnmatch(pattern.id.c_str(), id.c_str(), 0) != 0) continue;
    if (pattern.label && !labelled.contains(text_of(event, "run_id"))) continue;
    ends.push_back(&event);
  }
  if (ends.empty()) return std::nullopt;
  Advice advice;
  advice.runs = ends.size();
  for (const Dict* end : ends) ++advice.reasons[text_of(*end, "reason")];
  advice.memory = spread_of_field(ends, "memory_bytes");
  advice.peak = spread_of_field(ends, "memory_peak_bytes");
  advice.duration = spread_of_field(ends, "duration_usec");
  advice.suggestions = suggestions_for(advice);
  return advice;
}

Json advice_json(const Advice& advice) {
  Json json{{"runs", advice.runs}, {"reasons", advice.reasons}};
  json["memory_bytes"] = spread_json(advice.memory);
  json["memory_peak_bytes"] = spread_json(advice.peak);
  json["duration_usec"] = spread_json(advice.duration);
  json["suggestions"] = suggestions_json(advice.suggestions);
  return json;
}

std::string advice_text(const Advice& advice) {
  std::string text = std::to_string(advice.runs) + (advice.runs == 1 ? " run has ended:" : " runs have ended:");
  for (const auto& [reason, count] : advice.reasons) text += " " + std::to_string(count) + " " + reason + ",";
  text.back() = '\n';
  Table table({"", "MEDIAN", "95 %", "MOST"});
  const auto row = [&](const char* name, const std::optional<Spread>& spread, auto format) {
    if (spread) table.add({std::string(name), format(spread->median), format(spread->p95), format(spread->most)});
  };
  const auto size = [](std::uint64_t bytes) { return format_size(Bytes(bytes)); };
  row("memory", advice.memory, size);
  row("with cache", advice.peak, size);
  row("duration", advice.duration, rough_span);
  text += "\n" + table.to_string(terminal_columns(), true);
  return text + "\nLimits that would have let them live:\n" + suggestions_text(advice.suggestions);
}

}  // namespace aw::cli
