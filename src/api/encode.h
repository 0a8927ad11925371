// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/value.h"
#include "supervise/supervisor.h"

namespace aw::api {

/// All properties of a live analysis, the options among them.
bus::Dict to_dict(const supervise::Run& run, const supervise::Usage& usage);

}  // namespace aw::api
