// SPDX-License-Identifier: Apache-2.0
//
// What GetMetrics tells of the simulated world.
#include "api/metrics.h"

#include <gmock/gmock.h>

#include <set>

#include "testing/run_fixture.h"

namespace aw::api {
namespace {

using record::Metrics;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// The number of that name and label; -1 if there is none.
double number(const Metrics& metrics, const std::string& name, const bus::StringMap& labels = {}) {
  for (const auto& family : metrics.families) {
    if (family.name != name) continue;
    for (const auto& metric : family.metrics) {
      if (metric.labels == labels) return metric.value;
    }
  }
  return -1;
}

class AWatchedRun : public testing::ARun {
 protected:
  Metrics collect(const Refusals& refusals = {}) const {
    return collect_metrics(supervisor, refusals, vitals, 3, 4, "1.2");
  }
  Vitals vitals;
};

TEST_F(AWatchedRun, IsCountedByItsState) {
  EXPECT_EQ(number(collect(), "runs", {{"state", "running"}}), 2);  // And the bystander.

  set_on_term(testing::OnTerm::kIgnores);
  end();

  EXPECT_EQ(number(collect(), "runs", {{"state", "running"}}), 1);
  EXPECT_EQ(number(collect(), "runs", {{"state", "ending"}}), 1);
  EXPECT_EQ(number(collect(), "runs", {{"state", "placing"}}), 0);
}

TEST_F(AWatchedRun, IsCountedByTheReasonOfItsEndBesideReasonsThatNoneHad) {
  end();
  world.advance(std::chrono::seconds{5});

  EXPECT_EQ(number(collect(), "runs_ended", {{"reason", "requested"}}), 1);
  EXPECT_EQ(number(collect(), "runs_ended", {{"reason", "wall-clock"}}), 0);
  EXPECT_EQ(number(collect(), "registrations"), 2);
  EXPECT_EQ(number(collect(), "endings"), 1);
}

TEST_F(AWatchedRun, IsInTheHistogramOfItsReason) {
  world.signalling_takes = std::chrono::milliseconds{3};

  end();

  const auto metrics = collect();
  ASSERT_THAT(metrics.histograms, SizeIs(2));
  for (const auto& histogram : metrics.histograms.front().histograms) {
    const bool asked = histogram.labels.at("reason") == "requested";
    EXPECT_EQ(histogram.count, asked ? 1U : 0U);
    if (!asked) continue;
    EXPECT_DOUBLE_EQ(histogram.sum, 0.003);
    EXPECT_EQ(histogram.buckets.at(1), std::make_pair(0.0025, std::uint64_t{0}));
    EXPECT_EQ(histogram.buckets.at(2), std::make_pair(0.005, std::uint64_t{1}));
    EXPECT_EQ(histogram.buckets.back(), std::make_pair(300.0, std::uint64_t{1}));
  }
}

TEST_F(AWatchedRun, ThatSurvivesKillIsCountedWithItsProcesses) {
  for (const pid_t pid : {leader, child}) world.process(pid).sleeps_uninterruptibly = true;

  end();
  world.advance(std::chrono::minutes{1});

  EXPECT_EQ(number(collect(), "unkillable_processes"), 2);
  EXPECT_EQ(number(collect(), "unkillable_runs"), 1);
  EXPECT_EQ(number(collect(), "runs", {{"state", "unkillable"}}), 1);
}

TEST_F(AWatchedRun, NamesNobody) {
  set_on_term(testing::OnTerm::kIgnores);
  end();

  const std::set<std::string> known{"state", "reason", "error", "version"};
  for (const auto& family : collect({{"InvalidId", 1}}).families) {
    for (const auto& metric : family.metrics) {
      for (const auto& [label, value] : metric.labels) {
        EXPECT_TRUE(known.contains(label)) << family.name << " " << label;
        EXPECT_EQ(value.find("job"), std::string::npos) << family.name;
      }
    }
  }
}

TEST_F(AWatchedRun, HasEachFamilyOnceWithAHelpOfOneLine) {
  vitals.unshipped_by_shipper = 1;
  std::set<std::string> names;

  for (const auto& family : collect().families) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_FALSE(family.help.empty()) << family.name;
    EXPECT_EQ(family.help.find('\n'), std::string::npos) << family.name;
  }

  EXPECT_GT(names.size(), 25U);
}

TEST_F(AWatchedRun, HasOfTheDaemonWhatTheDaemonKnows) {
  vitals.ledger_queued = 7;
  vitals.ledger_lost = 8;
  vitals.ledger_healthy = false;
  vitals.journal_queued = 9;
  vitals.unshipped = 10;
  vitals.polled = 11;
  vitals.usage = {std::chrono::milliseconds{1500}, Bytes(4096), 12, 13};
  vitals.started = WallTime(std::chrono::seconds{1'700'000'000});

  const auto metrics = collect({{"InvalidId", 14}});

  EXPECT_EQ(number(metrics, "ledger_queued_entries"), 7);
  EXPECT_EQ(number(metrics, "ledger_lost_entries"), 8);
  EXPECT_EQ(number(metrics, "ledger_healthy"), 0);
  EXPECT_EQ(number(metrics, "journal_queued_records"), 9);
  EXPECT_EQ(number(metrics, "unshipped_events"), 10);
  EXPECT_EQ(number(metrics, "shipper_backlog_events"), -1);  // There is no PostgreSQL to lack anything.
  EXPECT_EQ(number(metrics, "polled_runs"), 11);
  EXPECT_EQ(number(metrics, "daemon_cpu_seconds"), 1.5);
  EXPECT_EQ(number(metrics, "daemon_resident_memory_bytes"), 4096);
  EXPECT_EQ(number(metrics, "daemon_open_fds"), 12);
  EXPECT_EQ(number(metrics, "daemon_max_fds"), 13);
  EXPECT_EQ(number(metrics, "daemon_start_time_seconds"), 1'700'000'000);
  EXPECT_EQ(number(metrics, "refusals", {{"error", "InvalidId"}}), 14);
  EXPECT_EQ(number(metrics, "refusals", {{"error", "AccessDenied"}}), 0);
  EXPECT_EQ(number(metrics, "kills_last_24h"), 3);
  EXPECT_EQ(number(metrics, "calls_waiting"), 4);
  EXPECT_EQ(number(metrics, "build_info", {{"version", "1.2"}}), 1);
}

}  // namespace
}  // namespace aw::api
