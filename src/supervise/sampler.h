// SPDX-License-Identifier: Apache-2.0
//
// When the next sample of each run is taken: often while its memory moves, hardly ever while it rests. Runs that are
// due are read together, a bounded number in one turn of the loop, so that whatever matters more comes between: nothing
// is ended a moment later because a thousand runs want to be looked at.
//
//   begin ──▶ quick: half the interval, a few times ──▶ the interval, while memory or processes change
//                                                        │     ▲ it moved, or something has happened
//                                                        ▼     │
//                                                       twice as long after each sample, up to the idle one
//
// Due times lie on a grid of their interval, so that runs share wake-ups instead of having one each.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "supervise/policy.h"
#include "supervise/ports.h"
#include "supervise/series.h"

namespace aw::supervise {

class Sampler {
 public:
  struct Ports {
    /// Nothing: it can't be read now.
    std::function<std::optional<Sample>(RunKey, const Now&)> read;
    /// A checkpoint: what there is so far is to be kept on the disk.
    std::function<void(RunKey)> keep;
    /// Told when the next turn is due, each time that changes; nothing: none is.
    std::function<void(std::optional<Instant>)> set_alarm;
  };

  /// Runs that are read in one turn of the loop.
  static constexpr std::size_t kMostPerTurn = 64;
  /// Samples at the beginning, at half the interval.
  static constexpr unsigned kQuickSamples = 10;
  /// What a crash may cost of the curve.
  static constexpr Span kCheckpoint = std::chrono::minutes{5};

  Sampler(Ports ports, const SeriesRule& rule) : ports_(std::move(ports)), rule_(rule) {}

  /// Whether a daemon before this one may have kept a part.
  enum class Earlier { kNone, kOnDisk };

  bool on() const { return rule_.interval != kForever; }
  /// Runs that have begun go on with their number of points.
  void set_rule(const SeriesRule& rule);
  /// Nothing while it is off, or of a run that has begun.
  void begin(RunKey run, Earlier earlier, const Now& now);
  void end(RunKey run);
  /// A sample that somebody has read for their own ends.
  void add(RunKey run, const Sample& sample);
  /// What the daemon before this one had kept of a run that began as Earlier::kOnDisk.
  void resume(RunKey run, const std::vector<Sample>& earlier);
  /// Something has happened to it: not to be left at rest.
  void stir(RunKey run, const Now& now);
  /// The alarm has come: one turn. What is left over is due at once.
  void on_due(const Now& now);

  /// Nothing of a run of which there is none.
  const Series* find(RunKey run) const;
  /// What there is of it begins with what is on the disk.
  bool continues(RunKey run) const;

 private:
  struct Track {
    Series series;
    Earlier earlier;
    Span interval;
    Instant due;
    Instant kept;     ///< on the disk
    Instant taken{};  ///< the last sample
    std::optional<Sample> last{};
    unsigned quick = kQuickSamples;
    bool changed = false;  ///< since it was kept
  };

  void plan(RunKey run, Track& track, Instant due);
  void take(RunKey run, Track& track, const Now& now);
  void update_alarm();

  Ports ports_;
  SeriesRule rule_;
  std::unordered_map<RunKey, Track> tracks_;
  std::set<std::pair<Instant, RunKey>> due_;
  std::optional<Instant> alarm_;
};

}  // namespace aw::supervise
