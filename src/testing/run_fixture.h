// SPDX-License-Identifier: Apache-2.0
//
// Subjects for the tests of the supervisor: a world with a worker, the run "job" that it started, and the run
// "bystander", which nothing that happens to the first may touch.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "supervise/refusal.h"
#include "testing/world.h"

namespace aw::testing {

using supervise::Limits;
using supervise::Refusal;
using supervise::RunKey;
using supervise::Supervisor;

constexpr Bytes mib(std::uint64_t count) { return Bytes(count * kMiB.count()); }

/// Why a request was refused; nothing if it was not, or is not answered yet.
template <class T>
std::optional<Refusal> refusal_of(const std::optional<Result<T>>& answer) {
  if (!answer || *answer) return std::nullopt;
  EXPECT_EQ(&answer->error().code.category(), &supervise::refusal_category()) << answer->error().message;
  return static_cast<Refusal>(answer->error().code.value());
}

/// A leader that its owner has started, with one child.
class AWorld : public ::testing::Test {
 protected:
  explicit AWorld(supervise::Policy policy = {}) : world(policy) {}

  /// The reason of the run's one end; none while it has none. Two ends are a failure of any test.
  std::optional<Reason> end_of(const std::string& id = "job") const {
    const auto ends = world.records(id, EventKind::kEnded);
    EXPECT_LE(ends.size(), 1) << id << " has ended more than once";
    return ends.empty() ? std::nullopt : ends.front().reason;
  }
  supervise::EventRecord end_record() const { return world.records("job", EventKind::kEnded).at(0); }
  std::string scope_path(const std::string& scope = World::scope_name("job")) const {
    return "/analysis.slice/" + World::slice_name("job") + "/" + scope;
  }
  const supervise::Run* find(const std::string& id = "job") const { return world.supervisor.find(World::id(id)); }
  void expect_left_alone(pid_t pid) {
    EXPECT_TRUE(world.alive(pid)) << pid;
    EXPECT_THAT(world.signals_to(pid), ::testing::IsEmpty()) << pid;
  }

  /// The process ends, and its pid goes to root's next job.
  void replace_by_roots(pid_t pid) {
    world.replace(pid, cron);
    EXPECT_EQ(world.process(pid).uid, 0);
  }
  void expect_with_cron(pid_t pid) {
    expect_left_alone(pid);
    EXPECT_EQ(world.process(pid).cgroup, kCron);
  }

  static constexpr char kCron[] = "/system.slice/cron.service";
  World world;
  Supervisor& supervisor = world.supervisor;
  const pid_t cron = [this] {
    const pid_t pid = world.spawn(World::kInit, "cron");
    world.process(pid).cgroup = kCron;
    return pid;
  }();
  const pid_t owner = world.spawn(world.user_shell, "worker");
  const pid_t leader = world.spawn(owner, "analysis");
  const pid_t child = world.spawn(leader, "python");
};

/// The run "job" beside the run "bystander", which has no limits and no owner to lose.
class ARun : public AWorld {
 protected:
  explicit ARun(const Limits& wanted = {}, supervise::Policy policy = {}) : AWorld(policy) {
    Limits none;
    none.wall_clock = kForever;
    none.memory = Bytes::infinite();
    world.register_run("bystander", bystander, none);
    key = world.register_run("job", leader, wanted);
    registered_at = world.now().monotonic;
    world.advance(Span(1));
  }
  void TearDown() override {
    expect_left_alone(bystander);
    expect_left_alone(bystanders_child);
    expect_left_alone(world.user_shell);
    EXPECT_THAT(world.signals_to(owner), ::testing::IsEmpty());
    EXPECT_EQ(end_of("bystander"), std::nullopt);
  }

  void advance_to(Span since_registered) { world.advance(registered_at + since_registered - world.now().monotonic); }
  void set_on_term(OnTerm on_term, Span cleanup = Span(0)) {
    for (const pid_t pid : {leader, child}) {
      world.process(pid).on_term = on_term;
      world.process(pid).cleanup = cleanup;
    }
  }
  void end() {
    ASSERT_TRUE(supervisor.end(World::id("job"), world.caller(), world.now()));
    world.deliver();
  }

  const pid_t bystander = world.spawn(world.user_shell, "bystander");
  const pid_t bystanders_child = world.spawn(bystander);
  RunKey key = 0;
  Instant registered_at;
};

/// A TERM that a stopped process can act on, once.
inline auto ToldToEnd() { return ::testing::ElementsAre(SIGTERM, SIGCONT); }
inline auto ToldNothing() { return ::testing::IsEmpty(); }

}  // namespace aw::testing
