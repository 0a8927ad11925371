// SPDX-License-Identifier: Apache-2.0
#include "config/settings.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ini.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/numbers.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "supervise/series.h"

namespace aw::config {
namespace {

namespace fs = std::filesystem;
using supervise::Caps;
using supervise::Limits;
using supervise::OrphanRounds;
using supervise::SeriesRule;
using supervise::StallRule;

constexpr std::array<std::string_view, 8> kSections = {"Defaults", "Caps",   "Orphans",    "Memory",
                                                       "Series",   "Ledger", "PostgreSQL", "Web"};

// ---- Values: how each kind is read from text, and written for the manual page ----

template <class T>
struct Kind {
  Result<T> (*parse)(std::string_view text);
  std::string (*format)(T value);
};

Error refuse(std::string_view text, std::string_view why) {
  return invalid("\"" + std::string(text) + "\" " + std::string(why));
}

Result<Bytes> parse_memory_limit(std::string_view text) {
  auto size = parse_size(text);
  if (size && *size == Bytes()) return refuse(text, "is no limit; write e.g. 512M, 2G or infinity");
  return size;
}

Result<Span> parse_time_limit(std::string_view text) {
  auto span = parse_span(text);
  if (span && *span == Span::zero()) return refuse(text, "is no limit; write e.g. 500ms, 30min, 1h 30s or infinity");
  return span;
}

Result<Bytes> parse_ledger_size(std::string_view text) {
  auto size = parse_size(text);
  if (size && *size < Bytes(16 * kMiB.count())) {
    return refuse(text, "is too small for a ledger, which needs 16M; write e.g. 512M, 2G or infinity");
  }
  return size;
}

/// For what must come round again and again.
Result<Span> parse_interval(std::string_view text) {
  auto span = parse_span(text);
  if (span && (*span == Span::zero() || *span == kForever))
    return refuse(text, "is no interval; write e.g. 500ms or 5s");
  return span;
}

/// For what may be left undone altogether. More often than this it would be noticed.
Result<Span> parse_sampling(std::string_view text) {
  constexpr Span kShortest = std::chrono::milliseconds{100};
  if (text == "never") return kForever;
  auto span = parse_span(text);
  if (span && *span < kShortest) return refuse(text, "is too short; write e.g. 100ms, 2s, or never for no samples");
  return span;
}

std::string format_sampling(Span span) { return span == kForever ? "never" : format_span(span); }

Result<std::uint64_t> parse_points(std::string_view text) {
  const auto points = parse_number<std::uint64_t>(text);
  if (!points || *points < supervise::Series::kLeastPoints || *points > supervise::Series::kMostPoints) {
    return refuse(text, "is not a number from 16 to 4096; write e.g. 512");
  }
  return *points;
}

Result<std::uint64_t> parse_count(std::string_view text) {
  if (text == "infinity") return supervise::kUnlimited;
  const auto count = parse_number<std::uint64_t>(text);
  if (!count || *count == 0) return refuse(text, "is not a number above 0; write e.g. 500 or infinity");
  return *count;
}

std::string format_count(std::uint64_t count) {
  return count == supervise::kUnlimited ? "infinity" : std::to_string(count);
}

// Of a limit, 0 is refused; of headroom any amount may be asked for, none as well.
Result<std::optional<Bytes>> parse_headroom(std::string_view text) {
  return parse_size(text).transform([](Bytes size) { return std::optional(size); });
}

std::string format_headroom(std::optional<Bytes> headroom) { return headroom ? format_size(*headroom) : ""; }

Result<std::optional<std::uint64_t>> parse_weight(std::string_view text) {
  const auto weight = parse_number<std::uint64_t>(text);
  if (!weight || *weight < 1 || *weight > 10000) return refuse(text, "is not a number from 1 to 10000; write e.g. 100");
  return weight;
}

std::string format_weight(std::optional<std::uint64_t> weight) { return weight ? std::to_string(*weight) : ""; }

// 1 % of a CPU is 10 ms of CPU time per second.
constexpr std::uint64_t kUsecPerPercent = 10'000;

Result<Span> parse_cpu_quota(std::string_view text) {
  if (text == "infinity") return kForever;
  std::string_view rest = text;
  const auto number = take_decimal(rest);
  constexpr std::uint64_t kMostPercent = 1'000'000;  // Ten thousand CPUs; beyond the largest machines.
  if (!number || rest != "%" || number->whole > kMostPercent) {
    return refuse(text, "is not a share of a CPU; write e.g. 50%, 150% or infinity");
  }
  const std::uint64_t usec = number->whole * kUsecPerPercent + fraction_of(number->fraction, kUsecPerPercent);
  if (usec == 0) return refuse(text, "is no limit; write e.g. 50%, 150% or infinity");
  return from_usec(usec);
}

std::string format_cpu_quota(Span per_second) {
  return per_second == kForever ? "infinity" : std::to_string(to_usec(per_second) / kUsecPerPercent) + "%";
}

Result<unsigned> parse_percentage(std::string_view text) {
  const auto percent = parse_number<unsigned>(text.substr(0, text.find('%')));
  if (!percent || !text.ends_with('%') || text.find('%') != text.size() - 1 || *percent < 1 || *percent > 99) {
    return refuse(text, "is not a percentage from 1% to 99%; write e.g. 80%");
  }
  return *percent;
}

Result<bool> parse_switch(std::string_view text) {
  for (const std::string_view word : {"yes", "true", "on", "1"}) {
    if (text == word) return true;
  }
  for (const std::string_view word : {"no", "false", "off", "0"}) {
    if (text == word) return false;
  }
  return refuse(text, "is neither yes nor no");
}

std::string format_switch(bool on) { return on ? "yes" : "no"; }

Result<unsigned> parse_series(std::string_view text) {
  const auto count = parse_number<unsigned>(text);
  if (!count || *count < 1 || *count > 10000) return refuse(text, "is not a number from 1 to 10000; write e.g. 200");
  return *count;
}

std::string format_series(unsigned count) { return std::to_string(count); }

std::string format_percentage(unsigned percent) { return std::to_string(percent) + "%"; }

/// Whole days are written as such: systemd's way would make "2month 4w 1d 3h …" of 90d.
std::string format_days(Span span) {
  constexpr Span kDay = std::chrono::days{1};
  return span == kForever || span % kDay != Span::zero() ? format_span(span) : std::to_string(span / kDay) + "d";
}

Result<fs::path> parse_path(std::string_view text) {
  const fs::path path(text);
  if (!path.is_absolute() || !path.has_filename()) {
    return refuse(text, "is not the absolute path of a file; write e.g. /var/lib/analysis-watchdog/ledger.db");
  }
  return path;
}

/// `password` before an "=", with or without spaces between them, as libpq takes it.
bool names_password(std::string_view text) {
  constexpr std::string_view kName = "password";
  for (auto at = text.find(kName); at != std::string_view::npos; at = text.find(kName, at + 1)) {
    const auto next = text.find_first_not_of(" \t\r\n\f\v", at + kName.size());
    if (next != std::string_view::npos && text[next] == '=') return true;
  }
  return false;
}

Result<std::string> parse_uri(std::string_view text) {
  const bool uri = text.starts_with("postgresql://") || text.starts_with("postgres://");
  if (!text.empty() && !uri && text.find('=') == std::string_view::npos) {
    return refuse(text, "is no address of PostgreSQL; write e.g. postgresql://watchdog@db.example.org/analyses");
  }
  // Everybody may read the configuration. In an URI, a password is what stands between ":" and "@".
  const std::string_view authority =
      uri ? text.substr(text.find("//") + 2, text.find_first_of("/?", text.find("//") + 2) - text.find("//") - 2) : "";
  const auto at = authority.rfind('@');
  if (names_password(text) ||
      (at != std::string_view::npos && authority.substr(0, at).find(':') != std::string_view::npos)) {
    return invalid(
        "a password does not belong here, where everybody can read it; put it into PassFile= or a systemd credential "
        "(analysis-watchdog-shipper(8))");
  }
  return std::string(text);
}

std::string format_uri(std::string uri) { return uri; }  // NOLINT(performance-unnecessary-value-param): Kind

/// What stands between commas and spaces.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; !text.empty() && at <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(", ", at), text.size());
    if (end > at) words.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

Result<std::vector<std::string>> parse_schemas(std::string_view text) {
  auto schemas = words_of(text);
  for (const std::string& schema : schemas) {
    if (schema.find('"') != std::string::npos) return refuse(text, "quotes no names; write e.g. watchdog, public");
  }
  return schemas;
}

std::string format_words(std::vector<std::string> words) {  // NOLINT(performance-unnecessary-value-param): Kind
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

bool is_listenable(std::string_view address) {
  if (address.starts_with('/')) return address.size() < sizeof(sockaddr_un::sun_path);
  const std::size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return false;
  const auto port = parse_number<std::uint16_t>(address.substr(colon + 1));
  std::string host(address.substr(0, colon));
  const bool six = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (six) host = host.substr(1, host.size() - 2);
  in6_addr parsed{};
  return port && *port > 0 && ::inet_pton(six ? AF_INET6 : AF_INET, host.c_str(), &parsed) == 1;
}

Result<std::vector<std::string>> parse_listen(std::string_view text) {
  auto addresses = words_of(text);
  for (const std::string& address : addresses) {
    if (is_listenable(address)) continue;
    return refuse(address,
                  "is neither ADDRESS:PORT nor the absolute path of a socket; write e.g. 127.0.0.1:8787, "
                  "[::1]:8787 or /run/analysis-watchdog-web/http");
  }
  if (addresses.empty()) return refuse(text, "is no address; write e.g. 127.0.0.1:8787");
  return addresses;
}

/// As the names of a Host header are compared: without a port, in lower case.
Result<std::vector<std::string>> parse_hosts(std::string_view text) {
  auto hosts = words_of(text);
  for (std::string& host : hosts) {
    std::ranges::transform(host, host.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const bool plain = std::ranges::all_of(host, [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == '[' || c == ']' || c == ':';
    });
    if (!plain || (host.find(':') != std::string::npos && !host.starts_with('['))) {
      return refuse(host, "is no name or address of a host without a port; write e.g. batch1.example.org");
    }
  }
  return hosts;
}

Result<fs::path> parse_optional_path(std::string_view text) {
  if (text.empty()) return fs::path();
  return parse_path(text);
}

std::string format_path(fs::path path) { return path.string(); }  // NOLINT(performance-unnecessary-value-param): Kind

Result<supervise::OrphanPolicy> parse_orphans(std::string_view text) {
  if (const auto policy = supervise::parse_orphan_policy(text)) return *policy;
  return refuse(text, "is neither kill nor report");
}

Result<supervise::OwnerPolicy> parse_owner(std::string_view text) {
  if (const auto policy = supervise::parse_owner_policy(text)) return *policy;
  return refuse(text, "is neither kill nor ignore");
}

template <class Policy>
std::string format_policy(Policy policy) {
  return std::string(supervise::to_string(policy));
}

constexpr Kind<Bytes> kMemoryLimit{parse_memory_limit, format_size};
constexpr Kind<Bytes> kLedgerSize{parse_ledger_size, format_size};
constexpr Kind<std::optional<Bytes>> kHeadroom{parse_headroom, format_headroom};
constexpr Kind<Span> kTimeLimit{parse_time_limit, format_span};
constexpr Kind<Span> kKeepingTime{parse_time_limit, format_days};
constexpr Kind<fs::path> kPath{parse_path, format_path};
constexpr Kind<fs::path> kOptionalPath{parse_optional_path, format_path};
constexpr Kind<std::string> kUri{parse_uri, format_uri};
constexpr Kind<std::vector<std::string>> kSchemas{parse_schemas, format_words};
constexpr Kind<std::vector<std::string>> kListen{parse_listen, format_words};
constexpr Kind<std::vector<std::string>> kHosts{parse_hosts, format_words};
constexpr Kind<Span> kInterval{parse_interval, format_span};
constexpr Kind<Span> kSampling{parse_sampling, format_sampling};
constexpr Kind<std::uint64_t> kPoints{parse_points, format_count};
constexpr Kind<Span> kCpuQuota{parse_cpu_quota, format_cpu_quota};
constexpr Kind<std::uint64_t> kCount{parse_count, format_count};
constexpr Kind<std::optional<std::uint64_t>> kWeight{parse_weight, format_weight};
constexpr Kind<unsigned> kPercentage{parse_percentage, format_percentage};
constexpr Kind<bool> kSwitch{parse_switch, format_switch};
constexpr Kind<unsigned> kSeries{parse_series, format_series};
constexpr Kind<supervise::OrphanPolicy> kOrphanPolicy{parse_orphans, format_policy};
constexpr Kind<supervise::OwnerPolicy> kOwnerPolicy{parse_owner, format_policy};

// ---- The table of keys ----

struct Key {
  std::string_view section;
  std::string_view name;
  std::string_view meaning;
  std::string default_text;
  std::function<Result<void>(Settings&, std::string_view)> assign;
  std::function<void(Settings&)> reset;
};

/// A key whose value is of `kind` and stands in `field` of the settings' `group`.
template <class T, class Group>
Key key(std::string_view section, std::string_view name, Kind<T> kind, Group Settings::*group, T Group::*field,
        std::string_view meaning) {
  const T fallback = (Settings().*group).*field;
  const auto assign = [=](Settings& settings, std::string_view text) -> Result<void> {
    auto value = kind.parse(text);
    if (!value) return std::move(value).error();
    (settings.*group).*field = *std::move(value);
    return {};
  };
  const auto reset = [=](Settings& settings) { (settings.*group).*field = fallback; };
  return {section, name, meaning, kind.format(fallback), assign, reset};
}

// One row of the documentation each, in its order.
const std::vector<Key>& keys() {
  static const std::vector<Key> kTable = {
      key("Defaults", "MemoryLimit", kMemoryLimit, &Settings::defaults, &Limits::memory,
          "Memory that a run may hold and that can't be reclaimed; page cache does not count."),
      key("Defaults", "MemoryHeadroom", kHeadroom, &Settings::defaults, &Limits::headroom,
          "How far above its limit a run may go while it is being ended; empty: an eighth of it, at least 64M."),
      key("Defaults", "WallClockLimit", kTimeLimit, &Settings::defaults, &Limits::wall_clock,
          "How long a run may last."),
      key("Defaults", "Grace", kTimeLimit, &Settings::defaults, &Limits::grace,
          "The time between SIGTERM and cgroup.kill."),
      key("Defaults", "TasksMax", kCount, &Settings::defaults, &Limits::tasks_max,
          "How many processes and threads a run may have."),
      key("Defaults", "CPUQuota", kCpuQuota, &Settings::defaults, &Limits::cpu_quota_per_second,
          "CPU time that a run may use, in percent of one CPU."),
      key("Defaults", "CPUWeight", kWeight, &Settings::defaults, &Limits::cpu_weight,
          "A run's share of a busy CPU, 1 to 10000; empty: the kernel's 100."),
      key("Defaults", "OrphanPolicy", kOrphanPolicy, &Settings::defaults, &Limits::orphan_policy,
          "What happens to a process of a run whose parent has died: kill or report."),
      key("Defaults", "OwnerPolicy", kOwnerPolicy, &Settings::defaults, &Limits::owner_policy,
          "What happens to a run whose owner has died: kill or ignore."),

      key("Caps", "MaxMemoryLimit", kMemoryLimit, &Settings::caps, &Caps::memory,
          "The highest MemoryLimit that somebody who is no administrator may ask for."),
      key("Caps", "MaxWallClockLimit", kTimeLimit, &Settings::caps, &Caps::wall_clock,
          "The longest WallClockLimit that somebody who is no administrator may ask for."),
      key("Caps", "MaxGrace", kTimeLimit, &Settings::caps, &Caps::grace,
          "The longest Grace that somebody who is no administrator may ask for."),
      key("Caps", "MaxTasks", kCount, &Settings::caps, &Caps::tasks,
          "The highest TasksMax that somebody who is no administrator may ask for."),
      key("Caps", "MaxAnalysesPerUser", kCount, &Settings::caps, &Caps::analyses_per_user,
          "How many live runs one user who is no administrator may have."),
      key("Caps", "MaxMemoryPerUser", kMemoryLimit, &Settings::caps, &Caps::memory_per_user,
          "The highest sum of the MemoryLimits of the live runs of one user who is no administrator."),
      key("Caps", "MaxTasksPerUser", kCount, &Settings::caps, &Caps::tasks_per_user,
          "The highest sum of their TasksMax."),
      key("Caps", "MaxAnalyses", kCount, &Settings::caps, &Caps::analyses,
          "How many live runs this host carries, administrators' included."),

      key("Orphans", "Interval", kInterval, &Settings::orphans, &OrphanRounds::interval,
          "The time between two rounds that look for orphans in a run."),
      key("Orphans", "Confirmation", kInterval, &Settings::orphans, &OrphanRounds::confirmation,
          "The time between the first look at an orphan and the second, which decides."),

      key("Memory", "StallPressure", kPercentage, &Settings::stall, &StallRule::pressure_percent,
          "Full memory pressure, as the mean over StallTime, above which a run counts as stalled, 1% to 99%."),
      key("Memory", "StallTime", kTimeLimit, &Settings::stall, &StallRule::time,
          "The time over which a run must stall, on the whole, to be ended; infinity: it never is."),

      key("Series", "Interval", kSampling, &Settings::series, &SeriesRule::interval,
          "The time between two samples of a run whose memory moves; never: no run is sampled."),
      key("Series", "IdleInterval", kInterval, &Settings::series, &SeriesRule::idle,
          "The time between two samples of a run that rests."),
      key("Series", "Points", kPoints, &Settings::series, &SeriesRule::points,
          "How many samples are kept of a run, 16 to 4096; what is nearest to each other becomes one."),

      key("Ledger", "Path", kPath, &Settings::ledger, &LedgerSettings::path,
          "The file that holds the record of this host."),
      key("Ledger", "Retention", kKeepingTime, &Settings::ledger, &LedgerSettings::retention,
          "How long the events and the curves of ended runs are kept; infinity: for ever."),
      key("Ledger", "MaxSize", kLedgerSize, &Settings::ledger, &LedgerSettings::max_size,
          "The size of the file from which the oldest events of ended runs are deleted; infinity: none."),

      key("PostgreSQL", "PostgresUri", kUri, &Settings::postgres, &PostgresSettings::uri,
          "The shared store that events are brought to, as psql takes it, without a password; empty: none."),
      key("PostgreSQL", "SearchPath", kSchemas, &Settings::postgres, &PostgresSettings::schemas,
          "The schemas that our tables and the host application's are looked for in; empty: the role's own."),
      key("PostgreSQL", "PassFile", kOptionalPath, &Settings::postgres, &PostgresSettings::passfile,
          "libpq's file of passwords; empty: its default."),

      key("Web", "Listen", kListen, &Settings::web, &WebSettings::listen,
          "Where analysis-watchdog-web listens when systemd gives it no sockets: ADDRESS:PORT or a path."),
      key("Web", "TokenFile", kOptionalPath, &Settings::web, &WebSettings::token_file,
          "The file whose first line is the token that shows a reader everything; empty: there is none."),
      key("Web", "AllowedHosts", kHosts, &Settings::web, &WebSettings::allowed_hosts,
          "Names that readers may reach the gateway by, besides localhost, 127.0.0.1 and [::1]."),
      key("Web", "MetricsPerAnalysis", kSwitch, &Settings::web, &WebSettings::metrics_per_analysis,
          "yes: /metrics has series of each analysis for scrapers that may see its id."),
      key("Web", "MetricsPerAnalysisMax", kSeries, &Settings::web, &WebSettings::metrics_per_analysis_max,
          "Of so many analyses at most, those that use most memory."),
  };
  return kTable;
}

const Key* find_key(std::string_view section, std::string_view name) {
  const auto found = std::ranges::find_if(keys(), [&](const Key& k) { return k.section == section && k.name == name; });
  return found == keys().end() ? nullptr : &*found;
}

// ---- Suggestions ----

bool same_letter(char a, char b) {
  return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
}

/// How many letters must be typed, dropped or replaced to make `a` of `b`; case is free.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (same_letter(a[i], b[j]) ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({replaced, row[j + 1] + 1, row[j] + 1}));
    }
  }
  return row.back();
}

bool looks_like(std::string_view typed, std::string_view known) {
  const std::size_t most = std::max<std::size_t>(1, known.size() / 5);
  if (std::max(typed.size(), known.size()) - std::min(typed.size(), known.size()) > most) return false;
  return edit_distance(typed, known) <= most;
}

std::string suggest_key(std::string_view section, std::string_view name) {
  const Key* best = nullptr;
  for (const Key& candidate : keys()) {
    if (!looks_like(name, candidate.name)) continue;
    if (!best || candidate.section == section) best = &candidate;
  }
  if (!best) return "";
  const std::string where = best->section == section ? "" : " in [" + std::string(best->section) + "]";
  return "; did you mean " + std::string(best->name) + "=" + where + "?";
}

std::string suggest_section(std::string_view name) {
  for (const std::string_view known : kSections) {
    if (looks_like(name, known)) return "; did you mean [" + std::string(known) + "]?";
  }
  std::string all;
  for (const std::string_view known : kSections) all += (all.empty() ? "[" : ", [") + std::string(known) + "]";
  return "; the sections are " + all;
}

// ---- Lines ----

constexpr std::string_view kWhitespace = " \t\n\v\f\r";
constexpr int kMaxLine = 4096;

std::string_view trimmed_left(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kWhitespace), text.size()));
}

