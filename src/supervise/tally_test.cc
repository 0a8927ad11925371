// SPDX-License-Identifier: Apache-2.0
//
// The counts of a daemon: each thing once, where it happens.
#include "supervise/tally.h"

#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::mib;
using testing::OnTerm;
using testing::World;

constexpr Span kLimit = minutes{30};

// ---- delays ----

TEST(Delays, AreCountedUpToEachBoundThatIsNoShorter) {
  Delays delays;

  delays.add(milliseconds{1});
  delays.add(milliseconds{2});
  delays.add(minutes{6});

  EXPECT_EQ(delays.up_to(0), 1U);  // A bound is part of its bucket.
  EXPECT_EQ(delays.up_to(1), 2U);
  EXPECT_EQ(delays.up_to(Delays::kBounds.size() - 1), 2U);
  EXPECT_EQ(delays.count(), 3U);
  EXPECT_EQ(delays.sum(), milliseconds{3} + minutes{6});
}

TEST(Delays, AreNeverNegative) {
  Delays delays;

  delays.add(-seconds{1});

  EXPECT_EQ(delays.up_to(0), 1U);
  EXPECT_EQ(delays.sum(), Span(0));
}

TEST(Delays, HaveBoundsThatRise) {
  EXPECT_TRUE(std::is_sorted(Delays::kBounds.begin(), Delays::kBounds.end()));
  EXPECT_EQ(Delays::kBounds.front(), milliseconds{1});
  EXPECT_EQ(Delays::kBounds.back(), minutes{5});
}

// ---- what happens ----

class ACountedRun : public testing::ARun {
 protected:
  const Tally& tally() const { return supervisor.tally(); }
  std::uint64_t ends(Reason reason) const { return tally().ends.at(static_cast<std::size_t>(reason)); }
  const Delays& to_signal(Reason reason) const { return tally().breach_to_signal.at(static_cast<std::size_t>(reason)); }
};

TEST_F(ACountedRun, IsCountedAsRegisteredAndByTheReasonOfItsEnd) {
  EXPECT_EQ(tally().events_of(EventKind::kRegistered), 2U);  // And the bystander.
  EXPECT_EQ(tally().events_of(EventKind::kEnded), 0U);

  world.exit(child);
  world.exit(leader);
  world.advance(seconds{1});

  EXPECT_EQ(tally().events_of(EventKind::kEnded), 1U);
  EXPECT_EQ(ends(Reason::kExited), 1U);
  EXPECT_EQ(to_signal(Reason::kExited).count(), 0U);
}

TEST_F(ACountedRun, IsMeasuredFromItsDeadlineToTheSignal) {
  world.signalling_takes = milliseconds{40};

  advance_to(kLimit + seconds{20});

  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_EQ(ends(Reason::kWallClock), 1U);
  EXPECT_EQ(tally().deadline_lateness.count(), 1U);
  EXPECT_GE(tally().deadline_lateness.sum(), milliseconds{40});
  EXPECT_LT(tally().deadline_lateness.sum(), milliseconds{50});
  EXPECT_EQ(to_signal(Reason::kWallClock).sum(), milliseconds{40});
}

TEST_F(ACountedRun, IsMeasuredFromItsBreachToTheSignal) {
  world.signalling_takes = milliseconds{3};

  world.use_memory("job", mib(2100));
  world.advance(seconds{20});

  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_EQ(to_signal(Reason::kMemory).count(), 1U);
  EXPECT_EQ(to_signal(Reason::kMemory).sum(), milliseconds{3});
  EXPECT_EQ(tally().deadline_lateness.count(), 0U);
}

TEST_F(ACountedRun, IsNotMeasuredForASignalThatSystemdHasSent) {
  world.systemctl_stop("job");
  world.advance(seconds{20});

  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_EQ(to_signal(Reason::kRequested).count(), 0U);
}

TEST_F(ACountedRun, CountsItsEscalation) {
  set_on_term(OnTerm::kIgnores);

  end();
  world.advance(seconds{20});

  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_EQ(tally().events_of(EventKind::kEscalated), 1U);
  EXPECT_EQ(to_signal(Reason::kRequested).count(), 1U);
}

TEST_F(ACountedRun, CountsLimitsThatArePutBackEachTimeAndNotOnlyWhereThatIsReported) {
  for (int i = 0; i < 3; ++i) {
    world.slice("job").ceiling = Bytes::infinite();
    world.tell_of_limits(world.slice("job"));
    world.advance(seconds{5});
  }

  EXPECT_EQ(world.records("job", EventKind::kLimitsRestored).size(), 1U);
  EXPECT_EQ(tally().limits_restored, 3U);
}

TEST_F(ACountedRun, CountsTheOverflowOfTheKernelsQueue) {
  supervisor.on_events_lost(world.now());
  supervisor.on_events_lost(world.now());

  EXPECT_EQ(tally().events_lost, 2U);
}

}  // namespace
}  // namespace aw::supervise
