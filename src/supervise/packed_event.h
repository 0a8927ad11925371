// SPDX-License-Identifier: Apache-2.0
//
// An event as bytes, to be kept in memory: about a fifth of what the record takes with all its strings.
#pragma once

#include <string>
#include <string_view>

#include "supervise/event_record.h"

namespace aw::supervise {

std::string pack(const EventRecord& event);

/// Only of what pack() has made, in this process.
EventRecord unpack(std::string_view bytes);

/// The analysis id of a packed event, without the rest.
std::string_view packed_id(std::string_view bytes);

}  // namespace aw::supervise
