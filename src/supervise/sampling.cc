// SPDX-License-Identifier: Apache-2.0
//
// The supervisor's part in the curves of its runs: what a sample is made of, and what is handed to the record.
#include <algorithm>

#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

constexpr Span kCountAgain = std::chrono::seconds{30};

}  // namespace

Sampler::Ports Supervisor::sampling() {
  return {[this](RunKey key, const Now& now) -> std::optional<Sample> {
            const auto it = runs_.find(key);
            return it == runs_.end() ? std::nullopt : read_sample(*it->second, now);
          },
          [this](RunKey key) {
            if (const auto it = runs_.find(key); it != runs_.end()) keep_series(*it->second);
          },
          [this](std::optional<Instant> due) { ports_.set_sampling_alarm(due); }};
}

void Supervisor::set_policy(const Policy& policy, const Now& now) {
  policy_ = policy;
  sampler_.set_rule(policy.series);
  for (const auto& [key, run] : runs_) {
    // One that is not sampled yet was found while none were: a daemon before this one may have kept a part.
    if (run->cgroup && !run->over()) sampler_.begin(key, Sampler::Earlier::kOnDisk, now);
  }
}

void Supervisor::on_sampling_due(const Now& now) {
  finished_.clear();
  sampler_.on_due(now);
}

std::optional<Sample> Supervisor::read_sample(Run& run, const Now& now) const {
  if (!run.cgroup) return std::nullopt;
  const auto gauge = run.cgroup->read_gauge();
  if (!gauge) return std::nullopt;
  // To count them takes a walk through the tree. While the kernel counts as many tasks as before it is hardly ever
  // done: of those, only a process that has ended and is not reaped is none any more.
  if (run.sampled_tasks != gauge->tasks || now.monotonic - run.counted >= kCountAgain) {
    const auto pids = run.cgroup->read_processes();
    if (!pids) return std::nullopt;
    run.sampled_processes = static_cast<std::uint32_t>(pids->size());
    run.sampled_tasks = gauge->tasks;
    run.counted = now.monotonic;
  }
  // What is charged elsewhere as it was last known: to find it anew would mean to look at each process.
  return Sample{now.real, gauge->memory_current, gauge->memory.unreclaimable() + run.memory.precharged, gauge->cpu,
                run.sampled_processes};
}

/// Nothing is read for it: the evidence has it all.
void Supervisor::sample_decision(const Run& run) {
  if (!run.evidence || !run.evidence->reading.stat) return;
  const Reading& reading = run.evidence->reading;
  Sample sample{run.evidence->decided.real, reading.counters.memory_current.value_or(Bytes(0)),
                reading.stat->unreclaimable() + run.memory.precharged, reading.counters.cpu.value_or(Span(0)),
                static_cast<std::uint32_t>(run.evidence->processes)};
  // What was judged: by the time that the evidence was gathered it may have been freed.
  if (run.cause && run.cause->reason == Reason::kMemory) {
    sample.unreclaimable = std::max(sample.unreclaimable, run.memory.unreclaimable);
  }
  sampler_.add(run.key, sample);
}

void Supervisor::keep_series(const Run& run) {
  const Series* series = sampler_.find(run.key);
  if (series == nullptr || series->samples().empty()) return;
  ports_.recorder.keep_series({run.run_id, run.id.text(), ports_.identity.host(), run.uid, series->samples(),
                               series->most(), sampler_.continues(run.key), run.over()});
}

void Supervisor::close_series(Run& run, const Now& now) {
  // Of one that has ended while no daemon watched, only this moment is known, and what is on the disk.
  sampler_.begin(run.key, Sampler::Earlier::kOnDisk, now);
  run.sampled_tasks.reset();  // The last of them may be zombies still.
  if (const auto last = read_sample(run, now)) sampler_.add(run.key, *last);
  keep_series(run);
}

}  // namespace aw::supervise
