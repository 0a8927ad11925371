// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analysis_watchdog/words.h"
#include "base/result.h"
#include "base/time.h"
#include "bus/value.h"

namespace aw::cli {

/// Which events are wanted, as typed.
struct EventOptions {
  std::string since = {}, until = {}, id = {}, reason = {}, kind = {};
  std::uint32_t limit = 100;
  bool follow = false;
};

/// Which events are wanted, of whatever store.
struct EventQuery {
  std::optional<WallTime> since = {};
  std::optional<WallTime> until = {};           ///< that moment included
  std::optional<std::string> analysis_id = {};  ///< as registered
  std::optional<std::string> run_id = {};
  std::optional<Reason> reason = {};
  std::optional<EventKind> kind = {};
  std::size_t limit = 100;
};

/// The error names the option that is wrong.
Result<EventQuery> parse_event_query(const EventOptions& options, WallTime now);

/// As many events as one ListEvents returns: the daemon cuts it to its own maximum.
inline constexpr std::uint32_t kMostEvents = UINT32_MAX;

/// What ListEvents is asked for. It knows no `until` and no `run_id`: narrow() leaves the rest of its answer out.
bus::Dict to_filter(const EventQuery& query);

/// Leaves of events, newest first, the last `limit` that the query wants.
void narrow(std::vector<bus::Dict>& newest_first, const EventQuery& query);

}  // namespace aw::cli
