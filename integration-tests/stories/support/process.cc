// SPDX-License-Identifier: Apache-2.0
#include "support/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "support/manager.h"

namespace aw::stories {
namespace {

int open_pidfd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

/// fork() for a child that is to have a certain pid; -1 where that is taken. What the child may do before its exec is
/// what a signal handler may.
pid_t fork_as(pid_t wanted) {
  clone_args args{};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<std::uintptr_t>(&wanted);
  args.set_tid_size = 1;
  return static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
}

bool poll_end(int pidfd, Span patience) {
  const Instant deadline = monotonic_now() + patience;
  for (;;) {
    const Span left = deadline - monotonic_now();
    pollfd fd{pidfd, POLLIN, 0};
    const int r = ::poll(&fd, 1, left > Span(0) ? static_cast<int>(left.count() / 1000) + 1 : 0);
    if (r > 0) return true;
    if (r == 0) return false;
  }
}

std::string read_all(int fd) {
  ::lseek(fd, 0, SEEK_SET);
  std::string text;
  std::array<char, 65536> part{};
  for (ssize_t got = 0; (got = ::read(fd, part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(got));
  }
  return text;
}

}  // namespace

std::string program_folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path().string(); }

std::string workload_program() { return program_folder() + "/workload"; }

Instant monotonic_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return Instant(Span(now.tv_sec * 1'000'000 + now.tv_nsec / 1000));
}

Child::Child(pid_t pid) : pid_(pid), pidfd_(open_pidfd(pid)) {}

Child Child::spawn(const Words& argv, const SpawnOptions& options) {
  const Words told = for_manager(argv);
  std::vector<char*> words;
  for (const std::string& word : told) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t pid = options.wanted > 0 ? fork_as(options.wanted) : ::fork();
  if (pid == 0) {
    const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::dup2(options.in < 0 ? null : options.in, STDIN_FILENO);
    if (options.out >= 0) ::dup2(options.out, STDOUT_FILENO);
    if (options.err >= 0) ::dup2(options.err, STDERR_FILENO);
    if (options.extra == 3) ::fcntl(3, F_SETFD, 0);  // dup2 onto itself would leave it close-on-exec.
    if (options.extra >= 0) ::dup2(options.extra, 3);
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  return Child(pid);
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Child::signal(int number) const { (void)::syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0); }

bool Child::await_end(Span patience) const { return pid_ <= 0 || poll_end(pidfd_.get(), patience); }

std::optional<int> Child::reap(Span patience) {
  if (pid_ <= 0 || !poll_end(pidfd_.get(), patience)) return std::nullopt;
  int status = 0;
  ::waitpid(std::exchange(pid_, -1), &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

CommandResult run_command(const Words& argv, const std::string& input, Span patience) {
  const UniqueFd in(::memfd_create("in", MFD_CLOEXEC));
  const UniqueFd out(::memfd_create("out", MFD_CLOEXEC));
  const UniqueFd err(::memfd_create("err", MFD_CLOEXEC));
  (void)!::write(in.get(), input.data(), input.size());
  ::lseek(in.get(), 0, SEEK_SET);
  Child child = Child::spawn(argv, {in.get(), out.get(), err.get(), -1, {}});
  const auto status = child.reap(patience);
  return {status.value_or(-1), read_all(out.get()), read_all(err.get())};
}

CommandResult run_as(const std::string& user, const Words& argv) {
  Words words{"runuser", "-u", user, "--"};
  words.insert(words.end(), argv.begin(), argv.end());
  return run_command(words);
}

Held::Held(pid_t pid) : pid_(pid), pidfd_(open_pidfd(pid)) {}

bool Held::alive() const { return pidfd_.get() >= 0 && !poll_end(pidfd_.get(), Span(0)); }

std::vector<pid_t> find_processes(const std::string& token) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto pid = static_cast<pid_t>(std::stol(name));
    if (pid == ::getpid()) continue;
    const std::string cmdline = read_file("/proc/" + name + "/cmdline");
    if (cmdline.find(token) == std::string::npos || cmdline.starts_with("analysis-run")) continue;
    found.push_back(pid);
  }
  return found;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& text) {
  // One write(2): cgroupfs and procfs take no pieces.
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    ADD_FAILURE() << "could not write " << path << ": " << std::strerror(errno);
  }
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace aw::stories
