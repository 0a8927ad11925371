// SPDX-License-Identifier: Apache-2.0
#include "daemon/wiring.h"

#include <grp.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "analysis_watchdog/names.h"
#include "base/descriptor_reserve.h"
#include "base/failpoint.h"
#include "base/version.h"
#include "daemon/program.h"
#include "journal/sentences.h"
#include "ledger/ledger_reader.h"
#include "ledger/shipped.h"

namespace aw::daemon {
namespace {

supervise::Machine this_machine() {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  return {Bytes(page * pages), static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN)), Bytes(page)};
}

/// A user's watchdog has no StateDirectory= that systemd would make. Where that fails, the ledger says why.
std::filesystem::path made_ready(const std::filesystem::path& ledger, bus::BusKind bus) {
  if (bus == bus::BusKind::kUser) {
    std::error_code error;
    if (std::filesystem::create_directories(ledger.parent_path(), error)) {
      // Who else may come into a home differs from host to host.
      std::filesystem::permissions(ledger.parent_path(), std::filesystem::perms::owner_all, error);
    }
  }
  return ledger;
}

/// A disk that is slower than this at the start is not waited for.
constexpr Span kLedgerPatience = std::chrono::seconds{10};
/// Nor is a bus, or a PID 1 that reloads, for longer than this before the runs are watched.
constexpr Span kBusPatience = std::chrono::seconds{3};
/// Where systemd's watchdog does not ask.
constexpr Span kUnaskedBeat = std::chrono::seconds{15};
constexpr Span kReconnectPause = std::chrono::seconds{1};
/// How long a slice stays for a journal that does not take the record of its end.
constexpr Span kJournalPatience = std::chrono::seconds{5};
/// One pass ends with what cannot be ended left alone.
constexpr Span kLongestPass = std::chrono::minutes{10};
constexpr Span kPassPause = std::chrono::milliseconds{200};

constexpr char kWatching[] = "READY=1\nSTATUS=Watching analyses";
constexpr char kWatchingWithoutBus[] =
    "READY=1\nSTATUS=Watching analyses; the bus is away, so nothing new is registered";

/// Page faults on the kill path would wait for the disk just when memory is short. Only where locked memory is not
/// bounded: otherwise a later mmap(2) would fail.
void stay_in_memory() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_max != RLIM_INFINITY) return;
  limit.rlim_cur = RLIM_INFINITY;
  if (::setrlimit(RLIMIT_MEMLOCK, &limit) < 0) return;
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0) {
    spdlog::warn("{}; where memory is short, page faults delay what is done about it", errno_error("mlockall").message);
  }
}

/// Where PID 1's cgroups begin, without asking it: it lives in init.scope there itself.
std::string systems_cgroup(const process::ProcFs& processes) {
  constexpr std::string_view kInit = "/init.scope";
  std::string path = processes.find_cgroup(1).value_or("");
  if (path.ends_with(kInit)) path.resize(path.size() - kInit.size());
  return path == "/" ? "" : path;
}

/// What the host does not let users limit is said, not left out in silence. Without memory there is nothing to watch.
Result<void> check_delegated(const std::string& manager) {
  const auto missing = cgroup::read_missing_controllers(cgroup::kMount, manager);
  if (!missing) return Error(missing.error()).within("what " + manager + " may limit");
  for (const std::string& controller : *missing) {
    const std::string sentence = "this host does not delegate the " + controller +
                                 " controller to users, so it can't be limited; as root: systemctl edit user@.service, "
                                 "[Service] Delegate=memory pids cpu";
    if (controller == "memory") return Error{std::make_error_code(std::errc::not_supported), sentence};
    spdlog::warn("{}", sentence);
  }
  return {};
}

Span asked_by_watchdog() {
  std::uint64_t usec = 0;
  return sd_watchdog_enabled(0, &usec) > 0 ? from_usec(usec) : Span(0);
}

}  // namespace

void protect_bus(bus::Connection& connection, process::ProcFs& processes) {
  // Of a socket that systemd listens on it is the manager; pid 1 is protected anyway.
  if (const auto peer = connection.find_peer())
    processes.protect(*peer, "what this watchdog's bus connection leads to");
  connection.request_bus_pid([&processes](Result<pid_t> pid) {
    if (!pid) return spdlog::warn("{}; its process is not protected", pid.error().message);
    processes.protect(*pid, "the bus that this watchdog is on");
  });
}

