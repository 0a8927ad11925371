// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "bus/connection.h"
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

// Each returns the exit status: 0, or 1 with the error on stderr.
int list_command(const Common& common);
int show_command(const Common& common, const std::string& id);
int status_command(const Common& common);
int events_command(const Common& common, const EventOptions& options);
int top_command(const Common& common);
int doctor_command(const Common& common);
int register_command(const Common& common, const std::string& id, const std::string& pid, const LimitOptions& limits);
int simple_command(const Common& common, const char* method, const std::string& id);  ///< a method that takes the id
int extend_command(const Common& common, const std::string& id, const std::string& span);
int set_command(const Common& common, const std::string& id, const std::vector<std::string>& assignments);

}  // namespace aw::cli
