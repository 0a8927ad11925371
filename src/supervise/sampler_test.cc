// SPDX-License-Identifier: Apache-2.0
#include "supervise/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace aw::supervise {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// Runs as the sampler sees them, and a clock.
class ASampler : public ::testing::Test {
 protected:
  struct Reading {
    Bytes memory = Bytes(100 * kMiB.count());
    std::uint32_t processes = 1;
    bool readable = true;
  };

  ASampler() { now.monotonic = Instant{1h}; }

  Sampler::Ports ports() {
    return {[this](RunKey run, const Now& at) -> std::optional<Sample> {
              ++reads;
              last_read = run;
              times[run].push_back(at.monotonic);
              const Reading& reading = runs[run];
              if (!reading.readable) return std::nullopt;
              return Sample{at.real, reading.memory, reading.memory, Span(0), reading.processes};
            },
            [this](RunKey run) { kept.push_back(run); },
            [this](std::optional<Instant> due) {
              ++alarms_set;
              alarm = due;
            }};
  }

  /// Lets time pass; each turn as the loop takes it.
  void advance(
      Span span, const std::function<void()>& between = [] {}) {
    const Instant end = now.monotonic + span;
    while (alarm && *alarm <= end) {
      const Span step = std::max(Span(0), *alarm - now.monotonic);
      now.monotonic += step;
      now.real += step;
      alarm.reset();
      ++turns;
      sampler.on_due(now);
      between();
    }
    now.real += end - now.monotonic;
    now.monotonic = end;
  }
  unsigned reads_in(Span span) {
    const unsigned before = reads;
    advance(span);
    return reads - before;
  }

  Now now{};
  std::map<RunKey, Reading> runs;
  std::map<RunKey, std::vector<Instant>> times;
  std::optional<Instant> alarm;
  unsigned alarms_set = 0;
  unsigned reads = 0;
  unsigned turns = 0;
  RunKey last_read = 0;
  std::vector<RunKey> kept;
  SeriesRule rule{2s, 1min, 512};
  Sampler sampler{ports(), rule};
};

TEST_F(ASampler, HasNoAlarmWithoutARun) {
  EXPECT_FALSE(alarm);

  sampler.begin(1, Sampler::Earlier::kNone, now);
  sampler.end(1);

  EXPECT_FALSE(alarm);
}

TEST_F(ASampler, LooksAtANewRunWithinAMomentAndThenEachSecond) {
  sampler.begin(1, Sampler::Earlier::kNone, now);

  EXPECT_EQ(reads_in(999ms), 1U);
  EXPECT_EQ(reads_in(9s), 9U);
}

TEST_F(ASampler, LooksHardlyEverAtARunThatRests) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(5min);

  EXPECT_EQ(reads_in(1h), 60U);
}

TEST_F(ASampler, LooksOftenAsLongAsMemoryMoves) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(5min);
  const unsigned before = reads;

  advance(10min, [this] { runs[1].memory = runs[1].memory + runs[1].memory / 50; });

  EXPECT_GT(reads - before, 240U);  // It may have taken a minute to be noticed.
  EXPECT_LE(reads - before, 300U);
}

TEST_F(ASampler, LooksOftenAsLongAsProcessesComeAndGo) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(5min);
  const unsigned before = reads;

  advance(10min, [this] { runs[1].processes ^= 3U; });

  EXPECT_GT(reads - before, 240U);
}

TEST_F(ASampler, TakesALittleUpAndDownForRest) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  unsigned i = 0;
  advance(5min, [&] { runs[1].memory = Bytes(1000 * kMiB.count() + (++i % 2) * 4 * kMiB.count()); });

  EXPECT_EQ(reads_in(10min), 10U);
}

TEST_F(ASampler, LooksSoonWhenSomethingHasHappenedToARunAtRest) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(1h);
  advance(3s);

  sampler.stir(1, now);

  EXPECT_EQ(reads_in(2s), 1U);
}

TEST_F(ASampler, LooksNoMoreOftenHoweverMuchHappens) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(1h);
  const unsigned before = reads;

  for (int i = 0; i < 6000; ++i) {  // A tripwire that is touched a hundred times a second, for a minute.
    sampler.stir(1, now);
    advance(10ms);
  }

  EXPECT_LE(reads - before, 31U);
}

TEST_F(ASampler, WakesOnceForManyRuns) {
  for (RunKey run = 1; run <= 60; ++run) {
    sampler.begin(run, Sampler::Earlier::kNone, now);
    advance(137ms);
  }
  advance(10min);
  turns = reads = 0;

  advance(10min);

  EXPECT_EQ(reads, 600U);
  EXPECT_LE(turns, 11U);
}

