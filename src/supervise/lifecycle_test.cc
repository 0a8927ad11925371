// SPDX-License-Identifier: Apache-2.0
#include "supervise/lifecycle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <vector>

namespace aw::supervise {
namespace {

using ::testing::ElementsAreArray;

using P = Phase;
using H = Happening;
using A = Action;

struct Cell {
  Phase phase;
  Happening happening;
  Phase next;
  std::vector<Action> actions;
};

void PrintTo(const Cell& cell, std::ostream* out) {
  *out << "phase " << static_cast<int>(cell.phase) << ", happening " << static_cast<int>(cell.happening);
}

/// The whole machine, written a second time.
const std::vector<Cell> kTable{
    {P::kPlacing, H::kPlaced, P::kRunning, {A::kRecordRegistered, A::kWatch}},
    {P::kPlacing, H::kPlaceFailed, P::kGone, {A::kReplyPlaceFailed, A::kForget}},
    {P::kPlacing, H::kCause, P::kStopWhilePlacing, {}},
    {P::kPlacing, H::kKernelKilled, P::kPlacing, {}},
    {P::kPlacing, H::kGraceExpired, P::kPlacing, {}},
    {P::kPlacing, H::kKillExpired, P::kPlacing, {}},
    {P::kPlacing, H::kEmptied, P::kPlacing, {}},
    {P::kPlacing, H::kReleased, P::kPlacing, {}},

    {P::kStopWhilePlacing,
     H::kPlaced,
     P::kEnding,
     {A::kRecordRegistered, A::kWatch, A::kRecordEnding, A::kLiftTripwire, A::kSendTerm, A::kArmGrace}},
    {P::kStopWhilePlacing, H::kPlaceFailed, P::kGone, {A::kReplyPlaceFailed, A::kForget}},
    {P::kStopWhilePlacing, H::kCause, P::kStopWhilePlacing, {}},
    {P::kStopWhilePlacing, H::kKernelKilled, P::kStopWhilePlacing, {}},
    {P::kStopWhilePlacing, H::kGraceExpired, P::kStopWhilePlacing, {}},
    {P::kStopWhilePlacing, H::kKillExpired, P::kStopWhilePlacing, {}},
    {P::kStopWhilePlacing, H::kEmptied, P::kStopWhilePlacing, {}},
    {P::kStopWhilePlacing, H::kReleased, P::kStopWhilePlacing, {}},

    {P::kRunning, H::kPlaced, P::kRunning, {}},
    {P::kRunning, H::kPlaceFailed, P::kRunning, {}},
    {P::kRunning, H::kCause, P::kEnding, {A::kRecordEnding, A::kLiftTripwire, A::kSendTerm, A::kArmGrace}},
    {P::kRunning, H::kKernelKilled, P::kKilling, {A::kRecordEscalated, A::kWriteKill, A::kArmKillRetry}},
    {P::kRunning, H::kGraceExpired, P::kRunning, {}},
    {P::kRunning, H::kKillExpired, P::kRunning, {}},
    {P::kRunning, H::kEmptied, P::kEnded, {A::kRecordEnd, A::kForget}},
    {P::kRunning, H::kReleased, P::kGone, {A::kLetLive, A::kForget}},

    {P::kEnding, H::kPlaced, P::kEnding, {}},
    {P::kEnding, H::kPlaceFailed, P::kEnding, {}},
    {P::kEnding, H::kCause, P::kEnding, {}},
    {P::kEnding,
     H::kKernelKilled,
     P::kKilling,
     {A::kDisarmGrace, A::kRecordEscalated, A::kWriteKill, A::kArmKillRetry}},
    {P::kEnding,
     H::kGraceExpired,
     P::kKilling,
     {A::kDisarmGrace, A::kRecordEscalated, A::kWriteKill, A::kArmKillRetry}},
    {P::kEnding, H::kKillExpired, P::kEnding, {}},
    {P::kEnding, H::kEmptied, P::kEnded, {A::kDisarmGrace, A::kRecordEnd, A::kForget}},
    {P::kEnding, H::kReleased, P::kEnding, {}},

    {P::kKilling, H::kPlaced, P::kKilling, {}},
    {P::kKilling, H::kPlaceFailed, P::kKilling, {}},
    {P::kKilling, H::kCause, P::kKilling, {}},
    {P::kKilling, H::kKernelKilled, P::kKilling, {}},
    {P::kKilling, H::kGraceExpired, P::kKilling, {}},
    {P::kKilling, H::kKillExpired, P::kUnkillable, {A::kReportUnkillable, A::kWriteKill, A::kArmKillRetry}},
    {P::kKilling, H::kEmptied, P::kEnded, {A::kDisarmKillRetry, A::kRecordEnd, A::kForget}},
    {P::kKilling, H::kReleased, P::kKilling, {}},

    {P::kUnkillable, H::kPlaced, P::kUnkillable, {}},
    {P::kUnkillable, H::kPlaceFailed, P::kUnkillable, {}},
    {P::kUnkillable, H::kCause, P::kUnkillable, {}},
    {P::kUnkillable, H::kKernelKilled, P::kUnkillable, {}},
    {P::kUnkillable, H::kGraceExpired, P::kUnkillable, {}},
    {P::kUnkillable, H::kKillExpired, P::kUnkillable, {A::kWriteKill, A::kArmKillRetry}},
    {P::kUnkillable, H::kEmptied, P::kEnded, {A::kDisarmKillRetry, A::kRecordEnd, A::kForget}},
    {P::kUnkillable, H::kReleased, P::kUnkillable, {}},

    {P::kEnded, H::kPlaced, P::kEnded, {}},
    {P::kEnded, H::kPlaceFailed, P::kEnded, {}},
    {P::kEnded, H::kCause, P::kEnded, {}},
    {P::kEnded, H::kKernelKilled, P::kEnded, {}},
    {P::kEnded, H::kGraceExpired, P::kEnded, {}},
    {P::kEnded, H::kKillExpired, P::kEnded, {}},
    {P::kEnded, H::kEmptied, P::kEnded, {}},
    {P::kEnded, H::kReleased, P::kEnded, {}},

    {P::kGone, H::kPlaced, P::kGone, {}},
    {P::kGone, H::kPlaceFailed, P::kGone, {}},
    {P::kGone, H::kCause, P::kGone, {}},
    {P::kGone, H::kKernelKilled, P::kGone, {}},
    {P::kGone, H::kGraceExpired, P::kGone, {}},
    {P::kGone, H::kKillExpired, P::kGone, {}},
    {P::kGone, H::kEmptied, P::kGone, {}},
    {P::kGone, H::kReleased, P::kGone, {}},
};

class ACell : public ::testing::TestWithParam<Cell> {};

TEST_P(ACell, SaysWhatTheHappeningMeansInThePhase) {
  const Step taken = step(GetParam().phase, GetParam().happening);

  EXPECT_EQ(taken.next, GetParam().next);
  EXPECT_THAT(std::vector<Action>(taken.actions.begin(), taken.actions.end()), ElementsAreArray(GetParam().actions));
}

INSTANTIATE_TEST_SUITE_P(Table, ACell, ::testing::ValuesIn(kTable));

TEST(TheTable, HasEachPairOnce) {
  std::map<std::pair<Phase, Happening>, int> pairs;
  for (const Cell& cell : kTable) ++pairs[{cell.phase, cell.happening}];

  EXPECT_EQ(pairs.size(), kAllPhases.size() * kAllHappenings.size());
  EXPECT_EQ(kTable.size(), pairs.size());
}

// ---- every path from a registration, some steps long ----

/// What has happened on the way to a step, and the step.
struct Walk {
  std::vector<Happening> happenings;
  std::vector<Action> actions;  ///< of all steps, the last one's included
  Phase before = Phase::kPlacing;
  Phase now = Phase::kPlacing;
  std::vector<Action> last;

