// SPDX-License-Identifier: Apache-2.0
//
// A PostgreSQL server of the tests' own: in a temporary directory, on a unix socket only, gone with the tests.
#pragma once

#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/assert.h"
#include "testing/patience.h"

namespace aw::testing {

class PrivatePostgres {
 public:
  enum class Durability { kOff, kOn };

  explicit PrivatePostgres(Durability durability) { set_up(durability); }

  /// Starts with the first test of a program that wants it, and lasts until the program ends. Without durability.
  static PrivatePostgres& shared() {
    static PrivatePostgres postgres(Durability::kOff);
    return postgres;
  }

  /// Why there is none; empty where there is.
  const std::string& problem() const { return problem_; }
  /// Of the server's socket, and of a superuser without password.
  std::string uri(const std::string& database = "postgres") const {
    return "host=" + directory_.string() + " user=tester dbname=" + database;
  }
  const std::filesystem::path& directory() const { return directory_; }

  /// As `systemctl stop` would: connections are cut, what is committed stays.
  void stop() {
    if (server_ <= 0) return;
    ::kill(server_, SIGINT);
    ::waitpid(server_, nullptr, 0);
    server_ = -1;
  }
  /// After stop(). With other rules for who may connect, in pg_hba.conf's words, if any are given.
  void start_again(const std::string& who_may_connect = "local all all trust\n") {
    std::ofstream(directory_ / "data" / "pg_hba.conf") << who_may_connect;
    run();
  }

  ~PrivatePostgres() {
    if (server_ > 0) {
      ::kill(server_, SIGQUIT);  // At once; nobody will miss the data.
      ::waitpid(server_, nullptr, 0);
    }
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
  }
  PrivatePostgres(const PrivatePostgres&) = delete;
  PrivatePostgres& operator=(const PrivatePostgres&) = delete;

 private:
  void set_up(Durability durability) {
    durability_ = durability;
    const std::filesystem::path programs = find_programs();
    if (programs.empty()) {
      problem_ = "no PostgreSQL server is installed (package postgresql)";
      return;
    }
    std::string name = (std::filesystem::temp_directory_path() / "aw-postgres-XXXXXX").string();
    AW_ASSERT(::mkdtemp(name.data()) != nullptr);
    directory_ = name;
    if (::geteuid() == 0) AW_ASSERT(::chown(name.c_str(), kNobody, kNobody) == 0);
    const std::string data = directory_ / "data";
    const pid_t initdb = start(programs / "initdb", {"-D", data, "--no-sync", "-A", "trust", "-U", "tester", "-E",
                                                     "UTF8", "--locale=C.UTF-8"});
    int status = 0;
    if (::waitpid(initdb, &status, 0) != initdb || status != 0) {
      problem_ = "initdb failed: " + log();
      return;
    }
    run();
  }
  void run() {
    server_ = start(find_programs() / "postgres",
                    {"-D", directory_ / "data", "-k", directory_, "-c", "listen_addresses=", "-c",
                     durability_ == Durability::kOn ? "fsync=on" : "fsync=off", "-c", "max_prepared_transactions=4",
                     "-c", "autovacuum=off"});
    wait_until_ready(directory_ / "data" / "postmaster.pid");
  }
  static constexpr uid_t kNobody = 65534;  // PostgreSQL refuses to run as root.

  /// /usr/lib/postgresql/VERSION/bin of the newest version, as Debian has it.
  static std::filesystem::path find_programs() {
    std::vector<std::pair<int, std::filesystem::path>> found;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
      if (std::filesystem::exists(entry.path() / "bin" / "initdb")) {
        found.emplace_back(std::atoi(entry.path().filename().c_str()), entry.path() / "bin");
      }
    }
    return found.empty() ? std::filesystem::path() : std::ranges::max(found).second;
  }

  pid_t start(const std::string& program, std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string log_file = directory_ / "log";
    const pid_t pid = ::fork();
    AW_ASSERT(pid >= 0);
    if (pid > 0) return pid;
    if (::geteuid() == 0 && (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0)) {
      ::_exit(126);
    }
    ::prctl(PR_SET_PDEATHSIG, SIGQUIT);  // After setuid(), which resets it.
    if (::freopen("/dev/null", "r", stdin) == nullptr || ::freopen(log_file.c_str(), "a", stdout) == nullptr ||
        ::dup2(1, 2) < 0 || ::chdir("/") != 0) {
      ::_exit(126);
    }
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }

  void wait_until_ready(const std::filesystem::path& pid_file) {
    bool ready = false;
    (void)comes_true([&] {
      std::ifstream in(pid_file);
      for (std::string line; std::getline(in, line);) ready = ready || line.starts_with("ready");
      if (!ready && ::waitpid(server_, nullptr, WNOHANG) == server_) server_ = -1;
      return ready || server_ < 0;
    });
    if (!ready) problem_ = "the PostgreSQL server does not come up: " + log();
  }

  std::string log() const {
    std::ifstream in(directory_ / "log");
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path directory_;
  Durability durability_ = Durability::kOff;
  pid_t server_ = -1;
  std::string problem_;
};

}  // namespace aw::testing
