// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <span>

#include "base/time.h"
#include "base/unique_fd.h"
#include "supervise/ports.h"

namespace aw::process {

/// Reads /proc/PID/cmdline beside the loop. The kernel takes it out of the process's own memory, under its mmap_lock
/// and through its page faults: a process that is stuck in the kernel with that lock, or has its arguments behind a
/// userfaultfd, holds the reader for as long as it likes (docs/decisions/0004-command-lines-beside-the-loop.md).
class CmdlineReader {
 public:
  /// Opens the file of a process, which waits for nothing; an empty descriptor if it is gone.
  using Open = std::function<UniqueFd(pid_t)>;

  explicit CmdlineReader(Open open);
  /// Waits for nobody: a thread that is stuck goes when its process does, or with ours.
  ~CmdlineReader();
  CmdlineReader(const CmdlineReader&) = delete;
  CmdlineReader& operator=(const CmdlineReader&) = delete;

  /// Has the command lines of these processes read, as readable_cmdline() with `limit` shows them. Waits until they are
  /// there, at most `patience`; the rest comes later, each of its own process and of no other that gets its pid.
  std::shared_ptr<const supervise::Cmdlines> request(std::span<const pid_t> pids, std::size_t limit, Span patience);

  /// Threads, and files that are waited for: what is asked for beyond that is empty at once.
  static constexpr unsigned kMostThreads = 4;
  static constexpr std::size_t kMostWaiting = 256;

 private:
  struct Shared;
  void begin_thread();

  const Open open_;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace aw::process
