// SPDX-License-Identifier: Apache-2.0
#include "daemon/instance_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

namespace aw::daemon {
namespace {

/// Whether `fd` is still what is found at `file`: whoever removes the directory must not make room for a second one.
bool is_in_place(int fd, const std::filesystem::path& file) {
  struct stat held {};
  struct stat found {};
  return ::fstat(fd, &held) == 0 && ::stat(file.c_str(), &found) == 0 && held.st_dev == found.st_dev &&
         held.st_ino == found.st_ino;
}

std::string read_holder(int fd) {
  std::array<char, 16> text{};
  const ssize_t size = ::pread(fd, text.data(), text.size(), 0);
  const std::string pid(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  const std::string digits = pid.substr(0, pid.find('\n'));
  return digits.empty() ? "" : " (process " + digits + ")";
}

}  // namespace

Result<InstanceLock> InstanceLock::take(const std::filesystem::path& file) {
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);  // Where that fails, open() says why.
  for (;;) {
    UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return errno_error("the lock " + file.string());
    // Whoever may read a file may lock it, and would keep the watchdog away with that.
    if (::fchmod(fd.get(), 0600) < 0) return errno_error("the lock " + file.string());
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) < 0) {
      if (errno != EWOULDBLOCK) return errno_error("the lock " + file.string());
      return Error{std::make_error_code(std::errc::device_or_resource_busy),
                   "another analysis-watchdogd" + read_holder(fd.get()) + " holds " + file.string() +
                       ": there can be one at a time"};
    }
    if (!is_in_place(fd.get(), file)) continue;
    // For people only: what counts is the lock.
    const std::string pid = std::to_string(::getpid()) + "\n";
    if (::ftruncate(fd.get(), 0) == 0) (void)!::pwrite(fd.get(), pid.data(), pid.size(), 0);
    return InstanceLock(std::move(fd));
  }
}

std::filesystem::path lock_file(bus::BusKind bus) {
  const char* runtime = bus == bus::BusKind::kUser ? std::getenv("XDG_RUNTIME_DIR") : nullptr;
  return std::filesystem::path(runtime != nullptr ? runtime : "/run") / "analysis-watchdog" / "lock";
}

}  // namespace aw::daemon
