// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "supervise/event_record.h"
#include "supervise/limits.h"

namespace aw::supervise {

/// The limits that are no fields of a record, by the names of their SQL columns. All of them, always: kUnlimited is
/// none.
Details limit_details(const Limits& limits);

/// The options that limit something and need one of these controllers, which are not there: asked for, not in force.
std::vector<std::string> limits_not_in_force(const Limits& limits, const std::vector<std::string>& undelegated);

/// What has changed, by the same names: the new value, of a number the old one too (NAME_before).
Details differences(const Limits& before, const Limits& after);

}  // namespace aw::supervise
