// SPDX-License-Identifier: Apache-2.0
//
// The launcher against a watchdog that does nothing but talk, on a bus of its own: real forks, signals and zombies. The
// watchdog and the launcher are processes of their own, so that each has its loop, its signals and its children.
#include "cli/launcher.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "analysis_watchdog/names.h"
#include "cli/watchdog_client.h"
#include "loop/loop.h"

namespace aw::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using namespace std::chrono_literals;

constexpr char kOurs[] = "00000000-0000-4000-8000-00000000000a";
constexpr char kAnother[] = "00000000-0000-4000-8000-00000000000b";

/// What the watchdog of a test does.
struct Manners {
  std::string refusal = {};    ///< the error that it answers a registration with
  bool answers = true;         ///< to a registration
  bool kills_at_once = false;  ///< the child, before it is registered
  std::string ends_for = {};   ///< the reason for which it ends the run, soon
  bool tells = true;           ///< of the end, with a signal; else only when asked
  bool forgets = false;        ///< has unregistered the run by the time that it is asked
  bool goes = false;           ///< before the run has ended
  bool stays = false;          ///< when the bus goes, and comes back with it: it remembers what it did meanwhile
  bool is_slow = false;        ///< to say which run it is
  /// It has unregistered the run, and ended another one that has its id since.
  bool has_another = false;
  std::vector<std::string> not_in_force = {};
};

/// As little of a watchdog as the launcher can do with.
class Watchdog {
 public:
  explicit Watchdog(Manners manners) : manners_(std::move(manners)), loop_(loop::Loop::create().value()) {}

  [[noreturn]] void run(int ready) {
    connection_ = bus::Connection::open(bus::BusKind::kUser).value();
    AW_ASSERT(connection_->attach(loop_, [this] { on_bus_lost(); }).has_value());
    due_ = loop_.add_timer(loop::Priority::kKill, "end", [this](const Now&) { end(); }).value();
    back_ = loop_.add_timer(loop::Priority::kBus, "connect again", [this](const Now&) { connect_again(); }).value();
    serve(ready);
    ::_exit(loop_.run());
  }

 private:
  void serve(int ready) {
    served_ = connection_->serve(names::kManagerPath, [this](bus::Message m) { on_call(std::move(m)); }).value();
    analysis_ = connection_->serve("/x", [this](bus::Message m) { on_call(std::move(m)); }).value();
    connection_->request_name(names::kBusName, [ready](const Result<void>& done) {
      AW_ASSERT(done.has_value());
      (void)!::write(ready, "!", 1);
    });
  }

  void on_bus_lost() {
    if (!manners_.stays) return loop_.exit(0);
    kill(SIGTERM);  // Enforcement needs no bus.
    loop::Loop::set_timer(back_, add_span(loop_.now().monotonic, 50ms));
  }

  void connect_again() {
    if (!connection_->reopen()) return loop::Loop::set_timer(back_, add_span(loop_.now().monotonic, 50ms));
    serve(-1);
  }

  void on_call(bus::Message call) {
    launcher_ = call.sender();
    if (call.member() == "ListEvents") {
      auto reply = bus::Connection::new_reply(call);
      return connection_->send(std::move(reply.append(events_)));
    }
    if (call.member() == "Get") {
      const bool asks_for_limits =
          call.read_string().value() == names::kAnalysisInterface && call.read_string().value() == "LimitsNotInForce";
      if (manners_.is_slow && !asks_for_limits) return;
      auto reply = bus::Connection::new_reply(call);
      reply.append_variant(asks_for_limits ? bus::Value{manners_.not_in_force}
                                           : bus::Value{std::string(told_ ? kAnother : kOurs)});
      return connection_->send(std::move(reply));
    }
    id_ = call.read_string().value();
    child_ = call.read_fd().value();
    if (!manners_.answers) return;
    if (!manners_.refusal.empty()) return connection_->send_error(call, manners_.refusal, "not today");
    if (manners_.kills_at_once) kill(SIGKILL);
    ended_ = loop_.watch_fd(child_.get(), EPOLLIN, loop::Priority::kProcess, "child", [this](const Now&) { on_end(); })
                 .value();
    if (!manners_.ends_for.empty() && !manners_.stays)
      loop::Loop::set_timer(due_, add_span(loop_.now().monotonic, 100ms));
    auto reply = bus::Connection::new_reply(call);
    connection_->send(std::move(reply.append(bus::ObjectPath{"/x"})));
    if (manners_.has_another) loop::Loop::set_timer(due_, add_span(loop_.now().monotonic, 300ms));
  }

