// SPDX-License-Identifier: Apache-2.0
//
// Events per second until they are durable, by how many are handed over at a time: 1 is one fsync each. Beside it what
// handing one over costs the loop, what an event takes on disk, and how long the newest 50 of many take to read.
// AW_BENCH_DIR says on which disk; AW_BENCH_EVENTS how many events the last one has.
#include <benchmark/benchmark.h>
#include <poll.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/numbers.h"
#include "ledger/ledger.h"
#include "ledger/ledger_reader.h"
#include "testing/records.h"

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;

std::string setting(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : fallback;
}

class Place {
 public:
  Place() {
    std::string pattern = setting("AW_BENCH_DIR", "/var/tmp") + "/ledger-bench-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) {
      std::perror(pattern.c_str());
      std::exit(1);
    }
    dir_ = pattern;
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() { fs::remove_all(dir_); }
  fs::path path() const { return dir_ / "ledger.db"; }

 private:
  fs::path dir_;
};

/// Events as they come: of many runs, each in five.
class Events {
 public:
  const supervise::EventRecord& next() {
    ++count_;
    char id[40];
    // The id is random in its first part, as UUIDs are: that is what the index gets to feel.
    (void)std::snprintf(id, sizeof id, "%08x-0000-4000-8000-%012llx", static_cast<unsigned>(count_ * 2654435761U),
                        static_cast<unsigned long long>(count_));
    event_.event_id = id;
    event_.occurred_at += Span(1000);
    event_.run_id = "7d3c1a52-0d3a-4f3a-8a57-" + std::to_string(100'000'000'000 + count_ / 5);
    event_.registered_as = "import-" + std::to_string(count_ / 5);
    event_.kind = static_cast<EventKind>(count_ % 5 == 0 ? 0 : count_ % 5 == 4 ? 8 : 5);
    return event_;
  }

 private:
  supervise::EventRecord event_ = testing::full_event("");
  std::uint64_t count_ = 0;
};

void wait_until_durable(Ledger& ledger) {
  while (ledger.waiting() > 0) {
    pollfd poll{ledger.changed_fd(), POLLIN, 0};
    (void)::poll(&poll, 1, 1000);
    ledger.take_changed();
  }
}

std::uintmax_t size_on_disk(const fs::path& path) {
  auto database = Database::open(path, Database::Access::kReadWrite, 10'000);
  if (database) (void)database->execute("PRAGMA wal_checkpoint(TRUNCATE)");  // Its size is the main file's then.
  return fs::file_size(path);
}

void durable_events(benchmark::State& state) {
  const Place place;
  Events events;
  Ledger ledger({.path = place.path()});
  ledger.wait_until_opened(std::chrono::seconds{10});
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) ledger.write(events.next());
    wait_until_durable(ledger);
  }
  const auto count = static_cast<double>(state.iterations() * state.range(0));
  state.counters["events/s"] = benchmark::Counter(count, benchmark::Counter::kIsRate);
  state.counters["bytes/event"] = static_cast<double>(size_on_disk(place.path())) / count;
}
BENCHMARK(durable_events)
    ->Arg(1)
    ->Arg(10)
    ->Arg(100)
    ->Arg(1000)
    ->Arg(5000)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void hand_over(benchmark::State& state) {
  const Place place;
  Events events;
  Ledger ledger({.path = place.path(), .capacity = 10'000'000, .most_bytes = std::size_t{16} << 30U});
  for (auto _ : state) ledger.write(events.next());
  wait_until_durable(ledger);
}
BENCHMARK(hand_over)->Iterations(50'000);

void newest_50(benchmark::State& state) {
  const Place place;
  const auto count = parse_number<std::int64_t>(setting("AW_BENCH_EVENTS", "200000")).value_or(0);
  {
    Events events;
    Ledger ledger({.path = place.path()});
    for (std::int64_t i = 1; i <= count; ++i) {
      ledger.write(events.next());
      if (i % 50'000 == 0) wait_until_durable(ledger);
    }
  }
  LedgerReader reader(place.path());
  EventQuery query;
  if (state.range(0) == 1) query.analysis_id = "import-" + std::to_string(count / 10);
  if (state.range(0) == 2) query.reason = Reason::kMemory;
  if (state.range(0) == 3) query.kind = EventKind::kEnded;
  query.limit = 50;
  for (auto _ : state) benchmark::DoNotOptimize(reader.read_events(query));
}
BENCHMARK(newest_50)->Arg(0)->Arg(1)->Arg(2)->Arg(3)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace aw::ledger

BENCHMARK_MAIN();
