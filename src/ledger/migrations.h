// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ledger/database.h"

namespace aw::ledger {

/// One file of migrations/sqlite/, as it was when the program was built.
struct Migration {
  int version;
  std::string_view name;
  std::string_view sql;
};

/// All of them, in order; their versions are 1, 2, 3, …
std::span<const Migration> migrations();

/// Brings the schema up to the last of `steps`, each in a transaction of its own; `PRAGMA user_version` says how far it
/// is. A schema that is newer than that is refused, std::errc::not_supported.
Result<void> migrate(Database& database, std::span<const Migration> steps = migrations());

struct Migrated {
  std::vector<std::string> applied;  ///< now, in order; empty: nothing was to be done
  int version = 0;                   ///< of the schema afterwards
};

/// The same for a program that is not the ledger's keeper, whether that runs or not. The file must be there.
Result<Migrated> migrate_file(const std::filesystem::path& path, std::span<const Migration> steps = migrations());

/// A ledger that is there, for a program that is not its keeper: migrated, durable, its log kept.
Result<Database> open_for_upkeep(const std::filesystem::path& path, std::span<const Migration> steps = migrations());

}  // namespace aw::ledger
