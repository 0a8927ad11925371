// SPDX-License-Identifier: Apache-2.0
#include "supervise/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "supervise/refusal.h"
#include "testing/world.h"

namespace aw::supervise {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using ::testing::HasSubstr;

template <class T>
std::optional<Refusal> refusal_of(const Result<T>& result) {
  if (result) return std::nullopt;
  EXPECT_EQ(&result.error().code.category(), &refusal_category());
  EXPECT_FALSE(result.error().message.empty());
  return static_cast<Refusal>(result.error().code.value());
}

Limits one_gibibyte() {
  Limits limits;
  limits.memory = kGiB;
  return limits;
}

// ---- limits ----

class AskedLimits : public ::testing::Test {
 protected:
  Result<void> check(bool administrator = false) const {
    return check_limits(limits, caps, {1000, 0, administrator}, kGiB + kGiB);
  }

  Limits limits = one_gibibyte();
  Caps caps;
};

TEST_F(AskedLimits, AreFineAsTheyComeOnAMachineThatHasAsMuch) { EXPECT_EQ(refusal_of(check()), std::nullopt); }

TEST_F(AskedLimits, MayBeNone) {
  limits.memory = Bytes::infinite();
  limits.wall_clock = limits.cpu_quota_per_second = kForever;
  limits.tasks_max = kUnlimited;

  EXPECT_EQ(refusal_of(check()), std::nullopt);
}

TEST_F(AskedLimits, AreNeverZero) {
  const auto refused = [this](auto change, const char* option) {
    limits = one_gibibyte();
    change(limits);
    EXPECT_EQ(refusal_of(check()), Refusal::kInvalidOption) << option;
    EXPECT_EQ(refusal_of(check(true)), Refusal::kInvalidOption) << option;
    EXPECT_THAT(check().error().message, HasSubstr(option));
  };

  refused([](Limits& l) { l.memory = Bytes(0); }, "MemoryLimit");
  refused([](Limits& l) { l.wall_clock = Span(0); }, "WallClockLimitUSec");
  refused([](Limits& l) { l.grace = Span(0); }, "GraceUSec");
  refused([](Limits& l) { l.tasks_max = 0; }, "TasksMax");
  refused([](Limits& l) { l.cpu_quota_per_second = Span(0); }, "CPUQuotaPerSecUSec");
  refused([](Limits& l) { l.cpu_weight = 0; }, "CPUWeight");
  refused([](Limits& l) { l.cpu_weight = 10001; }, "CPUWeight");
}

TEST_F(AskedLimits, AreNotRefusedForDefaultsThatNobodyAskedFor) {
  Limits defaults;
  defaults.memory = kGiB + kGiB + kGiB + kGiB;
  defaults.wall_clock = kForever;
  caps.memory = kGiB;
  caps.wall_clock = std::chrono::hours{1};
  caps.grace = std::chrono::seconds{1};
  caps.tasks = 5;
  for (const bool administrator : {false, true}) {
    limits = allowed_defaults(defaults, caps, {1000, 0, administrator}, kGiB + kGiB);
    EXPECT_EQ(refusal_of(check(administrator)), std::nullopt);
    EXPECT_EQ(limits.memory, administrator ? kGiB + kGiB : kGiB);
    EXPECT_EQ(limits.tasks_max, administrator ? kUnlimited : 5);
  }
  defaults.memory = caps.memory = Bytes::infinite();
  EXPECT_TRUE(allowed_defaults(defaults, caps, {1000, 0, false}, kGiB).memory.is_infinite());
}

TEST_F(AskedLimits, MayHaveAnyHeadroomAndTheWeightsOfTheKernel) {
  for (const Bytes headroom : {Bytes(0), kGiB + kGiB + kGiB, Bytes::infinite()}) {
    limits.headroom = headroom;
    EXPECT_EQ(refusal_of(check()), std::nullopt);
  }
  for (const std::uint64_t weight : {1U, 10000U}) {
    limits.cpu_weight = weight;
    EXPECT_EQ(refusal_of(check()), std::nullopt);
  }
}

TEST_F(AskedLimits, AreNotAboveTheMachineForAdministratorsEither) {
  limits.memory = kGiB + kGiB + Bytes(1);

  EXPECT_EQ(refusal_of(check(true)), Refusal::kLimitTooHigh);
  EXPECT_THAT(check().error().message, HasSubstr("infinity"));
}

TEST_F(AskedLimits, AreNotAboveTheCapsButForAdministrators) {
  caps = {kGiB, hours{1}, minutes{1}, 10};
  const auto refused = [this](auto change, const char* option) {
    limits = one_gibibyte();
    limits.wall_clock = hours{1};
    limits.grace = minutes{1};
    limits.tasks_max = 10;
    EXPECT_EQ(refusal_of(check()), std::nullopt);
    change(limits);
    EXPECT_EQ(refusal_of(check()), Refusal::kLimitTooHigh) << option;
    EXPECT_EQ(refusal_of(check(true)), std::nullopt) << option;
    EXPECT_THAT(check().error().message, HasSubstr(option));
  };

  refused([](Limits& l) { l.memory = kGiB + Bytes(1); }, "MemoryLimit");
  refused([](Limits& l) { l.memory = Bytes::infinite(); }, "MemoryLimit");
  refused([](Limits& l) { l.wall_clock = hours{1} + Span(1); }, "WallClockLimitUSec");
  refused([](Limits& l) { l.wall_clock = kForever; }, "WallClockLimitUSec");
  refused([](Limits& l) { l.grace = minutes{2}; }, "GraceUSec");
  refused([](Limits& l) { l.tasks_max = 11; }, "TasksMax");
  refused([](Limits& l) { l.tasks_max = kUnlimited; }, "TasksMax");
}

// ---- processes ----

class AskedProcess : public ::testing::Test {
 protected:
  Result<ProcessStat> check(const Caller& caller) { return check_process(world.processes, *handle, caller); }
  Result<ProcessStat> check() { return check(world.caller()); }
  Caller root(pid_t asking = 0) const { return {0, asking, true}; }