  void end_another() {
    told_ = true;
    events_.push_back(record_of("unregistered", "", kOurs, child_pid()));
    events_.insert(events_.begin(), record_of("ended", "wall-clock", kAnother, 1));
    tell("AnalysisEnding",
         [this](bus::Message& m) { m.append(id_).append("wall-clock").append(std::uint64_t{1'000'000}); });
    tell("AnalysisEnded", [&](bus::Message& m) { m.append(id_).append("wall-clock").append(events_.front()); });
  }

  bus::Dict record_of(const std::string& kind, const std::string& reason, const std::string& run_id, pid_t pid) const {
    return {{"event_id", {std::string("1")}},
            {"occurred_at", {std::uint64_t{1'000'000}}},
            {"registered_as", {id_}},
            {"run_id", {run_id}},
            {"pid", {std::int64_t{pid}}},
            {"kind", {kind}},
            {"reason", {reason}},
            {"comm", {std::string(child_is_there() ? "zombie" : "reaped")}}};
  }

  void kill(int signal) { (void)::syscall(SYS_pidfd_send_signal, child_.get(), signal, nullptr, 0); }

  void end() {
    if (manners_.has_another) return end_another();
    tell("AnalysisEnding",
         [this](bus::Message& m) { m.append(id_).append(manners_.ends_for).append(std::uint64_t{1'000'000}); });
    kill(SIGTERM);
    if (!manners_.goes) return;
    connection_->flush();
    ::_exit(0);
  }

  void on_end() {
    ended_.reset();
    const std::string reason = manners_.ends_for.empty() ? "exited" : manners_.ends_for;
    if (manners_.has_another) return;
    const bus::Dict record = record_of(manners_.forgets ? "unregistered" : "ended", reason, kOurs, child_pid());
    events_.push_back(record);
    if (manners_.tells) tell("AnalysisEnded", [&](bus::Message& m) { m.append(id_).append(reason).append(record); });
  }

  /// -1 once it has been reaped.
  pid_t child_pid() const {
    std::ifstream info("/proc/self/fdinfo/" + std::to_string(child_.get()));
    for (std::string key, value; info >> key >> value;) {
      if (key == "Pid:") return std::stoi(value);
    }
    return -1;
  }
  bool child_is_there() const { return child_pid() != -1; }

  template <class Fill>
  void tell(const char* member, Fill&& fill) {
    auto signal = connection_->new_signal(names::kManagerPath, names::kManagerInterface, member);
    fill(signal);
    connection_->send_to(std::move(signal), launcher_);
  }

  Manners manners_;
  loop::Loop loop_;
  std::unique_ptr<bus::Connection> connection_;
  bus::Slot served_;
  bus::Slot analysis_;
  loop::Source ended_;
  loop::Source due_;
  loop::Source back_;
  std::string launcher_;
  std::string id_;
  UniqueFd child_;
  bool told_ = false;  ///< of the end of another
  std::vector<bus::Dict> events_;
};

struct Pipe {
  void open() {
    std::array<int, 2> fds{};
    AW_ASSERT(::pipe2(fds.data(), O_CLOEXEC) == 0);
    read.reset(fds[0]);
    write.reset(fds[1]);
  }
  UniqueFd read;
  UniqueFd write;
};

/// What comes until `end`, or the end of the stream.
std::string read_until(int fd, char end = '\0') {
  std::string text;
  for (char c = 0; ::read(fd, &c, 1) == 1 && c != end;) text += c;
  return text;
}

class ALauncher : public ::testing::Test {
 protected:
  ALauncher() { options_.bus = bus::BusKind::kUser; }

