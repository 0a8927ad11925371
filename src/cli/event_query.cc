// SPDX-License-Identifier: Apache-2.0
#include "cli/event_query.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "analysis_watchdog/words.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/when.h"

namespace aw::cli {
namespace {

/// A word of a closed vocabulary; the error lists them all.
template <std::size_t N>
Result<void> check_word(const char* option, const std::array<std::string_view, N>& words, const std::string& word) {
  std::string all;
  for (const std::string_view known : words) {
    if (known == word) return {};
    all += (all.empty() ? "" : ", ") + std::string(known);
  }
  return invalid(std::string(option) + ": \"" + printable(word) + "\" is none; there are " + all);
}

}  // namespace

void EventQuery::narrow(std::vector<bus::Dict>& newest_first) const {
  if (until) {
    const std::uint64_t last = to_usec(until->time_since_epoch());
    std::erase_if(newest_first,
                  [&](const bus::Dict& event) { return number_of(event, "occurred_at").value_or(0) > last; });
  }
  newest_first.resize(std::min<std::size_t>(newest_first.size(), limit));
}

Result<EventQuery> parse_event_query(const EventOptions& options, WallTime now) {
  EventQuery query;
  query.limit = options.limit;
  if (!options.since.empty()) {
    const auto since = parse_when(options.since, now);
    if (!since) return Error(since.error()).within("--since");
    query.filter.emplace_back("Since", bus::Value{to_usec(since->time_since_epoch())});
  }
  if (!options.until.empty()) {
    const auto until = parse_when(options.until, now);
    if (!until) return Error(until.error()).within("--until");
    query.until = *until;
  }
  if (!options.id.empty()) query.filter.emplace_back("AnalysisId", bus::Value{options.id});
  if (!options.reason.empty()) {
    if (auto known = check_word("--reason", kReasonWords, options.reason); !known) return std::move(known).error();
    query.filter.emplace_back("Reason", bus::Value{options.reason});
  }
  if (!options.kind.empty()) {
    if (auto known = check_word("--kind", kEventKindWords, options.kind); !known) return std::move(known).error();
    query.filter.emplace_back("Kind", bus::Value{options.kind});
  }
  // The daemon counts from the newest event on, and those after `until` are not to be counted.
  query.filter.emplace_back("Limit", bus::Value{query.until ? kMostEvents : options.limit});
  return query;
}

}  // namespace aw::cli
