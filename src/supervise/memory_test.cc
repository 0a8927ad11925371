// SPDX-License-Identifier: Apache-2.0
#include "supervise/memory.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "cgroup/parse.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Bytes mib(std::uint64_t count) { return Bytes(count * kMiB.count()); }

struct Recorded {
  const char* file;
  Bytes limit;
  MemoryVerdict verdict;
  Bytes at_least;  ///< what of it can't be reclaimed, roughly
  Bytes at_most;
};

void PrintTo(const Recorded& recorded, std::ostream* out) { *out << recorded.file; }

MemoryStat read_recorded(const std::string& name) {
  const std::ifstream file(std::string(AW_SOURCE_DIR "/src/supervise/recorded/") + name);
  EXPECT_TRUE(file) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return cgroup::parse_memory_stat(text.str()).value();
}

class ARecordedTree : public testing::TestWithParam<Recorded> {};

TEST_P(ARecordedTree, IsJudgedByWhatTheKernelCannotTakeBack) {
  const MemoryStat stat = read_recorded(GetParam().file);
  const Bytes slack = batching_slack(2, Bytes(4096));

  EXPECT_GE(stat.unreclaimable(), GetParam().at_least);
  EXPECT_LE(stat.unreclaimable(), GetParam().at_most);
  EXPECT_EQ(judge_memory(stat.unreclaimable(), Bytes(0), GetParam().limit, slack), GetParam().verdict);
}

constexpr auto kInnocent = MemoryVerdict::kInnocent;
constexpr auto kBreach = MemoryVerdict::kBreach;

INSTANTIATE_TEST_SUITE_P(Recordings, ARecordedTree,
                         testing::Values(Recorded{"6.1-page-cache-reader.stat", mib(64), kInnocent, mib(1), mib(2)},
                                         Recorded{"6.12-page-cache-reader.stat", mib(64), kInnocent, mib(1), mib(2)},
                                         Recorded{"6.1-page-cache-writer.stat", mib(64), kInnocent, mib(1), mib(2)},
                                         Recorded{"6.12-page-cache-writer.stat", mib(64), kInnocent, mib(1), mib(2)},
                                         Recorded{"6.1-anon-and-cache.stat", mib(64), kInnocent, mib(50), mib(52)},
                                         Recorded{"6.12-anon-and-cache.stat", mib(64), kInnocent, mib(50), mib(52)},
                                         Recorded{"6.1-shm.stat", mib(64), kBreach, mib(63), mib(66)},
                                         Recorded{"6.12-shm.stat", mib(64), kBreach, mib(63), mib(66)},
                                         Recorded{"6.1-slab-heavy.stat", mib(32), kInnocent, mib(0), mib(1)},
                                         Recorded{"6.12-slab-heavy.stat", mib(32), kInnocent, mib(0), mib(1)},
                                         Recorded{"6.1-leak.stat", mib(128), kBreach, mib(129), mib(131)},
                                         Recorded{"6.12-leak.stat", mib(128), kBreach, mib(129), mib(131)}));

