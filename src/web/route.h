// SPDX-License-Identifier: Apache-2.0
//
// What there is to be asked for. docs/http-api.md describes each.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "web/request.h"

namespace aw::web {

enum class Endpoint {
  kStatus,    ///< /api/quests/status
  kAnalyses,  ///< /api/analyses
  kAnalysis,  ///< /api/analyses/ID
  kExplain,   ///< /api/analyses/ID/explain
  kSeries,    ///< /api/analyses/ID/series
  kEvents,    ///< /api/events
  kStream,    ///< /api/events/stream
  kKills,     ///< /api/kills
  kViewer,    ///< /api/viewer
  kMetrics,   ///< /metrics
  kHealth,    ///< /healthz
  kLogin,     ///< /login
  kLogout,    ///< /logout
  kFile,      ///< / and /assets/NAME
};

struct Route {
  Endpoint endpoint;
  std::string name = {};      ///< the analysis id; of a file, its name
  bool by_parameter = false;  ///< the id is the parameter "id", and may be missing
};

/// Nothing where there is no such thing.
std::optional<Route> find_route(const Target& target);

/// The methods that an endpoint takes, as the Allow header has them: "GET, HEAD".
std::string_view allowed_methods(Endpoint endpoint);
bool is_allowed(Endpoint endpoint, std::string_view method);

/// Refuses parameters that the endpoint does not know, with those that it does. Of the page's files any is taken.
Result<void> check_parameters(const Route& route, const Target& target);

/// The parameter's value, or "".
std::string parameter(const Target& target, std::string_view name);

}  // namespace aw::web
