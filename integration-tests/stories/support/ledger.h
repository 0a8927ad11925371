// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace aw::stories {

inline constexpr char kLedgerFile[] = "/var/lib/analysis-watchdog/ledger.db";

/// What the ledger's file has, read by somebody else's SQLite: the events for which `where` holds, oldest first.
std::vector<nlohmann::json> read_ledger(const std::string& where);

/// What `PRAGMA integrity_check` says of it: "ok", or what is wrong.
std::string ledger_integrity();

}  // namespace aw::stories
