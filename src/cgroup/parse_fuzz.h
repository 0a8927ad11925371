// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with one input; parse_test.cc does the same with each file of corpus/parse.
#pragma once

#include <string_view>
#include <vector>

#include "base/assert.h"
#include "cgroup/parse.h"

namespace aw::cgroup {

inline void fuzz_procs(std::string_view text) {
  std::vector<pid_t> pids{1};
  const bool good = parse_procs(text, pids).has_value();
  AW_ASSERT(good || pids.size() == 1);
  for (const pid_t pid : pids) AW_ASSERT(pid > 0);
}

/// The first byte selects the parser, the rest is its text.
inline void fuzz_parse(std::string_view input) {
  if (input.empty()) return;
  const std::string_view text = input.substr(1);
  switch (input.front()) {
    case 'e':
      return (void)parse_memory_events(text);
    case 's':
      return (void)parse_memory_stat(text);
    case 'p':
      return (void)parse_memory_pressure(text);
    case 'c':
      return (void)parse_populated(text);
    case 'u':
      return (void)parse_cpu_usage(text);
    case 'q':
      return (void)parse_quota(text);
    case 'l':
      return (void)parse_limit(text);
    default:
      return fuzz_procs(text);
  }
}

}  // namespace aw::cgroup
