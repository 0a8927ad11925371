// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bus/connection.h"
#include "cli/advise.h"
#include "cli/event_query.h"
#include "cli/json.h"
#include "cli/limit_options.h"

namespace aw::cli {

/// What all commands of analysisctl share.
struct Common {
  JsonStyle json = JsonStyle::kOff;
  bool pager = true;
  bool legend = true;
  bus::BusKind bus = bus::BusKind::kSystem;
};

/// Whose record is wanted, and where the configuration is that says where the record is; as typed.
struct RecordPlace {
  std::string config = {}, host = {};
  bool all_hosts = false;
};

/// What is to be brought up to date, as typed.
struct MigrateOptions {
  std::string config = {};
  std::string postgres = {};              ///< an address instead of the configured one
  std::filesystem::path migrations = {};  ///< of its schema; empty: where they were installed
};

struct PruneOptions {
  std::string config = {};
  std::string older_than = {};  ///< a moment or a span; empty: Retention=
};

// Each returns the exit status: 0, or 1 with the error on stderr.
int list_command(const Common& common);
int show_command(const Common& common, const std::string& id);
int status_command(const Common& common);
int events_command(const Common& common, const EventOptions& options, const RecordPlace& place);
int explain_command(const Common& common, const std::string& id, const std::string& run, const RecordPlace& place);
int advise_command(const Common& common, const RunPattern& pattern, const RecordPlace& place);
int migrate_command(const Common& common, const MigrateOptions& options);
int prune_command(const Common& common, const PruneOptions& options);
int doctor_command(const Common& common);
int register_command(const Common& common, const std::string& id, const std::string& pid, const LimitOptions& limits);
int simple_command(const Common& common, const char* method, const std::string& id);  ///< a method that takes the id
int extend_command(const Common& common, const std::string& id, const std::string& span);
int set_command(const Common& common, const std::string& id, const std::vector<std::string>& assignments);

}  // namespace aw::cli
