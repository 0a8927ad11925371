// SPDX-License-Identifier: Apache-2.0
#include "supervise/limits.h"

#include <gtest/gtest.h>

namespace aw::supervise {
namespace {

using namespace std::chrono_literals;

constexpr Bytes mib(std::uint64_t count) { return Bytes(count * kMiB.count()); }

TEST(LimitsByDefault, AreThoseOfTheContract) {
  const Limits limits;

  EXPECT_EQ(limits.memory, mib(2048));
  EXPECT_EQ(limits.wall_clock, Span(30min));
  EXPECT_EQ(limits.grace, Span(10s));
  EXPECT_EQ(limits.tasks_max, kUnlimited);
  EXPECT_EQ(limits.cpu_quota_per_second, kForever);
  EXPECT_EQ(limits.orphan_policy, OrphanPolicy::kKill);
  EXPECT_EQ(limits.owner_policy, OwnerPolicy::kKill);
  EXPECT_EQ(limits.ceiling(), mib(2048 + 256));
}

TEST(DefaultHeadroom, IsAnEighthOfTheLimit) { EXPECT_EQ(default_headroom(mib(4096)), mib(512)); }

TEST(DefaultHeadroom, IsAtLeast64MiB) {
  EXPECT_EQ(default_headroom(mib(512)), mib(64));
  EXPECT_EQ(default_headroom(mib(511)), mib(64));
  EXPECT_EQ(default_headroom(mib(520)), mib(65));
  EXPECT_EQ(default_headroom(Bytes(1)), mib(64));
}

TEST(DefaultHeadroom, IsInfiniteWhereThereIsNoLimit) {
  EXPECT_EQ(default_headroom(Bytes::infinite()), Bytes::infinite());
}

TEST(Headroom, IsWhatWasAskedFor) {
  Limits limits;
  limits.memory = mib(1000);
  limits.headroom = mib(10);

  EXPECT_EQ(limits.effective_headroom(), mib(10));
  EXPECT_EQ(limits.ceiling(), mib(1010));
  EXPECT_EQ(limits.mercy(), mib(1005));
}

TEST(Headroom, MayBeNone) {
  Limits limits;
  limits.memory = mib(1000);
  limits.headroom = Bytes(0);

  EXPECT_EQ(limits.ceiling(), limits.memory);
  EXPECT_EQ(limits.mercy(), limits.memory);
}

TEST(NoMemoryLimit, HasNoCeiling) {
  Limits limits;
  limits.memory = Bytes::infinite();
  limits.headroom = mib(10);

  EXPECT_TRUE(limits.ceiling().is_infinite());
  EXPECT_TRUE(limits.mercy().is_infinite());
}

TEST(Policies, AreReadAsTheyAreWritten) {
  for (const OrphanPolicy policy : {OrphanPolicy::kKill, OrphanPolicy::kReport}) {
    EXPECT_EQ(parse_orphan_policy(to_string(policy)), policy);
  }
  for (const OwnerPolicy policy : {OwnerPolicy::kKill, OwnerPolicy::kIgnore}) {
    EXPECT_EQ(parse_owner_policy(to_string(policy)), policy);
  }
}

TEST(Policies, HaveTheWordsOfTheContract) {
  EXPECT_EQ(to_string(OrphanPolicy::kKill), "kill");
  EXPECT_EQ(to_string(OrphanPolicy::kReport), "report");
  EXPECT_EQ(to_string(OwnerPolicy::kKill), "kill");
  EXPECT_EQ(to_string(OwnerPolicy::kIgnore), "ignore");
}

TEST(Policies, RefuseOtherWords) {
  for (const char* text : {"", "Kill", "kill ", "KILL", "none"}) {
    EXPECT_EQ(parse_orphan_policy(text), std::nullopt) << text;
    EXPECT_EQ(parse_owner_policy(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_orphan_policy("ignore"), std::nullopt);
  EXPECT_EQ(parse_owner_policy("report"), std::nullopt);
}

}  // namespace
}  // namespace aw::supervise
