// SPDX-License-Identifier: Apache-2.0
//
// The real processes: pidfds, /proc and signals. The only room that sends a signal, and it does so through pidfds
// alone: a bare pid is a number read from a file.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "base/unique_fd.h"
#include "loop/loop.h"
#include "process/locked_file_reader.h"
#include "supervise/ports.h"

namespace aw::process {

class ProcFs final : public supervise::Processes {
 public:
  /// How long survey() looks at processes, and how long anybody waits for a command line: together, with what else
  /// happens between a decision and its signal, less than 5 ms. A registration waits for `shares`.
  struct Patience {
    Span survey = std::chrono::milliseconds{2};
    Span cmdline = std::chrono::milliseconds{1};
    Span shares = std::chrono::milliseconds{2};
  };

  /// `loop` outlives us.
  explicit ProcFs(loop::Loop& loop);
  ProcFs(loop::Loop& loop, Patience patience, LockedFileReader::Open open_cmdline,
         LockedFileReader::Open open_rollup);  ///< for tests

  /// Never to be registered, besides ourselves and pid 1: the bus daemon, for example. `what` completes "process 7 is".
  void protect(pid_t pid, std::string what);

  Result<std::unique_ptr<supervise::ProcessHandle>> open(pid_t pid) override;
  Result<std::unique_ptr<supervise::ProcessHandle>> adopt(int pidfd) override;
  std::optional<supervise::ProcessStat> find_stat(pid_t pid) const override;
  Result<supervise::ProcessStat> read_stat(pid_t pid) const override;
  std::vector<supervise::ProcessStat> read_all() const override;
  bool has_children(pid_t pid) const override;
  std::optional<std::string> find_cgroup(pid_t pid) const override;
  std::optional<uid_t> find_uid(pid_t pid) const override;
  std::string read_cmdline(pid_t pid) const override;
  std::string read_wait_channel(pid_t pid) const override;
  Bytes read_anonymous(pid_t pid) const override;
  std::shared_ptr<const supervise::AnonymousShares> request_anonymous_shares(
      std::span<const pid_t> pids) const override;
  supervise::ProcessSurvey survey(std::span<const pid_t> pids) const override;
  Result<void> signal_member(pid_t pid, const std::string& path, std::span<const int> signals) override;
  std::optional<std::string> why_protected(pid_t pid) const override;

 private:
  loop::Loop& loop_;
  const Patience patience_;
  Bytes page_size_;
  Span tick_;  ///< of the CPU times in /proc/PID/stat
  std::unique_ptr<LockedFileReader> cmdlines_;
  std::unique_ptr<LockedFileReader> rollups_;  ///< apart: those of the largest processes take seconds
  struct Protected {
    pid_t pid;
    std::uint64_t start_time;  ///< 0: not known
    std::string what;
  };
  std::vector<Protected> protected_;
};

}  // namespace aw::process
