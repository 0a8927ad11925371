// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/own_usage.h"
#include "base/time.h"
#include "record/metrics.h"
#include "supervise/supervisor.h"

namespace aw::api {

/// What the daemon knows of itself and its stores, beside what the supervisor counts.
struct Vitals {
  std::uint64_t ledger_queued = 0;  ///< entries that are not on the disk yet
  std::uint64_t ledger_lost = 0;    ///< entries that never will be
  bool ledger_healthy = true;
  std::uint64_t journal_queued = 0;  ///< records that are not with the journal yet
  bool journal_healthy = true;
  std::uint64_t unshipped = 0;  ///< as UnshippedEvents
  std::optional<std::uint64_t>
      unshipped_by_shipper{};  ///< of them those on the disk; none where there is no PostgreSQL
  std::uint64_t polled = 0;    ///< runs for which no inotify watch could be had
  OwnUsage usage;
  WallTime started;
};

/// What was refused on the bus, by the last word of the error's name.
using Refusals = std::map<std::string, std::uint64_t>;
std::string last_word(std::string_view error_name);

/// All that GetMetrics tells. Counts alone: nothing in it names anybody.
record::Metrics collect_metrics(const supervise::Supervisor& supervisor, const Refusals& refusals, const Vitals& vitals,
                                std::uint32_t kills_last_24h, std::size_t calls_waiting, const std::string& version);

}  // namespace aw::api
