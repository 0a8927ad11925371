// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "supervise/ports.h"

namespace aw::daemon {

/// A file for each, named by its run, in a directory of the runtime file system, which no disk is behind: written and
/// removed on the loop.
class PlacementFiles final : public supervise::Placements {
 public:
  /// The directory is made when it is first needed, for its owner only: a note has a command line and labels in it.
  explicit PlacementFiles(std::filesystem::path directory) : directory_(std::move(directory)) {}

  void write(const std::string& run_id, const std::string& note) override;
  std::optional<std::string> read(const std::string& run_id) const override;
  void remove(const std::string& run_id) override;
  std::vector<std::string> list() const override;

 private:
  std::filesystem::path directory_;
};

}  // namespace aw::daemon
