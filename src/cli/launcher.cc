// SPDX-License-Identifier: Apache-2.0
//
// The launcher's child waits at a gate (a pipe) until it is in its scope, so that the command is watched from its first
// instruction and has no descendants to be gathered. The launcher itself stays outside the scope. It does not reap the
// child before the record of the end has come: the daemon reads the exit status from the zombie.
#include "cli/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>

#include "analysis_watchdog/names.h"
#include "base/analysis_id.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/watchdog_client.h"
#include "loop/loop.h"

namespace aw::cli {
namespace {

using bus::Message;
using bus::RemoteError;
using bus::Reply;

constexpr int kPassedOn[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGTSTP, SIGCONT};

/// How long an answer may take.
constexpr Span kAnswerPatience = std::chrono::seconds{10};
constexpr Span kReconnectPause = std::chrono::seconds{1};

void say(const std::string& text) { std::fprintf(stderr, "analysis-run: %s\n", text.c_str()); }

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> open_pipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) < 0) return errno_error("pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// Lets ps and the daemon see the command where our own arguments stood.
void take_name(const std::vector<std::string>& command, int argc, char** argv) {
  char* begin = argv[0];
  char* end = argv[argc - 1] + std::strlen(argv[argc - 1]) + 1;
  char* at = begin;
  for (const std::string& word : command) {  // A suffix of our own arguments, so it fits.
    if (at + word.size() + 1 > end) break;
    std::memcpy(at, word.c_str(), word.size() + 1);
    at += word.size() + 1;
  }
  std::memset(at, 0, static_cast<std::size_t>(end - at));
  const auto slash = command.front().rfind('/');
  const std::string name = slash == std::string::npos ? command.front() : command.front().substr(slash + 1);
  (void)::prctl(PR_SET_NAME, name.c_str());  // Only a name.
}

/// A detached command outlives whoever reads our terminal or pipe: what it would write there goes to the journal, under
/// its unit. A file is its user's choice, and stays.
void leave_terminal() {
  ::setsid();
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (::isatty(STDIN_FILENO) != 0 && null) ::dup2(null.get(), STDIN_FILENO);
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat status {};
    if (::fstat(fd, &status) < 0 || S_ISREG(status.st_mode)) continue;
    const UniqueFd stream(::sd_journal_stream_fd("analysis-run", fd == STDERR_FILENO ? 5 : 6, 0));
    if (stream) ::dup2(stream.get(), fd);
  }
}

/// Whether we are the job that a shell has put into the foreground of a terminal.
bool in_foreground() {
  const UniqueFd terminal(::open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC));
  return terminal && ::tcgetpgrp(terminal.get()) == ::getpgrp();
}

/// The sum, unless it is without end.
Span later(Span span, Span more) { return span == kForever ? kForever : span + more; }

bool asks_for_end(int signal) { return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT; }

class Launcher {
 public:
  Launcher(const LaunchOptions& options, loop::Loop& loop) : options_(options), loop_(loop) {}

  Result<void> start(int argc, char** argv);
  int run() {
    const int status = loop_.run();
    return finished_ ? status : kExitOwnFailure;
  }

 private:
  Result<void> connect();
  Result<void> listen();
  Result<void> fork_child(int argc, char** argv);
  [[noreturn]] void be_child(int argc, char** argv, const Pipe& gate, const Pipe& status);
  Result<void> watch_signals();
  void request_register();
  void on_registered(Reply reply);
  void on_not_in_force(Reply reply);
  void open_gate();
  void on_exec_status(const Now& now);
  void on_signal(int signal, loop::SignalOrigin origin);
  void abandon(int signal);
  void on_child_changed();
  void stop_too();
  void on_child_ended(const Now& now);
  void await_end();
  void ask_for_record();
  void on_events(Reply reply);
  void on_news(Message signal);
  void on_ending(Message signal);
  void on_ended(Message signal);
  void on_daemon_name(Message signal);
  void ask_for_run_id(std::function<void(const std::string&)> done);
  bool is_ours(const bus::Dict& record) const;
  void await_record(Span how_long);
  void finish();
  void on_daemon_is(const Result<std::string>& owner);
  void on_bus_lost();
  void reconnect_to_bus();
  void write_report() const;
  void finish_with(int status) {
    finished_ = true;
    loop_.exit(status);
  }

