// SPDX-License-Identifier: Apache-2.0
//
// What the live runs of one user may have, all together.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::mib;
using testing::refusal_of;
using testing::World;

Policy gibibyte_and_hundred_tasks() {
  Policy policy;
  policy.caps.memory_per_user = kGiB;
  policy.caps.tasks_per_user = 100;
  return policy;
}

Limits limits_of(Bytes memory, std::uint64_t tasks = 10) {
  Limits limits;
  limits.memory = memory;
  limits.tasks_max = tasks;
  return limits;
}

class AUsersRuns : public testing::AWorld {
 protected:
  AUsersRuns() : AWorld(gibibyte_and_hundred_tasks()) {
    world.register_run("job", leader, limits_of(mib(400)));
    world.register_run("second", world.spawn(owner), limits_of(mib(300), 50));
  }

  testing::Answer ask(const std::string& id, const Limits& limits, uid_t uid = World::kUser) {
    const pid_t pid = world.spawn(world.user_shell);
    world.process(pid).uid = uid;
    const auto answer = std::make_shared<std::optional<Result<RunKey>>>();
    supervisor.request_register({World::id(id), world.handle(pid), limits, world.caller(uid)}, world.now(),
                                [answer](Result<RunKey> key, const Now&) { *answer = std::move(key); });
    world.deliver();
    return answer;
  }
  std::optional<Result<void>> set(const std::string& id, const Limits& limits, uid_t uid = World::kUser) {
    const auto reply = std::make_shared<std::optional<Result<void>>>();
    supervisor.request_set_limits(World::id(id), limits, world.caller(uid), world.now(), World::keep(reply));
    world.deliver();
    return *reply;
  }
};

TEST_F(AUsersRuns, AreRefusedOneMoreWhoseMemoryIsNotLeft) {
  const auto refused = ask("third", limits_of(mib(325)));

  ASSERT_EQ(refusal_of(*refused), Refusal::kLimitTooHigh);
  EXPECT_THAT((*refused)->error().message,
              AllOf(HasSubstr("MemoryLimit of 325M"), HasSubstr("of the 1G"), HasSubstr("[Caps] MaxMemoryPerUser="),
                    HasSubstr("your 2 other analyses have 700M"), HasSubstr("up to 324M would be accepted now")));
  EXPECT_TRUE((*ask("third", limits_of(mib(324))))->has_value());
  const auto full = ask("fourth", limits_of(mib(1)));
  ASSERT_EQ(refusal_of(*full), Refusal::kLimitTooHigh);
  EXPECT_THAT((*full)->error().message, HasSubstr("nothing is left until one of them has ended"));
}

TEST_F(AUsersRuns, AreRefusedOneMoreWhoseTasksAreNotLeft) {
  const auto refused = ask("third", limits_of(mib(1), 41));

  ASSERT_EQ(refusal_of(*refused), Refusal::kLimitTooHigh);
  EXPECT_THAT((*refused)->error().message,
              AllOf(HasSubstr("TasksMax of 41"), HasSubstr("of the 100"), HasSubstr("[Caps] MaxTasksPerUser="),
                    HasSubstr("have 60"), HasSubstr("up to 40 would be accepted now")));
  EXPECT_TRUE((*ask("third", limits_of(mib(1), 40)))->has_value());
}

TEST_F(AUsersRuns, AreRefusedOneWithoutALimit) {
  EXPECT_EQ(refusal_of(*ask("third", limits_of(Bytes::infinite()))), Refusal::kLimitTooHigh);
  EXPECT_EQ(refusal_of(*ask("third", limits_of(mib(1), kUnlimited))), Refusal::kLimitTooHigh);
}

TEST_F(AUsersRuns, CountWhileTheyAreBeingPlaced) {
  world.placer.hold();
  const auto third = ask("third", limits_of(mib(300)));

  EXPECT_EQ(refusal_of(*ask("fourth", limits_of(mib(100)))), Refusal::kLimitTooHigh);
  EXPECT_FALSE(*third);
}

TEST_F(AUsersRuns, LeaveRoomWhenTheyHaveEnded) {
  world.exit(child);
  world.exit(leader);
  world.advance(std::chrono::seconds{1});

  EXPECT_TRUE((*ask("third", limits_of(mib(700))))->has_value());
}

TEST_F(AUsersRuns, AreNoBusinessOfAnotherUsers) {
  EXPECT_TRUE((*ask("anothers", limits_of(kGiB, 100), World::kUser + 1))->has_value());
}

TEST_F(AUsersRuns, AreNoBoundForAnAdministrator) {
  EXPECT_TRUE((*ask("roots", limits_of(Bytes::infinite(), kUnlimited), 0))->has_value());
  EXPECT_TRUE(set("job", limits_of(kGiB + kGiB), 0)->has_value());
}

TEST_F(AUsersRuns, AreGivenMoreOnlyAsFarAsThereIs) {
  const auto refused = set("job", limits_of(mib(725)));

  ASSERT_EQ(refusal_of(refused), Refusal::kLimitTooHigh);
  EXPECT_THAT(refused->error().message, AllOf(HasSubstr("your other analysis has 300M"), HasSubstr("up to 724M")));
  EXPECT_EQ(find()->limits.memory, mib(400));
  EXPECT_TRUE(set("job", limits_of(mib(724)))->has_value());
  EXPECT_EQ(refusal_of(set("job", limits_of(mib(724), 51))), Refusal::kLimitTooHigh);
  EXPECT_TRUE(set("job", limits_of(mib(724), 50))->has_value());
}

TEST_F(AUsersRuns, MayBeGivenLessAlsoWhereTheyHaveMoreThanTheCapByNow) {
  ASSERT_TRUE(set("job", limits_of(kGiB + kGiB), 0)->has_value());

  EXPECT_EQ(refusal_of(set("second", limits_of(mib(301), 50))), Refusal::kLimitTooHigh);
  EXPECT_TRUE(set("second", limits_of(mib(299), 50))->has_value());
  EXPECT_TRUE(set("job", limits_of(kGiB + mib(500)))->has_value());
}

TEST_F(AUsersRuns, CountForTheNextDaemonToo) {
  world.restart_daemon();
  world.adopt();

  EXPECT_EQ(refusal_of(*ask("third", limits_of(mib(325)))), Refusal::kLimitTooHigh);
  EXPECT_EQ(refusal_of(*ask("third", limits_of(mib(1), 41))), Refusal::kLimitTooHigh);
  EXPECT_TRUE((*ask("third", limits_of(mib(324), 40)))->has_value());
}

TEST(TheDefaults, AreNeverMoreThanAUserMayHaveAtAll) {
  const Caps caps = gibibyte_and_hundred_tasks().caps;

  const Limits allowed = allowed_defaults({}, caps, {World::kUser, 0, false}, kGiB + kGiB + kGiB);

  EXPECT_EQ(allowed.memory, kGiB);
  EXPECT_EQ(allowed.tasks_max, 100U);
  EXPECT_EQ(allowed_defaults({}, caps, {0, 0, true}, kGiB + kGiB + kGiB), Limits());
}

}  // namespace
}  // namespace aw::supervise
