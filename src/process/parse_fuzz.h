// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; parse_test.cc does the same with each file of corpus/parse.
#pragma once

#include <algorithm>
#include <string_view>

#include "base/assert.h"
#include "base/utf8.h"
#include "process/parse.h"

namespace aw::process {

inline void fuzz_stat(std::string_view text) {
  const auto stat = parse_stat(text);
  if (!stat) return;
  AW_ASSERT(stat->pid > 0 && stat->parent >= 0 && stat->comm.size() < text.size());
}

inline void fuzz_cmdline(std::string_view input) {
  if (input.empty()) return;
  const std::size_t limit = static_cast<unsigned char>(input.front());
  const std::string line = readable_cmdline(input.substr(1), limit);
  AW_ASSERT(line.size() <= limit);
  AW_ASSERT(std::none_of(line.begin(), line.end(), [](char c) { return c >= 0 && c < ' '; }));
  AW_ASSERT(readable_cmdline(line, line.size()) == line);  // It is UTF-8 now, and stays as it is.
  for (std::string_view rest = line; !rest.empty();) {
    const auto character = find_character(rest);
    AW_ASSERT(character && !is_control(character->code) && !is_noncharacter(character->code));  // As sd-bus wants it.
    rest.remove_prefix(character->bytes);
  }
}

inline void fuzz_proc_cgroup(std::string_view text) {
  const auto path = parse_proc_cgroup(text);
  if (!path) return;
  AW_ASSERT(path->starts_with('/') && path->find('\n') == std::string_view::npos);
  AW_ASSERT(path->data() >= text.data() && path->data() + path->size() <= text.data() + text.size());
}

/// The first byte selects the parser, the rest is its text (of a command line: its limit, then the text).
inline void fuzz_parse(std::string_view input) {
  if (input.empty()) return;
  if (input.front() == 's') return fuzz_stat(input.substr(1));
  if (input.front() == 'g') return fuzz_proc_cgroup(input.substr(1));
  if (input.front() == 'i') return (void)parse_sole_uid(input.substr(1));
  fuzz_cmdline(input.substr(1));
}

}  // namespace aw::process
