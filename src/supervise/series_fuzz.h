// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; series_corpus_test.cc does the same with each file of corpus/series.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "base/assert.h"
#include "supervise/series.h"

namespace aw::supervise {

inline void fuzz_series(std::string_view bytes) {
  const auto samples = decode_series(bytes);
  if (!samples) return AW_ASSERT(!samples.error().message.empty());
  // There is one way only to write a series, and all of it fits wherever it goes.
  AW_ASSERT(encode_series(*samples) == bytes && samples->size() <= Series::kMostPoints);
  Series series(Series::kLeastPoints);
  Bytes highest;
  for (const Sample& sample : *samples) {
    AW_ASSERT(sample.memory.count() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
    AW_ASSERT(sample.cpu >= Span(0) && sample.at >= WallTime{});
    series.add(sample);
    highest = std::max(highest, sample.unreclaimable);
  }
  Bytes kept;
  for (const Sample& sample : series.samples()) kept = std::max(kept, sample.unreclaimable);
  AW_ASSERT(kept == highest && series.samples().size() <= Series::kLeastPoints);
  AW_ASSERT(samples->empty() ||
            (series.samples().front() == samples->front() && series.samples().back() == samples->back()));
}

}  // namespace aw::supervise
