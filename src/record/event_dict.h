// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/value.h"
#include "supervise/event_record.h"

namespace aw::record {

/// A record as a{sv}: its keys are the SQL columns, sizes bytes and spans µs (t), other numbers x, occurred_at
/// realtime µs (t), processes aa{sv}, details a{sv}. What is on the bus and what the tools print are made of this.
bus::Dict to_dict(const supervise::EventRecord& event);

}  // namespace aw::record
