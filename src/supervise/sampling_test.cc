// SPDX-License-Identifier: Apache-2.0
//
// The curves of runs in a whole world: what is in them, and that nothing waits for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "testing/run_fixture.h"

namespace aw::testing {
namespace {

using namespace std::chrono_literals;
using supervise::Sample;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Limits limit_of(Bytes memory) {
  Limits limits;
  limits.memory = memory;
  limits.wall_clock = kForever;
  return limits;
}

class ASampledRun : public ARun {
 protected:
  explicit ASampledRun(supervise::Policy policy = {}) : ARun(limit_of(mib(512)), policy) {}

  const std::vector<Sample>& live() const { return supervisor.sampler().find(key)->samples(); }
  /// As the ledger has it.
  const std::vector<Sample>& kept(const std::string& id = "job") const {
    const auto& all = world.recorder.series;
    const auto it =
        std::find_if(all.begin(), all.end(), [&](const auto& entry) { return entry.second.registered_as == id; });
    static const std::vector<Sample> kNone;
    return it == all.end() ? kNone : it->second.samples;
  }
  /// [Series] Interval=never
  static supervise::Policy off() {
    supervise::Policy policy;
    policy.series.interval = kForever;
    return policy;
  }
  static Bytes highest(const std::vector<Sample>& samples) {
    Bytes highest;
    for (const Sample& sample : samples) highest = std::max(highest, sample.unreclaimable);
    return highest;
  }
};

TEST_F(ASampledRun, HasTheCurveOfItsMemory) {
  for (std::uint64_t i = 1; i <= 20; ++i) {
    world.use_memory("job", mib(10 * i), mib(100));
    world.advance(2s);
  }

  ASSERT_GE(live().size(), 15U);
  EXPECT_EQ(live().back().unreclaimable, mib(200));
  EXPECT_EQ(live().back().memory, mib(300));
  EXPECT_EQ(live().back().processes, 2U);
  EXPECT_TRUE(std::is_sorted(live().begin(), live().end(),
                             [](const Sample& a, const Sample& b) { return a.unreclaimable < b.unreclaimable; }));
}

TEST_F(ASampledRun, KeepsItsCurveWhenItHasEnded) {
  world.use_memory("job", mib(100));
  world.process(leader).cpu = 5s;
  world.advance(1min);
  world.exit(child);
  world.exit(leader);
  world.advance(2s);

  ASSERT_EQ(end_of(), Reason::kExited);
  ASSERT_GE(kept().size(), 10U);
  EXPECT_EQ(highest(kept()), mib(100));
  EXPECT_EQ(kept().back().processes, 0U);
  EXPECT_TRUE(world.recorder.series.begin()->second.over);
  EXPECT_EQ(supervisor.sampler().find(key), nullptr);
}

TEST_F(ASampledRun, HasThePeakOfTheVerdictInItsCurve) {
  world.use_memory("job", mib(100));
  world.advance(1h);

  world.use_memory("job", mib(600));
  world.advance(20s);

  ASSERT_EQ(end_of(), Reason::kMemory);
  EXPECT_EQ(highest(kept()), mib(600));
}

TEST_F(ASampledRun, OfAnInstantHasAtLeastItsEnd) {
  world.exit(child);
  world.exit(leader);
  world.advance(2s);

  ASSERT_EQ(end_of(), Reason::kExited);
  EXPECT_FALSE(kept().empty());
}

TEST_F(ASampledRun, KeepsItsCurveWhenItIsLetGo) {
  world.use_memory("job", mib(100));
  world.advance(1min);

  const Reply reply = std::make_shared<std::optional<Result<void>>>();
  supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(reply));
  world.advance(5s);