  const LaunchOptions& options_;
  loop::Loop& loop_;
  std::unique_ptr<bus::Connection> connection_;
  std::vector<bus::Slot> matches_;
  std::vector<loop::Source> sources_;
  loop::Source child_source_;
  loop::Source exec_source_;
  loop::Source patience_;
  loop::Source ask_;
  loop::Source reconnect_;
  pid_t child_ = -1;
  UniqueFd pidfd_;
  UniqueFd gate_;
  UniqueFd exec_status_;
  sigset_t original_mask_{};
  bool bus_away_ = false;
  std::string daemon_;   ///< its unique name, "" while it is away: nobody else can end our wait
  WallTime asked_at_{};  ///< when the registration was sent: our events are not older
  std::string object_;   ///< of the analysis that has our id
  std::string run_id_;   ///< ours, as soon as it is known: an id may become another's
  bool registered_ = false;
  std::optional<int> wait_status_;
  std::optional<int> exec_errno_;
  std::optional<bus::Dict> record_;
  std::string reason_;
  Span grace_ = std::chrono::seconds{10};
  bool gave_up_ = false;
  bool finished_ = false;
};

Result<void> Launcher::connect() {
  auto connection = open_bus_to_launch(options_.bus);
  if (!connection) {
    return std::move(connection)
        .error()
        .within(options_.bus == bus::BusKind::kUser
                    ? "you have no bus of your own: log in, or set XDG_RUNTIME_DIR (package dbus-user-session)"
                    : "is dbus running?");
  }
  connection_ = std::move(*connection);
  auto attached = connection_->attach(loop_, [this] { on_bus_lost(); });
  if (!attached) return attached;
  return listen();
}

Result<void> Launcher::listen() {
  const std::string ours = std::string("type='signal',interface='") + names::kManagerInterface + "'";
  const std::string owner = std::string(
                                "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                                "member='NameOwnerChanged',arg0='") +
                            names::kBusName + "'";
  auto news = connection_->match(ours, [this](const Message& m) { on_news(Message::share(m.raw())); });
  auto name = connection_->match(owner, [this](const Message& m) { on_daemon_name(Message::share(m.raw())); });
  matches_.clear();
  for (auto* slot : {&news, &name}) {
    if (!*slot) return std::move(*slot).error();
    matches_.push_back(std::move(**slot));
  }
  return {};
}

Result<void> Launcher::start(int argc, char** argv) {
  if (auto connected = connect(); !connected) return connected;
  ::sigprocmask(SIG_SETMASK, nullptr, &original_mask_);
  if (auto watched = watch_signals(); !watched) return watched;
  auto patience = loop_.add_timer(loop::Priority::kBus, "patience", [this](const Now&) { finish(); });
  if (!patience) return std::move(patience).error();
  patience_ = std::move(*patience);
  auto ask = loop_.add_timer(loop::Priority::kBus, "ask for the record", [this](const Now&) { ask_for_record(); });
  if (!ask) return std::move(ask).error();
  ask_ = std::move(*ask);
  auto reconnect = loop_.add_timer(loop::Priority::kBus, "connect again", [this](const Now&) { reconnect_to_bus(); });
  if (!reconnect) return std::move(reconnect).error();
  reconnect_ = std::move(*reconnect);
  if (auto forked = fork_child(argc, argv); !forked) return forked;
  request_register();
  return {};
}

Result<void> Launcher::watch_signals() {
  for (const int signal : kPassedOn) {
    auto source =
        loop_.watch_signal(signal, "signal to pass on",
                           [this, signal](const Now&, loop::SignalOrigin origin) { on_signal(signal, origin); });
    if (!source) return std::move(source).error();
    sources_.push_back(std::move(*source));
  }
  auto changed =
      loop_.watch_signal(SIGCHLD, "command stopped", [this](const Now&, loop::SignalOrigin) { on_child_changed(); });
  if (!changed) return std::move(changed).error();
  sources_.push_back(std::move(*changed));
  return {};
}

Result<void> Launcher::fork_child(int argc, char** argv) {
  auto gate = open_pipe();
  auto status = open_pipe();
  if (!gate || !status) return errno_error("pipe");
  std::fflush(nullptr);
  child_ = ::fork();
  if (child_ < 0) return errno_error("fork");
  if (child_ == 0) be_child(argc, argv, *gate, *status);
  // After the fork: the command has what we were started with. Ignored, SIGCHLD would reap it unseen, and a reader of
  // our messages that is gone must not be the end of us.
  std::signal(SIGCHLD, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
  pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, child_, 0)));
  if (!pidfd_) return errno_error("pidfd_open");
  gate_ = std::move(gate->write);
  exec_status_ = std::move(status->read);
  auto ended = loop_.watch_fd(pidfd_.get(), EPOLLIN, loop::Priority::kProcess, "command",
                              [this](const Now& now) { on_child_ended(now); });
  if (!ended) return std::move(ended).error();
  child_source_ = std::move(*ended);
  auto exec = loop_.watch_fd(exec_status_.get(), EPOLLIN | EPOLLHUP, loop::Priority::kKill, "exec status",
                             [this](const Now& now) { on_exec_status(now); });
  if (!exec) return std::move(exec).error();
  exec_source_ = std::move(*exec);
  return {};
}

