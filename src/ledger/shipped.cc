// SPDX-License-Identifier: Apache-2.0
#include "ledger/shipped.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/failpoint.h"
#include "base/numbers.h"
#include "base/unique_fd.h"

namespace aw::ledger {

std::filesystem::path user_shipped_file() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base = state != nullptr && *state == '/' ? std::filesystem::path(state)
                                     : home != nullptr                 ? std::filesystem::path(home) / ".local/state"
                                                                       : std::filesystem::path("/nonexistent");
  return base / "analysis-watchdog-shipper/shipped";
}

std::optional<std::int64_t> read_shipped_seq(const std::filesystem::path& file, const std::string& ledger_id) {
  // Root reads what an unprivileged user has written: no link is followed, and nothing but a file is read.
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) < 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  std::array<char, 256> buffer{};
  const ssize_t size = ::pread(fd.get(), buffer.data(), buffer.size(), 0);
  if (size <= 0) return std::nullopt;

  std::string_view text(buffer.data(), static_cast<std::size_t>(size));
  if (!text.ends_with('\n')) return std::nullopt;
  text.remove_suffix(1);
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos || text.substr(0, space) != ledger_id) return std::nullopt;
  const auto seq = parse_number<std::int64_t>(text.substr(space + 1));
  return seq && *seq >= 0 ? seq : std::nullopt;
}

Result<void> write_shipped_seq(const std::filesystem::path& file, const std::string& ledger_id, std::int64_t seq) {
  const std::string text = ledger_id + " " + std::to_string(seq) + "\n";
  const std::string fresh = file.string() + ".new";
  if (const int e = AW_FAILPOINT_ERRNO("shipped.write", ENOSPC, EMFILE)) return errno_error("write " + fresh, e);
  {
    const UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!fd) return errno_error("write " + fresh);
    const ssize_t written = ::write(fd.get(), text.data(), text.size());
    if (written != static_cast<ssize_t>(text.size()))
      return errno_error("write " + fresh, written < 0 ? errno : ENOSPC);
  }
  // Without fsync: after a power failure an older number is true as well, and none is safe.
  if (const int e = AW_FAILPOINT_ERRNO("shipped.rename", EIO)) return errno_error("rename " + fresh, e);
  if (std::rename(fresh.c_str(), file.c_str()) < 0) return errno_error("rename " + fresh);
  return {};
}

}  // namespace aw::ledger