  ASSERT_FALSE(world.records("job", EventKind::kUnregistered).empty());
  EXPECT_EQ(highest(kept()), mib(100));
}

TEST_F(ASampledRun, IsReadHardlyEverWhileItRests) {
  world.use_memory("job", mib(100));
  world.advance(10min);
  const unsigned before = world.slice("job").gauge_reads;

  world.advance(1h);

  EXPECT_EQ(world.slice("job").gauge_reads - before, 60U);
}

TEST_F(ASampledRun, GoesOnWithItsCurveAfterARestartOfTheDaemon) {
  world.use_memory("job", mib(100));
  world.advance(10min);
  const auto before = kept();
  ASSERT_FALSE(before.empty());
  world.use_memory("job", mib(200));

  world.restart_daemon();
  world.adopt();
  const supervise::Run* run = find();
  ASSERT_NE(run, nullptr);
  EXPECT_TRUE(supervisor.sampler().continues(run->key));
  world.advance(1min);
  supervisor.sampler().resume(run->key, world.recorder.series.at(run->run_id).samples);

  const auto& samples = supervisor.sampler().find(run->key)->samples();
  EXPECT_EQ(samples.front(), before.front());
  EXPECT_EQ(samples.back().unreclaimable, mib(200));
}

TEST_F(ASampledRun, HasBothPartsOnTheDiskEvenWhereTheFirstWasNeverRead) {
  world.use_memory("job", mib(100));
  world.advance(10min);
  const auto before = kept();

  world.restart_daemon();
  world.adopt();
  world.use_memory("job", mib(200));
  world.advance(1min);
  world.exit(child);
  world.exit(leader);
  world.advance(2s);

  ASSERT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(kept().front(), before.front());
  EXPECT_EQ(highest(kept()), mib(200));
  EXPECT_EQ(kept().back().processes, 0U);
}

TEST_F(ASampledRun, ThatEndsWhileNoDaemonWatchesKeepsWhatWasSeenOfIt) {
  world.use_memory("job", mib(100));
  world.advance(10min);
  const auto before = kept();

  world.restart_daemon();
  world.exit(child);
  world.exit(leader);
  world.adopt();
  world.advance(2s);

  ASSERT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(highest(kept()), mib(100));
  EXPECT_EQ(kept().size(), before.size() + 1);
}

TEST_F(ASampledRun, KeepsWhatIsOnTheDiskWhereADaemonThatTookNoneIsToldToTakeSamplesAgain) {
  world.use_memory("job", mib(100));
  world.advance(10min);
  const auto before = kept();
  ASSERT_FALSE(before.empty());
  world.restart_daemon();
  supervisor.set_policy(off(), world.now());
  world.adopt();
  world.advance(10min);
  ASSERT_EQ(kept(), before);

  supervisor.set_policy({}, world.now());
  world.use_memory("job", mib(200));
  world.advance(10min);

  EXPECT_GT(kept().size(), before.size());
  EXPECT_EQ(kept().front(), before.front());
  EXPECT_EQ(kept().back().unreclaimable, mib(200));
}

TEST_F(ASampledRun, CountsItsProcessesAnewWhenTasksHaveCome) {
  world.advance(1min);
  ASSERT_EQ(live().back().processes, 2U);

  world.spawn(child);
  world.advance(2min);

  EXPECT_EQ(live().back().processes, 3U);
}

class ARunThatIsNotSampled : public ASampledRun {
 protected:
  ARunThatIsNotSampled() : ASampledRun(off()) {}
};

TEST_F(ARunThatIsNotSampled, CostsNoTurnAndNoReadAndKeepsNoCurve) {
  world.use_memory("job", mib(100));
  world.advance(1h);
  EXPECT_EQ(world.slice("job").gauge_reads, 0U);
  world.use_memory("job", mib(600));
  world.advance(20s);

  ASSERT_EQ(end_of(), Reason::kMemory);
  EXPECT_FALSE(world.sampling_alarm());
  EXPECT_EQ(world.sampling_turns, 0U);
  EXPECT_THAT(world.recorder.series, IsEmpty());
}

TEST_F(ARunThatIsNotSampled, IsSampledOnceTheConfigurationSaysSo) {
  supervisor.set_policy({}, world.now());
  world.advance(1min);

  EXPECT_GE(live().size(), 10U);
}

TEST_F(ARunThatIsNotSampled, HasWhatWasSeenOfItSinceOnTheDiskOnceHoweverOftenItIsKept) {
  world.advance(10min);
  supervisor.set_policy({}, world.now());
  world.use_memory("job", mib(100));
  world.advance(1min);
  const Sample first = live().front();

  world.advance(30min);
  EXPECT_GE(world.recorder.series_kept, 3U);
  world.exit(child);
  world.exit(leader);
  world.advance(2s);

  ASSERT_EQ(end_of(), Reason::kExited);
  EXPECT_EQ(kept().front(), first);
  EXPECT_EQ(kept().back().processes, 0U);
  EXPECT_EQ(
      std::adjacent_find(kept().begin(), kept().end(), [](const Sample& a, const Sample& b) { return a.at >= b.at; }),
      kept().end());
}

/// Two thousand runs that are due, and a deadline that comes amid them.
class ManySampledRuns : public AWorld {
 protected:
  static supervise::Policy for_many() {
    supervise::Policy policy;
    policy.caps.analyses_per_user = policy.caps.analyses;
    return policy;
  }
  ManySampledRuns() : AWorld(for_many()) {}
};

TEST_F(ManySampledRuns, DoNotDelayTheEndOfOne) {
  constexpr std::size_t kRuns = 6 * supervise::Sampler::kMostPerTurn;
  Limits endless;
  endless.wall_clock = kForever;
  endless.owner_policy = supervise::OwnerPolicy::kIgnore;
  for (std::size_t i = 0; i < kRuns; ++i) {
    const pid_t pid = world.spawn(owner, "analysis");
    world.register_run("run-" + std::to_string(i), pid, endless);
  }
  Limits brief = endless;
  brief.wall_clock = 30s;
  const pid_t doomed = world.spawn(owner, "analysis");
  world.register_run("doomed", doomed, brief);
  const Instant deadline = world.now().monotonic + 30s;

  // All of them are due for a sample when the deadline is: the loop was kept from everything for ten minutes.
  unsigned reads_before_term = 0;
  bool told = false;
  const auto reads = [&] {
    unsigned all = 0;
    for (const auto& [name, slice] : world.slices()) all += slice->gauge_reads;
    return all;
  };
  const unsigned before = reads();
  world.on_signal = [&](const Sent& sent) {
    if (sent.pid != doomed || std::exchange(told, true)) return;
    reads_before_term = reads() - before;
  };
  Now late = world.now();
  late.monotonic = deadline + 10min;
  supervisor.on_sampling_due(late);  // A turn had just begun when it came.
  EXPECT_EQ(reads() - before, supervise::Sampler::kMostPerTurn);
  ASSERT_LE(world.sampling_alarm().value_or(kNever), late.monotonic);
  supervisor.on_timer(late);

  EXPECT_TRUE(told);
  EXPECT_EQ(reads_before_term, supervise::Sampler::kMostPerTurn);
}

}  // namespace
}  // namespace aw::testing
