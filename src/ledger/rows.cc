// SPDX-License-Identifier: Apache-2.0
#include "ledger/rows.h"

#include <charconv>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/analysis_id.h"
#include "base/assert.h"
#include "base/numbers.h"
#include "base/utf8.h"

namespace aw::ledger {
namespace {

using supervise::Details;
using supervise::DetailValue;
using supervise::EventRecord;
using supervise::kUnlimited;
using supervise::Limits;
using supervise::ProcessKey;
using supervise::ProcessSummary;
using supervise::RunRow;
using supervise::SeriesRow;
using Json = nlohmann::ordered_json;  // Details keep their order.

// ---- Values as columns hold them ----

/// NULL for no limit; see the header.
std::optional<std::int64_t> stored(std::uint64_t number) {
  if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return static_cast<std::int64_t>(number);
}
std::optional<std::int64_t> stored(Bytes size) { return stored(size.count()); }
std::optional<std::int64_t> stored(Span span) { return stored(to_usec(span)); }

std::uint64_t count_or_unlimited(std::optional<std::int64_t> number) {
  return number ? static_cast<std::uint64_t>(*number) : kUnlimited;
}
Bytes bytes_or_infinite(std::optional<std::int64_t> number) { return Bytes(count_or_unlimited(number)); }
Span span_or_forever(std::optional<std::int64_t> number) { return from_usec(count_or_unlimited(number)); }

std::optional<Bytes> bytes_if(std::optional<std::int64_t> number) {
  return number ? std::optional(bytes_or_infinite(number)) : std::nullopt;
}
std::optional<Span> span_if(std::optional<std::int64_t> number) {
  return number ? std::optional(span_or_forever(number)) : std::nullopt;
}
std::optional<int> int_if(std::optional<std::int64_t> number) {
  return number ? std::optional(static_cast<int>(*number)) : std::nullopt;
}

// ---- JSON ----

std::string to_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);  // It does not throw, whatever is in there.
}

Json to_json(const DetailValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return storable(*text);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  const std::uint64_t number = std::get<std::uint64_t>(value);
  return number == kUnlimited ? Json(nullptr) : Json(number);
}

std::string to_text(const Details& details) {
  Json json = Json::object();
  for (const auto& [name, value] : details) json[storable(name)] = to_json(value);
  return to_text(json);
}

std::string to_text(const std::vector<ProcessSummary>& processes) {
  Json json = Json::array();
  for (const ProcessSummary& process : processes) {
    json.push_back({{"pid", process.pid},
                    {"ppid", process.parent},
                    {"comm", storable(process.comm)},
                    {"rss", process.resident.count()},
                    {"cmdline", storable(process.cmdline)},
                    {"cpu_usec", to_usec(process.cpu)}});
  }
  return to_text(json);
}

std::string to_text(const std::map<std::string, std::string>& labels) {
  Json json = Json::object();
  for (const auto& [name, value] : labels) json[storable(name)] = storable(value);
  return to_text(json);
}

/// Discarded, which is no object and no array, where the text is no JSON.
Json parse_json(const std::string& text) { return Json::parse(text, nullptr, false); }

Details to_details(const std::string& text) {
  Details details;
  const Json json = parse_json(text);
  if (!json.is_object()) return details;
  for (const auto& [name, value] : json.items()) {
    if (value.is_string()) details.emplace_back(name, value.get<std::string>());
    if (value.is_boolean()) details.emplace_back(name, value.get<bool>());
    if (value.is_number_unsigned()) details.emplace_back(name, value.get<std::uint64_t>());
    if (value.is_null()) details.emplace_back(name, kUnlimited);
  }
  return details;
}

