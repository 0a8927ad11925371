// SPDX-License-Identifier: Apache-2.0
//
// The wheel against std::multimap and against one sd-event source per timer. Times are those of one arm+cancel or
// arm+expire beside `live` timers that stay armed. The sd-event side of arm+expire includes its epoll_wait, because
// a source per timer can't do without one; the wheel's own single source is not in it.
#include <benchmark/benchmark.h>
#include <malloc.h>
#include <systemd/sd-event.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "supervise/timer_wheel.h"

namespace aw::supervise {
namespace {

constexpr std::int64_t kThirtyMinutes = 30LL * 60 * 1'000'000;
constexpr benchmark::IterationCount kRounds = 300'000;

/// Due times ahead, drawn before the measured part.
class Spans {
 public:
  Spans() {
    std::mt19937_64 random(1);
    for (Span& span : spans_) span = Span(1 + static_cast<std::int64_t>(random() % kThirtyMinutes));
  }
  Span next() {
    at_ = at_ + 1 == spans_.size() ? 0 : at_ + 1;
    return spans_[at_];
  }

 private:
  std::vector<Span> spans_ = std::vector<Span>(std::size_t{1} << 20U);
  std::size_t at_ = 0;
};

std::size_t allocated() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

class Wheel {
 public:
  using Handle = TimerHandle;
  Handle arm(Span ahead) { return wheel_.arm(now_ + ahead, {1, 2, 3}); }
  void cancel(Handle handle) { wheel_.cancel(handle); }
  void arm_and_expire(Span) {
    now_ += Span{1};
    wheel_.arm(now_, {1, 2, 3});
    wheel_.advance(now_, fired_);
    fired_.clear();
  }
  /// The earliest timer fires and is armed anew.
  void hold(Span ahead) {
    now_ = *wheel_.next_expiry();
    wheel_.advance(now_, fired_);
    for (const TimerTag& tag : fired_) wheel_.arm(now_ + ahead, tag);
    fired_.clear();
  }

 private:
  Instant now_{Span{kThirtyMinutes}};
  TimerWheel wheel_{now_};
  std::vector<TimerTag> fired_;
};

class Multimap {
 public:
  using Handle = std::multimap<Instant, TimerTag>::iterator;
  Handle arm(Span ahead) { return timers_.emplace(now_ + ahead, TimerTag{1, 2, 3}); }
  void cancel(Handle handle) { timers_.erase(handle); }
  void arm_and_expire(Span) {
    now_ += Span{1};
    timers_.emplace(now_, TimerTag{1, 2, 3});
    while (timers_.begin()->first <= now_) timers_.erase(timers_.begin());
  }
  void hold(Span ahead) {
    now_ = timers_.begin()->first;
    timers_.erase(timers_.begin());
    arm(ahead);
  }

 private:
  Instant now_{Span{kThirtyMinutes}};
  std::multimap<Instant, TimerTag> timers_;
};

class SdEvent {
 public:
  using Handle = sd_event_source*;
  SdEvent() {
    check(sd_event_new(&event_));
    check(sd_event_now(event_, CLOCK_MONOTONIC, &now_) < 0 ? -1 : 0);
  }
  SdEvent(const SdEvent&) = delete;
  SdEvent& operator=(const SdEvent&) = delete;
  ~SdEvent() {
    for (sd_event_source* source : kept_) sd_event_source_unref(source);
    sd_event_unref(event_);
  }

  Handle arm(Span ahead) {
    // A day on top: the timers that stay must not fire while the benchmark runs.
    return add(now_ + 48 * kThirtyMinutes + static_cast<std::uint64_t>(ahead.count()));
  }
  void keep(Handle handle) { kept_.push_back(handle); }
  static void cancel(Handle handle) { sd_event_source_unref(handle); }
  void arm_and_expire(Span) {
    fired_ = false;
    sd_event_source* source = add(now_);
    while (!fired_) check(sd_event_run(event_, 0));
    sd_event_source_unref(source);
  }

 private:
  static void check(int result) {
    if (result >= 0) return;
    std::fprintf(stderr, "sd-event: %d\n", result);
    std::abort();
  }
  static int on_timer(sd_event_source*, std::uint64_t, void* fired) {
    *static_cast<bool*>(fired) = true;
    return 0;
  }
  sd_event_source* add(std::uint64_t usec) {
    sd_event_source* source = nullptr;
    check(sd_event_add_time(event_, &source, CLOCK_MONOTONIC, usec, 1, &SdEvent::on_timer, &fired_));
    return source;
  }

