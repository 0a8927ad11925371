// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

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

}  // namespace aw::ledger
