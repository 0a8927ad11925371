// SPDX-License-Identifier: Apache-2.0
#include "web/route.h"

#include <algorithm>

#include "cli/terminal.h"

namespace aw::web {
namespace {

std::vector<std::string_view> parameters_of(const Route& route) {
  switch (route.endpoint) {
    case Endpoint::kEvents:
      return {"since", "until", "id", "run", "reason", "kind", "limit"};
    case Endpoint::kSeries:
    case Endpoint::kExplain:
      if (route.by_parameter) return {"id", "run"};
      return {"run"};
    case Endpoint::kKills:
      return {"since"};
    case Endpoint::kAnalysis:
      if (route.by_parameter) return {"id"};
      return {};
    case Endpoint::kStatus:
    case Endpoint::kAnalyses:
    case Endpoint::kStream:
    case Endpoint::kViewer:
    case Endpoint::kMetrics:
    case Endpoint::kHealth:
    case Endpoint::kLogin:
    case Endpoint::kLogout:
    case Endpoint::kFile:
      return {};
  }
  return {};
}

}  // namespace

std::optional<Route> find_route(const Target& target) {
  const auto& path = target.path;
  if (path.empty()) return Route{Endpoint::kFile, "index.html"};
  if (path[0] == "assets") return path.size() == 2 ? std::optional(Route{Endpoint::kFile, path[1]}) : std::nullopt;
  if (path.size() == 1) {
    if (path[0] == "metrics") return Route{Endpoint::kMetrics};
    if (path[0] == "healthz") return Route{Endpoint::kHealth};
    if (path[0] == "login") return Route{Endpoint::kLogin};
    if (path[0] == "logout") return Route{Endpoint::kLogout};
  }
  if (path[0] != "api") return std::nullopt;
  // For ids that don't survive in a path: browsers and proxies take "." and ".." for directories, escaped or not.
  if (path.size() >= 2 && path[1] == "analysis") {
    const std::string id = parameter(target, "id");
    if (path.size() == 2) return Route{Endpoint::kAnalysis, id, true};
    if (path.size() == 3 && path[2] == "explain") return Route{Endpoint::kExplain, id, true};
    if (path.size() == 3 && path[2] == "series") return Route{Endpoint::kSeries, id, true};
    return std::nullopt;
  }
  if (path.size() == 2) {
    if (path[1] == "analyses") return Route{Endpoint::kAnalyses};
    if (path[1] == "events") return Route{Endpoint::kEvents};
    if (path[1] == "kills") return Route{Endpoint::kKills};
    if (path[1] == "viewer") return Route{Endpoint::kViewer};
  }
  if (path.size() == 3) {
    if (path[1] == "quests" && path[2] == "status") return Route{Endpoint::kStatus};
    if (path[1] == "events" && path[2] == "stream") return Route{Endpoint::kStream};
    if (path[1] == "analyses" && !path[2].empty()) return Route{Endpoint::kAnalysis, path[2]};
  }
  if (path.size() == 4 && path[1] == "analyses" && !path[2].empty()) {
    if (path[3] == "explain") return Route{Endpoint::kExplain, path[2]};
    if (path[3] == "series") return Route{Endpoint::kSeries, path[2]};
  }
  return std::nullopt;
}

std::string_view allowed_methods(Endpoint endpoint) {
  if (endpoint == Endpoint::kLogin) return "GET, HEAD, POST";
  return endpoint == Endpoint::kLogout ? "POST" : "GET, HEAD";
}

bool is_allowed(Endpoint endpoint, std::string_view method) {
  if (method == "POST") return endpoint == Endpoint::kLogin || endpoint == Endpoint::kLogout;
  return (method == "GET" || method == "HEAD") && endpoint != Endpoint::kLogout;
}

Result<void> check_parameters(const Route& route, const Target& target) {
  if (route.endpoint == Endpoint::kFile || route.endpoint == Endpoint::kLogin) return {};
  const auto known = parameters_of(route);
  for (const auto& [name, value] : target.query) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string all;
    for (const std::string_view one : known) all += (all.empty() ? "" : ", ") + std::string(one);
    return invalid("no parameter \"" + cli::printable(name) + "\" here; " +
                   (all.empty() ? "there are none" : "there are " + all));
  }
  return {};
}

std::string parameter(const Target& target, std::string_view name) {
  for (const auto& [key, value] : target.query) {
    if (key == name) return value;
  }
  return "";
}

}  // namespace aw::web
