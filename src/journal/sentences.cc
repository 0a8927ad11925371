// SPDX-License-Identifier: Apache-2.0
#include "journal/sentences.h"

#include <string_view>

#include "base/assert.h"

namespace aw::journal {
namespace {

using supervise::EventRecord;

template <class T>
const T* find_detail(const EventRecord& e, std::string_view name) {
  for (const auto& [key, value] : e.details) {
    if (key == name) return std::get_if<T>(&value);
  }
  return nullptr;
}

std::string text_detail(const EventRecord& e, std::string_view name) {
  const auto* text = find_detail<std::string>(e, name);
  return text == nullptr ? "" : *text;
}

/// For people: nobody wants the microseconds of a run of three hours.
std::string rough(Span span) {
  using namespace std::chrono_literals;
  if (span == kForever) return format_span(span);
  const Span unit = span >= 10s ? Span(1s) : span >= 10ms ? Span(1ms) : Span(1);
  return format_span(span / unit * unit);
}

std::string process(const EventRecord& e) {
  return "process " + std::to_string(e.pid.value_or(0)) + " (" + e.comm + ")";
}

std::string why_memory(const EventRecord& e) {
  const std::string limit = format_size(e.memory_limit.value_or(Bytes(0)));
  if (text_detail(e, "cause").starts_with("stalled")) {
    return "it did nothing but stall for memory at its own limit of " + limit;
  }
  return "it used " + format_size(e.memory.value_or(Bytes(0))) + " that cannot be reclaimed; its own limit is " + limit;
}

std::string why_oom(const EventRecord& e) {
  const auto* headroom = find_detail<std::uint64_t>(e, "memory_headroom_bytes");
  const Bytes limit = e.memory_limit.value_or(Bytes(0));
  const std::string ceiling = headroom == nullptr ? "" : " of " + format_size(limit + Bytes(*headroom));
  return "it went past its own limit of " + format_size(limit) + " to its ceiling" + ceiling +
         " before it could be told, and the kernel killed it";
}

std::string why_external(const EventRecord& e) {
  const std::string whose = text_detail(e, "limit_of");
  if (whose == "parent" || whose == "host" || !text_detail(e, "moved_to").empty()) return text_detail(e, "cause");
  return "somebody killed it, and it was not the watchdog";
}

std::string why_exited(const EventRecord& e) {
  if (e.exit_signal) return "its leader died of signal " + std::to_string(*e.exit_signal);
  if (e.exit_code) return "its leader exited with status " + std::to_string(*e.exit_code);
  return "it ended by itself";
}

std::string ended(const EventRecord& e) {
  std::string text = e.registered_as + ": ended";
  if (e.reason) text += " (" + std::string(to_string(*e.reason)) + ")";
  if (const std::string because = why(e); !because.empty()) text += ": " + because;
  if (const auto* sufficed = find_detail<bool>(e, "sigterm_sufficed")) {
    text += *sufficed ? "; SIGTERM was enough" : "; SIGTERM was not enough";
  }
  if (const std::string used = figures(e); !used.empty()) text += "; " + used;
  return text;
}

std::string ending(const EventRecord& e) {
  const auto* grace = find_detail<std::uint64_t>(e, "grace_usec");
  return e.registered_as + ": is being ended (" + (e.reason ? std::string(to_string(*e.reason)) : "") + "): " + why(e) +
         "; SIGTERM now" +
         (grace == nullptr ? "" : ", SIGKILL in " + format_span(from_usec(*grace)) + " at the latest");
}

/// Pairs of details: "memory.max_before" and "memory.max".
std::string restored(const EventRecord& e) {
  constexpr std::string_view kBefore = "_before";
  std::string text;
  if (!text_detail(e, "lost_unit").empty()) return text_detail(e, "cause") + ", and its limits are restored";
  for (const auto& [key, value] : e.details) {
    const auto* before = std::get_if<std::string>(&value);
    if (before == nullptr || !key.ends_with(kBefore)) continue;
    const std::string file = key.substr(0, key.size() - kBefore.size());
    text += (text.empty() ? "" : ", ") + file + " was " + *before + " and is " + text_detail(e, file);
  }
  return "limits that somebody else had changed are restored: " + text;
}

}  // namespace

std::string why(const EventRecord& e) {
  if (!e.reason) return "";
  switch (*e.reason) {
    case Reason::kExited:
      return why_exited(e);
    case Reason::kWallClock:
      return "its own wall-clock limit of " + format_span(e.wall_clock_limit.value_or(Span(0))) + " passed";
    case Reason::kMemory:
      return why_memory(e);
    case Reason::kOom:
      return why_oom(e);
    case Reason::kExternal:
      return why_external(e);
    case Reason::kOrphaned:
    case Reason::kRequested: {
      const std::string cause = text_detail(e, "cause");
      return cause.empty() ? std::string(to_string(*e.reason)) : cause;
    }
    case Reason::kLost: {
      const std::string cause = text_detail(e, "cause");
      return "nobody can know any more" + (cause.empty() ? "" : ": " + cause);
    }
  }
  unreachable(*e.reason);
}

std::string figures(const EventRecord& e) {
  std::string text;
  const auto add = [&text](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (e.duration) add("ran " + rough(*e.duration));
  if (e.cpu) add(rough(*e.cpu) + " of CPU time");
  if (e.memory_peak) add(format_size(*e.memory_peak) + " of memory at most (page cache included)");
  if (e.leftover_memory) add(format_size(*e.leftover_memory) + " of shared memory left behind");
  return text;
}

std::string limits(const EventRecord& e) {
  if (!e.memory_limit || !e.wall_clock_limit) return "";
  std::string text = format_size(*e.memory_limit) + " of memory";
  const auto* headroom = find_detail<std::uint64_t>(e, "memory_headroom_bytes");
  if (headroom != nullptr && !e.memory_limit->is_infinite()) text += " and " + format_size(Bytes(*headroom)) + " above";
  text += ", " + format_span(*e.wall_clock_limit) + " of wall clock";
  if (const auto* grace = find_detail<std::uint64_t>(e, "grace_usec")) {
    text += ", " + format_span(from_usec(*grace)) + " of grace";
  }
  return text;
}

std::string message(const EventRecord& e) {
  const std::string& id = e.registered_as;
  switch (e.kind) {
    case EventKind::kRegistered:
      return id + ": registered, " + process(e) + ", with " + limits(e);
    case EventKind::kUnregistered:
      return id + ": unregistered, lives on without limits";
    case EventKind::kLimitsChanged:
      return id + ": limits changed, now " + limits(e);
    case EventKind::kLimitsRestored:
      return id + ": " + restored(e);
    case EventKind::kExtended:
      return id + ": deadline extended, now " + limits(e);
    case EventKind::kOrphanFound:
      return id + ": orphan found, " + process(e);
    case EventKind::kEscaped:
      return id + ": " + process(e) + " was moved out of it, to " + text_detail(e, "cgroup") +
             ", where no limit holds it";
    case EventKind::kEnding:
      return ending(e);
    case EventKind::kEscalated:
      return id + ": what is left of it is killed whole through cgroup.kill (" + why(e) + ")";
    case EventKind::kUnkillable:
      return id + ": processes survive SIGKILL";
    case EventKind::kEnded:
      return ended(e);
    case EventKind::kUnreaped:
      return id + ": left zombies that their parent does not reap";
    case EventKind::kAdopted:
      return id + ": adopted, " + process(e) + ", with " + limits(e);
    case EventKind::kDaemonStarted:
      return "the watchdog has started";
    case EventKind::kDaemonStopped:
      return "the watchdog has stopped; limits stay in force";
  }
  unreachable(e.kind);
}

}  // namespace aw::journal
