// SPDX-License-Identifier: Apache-2.0
#include "cli/explain.h"

#include <algorithm>
#include <bit>

#include "analysis_watchdog/words.h"
#include "cli/report.h"
#include "cli/terminal.h"

namespace aw::cli {
namespace {

using bus::Dict;

bool is_kind(const Dict& event, EventKind kind) { return text_of(event, "kind") == to_string(kind); }

const Dict* find_last(const std::vector<Dict>& oldest_first, EventKind kind) {
  const auto found =
      std::find_if(oldest_first.rbegin(), oldest_first.rend(), [&](const Dict& event) { return is_kind(event, kind); });
  return found == oldest_first.rend() ? nullptr : &*found;
}

const std::vector<Dict>* processes_of(const Dict& event) {
  const bus::Value* value = bus::find(event, "processes");
  return value == nullptr ? nullptr : value->get_if<std::vector<Dict>>();
}

/// The largest number of that name in the runs that ended by themselves.
std::uint64_t largest_of(const std::vector<Dict>& ends, std::string_view key) {
  std::uint64_t largest = 0;
  for (const Dict& end : ends) {
    if (text_of(end, "reason") == to_string(Reason::kExited)) {
      largest = std::max(largest, number_of(end, key).value_or(0));
    }
  }
  return largest;
}

Suggestion more_memory(const Story& story, const Dict& end) {
  const Bytes limit(number_of(end, "memory_limit_bytes").value_or(0));
  const Bytes before(largest_of(story.ends, "memory_bytes"));
  if (before > limit) {
    return {"--memory", as_written(round_up(before + before / 8)),
            "other runs of this name that ended by themselves needed up to " + format_size(before)};
  }
  const Bytes reached = std::max(limit, Bytes(number_of(end, "memory_bytes").value_or(0)));
  return {
      "--memory", as_written(round_up(reached + reached / 2)),
      "it was at " + format_size(reached) + " and still growing; no run of this name that ended by itself says more"};
}

Suggestion more_time(const Story& story, const Dict& end) {
  const Span limit = from_usec(number_of(end, "wall_clock_limit_usec").value_or(0));
  const Span before = from_usec(largest_of(story.ends, "duration_usec"));
  if (before > limit) {
    return {"--wall-clock", format_span(round_up(before + before / 4)),
            "other runs of this name that ended by themselves took up to " + rough_span(to_usec(before))};
  }
  return {
      "--wall-clock", format_span(round_up(limit * 2)),
      "it had not ended after " + rough_span(to_usec(limit)) + "; no run of this name took longer and ended by itself"};
}

std::string verdict(const Story& story) {
  const Dict& last = story.events.back();
  const std::string id = printable(text_of(last, "registered_as"));
  const Dict* end = find_last(story.events, EventKind::kEnded);
  if (end == nullptr) {
    if (is_kind(last, EventKind::kUnregistered)) return id + " was unregistered and lives on, unwatched.";
    return id + " has not ended.";
  }
  const std::string sentence = end_sentence(*end);
  if (!sentence.empty()) return sentence.substr(0, sentence.find(" See: "));
  std::string text = id + " ended by itself";
  if (const auto code = number_of(*end, "exit_code")) text += ", with exit code " + std::to_string(*code);
  if (const auto signal = number_of(*end, "exit_signal")) text += ", of signal " + std::to_string(*signal);
  if (const auto duration = number_of(*end, "duration_usec")) text += ", after " + rough_span(*duration);
  return text + ".";
}

const Dict* details_of(const Dict& event) {
  const bus::Value* details = bus::find(event, "details");
  return details == nullptr ? nullptr : details->get_if<Dict>();
}

std::string cause_of(const Dict& event) {
  const Dict* details = details_of(event);
  return details == nullptr ? "" : text_of(*details, "cause");
}

/// The event at which it was decided what becomes of the run; the others repeat it, or know less.
const Dict* find_decision(const Story& story) {
  const Dict* ending = find_last(story.events, EventKind::kEnding);
  return ending != nullptr ? ending : find_last(story.events, EventKind::kEnded);
}

std::string value_text(const std::string& name, const bus::Value& value) {
  if (const auto* text = value.get_if<std::string>()) return *text;
  if (const auto* flag = value.get_if<bool>()) return *flag ? "yes" : "no";
  const auto* number = value.get_if<std::uint64_t>();
  if (number == nullptr) return "";
  if (*number == UINT64_MAX) return "infinity";
  if (name.ends_with("_bytes")) return format_size(Bytes(*number));
  return name.ends_with("_usec") ? rough_span(*number) : std::to_string(*number);
}

/// What was seen when it was decided, a line each: the details by their own names.
std::string evidence_text(const Story& story) {
  const Dict* decision = find_decision(story);
  const Dict* details = decision == nullptr ? nullptr : details_of(*decision);
  std::string text;
  for (const auto& [name, value] : details == nullptr ? Dict() : *details) {
    const std::string shown = value_text(name, value);
    if (name != "cause" && !shown.empty()) text += "  " + printable(name) + ": " + printable(shown) + "\n";
  }
  return text.empty() ? "" : "\nWhat was seen then:\n" + text;
}

/// A command line says more than a name, where it is on record.
std::string command_of(const Dict& process) {
  const std::string cmdline = text_of(process, "cmdline");
  return cmdline.empty() ? text_of(process, "comm") : cmdline;
}

/// Those of the decision, largest first.
std::string processes_text(const Story& story) {
  for (auto event = story.events.rbegin(); event != story.events.rend(); ++event) {
    const auto* processes = processes_of(*event);
    if (processes == nullptr || processes->empty()) continue;
    Table table({"PID", "PPID", "MEMORY", "CPU", "COMMAND"});
    for (const Dict& process : *processes) {
      const auto cpu = number_of(process, "cpu_usec");
      table.add({std::to_string(number_of(process, "pid").value_or(0)),
                 std::to_string(number_of(process, "ppid").value_or(0)),
                 format_size(Bytes(number_of(process, "rss").value_or(0))), cpu ? rough_span(*cpu) : "-",
                 command_of(process)});
    }
    return "\nAlive when it was decided (" + text_of(*event, "kind") + "):\n" +
           table.to_string(terminal_columns(), true);
  }
  return "";
}

constexpr std::size_t kRunsShown = 10;

std::string when_text(const Dict& event) {
  return format_local(WallTime(from_usec(number_of(event, "occurred_at").value_or(0))));
}

std::string other_runs_text(const Story& story) {
  if (story.ends.empty()) return "";
  std::string text = "\nOther runs of this name (analysisctl explain ID --run=RUN):\n";
  for (std::size_t i = 0; i < std::min(story.ends.size(), kRunsShown); ++i) {
    const Dict& end = story.ends[i];
    text += "  " + when_text(end) + "  " + printable(text_of(end, "run_id")) + "  " +
            printable(text_of(end, "reason")) + "\n";
  }
  const std::size_t more = story.ends.size() - std::min(story.ends.size(), kRunsShown);
  return more == 0 ? text : text + "  and " + std::to_string(more) + " more\n";
}

/// What an event has to say in the timeline.
std::string say(const Dict& event) {
  std::string text = text_of(event, "kind");
  const std::string reason = text_of(event, "reason");
  if (!reason.empty()) text += " (" + reason + ")";
  if (is_kind(event, EventKind::kRegistered)) {
    text += ": pid " + std::to_string(number_of(event, "pid").value_or(0)) + ", " + text_of(event, "cmdline");
  }
  if (const std::string cause = cause_of(event); !cause.empty()) text += ": " + cause;
  if (const auto used = number_of(event, "memory_bytes"); used && *used > 0) {
    text += "; " + format_size(Bytes(*used)) + " in use";
  }
  return printable(text);
}

}  // namespace

std::string as_written(Bytes size) {
  if (size.count() % kGiB.count() == 0) return std::to_string(size.count() / kGiB.count()) + "G";
  return std::to_string((size.count() + kMiB.count() - 1) / kMiB.count()) + "M";
}

Bytes round_up(Bytes size) {
  const std::uint64_t least = kMiB.count();
  if (size.count() <= least) return kMiB;
  const std::uint64_t unit = std::max(least, std::bit_floor(size.count()) / 8);
  return Bytes((size.count() + unit - 1) / unit * unit);
}

Span round_up(Span span) {
  using namespace std::chrono_literals;
  const Span unit = span < 1min ? Span(1s) : span < 1h ? Span(1min) : Span(15min);
  return (span + unit - Span(1)) / unit * unit;
}

std::optional<Story> find_story(const std::vector<Dict>& newest_first, const std::string& run_id) {
  const auto last = std::find_if(newest_first.begin(), newest_first.end(), [&](const Dict& event) {
    const std::string id = text_of(event, "run_id");
    return run_id.empty() ? !id.empty() : id == run_id;
  });
  if (last == newest_first.end()) return std::nullopt;
  const std::string run = text_of(*last, "run_id");
  Story story;
  for (const Dict& event : newest_first) {
    if (text_of(event, "run_id") == run) {
      story.events.push_back(event);
    } else if (is_kind(event, EventKind::kEnded)) {
      story.ends.push_back(event);
    }
  }
  std::reverse(story.events.begin(), story.events.end());
  return story;
}

std::vector<Suggestion> suggest(const Story& story) {
  const Dict* end = find_last(story.events, EventKind::kEnded);
  if (end == nullptr) return {};
  const std::string reason = text_of(*end, "reason");
  if (reason == to_string(Reason::kMemory) || reason == to_string(Reason::kOom)) return {more_memory(story, *end)};
  if (reason == to_string(Reason::kWallClock)) return {more_time(story, *end)};
  if (reason == to_string(Reason::kOrphaned)) {
    return {{"--orphans", "report", "if what the leader leaves behind shall live; else have it wait for its children"}};
  }
  if (reason == to_string(Reason::kExternal)) {
    return {{"", "",
             "the watchdog did not do it; for the host's own OOM killer see: journalctl -k --grep='Out of memory'"}};
  }
  return {};
}

Json suggestions_json(const std::vector<Suggestion>& suggestions) {
  Json json = Json::array();
  for (const Suggestion& s : suggestions) json.push_back({{"option", s.option}, {"value", s.value}, {"why", s.why}});
  return json;
}

std::string suggestions_text(const std::vector<Suggestion>& suggestions) {
  std::string text;
  for (const Suggestion& s : suggestions) {
    text += "  " + (s.option.empty() ? "" : s.option + "=" + s.value + ": ") + s.why + "\n";
  }
  return text;
}

Json explain_json(const Story& story) {
  const Dict& last = story.events.back();
  const Dict* end = find_last(story.events, EventKind::kEnded);
  Json json{{"analysis_id", text_of(last, "registered_as")}, {"run_id", text_of(last, "run_id")}};
  json["host"] = text_of(last, "host");
  json["ended"] = end != nullptr;
  json["reason"] = end == nullptr ? Json(nullptr) : Json(text_of(*end, "reason"));
  json["summary"] = verdict(story);
  json["end"] = end == nullptr ? Json(nullptr) : record_to_json(*end);
  json["events"] = Json::array();
  for (const Dict& event : story.events) json["events"].push_back(record_to_json(event));
  json["suggestions"] = suggestions_json(suggest(story));
  json["other_runs"] = Json::array();
  for (std::size_t i = 0; i < std::min(story.ends.size(), kRunsShown); ++i) {
    const Json other = record_to_json(story.ends[i]);
    json["other_runs"].push_back({{"run_id", other.value("run_id", "")},
                                  {"occurred_at", other.value("occurred_at", "")},
                                  {"reason", other.value("reason", "")}});
  }
  return json;
}

std::string explain_text(const Story& story) {
  std::string text = verdict(story) + "\n\n";
  if (const std::string host = text_of(story.events.back(), "host"); !host.empty()) {
    text += "  Run " + printable(text_of(story.events.back(), "run_id")) + " on " + printable(host) + "\n";
  }
  for (const Dict& event : story.events) text += "  " + when_text(event) + "  " + say(event) + "\n";
  if (const Dict* end = find_last(story.events, EventKind::kEnded)) text += "\n" + report_text(*end);
  text += evidence_text(story) + processes_text(story);
  const auto suggestions = suggest(story);
  if (!suggestions.empty()) text += "\nWhat to change:\n" + suggestions_text(suggestions);
  return text + other_runs_text(story);
}

}  // namespace aw::cli