  auto count(Action action) const { return std::count(actions.begin(), actions.end(), action); }
  bool does(Action action) const { return std::count(last.begin(), last.end(), action) > 0; }
  /// Armed and not disarmed since; being forgotten disarms all.
  bool is_armed(Action arm, Action disarm) const {
    bool armed = false;
    for (const Action action : actions) {
      if (action == arm) armed = true;
      if (action == disarm || action == Action::kForget) armed = false;
    }
    return armed;
  }
};

class EveryPath : public ::testing::Test {
 protected:
  static constexpr std::size_t kDepth = 6;

  void each_step(const std::function<void(const Walk&)>& check) { walk({}, check); }

 private:
  void walk(const Walk& so_far, const std::function<void(const Walk&)>& check) {
    if (so_far.happenings.size() == kDepth || HasFailure()) return;
    for (const Happening happening : kAllHappenings) {
      Walk next = so_far;
      const Step taken = step(so_far.now, happening);
      next.happenings.push_back(happening);
      next.before = so_far.now;
      next.now = taken.next;
      next.last.assign(taken.actions.begin(), taken.actions.end());
      next.actions.insert(next.actions.end(), next.last.begin(), next.last.end());
      check(next);
      walk(next, check);
    }
  }
};

TEST_F(EveryPath, StaysWhereItIsOnceTheRunIsOver) {
  each_step([](const Walk& walk) {
    if (walk.before != Phase::kEnded && walk.before != Phase::kGone) return;
    EXPECT_EQ(walk.now, walk.before);
    EXPECT_TRUE(walk.last.empty());
  });
}

TEST_F(EveryPath, RecordsTheEndOnlyWhenTheCgroupHasEmptiedAndOnlyOnce) {
  each_step([](const Walk& walk) {
    EXPECT_EQ(walk.does(Action::kRecordEnd), walk.now == Phase::kEnded && walk.before != Phase::kEnded);
    EXPECT_TRUE(!walk.does(Action::kRecordEnd) || walk.happenings.back() == Happening::kEmptied);
    EXPECT_LE(walk.count(Action::kRecordEnd), 1);
  });
}

TEST_F(EveryPath, RecordsTheIntentBeforeTheAct) {
  each_step([](const Walk& walk) {
    bool intent = false;
    bool escalation = false;
    for (const Action action : walk.actions) {
      intent |= action == Action::kRecordEnding;
      escalation |= action == Action::kRecordEscalated;
      EXPECT_TRUE(intent || action != Action::kSendTerm);
      EXPECT_TRUE(escalation || action != Action::kWriteKill);
    }
  });
}

TEST_F(EveryPath, SaysOnceThatItEndsARunAndOnceThatItEscalates) {
  each_step([](const Walk& walk) {
    for (const Action once : {Action::kRecordRegistered, Action::kWatch, Action::kRecordEnding, Action::kSendTerm,
                              Action::kRecordEscalated, Action::kReportUnkillable, Action::kForget}) {
      EXPECT_LE(walk.count(once), 1) << static_cast<int>(once);
    }
  });
}

TEST_F(EveryPath, ActsOnlyOnWhatHasBeenPlaced) {
  each_step([](const Walk& walk) {
    bool placed = false;
    for (const Action action : walk.actions) {
      placed |= action == Action::kWatch;
      if (action == Action::kSendTerm || action == Action::kWriteKill || action == Action::kRecordEnd) {
        EXPECT_TRUE(placed);
      }
    }
  });
}

TEST_F(EveryPath, HasAGraceExactlyWhileEndingAndARetryExactlyWhileKilling) {
  each_step([](const Walk& walk) {
    EXPECT_EQ(walk.is_armed(Action::kArmGrace, Action::kDisarmGrace), walk.now == Phase::kEnding);
    EXPECT_EQ(walk.is_armed(Action::kArmKillRetry, Action::kDisarmKillRetry),
              walk.now == Phase::kKilling || walk.now == Phase::kUnkillable);
  });
}

TEST_F(EveryPath, ForgetsARunExactlyWhenItIsOverAndAsTheLastThing) {
  each_step([](const Walk& walk) {
    const bool over = walk.now == Phase::kEnded || walk.now == Phase::kGone;
    EXPECT_EQ(walk.count(Action::kForget) == 1, over);
    EXPECT_TRUE(!walk.does(Action::kForget) || walk.last.back() == Action::kForget);
  });
}

TEST_F(EveryPath, LetsARunLiveOnlyIfItsEndWasNotAnnounced) {
  each_step([](const Walk& walk) {
    EXPECT_TRUE(walk.count(Action::kLetLive) == 0 || walk.count(Action::kRecordEnding) == 0);
  });
}

TEST_F(EveryPath, TellsOfTheEndOfEveryRunThatItToldOf) {
  each_step([](const Walk& walk) {
    if (walk.count(Action::kRecordRegistered) == 0 || walk.count(Action::kForget) == 0) return;
    EXPECT_EQ(walk.count(Action::kRecordEnd) + walk.count(Action::kLetLive), 1);
  });
}

}  // namespace
}  // namespace aw::supervise
