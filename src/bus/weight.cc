// SPDX-License-Identifier: Apache-2.0
#include "bus/weight.h"

#include <cstring>

namespace aw::bus {
namespace {

/// Of what is left in the container that is open. Each value counts for 8 bytes at least, so that nothing is for free.
Weight weigh_rest(sd_bus_message* m, std::size_t& left) {
  for (;;) {
    char type = 0;
    const char* contents = nullptr;
    const int more = sd_bus_message_peek_type(m, &type, &contents);
    if (more < 0) return Weight::kUnreadable;
    if (more == 0) return Weight::kFits;
    std::size_t bytes = 8;
    const bool container = std::strchr("avre", type) != nullptr;
    if (container) {
      if (sd_bus_message_enter_container(m, type, contents) < 0) return Weight::kUnreadable;
    } else if (std::strchr("sog", type) != nullptr) {
      const char* text = nullptr;
      if (sd_bus_message_read_basic(m, type, &text) < 0) return Weight::kUnreadable;
      bytes += std::strlen(text);
    } else {
      std::uint64_t value = 0;  // As large as the largest of them.
      if (sd_bus_message_read_basic(m, type, &value) < 0) return Weight::kUnreadable;
    }
    if (bytes > left) return Weight::kTooMuch;
    left -= bytes;
    if (!container) continue;
    if (const Weight inside = weigh_rest(m, left); inside != Weight::kFits) return inside;
    if (sd_bus_message_exit_container(m) < 0) return Weight::kUnreadable;
  }
}

}  // namespace

Weight weigh(const Message& message, std::size_t most) {
  const Weight weight = weigh_rest(message.raw(), most);
  (void)sd_bus_message_rewind(message.raw(), 1);  // It fails for a message that is still written only.
  return weight;
}

}  // namespace aw::bus
