// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "supervise/event_record.h"

namespace aw::postgres {

using Json = nlohmann::json;

/// PostgreSQL's text cannot hold U+0000, in jsonb neither.
std::string without_nul(std::string text);

/// An event by the names of its columns, as PostgreSQL can store it: no limit is null, what passes a bigint is the
/// largest one, and texts have no NUL.
Json event_to_json(const supervise::EventRecord& event);

/// In one line; bytes that are no UTF-8 become U+FFFD.
std::string to_text(const Json& json);

}  // namespace aw::postgres
