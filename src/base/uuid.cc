// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.h"

#include <nettle/sha2.h>

#include <array>
#include <cstdint>

namespace aw {

std::string derived_uuid(std::string_view whom, std::string_view name) {
  const std::string text = std::string(whom) + '\0' + std::string(name);
  sha256_ctx context{};
  ::nettle_sha256_init(&context);
  ::nettle_sha256_update(&context, text.size(), reinterpret_cast<const std::uint8_t*>(text.data()));
  std::array<std::uint8_t, 16> bytes{};
  ::nettle_sha256_digest(&context, bytes.size(), bytes.data());
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0f) | 0x80);
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3f) | 0x80);
  constexpr char kDigits[] = "0123456789abcdef";
  std::string uuid;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) uuid += '-';
    uuid += kDigits[bytes[i] >> 4];
    uuid += kDigits[bytes[i] & 0x0f];
  }
  return uuid;
}

}  // namespace aw