void Launcher::be_child(int argc, char** argv, const Pipe& gate, const Pipe& status) {
  ::close(gate.write.get());  // Ours too would keep the gate from ever reporting that the launcher is gone.
  ::close(status.read.get());
  take_name(options_.command, argc, argv);
  if (options_.detach) leave_terminal();
  ::setenv("ANALYSIS_ID", options_.id.c_str(), 1);
  std::vector<char*> words;
  for (const std::string& word : options_.command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  char go = 0;
  ssize_t got = 0;
  while ((got = ::read(gate.read.get(), &go, 1)) < 0 && errno == EINTR) {
  }
  if (got != 1) ::_exit(kExitOwnFailure);  // Refused, or the launcher is gone: never run unwatched.
  ::sigprocmask(SIG_SETMASK, &original_mask_, nullptr);
  ::execvp(words[0], words.data());
  const int failed = errno;
  (void)!::write(status.write.get(), &failed, sizeof failed);
  ::_exit(failed == ENOENT ? kExitNotFound : kExitNotExecutable);
}

void Launcher::request_register() {
  auto call =
      connection_->new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, "RegisterAnalysisByPidfd");
  bus::Dict limits = options_.limits;
  if (options_.detach) {
    std::erase_if(limits, [](const auto& entry) { return entry.first == "OwnerPolicy"; });
    limits.emplace_back("OwnerPolicy", bus::Value{std::string("ignore")});
  }
  call.append(options_.id).append(pidfd_).append(limits);
  asked_at_ = loop_.now().real;
  // PID 1 may be reloading, which takes its time.
  connection_->request(
      std::move(call), [this](Reply reply) { on_registered(std::move(reply)); }, std::chrono::minutes{3});
}

void Launcher::on_registered(Reply reply) {
  if (const auto* error = std::get_if<RemoteError>(&reply)) {
    say("cannot start " + printable(options_.command.front()) + " as \"" + printable(options_.id) +
        "\": " + describe_error(*error, options_.bus).message);
    return abandon(0);
  }
  auto& answer = std::get<Message>(reply);
  daemon_ = answer.sender();
  registered_ = true;
  if (const auto object = answer.read_path()) object_ = *object;
  ask_for_run_id([this](const std::string& run_id) { run_id_ = run_id; });
  // A user's watchdog enforces what the host lets it. Said before the command runs, whose output may be long.
  if (options_.bus != bus::BusKind::kUser || object_.empty()) return open_gate();
  auto call = connection_->new_call(daemon_.c_str(), object_.c_str(), "org.freedesktop.DBus.Properties", "Get");
  call.append(names::kAnalysisInterface).append("LimitsNotInForce");
  connection_->request(
      std::move(call), [this](Reply limits) { on_not_in_force(std::move(limits)); }, kAnswerPatience);
}

