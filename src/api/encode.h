// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/value.h"
#include "supervise/event_record.h"
#include "supervise/supervisor.h"

namespace aw::api {

/// A record as a{sv}: its keys are the SQL columns, sizes bytes and spans µs (t), other numbers x, occurred_at
/// realtime µs (t), processes aa{sv}, details a{sv}.
bus::Dict to_dict(const supervise::EventRecord& event);

/// All properties of a live analysis, the options among them.
bus::Dict to_dict(const supervise::Run& run, const supervise::Usage& usage);

}  // namespace aw::api