std::string_view trimmed(std::string_view text) {
  text = trimmed_left(text);
  return text.substr(0, text.find_last_not_of(kWhitespace) + 1);
}

/// The text in systemd's terms: lines that a backslash continues are one, comments and empty lines are none.
class LogicalLines {
 public:
  explicit LogicalLines(std::string_view text) : rest_(text) {
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
  }

  std::optional<std::string> next() {
    std::string line;
    bool continued = false;
    while (!rest_.empty()) {
      const std::string_view piece = take_physical_line();
      if (is_comment(piece)) continue;  // Between the pieces of a continued line too, as in systemd.
      if (!continued) number_ = physical_;
      line += piece;
      continued = ends_in_continuation(line);
      if (continued) {
        line.back() = ' ';
      } else if (trimmed(line).empty()) {
        line.clear();
      } else {
        return std::string(trimmed(line));
      }
    }
    if (trimmed(line).empty()) return std::nullopt;
    return std::string(trimmed(line));  // The last line of the text was to be continued.
  }

  /// Where the line that next() gave begins.
  unsigned number() const { return number_; }

 private:
  std::string_view take_physical_line() {
    ++physical_;
    const std::size_t end = std::min(rest_.find('\n'), rest_.size());
    std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    return trimmed_left(line);
  }

