// SPDX-License-Identifier: Apache-2.0
//
// What every story begins and ends with: the daemon is active, a bystander analysis lives before and after, untouched,
// and nothing of the story's own runs is left.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/cgroupfs.h"
#include "support/journal.h"
#include "support/process.h"
#include "support/units.h"
#include "support/watchdog.h"

namespace aw::stories {

/// The two ways of being watched: by analysis-run from the first instruction, or by registering what runs.
enum class How { kLaunched, kRegistered };
std::string to_string(How how);
void PrintTo(How how, std::ostream* out);

/// A run that a story has started.
struct Started {
  How how;
  std::string id;
  Child process;       ///< analysis-run, or the leader itself
  pid_t leader;        ///< 0 if it was over before it could be asked for
  std::string folder;  ///< its slice in cgroupfs
};

class Story : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  /// An id of this story's own, which TearDown() looks after.
  std::string new_id(const std::string& name);
  /// The same for an id that has to be a certain text.
  const std::string& own(const std::string& id);

  /// A path in a folder of this story's own, on a disk.
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  /// Starts the workload with these words under the watchdog, and returns when it is registered. `launcher` are
  /// further options of analysis-run.
  Started start(How how, const std::string& id, const Dict& options, const Words& workload, const Words& launcher = {});
  /// The same for any program.
  Started start_program(How how, const std::string& id, const Dict& options, const Words& program,
                        const Words& launcher = {});
  /// A process that nobody watches yet.
  Child spawn_workload(const Words& words) const;

  /// The record of its end. There must be exactly one, for exactly one reason, and the tree must be gone.
  Dict await_end(const Started& run);
  Dict await_end(const std::string& id);

  /// Waits until the workload has written this file.
  std::string await_file(const std::string& name, Span patience = kPatience);

  /// All processes of a run, held.
  static std::vector<Held> hold_members(const Started& run);
  bool await_all_gone(const std::vector<Held>& processes, Span patience = kPatience);

  bool await_daemon();
  /// Stories that stop or kill the daemon do without the bystander: it is not watched any more afterwards.
  void forget_bystander();

  Watchdog watchdog;

 private:
  std::string folder_;
  std::vector<std::string> ids_;
};

/// Stories that are told for both ways.
class EitherWay : public Story, public ::testing::WithParamInterface<How> {
 protected:
  Started start_it(const Dict& options, const Words& workload, const Words& launcher = {});
};

// INSTANTIATE_TEST_SUITE_P(, Suite, kBothWays, way_name);
inline const auto kBothWays = ::testing::Values(How::kLaunched, How::kRegistered);
inline std::string way_name(const ::testing::TestParamInfo<How>& way) { return to_string(way.param); }

// Options, in words.
inline std::pair<std::string, Value> memory_limit(std::uint64_t mib) { return {"MemoryLimit", {mib << 20U}}; }
inline std::pair<std::string, Value> headroom(std::uint64_t mib) { return {"MemoryHeadroom", {mib << 20U}}; }
inline std::pair<std::string, Value> wall_clock(Span span) { return {"WallClockLimitUSec", {to_usec(span)}}; }
inline std::pair<std::string, Value> grace(Span span) { return {"GraceUSec", {to_usec(span)}}; }
inline std::pair<std::string, Value> tasks(std::uint64_t count) { return {"TasksMax", {count}}; }
inline std::pair<std::string, Value> orphan_policy(const std::string& word) { return {"OrphanPolicy", {word}}; }
inline std::pair<std::string, Value> owner_policy(const std::string& word) { return {"OwnerPolicy", {word}}; }

}  // namespace aw::stories
