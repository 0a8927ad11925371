// SPDX-License-Identifier: Apache-2.0
#include "cli/top.h"

#include <langinfo.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <map>
#include <utility>

#include "analysis_watchdog/names.h"
#include "analysis_watchdog/words.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/top_screen.h"
#include "cli/watchdog_client.h"
#include "cli/watchdog_signals.h"
#include "cli/when.h"
#include "loop/loop.h"

namespace aw::cli {
namespace {

using bus::Dict;

/// What happens is shown at once, but not more often than this; and looking may take a tenth of the watchdog's time at
/// most, however many runs there are.
constexpr Span kLeastPause = std::chrono::milliseconds{100};
constexpr int kShareOfTime = 10;
constexpr Span kLeastInterval = std::chrono::milliseconds{100};
constexpr Span kPatience = std::chrono::seconds{10};

// The alternate screen, so that what was there before is there again afterwards; no cursor.
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l\x1b[2J";
constexpr std::string_view kLeave = "\x1b[?25h\x1b[?1049l";

/// For who dies of a bug: a handler may use nothing else.
termios saved_mode;                       // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
volatile std::sig_atomic_t screen_taken;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

void write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void give_back_screen() {
  if (screen_taken == 0) return;
  screen_taken = 0;
  write_out(kLeave);
  (void)::tcsetattr(STDIN_FILENO, TCSANOW, &saved_mode);
}

extern "C" void on_deadly_signal(int signal) {
  give_back_screen();
  (void)::signal(signal, SIG_DFL);
  (void)::raise(signal);
}

/// The terminal, taken: keys come one by one and unseen. However the program ends, it is given back.
class TakenTerminal {
 public:
  TakenTerminal() {
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) (void)::signal(signal, on_deadly_signal);
    (void)::signal(SIGPIPE, SIG_IGN);
    take();
  }
  ~TakenTerminal() { give_back_screen(); }
  TakenTerminal(const TakenTerminal&) = delete;
  TakenTerminal& operator=(const TakenTerminal&) = delete;

  static void take() {
    if (::tcgetattr(STDIN_FILENO, &saved_mode) < 0) return;
    termios mode = saved_mode;
    mode.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // Signals of the keyboard stay: the loop hears them.
    mode.c_cc[VMIN] = 0;
    mode.c_cc[VTIME] = 0;
    screen_taken = 1;
    (void)::tcsetattr(STDIN_FILENO, TCSAFLUSH, &mode);
    write_out(kEnter);
  }

  static TerminalSize size() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0) return {};
    return {size.ws_col, size.ws_row};
  }
};

TopScreen::Bars bars_of_locale() {
  (void)std::setlocale(LC_CTYPE, "");
  const char* codeset = ::nl_langinfo(CODESET);
  return std::string_view(codeset) == "UTF-8" ? TopScreen::Bars::kUnicode : TopScreen::Bars::kAscii;
}

class Top {
 public:
  Top(loop::Loop loop, bus::BusKind bus, std::unique_ptr<bus::Connection> connection, TopOrder order, Span interval,
      std::optional<std::uint32_t> iterations)
      : loop_(std::move(loop)),
        bus_(bus),
        connection_(std::move(connection)),
        screen_(order, bars_of_locale()),
        interval_(interval),
        left_(iterations) {}

  int run() {
    if (auto begun = begin(); !begun) return fail(begun.error());
    int status = 0;
    {
      const TakenTerminal terminal;
      look();
      status = loop_.run();
    }
    if (status != 0 && !failure_.empty()) warn(failure_);
    return status;
  }

