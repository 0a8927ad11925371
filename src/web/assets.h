// SPDX-License-Identifier: Apache-2.0
//
// The page and the library of its charts, read once: nobody's request ever becomes a path.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"

namespace aw::web {

struct Asset {
  std::string type;
  std::shared_ptr<const std::string> content;
};

/// Where they are.
struct AssetFolders {
  std::filesystem::path page;
  std::filesystem::path charts = "/usr/share/javascript/dygraphs";
};

class Assets {
 public:
  /// All regular files of `page` whose names say what they are, and of the charts' folder the two that are used. A
  /// folder that is not there leaves out what would be in it.
  static Result<Assets> read(const AssetFolders& folders);

  const Asset* find(const std::string& name) const;

 private:
  Result<void> add(const std::filesystem::path& file);

  std::map<std::string, Asset> files_;
};

}  // namespace aw::web
