// SPDX-License-Identifier: Apache-2.0
#include "daemon/identity.h"

#include <systemd/sd-id128.h>
#include <unistd.h>

#include <array>

#include "base/assert.h"

namespace aw::daemon {
namespace {

std::string uuid_text(sd_id128_t id) {
  const std::string plain = [&] {
    std::array<char, SD_ID128_STRING_MAX> text{};
    return std::string(sd_id128_to_string(id, text.data()));
  }();
  return plain.substr(0, 8) + "-" + plain.substr(8, 4) + "-" + plain.substr(12, 4) + "-" + plain.substr(16, 4) + "-" +
         plain.substr(20);
}

}  // namespace

HostIdentity::HostIdentity() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) == 0) host_ = name.data();
  sd_id128_t boot{};
  if (sd_id128_get_boot(&boot) >= 0) boot_id_ = uuid_text(boot);
}

std::string HostIdentity::new_uuid() {
  sd_id128_t id{};
  AW_ASSERT(sd_id128_randomize(&id) >= 0);  // getrandom(2) cannot fail once the host has booted.
  return uuid_text(id);
}

}  // namespace aw::daemon
