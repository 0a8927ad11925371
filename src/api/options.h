// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "bus/value.h"
#include "supervise/limits.h"

namespace aw::api {

/// The options of RegisterAnalysis and SetLimits, which are the writable properties of an analysis, too.
struct OptionSpec {
  const char* name;
  const char* type;  ///< its D-Bus signature
};
const std::vector<OptionSpec>& option_specs();

/// `limits` with the options laid over it. An unknown option, a wrong type or an unknown word is refused
/// (Refusal::kInvalidOption) and the message says what is accepted; nothing is ignored.
Result<supervise::Limits> apply_options(supervise::Limits limits, const bus::Dict& options);

/// The limits as the options that would make them, all of them, headroom resolved.
bus::Dict to_options(const supervise::Limits& limits);

}  // namespace aw::api