void Launcher::on_not_in_force(Reply reply) {
  auto* message = std::get_if<Message>(&reply);
  const auto value = message == nullptr ? Result<bus::Value>(invalid("")) : message->read_variant();
  const std::string options = value ? limits_not_in_force({{"LimitsNotInForce", *value}}) : "";
  if (!options.empty()) {
    say("not in force: " + options +
        "; this host does not delegate that to users (as root: systemctl edit user@.service, [Service] "
        "Delegate=memory pids cpu)");
  }
  open_gate();
}

void Launcher::open_gate() {
  if (finished_ || !gate_) return;
  const char go = 1;
  (void)!::write(gate_.get(), &go, 1);  // A child that is gone already is seen through its pidfd.
  gate_.reset();
  if (wait_status_) await_end();
}

/// Of the run that has our id. Not answered where there is none any more.
void Launcher::ask_for_run_id(std::function<void(const std::string&)> done) {
  if (object_.empty()) return;
  auto call = connection_->new_call(daemon_.c_str(), object_.c_str(), "org.freedesktop.DBus.Properties", "Get");
  call.append(names::kAnalysisInterface).append("RunId");
  connection_->request(std::move(call), [done = std::move(done)](Reply reply) {
    auto* message = std::get_if<Message>(&reply);
    const auto value = message == nullptr ? Result<bus::Value>(invalid("")) : message->read_variant();
    if (const auto* id = value ? value->get_if<std::string>() : nullptr) done(*id);
  });
}

/// The command is not to run. It leaves at once when its gate is gone, unless somebody has stopped it.
void Launcher::abandon(int signal) {
  gate_.reset();
  (void)::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGCONT, nullptr, 0);
  (void)::waitpid(child_, nullptr, 0);
  finish_with(signal == 0 ? kExitOwnFailure : 128 + signal);
}

void Launcher::on_exec_status(const Now&) {
  int failed = 0;
  const ssize_t got = ::read(exec_status_.get(), &failed, sizeof failed);
  exec_source_.reset();
  exec_status_.reset();
  if (got == sizeof failed) {
    exec_errno_ = failed;
    say(printable(options_.command.front()) + ": " +
        (failed == ENOENT ? std::string("command not found") : std::string(std::strerror(failed))));
    return;
  }
  // Closed by exec, or by a death before it.
  if (!options_.detach || !registered_) return;
  std::printf("%s\n", options_.id.c_str());
  std::fflush(stdout);
  finish_with(0);
}

void Launcher::on_signal(int signal, loop::SignalOrigin origin) {
  if (!registered_ && asks_for_end(signal)) return abandon(signal);
  if (wait_status_) {  // Only the record is missing; whoever interrupts does not want it.
    if (asks_for_end(signal)) finish();
    return;
  }
  // A key of the terminal's has reached the command as well, which is in our process group.
  if (origin == loop::SignalOrigin::kTerminal) return;
  (void)::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

void Launcher::on_child_changed() {
  siginfo_t info{};
  const int r = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WSTOPPED | WNOHANG);
  if (r == 0 && info.si_pid != 0 && in_foreground()) stop_too();
}

/// A shell sees its job stop only if we do. Where there is no such shell nobody would continue us, and a stopped
/// launcher could not tell of the end.
void Launcher::stop_too() {
  const pid_t self = ::getpid();
  const pid_t nurse = ::fork();
  if (nurse == 0) {  // Wakes us should the command end meanwhile: by its wall clock, say.
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pollfd ended{pidfd_.get(), POLLIN, 0};
    while (::poll(&ended, 1, -1) < 0 && errno == EINTR) {
    }
    (void)::kill(self, SIGCONT);
    ::_exit(0);
  }
  if (nurse < 0) return;
  (void)::raise(SIGSTOP);
  (void)::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGCONT, nullptr, 0);
  (void)::kill(nurse, SIGKILL);
  (void)::waitpid(nurse, nullptr, 0);
}

void Launcher::on_child_ended(const Now&) {
  child_source_.reset();
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOWAIT) < 0) {
    say("the end of the command could not be read: " + std::string(std::strerror(errno)));
    return finish_with(kExitOwnFailure);
  }
  wait_status_ = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
  if (registered_) await_end();  // Otherwise the reply comes first.
}

