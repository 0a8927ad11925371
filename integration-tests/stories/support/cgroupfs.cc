// SPDX-License-Identifier: Apache-2.0
#include "support/cgroupfs.h"

#include <filesystem>
#include <sstream>

#include "base/analysis_id.h"
#include "support/manager.h"
#include "support/process.h"

namespace aw::stories {
namespace {

constexpr char kRoot[] = "/sys/fs/cgroup";

}  // namespace

std::string slice_folder(const std::string& id) {
  return runs_folder() + "/" + slice_unit(AnalysisId::parse(id).value());
}

std::string scope_folder(const std::string& id) {
  return slice_folder(id) + "/" + scope_unit(AnalysisId::parse(id).value());
}

std::string folder_of(pid_t pid) {
  const std::string text = line_of("/proc/" + std::to_string(pid) + "/cgroup");
  return text.starts_with("0::") ? kRoot + text.substr(3) : "";
}

std::vector<pid_t> processes_in(const std::string& folder) {
  std::vector<pid_t> pids;
  std::istringstream text(read_file(folder + "/cgroup.procs"));
  for (pid_t pid = 0; text >> pid;) pids.push_back(pid);
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(folder, gone)) {
    if (!entry.is_directory(gone)) continue;
    const auto below = processes_in(entry.path());
    pids.insert(pids.end(), below.begin(), below.end());
  }
  return pids;
}

std::uint64_t counter_in(const std::string& file, const std::string& key) {
  std::istringstream text(read_file(file));
  std::string name;
  for (std::uint64_t value = 0; text >> name >> value;) {
    if (name == key) return value;
  }
  return 0;
}

std::string line_of(const std::string& file) {
  std::string text = read_file(file);
  if (const auto end = text.find('\n'); end != std::string::npos) text.resize(end);
  return text;
}

}  // namespace aw::stories
