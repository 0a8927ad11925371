// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include <array>

namespace aw {
namespace {

/// What the first byte of a sequence promises: its length, the bits it holds itself, and the smallest code point
/// that needs that length (anything below is an overlong form).
struct Lead {
  unsigned char mask;
  unsigned char bits;
  std::size_t bytes;
  char32_t least;
};

constexpr std::array kLeads{
    Lead{0x80, 0x00, 1, 0x0},
    Lead{0xe0, 0xc0, 2, 0x80},
    Lead{0xf0, 0xe0, 3, 0x800},
    Lead{0xf8, 0xf0, 4, 0x10000},
};

bool is_scalar(char32_t code) { return code <= 0x10ffff && (code < 0xd800 || code > 0xdfff); }

}  // namespace

std::optional<Utf8Character> find_character(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  for (const Lead& lead : kLeads) {
    if ((first & lead.mask) != lead.bits) continue;
    if (text.size() < lead.bytes) return std::nullopt;
    char32_t code = first & static_cast<unsigned char>(~lead.mask);
    for (const char c : text.substr(1, lead.bytes - 1)) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte & 0xc0U) != 0x80U) return std::nullopt;
      code = (code << 6U) | (byte & 0x3fU);
    }
    if (code < lead.least || !is_scalar(code)) return std::nullopt;
    return Utf8Character{code, lead.bytes};
  }
  return std::nullopt;
}

bool is_control(char32_t code) { return code < 0x20 || (code >= 0x7f && code <= 0x9f); }

bool is_noncharacter(char32_t code) { return (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffeU) == 0xfffeU; }

}  // namespace aw