  sd_event* event_ = nullptr;
  std::uint64_t now_ = 0;
  bool fired_ = false;
  std::vector<Handle> kept_;
};

template <class Timers>
std::unique_ptr<Timers> armed_with(std::int64_t live, Span beyond, Spans& spans, benchmark::State& state) {
  const std::size_t before = allocated();
  auto timers = std::make_unique<Timers>();
  for (std::int64_t i = 0; i < live; ++i) {
    [[maybe_unused]] const auto handle = timers->arm(beyond + spans.next());
    if constexpr (requires { timers->keep(handle); }) timers->keep(handle);
  }
  state.counters["MB"] = static_cast<double>(allocated() - before) / 1e6;
  return timers;
}

template <class Timers>
void arm_cancel(benchmark::State& state) {
  Spans spans;
  const auto timers = armed_with<Timers>(state.range(0), Span{0}, spans, state);
  for (auto _ : state) timers->cancel(timers->arm(spans.next()));
}

template <class Timers>
void arm_expire(benchmark::State& state) {
  Spans spans;
  // The timers that stay are a year away, so that none of them expires.
  const auto timers = armed_with<Timers>(state.range(0), std::chrono::hours{8760}, spans, state);
  for (auto _ : state) timers->arm_and_expire(spans.next());
}

template <class Timers>
void hold(benchmark::State& state) {
  Spans spans;
  Timers timers;
  for (std::int64_t i = 0; i < state.range(0); ++i) timers.arm(spans.next());
  for (auto _ : state) timers.hold(spans.next());
}

/// Prints as usual and remembers the times, for the ratios at the end.
class Remembering : public benchmark::ConsoleReporter {
 public:
  Remembering() : ConsoleReporter(OO_Tabular) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      nanoseconds_[run.run_name.function_name + "/" + run.run_name.args] = run.GetAdjustedRealTime();
    ConsoleReporter::ReportRuns(runs);
  }

  void print_ratio(const std::string& other, const std::string& what, const std::string& live, const char* size) const {
    const auto ours = nanoseconds_.find("wheel " + what + "/" + live);
    const auto theirs = nanoseconds_.find(other + " " + what + "/" + live);
    if (ours == nanoseconds_.end() || theirs == nanoseconds_.end()) return;
    const double ratio = theirs->second / ours->second;
    std::printf("wheel vs %s, %s at %s: 1:%.*f\n", other.c_str(), what.c_str(), size, ratio < 10 ? 1 : 0, ratio);
  }

 private:
  std::map<std::string, double> nanoseconds_;
};

constexpr std::array<std::pair<const char*, std::int64_t>, 3> kSizes{
    {{"1k", 1'000}, {"100k", 100'000}, {"1M", 1'000'000}}};

void add(const std::string& name, void (*function)(benchmark::State&)) {
  auto* added = benchmark::RegisterBenchmark(name.c_str(), function);
  for (const auto& [label, live] : kSizes) added->Arg(live);
  added->Iterations(kRounds);
}

void add_all() {
  add("wheel arm+cancel", arm_cancel<Wheel>);
  add("multimap arm+cancel", arm_cancel<Multimap>);
  add("sd-event arm+cancel", arm_cancel<SdEvent>);
  add("wheel arm+expire", arm_expire<Wheel>);
  add("multimap arm+expire", arm_expire<Multimap>);
  add("sd-event arm+expire", arm_expire<SdEvent>);
  add("wheel hold", hold<Wheel>);
  add("multimap hold", hold<Multimap>);
}

void print_ratios(const Remembering& results) {
  for (const char* other : {"sd-event", "multimap"}) {
    for (const char* what : {"arm+cancel", "arm+expire", "hold"}) {
      for (const auto& [label, live] : kSizes) results.print_ratio(other, what, std::to_string(live), label);
    }
  }
}

}  // namespace
}  // namespace aw::supervise

int main(int argc, char** argv) {
  aw::supervise::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  aw::supervise::Remembering results;
  benchmark::RunSpecifiedBenchmarks(&results);
  aw::supervise::print_ratios(results);
  return 0;
}
