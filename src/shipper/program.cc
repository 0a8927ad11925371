// SPDX-License-Identifier: Apache-2.0
#include "shipper/program.h"

#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>

#include "ledger/shipped.h"
#include "log/service_log.h"

namespace aw::shipper {
namespace {

using namespace std::chrono_literals;

/// Of LoadCredential=; docs/man/analysis-watchdog-shipper.8.scd.
constexpr char kCredential[] = "postgres-password";

/// A change of the ledger's files is seen before the commit is: SQLite writes, syncs, and only then lets readers see
/// it. So it is looked at after a moment, and again, until it is there.
constexpr Span kFirstLook = 20ms;
constexpr Span kLastLook = 1s;
constexpr Span kRecount = 1s;

/// Of --is-configured, which is an ExecCondition=: any other status up to 254 skips the service, 255 fails it.
constexpr int kNotConfigured = 1;
constexpr int kMistaken = 255;

void log(const std::vector<Notice>& notices) {
  for (const Notice& notice : notices) {
    switch (notice.level) {
      case Notice::Level::kInfo:
        log::info(notice.text);
        break;
      case Notice::Level::kWarning:
        log::warn(notice.text);
        break;
      case Notice::Level::kError:
        log::error(notice.text);
        break;
    }
  }
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

constexpr char kNothingToDo[] = "PostgresUri= is not set in [PostgreSQL]: there is nothing to ship to";

int ship_once(const config::Settings& settings, bool user) {
  Shipper shipper(shipper_options(settings, user));
  for (;;) {
    const Round round =
        shipper.step(Instant(std::chrono::duration_cast<Span>(std::chrono::steady_clock::now().time_since_epoch())));
    log(round.notices);
    switch (round.outcome) {
      case Round::Outcome::kMore:
        break;
      case Round::Outcome::kCaughtUp:
        return EXIT_SUCCESS;
      case Round::Outcome::kNoLedger:
        return EXIT_FAILURE;
      case Round::Outcome::kFault:
        log::error(shipper.status());
        return EXIT_FAILURE;
    }
  }
}

extern "C" void exit_at_once(int) { ::_exit(EXIT_SUCCESS); }

/// While a round waits for PostgreSQL the loop reads no signals, so SIGTERM and SIGINT end the program right there.
/// That is as good as any other end: a transaction has happened or it has not, and a file is replaced or it is not.
class Interruptible {
 public:
  Interruptible() { set(SIG_UNBLOCK); }
  ~Interruptible() { set(SIG_BLOCK); }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  static void set(int how) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    (void)::pthread_sigmask(how, &signals, nullptr);
  }
};

}  // namespace

ShipperOptions shipper_options(const config::Settings& settings, bool user) {
  ShipperOptions options;
  options.target.uri = settings.postgres.uri;
  options.target.schemas = settings.postgres.schemas;
  options.target.passfile = settings.postgres.passfile;
  options.target.application_name = "analysis-watchdog-shipper";
  if (options.target.passfile.empty()) {
    if (auto credential = postgres::find_credential(kCredential)) options.target.password_file = *std::move(credential);
  }
  options.ledger = settings.ledger.path;
  options.shipped_file = user ? ledger::user_shipped_file() : std::filesystem::path(ledger::kShippedFile);
  options.host = host_name();
  options.seed =
      static_cast<std::uint32_t>(std::hash<std::string>()(options.host)) ^ static_cast<std::uint32_t>(::getpid());
  return options;
}

Service::Service(loop::Loop loop, config::Settings settings, config::SearchPath search, bool user)
    : loop_(std::move(loop)),
      settings_(std::move(settings)),
      search_(std::move(search)),
      user_(user),
      shipper_(std::make_unique<Shipper>(shipper_options(settings_, user_))) {}

Result<void> Service::start() {
  for (const int signal : {SIGTERM, SIGINT}) std::signal(signal, exit_at_once);  // While it is not blocked.
  auto signals = loop_.watch_service_signals([this] { reload(); });
  if (!signals) return std::move(signals).error();
  signals_ = std::move(*signals);

  auto timer = loop_.add_timer(loop::Priority::kDeferred, "round", [this](const Now&) { round(); });
  if (!timer) return std::move(timer).error();
  timer_ = std::move(*timer);
  watch_ledger();
  (void)loop_.enable_watchdog();
  // Whatever PostgreSQL is doing.
  (void)sd_notify(0, "READY=1");
  due_ = Instant{};
  loop::Loop::set_timer(timer_, due_);
  return {};
}

void Service::round() {
  if (!ledger_watch_) watch_ledger();
  Round round;
  {
    const Interruptible guard;
    round = shipper_->step(loop_.now().monotonic);
  }
  log(round.notices);
  tell_status();

  Span wait = round.wait;
  waits_out_ = round.outcome == Round::Outcome::kFault;
  if (!waits_out_ && round.outcome != Round::Outcome::kMore && look_again_ > Span(0)) {
    wait = std::min(wait, look_again_);
    look_again_ = look_again_ >= kLastLook ? Span(0) : look_again_ * 2;
  }
  // Not loop_.now(), which is from before the round.
  const auto now = Instant(std::chrono::duration_cast<Span>(std::chrono::steady_clock::now().time_since_epoch()));
  due_ = add_span(now, wait);
  loop::Loop::set_timer(timer_, due_);
}

void Service::on_ledger_changed(loop::DirectoryChange change) {
  if (change == loop::DirectoryChange::kGone) ledger_watch_.reset();
  const Instant now = loop_.now().monotonic;
  if (waits_out_) {
    if (now < add_span(recounted_, kRecount)) return;
    recounted_ = now;
    shipper_->recount();
    return tell_status();
  }
  look_again_ = kFirstLook * 2;
  const Instant soon = add_span(now, kFirstLook);
  if (soon >= due_) return;
  due_ = soon;
  loop::Loop::set_timer(timer_, due_);
}

void Service::watch_ledger() {
  auto watched = loop_.watch_directory(settings_.ledger.path.parent_path().string(), "ledger",
                                       [this](const Now&, loop::DirectoryChange change) { on_ledger_changed(change); });
  if (watched)
    ledger_watch_ = std::move(*watched);  // Otherwise there is no ledger yet, and it is looked for now and then.
}

void Service::reload() {
  (void)sd_notify(0, "RELOADING=1");
  auto loaded = config::load_settings(search_);
  if (auto* problems = std::get_if<std::vector<config::Problem>>(&loaded)) {
    for (const config::Problem& problem : *problems) log::error(config::to_string(problem));
    log::error("the configuration was not reloaded; the old settings stay in force");
  } else {
    settings_ = std::get<config::Settings>(std::move(loaded));
    log::info("the configuration was reloaded");
    if (settings_.postgres.uri.empty()) {
      log::info(kNothingToDo);
      (void)sd_notify(0, "READY=1\nSTOPPING=1");
      return loop_.exit(EXIT_SUCCESS);
    }
    shipper_ = std::make_unique<Shipper>(shipper_options(settings_, user_));
    ledger_watch_.reset();
    due_ = Instant{};
    loop::Loop::set_timer(timer_, due_);
  }
  (void)sd_notify(0, "READY=1");
}

void Service::tell_status() {
  std::string status = shipper_->status();
  if (status == status_) return;
  status_ = std::move(status);
  (void)sd_notify(0, ("STATUS=" + status_).c_str());
}

int run(const Options& options) {
  config::SearchPath search;
  if (options.user) search = config::user_search_path();
  if (!options.config.empty()) {
    search.main_file = options.config;
    search.presence = config::MainFile::kMustExist;
  }
  auto loaded = config::load_settings(search);
  if (const auto* problems = std::get_if<std::vector<config::Problem>>(&loaded)) {
    for (const config::Problem& problem : *problems) log::critical(config::to_string(problem));
    return options.is_configured ? kMistaken : EXIT_FAILURE;
  }
  auto settings = std::get<config::Settings>(std::move(loaded));
  if (settings.postgres.uri.empty()) {
    log::info(kNothingToDo);
    return options.is_configured ? kNotConfigured : EXIT_SUCCESS;
  }
  if (options.is_configured) return EXIT_SUCCESS;
  if (options.once) return ship_once(settings, options.user);

  auto loop = loop::Loop::create();
  if (!loop) {
    log::critical(loop.error().message);
    return EXIT_FAILURE;
  }
  Service service(std::move(*loop), std::move(settings), search, options.user);
  if (auto started = service.start(); !started) {
    log::critical(started.error().message);
    return EXIT_FAILURE;
  }
  return service.run();
}

}  // namespace aw::shipper
