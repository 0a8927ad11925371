// SPDX-License-Identifier: Apache-2.0
#include "web/open_metrics.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "base/own_usage.h"
#include "base/time.h"

namespace aw::web {
namespace {

using record::HistogramFamily;
using record::Metric;
using record::MetricFamily;
using record::MetricType;

constexpr std::string_view kPrefix = "analysis_watchdog_";
constexpr std::string_view kInfoSuffix = "_info";

std::string lower(std::string_view text) {
  std::string low(text);
  std::transform(low.begin(), low.end(), low.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  return low;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// The text up to the separator, which is taken off the rest with it.
std::string_view take(std::string_view& rest, char separator) {
  const auto end = rest.find(separator);
  const std::string_view first = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return trim(first);
}

/// A number so that it is read back as what it was.
std::string to_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

/// A bound as both forms want it: "1.0", not "1", so that a series keeps its name when the form changes.
std::string to_bound(double value) {
  std::string text = to_number(value);
  if (text.find_first_of(".eIN") == std::string::npos) text += ".0";
  return text;
}

enum class Quotes { kAsTheyAre, kEscaped };

std::string escape(std::string_view text, Quotes quotes) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\') {
      escaped += "\\\\";
    } else if (c == '\n') {
      escaped += "\\n";
    } else if (c == '"' && quotes == Quotes::kEscaped) {
      escaped += "\\\"";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string_view unit_of(std::string_view name) {
  for (const std::string_view unit : {"seconds", "bytes"}) {
    if (name.ends_with(unit) && name.size() > unit.size() && name[name.size() - unit.size() - 1] == '_') return unit;
  }
  return {};
}

class Writer {
 public:
  explicit Writer(MetricsFormat format) : open_(format == MetricsFormat::kOpenMetrics) {}

  void write(const MetricFamily& family, std::string_view prefix = kPrefix) {
    std::string name = std::string(prefix) + family.name;
    if (family.type == MetricType::kInfo && name.ends_with(kInfoSuffix)) name.resize(name.size() - kInfoSuffix.size());
    const std::string sample = name + suffix_of(family.type);
    begin(open_ ? name : sample, type_of(family.type), family.help);
    for (const Metric& metric : family.metrics) put(sample, metric.labels, to_number(metric.value));
  }

  void write(const HistogramFamily& family) {
    const std::string name = std::string(kPrefix) + family.name;
    begin(name, "histogram", family.help);
    for (const record::Histogram& histogram : family.histograms) {
      bus::StringMap labels = histogram.labels;
      for (const auto& [bound, count] : histogram.buckets) {
        labels["le"] = to_bound(bound);
        put(name + "_bucket", labels, std::to_string(count));
      }
      labels["le"] = "+Inf";
      put(name + "_bucket", labels, std::to_string(histogram.count));
      put(name + "_sum", histogram.labels, to_number(histogram.sum));
      put(name + "_count", histogram.labels, std::to_string(histogram.count));
    }
  }

  std::string finish() && {
    if (open_) text_ += "# EOF\n";
    return std::move(text_);
  }

 private:
  static std::string suffix_of(MetricType type) {
    switch (type) {
      case MetricType::kGauge:
        return "";
      case MetricType::kCounter:
        return "_total";
      case MetricType::kInfo:
        return std::string(kInfoSuffix);
    }
    return "";
  }
  std::string_view type_of(MetricType type) const {
    switch (type) {
      case MetricType::kGauge:
        return "gauge";
      case MetricType::kCounter:
        return "counter";
      case MetricType::kInfo:
        return open_ ? "info" : "gauge";  // The older form knows no other for it.
    }
    return "unknown";
  }

  void begin(const std::string& name, std::string_view type, const std::string& help) {
    text_ += "# TYPE " + name + " " + std::string(type) + "\n";
    if (const auto unit = unit_of(name); open_ && !unit.empty()) {
      text_ += "# UNIT " + name + " " + std::string(unit) + "\n";
    }
    text_ += "# HELP " + name + " " + escape(help, open_ ? Quotes::kEscaped : Quotes::kAsTheyAre) + "\n";
  }

  void put(const std::string& name, const bus::StringMap& labels, const std::string& value) {
    text_ += name;
    if (!labels.empty()) {
      char separator = '{';
      for (const auto& [label, content] : labels) {
        text_ += separator + label + "=\"" + escape(content, Quotes::kEscaped) + "\"";
        separator = ',';
      }
      text_ += '}';
    }
    text_ += " " + value + "\n";
  }

  const bool open_;
  std::string text_;
};

/// A property as a number; nothing for one that is not known, or no limit.
std::optional<double> find_number(const bus::Dict& run, std::string_view name) {
  const bus::Value* value = bus::find(run, name);
  if (value == nullptr) return std::nullopt;
  if (const auto* small = value->get_if<std::uint32_t>()) return *small;
  const auto* large = value->get_if<std::uint64_t>();
  if (large == nullptr || *large == UINT64_MAX) return std::nullopt;
  return static_cast<double>(*large);
}

struct AnalysisFamily {
  const char* name;
  MetricType type;
  const char* help;
  const char* property;
  double per;  ///< so many of the property are one of the unit
};
constexpr double kUsec = 1e6;
constexpr AnalysisFamily kAnalysisFamilies[] = {
    {"analysis_memory_unreclaimable_bytes", MetricType::kGauge, "What the memory limit is about", "MemoryUnreclaimable",
     1},
    {"analysis_memory_current_bytes", MetricType::kGauge, "Memory of the analysis, page cache included",
     "MemoryCurrent", 1},
    {"analysis_memory_limit_bytes", MetricType::kGauge, "The memory limit; absent: none", "MemoryLimit", 1},
    {"analysis_cpu_seconds", MetricType::kCounter, "CPU time of the analysis", "CPUUsageUSec", kUsec},
    {"analysis_processes", MetricType::kGauge, "Processes of the analysis", "ProcessCount", 1},
    {"analysis_registered_time_seconds", MetricType::kGauge, "When it was registered, in seconds since 1970",
     "RegisteredAtRealtimeUSec", kUsec},
    {"analysis_deadline_time_seconds", MetricType::kGauge, "Its deadline, in seconds since 1970; absent: none",
     "DeadlineRealtimeUSec", kUsec},
};

void write_analyses(Writer& writer, const std::vector<bus::Dict>& analyses, std::size_t most) {
  std::vector<const bus::Dict*> runs;
  runs.reserve(analyses.size());
  for (const bus::Dict& run : analyses) runs.push_back(&run);
  const auto memory = [](const bus::Dict* run) { return find_number(*run, "MemoryUnreclaimable").value_or(0); };
  std::stable_sort(runs.begin(), runs.end(), [&](const auto* a, const auto* b) { return memory(a) > memory(b); });
  const std::size_t omitted = runs.size() - std::min(runs.size(), most);
  runs.resize(runs.size() - omitted);

  for (const AnalysisFamily& of : kAnalysisFamilies) {
    MetricFamily family{of.name, of.type, of.help, {}};
    for (const bus::Dict* run : runs) {
      const bus::Value* id = bus::find(*run, "Id");
      const auto* text = id == nullptr ? nullptr : id->get_if<std::string>();
      const auto value = find_number(*run, of.property);
      if (text != nullptr && value) family.metrics.push_back({{{"id", *text}}, *value / of.per});
    }
    writer.write(family);
  }
  writer.write({"analyses_without_series",
                MetricType::kGauge,
                "Live runs that are left out above, because there are more than are allowed",
                {{{}, static_cast<double>(omitted)}}});
}

void write_own_process(Writer& writer) {
  static const WallTime started = read_own_start();
  const OwnUsage usage = read_own_usage();
  const auto write = [&](const char* name, MetricType type, const char* help, double value) {
    writer.write({name, type, help, {{{}, value}}}, "");
  };
  write("process_cpu_seconds", MetricType::kCounter, "CPU time of the gateway, user and system",
        std::chrono::duration<double>(usage.cpu).count());
  write("process_resident_memory_bytes", MetricType::kGauge, "Resident memory of the gateway",
        static_cast<double>(usage.resident.count()));
  write("process_open_fds", MetricType::kGauge, "Open descriptors of the gateway",
        static_cast<double>(usage.descriptors));
  write("process_max_fds", MetricType::kGauge, "Descriptors that the gateway may have",
        static_cast<double>(usage.most_descriptors));
  write("process_start_time_seconds", MetricType::kGauge, "When the gateway started, in seconds since 1970",
        std::chrono::duration<double>(started.time_since_epoch()).count());
}

}  // namespace

MetricsFormat format_for(std::string_view accept) {
  double open = 0;
  double other = 0;
  while (!accept.empty()) {
    std::string_view range = take(accept, ',');
    const std::string type = lower(take(range, ';'));
    double quality = 1;
    bool known_version = true;
    while (!range.empty()) {
      std::string_view value = take(range, ';');
      const std::string name = lower(take(value, '='));
      if (name == "q" && std::from_chars(value.data(), value.data() + value.size(), quality).ec != std::errc())
        quality = 0;
      if (name == "version") known_version = value == "1.0.0" || value == "0.0.1" || value == "\"1.0.0\"";
    }
    if (type == "application/openmetrics-text") {
      if (known_version) open = std::max(open, quality);
    } else if (type == "text/plain" || type == "text/*" || type == "*/*") {
      other = std::max(other, quality);
    }
  }
  return open > 0 && open >= other ? MetricsFormat::kOpenMetrics : MetricsFormat::kPrometheusText;
}

const char* content_type(MetricsFormat format) {
  switch (format) {
    case MetricsFormat::kOpenMetrics:
      return "application/openmetrics-text; version=1.0.0; charset=utf-8";
    case MetricsFormat::kPrometheusText:
      return "text/plain; version=0.0.4; charset=utf-8";
  }
  return "";
}

std::vector<MetricFamily> gateway_metrics(const GatewayCounts& counts) {
  MetricFamily answers{"web_answers", MetricType::kCounter, "Requests that were answered, by HTTP status", {}};
  for (const auto& [status, count] : counts.answers) {
    answers.metrics.push_back({{{"code", std::to_string(status)}}, static_cast<double>(count)});
  }
  const auto gauge = [](const char* name, const char* help, std::size_t value) {
    return MetricFamily{name, MetricType::kGauge, help, {{{}, static_cast<double>(value)}}};
  };
  return {std::move(answers), gauge("web_connections", "Connections that are open", counts.connections),
          gauge("web_streams", "Streams of events that are open", counts.streams)};
}

std::string to_text(const MetricsPage& page, MetricsFormat format) {
  Writer writer(format);
  writer.write({"up", MetricType::kGauge, "1: the daemon answers", {{{}, page.daemon ? 1.0 : 0.0}}});
  if (page.daemon) {
    for (const MetricFamily& family : page.daemon->families) writer.write(family);
    for (const HistogramFamily& family : page.daemon->histograms) writer.write(family);
    if (!page.analyses.empty()) write_analyses(writer, page.analyses, page.most_analyses);
  }
  for (const MetricFamily& family : page.gateway) writer.write(family);
  write_own_process(writer);
  return std::move(writer).finish();
}

}  // namespace aw::web
