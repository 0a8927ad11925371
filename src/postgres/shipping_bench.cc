// SPDX-License-Identifier: Apache-2.0
//
// Rows per second that one connection brings to a server that makes each batch durable.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>

#include "postgres/migrate.h"
#include "postgres/shipping.h"
#include "testing/private_postgres.h"

namespace aw::postgres {
namespace {

std::string uuid(std::uint64_t high, std::uint64_t low) {
  std::string text(37, '\0');
  std::snprintf(text.data(), text.size(), "%08x-%04x-4000-8000-%012llx", static_cast<unsigned>(high * 2654435761U),
                static_cast<unsigned>(low % 65536), static_cast<unsigned long long>(low));
  text.pop_back();
  return text;
}

/// A usual event, one in four of them an end with its evidence.
OutboxEvent make_event(std::int64_t seq) {
  const auto number = static_cast<std::uint64_t>(seq);
  OutboxEvent event;
  event.seq = seq;
  supervise::EventRecord& record = event.record;
  record.event_id = uuid(number, number);
  record.occurred_at = WallTime(Span(1'800'000'000'000'000 + seq));
  record.host = "node-1";
  record.boot_id = uuid(1, 1);
  record.run_id = uuid(number / 4, number / 4);
  record.registered_as = "analysis-" + std::to_string(number / 4 % 20000);
  constexpr std::array kKinds{EventKind::kRegistered, EventKind::kExtended, EventKind::kEnding, EventKind::kEnded};
  record.kind = kKinds.at(number % 4);
  record.unit = "analysis-" + record.registered_as + ".scope";
  record.pid = 4711;
  record.comm = "python3";
  record.cmdline = "python3 -m survey --analysis " + std::to_string(seq);
  record.uid = 1000;
  record.memory_limit = kGiB;
  record.wall_clock_limit = std::chrono::minutes{30};
  record.duration = Span(seq);
  record.details = {{"grace_usec", std::uint64_t{10'000'000}}, {"tasks", std::uint64_t{12}}};
  if (number % 4 >= 2) {
    record.reason = Reason::kMemory;
    record.memory = record.memory_peak = kGiB;
    record.processes.assign(5, {4711, 1, "python3", kMiB});
  }
  return event;
}

void ship_batches(benchmark::State& state) {
  testing::PrivatePostgres server(testing::PrivatePostgres::Durability::kOn);
  Target target;
  target.uri = server.uri();
  auto connection = Connection::open(target);
  if (!connection) return state.SkipWithError(connection.error().message.c_str());
  if (auto migrated = migrate(*connection, std::string(AW_SOURCE_DIR) + "/migrations/postgresql"); !migrated) {
    return state.SkipWithError(migrated.error().message.c_str());
  }
  std::int64_t seq = 0;
  std::int64_t cursor = 0;
  std::vector<OutboxEvent> events;
  for (auto _ : state) {
    state.PauseTiming();
    events.clear();
    for (std::int64_t i = 0; i < state.range(0); ++i) events.push_back(make_event(++seq));
    state.ResumeTiming();
    const auto shipped = insert_events(*connection, {"node-1", "ledger", cursor, events});
    if (!shipped) return state.SkipWithError(shipped.error().message.c_str());
    if (shipped->refused > 0) return state.SkipWithError("refused");
    cursor = shipped->cursor;
  }
  state.SetItemsProcessed(seq);
}
BENCHMARK(ship_batches)->Arg(1)->Arg(100)->Arg(1000)->Arg(5000)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace aw::postgres

BENCHMARK_MAIN();
