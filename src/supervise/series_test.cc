// SPDX-License-Identifier: Apache-2.0
#include "supervise/series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace aw::supervise {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr WallTime kBegin{std::chrono::seconds{1'790'000'000}};

Sample sample(int i, std::uint64_t unreclaimable_mib = 100) {
  return {kBegin + i * 2s, Bytes((unreclaimable_mib + 50) * kMiB.count()), Bytes(unreclaimable_mib * kMiB.count()),
          i * 1s, 3};
}

Bytes highest_unreclaimable(const Series& series) {
  Bytes highest;
  for (const Sample& s : series.samples()) highest = std::max(highest, s.unreclaimable);
  return highest;
}

TEST(ASeries, KeepsWhatItIsGivenAsLongAsThereIsRoom) {
  Series series(16);

  series.add(sample(0));
  series.add(sample(1, 200));

  EXPECT_THAT(series.samples(), ElementsAre(sample(0), sample(1, 200)));
}

TEST(ASeries, NeverHasMorePointsThanItMay) {
  Series series(512);

  for (int i = 0; i < 100'000; ++i) {
    series.add(sample(i, static_cast<std::uint64_t>(i * 7919 % 1000)));
    ASSERT_LE(series.samples().size(), 512U);
  }

  EXPECT_GE(series.samples().size(), 512U * 3 / 4);
}

TEST(ASeries, KeepsItsFirstAndItsLastSampleAsTheyWere) {
  Series series(16);

  for (int i = 0; i < 1000; ++i) {
    series.add(sample(i, static_cast<std::uint64_t>(i * 7919 % 1000)));
    ASSERT_EQ(series.samples().front(), sample(0, 0));
    ASSERT_EQ(series.samples().back(), sample(i, static_cast<std::uint64_t>(i * 7919 % 1000)));
  }
}

TEST(ASeries, NeverLosesAPeakWhereverItIs) {
  for (const int peak : {1, 17, 500, 4000, 9998}) {
    Series series(64);
    for (int i = 0; i < 10'000; ++i) {
      Sample next = sample(i, i == peak ? 5000 : static_cast<std::uint64_t>(100 + i % 3));
      if (i == peak) next.processes = 77;
      series.add(next);
    }

    const auto& samples = series.samples();
    const auto at = std::find_if(samples.begin(), samples.end(), [](const Sample& s) { return s.processes == 77; });
    ASSERT_NE(at, samples.end()) << peak;
    EXPECT_EQ(at->unreclaimable, Bytes(5000 * kMiB.count())) << peak;
    EXPECT_EQ(at->memory, Bytes(5050 * kMiB.count())) << peak;
    EXPECT_EQ(at->at, sample(peak).at) << peak;  // And it stands where it was.
  }
}

TEST(ASeries, KeepsAPeakOfEachColumnForItself) {
  Series series(16);
  for (int i = 0; i < 1000; ++i) {
    Sample next = sample(i, 100);
    if (i == 300) next.memory = Bytes(9000 * kMiB.count());  // Page cache.
    if (i == 301) next.unreclaimable = Bytes(140 * kMiB.count());
    series.add(next);
  }

  EXPECT_EQ(highest_unreclaimable(series), Bytes(140 * kMiB.count()));
  EXPECT_TRUE(std::any_of(series.samples().begin(), series.samples().end(),
                          [](const Sample& s) { return s.memory == Bytes(9000 * kMiB.count()); }));
}

TEST(ASeries, StaysInOrderOfTimeAndOfCpuTime) {
  Series series(32);
  for (int i = 0; i < 5000; ++i) series.add(sample(i, static_cast<std::uint64_t>(i * 7919 % 1000)));

  const auto& samples = series.samples();
  EXPECT_TRUE(std::is_sorted(samples.begin(), samples.end(), [](auto& a, auto& b) { return a.at < b.at; }));
  EXPECT_TRUE(std::is_sorted(samples.begin(), samples.end(), [](auto& a, auto& b) { return a.cpu < b.cpu; }));
}

TEST(ASeries, DrawsWhatMovesMoreFinelyThanWhatRests) {
  Series series(128);
  for (int i = 0; i < 4000; ++i) {
    const bool moves = i >= 2000 && i < 2400;
    series.add(sample(i, moves ? 100 + static_cast<std::uint64_t>(500 * std::abs(std::sin(i / 20.0))) : 100));
  }

  const auto inside = std::count_if(series.samples().begin(), series.samples().end(),
                                    [](const Sample& s) { return s.at >= sample(2000).at && s.at < sample(2400).at; });
  EXPECT_GT(inside, 128 / 3);  // A tenth of the time.
}

