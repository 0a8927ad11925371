// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; text_corpus_test.cc does the same with each file of corpus/text.
#pragma once

#include <string_view>

#include "base/analysis_id.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/time.h"

namespace aw {

inline void fuzz_size(std::string_view text) {
  const auto size = parse_size(text);
  if (!size) return AW_ASSERT(!size.error().message.empty());
  // What is shown to people can be typed in again; it was rounded down.
  const auto again = parse_size(format_size(*size));
  AW_ASSERT(again && *again <= *size);
}

inline void fuzz_span(std::string_view text) {
  const auto span = parse_span(text);
  if (!span) return AW_ASSERT(!span.error().message.empty());
  AW_ASSERT(*span >= Span(0));
  const auto again = parse_span(format_span(*span));
  AW_ASSERT(again && *again == *span);
  AW_ASSERT(from_usec(to_usec(*span)) == *span);
}

inline void fuzz_id(std::string_view text) {
  const auto id = AnalysisId::parse(text);
  if (!id) return AW_ASSERT(!id.error().message.empty());
  AW_ASSERT(id->text() == text);
  const std::string slice = slice_unit(*id);
  // It nests in nobody's slice, leaves no directory, and is no option.
  AW_ASSERT(slice.size() <= 255 && slice.starts_with("analysis-") && slice.ends_with(".slice"));
  AW_ASSERT(slice.find('/') == std::string::npos && slice.find('-', 9) == std::string::npos);
  if (const auto back = find_id(slice)) AW_ASSERT(*back == *id);
  const std::string element = escape_for_path(text);
  AW_ASSERT(!element.empty() &&
            element.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") ==
                std::string::npos);
  const auto plain = unescape_from_path(element);
  AW_ASSERT(plain && *plain == text);
}

inline void fuzz_unit(std::string_view text) {
  if (const auto id = find_id(text)) AW_ASSERT(slice_unit(*id) == text);
}

inline void fuzz_element(std::string_view text) {
  if (const auto plain = unescape_from_path(text)) AW_ASSERT(escape_for_path(*plain) == text);
}

/// The first byte selects the parser, the rest is its text.
inline void fuzz_text(std::string_view input) {
  if (input.empty()) return;
  const std::string_view text = input.substr(1);
  switch (input.front()) {
    case 's':
      return fuzz_size(text);
    case 't':
      return fuzz_span(text);
    case 'u':
      return fuzz_unit(text);
    case 'p':
      return fuzz_element(text);
    default:
      return fuzz_id(text);
  }
}

}  // namespace aw
