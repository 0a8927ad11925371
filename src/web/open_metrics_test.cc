// SPDX-License-Identifier: Apache-2.0
//
// The text itself. Whether Prometheus' own tools take it, and whether docs/metrics.md says the same, is looked at in
// integration-tests/metrics.
#include "web/open_metrics.h"

#include <gmock/gmock.h>

namespace aw::web {
namespace {

using record::MetricType;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

MetricsPage some_page() {
  MetricsPage page;
  page.daemon.emplace();
  page.daemon->families = {{"build_info", MetricType::kInfo, "Version", {{{{"version", "1"}}, 1}}},
                           {"cpu_seconds", MetricType::kCounter, "Time", {{{}, 1.5}}},
                           {"runs", MetricType::kGauge, "By state", {{{{"state", "running"}}, 7}}}};
  page.daemon->histograms = {{"wait_seconds", "Waiting", {{{{"why", "x"}}, {{0.001, 1}, {10, 2}}, 3, 70.25}}}};
  return page;
}

TEST(OpenMetrics, HaveTypeUnitAndHelpOfEachFamilyAndAnEnd) {
  const std::string text = to_text(some_page(), MetricsFormat::kOpenMetrics);

  EXPECT_THAT(text, StartsWith("# TYPE analysis_watchdog_up gauge\n"
                               "# HELP analysis_watchdog_up 1: the daemon answers\n"
                               "analysis_watchdog_up 1\n"
                               "# TYPE analysis_watchdog_build info\n"
                               "# HELP analysis_watchdog_build Version\n"
                               "analysis_watchdog_build_info{version=\"1\"} 1\n"
                               "# TYPE analysis_watchdog_cpu_seconds counter\n"
                               "# UNIT analysis_watchdog_cpu_seconds seconds\n"
                               "# HELP analysis_watchdog_cpu_seconds Time\n"
                               "analysis_watchdog_cpu_seconds_total 1.5\n"
                               "# TYPE analysis_watchdog_runs gauge\n"
                               "# HELP analysis_watchdog_runs By state\n"
                               "analysis_watchdog_runs{state=\"running\"} 7\n"));
  EXPECT_THAT(text, EndsWith("\n# EOF\n"));
}

TEST(OpenMetrics, HaveHistogramsWithAllTheirBuckets) {
  EXPECT_THAT(to_text(some_page(), MetricsFormat::kOpenMetrics),
              HasSubstr("# TYPE analysis_watchdog_wait_seconds histogram\n"
                        "# UNIT analysis_watchdog_wait_seconds seconds\n"
                        "# HELP analysis_watchdog_wait_seconds Waiting\n"
                        "analysis_watchdog_wait_seconds_bucket{le=\"0.001\",why=\"x\"} 1\n"
                        "analysis_watchdog_wait_seconds_bucket{le=\"10.0\",why=\"x\"} 2\n"
                        "analysis_watchdog_wait_seconds_bucket{le=\"+Inf\",why=\"x\"} 3\n"
                        "analysis_watchdog_wait_seconds_sum{why=\"x\"} 70.25\n"
                        "analysis_watchdog_wait_seconds_count{why=\"x\"} 3\n"));
}

TEST(PrometheusText, NamesACounterAsItsSampleAndKnowsNoInfoUnitOrEnd) {
  const std::string text = to_text(some_page(), MetricsFormat::kPrometheusText);

  EXPECT_THAT(text, HasSubstr("# TYPE analysis_watchdog_cpu_seconds_total counter\n"
                              "# HELP analysis_watchdog_cpu_seconds_total Time\n"
                              "analysis_watchdog_cpu_seconds_total 1.5\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE analysis_watchdog_build_info gauge\n"));
  EXPECT_THAT(text, Not(HasSubstr("# UNIT")));
  EXPECT_THAT(text, Not(HasSubstr("# EOF")));
}

TEST(OpenMetrics, TellOfADaemonThatIsAwayOnlyThat) {
  MetricsPage page = some_page();
  page.daemon.reset();
  page.analyses = {{{"Id", {std::string("job")}}, {"ProcessCount", {std::uint32_t{3}}}}};
  page.gateway = {{"web_requests", MetricType::kCounter, "Requests", {{{{"code", "200"}}, 4}}}};

  const std::string text = to_text(page, MetricsFormat::kOpenMetrics);

  EXPECT_THAT(text, HasSubstr("analysis_watchdog_up 0\n"));
  EXPECT_THAT(text, HasSubstr("analysis_watchdog_web_requests_total{code=\"200\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("\nprocess_resident_memory_bytes "));
  EXPECT_THAT(text, Not(HasSubstr("analysis_watchdog_runs")));
  EXPECT_THAT(text, Not(HasSubstr("job")));
}

bus::Dict run(const std::string& id, std::uint64_t memory) {
  return {{"Id", {id}},
          {"MemoryUnreclaimable", {memory}},
          {"MemoryLimit", {std::uint64_t{UINT64_MAX}}},
          {"CPUUsageUSec", {std::uint64_t{2'500'000}}},
          {"ProcessCount", {std::uint32_t{3}}}};
}

TEST(SeriesOfAnAnalysis, AreThereOnlyWhereTheyAreWanted) {
  EXPECT_THAT(to_text(some_page(), MetricsFormat::kOpenMetrics), Not(HasSubstr("analysis_watchdog_anal")));

  MetricsPage page = some_page();
  page.analyses = {run("job", 4096)};
  const std::string text = to_text(page, MetricsFormat::kOpenMetrics);

  EXPECT_THAT(text, HasSubstr("analysis_watchdog_analysis_memory_unreclaimable_bytes{id=\"job\"} 4096\n"));
  EXPECT_THAT(text, HasSubstr("analysis_watchdog_analysis_cpu_seconds_total{id=\"job\"} 2.5\n"));
  EXPECT_THAT(text, HasSubstr("analysis_watchdog_analysis_processes{id=\"job\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("analysis_watchdog_analyses_without_series 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("memory_limit_bytes{"))) << "no limit is no number";
}

TEST(SeriesOfAnAnalysis, EndWithTheOnesThatUseMostMemory) {
  MetricsPage page = some_page();
  for (std::uint64_t i = 0; i < 300; ++i) page.analyses.push_back(run("job " + std::to_string(i), i));

  const std::string text = to_text(page, MetricsFormat::kOpenMetrics);

  EXPECT_THAT(text, HasSubstr("processes{id=\"job 299\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("processes{id=\"job 100\"} 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("processes{id=\"job 99\"} 3\n")));
  EXPECT_THAT(text, HasSubstr("analysis_watchdog_analyses_without_series 100\n"));
}

TEST(SeriesOfAnAnalysis, CannotBeForgedByItsId) {
  MetricsPage page = some_page();
  page.analyses = {run("a\"} 1\nanalysis_watchdog_up 0 # \\", 1)};

  const std::string text = to_text(page, MetricsFormat::kOpenMetrics);

  EXPECT_THAT(text, HasSubstr("processes{id=\"a\\\"} 1\\nanalysis_watchdog_up 0 # \\\\\"} 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("\nanalysis_watchdog_up 0")));
}

TEST(TheFormOfMetrics, IsOpenMetricsForWhoAsksForIt) {
  // As Prometheus 2 and 3, curl and a browser have it.
  EXPECT_EQ(format_for("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                       "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
            MetricsFormat::kOpenMetrics);
  EXPECT_EQ(format_for("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                       "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2"),
            MetricsFormat::kOpenMetrics);
  EXPECT_EQ(format_for("*/*"), MetricsFormat::kPrometheusText);
  EXPECT_EQ(format_for(""), MetricsFormat::kPrometheusText);
  EXPECT_EQ(format_for("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            MetricsFormat::kPrometheusText);
}

TEST(TheFormOfMetrics, IsTheOlderOneForWhoPrefersItOrKnowsNoVersionOfOurs) {
  EXPECT_EQ(format_for("text/plain, application/openmetrics-text; q=0.5"), MetricsFormat::kPrometheusText);
  EXPECT_EQ(format_for("application/openmetrics-text; q=0"), MetricsFormat::kPrometheusText);
  EXPECT_EQ(format_for("application/openmetrics-text; version=9"), MetricsFormat::kPrometheusText);
  EXPECT_EQ(format_for("Application/OpenMetrics-Text ; Version=1.0.0"), MetricsFormat::kOpenMetrics);
  EXPECT_EQ(format_for(",;=,;;q=,application/openmetrics-text;q=x"), MetricsFormat::kPrometheusText);
}

TEST(TheFormOfMetrics, IsSaidInTheContentType) {
  EXPECT_STREQ(content_type(MetricsFormat::kOpenMetrics), "application/openmetrics-text; version=1.0.0; charset=utf-8");
  EXPECT_STREQ(content_type(MetricsFormat::kPrometheusText), "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace
}  // namespace aw::web