  void SetUp() override {
    if (!start_bus()) GTEST_SKIP() << "no dbus-daemon here (package dbus)";
  }
  ~ALauncher() override {
    for (const pid_t pid : {launcher_, watchdog_, bus_}) {
      if (pid <= 0) continue;
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    std::filesystem::remove(bus_socket());
  }

  static std::filesystem::path bus_socket() {
    return std::filesystem::temp_directory_path() / ("aw-launcher-bus-" + std::to_string(::getpid()));
  }

  /// Always at the same place, as the system's.
  bool start_bus() {
    std::filesystem::remove(bus_socket());
    const std::string where = "unix:path=" + bus_socket().string();
    Pipe address;
    address.open();
    spawn(bus_, [&] {
      const int fd = ::dup(address.write.get());  // Without CLOEXEC.
      const std::string print = "--print-address=" + std::to_string(fd);
      const std::string at = "--address=" + where;
      ::execlp("dbus-daemon", "dbus-daemon", "--session", "--nofork", "--nopidfile", at.c_str(), print.c_str(),
               nullptr);
    });
    address.write.reset();
    if (read_until(address.read.get(), '\n').empty()) return false;
    ::setenv("DBUS_SESSION_BUS_ADDRESS", where.c_str(), 1);
    return true;
  }

  void stop_bus() {
    ::kill(bus_, SIGKILL);
    ::waitpid(std::exchange(bus_, -1), nullptr, 0);
  }

  void serve(Manners manners) {
    Pipe ready;
    ready.open();
    spawn(watchdog_, [&] { Watchdog(std::move(manners)).run(ready.write.get()); });
    ready.write.reset();
    ASSERT_EQ(read_until(ready.read.get(), '!'), "");
  }

  void start(std::vector<std::string> command) {
    options_.id = "job";
    options_.command = std::move(command);
    out_.open();  // Not before: the watchdog would hold them open as well.
    err_.open();
    spawn(launcher_, [this] {
      ::dup2(out_.write.get(), STDOUT_FILENO);
      ::dup2(err_.write.get(), STDERR_FILENO);
      std::string name = "analysis-run job";
      std::array<char*, 2> argv{name.data(), nullptr};
      ::_exit(launch(options_, 1, argv.data()));
    });
    out_.write.reset();
    err_.write.reset();
  }

  int wait() {
    int status = 0;
    ::waitpid(std::exchange(launcher_, -1), &status, 0);
    said_ = read_until(err_.read.get());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  void stop_watchdog() {
    ::kill(watchdog_, SIGKILL);
    ::waitpid(std::exchange(watchdog_, -1), nullptr, 0);
  }

  int run(std::vector<std::string> command) {
    start(std::move(command));
    return wait();
  }

  LaunchOptions options_;
  Pipe out_;
  Pipe err_;
  std::string said_;
  pid_t launcher_ = -1;

 private:
  template <class Body>
  static void spawn(pid_t& pid, Body&& body) {
    pid = ::fork();
    AW_ASSERT(pid >= 0);
    if (pid != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::alarm(60);  // Nothing here takes longer, whatever goes wrong.
    body();
    ::_exit(99);
  }
  pid_t bus_ = -1;
  pid_t watchdog_ = -1;
};

TEST_F(ALauncher, PassesOnTheExitStatus) {
  serve({});

  EXPECT_EQ(run({"sh", "-c", "exit 7"}), 7);
  EXPECT_EQ(said_, "");
}

TEST_F(ALauncher, Says128AndTheSignalThatTheCommandDiedOf) {
  serve({});

  EXPECT_EQ(run({"sh", "-c", "kill -TERM $$"}), 128 + SIGTERM);
}

TEST_F(ALauncher, Says124ForTheWallClockAndWhyInOneLine) {
  serve({.ends_for = "wall-clock"});

  EXPECT_EQ(run({"sh", "-c", "trap 'exit 3' TERM; while :; do sleep .05; done"}), 124);
  EXPECT_THAT(said_, MatchesRegex("analysis-run: job was ended: wall-clock[^\n]*\n"));
}

TEST_F(ALauncher, SaysWhyARunWasEndedThatNoRecordComesOf) {
  serve({.ends_for = "memory", .goes = true});

  EXPECT_EQ(run({"sleep", "50"}), 128 + SIGTERM);
  EXPECT_EQ(said_, "analysis-run: job was ended: memory\n");
}

TEST_F(ALauncher, SaysNothingOfAnEndWhenItIsToBeQuiet) {
  options_.quiet = true;
  serve({.ends_for = "wall-clock"});

  EXPECT_EQ(run({"sleep", "50"}), 124);
  EXPECT_EQ(said_, "");
}

TEST_F(ALauncher, LeavesTheZombieUntilTheRecordHasCome) {
  options_.report = true;
  options_.json = JsonStyle::kShort;
  serve({});

  EXPECT_EQ(run({"true"}), 0);
  EXPECT_THAT(said_, HasSubstr("\"comm\":\"zombie\""));
}

TEST_F(ALauncher, RunsNothingThatWasRefused) {
  const auto file = std::filesystem::temp_directory_path() / ("aw-launcher-" + std::to_string(::getpid()));
  serve({.refusal = names::error::kLimitTooHigh});

  EXPECT_EQ(run({"touch", file.string()}), kExitOwnFailure);
  EXPECT_THAT(said_, HasSubstr("not today"));
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(ALauncher, RunsNothingWithoutAWatchdog) {
  EXPECT_EQ(run({"true"}), kExitOwnFailure);
  EXPECT_THAT(said_, HasSubstr("systemctl --user enable --now"));
}

TEST_F(ALauncher, SaysWhichLimitsAreNotInForceBeforeTheCommandRuns) {
  serve({.not_in_force = {"TasksMax", "CPUWeight"}});

  EXPECT_EQ(run({"sh", "-c", "echo from the command >&2"}), 0);

  const auto told = said_.find("not in force: TasksMax, CPUWeight; this host does not delegate that to users");
  EXPECT_NE(told, std::string::npos) << said_;
  EXPECT_LT(told, said_.find("from the command")) << said_;
}

/// On a bus that would start the watchdog for whoever calls it.
class ALauncherOfAStoppedWatchdog : public ALauncher {
 protected:
  ALauncherOfAStoppedWatchdog() {
    const auto services = data_ / "dbus-1/services";
    std::filesystem::create_directories(services);
    std::ofstream(services / "watchdog.service") << "[D-BUS Service]\nName=" << names::kBusName
                                                 << "\nExec=/bin/sh -c \"touch " << started_.string() << "; exit 1\"\n";
    ::setenv("XDG_DATA_HOME", data_.c_str(), 1);  // Where dbus-daemon looks for such services.
  }
  ~ALauncherOfAStoppedWatchdog() override {
    ::unsetenv("XDG_DATA_HOME");
    ::unsetenv("DBUS_SYSTEM_BUS_ADDRESS");
    std::filesystem::remove_all(data_);
  }
  const std::filesystem::path data_ =
      std::filesystem::temp_directory_path() / ("aw-launcher-data-" + std::to_string(::getpid()));
  const std::filesystem::path started_ = data_ / "started";
};

TEST_F(ALauncherOfAStoppedWatchdog, DoesNotStartTheSystems) {
  ::setenv("DBUS_SYSTEM_BUS_ADDRESS", ::getenv("DBUS_SESSION_BUS_ADDRESS"), 1);
  options_.bus = bus::BusKind::kSystem;

  EXPECT_EQ(run({"true"}), kExitOwnFailure);

  EXPECT_THAT(said_, HasSubstr("systemctl enable --now"));
  EXPECT_FALSE(std::filesystem::exists(started_));
}

TEST_F(ALauncherOfAStoppedWatchdog, HasTheBusStartAUsersOwnAndRunsNothingIfThatFails) {
  const auto file = data_ / "run";

  EXPECT_EQ(run({"touch", file.string()}), kExitOwnFailure);

  EXPECT_TRUE(std::filesystem::exists(started_)) << said_;
  EXPECT_THAT(said_, HasSubstr("could not be started"));
  EXPECT_THAT(said_, HasSubstr("systemctl --user status analysis-watchdogd.service"));
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(ALauncherOfAStoppedWatchdog, IsTheOnlyOneThatStartsIt) {
  const auto listed = WatchdogClient::connect(bus::BusKind::kUser).value().list_analyses();

  ASSERT_FALSE(listed);
  EXPECT_THAT(listed.error().message, HasSubstr("systemctl --user enable --now"));
  EXPECT_FALSE(std::filesystem::exists(started_));
}

TEST_F(ALauncher, TellsACommandThatIsNotThereFromOneThatCannotBeRun) {
  serve({});

  EXPECT_EQ(run({"no-such-command-anywhere"}), kExitNotFound);
  EXPECT_THAT(said_, HasSubstr("command not found"));
}

TEST_F(ALauncher, CannotRunWhatIsNoProgram) {
  serve({});

  EXPECT_EQ(run({"/"}), kExitNotExecutable);
}

TEST_F(ALauncher, AsksForARecordThatDoesNotCome) {
  serve({.ends_for = "wall-clock", .tells = false});

  EXPECT_EQ(run({"sleep", "50"}), 124);
}

TEST_F(ALauncher, AsksWhyItsCommandWasEndedWhenTheBusIsBack) {
  options_.daemon_patience = 300ms;
  serve({.ends_for = "wall-clock", .stays = true});
  start({"sleep", "50"});
  std::this_thread::sleep_for(500ms);

  stop_bus();
  std::this_thread::sleep_for(1s);  // Longer than a daemon would be waited for.
  ASSERT_TRUE(start_bus());

  EXPECT_EQ(wait(), 124);
  EXPECT_THAT(said_, HasSubstr("the bus is away"));
  EXPECT_THAT(said_, HasSubstr("job was ended: wall-clock"));
}

TEST_F(ALauncher, DoesNotWaitForABusThatStaysAway) {
  options_.bus_patience = 500ms;
  serve({});
  start({"sh", "-c", "sleep 1; exit 6"});
  std::this_thread::sleep_for(500ms);

  stop_bus();

  EXPECT_EQ(wait(), 6);
}

TEST_F(ALauncher, DoesNotWaitForTheRecordOfAnUnregisteredRun) {
  serve({.tells = false, .forgets = true});

  EXPECT_EQ(run({"sh", "-c", "exit 5"}), 5);
}

TEST_F(ALauncher, IsNotGivenTheEndOfAnotherRunThatHasTheIdSince) {
  for (const bool is_slow : {false, true}) {
    serve({.is_slow = is_slow, .has_another = true});

    EXPECT_EQ(run({"sh", "-c", "sleep 1; exit 5"}), 5);
    EXPECT_EQ(said_, "");
    stop_watchdog();
  }
}

TEST_F(ALauncher, SurvivesAChildThatIsKilledAtTheGate) {
  serve({.kills_at_once = true});

  EXPECT_EQ(run({"true"}), 128 + SIGKILL);
}

TEST_F(ALauncher, SurvivesThatNobodyReadsWhatItSays) {
  serve({.ends_for = "memory"});
  start({"sleep", "50"});

  err_.read.reset();

  EXPECT_EQ(wait(), 128 + SIGTERM);
}

TEST_F(ALauncher, CanBeCalledOffBeforeTheCommandRuns) {
  serve({.answers = false});
  start({"true"});
  // It takes signals from its first moment on or dies of them: both are 143 to a shell.
  std::this_thread::sleep_for(200ms);

  ::kill(launcher_, SIGTERM);

  EXPECT_EQ(wait(), 128 + SIGTERM);
}

TEST_F(ALauncher, PassesSignalsOn) {
  serve({});
  start({"sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep .05; done"});
  ASSERT_EQ(read_until(out_.read.get(), '\n'), "ready");

  ::kill(launcher_, SIGUSR1);

  EXPECT_EQ(wait(), 9);
}

TEST_F(ALauncher, TellsTheCommandItsId) {
  serve({});
  start({"sh", "-c", "echo $ANALYSIS_ID"});

  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(read_until(out_.read.get()), "job\n");
}

TEST_F(ALauncher, PrintsTheIdOfADetachedCommandAndReturns) {
  options_.detach = true;
  serve({});
  start({"sleep", "1"});

  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(read_until(out_.read.get(), '\n'), "job");
}

}  // namespace
}  // namespace aw::cli
