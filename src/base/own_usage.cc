// SPDX-License-Identifier: Apache-2.0
#include "base/own_usage.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>

namespace aw {
namespace {

Span to_span(const timeval& time) {
  return std::chrono::seconds{time.tv_sec} + std::chrono::microseconds{time.tv_usec};
}

Span to_span(const timespec& time) {
  return std::chrono::seconds{time.tv_sec} + std::chrono::microseconds{time.tv_nsec / 1000};
}

std::uint64_t count_descriptors() {
  // Linux 6.2 and later count them there (proc(5)); before, it is 0.
  struct stat all {};
  if (::stat("/proc/self/fd", &all) == 0 && all.st_size > 0) return static_cast<std::uint64_t>(all.st_size);
  struct Close {
    void operator()(DIR* dir) const noexcept { ::closedir(dir); }
  };
  const std::unique_ptr<DIR, Close> fds(::opendir("/proc/self/fd"));
  if (!fds) return 0;
  std::uint64_t count = 0;
  while (const dirent* entry = ::readdir(fds.get())) {
    if (entry->d_name[0] != '.') ++count;
  }
  return count - 1;  // Our own, which lists them.
}

}  // namespace

OwnUsage read_own_usage() {
  OwnUsage usage;
  rusage times{};
  if (::getrusage(RUSAGE_SELF, &times) == 0) usage.cpu = to_span(times.ru_utime) + to_span(times.ru_stime);
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  if (statm >> total >> resident)
    usage.resident = Bytes(resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
  usage.descriptors = count_descriptors();
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) usage.most_descriptors = limit.rlim_cur;
  return usage;
}

WallTime read_own_start() {
  // proc(5): the 22nd field of stat, in ticks since the boot; the second one, in parentheses, may hold anything.
  constexpr int kFieldsBetween = 19;
  std::ifstream file("/proc/self/stat");
  std::string stat((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::istringstream rest(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  std::int64_t ticks = 0;
  for (int i = 0; i < kFieldsBetween; ++i) rest >> skipped;
  timespec real{};
  timespec since_boot{};
  ::clock_gettime(CLOCK_REALTIME, &real);
  ::clock_gettime(CLOCK_BOOTTIME, &since_boot);
  if (!(rest >> ticks)) return WallTime(to_span(real));
  const auto began = std::chrono::microseconds{ticks * 1'000'000 / ::sysconf(_SC_CLK_TCK)};
  return WallTime(to_span(real) - (to_span(since_boot) - began));
}

}  // namespace aw