  static bool is_comment(std::string_view line) { return line.starts_with('#') || line.starts_with(';'); }

  /// "\\" escapes itself, so an odd number of them continues the line.
  static bool ends_in_continuation(std::string_view line) {
    const std::size_t end = line.find_last_not_of('\\');
    return (line.size() - (end == std::string_view::npos ? 0 : end + 1)) % 2 == 1;
  }

  std::string_view rest_;
  unsigned physical_ = 0;
  unsigned number_ = 0;
};

/// One file on its way through libinih. The library splits lines into section, key and value, but knows no line
/// numbers, tells of one mistake only, and also takes "Key: Value" and text behind "]". So it is handed, line by
/// line, what is well-formed and stands in a section that we know.
class Parsing {
 public:
  Parsing(const SourceFile& file, Settings& settings, std::vector<Problem>& problems)
      : file_(file), lines_(file.text), settings_(settings), problems_(problems) {}

  void run() {
    // Debian's libinih has its compile-time options as variables. This is systemd's dialect.
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_allow_bom = false;
    ini_max_line = kMaxLine;
    ini_parse_stream(on_read, this, on_pair, this);
  }

 private:
  static char* on_read(char* buffer, int size, void* self) noexcept {
    return static_cast<Parsing*>(self)->read(buffer, static_cast<std::size_t>(size));
  }

