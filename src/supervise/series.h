// SPDX-License-Identifier: Apache-2.0
//
// The curve of a run: what it had in memory and what it had used, from its first moment to its last, in a bounded
// number of points. sampler.h says when one is taken.
//
// A series that is full is thinned out: points that are nearest to each other on the drawn curve become one, which
// keeps the highest of what goes up and down. So a straight line loses points before a peak does, no peak ever loses
// its height, and an old part is as finely drawn as a new one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"

namespace aw::supervise {

/// A run at one moment. In one that stands for several, memory and processes are the highest of them, the time and the
/// CPU time those of the one with the most unreclaimable memory.
struct Sample {
  WallTime at{};
  Bytes memory;                 ///< memory.current: page cache included
  Bytes unreclaimable;          ///< what the verdict looks at
  Span cpu{0};                  ///< used since the run began, user and system
  std::uint32_t processes = 0;  ///< zombies are not among them
  bool operator==(const Sample&) const = default;
};

class Series {
 public:
  static constexpr std::size_t kLeastPoints = 16;
  static constexpr std::size_t kMostPoints = 4096;

  /// At most `most` points, from kLeastPoints to kMostPoints.
  explicit Series(std::size_t most = kLeastPoints);

  void add(const Sample& sample);
  /// Puts what was before our first sample in front of it; what is not before it is passed over, so that to put the
  /// same there twice changes nothing.
  void prepend(const std::vector<Sample>& earlier);

  const std::vector<Sample>& samples() const { return samples_; }  ///< oldest first
  std::size_t most() const { return most_; }

 private:
  void thin_out();
  void merge_nearest(std::size_t pairs);

  std::size_t most_;
  std::vector<Sample> samples_;
};

/// The samples as bytes, to be kept: about 17 for each. decode_series() gives them back.
std::string encode_series(const std::vector<Sample>& samples);
/// Fails for what no encode_series() has made. Every value fits into 63 bits.
Result<std::vector<Sample>> decode_series(std::string_view bytes);

/// A series on its way to the disk, or back.
struct SeriesRow {
  std::string run_id;
  std::string registered_as;  ///< the analysis id
  std::string host;
  std::uint32_t uid = 0;
  std::vector<Sample> samples;  ///< not empty
  std::size_t most = Series::kMostPoints;
  /// It goes on with one that a daemon before this one has kept: that is put in front of it.
  bool continues = false;
  bool over = false;  ///< the run has ended, or is not ours any more: this is all of it
  bool operator==(const SeriesRow&) const = default;
};

}  // namespace aw::supervise
