// SPDX-License-Identifier: Apache-2.0
#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>

namespace aw::cli {
namespace {

std::optional<bool> forced_colours;

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

/// The length of the well-formed UTF-8 sequence at the beginning, if it is one that may be shown.
std::size_t shown_sequence(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7F ? 1 : 0;
  const std::size_t length = lead >= 0xF0 && lead < 0xF5 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (length == 0 || lead >= 0xF5 || text.size() < length) return 0;
  std::uint32_t point = lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (!is_continuation(text[i])) return 0;
    point = (point << 6U) | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  const bool c1 = point >= 0x80 && point < 0xA0;
  // What turns the direction of a line around can make it say something else.
  const bool bidi = (point >= 0x202A && point <= 0x202E) || (point >= 0x2066 && point <= 0x2069);
  const bool separator = point == 0x2028 || point == 0x2029;
  if (overlong || c1 || bidi || separator || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return 0;
  return length;
}

const char* code_of(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kGood:
      return "\x1b[32m";
    case Style::kWarn:
      return "\x1b[33m";
    case Style::kBad:
      return "\x1b[1;31m";
    case Style::kDim:
      return "\x1b[2m";
  }
  return "";
}

}  // namespace

std::string printable(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string shown;
  while (!text.empty()) {
    const std::size_t length = shown_sequence(text);
    if (length > 0) {
      shown += text.substr(0, length);
      text.remove_prefix(length);
      continue;
    }
    const auto byte = static_cast<unsigned char>(text.front());
    shown += {'\\', 'x', kHex[byte >> 4U], kHex[byte & 0xFU]};
    text.remove_prefix(1);
  }
  return shown;
}

std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

std::string cut(std::string_view text, std::size_t columns) {
  if (width_of(text) <= columns) return std::string(text);
  if (columns == 0) return "";
  std::size_t bytes = 0;
  for (std::size_t taken = 0; bytes < text.size(); ++bytes) {
    if (!is_continuation(text[bytes]) && ++taken == columns) break;
  }
  return std::string(text.substr(0, bytes)) + "…";
}

bool wants_colours() {
  if (forced_colours) return *forced_colours;
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) != 0 && term != nullptr && std::string_view(term) != "dumb";
}

void set_colours(bool on) { forced_colours = on; }

std::string styled(std::string_view text, Style style) {
  if (style == Style::kPlain || !wants_colours()) return std::string(text);
  return std::string(code_of(style)) + std::string(text) + "\x1b[0m";
}

std::size_t terminal_columns() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 0) return 0;
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void Table::add(std::vector<Cell> row) {
  for (Cell& cell : row) cell.text = printable(cell.text);
  row.resize(header_.size(), Cell(""));
  rows_.push_back(std::move(row));
}

std::string Table::to_string(std::size_t columns, bool legend) const {
  std::vector<std::size_t> widths;
  for (const std::string& name : header_) widths.push_back(legend ? width_of(name) : 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i].text));
  }
  std::size_t total = widths.empty() ? 0 : widths.size() - 1;
  for (const std::size_t width : widths) total += width;
  while (columns > 0 && total > columns) {  // The widest gives way, down to what still says something.
    const auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= 8) break;
    const std::size_t less = std::min(*widest - 8, total - columns);
    *widest -= less;
    total -= less;
  }
  std::string text;
  const auto add_line = [&](const auto& cell_at) {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const auto [cell, style] = cell_at(i);
      const std::string shown = cut(cell, widths[i]);
      text += styled(shown, style);
      if (i + 1 < widths.size()) text += std::string(widths[i] - width_of(shown) + 1, ' ');
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  };
  if (legend) add_line([&](std::size_t i) { return std::pair<std::string, Style>(header_[i], Style::kBold); });
  for (const auto& row : rows_) {
    add_line([&](std::size_t i) { return std::pair<std::string, Style>(row[i].text, row[i].style); });
  }
  return text;
}

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void warn(const std::string& text) { std::fprintf(stderr, "analysisctl: %s\n", text.c_str()); }

int fail(const Error& error) {
  warn(error.message);
  return 1;
}

void page(const std::string& text, bool allowed) {
  const char* pager = std::getenv("SYSTEMD_PAGER");
  if (pager == nullptr) pager = std::getenv("PAGER");
  if (pager == nullptr) pager = "less";
  const std::string_view name = pager;
  if (!allowed || ::isatty(STDOUT_FILENO) == 0 || name.empty() || name == "cat") {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return;
  }
  // Quits at once if all fits on the screen, keeps colours, and leaves the text on the screen. For somebody who was let
  // through by sudo or polkit it must not be a way to a shell.
  const char* less = std::getenv("SYSTEMD_LESS");
  (void)::setenv("LESS", less == nullptr ? "FRSXMK" : less, 1);
  if (std::getenv("SUDO_UID") != nullptr || std::getenv("PKEXEC_UID") != nullptr) (void)::setenv("LESSSECURE", "1", 1);
  std::signal(SIGPIPE, SIG_IGN);
  std::fflush(stdout);
  FILE* pipe = ::popen((std::string(pager) + " 2>/dev/null").c_str(), "w");
  if (pipe == nullptr) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return;
  }
  std::fwrite(text.data(), 1, text.size(), pipe);
  const int status = ::pclose(pipe);                      // What a pager thinks of being left is of no meaning,
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {  // but there may be none.
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
}

}  // namespace aw::cli
