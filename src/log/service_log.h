// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace aw::log {

/// Makes stderr the log of this program: as journald reads a service's output, with the level in front ("<4>",
/// sd-daemon(3)), or for somebody at a terminal as "NAME: warning: …". For a program's first line.
void set_up(const std::string& program);

/// A line of it each; before set_up() they go to stdout.
void info(const std::string& sentence);
void warn(const std::string& sentence);
void error(const std::string& sentence);
void critical(const std::string& sentence);

}  // namespace aw::log