TEST(ASeries, DrawsAnOldPartAsFinelyAsANewOne) {
  Series series(128);
  for (int i = 0; i < 50'000; ++i) series.add(sample(i, 100 + static_cast<std::uint64_t>(i % 2)));

  const auto old = std::count_if(series.samples().begin(), series.samples().end(),
                                 [](const Sample& s) { return s.at < sample(25'000).at; });
  EXPECT_GT(old, 25);
}

TEST(ASeries, GoesOnWithWhatWasBeforeIt) {
  Series series(16);
  series.add(sample(5));
  const std::vector<Sample> earlier{sample(1), sample(2), sample(6)};

  series.prepend(earlier);
  series.prepend(earlier);

  EXPECT_THAT(series.samples(), ElementsAre(sample(1), sample(2), sample(5)));
}

TEST(ASeries, IsThinnedOutWhenWhatWasBeforeItIsTooMuch) {
  std::vector<Sample> earlier;
  for (int i = 0; i < 4096; ++i) earlier.push_back(sample(i, i == 1234 ? 900 : 100));
  Series series(64);
  series.add(sample(5000));

  series.prepend(earlier);

  EXPECT_THAT(series.samples().size(), ::testing::Le(64U));
  EXPECT_EQ(highest_unreclaimable(series), Bytes(900 * kMiB.count()));
  EXPECT_EQ(series.samples().front(), sample(0));
  EXPECT_EQ(series.samples().back(), sample(5000));
}

TEST(ASeries, TakesAClockThatWasSetBack) {
  Series series(16);
  for (int i = 0; i < 100; ++i) series.add(sample(i < 50 ? i : i - 40));

  EXPECT_THAT(series.samples().size(), ::testing::Le(16U));
}

TEST(ASeries, WithoutTimeOrMemoryIsThinnedOutAllTheSame) {
  Series series(16);
  for (int i = 0; i < 100; ++i) series.add({});

  EXPECT_THAT(series.samples().size(), ::testing::Le(16U));
}

// ---- bytes ----

TEST(ASeriesAsBytes, IsTheSameWhenItIsReadAgain) {
  std::vector<Sample> samples;
  for (int i = 0; i < 512; ++i) samples.push_back(sample(i, static_cast<std::uint64_t>(i * 7919 % 1000)));
  samples.push_back({kBegin - 1h, Bytes(0), Bytes(std::numeric_limits<std::int64_t>::max()), Span(0), UINT32_MAX});
  samples.push_back({WallTime{}, Bytes(1), Bytes(0), Span::max(), 0});

  const auto read = decode_series(encode_series(samples));

  ASSERT_TRUE(read);
  EXPECT_EQ(*read, samples);
}

TEST(ASeriesAsBytes, HasFewerThan10KiBIn512Points) {
  std::vector<Sample> samples;
  for (int i = 0; i < 512; ++i) {
    Sample next = sample(i, static_cast<std::uint64_t>(i * 7919 % 100'000));
    next.at += Span(i * 37 % 1000);
    next.cpu += Span(i * 7919 % 900'000);
    samples.push_back(next);
  }

  EXPECT_LT(encode_series(samples).size(), 10U << 10U);
}

TEST(ASeriesAsBytes, MayBeEmpty) { EXPECT_THAT(decode_series(encode_series({})).value(), IsEmpty()); }

TEST(ASeriesAsBytes, HoldsNoLimitAndNoTimeBefore1970) {
  const auto read =
      decode_series(encode_series({{WallTime(Span(-5)), Bytes::infinite(), Bytes::infinite(), kForever, 1}}));

  ASSERT_THAT(read.value(), SizeIs(1));
  EXPECT_EQ(read->front().at, WallTime{});
  EXPECT_EQ(read->front().memory, Bytes(std::numeric_limits<std::int64_t>::max()));
}

TEST(DecodingASeries, RefusesEveryPieceOfOne) {
  const std::string bytes = encode_series({sample(0), sample(1, 300), sample(2)});

  for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decode_series(bytes.substr(0, size))) << size;
  EXPECT_FALSE(decode_series(bytes + '\0'));
  EXPECT_TRUE(decode_series(bytes));
}

TEST(DecodingASeries, RefusesWhatNoSeriesCanHold) {
  using namespace std::string_literals;
  EXPECT_FALSE(decode_series("\x02\x00"s));                                      // A form to come.
  EXPECT_FALSE(decode_series("\x01\x80\x00"s));                                  // 0, written at length.
  EXPECT_FALSE(decode_series("\x01\x81\x20"s));                                  // 4097 samples.
  EXPECT_FALSE(decode_series("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"s));  // More than 64 bits.
  EXPECT_FALSE(decode_series("\x01\x01\x01\x00\x00\x00\x00"s));                  // A time before 1970.
  EXPECT_FALSE(decode_series("\x01\x01\x00\x00\x00\x00\x80\x80\x80\x80\x20"s));  // 2^32 processes.
}

}  // namespace
}  // namespace aw::supervise