 private:
  Result<void> begin() {
    auto attached = connection_->attach(loop_, [this] { leave(1, "the bus has gone away"); });
    if (!attached) return attached;
    auto listening = signals_.listen(
        *connection_, [this](bus::Message signal) { on_signal(std::move(signal)); }, [this] { look_soon(); });
    if (!listening) return listening;

    auto timer = loop_.add_timer(loop::Priority::kBus, "look", [this](const Now&) { look(); });
    if (!timer) return std::move(timer).error();
    timer_ = std::move(*timer);
    auto keys =
        loop_.watch_fd(STDIN_FILENO, EPOLLIN, loop::Priority::kSignal, "keys", [this](const Now&) { on_keys(); });
    if (!keys) return std::move(keys).error();
    keys_ = std::move(*keys);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP}) {
      auto source = loop_.watch_signal(signal, "signal",
                                       [this, signal](const Now&, loop::SignalOrigin) { on_posix_signal(signal); });
      if (!source) return std::move(source).error();
      posix_.push_back(std::move(*source));
    }
    return {};
  }

  void leave(int status, std::string why = "") {
    failure_ = std::move(why);
    loop_.exit(status);
  }

  // ---- the watchdog ----

  void look_soon() {
    const Instant due = std::max(loop_.now().monotonic, last_look_ + pause_);
    if (due >= next_look_) return;
    next_look_ = due;
    loop::Loop::set_timer(timer_, due);
  }

  void look() {
    last_look_ = loop_.now().monotonic;
    next_look_ = add_span(last_look_, std::max(interval_, pause_));
    loop::Loop::set_timer(timer_, next_look_);
    if (looking_) return;
    looking_ = true;
    auto get_all =
        connection_->new_call(names::kBusName, names::kManagerPath, "org.freedesktop.DBus.Properties", "GetAll");
    get_all.append(names::kManagerInterface);
    request(std::move(get_all),
            [this](bus::Message properties) { manager_ = properties.read_dict().value_or(Dict{}); });
    request(connection_->new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, "ListAnalyses"),
            [this](bus::Message list) { on_listed(std::move(list)); });
  }

  void request(bus::Message call, std::function<void(bus::Message)> done) {
    connection_->request(
        std::move(call),
        [this, done = std::move(done)](bus::Reply reply) {
          if (const auto* error = std::get_if<bus::RemoteError>(&reply)) return on_away(*error);
          done(std::get<bus::Message>(std::move(reply)));
        },
        kPatience);
  }

  void on_away(const bus::RemoteError& error) {
    looking_ = false;
    const std::string why = describe_error(error, bus_).message;
    if (!listed_) return leave(1, why);  // As all commands do that find nobody.
    screen_.on_away(why);
    draw();
  }

  void on_listed(bus::Message list) {
    looking_ = false;
    auto runs = list.read_dicts();
    if (!runs) return leave(1, runs.error().message);
    listed_ = true;
    pause_ = std::max(kLeastPause, (loop_.now().monotonic - last_look_) * kShareOfTime);
    screen_.on_listed(std::move(*runs), manager_, read_clocks());
    for (const std::string& id : screen_.unexplained()) ask_why(id);
    draw();
    if (left_ && (*left_ == 0 || --*left_ == 0)) leave(0);
  }

  /// Of a run that was ending before we came. What was begun can't be asked for by its id alone: an earlier run of it
  /// may have been ended too.
  void ask_why(const std::string& id) {
    auto call = connection_->new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, "ListEvents");
    call.append(Dict{
        {"AnalysisId", {id}}, {"Kind", {std::string(to_string(EventKind::kEnding))}}, {"Limit", {std::uint32_t{1}}}});
    request(std::move(call), [this, id](bus::Message reply) {
      const auto events = reply.read_dicts();
      if (!events || events->empty()) return;
      const Dict& event = events->front();
      const Now now = read_clocks();
      const Span ago = now.real - WallTime(from_usec(number_of(event, "occurred_at").value_or(0)));
      screen_.on_ending(id, text_of(event, "reason"), now.monotonic - ago);
      draw();
    });
  }

  void on_signal(bus::Message signal) {
    const std::string member = signal.member();
    if (member == "AnalysisEnding") {
      const auto id = signal.read_string();
      const auto reason = signal.read_string();
      if (id && reason) {
        screen_.on_ending(*id, *reason, read_clocks().monotonic);
        draw();
      }
    } else if (member == "AnalysisEnded") {
      const auto id = signal.read_string();
      const auto reason = signal.read_string();
      const auto record = signal.read_dict();
      if (id && reason && record) {
        screen_.on_ended(text_of(*record, "run_id"), *reason, read_clocks());
        draw();
      }
    }
    look_soon();
  }

  // ---- the terminal ----

  void on_keys() {
    std::array<char, 256> typed{};
    const ssize_t count = ::read(STDIN_FILENO, typed.data(), typed.size());
    // A terminal that has gone says so by SIGHUP as well; one that is read in the background, by EIO.
    if (count < 0) return errno == EINTR || errno == EAGAIN ? void() : leave(0);
    if (count == 0) return leave(0);
    for (const std::string& key : parse_keys({typed.data(), static_cast<std::size_t>(count)})) {
      switch (screen_.on_key(key)) {
        case TopScreen::Answer::kNothing:
          break;
        case TopScreen::Answer::kDraw:
          draw();
          break;
        case TopScreen::Answer::kLook:
          look_soon();
          break;
        case TopScreen::Answer::kQuit:
          return leave(0);
      }
    }
  }

  void on_posix_signal(int signal) {
    if (signal == SIGWINCH) return draw();
    if (signal != SIGTSTP) return leave(signal == SIGINT ? 0 : 128 + signal);
    give_back_screen();
    (void)::kill(::getpid(), SIGSTOP);
    TakenTerminal::take();  // Somebody has continued us.
    look_soon();
    draw();
  }

  void draw() {
    if (screen_taken == 0) return;
    std::string text = "\x1b[H";
    const TerminalSize size = TakenTerminal::size();
    const auto lines = screen_.draw(size, read_clocks());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      text += lines.at(i) + "\x1b[K";
      if (i + 1 < lines.size()) text += "\r\n";
    }
    write_out(text + "\x1b[J");
  }

  loop::Loop loop_;
  bus::BusKind bus_;
  std::unique_ptr<bus::Connection> connection_;
  TopScreen screen_;
  const Span interval_;
  std::optional<std::uint32_t> left_;
  WatchdogSignals signals_;
  loop::Source timer_, keys_;
  std::vector<loop::Source> posix_;
  Instant last_look_{};
  Span pause_ = kLeastPause;
  Instant next_look_ = kNever;
  bool looking_ = false;
  bool listed_ = false;
  Dict manager_;
  std::string failure_;
};

