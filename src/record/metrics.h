// SPDX-License-Identifier: Apache-2.0
//
// The daemon's counts as GetMetrics() gives them: each family says what it is, so that whoever passes them on
// (analysis-watchdog-web, as OpenMetrics) has no list of its own. No family names anybody: no id, no uid, no process.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "bus/message.h"

namespace aw::record {

/// One number of a family. `labels` tells it from the others of the family.
struct Metric {
  bus::StringMap labels;
  double value = 0;
  bool operator==(const Metric&) const = default;
};

enum class MetricType {
  kGauge,    ///< goes up and down
  kCounter,  ///< only grows, and begins at 0 with the daemon
  kInfo,     ///< 1; what it has to say is in its labels
};

struct MetricFamily {
  std::string name;  ///< without "analysis_watchdog_" and "_total"; with its unit, "_seconds" or "_bytes"
  MetricType type = MetricType::kGauge;
  std::string help;  ///< one line
  std::vector<Metric> metrics;
  bool operator==(const MetricFamily&) const = default;
};

struct Histogram {
  bus::StringMap labels;
  std::vector<std::pair<double, std::uint64_t>> buckets;  ///< upper bound, and how many were not above it; ascending
  std::uint64_t count = 0;                                ///< those above the last bound included
  double sum = 0;
  bool operator==(const Histogram&) const = default;
};

struct HistogramFamily {
  std::string name;
  std::string help;
  std::vector<Histogram> histograms;
  bool operator==(const HistogramFamily&) const = default;
};

struct Metrics {
  std::vector<MetricFamily> families;
  std::vector<HistogramFamily> histograms;
  bool operator==(const Metrics&) const = default;
};

/// a(sssa(a{ss}d)): name, type ("gauge", "counter", "info"), help, and the numbers; and
/// a(ssa(a{ss}a(dt)td)): name, help, and for each histogram labels, buckets, count and sum.
inline constexpr char kMetricsSignature[] = "a(sssa(a{ss}d))a(ssa(a{ss}a(dt)td))";
void append(bus::Message& message, const Metrics& metrics);
Result<Metrics> read_metrics(bus::Message& message);

}  // namespace aw::record
