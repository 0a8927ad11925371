// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace aw {

/// One character of a text: its Unicode code point and how many bytes it takes.
struct Utf8Character {
  char32_t code;
  std::size_t bytes;
};

/// The character at the start of `text`, which is not empty; nothing where that is no UTF-8: a stray or missing
/// continuation, an overlong form, a surrogate, a code above U+10FFFF.
std::optional<Utf8Character> find_character(std::string_view text);

/// C0, DEL and C1: U+0000 to U+001F, U+007F to U+009F.
bool is_control(char32_t code);

/// U+FDD0 to U+FDEF and the last two of each plane: UTF-8 like any other, but sd-bus takes no text that has one.
bool is_noncharacter(char32_t code);

}  // namespace aw
