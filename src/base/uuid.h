// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace aw {

/// The UUID (version 8, RFC 9562) that stands for `name` of `whom`: the same whoever asks, whenever.
std::string derived_uuid(std::string_view whom, std::string_view name);

}  // namespace aw
