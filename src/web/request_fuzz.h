// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; request_corpus_test.cc does the same with each file of corpus/request.
#pragma once

#include <string_view>

#include "base/assert.h"
#include "base/utf8.h"
#include "web/request.h"
#include "web/route.h"

namespace aw::web {

inline bool is_clean(std::string_view text) {
  while (!text.empty()) {
    const auto character = find_character(text);
    if (!character || character->code == 0) return false;
    text.remove_prefix(character->bytes);
  }
  return true;
}

inline void fuzz_target(std::string_view text) {
  auto target = parse_target(text);
  if (!target) return AW_ASSERT(!target.error().message.empty());
  for (const auto& segment : target->path) AW_ASSERT(is_clean(segment));
  for (const auto& [name, value] : target->query) AW_ASSERT(is_clean(name) && is_clean(value));
  if (const auto route = find_route(*target)) {
    AW_ASSERT(is_clean(route->name));
    AW_ASSERT(is_allowed(route->endpoint, "GET") || is_allowed(route->endpoint, "POST"));
    auto checked = check_parameters(*route, *target);
    if (!checked) AW_ASSERT(!checked.error().message.empty());
  }
}

inline void fuzz_host(std::string_view text) {
  const auto host = parse_host(text);
  if (!host) return;
  AW_ASSERT(!host->empty() && host->size() <= text.size());
  AW_ASSERT(host->find_first_of(" /\\@,;\"'<>\t\r\n") == std::string::npos);
  AW_ASSERT(parse_host(*host) == *host);
}

/// The first byte selects the parser, the rest is its text.
inline void fuzz_request(std::string_view input) {
  if (input.empty()) return;
  const std::string_view text = input.substr(1);
  switch (input.front()) {
    case 'h':
      return fuzz_host(text);
    case 'c':
      if (const auto found = find_cookie(text, "session")) AW_ASSERT(found->find(';') == std::string_view::npos);
      return;
    case 'b':
      if (const auto found = find_bearer(text)) AW_ASSERT(found->size() < text.size());
      return;
    case 'f':
      if (const auto found = find_form_value(text, "token")) AW_ASSERT(is_clean(*found));
      return;
    default:
      return fuzz_target(text);
  }
}

}  // namespace aw::web
