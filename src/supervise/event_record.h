// SPDX-License-Identifier: Apache-2.0
//
// The one record. Everything that happens to a run is an EventRecord; the D-Bus signal, the journal, the tools' JSON
// and (later) SQL are made from this value by way of visit_fields(), so that no two of them can tell the story
// differently.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "analysis_watchdog/words.h"
#include "base/bytes.h"
#include "base/time.h"

namespace aw::supervise {

/// A process as it was when something was decided. Largest first in a record, at most kMaxProcesses.
struct ProcessSummary {
  pid_t pid = 0;
  pid_t parent = 0;
  std::string comm;
  Bytes resident;
  std::string cmdline{};  ///< one line, at most kMaxProcessCmdline bytes; empty if it could not be had in time
  Span cpu{0};            ///< that it has used since it began, user and system
};
inline constexpr std::size_t kMaxProcesses = 20;
inline constexpr std::size_t kMaxProcessCmdline = 256;

/// What else belongs to an event: a short list of named values, kept in order.
using DetailValue = std::variant<std::string, std::uint64_t, bool>;
using Details = std::vector<std::pair<std::string, DetailValue>>;

/// What happens to a run at most once has an id that is the same whoever records it: a daemon that is killed between
/// the act and the disk, and the one after it, record one event.
inline constexpr std::array kOncePerRun{EventKind::kRegistered, EventKind::kUnregistered, EventKind::kEnding,
                                        EventKind::kEscalated, EventKind::kEnded};

struct EventRecord {
  std::string event_id;  ///< UUID, made before the event is told to anybody
  WallTime occurred_at;
  std::string host;
  std::string boot_id;
  std::string run_id;         ///< empty for events of the daemon itself
  std::string registered_as;  ///< the analysis id
  EventKind kind = EventKind::kRegistered;
  std::optional<Reason> reason;
  std::string unit;
  std::optional<pid_t> pid;  ///< the leader's, or the orphan's in orphan-found, the escaped one's in escaped
  std::string comm;
  std::string cmdline;
  std::optional<std::uint32_t> uid;
  std::optional<Bytes> memory;       ///< unreclaimable memory, when it was decided or at the last look
  std::optional<Bytes> memory_peak;  ///< memory.peak: page cache included
  std::optional<Bytes> memory_limit;
  std::optional<Span> duration;
  std::optional<Span> wall_clock_limit;
  std::optional<Span> cpu;
  std::optional<int> signal;  ///< the signal that we sent first (SIGTERM), or that killed it (external, oom)
  bool escalated = false;
  std::optional<int> exit_code;    ///< the leader's, where known
  std::optional<int> exit_signal;  ///< the leader's, where known
  std::optional<Bytes> leftover_memory;
  std::vector<ProcessSummary> processes;
  Details details;
};

/// Calls v(name, value) for each field that is there, in the order of the SQL columns and by their names. Values are
/// std::string, std::uint64_t, std::int64_t, bool, WallTime, std::vector<ProcessSummary> and Details.
/// Sizes are bytes, spans microseconds, no limit is UINT64_MAX.
template <class Visitor>
void visit_fields(const EventRecord& e, Visitor&& v) {
  const auto text = [&](const char* name, const std::string& value) {
    if (!value.empty()) v(name, value);
  };
  const auto bytes = [&](const char* name, const std::optional<Bytes>& value) {
    if (value) v(name, value->count());
  };
  const auto span = [&](const char* name, const std::optional<Span>& value) {
    if (value) v(name, to_usec(*value));
  };
  const auto number = [&](const char* name, const auto& value) {
    if (value) v(name, static_cast<std::int64_t>(*value));
  };
  v("event_id", e.event_id);
  v("occurred_at", e.occurred_at);
  text("host", e.host);
  text("boot_id", e.boot_id);
  text("run_id", e.run_id);
  text("analysis_id", e.registered_as);
  text("registered_as", e.registered_as);
  v("kind", std::string(to_string(e.kind)));
  if (e.reason) v("reason", std::string(to_string(*e.reason)));
  text("unit", e.unit);
  number("pid", e.pid);
  text("comm", e.comm);
  text("cmdline", e.cmdline);
  number("uid", e.uid);
  bytes("memory_bytes", e.memory);
  bytes("memory_peak_bytes", e.memory_peak);
  bytes("memory_limit_bytes", e.memory_limit);
  span("duration_usec", e.duration);
  span("wall_clock_limit_usec", e.wall_clock_limit);
  span("cpu_usec", e.cpu);
  number("signal", e.signal);
  v("escalated", e.escalated);
  number("exit_code", e.exit_code);
  number("exit_signal", e.exit_signal);
  bytes("leftover_memory_bytes", e.leftover_memory);
  if (!e.processes.empty()) v("processes", e.processes);
  if (!e.details.empty()) v("details", e.details);
}

}  // namespace aw::supervise