/// The command has ended; what is missing is the record.
void Launcher::await_end() {
  if (exec_source_) on_exec_status(loop_.now());
  if (record_ || gave_up_) return finish();
  const bus::Value* orphans = bus::find(options_.limits, "OrphanPolicy");
  const bool left_alone = orphans != nullptr && *orphans == bus::Value{std::string("report")};
  // Whom the command left behind has its grace; those that are only reported may live on for ever.
  Span patience = left_alone ? Span(std::chrono::seconds{3}) : later(grace_, std::chrono::seconds{30});
  if (daemon_.empty()) patience = bus_away_ ? options_.bus_patience : options_.daemon_patience;
  if (bus_away_ && !options_.quiet) {
    say("the bus is away; why " + printable(options_.id) + " ended is asked when it is back (for at most " +
        format_span(patience) + ")");
  }
  await_record(patience);
  loop::Loop::set_timer(ask_, add_span(loop_.now().monotonic, std::chrono::seconds{1}));
}

/// The signal may never come: the run was unregistered, or the daemon closed it before it knew us anew.
void Launcher::ask_for_record() {
  if (daemon_.empty()) return;  // Asked when it is back.
  auto call = connection_->new_call(daemon_.c_str(), names::kManagerPath, names::kManagerInterface, "ListEvents");
  call.append(bus::Dict{{"AnalysisId", {options_.id}},
                        {"Since", {to_usec(asked_at_.time_since_epoch())}},
                        {"Limit", {std::uint32_t{20}}}});
  connection_->request(
      std::move(call), [this](Reply reply) { on_events(std::move(reply)); }, kAnswerPatience);
}

void Launcher::on_events(Reply reply) {
  if (finished_ || record_) return;
  auto* message = std::get_if<Message>(&reply);
  const auto events = message == nullptr ? Result<std::vector<bus::Dict>>(invalid("")) : message->read_dicts();
  if (events) {
    for (const bus::Dict& event : *events) {
      const std::string kind = text_of(event, "kind");
      if (!is_ours(event)) continue;
      if (kind == "ended") {
        reason_ = text_of(event, "reason");
        record_ = event;
      }
      if (kind == "unregistered") reason_.clear();  // What was said since was said of another.
      if (kind == "ended" || kind == "unregistered") return finish();
    }
  }
  loop::Loop::set_timer(ask_, add_span(loop_.now().monotonic, std::chrono::seconds{2}));
}

void Launcher::await_record(Span how_long) {
  loop::Loop::set_timer(patience_, add_span(loop_.now().monotonic, how_long));
}

/// Before we know what our run is called: its pid is the command's until that is reaped.
bool Launcher::is_ours(const bus::Dict& record) const {
  if (!run_id_.empty()) return text_of(record, "run_id") == run_id_;
  const bus::Value* pid = bus::find(record, "pid");
  return pid != nullptr && *pid == bus::Value{std::int64_t{child_}};
}

void Launcher::on_news(Message signal) {
  if (signal.sender() != daemon_) return;
  if (signal.member() == "AnalysisEnding")
    on_ending(std::move(signal));
  else if (signal.member() == "AnalysisEnded")
    on_ended(std::move(signal));
}

void Launcher::on_ending(Message signal) {
  const auto id = signal.read_string();
  const auto reason = signal.read_string();
  if (!id || !reason || *id != options_.id) return;
  reason_ = *reason;
  if (const auto grace = signal.read_u64()) grace_ = from_usec(*grace);
  if (run_id_.empty()) return;
  // The signal names no run. Where ours was unregistered meanwhile, it may be of another one that has the id now.
  ask_for_run_id([this](const std::string& run_id) {
    if (run_id != run_id_ && !record_) reason_.clear();
  });
}

void Launcher::on_ended(Message signal) {
  const auto id = signal.read_string();
  const auto reason = signal.read_string();
  auto record = signal.read_dict();
  if (!id || !reason || !record || *id != options_.id || !is_ours(*record)) return;
  reason_ = *reason;
  record_ = std::move(*record);
  if (wait_status_) return finish();
  await_record(std::chrono::seconds{10});  // The command was moved elsewhere, if it lives.
}

