// SPDX-License-Identifier: Apache-2.0
#include "web/request.h"

#include <algorithm>
#include <cctype>

#include "base/numbers.h"
#include "base/utf8.h"

namespace aw::web {
namespace {

enum class Plus { kIsPlus, kIsSpace };

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Result<std::string> decode(std::string_view raw, Plus plus) {
  std::string text;
  text.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    char c = raw[i];
    if (c == '%') {
      const int high = i + 2 < raw.size() ? digit_of(raw[i + 1]) : -1;
      const int low = i + 2 < raw.size() ? digit_of(raw[i + 2]) : -1;
      if (high < 0 || low < 0) return invalid("a % is not followed by two hexadecimal digits; a % itself is %25");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus == Plus::kIsSpace) {
      c = ' ';
    } else if (c == '#' || static_cast<unsigned char>(c) <= ' ' || c == '\x7f') {
      return invalid("a character that has to be written as %XX is not");
    }
    if (c == '\0') return invalid("%00 is no part of any name");
    text += c;
  }
  for (std::string_view rest = text; !rest.empty();) {
    const auto character = find_character(rest);
    if (!character) return invalid("it is not UTF-8");
    rest.remove_prefix(character->bytes);
  }
  return text;
}

/// f(piece) for each piece between separators; stops at the first error.
template <class F>
Result<void> for_each_piece(std::string_view text, char separator, F&& f) {
  for (;;) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (auto done = f(text.substr(0, end)); !done) return done;
    if (end == text.size()) return {};
    text.remove_prefix(end + 1);
  }
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_pairs(std::string_view raw) {
  std::vector<std::pair<std::string, std::string>> pairs;
  auto read = for_each_piece(raw, '&', [&](std::string_view piece) -> Result<void> {
    if (piece.empty()) return {};
    const std::size_t equals = std::min(piece.find('='), piece.size());
    auto name = decode(piece.substr(0, equals), Plus::kIsSpace);
    if (!name) return std::move(name).error();
    auto value = decode(piece.substr(std::min(equals + 1, piece.size())), Plus::kIsSpace);
    if (!value) return std::move(value).error();
    if (std::any_of(pairs.begin(), pairs.end(), [&](const auto& known) { return known.first == *name; })) {
      return invalid("a parameter is given twice; each may stand there once");
    }
    pairs.emplace_back(*std::move(name), *std::move(value));
    return {};
  });
  if (!read) return std::move(read).error();
  return pairs;
}

}  // namespace

Result<Target> parse_target(std::string_view raw) {
  if (raw.empty() || raw.front() != '/') return invalid("the target of a request begins with /");
  const std::size_t question = std::min(raw.find('?'), raw.size());
  Target target;
  const std::string_view path = raw.substr(1, question - 1);
  if (!path.empty()) {
    auto read = for_each_piece(path, '/', [&](std::string_view piece) -> Result<void> {
      auto segment = decode(piece, Plus::kIsPlus);
      if (!segment) return std::move(segment).error().within("in the path");
      target.path.push_back(*std::move(segment));
      return {};
    });
    if (!read) return std::move(read).error();
  }
  if (question < raw.size()) {
    auto query = parse_pairs(raw.substr(question + 1));
    if (!query) return std::move(query).error().within("after the ?");
    target.query = *std::move(query);
  }
  return target;
}

std::optional<std::string> find_form_value(std::string_view body, std::string_view name) {
  auto pairs = parse_pairs(body);
  if (!pairs) return std::nullopt;
  for (auto& [key, value] : *pairs) {
    if (key == name) return std::move(value);
  }
  return std::nullopt;
}

std::optional<std::string_view> find_cookie(std::string_view header, std::string_view name) {
  std::optional<std::string_view> found;
  (void)for_each_piece(header, ';', [&](std::string_view piece) -> Result<void> {  // Never fails.
    piece = trimmed(piece);
    const std::size_t equals = piece.find('=');
    if (!found && equals != std::string_view::npos && piece.substr(0, equals) == name) {
      found = piece.substr(equals + 1);
    }
    return {};
  });
  return found;
}

std::optional<std::string_view> find_bearer(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  authorization = trimmed(authorization);
  if (authorization.size() <= kScheme.size()) return std::nullopt;
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(authorization[i])) != kScheme[i]) return std::nullopt;
  }
  return trimmed(authorization.substr(kScheme.size()));
}

std::optional<std::string> parse_host(std::string_view header) {
  header = trimmed(header);
  std::string_view host = header;
  std::string_view rest;
  if (header.starts_with('[')) {
    const std::size_t end = header.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = header.substr(0, end + 1);
    rest = header.substr(end + 1);
  } else if (const std::size_t colon = header.find(':'); colon != std::string_view::npos) {
    host = header.substr(0, colon);
    rest = header.substr(colon);
  }
  if (!rest.empty() && (rest.front() != ':' || !parse_number<std::uint16_t>(rest.substr(1)))) return std::nullopt;
  std::string lower;
  for (const char c : host) {
    const bool known = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '_' ||
                       (host.front() == '[' && (c == ':' || c == '[' || c == ']'));
    if (!known) return std::nullopt;
    lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (lower.empty()) return std::nullopt;
  return lower;
}

bool is_our_host(std::string_view host, const std::vector<std::string>& allowed) {
  return host == "localhost" || host == "127.0.0.1" || host == "[::1]" ||
         std::find(allowed.begin(), allowed.end(), host) != allowed.end();
}

}  // namespace aw::web
