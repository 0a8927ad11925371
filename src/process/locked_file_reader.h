// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/time.h"
#include "base/unique_fd.h"

namespace aw::process {

/// Reads beside the loop those files of /proc/PID for which the kernel takes the process's mmap_lock: `cmdline`, which
/// it takes out of the process's own memory and through its page faults, and `smaps_rollup`, for which it walks the
/// page tables. A process that is stuck in the kernel with that lock, or has its arguments behind a userfaultfd, holds
/// the reader for as long as it likes (docs/decisions/0004-command-lines-beside-the-loop.md).
class LockedFileReader {
 public:
  /// Opens the file of a process, which waits for nothing; an empty descriptor if it is gone.
  using Open = std::function<UniqueFd(pid_t)>;

  /// What is made of the text of a file, of which there are at most `limit` bytes and one more if that is not all.
  using Show = std::function<std::string(std::string_view text, std::size_t limit)>;

  /// `name` is that of the threads.
  LockedFileReader(const char* name, Open open, Show show);
  /// Waits for nobody: a thread that is stuck goes when its process does, or with ours.
  ~LockedFileReader();
  LockedFileReader(const LockedFileReader&) = delete;
  LockedFileReader& operator=(const LockedFileReader&) = delete;

  /// What was read of the file of a process, shown; nothing as long as it has not come.
  class Texts {
   public:
    virtual ~Texts() = default;
    virtual std::optional<std::string> find(pid_t pid) const = 0;
  };

  /// Has the files of these processes read. Waits until they are there, at most `patience`; the rest comes later, each
  /// of its own process and of no other that gets its pid. Empty for one that can't be read.
  std::shared_ptr<const Texts> request(std::span<const pid_t> pids, std::size_t limit, Span patience);

  /// Threads, and files that are waited for: what is asked for beyond that is empty at once.
  static constexpr unsigned kMostThreads = 4;
  static constexpr std::size_t kMostWaiting = 256;

 private:
  struct Shared;
  void begin_thread();

  const char* const name_;
  const Open open_;
  const std::shared_ptr<Shared> shared_;
};

/// Opens `file` of /proc/PID; the name outlives it.
LockedFileReader::Open opener_of(const char* file);

}  // namespace aw::process