TEST_F(ASampler, ReadsABoundedNumberOfRunsInATurnAndIsDueAtOnceAgain) {
  for (RunKey run = 1; run <= 2000; ++run) sampler.begin(run, Sampler::Earlier::kNone, now);
  now.monotonic += 10s;

  sampler.on_due(now);

  EXPECT_EQ(reads, Sampler::kMostPerTurn);
  ASSERT_TRUE(alarm);
  EXPECT_LE(*alarm, now.monotonic);
}

TEST_F(ASampler, ServesEveryoneInTheEnd) {
  for (RunKey run = 1; run <= 2000; ++run) sampler.begin(run, Sampler::Earlier::kNone, now);

  advance(500ms);

  EXPECT_THAT(times, SizeIs(2000));
  EXPECT_EQ(reads, 2000U);
}

TEST_F(ASampler, GoesOnWhereARunCannotBeRead) {
  runs[1].readable = false;
  sampler.begin(1, Sampler::Earlier::kNone, now);
  sampler.begin(2, Sampler::Earlier::kNone, now);

  advance(1h);

  EXPECT_THAT(sampler.find(1)->samples(), IsEmpty());
  EXPECT_FALSE(sampler.find(2)->samples().empty());
  EXPECT_LE(times[1].size(), 70U);
}

TEST_F(ASampler, ForgetsARunThatHasEnded) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(1min);

  sampler.end(1);

  EXPECT_EQ(sampler.find(1), nullptr);
  EXPECT_EQ(reads_in(1h), 0U);
}

TEST_F(ASampler, KeepsWhatOthersHaveRead) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  const Sample verdict{now.real, Bytes(1), Bytes(kGiB), Span(3), 4};

  sampler.add(1, verdict);

  EXPECT_THAT(sampler.find(1)->samples(), ElementsAre(verdict));
  EXPECT_EQ(reads, 0U);
}

TEST_F(ASampler, HasWhatThereIsKeptEveryFewMinutesAndNotWithEachSample) {
  sampler.begin(1, Sampler::Earlier::kNone, now);

  advance(1h, [this] { runs[1].memory = runs[1].memory + Bytes(5 * kMiB.count()); });

  EXPECT_GE(kept.size(), 11U);
  EXPECT_LE(kept.size(), 12U);
  EXPECT_THAT(kept, Each(1U));
}

TEST_F(ASampler, GoesOnWithWhatTheDaemonBeforeItHasKept) {
  sampler.begin(1, Sampler::Earlier::kOnDisk, now);
  advance(999ms);
  EXPECT_TRUE(sampler.continues(1));
  const Sample earlier{now.real - 1h, Bytes(1), Bytes(1), Span(3), 4};

  sampler.resume(1, {earlier});

  EXPECT_FALSE(sampler.continues(1));
  EXPECT_THAT(sampler.find(1)->samples(), SizeIs(2));
  EXPECT_EQ(sampler.find(1)->samples().front(), earlier);
}

TEST_F(ASampler, TakesNoneOfAnotherRunForItsOwn) {
  sampler.begin(1, Sampler::Earlier::kNone, now);

  sampler.resume(1, {Sample{now.real - 1h, Bytes(1), Bytes(1), Span(3), 4}});
  sampler.resume(2, {Sample{}});

  EXPECT_THAT(sampler.find(1)->samples(), IsEmpty());
  EXPECT_EQ(sampler.find(2), nullptr);
}

class ASamplerThatIsOff : public ASampler {
 protected:
  ASamplerThatIsOff() { sampler.set_rule({kForever, 1min, 512}); }
};

TEST_F(ASamplerThatIsOff, SetsNoAlarmAndReadsNothing) {
  for (RunKey run = 1; run <= 100; ++run) {
    sampler.begin(run, Sampler::Earlier::kNone, now);
    sampler.stir(run, now);
    sampler.add(run, {});
  }
  sampler.on_due(now);
  advance(24h);

  EXPECT_FALSE(alarm);
  EXPECT_EQ(alarms_set, 0U);
  EXPECT_EQ(reads, 0U);
  EXPECT_EQ(sampler.find(1), nullptr);
}

TEST_F(ASampler, StopsWhenItIsSwitchedOffAndGoesOnWhenItIsOnAgain) {
  sampler.begin(1, Sampler::Earlier::kNone, now);
  advance(1min);

  sampler.set_rule({kForever, 1min, 512});
  EXPECT_FALSE(alarm);
  EXPECT_EQ(reads_in(1h), 0U);
  EXPECT_FALSE(sampler.find(1)->samples().empty());

  sampler.set_rule(rule);
  EXPECT_GE(reads_in(2min), 1U);
}

}  // namespace
}  // namespace aw::supervise
