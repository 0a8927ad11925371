// SPDX-License-Identifier: Apache-2.0
#include "supervise/orphan_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

namespace aw::supervise {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// A process that started at ten times its pid, unless it is said otherwise.
ProcessStat process(pid_t pid, pid_t parent, std::uint64_t start_time = 0) {
  ProcessStat stat;
  stat.pid = pid;
  stat.parent = parent;
  stat.process_group = 900'000;
  stat.session = 900'000;
  stat.state = 'S';
  stat.start_time = start_time == 0 ? static_cast<std::uint64_t>(pid) * 10 : start_time;
  return stat;
}
ProcessStat in_group(ProcessStat stat, pid_t group) {
  stat.process_group = group;
  return stat;
}
ProcessStat in_session(ProcessStat stat, pid_t session) {
  stat.session = session;
  return stat;
}

using Processes = std::vector<ProcessStat>;
using Keys = std::vector<ProcessKey>;

std::vector<pid_t> pids(const Keys& keys) {
  std::vector<pid_t> result;
  for (const ProcessKey& key : keys) result.push_back(key.pid);
  return result;
}
ProcessKey key(pid_t pid) { return {pid, static_cast<std::uint64_t>(pid) * 10}; }

constexpr pid_t kShell = 50;    // the leader's parent, outside
constexpr pid_t kLeader = 100;  // the root of most runs here

TEST(TheOrphanRule, FindsNobodyInAnEmptyRun) { EXPECT_THAT(find_orphans({}, Keys{key(kLeader)}), IsEmpty()); }

TEST(TheOrphanRule, RootsTheLeaderWhateverItsParent) {
  for (const pid_t parent : {pid_t{0}, pid_t{1}, kShell}) {
    EXPECT_THAT(find_orphans(Processes{process(kLeader, parent)}, Keys{key(kLeader)}), IsEmpty());
  }
}

TEST(TheOrphanRule, RootsWhoeverDescendsFromTheLeader) {
  const Processes members{process(kLeader, kShell), process(101, kLeader), process(102, 101), process(103, 102)};

  EXPECT_THAT(find_orphans(members, Keys{key(kLeader)}), IsEmpty());
}

TEST(TheOrphanRule, FindsADoubleForkedGrandchildWhoseParentIsInit) {
  const Processes members{process(kLeader, kShell), process(101, kLeader), process(103, 1)};

  EXPECT_THAT(find_orphans(members, Keys{key(kLeader)}), ElementsAre(key(103)));
}

TEST(TheOrphanRule, ListsTheTopmostOrphanOnly) {
  const Processes members{process(kLeader, kShell), process(103, 1), process(104, 103), process(105, 104)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(103));
}

TEST(TheOrphanRule, RootsWhatASubreaperInsideTheRunTookIn) {
  const Processes members{process(kLeader, kShell), process(101, kLeader), process(105, 101), process(106, kLeader)};

  EXPECT_THAT(find_orphans(members, Keys{key(kLeader)}), IsEmpty());
}

TEST(TheOrphanRule, FindsWhatASubreaperOutsideTheRunTookIn) {
  // A user manager, tmux, or the launcher: the leader's own parent, and not pid 1.
  const Processes members{process(kLeader, kShell), process(101, kLeader), process(105, kShell)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(105));
}

TEST(TheOrphanRule, RootsAnAttachedProcessAndItsDescendants) {
  const Processes members{process(kLeader, kShell), process(300, 77), process(301, 300), process(302, 77)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader), key(300)})), ElementsAre(302));
}

TEST(TheOrphanRule, OrphansWhatADeadLeaderLeaves) {
  const Processes members{process(101, 1), process(102, 101), process(110, kShell)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(101, 110));
}

TEST(TheOrphanRule, RootsWhatBelongsToALivingAttachedProcessWhenTheLeaderIsDead) {
  const Processes members{process(101, 1), process(300, 77), process(301, 300)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader), key(300)})), ElementsAre(101));
}

TEST(TheOrphanRule, FindsAChildOfAnotherRunsProcess) {
  // 500 lives, but in another run: not inside is not inside.
  const Processes members{process(kLeader, kShell), process(501, 500)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(501));
}

TEST(TheOrphanRule, ListsAnAttachedRootBelowAnOrphanNowhere) {
  const Processes members{process(kLeader, kShell), process(103, 1), process(300, 103), process(301, 300)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader), key(300)})), ElementsAre(103));
}

