// SPDX-License-Identifier: Apache-2.0
#include "web/route.h"

#include <gmock/gmock.h>

namespace aw::web {
namespace {

using ::testing::HasSubstr;

std::optional<Route> route(std::string_view raw) { return find_route(parse_target(raw).value()); }

TEST(ARoute, LeadsToWhatTheContractNames) {
  const std::vector<std::pair<std::string, Endpoint>> known{{"/api/quests/status", Endpoint::kStatus},
                                                            {"/api/analyses", Endpoint::kAnalyses},
                                                            {"/api/events", Endpoint::kEvents},
                                                            {"/api/events/stream", Endpoint::kStream},
                                                            {"/api/viewer", Endpoint::kViewer},
                                                            {"/api/kills", Endpoint::kKills},
                                                            {"/metrics", Endpoint::kMetrics},
                                                            {"/healthz", Endpoint::kHealth},
                                                            {"/login", Endpoint::kLogin},
                                                            {"/logout", Endpoint::kLogout}};
  for (const auto& [raw, endpoint] : known) {
    ASSERT_TRUE(route(raw)) << raw;
    EXPECT_EQ(route(raw)->endpoint, endpoint) << raw;
  }
}

TEST(ARoute, HasTheIdHoweverItIsWritten) {
  for (const auto& [raw, id] : std::vector<std::pair<std::string, std::string>>{
           {"/api/analyses/a%2Fb", "a/b"}, {"/api/analyses/stream", "stream"}, {"/api/analyses/%2E%2E", ".."}}) {
    ASSERT_TRUE(route(raw)) << raw;
    EXPECT_EQ(route(raw)->endpoint, Endpoint::kAnalysis) << raw;
    EXPECT_EQ(route(raw)->name, id) << raw;
  }
  EXPECT_EQ(route("/api/analyses/a%2Fexplain")->endpoint, Endpoint::kAnalysis);
  EXPECT_EQ(route("/api/analyses/a/explain")->endpoint, Endpoint::kExplain);
  EXPECT_EQ(route("/api/analyses/a/series")->endpoint, Endpoint::kSeries);
}

TEST(ARoute, HasTheIdAsAParameterToo) {
  for (const auto& [raw, endpoint] :
       std::vector<std::pair<std::string, Endpoint>>{{"/api/analysis?id=..", Endpoint::kAnalysis},
                                                     {"/api/analysis/explain?id=..&run=a", Endpoint::kExplain},
                                                     {"/api/analysis/series?run=a&id=%2E%2E", Endpoint::kSeries}}) {
    const auto found = route(raw);
    ASSERT_TRUE(found) << raw;
    EXPECT_EQ(found->endpoint, endpoint) << raw;
    EXPECT_EQ(found->name, "..") << raw;
    EXPECT_TRUE(check_parameters(*found, parse_target(raw).value())) << raw;
  }
  EXPECT_TRUE(route("/api/analysis")->by_parameter) << "which has none";
  EXPECT_EQ(route("/api/analysis")->name, "");
  EXPECT_FALSE(check_parameters(*route("/api/analyses/a?id=b"), parse_target("/api/analyses/a?id=b").value()));
  EXPECT_FALSE(route("/api/analysis/a"));
  EXPECT_FALSE(route("/api/analysis/series/a?id=b"));
}

TEST(ARoute, LeadsNowhereElse) {
  for (const char* raw :
       {"/api", "/api/", "/api/analyses/", "/api/analyses//explain", "/api/analyses/a/kill", "/metrics/", "/healthz/x",
        "/assets", "/assets/a/b", "//", "/index.html", "/api/events/stream/x"}) {
    EXPECT_FALSE(route(raw)) << raw;
  }
}

TEST(ARoute, TakesGetAndHeadAndALoginPost) {
  EXPECT_TRUE(is_allowed(Endpoint::kStatus, "GET"));
  EXPECT_TRUE(is_allowed(Endpoint::kStatus, "HEAD"));
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", ""}) {
    EXPECT_FALSE(is_allowed(Endpoint::kStatus, method)) << method;
  }
  EXPECT_TRUE(is_allowed(Endpoint::kLogin, "POST"));
  EXPECT_TRUE(is_allowed(Endpoint::kLogout, "POST"));
  EXPECT_FALSE(is_allowed(Endpoint::kLogout, "GET"));
}

TEST(AParameter, ThatIsNotKnownIsRefusedWithThoseThatAre) {
  const auto check = [](Endpoint endpoint, const char* raw) {
    auto checked = check_parameters({endpoint}, parse_target(raw).value());
    return checked ? "" : checked.error().message;
  };
  EXPECT_EQ(check(Endpoint::kEvents, "/?since=1&until=2&id=a&run=b&reason=c&kind=d&limit=3"), "");
  EXPECT_THAT(check(Endpoint::kEvents, "/?sinc=1"), HasSubstr("since, until, id"));
  EXPECT_THAT(check(Endpoint::kStatus, "/?x%0ay=1"), HasSubstr("\"x\\x0ay\" here; there are none"));
  EXPECT_EQ(check(Endpoint::kFile, "/?whatever=1"), "");
}

}  // namespace
}  // namespace aw::web
