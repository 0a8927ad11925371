// SPDX-License-Identifier: Apache-2.0
#include "supervise/run_note.h"

#include <charconv>

#include "base/numbers.h"

namespace aw::supervise {
namespace {

// ---- values as text ----

std::string escape(std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string escaped;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f && c != '%' && c != '=') {
      escaped += c;
    } else {
      escaped += {'%', kDigits[byte >> 4], kDigits[byte & 0xf]};
    }
  }
  return escaped;
}

std::optional<std::string> unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      plain += text[i];
      continue;
    }
    unsigned char byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc{} || end != digits.data() + 2) return std::nullopt;
    plain += static_cast<char>(byte);
    i += 2;
  }
  return plain;
}

std::string write(const std::string& value) { return escape(value); }
std::string write(bool value) { return value ? "yes" : "no"; }
std::string write(std::uint64_t value) { return std::to_string(value); }
std::string write(std::uint32_t value) { return std::to_string(value); }
std::string write(Bytes value) { return std::to_string(value.count()); }
std::string write(Span value) { return std::to_string(value.count()); }
std::string write(Instant value) { return write(value.time_since_epoch()); }
std::string write(WallTime value) { return std::to_string(value.time_since_epoch().count()); }
std::string write(const ProcessKey& key) { return std::to_string(key.pid) + ":" + std::to_string(key.start_time); }
std::string write(OrphanPolicy policy) { return std::string(to_string(policy)); }
std::string write(OwnerPolicy policy) { return std::string(to_string(policy)); }
std::string write(State state) { return std::string(to_string(state)); }
std::string write(LimitOf limit_of) { return std::string(to_string(limit_of)); }
std::string write(Reason reason) { return std::string(to_string(reason)); }

template <class T>
bool take(std::optional<T> read, T& value) {
  if (read) value = *std::move(read);
  return read.has_value();
}

bool read(std::string_view text, std::string& value) { return take(unescape(text), value); }
bool read(std::string_view text, bool& value) {
  value = text == "yes";
  return value || text == "no";
}
bool read(std::string_view text, std::uint64_t& value) { return take(parse_number<std::uint64_t>(text), value); }
bool read(std::string_view text, std::uint32_t& value) { return take(parse_number<std::uint32_t>(text), value); }
bool read(std::string_view text, Bytes& value) {
  const auto count = parse_number<std::uint64_t>(text);
  if (count) value = Bytes(*count);
  return count.has_value();
}
bool read(std::string_view text, Span& value) {
  const auto count = parse_number<Span::rep>(text);
  if (count) value = Span(*count);
  return count.has_value();
}
bool read(std::string_view text, Instant& value) {
  Span since{};
  if (!read(text, since)) return false;
  value = Instant(since);
  return true;
}
bool read(std::string_view text, WallTime& value) {
  Span since{};
  if (!read(text, since)) return false;
  value = WallTime(since);
  return true;
}
bool read(std::string_view text, ProcessKey& value) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  const auto pid = parse_number<pid_t>(text.substr(0, colon));
  const auto start = parse_number<std::uint64_t>(text.substr(colon + 1));
  if (!pid || *pid <= 0 || !start) return false;
  value = {*pid, *start};
  return true;
}
bool read(std::string_view text, OrphanPolicy& value) { return take(parse_orphan_policy(text), value); }
bool read(std::string_view text, OwnerPolicy& value) { return take(parse_owner_policy(text), value); }
bool read(std::string_view text, State& value) { return take(parse_word<State>(kStateWords, text), value); }
bool read(std::string_view text, LimitOf& value) {
  for (const LimitOf known : {LimitOf::kNone, LimitOf::kRun, LimitOf::kParent, LimitOf::kHost}) {
    if (to_string(known) == text) return take(std::optional(known), value);
  }
  return false;
}
bool read(std::string_view text, Reason& value) { return take(parse_word<Reason>(kReasonWords, text), value); }

template <class T>
bool read(std::string_view text, std::optional<T>& value) {
  T held{};
  if (!read(text, held)) return false;
  value = std::move(held);
  return true;
}

// ---- what a note has ----

/// A cause with its parts side by side.
struct NotedCause {
  std::optional<Reason> reason;
  std::string detail;
  bool term_sent_elsewhere = false;
  LimitOf limit_of = LimitOf::kNone;
  std::string limit_cgroup;
  std::optional<std::uint32_t> requester_uid;
  std::uint32_t requester_pid = 0;
  std::string requester_comm;

