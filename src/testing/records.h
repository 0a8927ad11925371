// SPDX-License-Identifier: Apache-2.0
//
// Records with every field, for the tests of whoever writes or reads them.
#pragma once

#include <sstream>
#include <string>

#include "supervise/event_record.h"
#include "supervise/run_record.h"

namespace aw::testing {

/// The last of a run, with every field.
inline supervise::EventRecord full_event(const std::string& event_id) {
  supervise::EventRecord event;
  event.event_id = event_id;
  event.occurred_at = WallTime(std::chrono::seconds{1'790'000'000} + Span(123'456));
  event.host = "node1";
  event.boot_id = "0a7c4dd1-6a4c-4a3c-9d37-2f4f7d6ab001";
  event.run_id = "7d3c1a52-0d3a-4f3a-8a57-3c2f0d1f5a01";
  event.registered_as = "nightly import";
  event.kind = EventKind::kEnded;
  event.reason = Reason::kMemory;
  event.unit = "analysis-nightly\\x20import.scope";
  event.pid = 4711;
  event.comm = "python3";
  event.cmdline = "python3 import.py --from 2026-09-01 --to 2026-09-30 --jobs 8";
  event.uid = 1000;
  event.memory = Bytes(2'147'500'000);
  event.memory_peak = Bytes(2'415'919'104);
  event.memory_limit = Bytes(2'147'483'648);
  event.duration = Span(754'000'001);
  event.wall_clock_limit = Span(1'800'000'000);
  event.cpu = Span(1'203'000'000);
  event.signal = 15;
  event.escalated = true;
  event.exit_code = 3;
  event.exit_signal = 9;
  event.leftover_memory = Bytes(4096);
  event.processes = {{4711, 1, "python3", Bytes(1'900'000'000), "python3 import.py", Span(1'203'000'000)},
                     {4712, 4711, "sort", Bytes(8'192), "sort -u", Span(40'000)}};
  event.details = {{"memory_anon_bytes", std::uint64_t{2'100'000'000}},
                   {"cause", std::string("unreclaimable memory passed the limit")},
                   {"settled", true},
                   {"a_limit", supervise::kUnlimited}};
  return event;
}

inline supervise::RunRow full_run(const std::string& run_id) {
  supervise::RunRow row;
  row.run_id = run_id;
  row.registered_as = "nightly import";
  row.host = "node1";
  row.boot_id = "0a7c4dd1-6a4c-4a3c-9d37-2f4f7d6ab001";
  row.unit = "analysis-nightly\\x20import.scope";
  row.leader = {4711, 123'456};
  row.owner = supervise::ProcessKey{4700, 123'000};
  row.uid = 1000;
  row.limits.memory = Bytes(1'000'000'000);
  row.limits.headroom = Bytes(7);
  row.limits.wall_clock = Span(60'000'000);
  row.limits.grace = Span(5'000'000);
  row.limits.tasks_max = 64;
  row.limits.cpu_quota_per_second = Span(1'500'000);
  row.limits.cpu_weight = 20;
  row.limits.orphan_policy = supervise::OrphanPolicy::kReport;
  row.limits.owner_policy = supervise::OwnerPolicy::kIgnore;
  row.limits.description = "imports\nwhat came in";
  row.limits.labels = {{"team", "data"}, {"\"quoted\"", "\\"}};
  row.registered_at = WallTime(std::chrono::seconds{1'790'000'000});
  row.deadline_at = WallTime(std::chrono::seconds{1'790'000'060} + Span(1));
  row.registered = Instant(Span(77'000'000));
  row.deadline = Instant(Span(137'000'001));
  row.state = State::kEnding;
  return row;
}

/// Every field of a record in one text, to compare two.
inline std::string told(const supervise::EventRecord& event) {
  struct Teller {
    std::ostringstream& text;
    void operator()(const char* name, const std::string& value) const { text << name << "=" << value << "\n"; }
    void operator()(const char* name, std::uint64_t value) const { text << name << "=" << value << "\n"; }
    void operator()(const char* name, std::int64_t value) const { text << name << "=" << value << "\n"; }
    void operator()(const char* name, bool value) const { text << name << (value ? "=yes\n" : "=no\n"); }
    void operator()(const char* name, WallTime value) const { text << name << "=" << format_iso8601(value) << "\n"; }
    void operator()(const char* name, const std::vector<supervise::ProcessSummary>& list) const {
      for (const auto& process : list) {
        text << name << "=" << process.pid << " " << process.parent << " " << process.comm << " "
             << process.resident.count() << " " << process.cmdline << " " << to_usec(process.cpu) << "\n";
      }
    }
    void operator()(const char* name, const supervise::Details& details) const {
      for (const auto& [key, value] : details) {
        text << name << "." << key << " (" << value.index() << ")=";
        std::visit([this](const auto& held) { text << held << "\n"; }, value);
      }
    }
  };
  std::ostringstream text;
  supervise::visit_fields(event, Teller{text});
  return text.str();
}

}  // namespace aw::testing
