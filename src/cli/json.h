// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bus/value.h"

namespace aw::cli {

using Json = nlohmann::ordered_json;

enum class JsonStyle { kOff, kShort, kPretty };

/// A record (AnalysisEnded, ListEvents): its keys as they are, occurred_at in ISO 8601.
Json record_to_json(const bus::Dict& record);

/// A live analysis: the keys of watchdog_processes where it has them, the others in snake_case with their unit. No
/// limit, and a number that can't be had, is null.
Json analysis_to_json(const bus::Dict& properties);

/// The JSON key of a D-Bus property: "MemoryLimit" is "memory_limit_bytes", "GraceUSec" is "grace_usec".
std::string json_key(const std::string& property);

/// The name of this host in its records.
std::string this_host();

/// One line, or indented. Bytes that are no UTF-8 become U+FFFD.
std::string to_text(const Json& json, JsonStyle style);

}  // namespace aw::cli