  testing::World world;
  const pid_t pid = world.spawn(world.user_shell);
  std::unique_ptr<ProcessHandle> handle = world.handle(pid);
};

TEST_F(AskedProcess, OfTheCallersOwnIsTaken) {
  EXPECT_EQ(check().value().pid, pid);
  EXPECT_EQ(refusal_of(check(root())), std::nullopt);
}

TEST_F(AskedProcess, ThatHasEndedIsNone) {
  world.process(world.user_shell).reaps = testing::Reaps::kNever;
  world.exit(pid);

  EXPECT_EQ(refusal_of(check()), Refusal::kNoSuchProcess);
  EXPECT_THAT(check().error().message, HasSubstr("zombie"));

  world.reap(pid);

  EXPECT_EQ(refusal_of(check()), Refusal::kNoSuchProcess);
}

TEST_F(AskedProcess, WhosePidIsAnothersByNowIsNone) {
  world.process(pid).stat.start_time += 100;

  EXPECT_EQ(refusal_of(check()), Refusal::kNoSuchProcess);
}

TEST_F(AskedProcess, OfAnotherUserIsRefusedToAllButAdministrators) {
  world.process(pid).uid = 2000;

  EXPECT_EQ(refusal_of(check()), Refusal::kAccessDenied);
  EXPECT_EQ(refusal_of(check({1000, 0, true})), std::nullopt);
  EXPECT_EQ(refusal_of(check(root())), std::nullopt);
}

TEST_F(AskedProcess, OfASetUidProgramIsNobodys) {
  world.process(pid).uid = static_cast<uid_t>(-1);  // More than one.

  EXPECT_EQ(refusal_of(check()), Refusal::kProtectedProcess);
  EXPECT_EQ(refusal_of(check(root())), Refusal::kProtectedProcess);
  EXPECT_THAT(check().error().message, HasSubstr("set-uid"));
}

TEST_F(AskedProcess, ThatIsAKernelThreadIsProtected) {
  world.process(pid).stat.kernel_thread = true;

  EXPECT_EQ(refusal_of(check(root())), Refusal::kProtectedProcess);
}

TEST_F(AskedProcess, ThatIsOnTheListIsProtected) {
  world.process(pid).protected_as = "the watchdog itself";

  EXPECT_EQ(refusal_of(check(root())), Refusal::kProtectedProcess);
  EXPECT_THAT(check().error().message, HasSubstr("the watchdog itself"));
}

TEST_F(AskedProcess, ThatIsAUserManagerIsProtectedFromItsUserToo) {
  world.process(pid).cgroup = "/user.slice/user-1000.slice/user@1000.service/init.scope";

  EXPECT_EQ(refusal_of(check()), Refusal::kProtectedProcess);
  EXPECT_EQ(refusal_of(check(root())), Refusal::kProtectedProcess);
}

TEST_F(AskedProcess, OfAServiceIsTheServicesOnly) {
  for (const char* service : {"/system.slice/cron.service", "/batch.slice/worker.service/sub"}) {
    world.process(pid).cgroup = service;
    world.process(pid).uid = 0;
    const pid_t colleague = world.spawn(pid);

    EXPECT_EQ(refusal_of(check(root())), Refusal::kProtectedProcess) << service;
    EXPECT_EQ(refusal_of(check(root(world.user_shell))), Refusal::kProtectedProcess) << service;
    EXPECT_EQ(refusal_of(check(root(colleague))), std::nullopt) << service;
  }
}

TEST_F(AskedProcess, OfTheCallersUidIsTheCallersInAServiceToo) {
  world.process(pid).cgroup = "/system.slice/worker.service";

  EXPECT_EQ(refusal_of(check()), std::nullopt);
}

TEST(ASystemService, IsToldByItsCgroup) {
  for (const char* path : {"/", "/init.scope", "/system.slice/cron.service", "/system.slice/a.service/below",
                           "/system.slice/system-getty.slice/getty@tty1.service", "/batch.slice/worker.service",
                           "/user.slice/user-1000.slice/user@1000.service/init.scope"}) {
    EXPECT_TRUE(is_system_service(path)) << path;
  }
  for (const char* path :
       {"/user.slice/user-1000.slice/session-1.scope", "/system.slice/docker-1.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/notebook.service",
        "/analysis.slice/analysis-x.service.slice/analysis-x.service.scope", "/machine.slice/a.scope"}) {
    EXPECT_FALSE(is_system_service(path)) << path;
  }
}

// ---- owners ----

class AnOwner : public AskedProcess {
 protected:
  std::unique_ptr<ProcessHandle> find() { return find_owner(world.processes, world.process(pid).stat); }
};

TEST_F(AnOwner, IsTheLeadersParent) {
  ASSERT_NE(find(), nullptr);
  EXPECT_EQ(find()->key().pid, world.user_shell);
}

TEST_F(AnOwner, IsNotTheSystemsManager) {
  world.process(pid).stat.parent = 1;

  EXPECT_EQ(find(), nullptr);
}

TEST_F(AnOwner, IsNotAUserManager) {
  world.process(world.user_shell).cgroup = "/user.slice/user-1000.slice/user@1000.service/init.scope";

  EXPECT_EQ(find(), nullptr);
}

TEST_F(AnOwner, IsNobodyOnceTheParentHasGone) {
  const ProcessStat before = world.process(pid).stat;
  world.exit(world.user_shell);

  EXPECT_EQ(find_owner(world.processes, before), nullptr);
}

}  // namespace
}  // namespace aw::supervise