std::uint64_t number_in(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string text_in(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::vector<ProcessSummary> to_processes(const std::string& text) {
  std::vector<ProcessSummary> processes;
  const Json json = parse_json(text);
  if (!json.is_array()) return processes;
  for (const Json& entry : json) {
    if (!entry.is_object()) continue;
    processes.push_back({static_cast<pid_t>(number_in(entry, "pid")), static_cast<pid_t>(number_in(entry, "ppid")),
                         text_in(entry, "comm"), Bytes(number_in(entry, "rss")), text_in(entry, "cmdline"),
                         from_usec(number_in(entry, "cpu_usec"))});
  }
  return processes;
}

std::map<std::string, std::string> to_labels(const std::string& text) {
  std::map<std::string, std::string> labels;
  const Json json = parse_json(text);
  if (!json.is_object()) return labels;
  for (const auto& [name, value] : json.items()) {
    if (value.is_string()) labels.emplace(name, value.get<std::string>());
  }
  return labels;
}

// ---- Statements ----

// analysis_id is filled only while the analysis is in the table: an unknown or deleted one never makes an event fail.
constexpr char kInsertEvent[] = R"sql(
INSERT INTO watchdog_events (event_id, occurred_at, host, boot_id, run_id, analysis_id, registered_as, kind, reason,
  unit, pid, comm, cmdline, uid, memory_bytes, memory_peak_bytes, memory_limit_bytes, duration_usec,
  wall_clock_limit_usec, cpu_usec, signal, escalated, exit_code, exit_signal, leftover_memory_bytes, processes, details)
VALUES (:event_id, :occurred_at, :host, :boot_id, :run_id, (SELECT id FROM analyses WHERE id = :analysis_id),
  coalesce(:registered_as, ''), :kind, :reason, :unit, :pid, :comm, :cmdline, :uid, :memory_bytes, :memory_peak_bytes,
  :memory_limit_bytes, :duration_usec, :wall_clock_limit_usec, :cpu_usec, :signal, :escalated, :exit_code,
  :exit_signal, :leftover_memory_bytes, :processes, :details)
ON CONFLICT (event_id) DO NOTHING)sql";

constexpr char kUpsertRun[] = R"sql(
INSERT INTO watchdog_processes (run_id, analysis_id, registered_as, host, boot_id, unit, leader_pid, leader_start_time,
  owner_pid, owner_start_time, uid, memory_limit_bytes, memory_headroom_bytes, memory_headroom_auto,
  wall_clock_limit_usec, grace_usec, tasks_max, cpu_quota_per_sec_usec, cpu_weight, orphan_policy, owner_policy,
  description, labels, registered_at, deadline_at, registered_at_usec, deadline_usec, state)
VALUES (?1, (SELECT id FROM analyses WHERE id = ?2), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
  ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)
ON CONFLICT (run_id) DO UPDATE SET unit = excluded.unit, leader_pid = excluded.leader_pid,
  leader_start_time = excluded.leader_start_time, owner_pid = excluded.owner_pid,
  owner_start_time = excluded.owner_start_time, memory_limit_bytes = excluded.memory_limit_bytes,
  memory_headroom_bytes = excluded.memory_headroom_bytes, memory_headroom_auto = excluded.memory_headroom_auto,
  wall_clock_limit_usec = excluded.wall_clock_limit_usec, grace_usec = excluded.grace_usec,
  tasks_max = excluded.tasks_max, cpu_quota_per_sec_usec = excluded.cpu_quota_per_sec_usec,
  cpu_weight = excluded.cpu_weight, orphan_policy = excluded.orphan_policy, owner_policy = excluded.owner_policy,
  description = excluded.description, labels = excluded.labels, registered_at = excluded.registered_at,
  deadline_at = excluded.deadline_at, registered_at_usec = excluded.registered_at_usec,
  deadline_usec = excluded.deadline_usec, state = excluded.state)sql";

// A row that is replaced gets a new number.
constexpr char kInsertSeries[] = R"sql(
INSERT OR REPLACE INTO watchdog_series (run_id, registered_as, host, uid, first_at, last_at, points, samples, over,
  event_seq)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, (SELECT coalesce(max(seq), 0) FROM watchdog_events)))sql";

constexpr char kFindSeries[] = "SELECT samples FROM watchdog_series WHERE run_id = ?1";

/// Binds what visit_fields() calls it with.
class EventBinder {
 public:
  EventBinder(Statement& statement, const std::map<std::string, int, std::less<>>& parameters)
      : statement_(statement), parameters_(parameters) {}

