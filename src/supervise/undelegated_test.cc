// SPDX-License-Identifier: Apache-2.0
//
// A host that lets a user's watchdog enforce less than was asked for.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::World;

Machine without(std::vector<std::string> controllers) {
  Machine machine{kGiB + kGiB + kGiB + kGiB, 2};
  machine.undelegated = std::move(controllers);
  return machine;
}

Limits all_of_them() {
  Limits limits;
  limits.tasks_max = 100;
  limits.cpu_quota_per_second = std::chrono::seconds{1};
  limits.cpu_weight = 50;
  return limits;
}

std::optional<std::string> missing_of(const EventRecord& event) {
  for (const auto& [name, value] : event.details) {
    if (name == "limits_not_in_force") return std::get<std::string>(value);
  }
  return std::nullopt;
}

TEST(LimitsThatAreNotDelegated, AreToldWithTheRegistrationAndTheRun) {
  World world({}, without({"pids", "cpu"}));
  world.register_run("job", world.spawn(world.user_shell), all_of_them());

  const auto registered = world.records("job", EventKind::kRegistered);

  ASSERT_EQ(registered.size(), 1U);
  EXPECT_EQ(missing_of(registered.front()), "TasksMax, CPUQuotaPerSecUSec, CPUWeight");
  EXPECT_THAT(world.supervisor.read_usage(*world.supervisor.find(World::id("job"))).not_in_force,
              ElementsAre("TasksMax", "CPUQuotaPerSecUSec", "CPUWeight"));
}

TEST(LimitsThatAreNotDelegated, AreNoMatterWhereNoneWasAskedFor) {
  World world({}, without({"pids", "cpu"}));
  world.register_run("job", world.spawn(world.user_shell));

  EXPECT_EQ(missing_of(world.records("job", EventKind::kRegistered).at(0)), std::nullopt);
  EXPECT_THAT(world.supervisor.read_usage(*world.supervisor.find(World::id("job"))).not_in_force, IsEmpty());
}

TEST(LimitsThatAreNotDelegated, AreToldWithAChangeThatAsksForThem) {
  World world({}, without({"pids"}));
  world.register_run("job", world.spawn(world.user_shell));

  const auto reply = std::make_shared<std::optional<Result<void>>>();
  world.supervisor.request_set_limits(World::id("job"), all_of_them(), world.caller(), world.now(), World::keep(reply));
  world.deliver();

  ASSERT_TRUE(*reply && (*reply)->has_value());
  EXPECT_EQ(missing_of(world.records("job", EventKind::kLimitsChanged).at(0)), "TasksMax");
}

TEST(LimitsThatAreNotDelegated, AreNoneOnTheHostsOwnWatchdog) {
  World world;
  world.register_run("job", world.spawn(world.user_shell), all_of_them());

  EXPECT_EQ(missing_of(world.records("job", EventKind::kRegistered).at(0)), std::nullopt);
}

}  // namespace
}  // namespace aw::supervise
