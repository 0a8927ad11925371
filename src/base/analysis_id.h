// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace aw {

/// The name under which an analysis is registered: 1 to 255 bytes of UTF-8 without control characters. Any other
/// text is legal; what leaves the program goes through the escapes below or a length-delimited field.
class AnalysisId {
 public:
  /// Checks the text; the message says which rule it breaks.
  static Result<AnalysisId> parse(std::string_view text);

  const std::string& text() const { return text_; }
  auto operator<=>(const AnalysisId&) const = default;

 private:
  explicit AnalysisId(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

/// The id in systemd's unit-name escaping, but '/' becomes \x2f (never '-', so that no id nests in another's
/// slice). Where the unit name would pass 255 bytes: a readable head, "\xff" (a byte that no UTF-8 has, so that
/// no escaped id can look like this) and the SHA-256 of the whole. Different ids, different results, always.
std::string escape_for_unit(const AnalysisId& id);

/// The id as one element of a D-Bus object path, as sd_bus_path_encode(): [A-Za-z0-9] stay, every other byte and
/// a leading digit become _xx, and the empty text "_".
std::string escape_for_path(std::string_view text);
/// The inverse of escape_for_path; nothing for text that it never produces.
std::optional<std::string> unescape_from_path(std::string_view element);

/// The unit names of a run. "analysis-ESC.slice", "analysis-ESC.scope", and for the n-th further scope of the
/// same run (n from 2; 0 is a bug) "analysis-ESC-n.scope": ESC has no '-', so the names of two runs never meet.
std::string slice_unit(const AnalysisId& id);
std::string scope_unit(const AnalysisId& id, unsigned generation = 1);
/// The id whose slice_unit() this is; nothing for any other text, and for the hash of a long id, which tells none.
std::optional<AnalysisId> find_id(std::string_view slice);
/// The scope in which processes live on that are released; `uuid` keeps a later one of this id from its name.
std::string shelter_unit(const AnalysisId& id, const std::string& uuid);

}  // namespace aw

template <>
struct std::hash<aw::AnalysisId> {
  std::size_t operator()(const aw::AnalysisId& id) const noexcept { return std::hash<std::string>{}(id.text()); }
};
