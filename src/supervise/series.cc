// SPDX-License-Identifier: Apache-2.0
#include "supervise/series.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace aw::supervise {
namespace {

constexpr char kVersion = 1;  // The first byte.
constexpr std::size_t kColumns = 5;
constexpr double kLevel = 0.02;  // Steps that are smaller hardly show.
constexpr std::uint64_t kMostCount = std::numeric_limits<std::int64_t>::max();

/// The two as one point. `b` is the later one.
Sample merge(const Sample& a, const Sample& b) {
  const bool a_is_higher = a.unreclaimable != b.unreclaimable ? a.unreclaimable > b.unreclaimable : a.memory > b.memory;
  Sample merged = a_is_higher ? a : b;
  merged.memory = std::max(a.memory, b.memory);
  merged.unreclaimable = std::max(a.unreclaimable, b.unreclaimable);
  merged.processes = std::max(a.processes, b.processes);
  return merged;
}

/// How far apart two values are in a picture that is as high, or as wide, as `whole`.
double apart(std::uint64_t a, std::uint64_t b, double whole) {
  return whole <= 0 ? 0 : std::abs(static_cast<double>(a) - static_cast<double>(b)) / whole;
}

double apart(WallTime a, WallTime b, double whole) {
  return whole <= 0 ? 0 : std::abs(static_cast<double>((b - a).count())) / whole;
}

// ---- bytes: numbers of seven bits a byte, the last without the eighth; differences so that small ones are short ----

void put(std::string& bytes, std::uint64_t number) {
  for (; number >= 0x80; number >>= 7U) bytes += static_cast<char>(static_cast<unsigned char>(number) | 0x80U);
  bytes += static_cast<char>(number);
}

void put_difference(std::string& bytes, std::uint64_t before, std::uint64_t after) {
  const std::uint64_t difference = after - before;
  const std::uint64_t sign = difference >> 63U;
  put(bytes, (difference << 1U) ^ (0 - sign));
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  /// False, and nothing is left, where no number stands.
  bool take(std::uint64_t& number) {
    number = 0;
    for (unsigned shift = 0; !rest_.empty() && shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      const std::uint64_t bits = byte & 0x7fU;
      if (shift == 63 && bits > 1) break;
      number |= bits << shift;
      if (byte < 0x80) return byte != 0 || shift == 0;  // One way only to write each.
    }
    rest_ = {};
    return false;
  }

  bool take_difference(std::uint64_t& value) {
    std::uint64_t number = 0;
    if (!take(number)) return false;
    value += (number >> 1U) ^ (0 - (number & 1U));
    return true;
  }

  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

std::uint64_t bounded(std::uint64_t count) { return std::min(count, kMostCount); }

}  // namespace

Series::Series(std::size_t most) : most_(std::clamp(most, kLeastPoints, kMostPoints)) {}

void Series::add(const Sample& sample) {
  samples_.push_back(sample);
  if (samples_.size() > most_) thin_out();
}

void Series::prepend(const std::vector<Sample>& earlier) {
  auto end = earlier.end();
  if (!samples_.empty()) {
    end = std::find_if(earlier.begin(), earlier.end(), [&](const Sample& s) { return s.at >= samples_.front().at; });
  }
  samples_.insert(samples_.begin(), earlier.begin(), end);
  if (samples_.size() > most_) thin_out();
}

/// Takes away a quarter, so that it is done once in a while and not with each sample. Little by little: what has become
/// one may be nearer to the next than anything else is. Done at once, half of what is new would stay, and each time as
/// much of what is old had to go.
void Series::thin_out() {
  const std::size_t target = most_ - most_ / 4;
  while (samples_.size() > target) {
    merge_nearest(std::min(samples_.size() - target, std::max<std::size_t>(1, samples_.size() / 32)));
  }
}

void Series::merge_nearest(std::size_t pairs) {
  double highest = 0;
  double highest_unreclaimable = 0;
  for (const Sample& sample : samples_) {
    highest = std::max(highest, static_cast<double>(sample.memory.count()));
    highest_unreclaimable = std::max(highest_unreclaimable, static_cast<double>(sample.unreclaimable.count()));
  }
  const auto whole = static_cast<double>((samples_.back().at - samples_.front().at).count());
  const auto distance = [&](std::size_t i) {
    const Sample& a = samples_[i];
    const Sample& b = samples_[i + 1];
    // What the picture loses: a strip as wide as the gap and as high as the step in it. A level piece counts as a little
    // step, so that it is drawn as coarsely as another and not by its two ends alone. The gaps on both sides count,
    // too: what has become one stands at the place of one of the two, and would eat its way along the curve if only the
    // gap in between did.
    return apart(samples_[i - 1].at, samples_[i + 2].at, whole) *
           (kLevel + apart(a.memory.count(), b.memory.count(), highest) +
            apart(a.unreclaimable.count(), b.unreclaimable.count(), highest_unreclaimable));
  };
  // The first and the last stay as they are.
  std::vector<double> distances(samples_.size(), std::numeric_limits<double>::max());
  std::vector<std::size_t> order(samples_.size() - 3);
  std::iota(order.begin(), order.end(), std::size_t{1});
  for (const std::size_t i : order) distances[i] = distance(i);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return distances[a] < distances[b]; });

  std::vector<bool> merges(samples_.size(), false);  ///< with the one behind it
  for (const std::size_t i : order) {
    if (pairs == 0) break;
    if (merges[i - 1] || merges[i + 1]) continue;  // Each is a part of one pair.
    merges[i] = true;
    --pairs;
  }
  std::vector<Sample> kept;
  kept.reserve(std::max(most_ + 1, samples_.size()));
  for (std::size_t i = 0; i < samples_.size(); ++i) {
    if (i > 0 && merges[i - 1]) continue;
    kept.push_back(merges[i] ? merge(samples_[i], samples_[i + 1]) : samples_[i]);
  }
  samples_ = std::move(kept);
}

