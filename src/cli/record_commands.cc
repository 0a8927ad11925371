// SPDX-License-Identifier: Apache-2.0
//
// What has happened: events, explain, advise. None of them needs the daemon where a store can be read.
#include <algorithm>
#include <cstdio>

#include "analysis_watchdog/names.h"
#include "cli/advise.h"
#include "cli/commands.h"
#include "cli/event_table.h"
#include "cli/explain.h"
#include "cli/record_source.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/watchdog_signals.h"
#include "cli/when.h"
#include "loop/loop.h"

namespace aw::cli {
namespace {

using bus::Dict;

/// How far back explain and advise look.
constexpr std::size_t kEventsOfAnId = 5'000;
constexpr std::size_t kRunsToLearnFrom = 10'000;

/// Between two looks of --follow, at most.
constexpr Span kPause = std::chrono::seconds{2};

/// How late an event of another host may come and still be printed by --follow.
constexpr Span kShippingDelay = std::chrono::minutes{5};

Result<RecordSource> open_record(const Common& common, const RecordPlace& place) {
  auto source =
      RecordSource::open({.bus = common.bus, .config = place.config, .host = place.host, .all_hosts = place.all_hosts});
  if (source) {
    for (const std::string& warning : source->take_warnings()) warn(warning);
  }
  return source;
}

Result<std::vector<Dict>> read_record(RecordSource& source, const EventQuery& query) {
  auto events = source.read_events(query);
  for (const std::string& warning : source.take_warnings()) warn(warning);
  return events;
}

std::string footer(const Common& common, const RecordSource& source) {
  return common.legend ? "\n" + styled("From " + source.to_text() + ".", Style::kDim) + "\n" : "";
}

bool contains_event(const std::vector<Dict>& events, const std::string& event_id) {
  return std::any_of(events.begin(), events.end(), [&](const Dict& e) { return text_of(e, "event_id") == event_id; });
}

WallTime moment_of(const Dict& event) { return WallTime(from_usec(number_of(event, "occurred_at").value_or(0))); }

/// Prints what comes after the events already shown, until a signal ends us.
class Follower {
 public:
  Follower(RecordSource& source, const Common& common, Hosts hosts, EventQuery query)
      : source_(source), common_(common), hosts_(hosts), query_(std::move(query)) {
    delay_ = source_.is_shared() ? kShippingDelay : Span::zero();
    source_.leave_shared_store_if_others_do();
    // Nothing was shown: then all that the first query lets through is new, unless nothing was wanted.
    if (query_.limit == 0) query_.since = read_clocks().real;
    query_.limit = kMostEvents;
  }

  int run(std::vector<Dict> shown) {
    seen_ = std::move(shown);
    if (delay_ > Span::zero()) {  // What was there before, and not shown for the limit, does not come late.
      query_.since = (seen_.empty() ? read_clocks().real : moment_of(seen_.back())) - delay_;
      auto before = read_record(source_, query_);
      if (!before) return fail(before.error());
      seen_ = std::move(*before);
      std::reverse(seen_.begin(), seen_.end());
    }
    auto loop = loop::Loop::create();
    if (!loop) return fail(loop.error());
    if (auto listening = listen(*loop); !listening) return fail(listening.error());
    for (;;) {
      if (auto waited = wait(*loop); !waited) return fail(waited.error());
      if (lost_) return fail(invalid("the bus has gone away"));
      if (auto looked = look(); !looked) return fail(looked.error());
    }
  }

 private:
  Result<void> listen(loop::Loop& loop) {
    WatchdogClient* watchdog = source_.watchdog();
    if (watchdog == nullptr) return {};
    auto attached = watchdog->connection().attach(loop, [this] { lost_ = true; });
    if (!attached) return attached;
    return signals_.listen(
        watchdog->connection(),
        [this](const bus::Message& signal) { told_ = told_ || signal.interface() == names::kManagerInterface; }, [] {});
  }

  /// For the watchdog to tell of something. Kinds without a signal of their own come along at the next look.
  Result<void> wait(loop::Loop& loop) {
    const Instant next = add_span(read_clocks().monotonic, kPause);
    for (Instant now = read_clocks().monotonic; !told_ && !lost_ && now < next; now = read_clocks().monotonic) {
      if (auto turned = loop.iterate(next - now); !turned) return turned;
    }
    told_ = false;
    return {};
  }

  Result<void> look() {
    if (!seen_.empty()) query_.since = moment_of(seen_.back()) - delay_;
    auto events = read_record(source_, query_);
    if (!events) return std::move(events).error();
    std::reverse(events->begin(), events->end());
    std::vector<Dict> fresh;
    for (const Dict& event : *events) {
      if (!contains_event(seen_, text_of(event, "event_id"))) fresh.push_back(event);
    }
    if (fresh.empty()) return {};
    print(events_text(fresh, common_.json, Legend::kNone, hosts_));
    std::fflush(stdout);
    seen_ = std::move(*events);  // Asked from the last one's moment on, only these come again.
    return {};
  }

