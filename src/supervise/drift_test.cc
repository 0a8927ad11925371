// SPDX-License-Identifier: Apache-2.0
#include "supervise/drift.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr Bytes kPage(4096);

SliceLimits some_limits() { return {Bytes(1 << 30), Bytes(1200 << 20), 100, milliseconds{500}, 50}; }

/// What the files say when nobody has touched them.
LimitsFound as_told(const SliceLimits& told) {
  return {told.tripwire,
          told.ceiling,
          Bytes(0),
          told.tasks_max,
          told.cpu_quota_per_second,
          told.cpu_weight.value_or(100),
          {{"analysis-job.scope", true}}};
}

std::vector<std::string> files_of(const std::vector<Drift>& drifts) {
  std::vector<std::string> files;
  for (const Drift& drift : drifts) files.push_back(drift.file);
  return files;
}

std::vector<std::string> drifted(const LimitsFound& found, const SliceLimits& wanted) {
  return files_of(find_drift(found, wanted, std::nullopt, kPage));
}

TEST(Drift, IsNoneWhereEverythingIsAsTold) { EXPECT_THAT(drifted(as_told(some_limits()), some_limits()), IsEmpty()); }

TEST(Drift, IsNoneWhereNothingIsLimitedAndNothingIsThere) {
  const SliceLimits none{Bytes::infinite(), Bytes::infinite()};
  EXPECT_THAT(drifted(as_told(none), none), IsEmpty());
  EXPECT_THAT(drifted({}, some_limits()), IsEmpty());  // No controller has any file.
}

TEST(Drift, IsFoundInEachFile) {
  LimitsFound found = as_told(some_limits());
  found.tripwire = found.ceiling = found.swap = Bytes::infinite();
  found.tasks_max = kUnlimited;
  found.cpu_quota_per_second = kForever;
  found.cpu_weight = 100;
  found.scopes = {{"analysis-job-2.scope", true}, {"analysis-job.scope", false}};
  const auto drifts = find_drift(found, some_limits(), std::nullopt, kPage);
  EXPECT_THAT(files_of(drifts), ElementsAre("memory.high", "memory.max", "memory.swap.max", "pids.max", "cpu.max",
                                            "cpu.weight", "analysis-job.scope/memory.oom.group"));
  EXPECT_EQ(drifts[1], (Drift{"memory.max", "", "max", "1258291200"}));
  EXPECT_EQ(drifts[2], (Drift{"memory.swap.max", "", "max", "0"}));
  EXPECT_EQ(drifts[4], (Drift{"cpu.max", "", "max", "500000"}));
  EXPECT_EQ(drifts[6].scope, "analysis-job.scope");
}

TEST(Drift, IsALowerLimitToo) {
  LimitsFound found = as_told(some_limits());
  found.ceiling = Bytes(4096);
  found.tasks_max = 1;
  EXPECT_THAT(drifted(found, some_limits()), ElementsAre("memory.max", "pids.max"));
}

TEST(Drift, IsNotTheKernelsRoundingToPages) {
  SliceLimits told = some_limits();
  told.ceiling = Bytes((1200 << 20) + 4095);
  LimitsFound found = as_told(told);
  found.ceiling = Bytes(1200 << 20);
  EXPECT_THAT(drifted(found, told), IsEmpty());
  found.ceiling = Bytes((1200 << 20) - 4096);
  EXPECT_THAT(drifted(found, told), ElementsAre("memory.max"));
}

TEST(Drift, IsNotASizeThatTheKernelTakesForNoLimit) {
  SliceLimits told = some_limits();
  told.ceiling = Bytes(std::uint64_t{1} << 63U);
  LimitsFound found = as_told(told);
  found.ceiling = Bytes::infinite();
  EXPECT_THAT(drifted(found, told), IsEmpty());
}

TEST(Drift, IsNotATaskLimitBeyondWhatTheKernelCounts) {
  SliceLimits told = some_limits();
  told.tasks_max = 5'000'000;
  LimitsFound found = as_told(told);
  found.tasks_max = kUnlimited;
  EXPECT_THAT(drifted(found, told), IsEmpty());
  told.tasks_max = 4'194'303;
  EXPECT_THAT(drifted(found, told), ElementsAre("pids.max"));
}

TEST(Drift, IsNotTheRoundingOfAQuotaToItsPeriod) {
  SliceLimits told = some_limits();
  told.cpu_quota_per_second = Span(333'333);
  LimitsFound found = as_told(told);
  found.cpu_quota_per_second = Span(333'330);
  EXPECT_THAT(drifted(found, told), IsEmpty());
  told.cpu_quota_per_second = Span(1);  // systemd gives it a millisecond, in a period of one second.
  found.cpu_quota_per_second = milliseconds{1};
  EXPECT_THAT(drifted(found, told), IsEmpty());
  found.cpu_quota_per_second = milliseconds{2};
  EXPECT_THAT(drifted(found, told), ElementsAre("cpu.max"));
}

TEST(Drift, IsNoWeightWhereNoneWasAskedFor) {
  SliceLimits told = some_limits();
  told.cpu_weight.reset();
  LimitsFound found = as_told(told);
  found.cpu_weight = 7;
  EXPECT_THAT(drifted(found, told), IsEmpty());
}

TEST(Drift, IsNotWhatWasSoBeforeSystemdHadTheNewLimits) {
  const SliceLimits before = some_limits();
  SliceLimits now = before;
  now.tripwire = Bytes(1100 << 20);
  now.tasks_max = 200;
  LimitsFound found = as_told(before);
  found.tripwire = now.tripwire;  // Written by hand; the rest through systemd.
  EXPECT_THAT(find_drift(found, now, before, kPage), IsEmpty());
  EXPECT_THAT(files_of(find_drift(found, now, std::nullopt, kPage)), ElementsAre("pids.max"));
  found.tasks_max = 300;
  EXPECT_THAT(files_of(find_drift(found, now, before, kPage)), ElementsAre("pids.max"));
}

}  // namespace
}  // namespace aw::supervise
