// SPDX-License-Identifier: Apache-2.0
#include "cli/event_query.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/when.h"

namespace aw::cli {
namespace {

/// A word of a closed vocabulary; the error lists them all.
template <class Enum, std::size_t N>
Result<Enum> parse_option(const char* option, const std::array<std::string_view, N>& words, const std::string& word) {
  if (const auto known = parse_word<Enum>(words, word)) return *known;
  std::string all;
  for (const std::string_view known : words) all += (all.empty() ? "" : ", ") + std::string(known);
  return invalid(std::string(option) + ": \"" + printable(word) + "\" is none; there are " + all);
}

}  // namespace

Result<EventQuery> parse_event_query(const EventOptions& options, WallTime now) {
  EventQuery query;
  query.limit = options.limit;
  if (!options.since.empty()) {
    const auto since = parse_when(options.since, now);
    if (!since) return Error(since.error()).within("--since");
    query.since = *since;
  }
  if (!options.until.empty()) {
    const auto until = parse_when(options.until, now);
    if (!until) return Error(until.error()).within("--until");
    query.until = *until;
  }
  if (!options.id.empty()) query.analysis_id = options.id;
  if (!options.reason.empty()) {
    const auto reason = parse_option<Reason>("--reason", kReasonWords, options.reason);
    if (!reason) return Error(reason.error());
    query.reason = *reason;
  }
  if (!options.kind.empty()) {
    const auto kind = parse_option<EventKind>("--kind", kEventKindWords, options.kind);
    if (!kind) return Error(kind.error());
    query.kind = *kind;
  }
  return query;
}

bus::Dict to_filter(const EventQuery& query) {
  bus::Dict filter;
  // Before 1970 there is nothing, and the bus has no word for it.
  if (query.since) filter.emplace_back("Since", bus::Value{to_usec(query.since->time_since_epoch())});
  if (query.analysis_id) filter.emplace_back("AnalysisId", bus::Value{*query.analysis_id});
  if (query.reason) filter.emplace_back("Reason", bus::Value{std::string(to_string(*query.reason))});
  if (query.kind) filter.emplace_back("Kind", bus::Value{std::string(to_string(*query.kind))});
  // The daemon counts from the newest event on, and those that are left out here are not to be counted.
  const bool all = query.until || query.run_id || query.limit > kMostEvents;
  filter.emplace_back("Limit", bus::Value{all ? kMostEvents : static_cast<std::uint32_t>(query.limit)});
  return filter;
}

void narrow(std::vector<bus::Dict>& newest_first, const EventQuery& query) {
  std::erase_if(newest_first, [&](const bus::Dict& event) {
    if (query.run_id && text_of(event, "run_id") != *query.run_id) return true;
    return query.until && number_of(event, "occurred_at").value_or(0) > to_usec(query.until->time_since_epoch());
  });
  newest_first.resize(std::min(newest_first.size(), query.limit));
}

}  // namespace aw::cli
