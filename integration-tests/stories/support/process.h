// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "base/unique_fd.h"

namespace aw::stories {

/// How long anything may take. The guest is emulated in software: 10 to 20 times slower than its host, or worse.
inline constexpr Span kPatience = std::chrono::minutes{2};

using Words = std::vector<std::string>;

/// The folder of the running program, where the workload lies, too.
std::string program_folder();
std::string workload_program();

/// CLOCK_MONOTONIC.
Instant monotonic_now();

struct SpawnOptions {
  int in = -1;   ///< the child's stdin; -1: /dev/null
  int out = -1;  ///< the child's stdout; -1: ours
  int err = -1;
  int extra = -1;                                                ///< becomes the child's descriptor 3
  std::vector<std::pair<std::string, std::string>> environment;  ///< on top of ours
  pid_t wanted = 0;  ///< the pid that it is to have; one that is taken is no failure: the Child then has no process
};

/// A process of the story's own. It is killed and reaped with its owner.
class Child {
 public:
  /// Programs of ours and of systemd's are told whose watchdog it is about (manager.h).
  static Child spawn(const Words& argv, const SpawnOptions& options = {});
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
  Child& operator=(Child&&) = delete;
  Child(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }  ///< -1: it has no process
  void signal(int number) const;
  /// Waits until it has ended, and leaves the zombie, so that its exit status can still be read.
  bool await_end(Span patience = kPatience) const;
  /// Waits and reaps; its exit status as a shell has it (128+N for signal N), or nothing when time was up.
  std::optional<int> reap(Span patience = kPatience);

 private:
  explicit Child(pid_t pid);
  pid_t pid_;
  UniqueFd pidfd_;
};

struct CommandResult {
  int status = -1;  ///< as a shell has it; -1: it did not end in time
  std::string out;
  std::string err;
};

/// Runs a program to its end.
CommandResult run_command(const Words& argv, const std::string& input = "", Span patience = kPatience);
/// The same as another user.
CommandResult run_as(const std::string& user, const Words& argv);

/// A process that is not necessarily ours, held so that its pid can't become another's.
class Held {
 public:
  explicit Held(pid_t pid);
  pid_t pid() const { return pid_; }
  bool alive() const;
  int pidfd() const { return pidfd_.get(); }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
};

/// Processes whose command line holds `token`, ours and the launcher's excepted.
std::vector<pid_t> find_processes(const std::string& token);

std::string read_file(const std::string& path);  ///< "" if it can't be read
void write_file(const std::string& path, const std::string& text);
bool exists(const std::string& path);

}  // namespace aw::stories
