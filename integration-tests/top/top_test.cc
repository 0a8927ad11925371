// SPDX-License-Identifier: Apache-2.0
//
// The real analysisctl in a real terminal (a pty), before the daemon's own bus objects over the simulated world.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include <array>
#include <csignal>

#include "analysis_watchdog/names.h"
#include "api/service.h"
#include "testing/private_bus.h"
#include "testing/world.h"

namespace aw {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::World;

constexpr char kEnter[] = "\x1b[?1049h";
constexpr char kLeave[] = "\x1b[?25h\x1b[?1049l";

class ATop : public testing::OnAPrivateBus {
 protected:
  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    begin_service();
  }
  void TearDown() override {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  void begin_service() {
    server_ = bus::Connection::open(bus::BusKind::kUser).value();
    ASSERT_TRUE(server_->attach(loop_, [] {}));
    service_ = std::make_unique<api::Service>(
        api::Service::Parts{*server_, loop_, world_.supervisor, world_.processes, history_,
                            [this]() -> const supervise::Limits& { return defaults_; },
                            [] { return api::StoreState{}; }, [] { return api::Vitals{}; }, false, "1"},
        api::Administrators{{::getuid()}, {}, {}});
    ASSERT_TRUE(service_->start());
    bool named = false;
    server_->request_name(names::kBusName, [&](const Result<void>& taken) { named = taken.has_value(); });
    ASSERT_TRUE(pump([&] { return named; }));
  }
  void end_service() {
    service_.reset();
    server_.reset();
  }

  /// analysisctl --user top … in a terminal of 100 by 20.
  void start(std::vector<std::string> arguments = {}) {
    winsize size{20, 100, 0, 0};
    // The terminal is opened here, not by forkpty(3), so that its mode is known from before.
    std::array<char, 64> name{};
    int terminal = -1;
    int keyboard = -1;
    ASSERT_EQ(::openpty(&keyboard, &terminal, name.data(), nullptr, &size), 0);
    keyboard_ = UniqueFd(keyboard);
    terminal_ = UniqueFd(terminal);
    ASSERT_EQ(::fcntl(keyboard, F_SETFL, O_NONBLOCK), 0);
    ASSERT_EQ(::tcgetattr(terminal, &before_), 0);
    run(std::move(arguments), terminal);
  }

  void run(std::vector<std::string> arguments, int terminal) {
    arguments.insert(arguments.begin(), {AW_ANALYSISCTL, "--user", "top"});
    pid_ = ::fork();
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      (void)::login_tty(terminal);
      for (const auto& [variable, value] : {std::pair{"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"}, {"NO_COLOR", "1"}}) {
        ::setenv(variable, value, 1);
      }
      std::vector<char*> words;
      for (std::string& argument : arguments) words.push_back(argument.data());
      words.push_back(nullptr);
      ::execv(words[0], words.data());
      ::_exit(127);
    }
  }