  void operator()(std::string_view name, const std::string& text) { statement_.bind(parameter(name), storable(text)); }
  void operator()(std::string_view name, std::uint64_t number) { statement_.bind(parameter(name), stored(number)); }
  void operator()(std::string_view name, std::int64_t number) { statement_.bind(parameter(name), number); }
  void operator()(std::string_view name, bool flag) { statement_.bind(parameter(name), std::int64_t{flag}); }
  void operator()(std::string_view name, WallTime time) { statement_.bind(parameter(name), format_iso8601(time)); }
  void operator()(std::string_view name, const std::vector<ProcessSummary>& processes) {
    statement_.bind(parameter(name), to_text(processes));
  }
  void operator()(std::string_view name, const Details& details) { statement_.bind(parameter(name), to_text(details)); }

 private:
  int parameter(std::string_view name) const {
    const auto found = parameters_.find(name);
    AW_ASSERT(found != parameters_.end());  // A field of the record without a column: a migration is missing.
    return found->second;
  }

  Statement& statement_;
  const std::map<std::string, int, std::less<>>& parameters_;
};

/// Hands the columns of a row out one after the other.
class Columns {
 public:
  explicit Columns(const Statement& row) : row_(row) {}
  std::string text() { return row_.text(next_++); }
  std::optional<std::int64_t> number() { return row_.number(next_++); }
  std::int64_t number_or_zero() { return number().value_or(0); }
  std::optional<WallTime> time() { return parse_iso8601(text()); }

 private:
  const Statement& row_;
  int next_ = 0;
};

}  // namespace

std::optional<WallTime> parse_iso8601(std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-ddTdd:dd:dd.ddddddZ";
  if (text.size() != kForm.size()) return std::nullopt;
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == 'd' ? !digit : text[i] != kForm[i]) return std::nullopt;
  }
  const auto part = [&](std::size_t at, std::size_t size) {
    return parse_number<int>(text.substr(at, size)).value_or(0);
  };
  std::tm parts{};
  parts.tm_year = part(0, 4) - 1900;
  parts.tm_mon = part(5, 2) - 1;
  parts.tm_mday = part(8, 2);
  parts.tm_hour = part(11, 2);
  parts.tm_min = part(14, 2);
  parts.tm_sec = part(17, 2);
  return WallTime(std::chrono::seconds{::timegm(&parts)} + Span(part(20, 6)));
}

std::string storable(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  while (!text.empty()) {
    const auto character = find_character(text);
    const std::size_t bytes = character ? character->bytes : 1;
    clean += character && character->code != 0 ? text.substr(0, bytes) : std::string_view("\xEF\xBF\xBD");
    text.remove_prefix(bytes);
  }
  return clean;
}

Result<EventInsert> EventInsert::prepare(Database& database) {
  return database.prepare(kInsertEvent).transform([](Statement statement) {
    return EventInsert(std::move(statement));
  });
}

EventInsert::EventInsert(Statement statement) : statement_(std::move(statement)) {
  for (int i = 1; const char* name = statement_.parameter_name(i); ++i) parameters_.emplace(name + 1, i);
}

Result<void> EventInsert::run(const EventRecord& event) {
  supervise::visit_fields(event, EventBinder(statement_, parameters_));
  return statement_.run();
}

Result<RunUpsert> RunUpsert::prepare(Database& database) {
  return database.prepare(kUpsertRun).transform([](Statement statement) { return RunUpsert(std::move(statement)); });
}

Result<void> RunUpsert::run(const RunRow& row) {
  const Limits& limits = row.limits;
  const auto instant = [](Instant at) { return std::int64_t{at.time_since_epoch().count()}; };
  int next = 0;
  const auto bind = [&](const auto& value) { statement_.bind(++next, value); };
  bind(storable(row.run_id));
  bind(storable(row.registered_as));
  bind(storable(row.host));
  bind(storable(row.boot_id));
  bind(storable(row.unit));
  bind(std::int64_t{row.leader.pid});
  bind(static_cast<std::int64_t>(row.leader.start_time));
  bind(row.owner ? std::optional(std::int64_t{row.owner->pid}) : std::nullopt);
  bind(row.owner ? std::optional(static_cast<std::int64_t>(row.owner->start_time)) : std::nullopt);
  bind(std::int64_t{row.uid});
  bind(stored(limits.memory));
  bind(stored(limits.effective_headroom()));
  bind(std::int64_t{!limits.headroom});
  bind(stored(limits.wall_clock));
  bind(stored(limits.grace));
  bind(stored(limits.tasks_max));
  bind(stored(limits.cpu_quota_per_second));
  bind(limits.cpu_weight ? stored(*limits.cpu_weight) : std::nullopt);
  bind(to_string(limits.orphan_policy));
  bind(to_string(limits.owner_policy));
  bind(storable(limits.description));
  bind(to_text(limits.labels));
  bind(format_iso8601(row.registered_at));
  bind(row.deadline_at ? std::optional(format_iso8601(*row.deadline_at)) : std::nullopt);
  bind(instant(row.registered));
  bind(row.deadline == kNever ? std::nullopt : std::optional(instant(row.deadline)));
  bind(to_string(row.state));
  return statement_.run();
}