std::string encode_series(const std::vector<Sample>& samples) {
  std::string bytes(1, kVersion);
  bytes.reserve(samples.size() * 18 + 4);
  put(bytes, samples.size());
  std::uint64_t before[kColumns] = {};
  for (const Sample& sample : samples) {
    const std::uint64_t now[kColumns] = {
        static_cast<std::uint64_t>(
            std::max<Span::rep>(0, std::chrono::duration_cast<Span>(sample.at.time_since_epoch()).count())),
        bounded(sample.memory.count()), bounded(sample.unreclaimable.count()), bounded(to_usec(sample.cpu)),
        sample.processes};
    for (std::size_t i = 0; i < kColumns; ++i) put_difference(bytes, std::exchange(before[i], now[i]), now[i]);
  }
  return bytes;
}

Result<std::vector<Sample>> decode_series(std::string_view bytes) {
  const Error broken = invalid("these bytes are no series");
  if (bytes.empty() || bytes.front() != kVersion) return broken;
  Reader reader(bytes.substr(1));
  std::uint64_t count = 0;
  if (!reader.take(count) || count > Series::kMostPoints) return broken;
  std::vector<Sample> samples;
  samples.reserve(count);
  std::uint64_t now[kColumns] = {};
  for (; count > 0; --count) {
    for (std::uint64_t& value : now) {
      if (!reader.take_difference(value) || value > kMostCount) return broken;
    }
    if (now[4] > std::numeric_limits<std::uint32_t>::max()) return broken;
    samples.push_back({WallTime(Span(static_cast<Span::rep>(now[0]))), Bytes(now[1]), Bytes(now[2]),
                       Span(static_cast<Span::rep>(now[3])), static_cast<std::uint32_t>(now[4])});
  }
  if (!reader.rest().empty()) return broken;
  return samples;
}

}  // namespace aw::supervise