/// Plain text, as often as wanted; a call after the other, because there is nothing else to hear.
int print_batches(const Common& common, TopOrder order, Span interval, std::optional<std::uint32_t> iterations) {
  auto client = WatchdogClient::connect(common.bus);
  if (!client) return fail(client.error());
  auto loop = loop::Loop::create();
  if (!loop) return fail(loop.error());
  TopScreen screen(order);
  for (std::uint32_t done = 0;;) {
    auto runs = client->list_analyses();
    auto manager = runs ? client->manager_properties() : Result<Dict>(runs.error());
    if (!manager) return fail(manager.error());
    if (common.json != JsonStyle::kOff) {
      Json list = Json::array();
      for (const Dict& run : *runs) list.push_back(analysis_to_json(run));
      print(to_text(list, common.json) + "\n");
    } else {
      screen.on_listed(std::move(*runs), std::move(*manager), read_clocks());
      for (const std::string& id : screen.unexplained()) {
        const auto events = client->list_events({{"AnalysisId", {id}},
                                                 {"Kind", {std::string(to_string(EventKind::kEnding))}},
                                                 {"Limit", {std::uint32_t{1}}}});
        if (events && !events->empty())
          screen.on_ending(id, text_of(events->front(), "reason"), read_clocks().monotonic);
      }
      print((done > 0 ? "\n" : "") + screen.to_text(common.legend, read_clocks()));
    }
    if (std::fflush(stdout) != 0) return 1;  // Whoever read it has gone.
    if (iterations && ++done >= *iterations) return 0;
    const Instant next = add_span(read_clocks().monotonic, interval);
    while (read_clocks().monotonic < next) {
      if (auto turned = loop->iterate(next - read_clocks().monotonic); !turned) return fail(turned.error());
    }
  }
}

}  // namespace

int top_command(const Common& common, const TopOptions& options) {
  const auto order = parse_word<TopOrder>(kTopOrderWords, options.sort);
  if (!order) {
    return fail(invalid("--sort: \"" + printable(options.sort) + "\" is none of memory, cpu, left, processes, id"));
  }
  const auto interval = parse_span(options.interval);
  if (!interval) return fail(Error(interval.error()).within("--interval"));
  if (*interval < kLeastInterval) return fail(invalid("--interval: it is 100ms at least"));
  if (options.iterations && *options.iterations == 0) return fail(invalid("--iterations: it is 1 at least"));
  const bool terminal = ::isatty(STDOUT_FILENO) != 0 && ::isatty(STDIN_FILENO) != 0;
  auto iterations = options.once ? std::optional<std::uint32_t>(1) : options.iterations;
  if (options.batch || options.once || !terminal || common.json != JsonStyle::kOff) {
    if (!iterations && !options.batch) iterations = 1;
    return print_batches(common, *order, *interval, iterations);
  }
  auto connection = open_bus(common.bus);
  if (!connection) return fail(connection.error());
  auto loop = loop::Loop::create();
  if (!loop) return fail(loop.error());
  return Top(std::move(*loop), common.bus, std::move(*connection), *order, *interval, iterations).run();
}

}  // namespace aw::cli