Result<SeriesInsert> SeriesInsert::prepare(Database& database) {
  auto find = database.prepare(kFindSeries);
  if (!find) return std::move(find).error();
  auto insert = database.prepare(kInsertSeries);
  if (!insert) return std::move(insert).error();
  return SeriesInsert(*std::move(find), *std::move(insert));
}

Result<std::vector<supervise::Sample>> SeriesInsert::read_before(const std::string& run_id) {
  find_.bind(1, storable(run_id));
  const auto found = find_.step();
  const std::string samples = found && *found ? find_.blob(0) : "";
  find_.reset();
  if (!found) return Error(found.error());
  return supervise::decode_series(samples).value_or({});  // What can't be read is not there.
}

Result<void> SeriesInsert::run(const SeriesRow& row, const std::string& samples) {
  auto decoded = supervise::decode_series(samples);
  if (!decoded || decoded->empty()) return {};
  std::string bytes = samples;
  if (row.continues) {
    const auto before = read_before(row.run_id);
    if (!before) return Error(before.error());
    supervise::Series joined(row.most);
    joined.prepend(*decoded);
    joined.prepend(*before);
    decoded = joined.samples();
    bytes = supervise::encode_series(*decoded);
  }
  insert_.bind(1, storable(row.run_id));
  insert_.bind(2, storable(row.registered_as));
  insert_.bind(3, storable(row.host));
  insert_.bind(4, std::int64_t{row.uid});
  insert_.bind(5, format_iso8601(decoded->front().at));
  insert_.bind(6, format_iso8601(decoded->back().at));
  insert_.bind(7, static_cast<std::int64_t>(decoded->size()));
  insert_.bind_blob(8, bytes);
  insert_.bind(9, std::int64_t{row.over});
  return insert_.run();
}

const char kSeriesColumns[] = "change, run_id, registered_as, host, uid, samples, over";

std::optional<SeriesRow> to_series(const Statement& row) {
  auto samples = supervise::decode_series(row.blob(5));
  const auto uid = row.number(4);
  if (!samples || samples->empty() || !uid || *uid < 0 || *uid > UINT32_MAX) return std::nullopt;
  SeriesRow series;
  series.run_id = row.text(1);
  series.registered_as = row.text(2);
  series.host = row.text(3);
  series.uid = static_cast<std::uint32_t>(*uid);
  series.samples = *std::move(samples);
  series.over = row.number(6).value_or(0) != 0;
  return series;
}

const char kEventColumns[] =
    "seq, event_id, occurred_at, host, boot_id, run_id, registered_as, kind, reason, unit, pid, comm, cmdline, uid, "
    "memory_bytes, memory_peak_bytes, memory_limit_bytes, duration_usec, wall_clock_limit_usec, cpu_usec, signal, "
    "escalated, exit_code, exit_signal, leftover_memory_bytes, processes, details";

