// SPDX-License-Identifier: Apache-2.0
#include "daemon/placement_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/failpoint.h"
#include "base/unique_fd.h"
#include "log/service_log.h"

namespace aw::daemon {
namespace {

/// 0, or the errno of what failed.
int write_file(const std::filesystem::path& file, const std::string& text) {
  if (const int error = AW_FAILPOINT_ERRNO("placement.write", ENOSPC, EMFILE)) return error;
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return errno;
  const ssize_t written = ::write(fd.get(), text.data(), text.size());
  if (written < 0) return errno;
  return static_cast<std::size_t>(written) == text.size() ? 0 : ENOSPC;
}

}  // namespace

void PlacementFiles::write(const std::string& run_id, const std::string& note) {
  const auto file = directory_ / run_id;
  int error = write_file(file, note);
  if (error == ENOENT && ::mkdir(directory_.c_str(), 0700) == 0) error = write_file(file, note);
  if (error == 0) return;
  // Half a note is none: nothing was asked for yet.
  ::unlink(file.c_str());
  log::warn(
      file.string() + " can't be written: " + std::generic_category().message(error) +
      "; should this watchdog die in the next moment, the analysis that is being registered gets the default limits");
}

std::optional<std::string> PlacementFiles::read(const std::string& run_id) const {
  const UniqueFd fd(::open((directory_ / run_id).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return std::nullopt;
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t size = 0; (size = ::read(fd.get(), part.data(), part.size())) != 0;) {
    if (size < 0) return std::nullopt;
    text.append(part.data(), static_cast<std::size_t>(size));
  }
  return text;
}

void PlacementFiles::remove(const std::string& run_id) { ::unlink((directory_ / run_id).c_str()); }

std::vector<std::string> PlacementFiles::list() const {
  std::vector<std::string> run_ids;
  std::error_code gone;
  for (auto entry = std::filesystem::directory_iterator(directory_, gone);
       !gone && entry != std::filesystem::directory_iterator(); entry.increment(gone)) {
    run_ids.push_back(entry->path().filename());
  }
  return run_ids;
}

}  // namespace aw::daemon
