// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace aw::cli {

/// Text from outside as a terminal may show it: control characters and bytes that are not UTF-8 become \xNN.
std::string printable(std::string_view text);

/// How many columns the text takes; one for each code point.
std::size_t width_of(std::string_view text);

/// The text, cut to `columns` with an ellipsis.
std::string cut(std::string_view text, std::size_t columns);

enum class Style { kPlain, kBold, kGood, kWarn, kBad, kDim };
/// The text in that style, if colours are wanted (a terminal, no NO_COLOR).
std::string styled(std::string_view text, Style style);
bool wants_colours();
/// For tests and for output that is known to go elsewhere.
void set_colours(bool on);

/// The columns of the terminal on stdout; 0 if it is none.
std::size_t terminal_columns();

/// A table as systemctl prints it: columns as wide as what they hold, the widest cut to fit the terminal.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  struct Cell {
    Cell(std::string cell_text, Style cell_style = Style::kPlain)  // NOLINT(google-explicit-constructor)
        : text(std::move(cell_text)), style(cell_style) {}
    std::string text;
    Style style;
  };
  /// As many cells as the header has; each is made printable.
  void add(std::vector<Cell> row);
  std::string to_string(std::size_t columns, bool legend) const;
  std::size_t rows() const { return rows_.size(); }

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<Cell>> rows_;
};

/// To stdout.
void print(const std::string& text);
/// To stderr, as a line of analysisctl's.
void warn(const std::string& text);
/// The same of an error; the exit status that goes with it.
int fail(const Error& error);

/// Shows the text through a pager if stdout is a terminal and `allowed`, else prints it.
void page(const std::string& text, bool allowed);

}  // namespace aw::cli