Daemon::Daemon(loop::Loop loop, config::Settings settings, config::SearchPath search, bus::BusKind bus,
               InstanceLock lock, Stay stay)
    : lock_(std::move(lock)),
      loop_(std::move(loop)),
      settings_(std::move(settings)),
      search_(std::move(search)),
      bus_kind_(bus),
      stay_(stay),
      ledger_({.path = made_ready(settings_.ledger.path, bus),
               .most_pages = ledger::most_pages_of(settings_.ledger.max_size)}),
      processes_(loop_),
      placements_(lock_file(bus).parent_path() / "placing") {}

Daemon::~Daemon() = default;

supervise::Policy Daemon::policy() const { return {settings_.caps, settings_.orphans, settings_.stall}; }

api::Administrators Daemon::administrators() const {
  api::Administrators administrators;
  if (bus_kind_ == bus::BusKind::kUser) administrators.uids.push_back(::getuid());
  // Looked up at the start, never on the loop: the group may live in a directory that is slow to answer.
  if (const group* entry = ::getgrnam(names::kAdminGroup)) administrators.group = entry->gr_gid;
  return administrators;
}

Result<void> Daemon::start() {
  keep_descriptor_reserve();  // Seven descriptors a run; the soft limit that systemd gives is made for select(2).
  stay_in_memory();
  connection_ = bus::Connection::prepare(bus_kind_);
  auto attached = connection_->attach(loop_, [this] {
    manager_->on_lost();
    on_bus_away(Error{std::make_error_code(std::errc::connection_aborted), "the bus has gone away"});
  });
  if (!attached) return attached;

  for (const int signal : {SIGTERM, SIGINT}) {
    auto source = loop_.watch_signal(signal, "stop", [this](const Now& now, loop::SignalOrigin) { stop(now); });
    if (!source) return std::move(source).error();
    signals_.push_back(std::move(*source));
  }
  auto hangup = loop_.watch_signal(SIGHUP, "reload", [this](const Now&, loop::SignalOrigin) { reload(); });
  if (!hangup) return std::move(hangup).error();
  signals_.push_back(std::move(*hangup));

  auto sent = loop_.watch_fd(journal_.sent_fd(), EPOLLIN, loop::Priority::kDeferred, "sent to the journal",
                             [this](const Now& now) {
                               journal_.take_sent();
                               tell_kept(now);
                               if (service_) service_->on_properties_changed();
                             });
  if (!sent) return std::move(sent).error();
  sent_ = std::move(*sent);

  const auto add_timer = [this](loop::Source& timer, const char* description, void (Daemon::*on_due)(const Now&)) {
    auto made =
        loop_.add_timer(loop::Priority::kBus, description, [this, on_due](const Now& now) { (this->*on_due)(now); });
    if (!made) return Result<void>(std::move(made).error());
    timer = std::move(*made);
    return Result<void>();
  };
  if (auto added = add_timer(reconnect_, "connect to the bus", &Daemon::connect); !added) return added;
  if (auto added = add_timer(bus_late_, "the bus is late", &Daemon::on_bus_late); !added) return added;
  if (auto added = add_timer(passed_, "one pass", &Daemon::look_whether_passed); !added) return added;

  if (auto opened = open_ledger(); !opened) return opened;

  manager_ = std::make_unique<systemd::Manager>(
      *connection_, loop_,
      [this](const std::string& unit, supervise::ManagerJob job, const Now& now) {
        if (supervisor_) supervisor_->on_manager_job(unit, job, now);
      },
      [this](const std::string& unit, const Now& now) {
        if (supervisor_) supervisor_->on_unit_removed(unit, now);
      });
  watchdog_ = asked_by_watchdog();
  if (bus_kind_ == bus::BusKind::kSystem) loop::Loop::set_timer(bus_late_, loop_.now().monotonic + kBusPatience);
  connect(loop_.now());
  return {};
}

// ---- the bus ----

void Daemon::connect(const Now&) {
  if (!connection_->is_open()) {
    if (auto opened = connection_->reopen(); !opened) return on_bus_away(opened.error());
    protect_bus(*connection_, processes_);
  }
  manager_->request_start([this](Result<std::string> cgroup) { on_manager_ready(std::move(cgroup)); });
}

/// What is enforced needs the kernel only; so the bus may come and go.
void Daemon::on_bus_away(const Error& why) {
  // A user's manager alone knows where its cgroups are.
  if (bus_kind_ == bus::BusKind::kUser && !supervisor_) return fail(why);
  const Now now = loop_.now();
  loop::Loop::set_timer(reconnect_, now.monotonic + kReconnectPause);
  if (std::exchange(bus_away_, true)) return;
  spdlog::error("{}; limits are enforced, nothing new is registered; trying again every second", why.message);
  if (watching_) (void)sd_notify(0, kWatchingWithoutBus);
}

