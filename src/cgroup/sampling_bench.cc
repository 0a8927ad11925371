// SPDX-License-Identifier: Apache-2.0
//
// What the curves of a thousand runs cost. The files are copies of the kernel's, with its names and its numbers, on an
// ordinary file system: the reads and the parsing are the real ones, what the kernel does to fill the files is not there.
// Of that, memory.stat is the most.
#include <benchmark/benchmark.h>

#include <ctime>
#include <filesystem>
#include <fstream>

#include "cgroup/cgroup_fs.h"
#include "supervise/sampler.h"

namespace aw::cgroup {
namespace {

/// Of the thread, in microseconds: the wall clock of a busy machine says nothing.
double cpu_usec() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

class Runs {
 public:
  explicit Runs(std::size_t count) {
    std::string name = std::filesystem::temp_directory_path() / "sampling-bench-XXXXXX";
    root_ = ::mkdtemp(name.data());
    fs_ = CgroupFs::open_fixture(loop_, root_, "/analysis.slice",
                                 {.on_changed = [](supervise::RunKey, const Now&) {},
                                  .on_limits_written = [](supervise::RunKey, const Now&) {},
                                  .on_notice = [](const std::string&) {},
                                  .on_lost = [](const Now&) {}})
              .value();
    for (std::size_t i = 1; i <= count; ++i) {
      const std::string slice = "analysis-run" + std::to_string(i) + ".slice";
      const auto dir = root_ / "analysis.slice" / slice;
      std::filesystem::create_directories(dir);
      std::ofstream(dir / "memory.events") << "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n";
      std::ofstream(dir / "cgroup.events") << "populated 1\nfrozen 0\n";
      std::filesystem::copy_file(AW_SOURCE_DIR "/src/supervise/recorded/6.12-anon-and-cache.stat", dir / "memory.stat");
      std::ofstream(dir / "memory.current") << 67'108'864 + i * 4096 << '\n';
      std::ofstream(dir / "cpu.stat") << "usage_usec 123456789\nuser_usec 100000000\nsystem_usec 23456789\n"
                                         "nice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\n"
                                         "throttled_usec 0\nnr_bursts 0\nburst_usec 0\n";
      std::ofstream(dir / "pids.current") << "17\n";
      runs_.push_back(fs_->open(i, slice).value());
      (void)runs_.back()->read_gauge().value();  // Opens the files.
    }
  }
  ~Runs() {
    runs_.clear();
    std::filesystem::remove_all(root_);
  }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;

  const supervise::RunCgroup& at(std::size_t i) const { return *runs_[i]; }
  std::size_t size() const { return runs_.size(); }

 private:
  loop::Loop loop_ = loop::Loop::create().value();
  std::filesystem::path root_;
  std::unique_ptr<CgroupFs> fs_;
  std::vector<std::unique_ptr<supervise::RunCgroup>> runs_;
};

/// The four reads of one sample, for each run.
void read_gauges(benchmark::State& state) {
  const Runs runs(static_cast<std::size_t>(state.range(0)));
  const double before = cpu_usec();
  for (auto _ : state) {
    for (std::size_t i = 0; i < runs.size(); ++i) benchmark::DoNotOptimize(runs.at(i).read_gauge());
  }
  state.counters["cpu_usec_per_sample"] =
      (cpu_usec() - before) / (static_cast<double>(state.iterations()) * static_cast<double>(runs.size()));
}
BENCHMARK(read_gauges)->Arg(1)->Arg(1000)->Unit(benchmark::kMicrosecond);

/// An hour of the sampler: all that it does, with the reads.
void an_hour(benchmark::State& state, bool moving) {
  const Runs runs(static_cast<std::size_t>(state.range(0)));
  std::size_t samples = 0;
  std::size_t turns = 0;
  double used = 0;
  for (auto _ : state) {
    std::optional<Instant> alarm;
    std::uint64_t round = 0;
    supervise::Sampler sampler({[&](supervise::RunKey key, const Now& now) -> std::optional<supervise::Sample> {
                                  ++samples;
                                  const auto gauge = runs.at(static_cast<std::size_t>(key - 1)).read_gauge();
                                  const Bytes more(moving ? round * 8 * kMiB.count() : 0);
                                  return supervise::Sample{now.real, gauge->memory_current + more,
                                                           gauge->memory.unreclaimable() + more, gauge->cpu, 17};
                                },
                                [](supervise::RunKey) {}, [&](std::optional<Instant> due) { alarm = due; }},
                               supervise::SeriesRule{});
    Now now{};
    for (supervise::RunKey key = 1; key <= runs.size(); ++key) {
      sampler.begin(key, supervise::Sampler::Earlier::kNone, now);
    }
    const double before = cpu_usec();
    while (alarm && *alarm <= Instant{std::chrono::hours{1}}) {
      if (*alarm > now.monotonic) ++round;
      const Span step = std::max(Span(0), *alarm - now.monotonic);
      now.monotonic += step;
      now.real += step;
      ++turns;
      round %= 100;
      sampler.on_due(now);
    }
    used += cpu_usec() - before;
  }
  const auto hours = static_cast<double>(state.iterations());
  state.counters["cpu_usec_per_sample"] = used / static_cast<double>(samples);
  state.counters["samples_per_run"] = static_cast<double>(samples) / hours / static_cast<double>(runs.size());
  state.counters["turns"] = static_cast<double>(turns) / hours;
  state.counters["percent_of_a_cpu"] = used / hours / 3600e6 * 100;
}
BENCHMARK_CAPTURE(an_hour, at_rest, false)->Arg(1000)->Iterations(3)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(an_hour, moving, true)->Arg(1000)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace aw::cgroup

BENCHMARK_MAIN();
