// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "supervise/event_record.h"
#include "supervise/limits.h"

namespace aw::supervise {

/// The limits that are no fields of a record, by the names of their SQL columns. All of them, always: kUnlimited is
/// none.
Details limit_details(const Limits& limits);

/// What has changed, by the same names: the new value, of a number the old one too (NAME_before).
Details differences(const Limits& before, const Limits& after);

}  // namespace aw::supervise
