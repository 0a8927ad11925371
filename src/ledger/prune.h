// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>

#include "base/time.h"
#include "ledger/database.h"

namespace aw::ledger {

/// What may go: events that are older, of runs that have ended and of the daemon itself.
struct PruneOrder {
  WallTime older_than;
  std::int64_t up_to_seq = std::numeric_limits<std::int64_t>::max();  ///< what is above it has not been shipped yet

  bool operator==(const PruneOrder&) const = default;
};

struct PruneStep {
  std::int64_t deleted = 0;
  bool done = false;
};

/// Deletes a small batch of events, with the analyses that are known for nothing else any more, or gives a part of the
/// free space back to the file system; each in a short transaction, so that nobody waits for long. To be repeated until
/// done.
Result<PruneStep> prune_step(Database& database, const PruneOrder& order);

/// Deletes about a tenth of the events, 50,000 at most, whatever their age and shipped or not: first what is more than
/// 100 changes of one run, then those of the lowest numbers; of a live run only changes. For a file of at most
/// `most_pages` that is full: it may grow by a few pages meanwhile. How many there were.
Result<std::int64_t> prune_oldest(Database& database, std::uint32_t most_pages);

/// All steps, for a program that is not the ledger's keeper. How many events were deleted.
Result<std::int64_t> prune(const std::filesystem::path& path, const PruneOrder& order);

}  // namespace aw::ledger
