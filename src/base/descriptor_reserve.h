// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that only a kill gets. The soft limit stays below the hard one, so that registrations and clients run out
// of descriptors first, and are refused; what a kill needs for a moment is opened above the soft limit. Nothing that is
// kept is opened so.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

namespace aw {

inline constexpr rlim_t kDescriptorReserve = 64;

/// Puts the soft limit of descriptors as high as it goes, but for the reserve.
inline void keep_descriptor_reserve() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max - std::min(kDescriptorReserve, limit.rlim_max / 4);
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // Then registrations are refused sooner, and say so.
}

/// While it lives, the reserve can be used.
class DescriptorReserve {
 public:
  DescriptorReserve() noexcept {
    rlimit raised{};
    if (::getrlimit(RLIMIT_NOFILE, &before_) < 0 || before_.rlim_cur >= before_.rlim_max) return;
    raised = before_;
    raised.rlim_cur = raised.rlim_max;
    open_ = ::setrlimit(RLIMIT_NOFILE, &raised) == 0;
  }
  ~DescriptorReserve() {
    const int kept = errno;
    if (open_) (void)::setrlimit(RLIMIT_NOFILE, &before_);  // What was opened above it stays open.
    errno = kept;
  }
  DescriptorReserve(const DescriptorReserve&) = delete;
  DescriptorReserve& operator=(const DescriptorReserve&) = delete;

  explicit operator bool() const noexcept { return open_; }

 private:
  rlimit before_{};
  bool open_ = false;
};

/// What `open` returns, a descriptor or -1 with errno; where no descriptor was left it is called once more, with the
/// reserve.
template <class Open>
int open_with_reserve(Open open) noexcept {
  const int fd = open();
  if (fd >= 0 || errno != EMFILE) return fd;
  const DescriptorReserve reserve;
  if (reserve) return open();
  errno = EMFILE;
  return -1;
}

}  // namespace aw
