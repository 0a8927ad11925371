// SPDX-License-Identifier: Apache-2.0
#include "record/metrics.h"

#include <array>

#include "base/assert.h"

namespace aw::record {
namespace {

constexpr std::array<std::string_view, 3> kTypeWords{"gauge", "counter", "info"};

std::string to_string(MetricType type) { return std::string(kTypeWords.at(static_cast<std::size_t>(type))); }

Result<MetricType> parse_type(const std::string& word) {
  for (std::size_t i = 0; i < kTypeWords.size(); ++i) {
    if (kTypeWords.at(i) == word) return static_cast<MetricType>(i);
  }
  return invalid("\"" + word + "\" is no type of a metric");
}

/// Reads an array of `contents`, one element after the other, until one of them can't be read.
template <class T, class Read>
Result<std::vector<T>> read_list(bus::Message& message, const char* contents, Read&& read) {
  std::vector<T> list;
  if (auto entered = message.enter('a', contents); !entered) return std::move(entered).error();
  while (!message.at_end()) {
    auto one = read();
    if (!one) return std::move(one).error();
    list.push_back(*std::move(one));
  }
  if (auto left = message.leave(); !left) return std::move(left).error();
  return list;
}

/// One struct: `read` sets what it reads, and says what has gone wrong.
template <class T, class Read>
Result<T> read_struct(bus::Message& message, const char* contents, Read&& read) {
  T value;
  if (auto entered = message.enter('r', contents); !entered) return std::move(entered).error();
  if (Result<void> done = read(value); !done) return std::move(done).error();
  if (auto left = message.leave(); !left) return std::move(left).error();
  return value;
}

template <class T>
Result<void> assign(T& to, Result<T> from) {
  if (!from) return std::move(from).error();
  to = *std::move(from);
  return {};
}

Result<bus::StringMap> read_labels(bus::Message& message) {
  bus::StringMap labels;
  if (auto entered = message.enter('a', "{ss}"); !entered) return std::move(entered).error();
  while (!message.at_end()) {
    std::string name;
    std::string value;
    if (auto entered = message.enter('e', "ss"); !entered) return std::move(entered).error();
    if (auto done = assign(name, message.read_string()); !done) return std::move(done).error();
    if (auto done = assign(value, message.read_string()); !done) return std::move(done).error();
    if (auto left = message.leave(); !left) return std::move(left).error();
    labels.insert_or_assign(std::move(name), std::move(value));
  }
  if (auto left = message.leave(); !left) return std::move(left).error();
  return labels;
}

Result<Metric> read_metric(bus::Message& message) {
  return read_struct<Metric>(message, "a{ss}d", [&](Metric& metric) -> Result<void> {
    if (auto done = assign(metric.labels, read_labels(message)); !done) return done;
    return assign(metric.value, message.read_double());
  });
}

Result<MetricFamily> read_family(bus::Message& message) {
  return read_struct<MetricFamily>(message, "sssa(a{ss}d)", [&](MetricFamily& family) -> Result<void> {
    std::string type;
    if (auto done = assign(family.name, message.read_string()); !done) return done;
    if (auto done = assign(type, message.read_string()); !done) return done;
    if (auto done = assign(family.type, parse_type(type)); !done) return done;
    if (auto done = assign(family.help, message.read_string()); !done) return done;
    return assign(family.metrics, read_list<Metric>(message, "(a{ss}d)", [&] { return read_metric(message); }));
  });
}

Result<Histogram> read_histogram(bus::Message& message) {
  using Bucket = std::pair<double, std::uint64_t>;
  return read_struct<Histogram>(message, "a{ss}a(dt)td", [&](Histogram& histogram) -> Result<void> {
    if (auto done = assign(histogram.labels, read_labels(message)); !done) return done;
    auto buckets = read_list<Bucket>(message, "(dt)", [&] {
      return read_struct<Bucket>(message, "dt", [&](Bucket& bucket) -> Result<void> {
        if (auto done = assign(bucket.first, message.read_double()); !done) return done;
        return assign(bucket.second, message.read_u64());
      });
    });
    if (auto done = assign(histogram.buckets, std::move(buckets)); !done) return done;
    if (auto done = assign(histogram.count, message.read_u64()); !done) return done;
    return assign(histogram.sum, message.read_double());
  });
}

Result<HistogramFamily> read_histogram_family(bus::Message& message) {
  return read_struct<HistogramFamily>(message, "ssa(a{ss}a(dt)td)", [&](HistogramFamily& family) -> Result<void> {
    if (auto done = assign(family.name, message.read_string()); !done) return done;
    if (auto done = assign(family.help, message.read_string()); !done) return done;
    return assign(family.histograms,
                  read_list<Histogram>(message, "(a{ss}a(dt)td)", [&] { return read_histogram(message); }));
  });
}

}  // namespace

void append(bus::Message& message, const Metrics& metrics) {
  message.open('a', "(sssa(a{ss}d))");
  for (const MetricFamily& family : metrics.families) {
    message.open('r', "sssa(a{ss}d)").append(family.name).append(to_string(family.type)).append(family.help);
    message.open('a', "(a{ss}d)");
    for (const Metric& metric : family.metrics) {
      message.open('r', "a{ss}d").append(metric.labels).append(metric.value).close();
    }
    message.close().close();
  }
  message.close();
  message.open('a', "(ssa(a{ss}a(dt)td))");
  for (const HistogramFamily& family : metrics.histograms) {
    message.open('r', "ssa(a{ss}a(dt)td)").append(family.name).append(family.help).open('a', "(a{ss}a(dt)td)");
    for (const Histogram& histogram : family.histograms) {
      message.open('r', "a{ss}a(dt)td").append(histogram.labels).open('a', "(dt)");
      for (const auto& [bound, count] : histogram.buckets) message.open('r', "dt").append(bound).append(count).close();
      message.close().append(histogram.count).append(histogram.sum).close();
    }
    message.close().close();
  }
  message.close();
}

Result<Metrics> read_metrics(bus::Message& message) {
  Metrics metrics;
  auto families = read_list<MetricFamily>(message, "(sssa(a{ss}d))", [&] { return read_family(message); });
  if (!families) return std::move(families).error().within("metrics");
  metrics.families = *std::move(families);
  auto histograms =
      read_list<HistogramFamily>(message, "(ssa(a{ss}a(dt)td))", [&] { return read_histogram_family(message); });
  if (!histograms) return std::move(histograms).error().within("metrics");
  metrics.histograms = *std::move(histograms);
  return metrics;
}

}  // namespace aw::record
