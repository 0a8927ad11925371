// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "postgres/connection.h"
#include "supervise/event_record.h"

namespace aw::postgres {

/// Which events a reader wants of the shared store.
struct EventQuery {
  std::optional<WallTime> since = {};
  std::optional<WallTime> until = {};  ///< that moment included
  std::optional<std::string> host = {};
  std::optional<std::string> analysis_id = {};  ///< as registered
  std::optional<std::string> run_id = {};       ///< a UUID
  std::optional<Reason> reason = {};
  std::optional<EventKind> kind = {};
  std::size_t limit = 100;
};

/// A statement and the values of its parameters $1, $2, …
struct Select {
  std::string sql;
  std::vector<std::string> parameters;
};

/// What read_events() asks. Only the wanted conditions stand in it, so that each kind of query gets its index.
Select select_events(const EventQuery& query);

/// Newest first. Events of a kind or reason that this program does not know, which a newer host has written, are left
/// out. Fails with Fault::kNoSchema where there is no store.
Result<std::vector<supervise::EventRecord>> read_events(Connection& connection, const EventQuery& query);

}  // namespace aw::postgres
