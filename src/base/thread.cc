// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace aw {

bool sleeps_uninterruptibly(pid_t thread) {
  const UniqueFd fd(::open(("/proc/self/task/" + std::to_string(thread) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 128> buffer;  // "TID (at most 15 bytes of name) STATE …"
  const ssize_t size = fd ? ::read(fd.get(), buffer.data(), buffer.size()) : 0;
  if (size <= 0) return false;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(size));
  const std::size_t name_end = text.rfind(") ");
  return name_end != std::string_view::npos && text.substr(name_end + 2).starts_with('D');
}

}  // namespace aw
