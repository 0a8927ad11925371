// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "postgres/connection.h"

namespace aw::postgres {

/// The version of the schema that this program knows: the number of the last file in migrations/postgresql/.
inline constexpr int kSchemaVersion = 2;

struct Migration {
  int version = 0;
  std::string name;
};

struct Migrated {
  std::vector<Migration> applied;  ///< now, in order; empty: nothing was to be done
  int version = 0;                 ///< of the schema afterwards
};

/// Brings the schema to the last of the numbered files (NNNN_name.sql) in `directory`, each in a transaction of its
/// own. May be called by two at once. Where the first schema of `schemas` does not exist, it is made. Fails without
/// changing anything where the schema is newer than the files (Fault::kNewerSchema), or where a file is not what was
/// applied under its number (Fault::kSettings); otherwise what was applied before the failure stays.
Result<Migrated> migrate(Connection& connection, const std::filesystem::path& directory);

/// The version of the schema; 0 where there is none.
Result<int> read_schema_version(Connection& connection);

}  // namespace aw::postgres