void Daemon::on_bus_late(const Now&) {
  if (watching_) return;
  if (!bus_away_) spdlog::warn("systemd does not answer yet; the analyses that run are watched meanwhile");
  if (auto built = build(systems_cgroup(processes_)); !built) return fail(built.error());
  begin();
}

void Daemon::on_manager_ready(Result<std::string> cgroup) {
  if (!connection_->is_open()) return;  // Which is being told.
  if (!cgroup) return on_bus_away(cgroup.error());
  const bool again = supervisor_ != nullptr;
  if (auto built = build(*cgroup); !built) return fail(built.error());
  if (again && watching_) supervisor_->on_manager_back(loop_.now());
  if (stay_ == Stay::kOnePass) return begin();
  if (auto served = service_->start(); !served) return on_bus_away(served.error());
  connection_->request_name(names::kBusName, [this](Result<void> taken) { on_name(std::move(taken)); });
}

void Daemon::on_name(Result<void> taken) {
  if (!connection_->is_open()) return;
  if (!taken) return fail(taken.error());
  AW_FAILPOINT("daemon.named");
  if (std::exchange(bus_away_, false)) spdlog::info("the bus is back");
  begin();
  (void)sd_notify(0, kWatching);
}

Result<void> Daemon::open_ledger() {
  auto changed = loop_.watch_fd(ledger_.changed_fd(), EPOLLIN, loop::Priority::kDeferred, "ledger changed",
                                [this](const Now& now) {
                                  on_ledger_changed();
                                  tell_kept(now);
                                });
  if (!changed) return std::move(changed).error();
  ledger_changed_ = std::move(*changed);
  auto kept = loop_.add_deferred("events kept", [this](const Now& now) { tell_kept(now); });
  if (!kept) return std::move(kept).error();
  kept_ = std::move(*kept);
  // Nothing is watched yet, so there is time to read what the daemons before this one have seen. A ledger that can't be
  // opened is no reason not to watch.
  ledger_readable_ = ledger_.wait_until_opened(kLedgerPatience);
  if (!ledger_readable_) {
    spdlog::warn("the ledger {} is not open yet; what happened before is not shown", settings_.ledger.path.string());
    return {};
  }
  ledger::LedgerReader reader(settings_.ledger.path);
  auto events = reader.read_events({.limit = supervise::EventHistory::kCapacity});
  if (!events) {
    spdlog::warn("what happened before is not shown: {}", events.error().message);
    return {};
  }
  for (auto event = events->rbegin(); event != events->rend(); ++event) history_.add(*event);
  return {};
}

void Daemon::on_ledger_changed() {
  ledger_.take_changed();
  for (const std::string& notice : ledger_.take_notices()) spdlog::warn("{}", notice);
  const bool healthy = ledger_.healthy();
  if (healthy != std::exchange(ledger_healthy_, healthy)) {
    if (healthy) spdlog::info("the ledger takes writes again");
    if (!healthy) spdlog::error("{}; limits are enforced, nothing new is registered", ledger_.problem());
  }
  const unsigned renewals = ledger_.renewals();
  if (renewals != std::exchange(ledger_renewals_, renewals) && supervisor_) {
    for (const auto& [key, run] : supervisor_->runs()) {
      if (run->cgroup) ledger_.change_run(supervisor_->chronicle().row_of(*run));
    }
  }
  watch_shipper();
  if (service_) service_->on_properties_changed();
}

void Daemon::when_kept(std::function<void(const Now&)> kept) {
  unkept_.push_back({ledger_.accepted(), journal_.accepted(), loop_.now().monotonic, std::move(kept)});
  loop::Loop::schedule(kept_);
}

void Daemon::tell_kept(const Now& now) {
  const std::uint64_t in_ledger = ledger_.settled();
  const std::uint64_t in_journal = journal_.settled();
  while (!unkept_.empty()) {
    Unkept& first = unkept_.front();
    // The ledger is what counts. The journal is only waited for so that one after us, who finds the slice, can see to
    // it.
    const bool journal_is_late = now.monotonic - first.since > kJournalPatience;
    if (first.ledger_entries > in_ledger || (first.journal_records > in_journal && !journal_is_late)) return;
    const auto kept = std::move(first.kept);
    unkept_.pop_front();
    kept(now);
  }
}

std::filesystem::path Daemon::shipped_file() const {
  return bus_kind_ == bus::BusKind::kUser ? ledger::user_shipped_file() : std::filesystem::path(ledger::kShippedFile);
}

