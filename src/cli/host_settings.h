// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "bus/connection.h"
#include "config/settings.h"
#include "postgres/connection.h"

namespace aw::cli {

/// The daemon's configuration as the tools read it: where the stores are. `file` takes the place of the main file, and
/// then every mistake is an error. Otherwise a mistake is a warning and the defaults hold: a broken configuration must
/// not stand between a person and the record.
Result<config::Settings> read_settings(bus::BusKind bus, const std::string& file, std::vector<std::string>& warnings);

/// The shared store as this caller reaches it: a person does not wait long, and has their own ~/.pgpass where the
/// configured file of passwords is not for them.
postgres::Target shared_store(const config::PostgresSettings& settings, postgres::Access access);

}  // namespace aw::cli
