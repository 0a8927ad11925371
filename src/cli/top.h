// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "cli/commands.h"

namespace aw::cli {

/// How `top` is wanted, as typed.
struct TopOptions {
  std::string interval = "1s";
  std::string sort = "memory";
  bool batch = false;
  std::optional<std::uint32_t> iterations = {};  ///< none: for ever; 1 where there is no terminal
  bool once = false;
};

/// The live table; the exit status. Where stdout is no terminal, and with `batch`, plain text.
int top_command(const Common& common, const TopOptions& options);

}  // namespace aw::cli
