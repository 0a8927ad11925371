// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

/// As many events as one ListEvents returns: the daemon cuts it to its own maximum.
inline constexpr std::uint32_t kMostEvents = UINT32_MAX;

/// What ListEvents is asked for, and what is wanted of its answer.
struct EventQuery {
  bus::Dict filter;               ///< as ListEvents takes it
  std::optional<WallTime> until;  ///< the last moment wanted; ListEvents knows no such filter
  std::uint32_t limit = 0;

  /// Leaves of the answer, newest first, the last `limit` events up to `until`.
  void narrow(std::vector<bus::Dict>& newest_first) const;
};

/// The error names the option that is wrong.
Result<EventQuery> parse_event_query(const EventOptions& options, WallTime now);

}  // namespace aw::cli
