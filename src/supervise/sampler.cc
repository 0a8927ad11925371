// SPDX-License-Identifier: Apache-2.0
#include "supervise/sampler.h"

#include <algorithm>

namespace aw::supervise {
namespace {

/// Memory has moved if it is by a sixty-fourth, and by a MiB, other than it was.
constexpr std::uint64_t kStillShare = 64;

bool moved(Bytes before, Bytes after) {
  const Bytes by = before < after ? after - before : before - after;
  return by >= kMiB && by > std::max(before, after) / kStillShare;
}

bool moved(const Sample& before, const Sample& after) {
  return moved(before.memory, after.memory) || moved(before.unreclaimable, after.unreclaimable) ||
         before.processes != after.processes;
}

/// The first multiple of `grid` that is not before `instant`.
Instant on_grid(Instant instant, Span grid) {
  const Span::rep step = std::max<Span::rep>(1, grid.count());
  const Span::rep past = instant.time_since_epoch().count() % step;
  return past == 0 ? instant : add_span(instant, Span(step - past));
}

}  // namespace

void Sampler::set_rule(const SeriesRule& rule) {
  rule_ = rule;
  update_alarm();
}

void Sampler::begin(RunKey run, Earlier earlier, const Now& now) {
  if (!on() || tracks_.contains(run)) return;
  const Span quick = std::max(Span(1), rule_.interval / 2);
  Track& track = tracks_.emplace(run, Track{Series(rule_.points), earlier, quick, kNever, now.monotonic}).first->second;
  plan(run, track, on_grid(now.monotonic, quick / 4));
  update_alarm();
}

void Sampler::end(RunKey run) {
  const auto it = tracks_.find(run);
  if (it == tracks_.end()) return;
  due_.erase({it->second.due, run});
  tracks_.erase(it);
  update_alarm();
}

void Sampler::add(RunKey run, const Sample& sample) {
  const auto it = tracks_.find(run);
  if (it == tracks_.end()) return;
  it->second.series.add(sample);
  it->second.last = sample;
  it->second.changed = true;
}

void Sampler::resume(RunKey run, const std::vector<Sample>& earlier) {
  const auto it = tracks_.find(run);
  if (it == tracks_.end() || it->second.earlier == Earlier::kNone) return;
  it->second.series.prepend(earlier);
  it->second.earlier = Earlier::kNone;
}

void Sampler::stir(RunKey run, const Now& now) {
  const auto it = tracks_.find(run);
  if (it == tracks_.end() || it->second.interval <= rule_.interval || !on()) return;
  it->second.interval = rule_.interval;
  // However much happens: no two samples nearer to each other than otherwise.
  const Instant soonest = std::max(now.monotonic, it->second.taken + rule_.interval);
  plan(run, it->second, std::min(it->second.due, on_grid(soonest, rule_.interval / 2)));
  update_alarm();
}

void Sampler::on_due(const Now& now) {
  alarm_.reset();  // It has come: whatever is next must be set anew.
  if (!on()) return update_alarm();
  for (std::size_t left = kMostPerTurn; left > 0; --left) {
    if (due_.empty() || due_.begin()->first > now.monotonic) break;
    const RunKey run = due_.begin()->second;
    take(run, tracks_.at(run), now);
  }
  update_alarm();
}

void Sampler::take(RunKey run, Track& track, const Now& now) {
  track.taken = now.monotonic;
  const auto sample = ports_.read(run, now);
  if (sample) {
    const bool moves = !track.last || moved(*track.last, *sample);
    add(run, *sample);
    if (track.quick > 0 && --track.quick > 0) {
      track.interval = std::max(Span(1), rule_.interval / 2);
    } else {
      track.interval = moves ? rule_.interval : std::min(track.interval * 2, rule_.longest());
    }
  } else {
    track.interval = std::min(track.interval * 2, rule_.longest());
  }
  // From half an interval to one and a half from now, where others of that interval are due.
  plan(run, track, on_grid(now.monotonic + track.interval / 2, track.interval));
  if (!track.changed || now.monotonic - track.kept < kCheckpoint) return;
  track.kept = now.monotonic;
  track.changed = false;
  ports_.keep(run);
}

void Sampler::plan(RunKey run, Track& track, Instant due) {
  due_.erase({track.due, run});
  track.due = due;
  due_.insert({due, run});
}

void Sampler::update_alarm() {
  const auto next = on() && !due_.empty() ? std::optional(due_.begin()->first) : std::nullopt;
  if (next == alarm_) return;
  alarm_ = next;
  ports_.set_alarm(next);
}

const Series* Sampler::find(RunKey run) const {
  const auto it = tracks_.find(run);
  return it == tracks_.end() ? nullptr : &it->second.series;
}

bool Sampler::continues(RunKey run) const {
  const auto it = tracks_.find(run);
  return it != tracks_.end() && it->second.earlier == Earlier::kOnDisk;
}

}  // namespace aw::supervise