/// The shipper is not asked: it may be busy waiting for a database, or not be there at all. What it has written is read
/// when it has just been written, so nobody waits for a disk.
std::uint64_t Daemon::unshipped() {
  if (settings_.postgres.uri.empty()) return ledger_.waiting();
  const ledger::Extent durable = ledger_.extent();
  if (std::exchange(shipped_of_, durable.ledger_id) != durable.ledger_id) shipped_changed_ = true;
  if (std::exchange(shipped_changed_, false)) {
    shipped_seq_ = ledger::read_shipped_seq(shipped_file(), durable.ledger_id).value_or(0);
  }
  return ledger_.waiting() + durable.above(shipped_seq_);
}

/// So that UnshippedEvents is announced as it falls. The directory is there once the shipper has been.
void Daemon::watch_shipper() {
  if (shipped_ || settings_.postgres.uri.empty()) return;
  auto watched = loop_.watch_directory(shipped_file().parent_path().string(), "shipped",
                                       [this](const Now&, loop::DirectoryChange change) {
                                         if (change == loop::DirectoryChange::kGone) shipped_.reset();
                                         shipped_changed_ = true;
                                         if (service_) service_->on_properties_changed();
                                       });
  if (!watched) return;
  shipped_ = std::move(*watched);
  shipped_changed_ = true;
}

std::optional<std::string> Daemon::find_problem() const {
  if (ledger_.healthy()) return std::nullopt;
  return ledger_.problem();
}

// ---- watching ----

Result<void> Daemon::build(const std::string& cgroup) {
  if (supervisor_) return {};
  if (bus_kind_ == bus::BusKind::kUser) {
    if (auto given = check_delegated(cgroup); !given) return given;
  }
  auto cgroups = cgroup::CgroupFs::open(
      loop_, cgroup::kMount, cgroup + "/" + manager_->parent_slice(),
      {[this](supervise::RunKey key, const Now& now) { supervisor_->on_cgroup_changed(key, now); },
       [this](supervise::RunKey key, const Now& now) { supervisor_->on_limits_written(key, now); },
       [](const std::string& sentence) { spdlog::warn("{}", sentence); },
       [this](const Now& now) { supervisor_->on_events_lost(now); }});
  if (!cgroups) return std::move(cgroups).error();
  cgroups_ = std::move(*cgroups);
  auto alarm =
      loop_.add_timer(loop::Priority::kKill, "timer wheel", [this](const Now& now) { supervisor_->on_timer(now); });
  if (!alarm) return std::move(alarm).error();
  alarm_ = std::move(*alarm);
  supervisor_ = std::make_unique<supervise::Supervisor>(
      supervise::Supervisor::Ports{
          *cgroups_, processes_, *manager_, placements_, *this, identity_,
          [this](std::optional<Instant> due) { loop::Loop::set_timer(alarm_, due.value_or(kNever)); }},
      policy(), this_machine(), loop_.now());
  service_ = std::make_unique<api::Service>(
      api::Service::Parts{*connection_, loop_, *supervisor_, processes_, history_,
                          [this]() -> const supervise::Limits& { return settings_.defaults; },
                          [this] {
                            return api::StoreState{journal_.healthy() && ledger_.healthy(), unshipped()};
                          },
                          bus_kind_ == bus::BusKind::kSystem, kVersion},
      administrators());
  return {};
}

void Daemon::begin() {
  if (std::exchange(watching_, true)) return;
  const Now now = loop_.now();
  if (stay_ == Stay::kForGood) supervisor_->chronicle().daemon(EventKind::kDaemonStarted, kVersion, now);
  adopt();
  AW_FAILPOINT("daemon.adopted");
  if (stay_ == Stay::kOnePass) {
    pass_ends_ = now.monotonic + kLongestPass;
    // An orphan is one that was seen twice.
    const Span look =
        supervisor_->runs().empty() ? Span(0) : settings_.orphans.interval + settings_.orphans.confirmation;
    return loop::Loop::set_timer(passed_, now.monotonic + look + kPassPause);
  }
  beat(now);
  (void)sd_notify(0, bus_away_ ? kWatchingWithoutBus : kWatching);
}

