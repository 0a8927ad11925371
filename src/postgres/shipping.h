// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "postgres/connection.h"
#include "supervise/event_record.h"

namespace aw::postgres {

/// An event and its place in the ledger it comes from.
struct OutboxEvent {
  std::int64_t seq = 0;  ///< > 0, rising; gaps are fine
  supervise::EventRecord record;
};

/// What is shipped at once.
struct Batch {
  std::string host;
  std::string ledger_id;
  std::int64_t after = 0;  ///< the cursor that these follow, as read_cursor() or the last call has said
  std::span<const OutboxEvent> events;
};

struct Shipped {
  /// kRewound: the database has less than the batch follows (a failover to a server that was behind, a restored
  /// backup). Nothing was done; go on from `cursor`.
  enum class Outcome { kShipped, kRewound };
  Outcome outcome = Outcome::kShipped;
  std::int64_t cursor = 0;   ///< the last that the database has dealt with
  std::size_t inserted = 0;  ///< rows that are new
  std::size_t repeated = 0;  ///< … that were there before
  std::size_t refused = 0;   ///< … that are in watchdog_refused now
  std::size_t unlinked = 0;  ///< … that wait for link_events()
};

/// The last event of that ledger that the database has; 0 if none. To be asked on each new connection, because the
/// server may be another. Fails with Fault::kNoSchema or kNewerSchema where this program must not write.
Result<std::int64_t> read_cursor(Connection& connection, const std::string& host, const std::string& ledger_id);

/// Inserts the events and brings watchdog_processes up to them, in one transaction: all is done, with the cursor
/// after the last event, or nothing is. May be repeated with the same events, or some of them. An event that is refused
/// for its own sake is set aside in watchdog_refused, and the others pass. An event whose analysis nobody knows, or
/// that is deleted meanwhile, is inserted with a NULL analysis_id; one whose analysis is locked, too, and noted
/// for link_events(). Where the table `analyses` is kept by us, it has the id of a run from the run's first event on.
Result<Shipped> insert_events(Connection& connection, const Batch& batch);

/// An event that PostgreSQL has refused for its own sake.
struct Refusal {
  std::int64_t seq = 0;
  std::string event_id;  ///< as it was: it may be what was wrong
  std::string error;
};

/// The refused events of that ledger whose place is above `after`, in order, at most `limit`.
Result<std::vector<Refusal>> read_refusals(Connection& connection, const std::string& host,
                                           const std::string& ledger_id, std::int64_t after, std::size_t limit);

/// Has all events and curves of that ledger sent again; those that the database has are passed over. For a ledger that was put
/// back to an earlier state (a restored backup), whose new events have numbers that were used before.
Result<void> reset_cursor(Connection& connection, const std::string& host, const std::string& ledger_id);

struct Linked {
  std::size_t linked = 0;   ///< events that have their analysis_id now
  std::size_t waiting = 0;  ///< ids that are still locked
};

/// Fills in the analysis_id of events that were inserted while somebody held a lock on the row of their analysis.
/// Waits a tenth of a second at most for each such id. To be called now and then while something is unlinked.
Result<Linked> link_events(Connection& connection, const std::string& host);

}  // namespace aw::postgres