std::optional<EventRecord> to_event(const Statement& row) {
  Columns columns(row);
  EventRecord event;
  (void)columns.number();  // seq
  event.event_id = columns.text();
  event.occurred_at = columns.time().value_or(WallTime());
  event.host = columns.text();
  event.boot_id = columns.text();
  event.run_id = columns.text();
  event.registered_as = columns.text();
  const auto kind = parse_word<EventKind>(kEventKindWords, columns.text());
  const std::string reason = columns.text();
  event.reason = parse_word<Reason>(kReasonWords, reason);
  if (!kind || (!reason.empty() && !event.reason)) return std::nullopt;
  event.kind = *kind;
  event.unit = columns.text();
  event.pid = int_if(columns.number());
  event.comm = columns.text();
  event.cmdline = columns.text();
  const auto uid = columns.number();
  if (uid) event.uid = static_cast<std::uint32_t>(*uid);
  event.memory = bytes_if(columns.number());
  event.memory_peak = bytes_if(columns.number());
  // Each event of a run has the two limits: NULL is none of that kind, and unknown only for the daemon's own events.
  const bool of_a_run = !event.run_id.empty();
  const auto memory_limit = columns.number();
  if (of_a_run || memory_limit) event.memory_limit = bytes_or_infinite(memory_limit);
  event.duration = span_if(columns.number());
  const auto wall_clock_limit = columns.number();
  if (of_a_run || wall_clock_limit) event.wall_clock_limit = span_or_forever(wall_clock_limit);
  event.cpu = span_if(columns.number());
  event.signal = int_if(columns.number());
  event.escalated = columns.number_or_zero() != 0;
  event.exit_code = int_if(columns.number());
  event.exit_signal = int_if(columns.number());
  event.leftover_memory = bytes_if(columns.number());
  event.processes = to_processes(columns.text());
  event.details = to_details(columns.text());
  return event;
}

const char kRunColumns[] =
    "run_id, registered_as, host, boot_id, unit, leader_pid, leader_start_time, owner_pid, owner_start_time, uid, "
    "memory_limit_bytes, memory_headroom_bytes, memory_headroom_auto, wall_clock_limit_usec, grace_usec, tasks_max, "
    "cpu_quota_per_sec_usec, cpu_weight, orphan_policy, owner_policy, description, labels, registered_at, deadline_at, "
    "registered_at_usec, deadline_usec, state";

std::optional<RunRow> to_run(const Statement& row) {
  Columns columns(row);
  const auto process = [](std::int64_t pid, std::int64_t start_time) {
    return ProcessKey{static_cast<pid_t>(pid), static_cast<std::uint64_t>(start_time)};
  };
  RunRow run;
  run.run_id = columns.text();
  run.registered_as = columns.text();
  run.host = columns.text();
  run.boot_id = columns.text();
  run.unit = columns.text();
  const std::int64_t leader = columns.number_or_zero();
  run.leader = process(leader, columns.number_or_zero());
  const auto owner = columns.number();
  const std::int64_t owner_start = columns.number_or_zero();
  if (owner) run.owner = process(*owner, owner_start);
  run.uid = static_cast<std::uint32_t>(columns.number_or_zero());
  run.limits.memory = bytes_or_infinite(columns.number());
  const Bytes headroom = bytes_or_infinite(columns.number());
  if (columns.number_or_zero() == 0) run.limits.headroom = headroom;
  run.limits.wall_clock = span_or_forever(columns.number());
  run.limits.grace = span_or_forever(columns.number());
  run.limits.tasks_max = count_or_unlimited(columns.number());
  run.limits.cpu_quota_per_second = span_or_forever(columns.number());
  const auto weight = columns.number();
  if (weight) run.limits.cpu_weight = static_cast<std::uint64_t>(*weight);
  const auto orphan_policy = supervise::parse_orphan_policy(columns.text());
  const auto owner_policy = supervise::parse_owner_policy(columns.text());
  if (!orphan_policy || !owner_policy) return std::nullopt;
  run.limits.orphan_policy = *orphan_policy;
  run.limits.owner_policy = *owner_policy;
  run.limits.description = columns.text();
  run.limits.labels = to_labels(columns.text());
  run.registered_at = columns.time().value_or(WallTime());
  run.deadline_at = columns.time();
  run.registered = Instant(Span(columns.number_or_zero()));
  const auto deadline = columns.number();
  if (deadline) run.deadline = Instant(Span(*deadline));
  const auto state = parse_word<State>(kStateWords, columns.text());
  if (!state) return std::nullopt;
  run.state = *state;
  if (!AnalysisId::parse(run.registered_as) || run.run_id.empty() || run.leader.pid <= 0) return std::nullopt;
  return run;
}

}  // namespace aw::ledger
