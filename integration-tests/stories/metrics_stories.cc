// SPDX-License-Identifier: Apache-2.0
//
// A real Prometheus scrapes the gateway, with the configuration, rules and alerts that are installed with the project.
#include <fcntl.h>

#include "support/gateway.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr char kShipped[] = "/usr/share/analysis-watchdog/prometheus/";
constexpr char kPrometheus[] = "127.0.0.1:9095";
/// An alert that is to fire has to be true for a minute before.
constexpr Span kAlertPatience = 5min;

class APrometheus : public WebStory {
 protected:
  void SetUp() override {
    WebStory::SetUp();
    // As it is shipped, but for how often it looks: in the story nobody waits a minute for each.
    write_file(path("prometheus.yml"), "global: {scrape_interval: 2s, evaluation_interval: 2s}\n" +
                                           read_file(std::string(kShipped) + "scrape.yml"));
    const auto checked = run_command({"promtool", "check", "config", path("prometheus.yml")});
    ASSERT_EQ(checked.status, 0) << checked.out << checked.err;
    const UniqueFd log(::open("/run/outputs/prometheus.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    server_ = std::make_unique<Child>(
        Child::spawn({"prometheus", "--config.file=" + path("prometheus.yml"), "--storage.tsdb.path=" + path("tsdb"),
                      std::string("--web.listen-address=") + kPrometheus},
                     {-1, log.get(), log.get(), -1, {}}));
    ASSERT_TRUE(watchdog.wait_until([] { return ask(server() + "/-/ready").status == 200; }, 5min));
  }
  void TearDown() override {
    server_.reset();
    WebStory::TearDown();
  }

  static std::string server() { return std::string("http://") + kPrometheus; }
  static Json api(const std::string& path) { return at(ask(server() + "/api/v1/" + path).json(), "data"); }
  /// The value of an expression with one result; nothing where it has none.
  static std::optional<double> value_of(const std::string& expression) {
    const Json results = at(api("query?query=" + encoded(expression)), "result");
    if (!results.is_array() || results.size() != 1) return std::nullopt;
    return std::stod(at(results[0], "value").at(1).get<std::string>());
  }
  bool becomes(const std::string& expression, double wanted, Span patience = kPatience) {
    return watchdog.wait_until([&] { return value_of(expression) == wanted; }, patience);
  }

 private:
  std::unique_ptr<Child> server_;
};

TEST_F(APrometheus, ScrapesTheGateway) {
  ASSERT_TRUE(becomes("up{job=\"analysis-watchdog\"}", 1)) << ask(server() + "/api/v1/targets").body;
  EXPECT_TRUE(becomes("analysis_watchdog_up", 1));
  EXPECT_TRUE(becomes("absent(analysis_watchdog_daemon_start_time_seconds) or vector(0)", 0));
  const auto ended = [] {
    return value_of("sum(analysis_watchdog_runs_ended_total{reason=\"requested\"})").value_or(0);
  };
  ASSERT_TRUE(watchdog.wait_until([&] { return value_of("sum(analysis_watchdog_runs_ended_total)").has_value(); }));
  const double before = ended();

  const auto run = start(How::kLaunched, new_id("counted"), {}, {"stay"});
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  await_end(run);

  EXPECT_TRUE(watchdog.wait_until([&] { return ended() == before + 1; })) << ended() << " after " << before;
  // Each rule that is shipped can be evaluated.
  ASSERT_TRUE(watchdog.wait_until([&] {
    const Json groups = at(api("rules"), "groups");
    if (!groups.is_array() || groups.empty()) return false;
    for (const Json& group : groups) {
      for (const Json& rule : at(group, "rules")) {
        if (word(rule, "health") == "unknown") return false;
        EXPECT_EQ(word(rule, "health"), "ok") << rule;
      }
    }
    return true;
  }));
}

TEST_F(APrometheus, HasAnAlertFireWhenTheDaemonIsAway) {
  ASSERT_TRUE(becomes("analysis_watchdog_up", 1));
  EXPECT_THAT(at(api("alerts"), "alerts"), ::testing::IsEmpty());

  stop_daemon();

  const auto state = [] {
    for (const Json& alert : at(api("alerts"), "alerts")) {
      if (word(at(alert, "labels"), "alertname") == "AnalysisWatchdogDown") return word(alert, "state");
    }
    return std::string();
  };
  ASSERT_TRUE(watchdog.wait_until([&] { return state() != ""; })) << "it is not even pending";
  ASSERT_TRUE(watchdog.wait_until([&] { return state() == "firing"; }, kAlertPatience)) << state();
  for (const Json& alert : at(api("alerts"), "alerts")) {
    EXPECT_EQ(word(at(alert, "labels"), "alertname"), "AnalysisWatchdogDown") << "nothing else is wrong";
    EXPECT_EQ(word(at(alert, "labels"), "severity"), "critical");
    EXPECT_THAT(word(at(alert, "annotations"), "summary"), HasSubstr("127.0.0.1:8787"));
  }

  start_daemon();
  EXPECT_TRUE(watchdog.wait_until([&] { return state() == ""; })) << "it doesn't stop";
}

}  // namespace
}  // namespace aw::stories
