// SPDX-License-Identifier: Apache-2.0
//
// The heart in random histories, and in those that once found something.
#include <gtest/gtest.h>

#include <fstream>

#include "simulation/campaign.h"
#include "simulation/churn.h"

namespace aw::simulation {
namespace {

/// Each shard takes a second or two, and under a sanitizer forty times that: there a small one has to do. `./dev test`
/// plays some thousands with the release build, a nightly run more (docs/hacking.md).
#ifdef AW_SANITIZED
constexpr std::uint64_t kShard = 100;
constexpr std::uint64_t kShards = 1;
#else
constexpr std::uint64_t kShard = 250;
constexpr std::uint64_t kShards = 8;
#endif

class SomeHistories : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(SomeHistories, EndEachRunOnceForAReasonAndTouchNobodyElse) {
  const Outcome outcome = run({.first_seed = GetParam(), .histories = kShard});

  for (const Violation& violation : outcome.violations) ADD_FAILURE() << describe(violation);
  // Not for want of anything to go wrong.
  EXPECT_GT(outcome.tally.registered, kShard);
  EXPECT_GT(outcome.tally.crash_count(), kShard);
  EXPECT_GT(outcome.tally.reboots, 0);
  for (const Reason reason : {Reason::kExited, Reason::kWallClock, Reason::kMemory, Reason::kOom, Reason::kOrphaned,
                              Reason::kExternal, Reason::kRequested, Reason::kLost}) {
    EXPECT_GT(outcome.tally.ends.at(static_cast<std::size_t>(reason)), 0) << to_string(reason);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SomeHistories, ::testing::Range<std::uint64_t>(1, kShards* kShard, kShard));

TEST(KnownHistories, DoNotFindAgainWhatTheyOnceFound) {
  std::ifstream file(AW_SOURCE_DIR "/src/simulation/found.txt");
  ASSERT_TRUE(file);
  unsigned played = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.front() == '#') continue;
    const std::uint64_t seed = std::stoull(line);
    const auto violation = History(seed).play();
    EXPECT_FALSE(violation) << describe(*violation) << "\n  it once found: " << line;
    ++played;
  }
  EXPECT_GT(played, 0);
}

TEST(AHistory, IsTheSameEachTime) {
  const auto told = [](std::uint64_t seed) {
    std::string text;
    Options options;
    options.tell = [&text](const std::string& line) { text += line + "\n"; };
    (void)History(seed, std::move(options)).play();
    return text;
  };

  EXPECT_EQ(told(7), told(7));
  EXPECT_NE(told(7), told(8));
}

#ifndef AW_SANITIZED  // The heap is a sanitizer's own there, and has no figures.
TEST(Churn, LeavesNothingBehindInTheHeap) {
  const Churned result = churn(kLeastChurn);

  EXPECT_GT(result.runs, 20000);
  EXPECT_TRUE(result.is_flat()) << result.second_third << " bytes in the second third, " << result.last_third
                                << " in the last";
}
#endif

}  // namespace
}  // namespace aw::simulation
