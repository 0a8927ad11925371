// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "bus/value.h"
#include "cli/json.h"

namespace aw::cli {

/// The text of a record's entry, or "".
std::string text_of(const bus::Dict& record, std::string_view key);
/// The number of a record's entry, whatever its integer type; nothing if it is not there or UINT64_MAX.
std::optional<std::uint64_t> number_of(const bus::Dict& record, std::string_view key);

/// What analysis-run exits with: 124 for the wall clock however the tree died, else COMMAND's own, 128+N for signal N.
/// `wait_status` is as wait(2) gives it.
int exit_status(int wait_status, const std::string& reason);

/// Why a run was ended, as one line without the program's name; "" for `exited`.
std::string end_sentence(const bus::Dict& record);

/// Final accounting for a person: a few lines of "name: value".
std::string report_text(const bus::Dict& record);

/// A span for people, without more digits than say something.
std::string rough_span(std::uint64_t usec);

}  // namespace aw::cli