  RecordSource& source_;
  const Common& common_;
  const Hosts hosts_;
  EventQuery query_;
  Span delay_{};
  std::vector<Dict> seen_;  ///< oldest first
  WatchdogSignals signals_;
  bool told_ = false;  ///< of something
  bool lost_ = false;
};

bool has_wildcards(const std::string& pattern) { return pattern.find_first_of("*?[\\") != std::string::npos; }

/// As runs have it: 8-4-4-4-12 digits of a UUID.
bool is_run_id(std::string_view text) {
  constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  return std::equal(text.begin(), text.end(), kForm.begin(), kForm.end(), [](char c, char form) {
    return form == '-' ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

}  // namespace

int events_command(const Common& common, const EventOptions& options, const RecordPlace& place) {
  auto query = parse_event_query(options, read_clocks().real);
  if (!query) return fail(query.error());
  auto source = open_record(common, place);
  if (!source) return fail(source.error());
  auto events = read_record(*source, *query);
  if (!events) return fail(events.error());
  std::reverse(events->begin(), events->end());
  const Hosts hosts = place.all_hosts ? Hosts::kSeveral : Hosts::kOne;
  const Legend legend = common.legend ? Legend::kShown : Legend::kNone;
  const bool to_people = common.json == JsonStyle::kOff;
  std::string text = events_text(*events, common.json, legend, hosts);
  if (to_people) text += footer(common, *source);
  if (!to_people && common.legend) warn("from " + source->to_text());  // A line of JSON is an event and nothing else.
  if (!options.follow) {
    page(text, common.pager && to_people);
    return 0;
  }
  print(text);
  std::fflush(stdout);
  return Follower(*source, common, hosts, std::move(*query)).run(std::move(*events));
}

int explain_command(const Common& common, const std::string& id, const std::string& run, const RecordPlace& place) {
  if (!run.empty() && !is_run_id(run)) {
    return fail(invalid("--run: \"" + printable(run) + "\" is no run id; analysisctl explain ID names them"));
  }
  auto source = open_record(common, place);
  if (!source) return fail(source.error());
  auto events = read_record(*source, {.analysis_id = id, .limit = kEventsOfAnId});
  if (!events) return fail(events.error());
  auto story = find_story(*events, run);
  if (!story && !run.empty()) {  // Too old to be among the last.
    auto of_the_run = read_record(*source, {.analysis_id = id, .run_id = run, .limit = kEventsOfAnId});
    if (!of_the_run) return fail(of_the_run.error());
    story = find_story(merge_events(std::move(*events), std::move(*of_the_run)), run);
  }
  if (!story) {
    const std::string what = run.empty() ? "no run of" : "no run " + run + " of";
    return fail(invalid(what + " \"" + printable(id) + "\" is on record; looked in " + source->to_text() +
                        ". See: analysisctl events"));
  }
  if (common.json != JsonStyle::kOff) {
    Json json = explain_json(*story);
    json["source"] = source->to_json();
    print(to_text(json, common.json) + "\n");
    return 0;
  }
  page(explain_text(*story) + footer(common, *source), common.pager);
  return 0;
}

int advise_command(const Common& common, const RunPattern& pattern, const RecordPlace& place) {
  auto source = open_record(common, place);
  if (!source) return fail(source.error());
  EventQuery query{.kind = EventKind::kEnded, .limit = kRunsToLearnFrom};
  if (!pattern.id.empty() && !has_wildcards(pattern.id)) query.analysis_id = pattern.id;
  auto events = read_record(*source, query);
  if (!events) return fail(events.error());
  const bool all = events->size() < kRunsToLearnFrom;
  if (pattern.label) {  // Labels are on record with the registration.
    query.kind = EventKind::kRegistered;
    query.limit = 2 * kRunsToLearnFrom;
    auto registered = read_record(*source, query);
    if (!registered) return fail(registered.error());
    *events = merge_events(std::move(*events), std::move(*registered));
  }
  const auto advice = advise(*events, pattern);
  if (!advice) {
    return fail(invalid("no run that matches has ended, as far as is on record; looked in " + source->to_text() +
                        ". See: analysisctl events --kind=ended"));
  }
  if (common.json != JsonStyle::kOff) {
    Json json = advice_json(*advice);
    json["source"] = source->to_json();
    print(to_text(json, common.json) + "\n");
    return 0;
  }
  std::string text = advice_text(*advice);
  if (!all)
    text += "\nOf the last " + std::to_string(kRunsToLearnFrom) + " runs that ended; older ones were not looked at.\n";
  page(text + footer(common, *source), common.pager);
  return 0;
}

}  // namespace aw::cli