void Launcher::on_daemon_name(Message signal) {
  (void)signal.read_string();
  (void)signal.read_string();
  on_daemon_is(signal.read_string());
}

void Launcher::on_daemon_is(const Result<std::string>& owner) {
  if (!owner || !registered_ || *owner == daemon_) return;
  // The limits hold without it, and when it is back it adopts the run: its successor's word counts as its own.
  daemon_ = *owner;
  if (wait_status_) await_end();
}

/// The run is watched without it as well, and whoever reports its end can be heard of again.
void Launcher::on_bus_lost() {
  if (finished_) return;
  if (!registered_) {
    say("the bus has gone away");
    return abandon(0);
  }
  daemon_.clear();
  bus_away_ = true;
  if (wait_status_) await_end();
  loop::Loop::set_timer(reconnect_, add_span(loop_.now().monotonic, kReconnectPause));
}

void Launcher::reconnect_to_bus() {
  if (!connection_->reopen() || !listen()) {
    return loop::Loop::set_timer(reconnect_, add_span(loop_.now().monotonic, kReconnectPause));
  }
  auto call =
      connection_->new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetNameOwner");
  call.append(names::kBusName);
  connection_->request(std::move(call), [this](Reply reply) {
    auto* message = std::get_if<Message>(&reply);
    bus_away_ = false;
    if (message != nullptr) return on_daemon_is(message->read_string());
    if (wait_status_) await_end();  // Its name comes with NameOwnerChanged.
  });
}

void Launcher::write_report() const {
  const std::string text = options_.json == JsonStyle::kOff ? report_text(*record_)
                                                            : to_text(record_to_json(*record_), options_.json) + "\n";
  FILE* file = options_.report_file.empty() ? stderr : std::fopen(options_.report_file.c_str(), "we");
  if (file == nullptr) return say(options_.report_file + ": " + std::strerror(errno));
  std::fputs(text.c_str(), file);
  if (file != stderr && std::fclose(file) != 0) say(options_.report_file + ": " + std::strerror(errno));
}

void Launcher::finish() {
  if (!wait_status_) {
    // The record says that the run is over, but the command lives on, outside: its status is still ours to wait for.
    if (!gave_up_) say(printable(options_.id) + " is no longer watched; waiting for the command");
    gave_up_ = true;
    return;
  }
  (void)::waitpid(child_, nullptr, 0);
  if (record_) {
    const std::string sentence = end_sentence(*record_);
    if (!options_.quiet && !sentence.empty()) say(sentence);
    if (options_.report) write_report();
  } else {
    // That it would be ended was told, how it went was not.
    if (!options_.quiet && !reason_.empty()) say(printable(options_.id) + " was ended: " + printable(reason_));
    if (options_.report) {
      say("no record of the end has come; see: journalctl ANALYSIS_ID='" + printable(options_.id) + "'");
    }
  }
  if (exec_errno_) return finish_with(*exec_errno_ == ENOENT ? kExitNotFound : kExitNotExecutable);
  finish_with(exit_status(*wait_status_, reason_));
}

}  // namespace

std::string make_id(const std::string& command) {
  const auto slash = command.rfind('/');
  std::string name = printable(slash == std::string::npos ? command : command.substr(slash + 1)).substr(0, 200);
  std::array<unsigned char, 4> random{};
  (void)!::getrandom(random.data(), random.size(), 0);  // Cannot fail once the host has booted.
  std::array<char, 9> suffix{};
  std::snprintf(suffix.data(), suffix.size(), "%02x%02x%02x%02x", random[0], random[1], random[2], random[3]);
  const std::string id = name + "-" + suffix.data();
  return AnalysisId::parse(id) ? id : std::string("analysis-") + suffix.data();
}

int launch(const LaunchOptions& options, int argc, char** argv) {
  auto loop = loop::Loop::create();
  if (!loop) {
    say(loop.error().message);
    return kExitOwnFailure;
  }
  Launcher launcher(options, *loop);
  if (auto started = launcher.start(argc, argv); !started) {
    say(started.error().message);
    return kExitOwnFailure;
  }
  return launcher.run();
}

}  // namespace aw::cli
