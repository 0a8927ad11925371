// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/time.h"

namespace aw::cli {

/// What --older-than means: a span before `now` ("90d"), or a moment as --since takes it. A bare number, which would
/// be seconds, and a moment to come are refused: what is deleted is gone.
Result<WallTime> parse_older_than(const std::string& text, WallTime now);

/// The newest event of the ledger that may be pruned: what the shared store has, by the shipper's word. Nothing may
/// (0) while there is none.
Result<std::int64_t> read_prunable_seq(const std::filesystem::path& ledger, const std::filesystem::path& shipped);

/// The numbered files of the shared store's schema: beside this program's own prefix, or where they were installed.
std::filesystem::path migrations_directory();

}  // namespace aw::cli
