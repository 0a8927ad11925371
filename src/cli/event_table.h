// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "bus/value.h"
#include "cli/json.h"

namespace aw::cli {

enum class Legend { kNone, kShown };
enum class Hosts { kOne, kSeveral };  ///< several: each row says which

/// A table, or a line of JSON for each event.
std::string events_text(const std::vector<bus::Dict>& oldest_first, JsonStyle json, Legend legend,
                        Hosts hosts = Hosts::kOne);

}  // namespace aw::cli
