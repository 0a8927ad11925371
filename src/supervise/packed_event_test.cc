// SPDX-License-Identifier: Apache-2.0
#include "supervise/packed_event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace aw::supervise {
namespace {

/// The largest and the least there may be, and nothing left out.
EventRecord full_event() {
  EventRecord event;
  event.event_id = "f89bd8ea-725c-84b9-9d9f-b4aab639fcbd";
  event.occurred_at = WallTime(Span(1'795'477'294'001'425));
  event.host = "node-7";
  event.boot_id = "e25e883e-fe12-4599-ab56-f32401e8c0f3";
  event.run_id = "dd630447-77fc-4ccd-8303-c49c8bda7332";
  event.registered_as = "Süß\nand \"quoted\"";
  event.kind = EventKind::kEnded;
  event.reason = Reason::kLost;
  event.unit = std::string(300, 'u');
  event.pid = 4'194'304;
  event.comm = "python3";
  event.cmdline = "python3 -c 'import this'";
  event.uid = std::numeric_limits<std::uint32_t>::max();
  event.memory = Bytes(0);
  event.memory_peak = Bytes(127);
  event.memory_limit = Bytes::infinite();
  event.duration = Span(128);
  event.wall_clock_limit = Span::max();
  event.cpu = Span(-1);
  event.signal = 15;
  event.escalated = true;
  event.exit_code = -1;
  event.exit_signal = 9;
  event.leftover_memory = Bytes(1U << 14U);
  event.processes = {{1, 0, "init", Bytes(1), "", Span(0)}, {7, 1, "cat", Bytes(2), std::string(256, 'c'), Span(3)}};
  event.details = {{"why", std::string("it was asked for")},
                   {"", std::string()},
                   {"figures", std::numeric_limits<std::uint64_t>::max()},
                   {"unit_seen", false},
                   {"noted", true}};
  return event;
}

/// All that is there, as its readers see it, and what visit_fields() passes over.
std::string told(const EventRecord& event) {
  std::string text = event.escalated ? "escalated\n" : "";
  const auto value = [&text]<class T>(const T& one) {
    if constexpr (std::is_same_v<T, std::string>) {
      text += "\"" + one + "\"";
    } else if constexpr (std::is_same_v<T, WallTime>) {
      text += std::to_string(one.time_since_epoch().count());
    } else {
      text += std::to_string(one);
    }
  };
  visit_fields(event, [&]<class T>(const char* name, const T& field) {
    text += std::string(name) + "=";
    if constexpr (std::is_same_v<T, std::vector<ProcessSummary>>) {
      for (const ProcessSummary& p : field) {
        text += std::to_string(p.pid) + "," + std::to_string(p.parent) + "," + p.comm + "," +
                std::to_string(p.resident.count()) + "," + p.cmdline + "," + std::to_string(p.cpu.count()) + ";";
      }
    } else if constexpr (std::is_same_v<T, Details>) {
      for (const auto& [key, held] : field) {
        text += key + ":" + std::to_string(held.index()) + ":";
        std::visit(value, held);
        text += ";";
      }
    } else {
      value(field);
    }
    text += "\n";
  });
  return text;
}

TEST(APackedEvent, HasAllThatTheEventHad) {
  const EventRecord event = full_event();

  const EventRecord again = unpack(pack(event));

  EXPECT_EQ(told(again), told(event));
  EXPECT_EQ(again.cpu, event.cpu);
  EXPECT_EQ(again.wall_clock_limit, event.wall_clock_limit);
}

TEST(APackedEvent, HasNothingThatTheEventHadNot) {
  const EventRecord again = unpack(pack(EventRecord()));

  EXPECT_EQ(told(again), told(EventRecord()));
  EXPECT_FALSE(again.pid || again.uid || again.memory_limit || again.exit_code || again.reason);
}

TEST(APackedEvent, TellsItsIdWithoutTheRest) {
  EXPECT_EQ(packed_id(pack(full_event())), full_event().registered_as);
  EXPECT_EQ(packed_id(pack(EventRecord())), "");
}

TEST(APackedEvent, TakesAFractionOfTheRecord) {
  // The record itself, and its strings beside it.
  EventRecord event = full_event();
  event.unit.resize(50);
  event.processes.clear();

  EXPECT_LT(pack(event).size(), sizeof(EventRecord));
}

}  // namespace
}  // namespace aw::supervise