  /// Lets everybody get on until that is so; false if it never is.
  template <class What>
  bool pump(What&& what) {
    for (int i = 0; i < 1500; ++i) {
      if (what()) return true;
      if (!loop_.iterate(milliseconds{20})) return false;
      world_.deliver();
      if (service_) {
        for (; told_ < world_.recorder.records.size(); ++told_) service_->on_event(world_.recorder.records[told_]);
      }
      if (!keyboard_) continue;
      std::array<char, 4096> text{};
      for (ssize_t n = 0; (n = ::read(keyboard_.get(), text.data(), text.size())) > 0;) {
        output_.append(text.data(), static_cast<std::size_t>(n));
      }
    }
    return false;
  }
  /// The last picture.
  std::string picture() const {
    const auto begin = output_.rfind("\x1b[H");
    return begin == std::string::npos ? "" : output_.substr(begin);
  }
  bool shows(const std::string& text) {
    return pump([&] { return picture().find(text) != std::string::npos; });
  }
  void type(std::string_view keys) {
    ASSERT_EQ(::write(keyboard_.get(), keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  /// How it ended; -1 if it did not.
  int wait_for_end() {
    int status = -1;
    const bool ended = pump([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; });
    if (ended) pid_ = -1;
    (void)pump([n = 0]() mutable { return ++n > 3; });  // What it has written last.
    return ended ? status : -1;
  }
  void expect_terminal_as_before() {
    termios now{};
    ASSERT_EQ(::tcgetattr(terminal_.get(), &now), 0);
    EXPECT_EQ(now.c_lflag, before_.c_lflag);
    EXPECT_EQ(now.c_cc[VMIN], before_.c_cc[VMIN]);
    EXPECT_EQ(now.c_cc[VTIME], before_.c_cc[VTIME]);
    const auto left = output_.rfind(kLeave);
    ASSERT_NE(left, std::string::npos);
    EXPECT_LT(output_.rfind(kEnter), left);
  }
  void register_run(const std::string& id) {
    const pid_t leader = world_.spawn(world_.user_shell);
    world_.process(leader).on_term = testing::OnTerm::kIgnores;
    world_.register_run(id, leader);
  }
  void end_run(const std::string& id) {
    ASSERT_TRUE(world_.supervisor.end(World::id(id), world_.caller(), world_.now()));
    world_.deliver();
  }

  /// Somebody tells all others on the bus, each alone, that it has another watchdog by now and that the run is over.
  void forge_end(const std::string& id) {
    const auto stranger = bus::Connection::open(bus::BusKind::kUser).value();
    const auto list_names = [&] {
      auto reply = stranger->call_blocking(
          stranger->new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ListNames"));
      return std::get<bus::Message>(reply).read_strings().value();
    };
    const std::string run_id = world_.supervisor.find(World::id(id))->run_id;
    for (const std::string& name : list_names()) {
      if (!name.starts_with(':') || name == server_->unique_name() || name == stranger->unique_name()) continue;
      auto other = stranger->new_signal("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged");
      other.append(names::kBusName).append(server_->unique_name()).append(stranger->unique_name());
      auto ending = stranger->new_signal(names::kManagerPath, names::kManagerInterface, "AnalysisEnding");
      ending.append(id).append("boredom").append(std::uint64_t{1'000'000});
      auto ended = stranger->new_signal(names::kManagerPath, names::kManagerInterface, "AnalysisEnded");
      ended.append(id).append("boredom").append(bus::Dict{{"run_id", {run_id}}});
      for (auto* signal : {&other, &ending, &ended}) stranger->send_to(std::move(*signal), name);
    }
    (void)list_names();  // The bus has passed them on when it answers.
  }

  World world_;
  supervise::EventHistory history_;
  supervise::Limits defaults_;
  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> server_;
  std::unique_ptr<api::Service> service_;
  std::size_t told_ = 0;
  UniqueFd keyboard_;
  UniqueFd terminal_;
  termios before_{};
  std::string output_;
  pid_t pid_ = -1;
};

TEST_F(ATop, ShowsWhatRunsUntilItIsToldToQuitAndGivesTheTerminalBack) {
  register_run("job");

  start();

  EXPECT_TRUE(shows("job running")) << output_;
  termios taken{};
  ASSERT_EQ(::tcgetattr(terminal_.get(), &taken), 0);
  EXPECT_EQ(taken.c_lflag & static_cast<tcflag_t>(ICANON | ECHO), 0U);
  type("q");
  EXPECT_EQ(wait_for_end(), 0);
  expect_terminal_as_before();
}

TEST_F(ATop, IsToldOfWhatHappensAndDoesNotWaitForItsNextLook) {
  register_run("job");
  start({"--interval=1h"});
  ASSERT_TRUE(shows("job running")) << output_;

  register_run("another");
  EXPECT_TRUE(shows("another running")) << output_;

  end_run("job");
  EXPECT_TRUE(shows("ending: requested")) << output_;

  world_.advance(seconds{30});
  EXPECT_TRUE(shows("ended: requested")) << output_;
  EXPECT_TRUE(shows("another running"));
}

TEST_F(ATop, IsToldByNobodyElse) {
  register_run("job");
  start({"--interval=1h"});
  ASSERT_TRUE(shows("job running")) << output_;

  forge_end("job");
  register_run("another");

  EXPECT_TRUE(shows("another running")) << output_;
  EXPECT_TRUE(shows("job     running")) << output_;
  EXPECT_THAT(output_, Not(HasSubstr("boredom")));
}

TEST_F(ATop, FindsOutWhyARunIsEndingThatWasBefore) {
  register_run("job");
  end_run("job");
  for (const auto& record : world_.recorder.records) history_.add(record);

  start();

  EXPECT_TRUE(shows("ending: requested")) << output_;
}

TEST_F(ATop, ObeysKeys) {
  register_run("job");
  start();
  ASSERT_TRUE(shows("by memory")) << output_;

  type("P");
  EXPECT_TRUE(shows("by cpu"));
  type("I");
  EXPECT_TRUE(shows("by id"));
  type("h");
  EXPECT_TRUE(shows("sort by memory"));
  type("\x1b[B");  // Back, whatever the key is.
  EXPECT_TRUE(shows("job running"));
}

TEST_F(ATop, FillsATerminalThatHasChangedItsSize) {
  register_run("job with a name that does not fit into a narrow terminal");
  start();
  ASSERT_TRUE(shows("RUNTIME")) << output_;

  const winsize narrow{8, 40, 0, 0};
  ASSERT_EQ(::ioctl(keyboard_.get(), TIOCSWINSZ, &narrow), 0);

  EXPECT_TRUE(pump(
      [&] { return picture().find("ID ") != std::string::npos && picture().find("RUNTIME") == std::string::npos; }));
  std::size_t lines = 1;
  for (const char c : picture()) lines += c == '\n' ? 1 : 0;
  EXPECT_LE(lines, 8U);
}

TEST_F(ATop, ShowsAnIdThatIsMadeOfEscapesAsText) {
  register_run(
      "a\xe2\x80\xae"
      "b");

  start();

  EXPECT_TRUE(shows("a\\xe2\\x80\\xaeb")) << output_;
}

TEST_F(ATop, SaysWhenTheWatchdogGoesAndGoesOnWhenItIsBack) {
  register_run("job");
  start({"--interval=200ms"});
  ASSERT_TRUE(shows("job running")) << output_;

  end_service();
  EXPECT_TRUE(shows("you have no watchdog running")) << output_;
  EXPECT_THAT(picture(), Not(HasSubstr("job")));

  begin_service();
  EXPECT_TRUE(shows("job running")) << output_;
}

TEST_F(ATop, IsToldByTheNextWatchdog) {
  register_run("job");
  start({"--interval=1h"});
  ASSERT_TRUE(shows("job running")) << output_;
  end_service();
  ASSERT_TRUE(shows("you have no watchdog running")) << output_;
  begin_service();
  ASSERT_TRUE(shows("job running")) << output_;

  end_run("job");

  EXPECT_TRUE(shows("ending: requested")) << output_;
}

TEST_F(ATop, EndsWithAnErrorWhereThereIsNoWatchdog) {
  end_service();

  start();

  const int status = wait_for_end();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  EXPECT_THAT(output_, HasSubstr("analysisctl: you have no watchdog running"));
  expect_terminal_as_before();
}

TEST_F(ATop, StopsAndContinuesWithTheTerminalAsItShouldBe) {
  register_run("job");
  start();
  ASSERT_TRUE(shows("job running")) << output_;

  type("\x1a");
  int status = 0;
  ASSERT_TRUE(pump([&] { return ::waitpid(pid_, &status, WNOHANG | WUNTRACED) == pid_ && WIFSTOPPED(status); }));
  (void)pump([n = 0]() mutable { return ++n > 3; });
  expect_terminal_as_before();

  const auto stopped_at = output_.size();
  ASSERT_EQ(::kill(pid_, SIGCONT), 0);
  EXPECT_TRUE(pump([&] { return output_.find("job running", stopped_at) != std::string::npos; }));
  EXPECT_NE(output_.find(kEnter, stopped_at), std::string::npos);
  type("q");
  EXPECT_EQ(wait_for_end(), 0);
  expect_terminal_as_before();
}

class ATopThatEnds : public ATop, public ::testing::WithParamInterface<int> {};

TEST_P(ATopThatEnds, GivesTheTerminalBack) {
  register_run("job");
  start();
  ASSERT_TRUE(shows("job running")) << output_;

  if (GetParam() == SIGINT) {
    type("\x03");
  } else {
    ASSERT_EQ(::kill(pid_, GetParam()), 0);
  }

  EXPECT_NE(wait_for_end(), -1);
  expect_terminal_as_before();
}
INSTANTIATE_TEST_SUITE_P(BySignal, ATopThatEnds, ::testing::Values(SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGSEGV, SIGABRT));

TEST_F(ATop, GivesTheTerminalBackWhenTheBusHasGone) {
  register_run("job");
  start();
  ASSERT_TRUE(shows("job running")) << output_;

  restart_bus();

  const int status = wait_for_end();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  EXPECT_THAT(output_, HasSubstr("the bus has gone away"));
  expect_terminal_as_before();
}

TEST_F(ATop, EndsAfterAsManyLooksAsWereWanted) {
  register_run("job");

  start({"-n", "2", "-d", "100ms"});

  EXPECT_EQ(wait_for_end(), 0);
  EXPECT_THAT(output_, HasSubstr("job running"));
  expect_terminal_as_before();
}

// ---- without a terminal ----

class ATopInAPipe : public ATop {
 protected:
  std::string output_of(std::vector<std::string> arguments) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    keyboard_ = UniqueFd(ends[0]);
    UniqueFd write(ends[1]);
    EXPECT_EQ(::fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    arguments.insert(arguments.begin(), {AW_ANALYSISCTL, "--user", "top"});
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(write.get(), STDOUT_FILENO);
      std::vector<char*> words;
      for (std::string& argument : arguments) words.push_back(argument.data());
      words.push_back(nullptr);
      ::execv(words[0], words.data());
      ::_exit(127);
    }
    write.reset();
    EXPECT_EQ(wait_for_end(), 0);
    return output_;
  }
};

TEST_F(ATopInAPipe, IsPrintedOnceAsText) {
  register_run("job");

  const std::string text = output_of({});

  EXPECT_THAT(text,
              ::testing::ContainsRegex("ID +STATE +REASON MEMORY LIMIT MEM% CPU% PROCS RUNTIME +LEFT\njob +running "));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST_F(ATopInAPipe, IsPrintedAsOftenAsWanted) {
  register_run("job");

  const std::string text = output_of({"-b", "-n", "3", "-d", "100ms", "--no-legend"});

  std::size_t times = 0;
  for (auto at = text.find("job running"); at != std::string::npos; at = text.find("job running", at + 1)) ++times;
  EXPECT_EQ(times, 3U) << text;
}

TEST_F(ATopInAPipe, IsJsonIfThatIsWanted) {
  register_run("job");

  EXPECT_THAT(output_of({"--json"}), ::testing::ContainsRegex("^\\[\\{.*\"analysis_id\":\"job\""));
}

}  // namespace
}  // namespace aw
