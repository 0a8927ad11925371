// SPDX-License-Identifier: Apache-2.0
#include "cli/event_table.h"

#include "analysis_watchdog/words.h"
#include "base/bytes.h"
#include "base/time.h"
#include "cli/report.h"
#include "cli/terminal.h"

namespace aw::cli {
namespace {

using bus::Dict;

Style style_of_reason(const std::string& reason) {
  return reason.empty() || reason == to_string(Reason::kExited) ? Style::kPlain : Style::kBad;
}

std::string what_of(const Dict& event) {
  std::string what;
  if (const auto memory = number_of(event, "memory_bytes")) what += format_size(Bytes(*memory)) + " in use, ";
  if (const auto peak = number_of(event, "memory_peak_bytes")) what += "peak " + format_size(Bytes(*peak)) + ", ";
  if (const auto cpu = number_of(event, "cpu_usec")) what += "CPU " + rough_span(*cpu) + ", ";
  if (const auto duration = number_of(event, "duration_usec"); duration && *duration > 0) {
    what += "after " + rough_span(*duration) + ", ";
  }
  if (const auto code = number_of(event, "exit_code")) what += "exit code " + std::to_string(*code) + ", ";
  if (const auto signal = number_of(event, "exit_signal")) what += "exit signal " + std::to_string(*signal) + ", ";
  if (!what.empty()) what.resize(what.size() - 2);
  return what;
}

}  // namespace

std::string events_text(const std::vector<Dict>& oldest_first, JsonStyle json, Legend legend, Hosts hosts) {
  std::string text;
  if (json != JsonStyle::kOff) {
    for (const Dict& event : oldest_first) text += to_text(record_to_json(event), json) + "\n";
    return text;
  }
  const bool several = hosts == Hosts::kSeveral;
  std::vector<std::string> header{"TIME", "ID", "EVENT", "REASON", "WHAT"};
  if (several) header.insert(header.begin() + 1, "HOST");
  Table table(std::move(header));
  for (const Dict& event : oldest_first) {
    const std::string reason = text_of(event, "reason");
    std::vector<Table::Cell> row{{format_local(WallTime(from_usec(number_of(event, "occurred_at").value_or(0))))},
                                 {text_of(event, "registered_as")},
                                 {text_of(event, "kind")},
                                 {reason, style_of_reason(reason)},
                                 {what_of(event)}};
    if (several) row.insert(row.begin() + 1, Table::Cell(text_of(event, "host")));
    table.add(std::move(row));
  }
  return table.to_string(terminal_columns(), legend == Legend::kShown);
}

}  // namespace aw::cli
