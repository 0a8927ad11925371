// SPDX-License-Identifier: Apache-2.0
#include "postgres/events.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "postgres/event_json.h"
#include "postgres/session.h"

namespace aw::postgres {
namespace {

using supervise::EventRecord;

// The moment as microseconds: the text of a timestamptz depends on settings of the session. 'infinity' has none.
constexpr char kColumns[] =
    "event_id, CASE WHEN isfinite(occurred_at) THEN round(extract(epoch FROM occurred_at) * 1000000)::bigint END AS "
    "occurred_at, host, boot_id, run_id, "
    "registered_as, kind, reason, unit, pid, comm, cmdline, uid, memory_bytes, memory_peak_bytes, memory_limit_bytes, "
    "duration_usec, wall_clock_limit_usec, cpu_usec, signal, escalated, exit_code, exit_signal, "
    "leftover_memory_bytes, processes, details";

std::string text(const pqxx::field& field) { return field.is_null() ? "" : field.as<std::string>(); }

std::optional<std::int64_t> number(const pqxx::field& field) {
  return field.is_null() ? std::nullopt : std::optional(field.as<std::int64_t>());
}

std::optional<int> small_number(const pqxx::field& field) {
  return field.is_null() ? std::nullopt : std::optional(field.as<int>());
}

std::uint64_t count(std::int64_t value) { return value < 0 ? 0 : static_cast<std::uint64_t>(value); }

std::optional<Bytes> size(const pqxx::field& field) {
  const auto value = number(field);
  return value ? std::optional(Bytes(count(*value))) : std::nullopt;
}

std::optional<Span> span(const pqxx::field& field) {
  const auto value = number(field);
  return value ? std::optional(from_usec(count(*value))) : std::nullopt;
}

std::optional<EventRecord> to_event(const pqxx::row& row) {
  const auto kind = parse_word<EventKind>(kEventKindWords, text(row["kind"]));
  const std::string reason = text(row["reason"]);
  EventRecord event;
  event.reason = parse_word<Reason>(kReasonWords, reason);
  const auto occurred_at = number(row["occurred_at"]);
  if (!kind || (!reason.empty() && !event.reason) || !occurred_at) return std::nullopt;
  event.kind = *kind;
  event.event_id = text(row["event_id"]);
  event.occurred_at = WallTime(Span(*occurred_at));
  event.host = text(row["host"]);
  event.boot_id = text(row["boot_id"]);
  event.run_id = text(row["run_id"]);
  event.registered_as = text(row["registered_as"]);
  event.unit = text(row["unit"]);
  event.pid = small_number(row["pid"]);
  event.comm = text(row["comm"]);
  event.cmdline = text(row["cmdline"]);
  if (const auto uid = number(row["uid"])) event.uid = static_cast<std::uint32_t>(*uid);
  event.memory = size(row["memory_bytes"]);
  event.memory_peak = size(row["memory_peak_bytes"]);
  event.memory_limit = size(row["memory_limit_bytes"]);
  event.duration = span(row["duration_usec"]);
  event.wall_clock_limit = span(row["wall_clock_limit_usec"]);
  // Each event of a run has the two limits: NULL is none of that kind, and unknown only for the daemon's own events.
  if (!event.run_id.empty() && !event.memory_limit) event.memory_limit = Bytes::infinite();
  if (!event.run_id.empty() && !event.wall_clock_limit) event.wall_clock_limit = kForever;
  event.cpu = span(row["cpu_usec"]);
  event.signal = small_number(row["signal"]);
  event.escalated = row["escalated"].as<bool>();
  event.exit_code = small_number(row["exit_code"]);
  event.exit_signal = small_number(row["exit_signal"]);
  event.leftover_memory = size(row["leftover_memory_bytes"]);
  event.processes = to_processes(parse_json(text(row["processes"])));
  event.details = to_details(parse_json(text(row["details"])));
  return event;
}

}  // namespace

Select select_events(const EventQuery& query) {
  std::string where;
  Select select;
  const auto bind = [&](std::string value) {
    select.parameters.push_back(std::move(value));
    return "$" + std::to_string(select.parameters.size());
  };
  const auto require = [&](const char* column, std::string value) {
    where += (where.empty() ? " WHERE " : " AND ") + std::string(column) + " " + bind(std::move(value));
  };
  if (query.since) require("occurred_at >=", format_iso8601(*query.since));
  if (query.until) require("occurred_at <=", format_iso8601(*query.until));
  if (query.host) require("host =", *query.host);
  if (query.analysis_id) require("registered_as =", *query.analysis_id);
  if (query.run_id) require("run_id =", *query.run_id);
  if (query.reason) require("reason =", std::string(to_string(*query.reason)));
  if (query.kind) require("kind =", std::string(to_string(*query.kind)));
  const std::size_t most = std::numeric_limits<std::int64_t>::max();
  const std::string limit = bind(std::to_string(std::min(query.limit, most)));
  // Qualified, because the bare name is that of the column in the answer.
  select.sql = std::string("SELECT ") + kColumns + " FROM watchdog_events" + where +
               " ORDER BY watchdog_events.occurred_at DESC, ledger_seq DESC LIMIT " + limit;
  return select;
}

Result<std::vector<EventRecord>> read_events(Connection& connection, const EventQuery& query) {
  const Select select = select_events(query);
  // PostgreSQL takes no text with a NUL, so nothing there is called that.
  for (const std::string& parameter : select.parameters) {
    if (parameter.find('\0') != std::string::npos) return std::vector<EventRecord>();
  }
  return guarded(connection, "read events", [&](Session& session) -> Result<std::vector<EventRecord>> {
    pqxx::work look(session.connection);
    set_up(look, session.target, {session.target.statement_timeout, session.target.lock_timeout});
    std::vector<EventRecord> events;
    for (const auto& row : execute_with(look, select.sql, select.parameters)) {
      if (auto event = to_event(row)) events.push_back(*std::move(event));
    }
    return events;
  });
}

}  // namespace aw::postgres
