// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"

#include <array>

#include "analysis_watchdog/names.h"

namespace aw::api {
namespace {

using record::Histogram;
using record::HistogramFamily;
using record::Metric;
using record::MetricFamily;
using record::MetricType;
using supervise::Delays;
using supervise::Tally;

double seconds(Span span) { return std::chrono::duration<double>(span).count(); }

MetricFamily family(const char* name, MetricType type, const char* help, double value) {
  return {name, type, help, {{{}, value}}};
}
MetricFamily gauge(const char* name, const char* help, double value) {
  return family(name, MetricType::kGauge, help, value);
}
MetricFamily gauge(const char* name, const char* help, std::uint64_t value) {
  return gauge(name, help, static_cast<double>(value));
}
MetricFamily counter(const char* name, const char* help, std::uint64_t value) {
  return family(name, MetricType::kCounter, help, static_cast<double>(value));
}

/// One number for each word, those that are 0 included: a series that begins at 1 has no increase.
template <std::size_t N, class Count>
MetricFamily by_word(MetricFamily family, const char* label, const std::array<std::string_view, N>& words,
                     const std::array<Count, N>& counts) {
  family.metrics.clear();
  for (std::size_t i = 0; i < N; ++i) {
    family.metrics.push_back({{{label, std::string(words.at(i))}}, static_cast<double>(counts.at(i))});
  }
  return family;
}

Histogram histogram(bus::StringMap labels, const Delays& delays) {
  Histogram histogram{std::move(labels), {}, delays.count(), seconds(delays.sum())};
  for (std::size_t i = 0; i < Delays::kBounds.size(); ++i) {
    histogram.buckets.emplace_back(seconds(Delays::kBounds.at(i)), delays.up_to(i));
  }
  return histogram;
}

/// What is ended for another reason gets no SIGTERM from us.
constexpr std::array kSignalledFor{Reason::kWallClock, Reason::kMemory, Reason::kOrphaned, Reason::kRequested};

HistogramFamily breach_to_signal(const Tally& tally) {
  HistogramFamily family{
      "breach_to_signal_seconds", "From what showed a reason to end a run to its SIGTERM, by reason", {}};
  for (const Reason reason : kSignalledFor) {
    family.histograms.push_back(histogram({{"reason", std::string(to_string(reason))}},
                                          tally.breach_to_signal.at(static_cast<std::size_t>(reason))));
  }
  return family;
}

MetricFamily runs_by_state(const supervise::Supervisor& supervisor) {
  std::array<std::uint64_t, kStateWords.size()> counts{};
  for (const auto& [key, run] : supervisor.runs()) ++counts.at(static_cast<std::size_t>(run->state()));
  return by_word(gauge("runs", "Live runs, by state", 0.0), "state", kStateWords, counts);
}

/// What is refused for a reason of ours is there from the beginning, as in by_word().
constexpr std::array kErrors{
    names::error::kInvalidId,        names::error::kInvalidOption, names::error::kAlreadyRegistered,
    names::error::kNoSuchAnalysis,   names::error::kNoSuchProcess, names::error::kProcessAlreadyRegistered,
    names::error::kProtectedProcess, names::error::kLimitTooHigh,  names::error::kRecordUnavailable,
    names::error::kTooManyAnalyses,  names::error::kScopeFailed,   names::error::kAccessDenied};

MetricFamily refused(Refusals refusals) {
  MetricFamily family{"refusals", MetricType::kCounter, "Calls on the bus that were refused, by error", {}};
  for (const char* error : kErrors) refusals[last_word(error)];
  for (const auto& [error, count] : refusals) {
    family.metrics.push_back({{{"error", error}}, static_cast<double>(count)});
  }
  return family;
}

}  // namespace

std::string last_word(std::string_view error_name) { return std::string(error_name.substr(error_name.rfind('.') + 1)); }

record::Metrics collect_metrics(const supervise::Supervisor& supervisor, const Refusals& refusals, const Vitals& vitals,
                                std::uint32_t kills_last_24h, std::size_t calls_waiting, const std::string& version) {
  const Tally& tally = supervisor.tally();
  const auto events_of = [&](const char* name, const char* help, EventKind kind) {
    return counter(name, help, tally.events_of(kind));
  };
  record::Metrics metrics;
  auto& families = metrics.families;
  families.push_back({"build_info", MetricType::kInfo, "The daemon's version", {{{{"version", version}}, 1}}});

  families.push_back(runs_by_state(supervisor));
  families.push_back(events_of("registrations", "Runs that were registered", EventKind::kRegistered));
  families.push_back(events_of("adoptions", "Runs that were watched again after a start", EventKind::kAdopted));
  families.push_back(events_of("unregistrations", "Runs that were released by request", EventKind::kUnregistered));
  families.push_back(
      by_word(counter("runs_ended", "Runs that ended, by reason", 0), "reason", kReasonWords, tally.ends));
  families.push_back(
      gauge("kills_last_24h", "Ends in the last 24 hours that were not \"exited\"", std::uint64_t{kills_last_24h}));
  families.push_back(events_of("endings", "Runs that were about to be sent SIGTERM", EventKind::kEnding));
  families.push_back(
      events_of("escalations", "Runs that outlived their grace, and were killed", EventKind::kEscalated));
  families.push_back(events_of("unkillable_runs", "Runs that survived SIGKILL for a time", EventKind::kUnkillable));
  families.push_back(
      gauge("unkillable_processes", "Processes that survive SIGKILL", supervisor.unkillable_processes()));
  families.push_back(events_of("orphans_found", "Processes whose parent died", EventKind::kOrphanFound));
  families.push_back(events_of("escapes", "Processes that were moved out of their run", EventKind::kEscaped));
  families.push_back(events_of("unreaped_runs", "Runs that left zombies", EventKind::kUnreaped));
  families.push_back(counter("limits_restored", "Times that changed limits were put back", tally.limits_restored));
  families.push_back(
      counter("units_restored", "Times that a unit that systemd had lost was replaced", tally.units_restored));
  families.push_back(refused(refusals));
  families.push_back(gauge("calls_waiting", "Calls on the bus that wait for their turn", std::uint64_t{calls_waiting}));
  families.push_back(
      counter("inotify_overflows", "Times that the kernel's queue of cgroup events overflowed", tally.events_lost));
  families.push_back(gauge("polled_runs", "Runs that are polled for want of inotify watches", vitals.polled));

  families.push_back(gauge("ledger_queued_entries", "Entries on their way to the ledger's disk", vitals.ledger_queued));
  families.push_back(
      counter("ledger_lost_entries", "Entries that the ledger has refused or had no room for", vitals.ledger_lost));
  families.push_back(gauge("ledger_healthy", "1: the ledger takes writes", vitals.ledger_healthy ? 1.0 : 0.0));
  families.push_back(gauge("journal_queued_records", "Records on their way to the journal", vitals.journal_queued));
  families.push_back(
      gauge("journal_healthy", "1: no record for the journal was lost", vitals.journal_healthy ? 1.0 : 0.0));
  families.push_back(gauge("unshipped_events", "Records that are not where they belong yet", vitals.unshipped));
  if (vitals.unshipped_by_shipper) {
    families.push_back(
        gauge("shipper_backlog_events", "Records in the ledger that PostgreSQL lacks", *vitals.unshipped_by_shipper));
  }

  families.push_back({"daemon_cpu_seconds",
                      MetricType::kCounter,
                      "CPU time of the daemon, user and system",
                      {{{}, seconds(vitals.usage.cpu)}}});
  families.push_back(
      gauge("daemon_resident_memory_bytes", "Resident memory of the daemon", vitals.usage.resident.count()));
  families.push_back(gauge("daemon_open_fds", "Open descriptors of the daemon", vitals.usage.descriptors));
  families.push_back(gauge("daemon_max_fds", "Descriptors that the daemon may have", vitals.usage.most_descriptors));
  families.push_back(gauge("daemon_start_time_seconds", "When the daemon started, in seconds since 1970",
                           seconds(vitals.started.time_since_epoch())));

  metrics.histograms.push_back(breach_to_signal(tally));
  metrics.histograms.push_back({"deadline_lateness_seconds",
                                "How late SIGTERM was behind the deadline; a daemon that was away counts",
                                {histogram({}, tally.deadline_lateness)}});
  return metrics;
}

}  // namespace aw::api