TEST(TheUnreclaimable, IsTheSumOfItsPartsLessReclaimableSlab) {
  MemoryStat stat;
  stat.anon = Bytes(1'000'000);
  stat.file = Bytes(999'000'000);
  stat.shmem = Bytes(200'000);
  stat.kernel = Bytes(30'000);
  stat.slab_reclaimable = Bytes(10'000);
  stat.sock = Bytes(4'000);

  EXPECT_EQ(stat.unreclaimable(), Bytes(1'224'000));
}

TEST(TheUnreclaimable, DoesNotSubtractMoreSlabThanThereIsKernelMemory) {
  MemoryStat stat;
  stat.anon = Bytes(100);
  stat.kernel = Bytes(5);
  stat.slab_reclaimable = Bytes(7);

  EXPECT_EQ(stat.unreclaimable(), Bytes(100));
}

TEST(TheUnreclaimable, DoesNotWrap) {
  MemoryStat stat;
  stat.anon = Bytes(UINT64_MAX - 1);
  stat.sock = Bytes(100);

  EXPECT_TRUE(stat.unreclaimable().is_infinite());
}

TEST(TheSlack, Is64PagesPerCpuButAtLeastTwoMebibytes) {
  EXPECT_EQ(batching_slack(1, Bytes(4096)), mib(2));
  EXPECT_EQ(batching_slack(8, Bytes(4096)), mib(2));
  EXPECT_EQ(batching_slack(9, Bytes(4096)), Bytes(9U * 64 * 4096));
  EXPECT_EQ(batching_slack(4, Bytes(65536)), mib(16));
  EXPECT_EQ(batching_slack(1024, Bytes(65536)), mib(4096));
}

TEST(TheMemoryVerdict, IsABreachAboveTheLimitLessTheSlackAndNotAtIt) {
  EXPECT_EQ(judge_memory(mib(62), Bytes(0), mib(64), mib(2)), kInnocent);
  EXPECT_EQ(judge_memory(mib(62) + Bytes(1), Bytes(0), mib(64), mib(2)), kBreach);
}

TEST(TheMemoryVerdict, CountsWhatWasChargedElsewhere) {
  EXPECT_EQ(judge_memory(mib(40), mib(22), mib(64), mib(2)), kInnocent);
  EXPECT_EQ(judge_memory(mib(40), mib(23), mib(64), mib(2)), kBreach);
}

TEST(TheMemoryVerdict, KnowsNoBreachWithoutALimit) {
  EXPECT_EQ(judge_memory(Bytes::infinite(), Bytes::infinite(), Bytes::infinite(), mib(2)), kInnocent);
}

TEST(TheMemoryVerdict, DoesNotWrapWhereTheSumsAreHuge) {
  EXPECT_EQ(judge_memory(Bytes(UINT64_MAX - 1), mib(1), mib(64), mib(2)), kBreach);
}

TEST(TheMemoryVerdict, LeavesSevenEighthsOfASmallLimitHoweverManyCpusThereAre) {
  const Bytes slack = batching_slack(256, Bytes(4096));
  ASSERT_EQ(slack, mib(64));

  EXPECT_EQ(judge_memory(mib(56), Bytes(0), mib(64), slack), kInnocent);
  EXPECT_EQ(judge_memory(mib(57), Bytes(0), mib(64), slack), kBreach);
  EXPECT_EQ(judge_memory(Bytes(4096), Bytes(0), mib(1), slack), kInnocent);
}

/// A tree looked at once a second, of which each test says how long it stalled and how much it refaulted.
class AWatchedTree : public testing::Test {
 protected:
  bool look_after(Span window, Span stalled, std::uint64_t refaults) {
    now_ += window;
    full_total_ += stalled;
    stat_.workingset_refault_file += refaults;
    return detector.observe(now_, {full_total_}, stat_);
  }
  bool stalled_look() { return look_after(seconds{1}, milliseconds{900}, 50); }

  StallDetector detector{80, seconds{5}};

 private:
  Instant now_{minutes{10}};
  Span full_total_{seconds{3}};
  MemoryStat stat_;
};

TEST_F(AWatchedTree, IsStalledOnceTheWholeStallTimeWas) {
  EXPECT_FALSE(stalled_look());
  EXPECT_FALSE(detector.suspects());  // Nothing to compare with yet.
  for (int second = 1; second < 5; ++second) {
    EXPECT_FALSE(stalled_look());
    EXPECT_TRUE(detector.suspects());
  }

  EXPECT_TRUE(stalled_look());
  EXPECT_TRUE(stalled_look());
}

TEST_F(AWatchedTree, IsNotStalledAtTheShareExactly) {
  stalled_look();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(look_after(seconds{1}, milliseconds{800}, 50));
  EXPECT_FALSE(detector.suspects());

  EXPECT_TRUE(look_after(seconds{1}, milliseconds{800} + Span{1}, 1));
}

TEST_F(AWatchedTree, IsNotStalledWithoutRefaults) {
  stalled_look();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(look_after(seconds{1}, seconds{1}, 0));
  EXPECT_FALSE(detector.suspects());
}

TEST_F(AWatchedTree, IsNotStalledByRefaultsWithoutPressure) {
  stalled_look();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(look_after(seconds{1}, milliseconds{10}, 100'000));
}

TEST_F(AWatchedTree, IsStalledThoughItGotAPageNowAndThen) {
  stalled_look();
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(look_after(seconds{1}, seconds{1}, 50));
  EXPECT_TRUE(look_after(seconds{1}, milliseconds{100}, 50));  // 82 % of the five seconds.
  EXPECT_FALSE(look_after(seconds{1}, milliseconds{100}, 50));
  EXPECT_FALSE(detector.suspects());
}

TEST_F(AWatchedTree, IsNotStalledWhereItsRefaultsGrewOnlyOnceInAWhile) {
  stalled_look();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(look_after(seconds{1}, seconds{1}, i % 3 == 0 ? 50 : 0));
}

TEST_F(AWatchedTree, IsRememberedInFewLooksHoweverLongTheStallTime) {
  StallDetector patient(80, std::chrono::hours{64});
  MemoryStat stat;
  const auto look = [&](Span since_start) {
    stat.workingset_refault_file = static_cast<std::uint64_t>(since_start.count());
    return patient.observe(Instant{since_start}, {since_start}, stat);
  };
  EXPECT_FALSE(look(seconds{0}));
  for (int hour = 1; hour < 64; ++hour) {
    EXPECT_FALSE(look(std::chrono::hours{hour} - seconds{1}));  // Too early to be taken.
    EXPECT_FALSE(look(std::chrono::hours{hour}));
  }
  EXPECT_TRUE(look(std::chrono::hours{64}));
}

TEST_F(AWatchedTree, BeginsAnewWhenItLeftItsTripwire) {
  for (int i = 0; i < 5; ++i) stalled_look();
  detector.reset();
  EXPECT_FALSE(detector.suspects());

  EXPECT_FALSE(stalled_look());
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(stalled_look());
  EXPECT_TRUE(stalled_look());
}

TEST_F(AWatchedTree, IsNotLookedAtInWindowsThatAreTooShort) {
  stalled_look();
  EXPECT_FALSE(look_after(StallDetector::kMinimumWindow - Span{1}, milliseconds{899}, 50));
  EXPECT_FALSE(detector.suspects());

  EXPECT_FALSE(look_after(Span{1}, Span{1}, 0));  // The two together are a window.
  EXPECT_TRUE(detector.suspects());
}

TEST_F(AWatchedTree, IgnoresAClockThatRunsBackwards) {
  stalled_look();
  stalled_look();
  EXPECT_FALSE(look_after(-minutes{1}, Span{0}, 0));
  EXPECT_TRUE(detector.suspects());
}

TEST_F(AWatchedTree, IsJudgedByTheWholeWindowAfterAGap) {
  stalled_look();
  EXPECT_FALSE(look_after(minutes{1}, seconds{20}, 5000));
  EXPECT_TRUE(look_after(minutes{1}, seconds{55}, 5000));
}

TEST_F(AWatchedTree, IsNotStalledWhereTheCountersWentBack) {
  stalled_look();
  EXPECT_FALSE(look_after(seconds{1}, -seconds{2}, 50));
  EXPECT_FALSE(look_after(seconds{1}, seconds{1}, std::uint64_t{0} - 20));
  EXPECT_FALSE(detector.suspects());
}

TEST_F(AWatchedTree, StallsByAnonymousRefaultsToo) {
  StallDetector alone(80, seconds{1});
  MemoryStat stat;
  EXPECT_FALSE(alone.observe(Instant{seconds{1}}, {seconds{0}}, stat));
  stat.workingset_refault_anon = 1;
  EXPECT_TRUE(alone.observe(Instant{seconds{2}}, {seconds{1}}, stat));
}

TEST_F(AWatchedTree, CountsNoMoreStallThanThereWasTime) {
  StallDetector always(100, seconds{1});
  MemoryStat stat;
  EXPECT_FALSE(always.observe(Instant{seconds{1}}, {seconds{0}}, stat));
  stat.workingset_refault_file = 1;
  EXPECT_FALSE(always.observe(Instant{seconds{2}}, {kForever}, stat));
}

}  // namespace
}  // namespace aw::supervise
