// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "postgres/connection.h"
#include "supervise/series.h"

namespace aw::postgres {

/// A curve and the number of its change in the ledger it comes from.
struct OutboxSeries {
  std::int64_t change = 0;
  supervise::SeriesRow row;
};

struct SeriesBatch {
  std::string host;
  std::string ledger_id;
  std::int64_t up_to = 0;  ///< the cursor afterwards; what could not be read is passed over
  std::span<const OutboxSeries> series;
};

struct ShippedSeries {
  std::size_t stored = 0;
  std::size_t refused = 0;  ///< for their own sake: passed over
  std::string error;        ///< of the last of those
};

/// The last change of that ledger that the database has; 0 if none. read_cursor() has looked whether this program may
/// write there.
Result<std::int64_t> read_series_cursor(Connection& connection, const std::string& host, const std::string& ledger_id);

/// Puts the curves in place of those that are there, and the cursor to `up_to`, in one transaction. May be repeated; a
/// curve that ends earlier than the one that is there changes nothing.
Result<ShippedSeries> insert_series(Connection& connection, const SeriesBatch& batch);

}  // namespace aw::postgres
