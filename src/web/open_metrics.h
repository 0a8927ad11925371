// SPDX-License-Identifier: Apache-2.0
//
// What /metrics answers: the daemon's counts, the gateway's own, and, where that is switched on, some of each analysis,
// as OpenMetrics 1.0 or in Prometheus' older form of it. docs/metrics.md lists the names.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bus/value.h"
#include "record/metrics.h"

namespace aw::web {

enum class MetricsFormat {
  kOpenMetrics,
  kPrometheusText,  ///< 0.0.4, which everything can read
};

/// The form for an Accept header, as it stands in the request: OpenMetrics for who asks for it by name.
MetricsFormat format_for(std::string_view accept);
const char* content_type(MetricsFormat format);

/// What the gateway counts of itself, as a part of that page.
struct GatewayCounts {
  std::map<unsigned, std::uint64_t> answers = {};  ///< by HTTP status
  std::size_t connections = 0;
  std::size_t streams = 0;
};
std::vector<record::MetricFamily> gateway_metrics(const GatewayCounts& counts);

struct MetricsPage {
  /// None: the daemon is away. Then nothing is told of it but that; a number that was true a while ago is none.
  std::optional<record::Metrics> daemon;
  /// Of the gateway, by names to which "analysis_watchdog_" is added as well.
  std::vector<record::MetricFamily> gateway;
  /// The properties of live runs, as ListAnalyses() has them; for scrapers that may know the ids.
  std::vector<bus::Dict> analyses;
  std::size_t most_analyses = 200;  ///< of more, those that use most memory
};

std::string to_text(const MetricsPage& page, MetricsFormat format);

}  // namespace aw::web
