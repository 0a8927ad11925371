// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; run_note_corpus_test.cc does the same with each file of corpus/run_note.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "supervise/run_note.h"

namespace aw::supervise {

inline void fuzz_run_note(std::string_view text) {
  const auto note = parse_note(text);
  if (!note) return AW_ASSERT(!note.error().message.empty());
  AW_ASSERT(!note->row.run_id.empty() && AnalysisId::parse(note->row.registered_as) && note->row.leader.pid > 0);
  // What it says is said again as it was, and no text in it has made a line of its own.
  const std::string written = format_note(*note);
  const auto again = parse_note(written);
  AW_ASSERT(again && again->row == note->row && format_note(*again) == written);
  const auto lines = [](std::string_view all) { return std::count(all.begin(), all.end(), '\n'); };
  RunNote harmless = *note;
  harmless.comm = harmless.cmdline = harmless.row.limits.description = "";
  AW_ASSERT(lines(format_note(harmless)) == lines(written));
}

}  // namespace aw::supervise
