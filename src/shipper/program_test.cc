// SPDX-License-Identifier: Apache-2.0
#include "shipper/program.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/unique_fd.h"
#include "postgres/database_fixture.h"
#include "shipper/outbox_fixture.h"
#include "testing/patience.h"

namespace aw::shipper {
namespace {

namespace fs = std::filesystem;

/// The program in a process of its own, as systemd would start it.
class TheProgram : public postgres::AMigratedDatabase {
 protected:
  void SetUp() override {
    AMigratedDatabase::SetUp();
    directory_ = outbox_.shipped_file().parent_path();
    fs::create_directories(directory_ / "state/analysis-watchdog-shipper");
    configure(target_.uri);
    notify_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = directory_ / "notify";
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(notify_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const timeval patience{std::chrono::seconds(aw::testing::kPatience).count(), 0};
    ASSERT_EQ(::setsockopt(notify_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
  }
  ~TheProgram() override {
    if (pid_ > 0) (void)end(SIGKILL);
  }

  void configure(const std::string& uri) const {
    std::ofstream(directory_ / "conf") << "[Ledger]\nPath=" << outbox_.file().string()
                                       << "\n[PostgreSQL]\nPostgresUri=" << uri << "\n";
  }
  Options options() const {
    return {.user = true, .once = false, .is_configured = false, .config = directory_ / "conf"};
  }

  void start(const Options& options) {
    pid_ = ::fork();
    ASSERT_GE(pid_, 0);
    if (pid_ > 0) return;
    ::setenv("NOTIFY_SOCKET", (directory_ / "notify").c_str(), 1);
    ::setenv("XDG_STATE_HOME", (directory_ / "state").c_str(), 1);
    ::setenv("XDG_CONFIG_HOME", directory_.c_str(), 1);
    ::_exit(run(options));
  }
  /// The exit status, or minus the signal.
  int wait() {
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int end(int signal) {
    ::kill(pid_, signal);
    return wait();
  }
  int status_of(const Options& options) {
    start(options);
    return wait();
  }
  /// Hears systemd's side until it is told that.
  bool is_told(const std::string& what) {
    std::array<char, 1024> buffer{};
    for (;;) {
      const ssize_t size = ::recv(notify_.get(), buffer.data(), buffer.size(), 0);
      if (size < 0) return false;
      if (std::string_view(buffer.data(), static_cast<std::size_t>(size)).find(what) != std::string_view::npos)
        return true;
    }
  }

  Outbox outbox_;
  fs::path directory_;
  UniqueFd notify_;
  pid_t pid_ = -1;
};

TEST_F(TheProgram, ShipsOnceAndSaysWhetherAllIsThere) {
  outbox_.write(3);
  Options once = options();
  once.once = true;

  EXPECT_EQ(status_of(once), 0);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "3");

  configure("host=/nowhere");
  EXPECT_EQ(status_of(once), 1);
}

TEST_F(TheProgram, SaysWhetherItIsConfigured) {
  Options question = options();
  question.is_configured = true;

  EXPECT_EQ(status_of(question), 0);
  configure("");
  EXPECT_EQ(status_of(question), 1);
  EXPECT_EQ(status_of(options()), 0);
  std::ofstream(directory_ / "conf") << "[PostgreSQL]\nPostgresUrl=x\n";
  EXPECT_EQ(status_of(question), 255);
  EXPECT_EQ(status_of(options()), 1);
}

TEST_F(TheProgram, BringsAnEventAsSoonAsItIsInTheLedger) {
  start(options());
  ASSERT_TRUE(is_told("STATUS=0 events wait; PostgreSQL: takes them"));

  auto shortest = std::chrono::steady_clock::duration::max();
  for (int i = 1; i <= 5; ++i) {
    outbox_.write(1);
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_TRUE(
        aw::testing::comes_true([&] { return value("SELECT count(*) FROM watchdog_events") == std::to_string(i); }));
    shortest = std::min(shortest, std::chrono::steady_clock::now() - begin);
  }

  // Far from a poll every five seconds; each event is written as soon as the one before is there.
  EXPECT_LT(shortest, std::chrono::seconds{4});
  EXPECT_EQ(end(SIGTERM), 0);
}

TEST_F(TheProgram, IsReadyAndStopsThoughThereIsNoDatabase) {
  configure("host=/nowhere");
  outbox_.write(2);
  start(options());

  EXPECT_TRUE(is_told("READY=1"));
  EXPECT_TRUE(is_told("STATUS=2 events wait; PostgreSQL: not reachable"));
  outbox_.write(1);
  EXPECT_TRUE(is_told("STATUS=3 events wait; PostgreSQL: not reachable"));
  EXPECT_EQ(end(SIGTERM), 0);
}

TEST_F(TheProgram, StopsInTheMiddleOfATransaction) {
  pqxx::connection other(target_.uri);
  pqxx::work lock(other);
  lock.exec("LOCK TABLE watchdog_shipping");
  outbox_.write(1);
  start(options());
  ASSERT_TRUE(somebody_waits_for_a_lock());

  EXPECT_EQ(end(SIGTERM), 0);
}

TEST_F(TheProgram, GoesToAnotherDatabaseWhenItIsReloaded) {
  configure("host=/nowhere");
  outbox_.write(2);
  start(options());
  ASSERT_TRUE(is_told("PostgreSQL: not reachable"));
  configure(target_.uri);

  ::kill(pid_, SIGHUP);

  EXPECT_TRUE(is_told("STATUS=0 events wait; PostgreSQL: takes them"));
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "2");
  configure("");
  ::kill(pid_, SIGHUP);
  EXPECT_TRUE(is_told("STOPPING=1"));
  EXPECT_EQ(wait(), 0);
}

TEST(ShipperOptions, TakeThePasswordFromTheCredentialUnlessThereIsAPassfile) {
  std::string pattern = (fs::temp_directory_path() / "credentials-XXXXXX").string();
  const fs::path directory = ::mkdtemp(pattern.data());
  std::ofstream(directory / "postgres-password") << "s3cret\n";
  ::setenv("CREDENTIALS_DIRECTORY", directory.c_str(), 1);
  config::Settings settings;

  EXPECT_EQ(shipper_options(settings, false).target.password_file, directory / "postgres-password");
  settings.postgres.passfile = "/etc/passfile";
  EXPECT_EQ(shipper_options(settings, false).target.password_file, "");
  EXPECT_EQ(shipper_options(settings, false).target.passfile, "/etc/passfile");

  ::unsetenv("CREDENTIALS_DIRECTORY");
  EXPECT_EQ(shipper_options({}, false).target.password_file, "");
  fs::remove_all(directory);
}

}  // namespace
}  // namespace aw::shipper