/// systemd's watchdog is fed from the timer wheel, and only while the ledger's thread turns as well: a daemon that is
/// stuck anywhere is killed by it, started anew, and goes on from the record.
void Daemon::beat(const Now& now) {
  tell_kept(now);
  const bool turns = ledger_.take_beat();
  if (turns) (void)sd_notify(0, "WATCHDOG=1");
  if (turns != std::exchange(feeding_, turns)) {
    if (turns) spdlog::info("the ledger's thread has come round again");
    if (!turns) spdlog::error("the ledger's thread does not come round: systemd's watchdog is not fed");
  }
  const Span interval = watchdog_ == Span(0) ? kUnaskedBeat : watchdog_ / 4;
  supervisor_->request_pulse(now.monotonic + interval, [this](const Now& when) { beat(when); });
}

void Daemon::look_whether_passed(const Now& now) {
  if (supervisor_->busy() && now.monotonic < pass_ends_) {
    return loop::Loop::set_timer(passed_, now.monotonic + kPassPause);
  }
  spdlog::info("one pass: {} analyses ended, {} live on; nobody watches them now", passed_ends_,
               supervisor_->runs().size());
  stop(now);
}

/// What the daemon before us had in the ledger, and was killed before the journal had it. A slice is kept until both
/// do.
void Daemon::complete_journal() {
  const auto slices = cgroups_->list_slices();
  if (!slices || slices->empty()) return;
  supervise::EventFilter ends;
  ends.kind = EventKind::kEnded;
  ends.limit = supervise::EventHistory::kCapacity;
  for (const supervise::EventRecord* end : history_.find(ends)) {
    const auto id = AnalysisId::parse(end->registered_as);
    if (!id || end->boot_id != identity_.boot_id()) continue;
    if (std::find(slices->begin(), slices->end(), slice_unit(*id)) == slices->end()) continue;
    if (const auto there = journal::has_record(end->event_id); there && !*there) journal_.write(*end);
  }
}

void Daemon::adopt() {
  complete_journal();
  supervise::Supervisor::Before before;
  before.defaults = settings_.defaults;
  before.in_passing = stay_ == Stay::kOnePass;
  if (ledger_readable_) {
    const auto reader = std::make_shared<ledger::LedgerReader>(settings_.ledger.path);
    if (auto rows = reader->read_runs()) {
      before.rows = *std::move(rows);
    } else {
      spdlog::warn("which runs were live is known from their cgroups alone: {}", rows.error().message);
    }
    before.is_recorded = [reader](const std::string& event_id) {
      const auto recorded = reader->has_event(event_id);
      return recorded && *recorded;
    };
  }
  supervisor_->adopt(std::move(before), loop_.now());
}

void Daemon::record(const supervise::EventRecord& event) {
  history_.add(event);
  AW_FAILPOINT("daemon.record");
  ledger_.write(event);
  AW_FAILPOINT("daemon.ledger-told");
  journal_.write(event);
  if (stay_ == Stay::kForGood) return service_->on_event(event);
  // Under systemd the journal has it already.
  if (std::getenv("JOURNAL_STREAM") == nullptr) spdlog::info("{}", journal::message(event));
  if (event.kind == EventKind::kEnded) ++passed_ends_;
}

void Daemon::reload() {
  (void)sd_notify(0, "RELOADING=1");
  auto loaded = config::load_settings(search_);
  if (auto* problems = std::get_if<std::vector<config::Problem>>(&loaded)) {
    for (const config::Problem& problem : *problems) spdlog::error("{}", config::to_string(problem));
    spdlog::error("the configuration was not reloaded; the old settings stay in force");
  } else {
    settings_ = std::get<config::Settings>(std::move(loaded));
    if (supervisor_) supervisor_->set_policy(policy());
    if (service_) service_->on_properties_changed();
    spdlog::info("the configuration was reloaded");
  }
  (void)sd_notify(0, bus_away_ ? kWatchingWithoutBus : kWatching);
}

void Daemon::stop(const Now& now) {
  (void)sd_notify(0, "STOPPING=1");
  AW_FAILPOINT("daemon.stop");
  if (watching_ && stay_ == Stay::kForGood) {
    supervisor_->chronicle().daemon(EventKind::kDaemonStopped, kVersion, now);
  }
  // A tree must not be held at its tripwire by nobody: the ceiling decides while we are away.
  if (cgroups_) (void)cgroups_->lift_tripwires();
  AW_FAILPOINT("daemon.stopped");
  loop_.exit(EXIT_SUCCESS);
}

void Daemon::fail(const Error& error) {
  spdlog::critical("{}", error.message);
  // What the host does not have now it won't have in a second either.
  loop_.exit(error.code == std::errc::not_supported ? kCannotServe : EXIT_FAILURE);
}

int Daemon::run() { return loop_.run(); }

}  // namespace aw::daemon
