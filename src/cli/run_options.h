// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <variant>

#include "cli/launcher.h"

namespace aw::cli {

/// The command line of analysis-run. What follows the first word that is neither an option nor an option's value, or
/// follows "--", is the command and is not looked at. Help and errors are written to `out` and `err`; then there is
/// nothing to launch, but a status to exit with.
std::variant<LaunchOptions, int> parse_run_options(int argc, const char* const* argv, std::ostream& out,
                                                   std::ostream& err);

}  // namespace aw::cli
