// SPDX-License-Identifier: Apache-2.0
//
// A witness that sees nothing is worth nothing: in a world where one thing goes wrong on purpose, it has to say so.
#include "simulation/witness.h"

#include <gtest/gtest.h>

#include <csignal>

#include "simulation/history.h"

namespace aw::simulation {
namespace {

using supervise::EventRecord;
using testing::Sender;
using testing::Slice;
using testing::World;

/// What the witness said in the first of some histories in which it said anything; "" if it never did.
std::string first_complaint(const Options& options, std::uint64_t seeds = 500) {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    if (const auto violation = History(seed, options).play()) return violation->what;
  }
  return "";
}

void expect_complaint(const Options& options, const std::string& words) {
  const std::string complaint = first_complaint(options);
  EXPECT_NE(complaint.find(words), std::string::npos) << "it said: " << complaint;
}

void for_each_note(World& world, const std::function<void(supervise::RunNote&)>& change) {
  for (const auto& [name, slice] : world.slices()) {
    if (!slice->note) continue;
    auto note = supervise::parse_note(*slice->note);
    if (!note) continue;
    change(*note);
    slice->note = supervise::format_note(*note);
  }
}

TEST(AWitness, HasNothingToSayWhereNothingIsWrong) { EXPECT_EQ(first_complaint({}, 20), ""); }

TEST(AWitness, MissesAnEndThatIsNotRecorded) {
  Options options;
  options.tamper = [](EventRecord& record) { return record.kind != EventKind::kEnded; };
  expect_complaint(options, "has no end on record");
}

TEST(AWitness, SeesThatARunEndsTwice) {
  Options options;
  options.meddle = [](World& world) {
    for (const EventRecord& record : std::vector(world.recorder.records)) {
      if (record.kind != EventKind::kEnded) continue;
      world.recorder.records.push_back(record);
      world.recorder.records.back().event_id = "another";
    }
  };
  expect_complaint(options, "has ended more than once");
}

TEST(AWitness, SeesASignalToABystander) {
  Options options;
  options.meddle = [](World& world) { world.kill(world.user_shell, SIGCONT, Sender::kWatchdog); };
  expect_complaint(options, "which is nobody's business");
}

TEST(AWitness, SeesAKillThatNobodyAnnounced) {
  Options options;
  options.meddle = [](World& world) {
    for (const auto& [name, slice] : world.slices()) {
      const auto members = world.members(slice->path);
      if (!members.empty()) return world.kill(members.front(), SIGKILL, Sender::kWatchdog);
    }
  };
  expect_complaint(options, "without a");
}

TEST(AWitness, SeesThatANoteIsNotWritten) {
  Options options;
  options.meddle = [](World& world) { world.cgroups.forgets_notes = true; };
  expect_complaint(options, "has no note");
}

TEST(AWitness, SeesAProcessThatGoesFromOneRunToAnother) {
  Options options;
  options.meddle = [](World& world) {
    if (world.slices().size() < 2 || world.scopes().empty()) return;
    for (const auto& [name, slice] : world.slices()) {
      for (const std::string& scope : world.scopes()) {
        const auto members = world.members(scope);
        if (members.empty() || supervise::is_within(scope, slice->path)) continue;
        return world.cgroups.on_move(members.front(), slice->path + "/any.scope");
      }
    }
  };
  expect_complaint(options, "which is another run's");
}

TEST(AWitness, SeesAReasonThatIsNotTheTrueOne) {
  // Not kOrphaned: whoever has exited has lost its leader as well.
  for (const Reason reason :
       {Reason::kWallClock, Reason::kMemory, Reason::kOom, Reason::kExternal, Reason::kRequested, Reason::kLost}) {
    Options options;
    options.tamper = [reason](EventRecord& record) {
      if (record.kind == EventKind::kEnded && record.reason == Reason::kExited) record.reason = reason;
      return true;
    };
    SCOPED_TRACE(to_string(reason));
    expect_complaint(options, "is said to have ended as " + std::string(to_string(reason)));
  }
}

TEST(AWitness, SeesAnEndCalledAnExitThatWasNone) {
  Options options;
  options.tamper = [](EventRecord& record) {
    if (record.kind == EventKind::kEnded) record.reason = Reason::kExited;
    return true;
  };
  expect_complaint(options, "is said to have ended as exited");
}

TEST(AWitness, MissesTheEvidence) {
  Options options;
  options.tamper = [](EventRecord& record) {
    if (record.kind == EventKind::kEnding) record.processes.clear();
    return true;
  };
  expect_complaint(options, "without evidence on record");
}

TEST(AWitness, SeesARunThatOutlivesItsTime) {
  Options options;
  // SIGKILL does nothing here: cgroup.kill is written, and the tree lives on.
  options.meddle = [](World& world) {
    for (const auto& [name, slice] : world.slices()) {
      for (const pid_t pid : world.members(slice->path)) {
        world.process(pid).kill_pending = false;
        world.process(pid).sleeps_uninterruptibly = false;
      }
    }
    world.refuses_to_kill = true;
  };
  expect_complaint(options, "lives");
}

TEST(AWitness, SeesADeadlineThatIsFreshAfterARestart) {
  Options options;
  options.on_start = [](World& world) {
    for_each_note(world, [](supervise::RunNote& note) { note.row.deadline = add_span(note.row.deadline, Span(1)); });
  };
  expect_complaint(options, "has another deadline since the restart");
}

TEST(AWitness, SeesWhatIsLeftOver) {
  Options options;
  options.meddle = [](World& world) { world.placer.removes_nothing = true; };
  expect_complaint(options, "left over");
}

}  // namespace
}  // namespace aw::simulation
