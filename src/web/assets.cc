// SPDX-License-Identifier: Apache-2.0
#include "web/assets.h"

#include <array>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>

namespace aw::web {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kTypes{{
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
    {".ico", "image/x-icon"},
    {".txt", "text/plain; charset=utf-8"},
    {".webmanifest", "application/manifest+json"},
}};

constexpr std::array<const char*, 2> kCharts{"dygraph.min.js", "dygraph.min.css"};

std::string_view type_of(const fs::path& file) {
  const std::string extension = file.extension().string();
  for (const auto& [known, type] : kTypes) {
    if (extension == known) return type;
  }
  return "";
}

}  // namespace

Result<void> Assets::add(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  auto content =
      std::make_shared<std::string>(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  if (!stream) return errno_error("read " + file.string());
  files_[file.filename().string()] = {std::string(type_of(file)), std::move(content)};
  return {};
}

Result<Assets> Assets::read(const AssetFolders& folders) {
  Assets assets;
  std::error_code error;
  for (const char* name : kCharts) {
    if (!fs::is_regular_file(folders.charts / name, error)) continue;
    if (auto added = assets.add(folders.charts / name); !added) return std::move(added).error();
  }
  for (fs::directory_iterator at(folders.page, error), end; !error && at != end; at.increment(error)) {
    if (!at->is_regular_file(error) || type_of(at->path()).empty()) continue;
    if (auto added = assets.add(at->path()); !added) return std::move(added).error();
  }
  return assets;
}

const Asset* Assets::find(const std::string& name) const {
  const auto found = files_.find(name);
  return found == files_.end() ? nullptr : &found->second;
}

}  // namespace aw::web