  static int on_pair(void* self, const char* section, const char* name, const char* value) noexcept {
    static_cast<Parsing*>(self)->assign(section, name, value);
    return 1;
  }

  /// fgets() for libinih.
  char* read(char* buffer, std::size_t size) {
    while (const auto line = lines_.next()) {
      if (!is_fit(*line, size)) continue;
      std::memcpy(buffer, line->c_str(), line->size() + 1);
      return buffer;
    }
    return nullptr;
  }

  bool is_fit(const std::string& line, std::size_t size) {
    if (line.size() >= size) return complain("this line is longer than " + std::to_string(size - 1) + " bytes");
    if (line.find('\0') != std::string::npos) return complain("this line holds a NUL byte");
    return line.starts_with('[') ? enter_section(line) : is_pair(line);
  }

  bool enter_section(const std::string& line) {
    place_ = Place::kElsewhere;
    if (!line.ends_with(']')) return complain("\"" + line + "\" is not a section; write [Section]");
    const std::string name = line.substr(1, line.size() - 2);
    if (std::ranges::find(kSections, name) == kSections.end()) {
      return complain("[" + name + "] is not known in this version" + suggest_section(name));
    }
    place_ = Place::kSection;
    return true;
  }

  bool is_pair(const std::string& line) {
    if (place_ == Place::kElsewhere) return false;  // The section was complained of; that is enough.
    const std::size_t separator = line.find_first_of("=:");
    if (separator == 0 || separator == std::string::npos || line[separator] != '=') {
      return complain("\"" + line + "\" is not Key=Value");
    }
    return place_ == Place::kSection || complain("\"" + line + "\" stands before the first [Section]");
  }

