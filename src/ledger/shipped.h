// SPDX-License-Identifier: Apache-2.0
//
// How far the shared store has this host's events. The shipper may not write to the ledger, and nobody waits for the
// shipper: it leaves the number in a small file, for the daemon's UnshippedEvents and for who prunes the ledger. What
// is above the number, or anything while there is none, must stay in the ledger.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"

namespace aw::ledger {

/// Where the shipper leaves it.
inline constexpr char kShippedFile[] = "/var/lib/analysis-watchdog-shipper/shipped";
/// … of a user's own watchdog: below $XDG_STATE_HOME (~/.local/state).
std::filesystem::path user_shipped_file();

/// The seq of the last event of that ledger that PostgreSQL has dealt with. Nothing where that is not known: the file
/// is missing, is about another ledger, or is not what the shipper writes. Reads a small file and never waits, whatever
/// stands in its place.
std::optional<std::int64_t> read_shipped_seq(const std::filesystem::path& file, const std::string& ledger_id);

/// Replaces the file as a whole; its directory is there.
Result<void> write_shipped_seq(const std::filesystem::path& file, const std::string& ledger_id, std::int64_t seq);

}  // namespace aw::ledger
