// SPDX-License-Identifier: Apache-2.0
//
// The table of docs/security.md, who may do what, and what introspection data says that there is to be done: two lists
// that have to be the same. A unit test compares them, and a story drives each row as each kind of caller.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace aw::testing {

/// The kinds of caller, as the table's columns name them.
inline constexpr std::array<const char*, 6> kCallers{"root", "admin", "viewer", "owner", "other", "nobody"};

/// Something that can be done on the bus.
struct Deed {
  std::string object;  ///< "manager" or "analysis"
  std::string kind;    ///< "call", "read", "write" or "hear"
  std::string member;  ///< "Manager.KillAnalysis": the last part of the interface's name, and the member's
  auto operator<=>(const Deed&) const = default;
};

/// What comes of it, by kind of caller: the words of the table.
using Verdicts = std::map<std::string, std::string>;
using PermissionTable = std::map<Deed, Verdicts>;

/// The words that a verdict may be.
inline bool is_verdict(const std::string& word) {
  return word == "yes" || word == "own" || word == "ask" || word == "hidden" || word == "no";
}

namespace detail {

inline std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream rest(line.substr(1));
  for (std::string cell; std::getline(rest, cell, '|');) {
    std::erase_if(cell, [](char c) { return c == ' ' || c == '`'; });
    cells.push_back(cell);
  }
  return cells;
}

}  // namespace detail

/// The table on the page: the lines below the heading "| object | | member | root | …", up to the first that is none of
/// its rows. What does not read as a row, and a row that is there twice, comes back in `problems`.
inline PermissionTable read_permission_table(const std::string& page, std::vector<std::string>& problems) {
  PermissionTable table;
  std::istringstream lines(page);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("| object |")) {
      inside = true;
      std::getline(lines, line);  // The rule below the heading.
      continue;
    }
    if (!inside) continue;
    if (!line.starts_with("|")) break;
    const auto cells = detail::cells_of(line);
    if (cells.size() != 3 + kCallers.size()) {
      problems.push_back("not a row: " + line);
      continue;
    }
    Verdicts verdicts;
    for (std::size_t i = 0; i < kCallers.size(); ++i) {
      if (!is_verdict(cells[3 + i])) problems.push_back("\"" + cells[3 + i] + "\" is no verdict: " + line);
      verdicts[kCallers[i]] = cells[3 + i];
    }
    if (!table.emplace(Deed{cells[0], cells[1], cells[2]}, verdicts).second) problems.push_back("twice: " + line);
  }
  return table;
}

/// All that introspection data of `object` says can be done with it.
inline std::vector<Deed> deeds_of(const std::string& object, const std::string& xml) {
  static const std::regex kEntry("<(interface|method|signal|property) name=\"([\\w.]+)\"([^>]*)>");
  std::vector<Deed> deeds;
  std::string interface;
  for (std::sregex_iterator at(xml.begin(), xml.end(), kEntry); at != std::sregex_iterator(); ++at) {
    const std::string element = (*at)[1];
    const std::string name = (*at)[2];
    const std::string attributes = (*at)[3];
    if (element == "interface") {
      interface = name.substr(name.rfind('.') + 1);
      continue;
    }
    const std::string member = interface + "." + name;
    if (element == "method") deeds.push_back({object, "call", member});
    if (element == "signal") deeds.push_back({object, "hear", member});
    if (element == "property") deeds.push_back({object, "read", member});
    if (attributes.find("access=\"readwrite\"") != std::string::npos) deeds.push_back({object, "write", member});
  }
  std::sort(deeds.begin(), deeds.end());
  return deeds;
}

/// The deeds that a table has rows for.
inline std::vector<Deed> deeds_of(const PermissionTable& table) {
  std::vector<Deed> deeds;
  for (const auto& [deed, verdicts] : table) deeds.push_back(deed);
  return deeds;
}

inline std::string describe(const Deed& deed) { return deed.object + " " + deed.kind + " " + deed.member; }

}  // namespace aw::testing