  void assign(std::string_view section, std::string_view name, std::string_view value) {
    const Key* known = find_key(section, name);
    const std::string shown = std::string(name) + "=";
    if (!known) {
      complain(shown + " is not known in [" + std::string(section) + "] in this version" + suggest_key(section, name));
    } else if (value.empty()) {
      known->reset(settings_);
    } else if (auto assigned = known->assign(settings_, value); !assigned) {
      complain(std::move(assigned).error().within(shown).message);
    }
  }

  /// Always false: the line is of no use.
  bool complain(std::string message) {
    problems_.push_back({file_.name, lines_.number(), std::move(message)});
    return false;
  }

  enum class Place { kBeforeSections, kSection, kElsewhere };

  const SourceFile& file_;
  LogicalLines lines_;
  Settings& settings_;
  std::vector<Problem>& problems_;
  Place place_ = Place::kBeforeSections;
};

Settings parse_into(const std::vector<SourceFile>& files, std::vector<Problem>& problems) {
  Settings settings;
  for (const SourceFile& file : files) Parsing(file, settings, problems).run();
  return settings;
}

// ---- Files ----

constexpr std::size_t kMaxFile = 1024 * 1024;

bool is_null_device(const struct stat& status) { return S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3); }

Result<std::string> read_all(int fd) {
  std::string text;
  std::array<char, 8192> chunk{};
  while (true) {
    const ssize_t count = ::read(fd, chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("read");
    if (count == 0) return text;
    text.append(chunk.data(), static_cast<std::size_t>(count));
    if (text.size() > kMaxFile) return invalid("it is larger than 1M, so this is no configuration");
  }
}

Result<std::string> read_config(const fs::path& path) {
  // Non-blocking, so that a FIFO can't hold us up before we have seen that it is one.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return errno_error("open");
  struct stat status {};
  if (::fstat(fd.get(), &status) < 0) return errno_error("stat");
  if (is_null_device(status)) return std::string();
  if (!S_ISREG(status.st_mode)) return invalid("it is neither a regular file nor a link to /dev/null");
  return read_all(fd.get());
}

bool is_dropin_name(const std::string& name) { return name.ends_with(".conf") && !name.starts_with('.'); }

using Dropins = std::map<std::string, fs::path>;  // By file name, which is their order.

void add_dropins(const fs::path& dir, Dropins& dropins, std::vector<Problem>& problems) {
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  while (!error && entry != fs::directory_iterator()) {
    const std::string name = entry->path().filename().string();
    if (is_dropin_name(name)) dropins.emplace(name, entry->path());  // An earlier directory's stays.
    entry.increment(error);
  }
  if (error && error != std::errc::no_such_file_or_directory) problems.push_back({dir, 0, error.message()});
}

/// What `path` holds, or a problem.
std::optional<SourceFile> find_source(const fs::path& path, MainFile presence, std::vector<Problem>& problems) {
  auto text = read_config(path);
  if (text) return SourceFile{path, *std::move(text)};
  const bool absent = text.error().code == std::errc::no_such_file_or_directory;
  if (!absent || presence == MainFile::kMustExist) problems.push_back({path, 0, text.error().message});
  return std::nullopt;
}

}  // namespace

