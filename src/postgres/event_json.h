// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "supervise/event_record.h"

namespace aw::postgres {

using Json = nlohmann::json;

/// PostgreSQL's text cannot hold U+0000, in jsonb neither.
std::string without_nul(std::string text);

/// An event by the names of its columns, as PostgreSQL can store it: no limit is null, what passes a bigint is the
/// largest one, and texts have no NUL.
Json event_to_json(const supervise::EventRecord& event);

/// The inverse for the two columns that are jsonb: null is no limit again. What is not of their form is left out.
std::vector<supervise::ProcessSummary> to_processes(const Json& json);
supervise::Details to_details(const Json& json);

/// The value of the text; where it is no JSON, one that is neither list nor object.
Json parse_json(const std::string& text);

/// In one line; bytes that are no UTF-8 become U+FFFD.
std::string to_text(const Json& json);

}  // namespace aw::postgres
