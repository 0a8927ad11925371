// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer target: whatever a configuration file holds, it becomes settings that can be obeyed or problems that can
// be found. The corpus (corpus/settings/) also runs in settings_test.cc.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "config/settings.h"

namespace {

using aw::config::Problem;
using aw::config::Settings;

void check_settings(const Settings& settings) {
  AW_ASSERT(settings.defaults.memory > aw::Bytes());
  AW_ASSERT(settings.defaults.wall_clock > aw::Span::zero());
  AW_ASSERT(settings.defaults.grace > aw::Span::zero());
  AW_ASSERT(settings.defaults.tasks_max > 0);
  AW_ASSERT(settings.defaults.cpu_quota_per_second > aw::Span::zero());
  AW_ASSERT(settings.orphans.interval > aw::Span::zero() && settings.orphans.interval < aw::kForever);
  AW_ASSERT(settings.stall.pressure_percent >= 1 && settings.stall.pressure_percent <= 100);
}

void check_problem(const Problem& problem, const std::string& text) {
  AW_ASSERT(problem.line >= 1);
  AW_ASSERT(problem.line <= std::count(text.begin(), text.end(), '\n') + 1);
  AW_ASSERT(!problem.message.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto result = aw::config::parse_settings({{"fuzz.conf", text}});
  if (const auto* settings = std::get_if<Settings>(&result)) {
    check_settings(*settings);
  } else {
    for (const Problem& problem : std::get<std::vector<Problem>>(result)) check_problem(problem, text);
  }
  return 0;
}