TEST(TheOrphanRule, DoesNotTakeALaterProcessForTheLeaderWhosePidItHas) {
  const Processes members{process(kLeader, 1, 99'999)};

  EXPECT_THAT(find_orphans(members, Keys{key(kLeader)}), ElementsAre(ProcessKey{kLeader, 99'999}));
}

TEST(TheOrphanRule, DoesNotTakeALaterProcessForTheParent) {
  // 101 was the parent of 102 and died; its pid went to a new child of the leader.
  const Processes members{process(kLeader, kShell), process(101, kLeader, 5000), process(102, 101, 1020)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(102));
}

TEST(TheOrphanRule, TakesAParentOfTheSameClockTick) {
  const Processes members{process(kLeader, kShell, 1000), process(101, kLeader, 1000), process(90, 101, 1000)};

  EXPECT_THAT(find_orphans(members, Keys{{kLeader, 1000}}), IsEmpty());
}

TEST(TheOrphanRule, MakesNobodyAnOrphanInACycle) {
  const Processes members{process(201, 203, 7), process(202, 201, 7), process(203, 202, 7), process(204, 203, 8),
                          process(205, 205)};

  EXPECT_THAT(find_orphans(members, Keys{key(kLeader)}), IsEmpty());
}

TEST(TheOrphanRule, ListsAProcessOnceThatTheKernelListedTwice) {
  const Processes members{process(103, 1), process(kLeader, kShell), process(103, 1), process(kLeader, kShell)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(103));
}

TEST(TheOrphanRule, AnswersInTheOrderOfPids) {
  const Processes members{process(109, 1), process(kLeader, kShell), process(103, 1), process(107, 1)};

  EXPECT_THAT(pids(find_orphans(members, Keys{key(kLeader)})), ElementsAre(103, 107, 109));
}

TEST(TheOrphanRule, ListsEverybodyAtTheTopWhereThereAreNoRoots) {
  const Processes members{process(kLeader, kShell), process(101, kLeader), process(300, 77)};

  EXPECT_THAT(pids(find_orphans(members, {})), ElementsAre(kLeader, 300));
}

TEST(ASubtree, IsTheRootAndItsDescendants) {
  const Processes members{process(kLeader, kShell), process(104, 103), process(103, 1),
                          process(105, 103),        process(106, 105), process(107, kLeader)};

  EXPECT_THAT(subtree_of(103, members), ElementsAre(key(103), key(104), key(105), key(106)));
  EXPECT_THAT(pids(subtree_of(106, members)), ElementsAre(106));
}

TEST(ASubtree, IsEmptyWithoutItsRoot) {
  EXPECT_THAT(subtree_of(103, Processes{process(104, 103)}), IsEmpty());
  EXPECT_THAT(subtree_of(1, Processes{process(104, 1)}), IsEmpty());
}

TEST(ASubtree, DoesNotTakeInTheChildrenOfAnEarlierBearerOfItsPid) {
  const Processes members{process(103, 1, 5000), process(104, 103, 1040), process(105, 103, 5001)};

  EXPECT_THAT(pids(subtree_of(103, members)), ElementsAre(103, 105));
}

TEST(ASubtree, EndsInACycle) {
  const Processes members{process(201, 203, 7), process(202, 201, 7), process(203, 202, 7)};

  EXPECT_THAT(pids(subtree_of(202, members)), ElementsAre(201, 202, 203));
}

TEST(ASubtree, LeavesOutASparedProcessAndWhatIsBelowIt) {
  const Processes members{process(103, 1), process(300, 103), process(301, 300), process(104, 103)};

  EXPECT_THAT(pids(subtree_of(103, members, Keys{key(kLeader), key(300)})), ElementsAre(103, 104));
}

TEST(ATree, IsTheRootAndItsDescendantsAmongAllProcesses) {
  const Processes all{process(1, 0),     process(kShell, 1),  process(kLeader, kShell), process(101, kLeader),
                      process(102, 101), process(60, kShell), process(61, 60)};

  EXPECT_THAT(find_tree(kLeader, all, {}), ElementsAre(key(kLeader), key(101), key(102)));
}

TEST(ATree, IsEmptyWhenItsRootIsGoneAndNobodyIsKnown) {
  EXPECT_THAT(find_tree(kLeader, Processes{process(1, 0), process(kShell, 1)}, {}), IsEmpty());
}

TEST(ATree, FindsADoubleForkedProcessByTheSessionOfAMemberThatLives) {
  const Processes all{process(1, 0),         process(kLeader, kShell),
                      process(101, kLeader), in_session(process(103, 1), 101),
                      process(104, 103),     in_session(process(60, 1), 59)};

  EXPECT_THAT(pids(find_tree(kLeader, all, {})), ElementsAre(kLeader, 101, 103, 104));
}

TEST(ATree, FindsAReparentedProcessByTheGroupOfAMemberThatLives) {
  const Processes all{process(kLeader, kShell), in_group(process(103, 1), kLeader), in_group(process(60, 1), 59)};

  EXPECT_THAT(pids(find_tree(kLeader, all, {})), ElementsAre(kLeader, 103));
}

TEST(ATree, FindsTheGroupAndSessionOfAKnownMemberThatDied) {
  const Processes all{process(kLeader, kShell), in_group(process(103, 1), 101), in_session(process(105, 1), 102),
                      process(106, 105)};

  EXPECT_THAT(pids(find_tree(kLeader, all, {})), ElementsAre(kLeader));
  EXPECT_THAT(pids(find_tree(kLeader, all, Keys{key(101), key(102)})), ElementsAre(kLeader, 103, 105, 106));
}

TEST(ATree, KeepsAKnownMemberThatWasReparented) {
  const Processes all{process(kLeader, kShell), process(103, 1), process(104, 103)};

  EXPECT_THAT(pids(find_tree(kLeader, all, Keys{key(103)})), ElementsAre(kLeader, 103, 104));
}

TEST(ATree, DoesNotTakeInTheGroupThatItsRootOnlyJoined) {
  // The root is in a pipeline whose group, and in a session, that the user's shell made.
  const Processes all{in_session(in_group(process(kLeader, kShell), 99), kShell),
                      in_session(in_group(process(99, kShell), 99), kShell),
                      in_session(in_group(process(kShell, 40), kShell), kShell)};

  EXPECT_THAT(pids(find_tree(kLeader, all, {})), ElementsAre(kLeader));
}

TEST(ATree, DoesNotTakeALaterProcessForAKnownOne) {
  // 101 died; a stranger has its pid, children and a session of that number now.
  const Processes all{process(kLeader, kShell), in_session(process(101, 7, 5000), 101), process(102, 101, 5001),
                      in_session(process(103, 7, 5002), 101)};

  EXPECT_THAT(pids(find_tree(kLeader, all, Keys{key(101)})), ElementsAre(kLeader));
}

TEST(ATree, DoesNotTakeALaterProcessForAKnownRoot) {
  const Processes all{process(kLeader, 7, 5000), process(101, kLeader, 5001), in_group(process(102, 1), kLeader)};

  EXPECT_THAT(find_tree(kLeader, all, Keys{key(kLeader)}), ElementsAre(key(102)));
}

TEST(ATree, DoesNotTakeInWhatStartedBeforeItsFounder) {
  const Processes all{process(kLeader, kShell, 5000), process(101, kLeader, 1010),
                      in_group(process(102, 1, 1020), kLeader)};

  EXPECT_THAT(pids(find_tree(kLeader, all, {})), ElementsAre(kLeader));
}

TEST(ATree, EndsInACycleOfParentsAndGroups) {
  const Processes all{in_group(process(201, 203, 7), 202), in_group(process(202, 201, 7), 203),
                      in_session(process(203, 202, 7), 201)};

  EXPECT_THAT(pids(find_tree(202, all, {})), ElementsAre(201, 202, 203));
}

TEST(ATree, IsFoundAmongAHundredThousandWithoutQuadraticWork) {
  Processes all;
  for (pid_t pid = 2; pid <= 100'000; ++pid) all.push_back(in_group(process(pid, pid - 1), 2));
  const auto before = std::chrono::steady_clock::now();

  EXPECT_EQ(find_tree(2, all, {}).size(), 99'999U);
  EXPECT_EQ(subtree_of(2, all).size(), 99'999U);
  EXPECT_EQ(find_orphans(all, {}).size(), 1U);

  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::minutes{10});  // Quadratic would be hours.
}

}  // namespace
}  // namespace aw::supervise
