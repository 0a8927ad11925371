// SPDX-License-Identifier: Apache-2.0
//
// The story of a run for a person: what it reached, what stopped it, what was alive, and what to change. Made from its
// records alone, wherever they come from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "bus/value.h"
#include "cli/json.h"

namespace aw::cli {

/// Something to change, and why.
struct Suggestion {
  std::string option;  ///< "--memory"; empty where no option helps
  std::string value;   ///< "5G"
  std::string why;
};

/// What is known of an analysis: one run of it, and how the others went.
struct Story {
  std::vector<bus::Dict> events;  ///< of the run, oldest first
  std::vector<bus::Dict> ends;    ///< of the other runs, newest first
};

/// Sorts out the events of one analysis (newest first, as stores answer): the story of the run `run_id`, or of the last
/// one where that is empty. Nothing where there is none.
std::optional<Story> find_story(const std::vector<bus::Dict>& newest_first, const std::string& run_id = "");

/// What would have let it live. Empty for a run that ended by itself, or lives.
std::vector<Suggestion> suggest(const Story& story);

Json suggestions_json(const std::vector<Suggestion>& suggestions);
std::string suggestions_text(const std::vector<Suggestion>& suggestions);  ///< a line each

Json explain_json(const Story& story);
std::string explain_text(const Story& story);

/// The size as an option takes it, never less: "3G", "2304M".
std::string as_written(Bytes size);
/// The next size up that one would write: three bits of precision, at least a MiB.
Bytes round_up(Bytes size);
/// The next span up that one would write: seconds below a minute, minutes below an hour, else quarters of an hour.
Span round_up(Span span);

}  // namespace aw::cli
