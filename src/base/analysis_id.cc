// SPDX-License-Identifier: Apache-2.0
#include "base/analysis_id.h"

#include <nettle/sha2.h>

#include <array>
#include <charconv>
#include <cstdint>

#include "base/assert.h"
#include "base/utf8.h"

namespace aw {
namespace {

constexpr std::size_t kMaxIdBytes = 255;

// UNIT_NAME_MAX (systemd src/basic/unit-def.h) leaves 255 bytes: "analysis-" ESC "-4294967295" ".scope".
constexpr std::size_t kMaxEscapeBytes = 255 - std::string_view("analysis-").size() -
                                        std::string_view("-4294967295").size() - std::string_view(".scope").size();
constexpr std::size_t kHashHexBytes = 64;
constexpr std::string_view kHashMark = "\\xff";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string hex(unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  return {kDigits[byte >> 4U], kDigits[byte & 0xfU]};
}

std::string hex(char byte) { return hex(static_cast<unsigned char>(byte)); }

Result<void> check_characters(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::string where = " at byte " + std::to_string(at + 1);
    const auto character = find_character(text.substr(at));
    if (!character) return invalid("an analysis id is UTF-8 text; this one is not," + where);
    if (is_control(character->code)) {
      return invalid("an analysis id holds no control characters; this one has \\x" +
                     hex(static_cast<unsigned char>(character->code)) + where);
    }
    at += character->bytes;
  }
  return {};
}

// systemd's VALID_CHARS without '-' and '\\', which do_escape() (src/basic/unit-name.c) escapes all the same.
bool stays_in_unit_name(char c) { return is_digit(c) || is_letter(c) || c == ':' || c == '_' || c == '.'; }

/// The escape of `text`, cut before the first character that would make it longer than `most` bytes.
std::string escape_up_to(std::string_view text, std::size_t most) {
  std::string escaped;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool plain = stays_in_unit_name(text[i]) && !(i == 0 && text[i] == '.');
    const std::string next = plain ? std::string(1, text[i]) : "\\x" + hex(text[i]);
    if (escaped.size() + next.size() > most) break;
    escaped += next;
  }
  return escaped;
}

std::string sha256_hex(std::string_view text) {
  sha256_ctx context{};
  ::nettle_sha256_init(&context);
  ::nettle_sha256_update(&context, text.size(), reinterpret_cast<const std::uint8_t*>(text.data()));
  std::array<std::uint8_t, SHA256_DIGEST_SIZE> digest{};
  ::nettle_sha256_digest(&context, digest.size(), digest.data());
  std::string result;
  for (const std::uint8_t byte : digest) result += hex(static_cast<char>(byte));
  return result;
}

/// The byte behind "_xx".
std::optional<char> find_byte(std::string_view two_digits) {
  if (two_digits.size() != 2) return std::nullopt;
  unsigned char byte = 0;
  const auto [end, error] = std::from_chars(two_digits.data(), two_digits.data() + 2, byte, 16);
  if (error != std::errc{} || end != two_digits.data() + 2) return std::nullopt;
  return static_cast<char>(byte);
}

}  // namespace

Result<AnalysisId> AnalysisId::parse(std::string_view text) {
  if (text.empty()) return invalid("an analysis id has at least one character; this one is empty");
  if (text.size() > kMaxIdBytes) {
    return invalid("an analysis id has at most 255 bytes; this one has " + std::to_string(text.size()));
  }
  if (auto checked = check_characters(text); !checked) return std::move(checked).error();
  return AnalysisId(std::string(text));
}

std::string escape_for_unit(const AnalysisId& id) {
  const std::string whole = escape_up_to(id.text(), std::string::npos);
  if (whole.size() <= kMaxEscapeBytes) return whole;
  const std::string head = escape_up_to(id.text(), kMaxEscapeBytes - kHashMark.size() - kHashHexBytes);
  return head + std::string(kHashMark) + sha256_hex(id.text());
}

std::string escape_for_path(std::string_view text) {
  if (text.empty()) return "_";
  std::string escaped;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool plain = is_letter(text[i]) || (is_digit(text[i]) && i > 0);
    escaped += plain ? std::string(1, text[i]) : "_" + hex(text[i]);
  }
  return escaped;
}

std::optional<std::string> unescape_from_path(std::string_view element) {
  std::string text;
  for (std::size_t i = 0; i < element.size() && element != "_"; ++i) {
    if (element[i] != '_') {
      text += element[i];
      continue;
    }
    const auto byte = find_byte(element.substr(i + 1, 2));
    if (!byte) return std::nullopt;
    text += *byte;
    i += 2;
  }
  // Each text has one escape only: "_41" or "_2F" would be second names for what "A" and "_2f" are.
  if (escape_for_path(text) != element) return std::nullopt;
  return text;
}

std::string slice_unit(const AnalysisId& id) { return "analysis-" + escape_for_unit(id) + ".slice"; }

std::optional<AnalysisId> find_id(std::string_view slice) {
  constexpr std::string_view kHead = "analysis-";
  constexpr std::string_view kTail = ".slice";
  if (!slice.starts_with(kHead) || !slice.ends_with(kTail) || slice.size() < kHead.size() + kTail.size()) return {};
  const std::string_view escaped = slice.substr(kHead.size(), slice.size() - kHead.size() - kTail.size());
  std::string text;
  for (std::size_t i = 0; i < escaped.size(); ++i) {
    if (!escaped.substr(i).starts_with("\\x")) {
      text += escaped[i];
      continue;
    }
    const auto byte = find_byte(escaped.substr(i + 2, 2));
    if (!byte) return std::nullopt;
    text += *byte;
    i += 3;
  }
  const auto id = AnalysisId::parse(text);
  return id && slice_unit(*id) == slice ? std::optional(*id) : std::nullopt;
}

std::string scope_unit(const AnalysisId& id, unsigned generation) {
  AW_ASSERT(generation > 0);
  const std::string suffix = generation == 1 ? "" : "-" + std::to_string(generation);
  return "analysis-" + escape_for_unit(id) + suffix + ".scope";
}

std::string shelter_unit(const AnalysisId& id, const std::string& uuid) {
  std::string unit = scope_unit(id);
  unit.replace(unit.rfind(".scope"), std::string::npos, "-r" + uuid.substr(0, 8) + ".scope");
  return unit;
}

}  // namespace aw