std::string to_string(const Problem& problem) {
  const std::string line = problem.line == 0 ? "" : ":" + std::to_string(problem.line);
  return problem.file.string() + line + ": " + problem.message;
}

std::vector<KnownKey> known_keys() {
  std::vector<KnownKey> known;
  for (const Key& k : keys()) {
    known.push_back({std::string(k.section), std::string(k.name), std::string(k.meaning), k.default_text});
  }
  return known;
}

std::variant<Settings, std::vector<Problem>> parse_settings(const std::vector<SourceFile>& files) {
  std::vector<Problem> problems;
  Settings settings = parse_into(files, problems);
  if (!problems.empty()) return problems;
  return settings;
}

std::variant<Settings, std::vector<Problem>> load_settings(const SearchPath& path) {
  std::vector<Problem> problems;
  Dropins dropins;
  for (const fs::path& dir : path.dropin_dirs) add_dropins(dir, dropins, problems);

  std::vector<SourceFile> files;
  if (auto main_file = find_source(path.main_file, path.presence, problems)) files.push_back(*std::move(main_file));
  for (const auto& [name, dropin] : dropins) {
    // A drop-in was in the directory just now: a link that leads nowhere is a mistake, not an absence.
    if (auto source = find_source(dropin, MainFile::kMustExist, problems)) files.push_back(*std::move(source));
  }

  Settings settings = parse_into(files, problems);
  if (!problems.empty()) return problems;
  if (settings.ledger.path == LedgerSettings().path) settings.ledger.path = path.ledger;
  return settings;
}

SearchPath user_search_path() {
  const char* home = std::getenv("HOME");
  const auto find_base = [home](const char* variable, const char* below_home) {
    const char* set = std::getenv(variable);
    if (set != nullptr && *set == '/') return fs::path(set);
    return home != nullptr ? fs::path(home) / below_home : fs::path("/nonexistent");
  };
  const fs::path base = find_base("XDG_CONFIG_HOME", ".config");
  SearchPath path;
  path.ledger = find_base("XDG_STATE_HOME", ".local/state") / "analysis-watchdog/ledger.db";
  path.main_file = base / "analysis-watchdog/analysis-watchdog.conf";
  path.dropin_dirs = {base / "analysis-watchdog/analysis-watchdog.conf.d",
                      "/usr/lib/analysis-watchdog/analysis-watchdog.conf.d"};
  return path;
}

}  // namespace aw::config