  NotedCause() = default;
  explicit NotedCause(const std::optional<Cause>& cause) {
    if (!cause) return;
    reason = cause->reason;
    detail = cause->detail;
    term_sent_elsewhere = cause->term_sent_elsewhere;
    limit_of = cause->limit_of;
    limit_cgroup = cause->limit_cgroup;
    if (!cause->requester) return;
    requester_uid = cause->requester->uid;
    requester_pid = static_cast<std::uint32_t>(cause->requester->pid);
    requester_comm = cause->requester->comm;
  }
  std::optional<Cause> to_cause() const {
    if (!reason) return std::nullopt;
    Cause cause{*reason, detail, term_sent_elsewhere, limit_of, limit_cgroup, {}};
    if (requester_uid) cause.requester = Requester{*requester_uid, static_cast<pid_t>(requester_pid), requester_comm};
    return cause;
  }
};

/// Calls f(name, value) for everything that has one place; the same list for writing and for reading.
template <class Note, class NoteCause, class F>
void visit(Note& note, NoteCause& cause, F&& f) {
  auto& row = note.row;
  f("run_id", row.run_id);
  f("registered_as", row.registered_as);
  f("host", row.host);
  f("boot_id", row.boot_id);
  f("unit", row.unit);
  f("leader", row.leader);
  f("owner", row.owner);
  f("uid", row.uid);
  f("memory", row.limits.memory);
  f("headroom", row.limits.headroom);
  f("wall_clock", row.limits.wall_clock);
  f("grace", row.limits.grace);
  f("tasks_max", row.limits.tasks_max);
  f("cpu_quota_per_second", row.limits.cpu_quota_per_second);
  f("cpu_weight", row.limits.cpu_weight);
  f("orphan_policy", row.limits.orphan_policy);
  f("owner_policy", row.limits.owner_policy);
  f("description", row.limits.description);
  f("registered_at", row.registered_at);
  f("deadline_at", row.deadline_at);
  f("registered", row.registered);
  f("deadline", row.deadline);
  f("state", row.state);
  f("comm", note.comm);
  f("cmdline", note.cmdline);
  f("generation", note.generation);
  f("backstop", note.backstop);
  f("precharged", note.precharged);
  f("highest_unreclaimable", note.highest_unreclaimable);
  f("reason", cause.reason);
  f("cause", cause.detail);
  f("term_sent_elsewhere", cause.term_sent_elsewhere);
  f("limit_of", cause.limit_of);
  f("limit_cgroup", cause.limit_cgroup);
  f("requester_uid", cause.requester_uid);
  f("requester_pid", cause.requester_pid);
  f("requester_comm", cause.requester_comm);
  f("ending_since", note.ending_since);
  f("told", note.told);
  f("escalated", note.escalated);
  f("releasing", note.releasing);
  f("released", note.released);
}

constexpr std::string_view kLabel = "label ";
constexpr std::string_view kAttached = "attached";
constexpr std::string_view kAsked = "asked";

}  // namespace

std::string format_note(const RunNote& note) {
  std::string text;
  const auto add = [&](std::string_view name, const std::string& value) {
    text += std::string(name) + "=" + value + "\n";
  };
  const NotedCause cause(note.cause);
  visit(note, cause, [&]<class T>(const char* name, const T& value) {
    if constexpr (requires { value.has_value(); }) {
      if (value) add(name, write(*value));
    } else {
      add(name, write(value));
    }
  });
  for (const ProcessKey& key : note.attached) add(kAttached, write(key));
  for (const ProcessKey& key : note.asked) add(kAsked, write(key));
  for (const auto& [name, value] : note.row.limits.labels) add(std::string(kLabel) + escape(name), escape(value));
  return text;
}

Result<RunNote> parse_note(std::string_view text) {
  RunNote note;
  NotedCause cause;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::size_t equals = line.find('=');
    const std::string_view name = line.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : line.substr(equals + 1);
    bool ok = equals != std::string_view::npos;
    if (name.starts_with(kLabel)) {
      const auto key = unescape(name.substr(kLabel.size()));
      ok = ok && key && read(value, note.row.limits.labels[*key]);
    } else if (name == kAttached) {
      ok = ok && read(value, note.attached.emplace_back());
    } else if (name == kAsked) {
      ok = ok && read(value, note.asked.emplace_back());
    } else {
      visit(note, cause, [&]<class T>(std::string_view known, T& field) {
        if (known == name) ok = ok && read(value, field);
      });
    }
    if (!ok) return invalid("\"" + std::string(line.substr(0, 80)) + "\" is no line of a run's note");
  }
  if (auto id = AnalysisId::parse(note.row.registered_as); !id) return std::move(id).error().within("a run's note");
  if (note.row.run_id.empty() || note.row.leader.pid == 0) return invalid("a run's note without the run");
  note.cause = cause.to_cause();
  return note;
}

}  // namespace aw::supervise
