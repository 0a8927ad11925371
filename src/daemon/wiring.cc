// SPDX-License-Identifier: Apache-2.0
#include "daemon/wiring.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include "analysis_watchdog/names.h"
#include "base/descriptor_reserve.h"
#include "base/failpoint.h"
#include "base/memory_reserve.h"
#include "base/unique_fd.h"
#include "base/version.h"
#include "daemon/program.h"
#include "journal/sentences.h"
#include "ledger/ledger_reader.h"
#include "ledger/shipped.h"
#include "log/service_log.h"

namespace aw::daemon {
namespace {

std::function<bool(const std::string&)> contained_in(std::set<std::string> ids) {
  return [ids = std::make_shared<const std::set<std::string>>(std::move(ids))](const std::string& id) {
    return ids->contains(id);
  };
}

supervise::Machine this_machine() {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  return {Bytes(page * pages), static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN)), Bytes(page), {}};
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
/// As much as some hundred ends at once take.
constexpr Bytes kMemoryReserve(4 * kMiB.count());
/// How old the daemon's own usage may be that it tells.
constexpr Span kUsagePause = std::chrono::seconds{1};

constexpr char kWatching[] = "READY=1\nSTATUS=Watching analyses";
constexpr char kWatchingWithoutBus[] =
    "READY=1\nSTATUS=Watching analyses; the bus is away, so nothing new is registered";

/// Page faults on the kill path would wait for the disk just when memory is short. Only where locked memory is not
/// bounded: otherwise a later mmap(2) would fail.
void stay_in_memory() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) < 0) return;
  if (limit.rlim_max != RLIM_INFINITY) {
    log::info(
        "memory is not locked, as locked memory is bounded here (LimitMEMLOCK=): where the host is short of "
        "memory, kills may be late");
    return;
  }
  limit.rlim_cur = RLIM_INFINITY;
  if (::setrlimit(RLIMIT_MEMLOCK, &limit) < 0) return;
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0) {
    log::warn(errno_error("mlockall").message + "; where memory is short, page faults delay what is done about it");
  }
}

/// Our niceness is that of our session, too. Where the kernel was built for it, processors are shared out by sessions
/// first (sched(7), "The autogroup feature"): within ours there is nobody but us to come before.
void come_first() {
  const int nice = ::getpriority(PRIO_PROCESS, 0);
  if (nice >= 0) return;
  const UniqueFd file(::open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) return;
  const std::string text = std::to_string(nice);
  if (!file || ::write(file.get(), text.data(), text.size()) < 0) {
    log::info(errno_error("/proc/self/autogroup").message +
              "; where processors are short, kills may be late (LimitNICE=)");
  }
}

/// Where PID 1's cgroups begin, without asking it: it lives in init.scope there itself.
std::string systems_cgroup(const process::ProcFs& processes) {
  constexpr std::string_view kInit = "/init.scope";
  std::string path = processes.find_cgroup(1).value_or("");
  if (path.ends_with(kInit)) path.resize(path.size() - kInit.size());
  return path == "/" ? "" : path;
}

/// The controllers that the host does not give users; that is said, not left out in silence, here and with each run
/// that asks for what they limit. Without memory there is nothing to watch.
Result<std::vector<std::string>> check_delegated(const std::string& manager) {
  auto missing = cgroup::read_missing_controllers(cgroup::kMount, manager);
  if (!missing) return Error(missing.error()).within("what " + manager + " may limit");
  for (const std::string& controller : *missing) {
    const std::string sentence = "this host does not delegate the " + controller +
                                 " controller to users, so it can't be limited; as root: systemctl edit user@.service, "
                                 "[Service] Delegate=memory pids cpu";
    if (controller == "memory") return Error{std::make_error_code(std::errc::not_supported), sentence};
    log::warn(sentence);
  }
  return missing;
}

Instant read_clock() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return Instant(std::chrono::seconds{time.tv_sec} + std::chrono::microseconds{time.tv_nsec / 1000});
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
    if (!pid) return log::warn(pid.error().message + "; its process is not protected");
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
      journal_(bus == bus::BusKind::kUser ? journal::UnitsOf::kUser : journal::UnitsOf::kSystem),
      ledger_({.path = made_ready(settings_.ledger.path, bus),
               .most_pages = ledger::most_pages_of(settings_.ledger.max_size)}),
      processes_(loop_),
      placements_(lock_file(bus).parent_path() / "placing"),
      series_reader_(settings_.ledger.path),
      started_(read_own_start()) {}

Daemon::~Daemon() = default;

supervise::Policy Daemon::policy() const {
  return {settings_.caps, settings_.orphans, settings_.stall, settings_.series};
}

api::Administrators Daemon::administrators() const {
  api::Administrators administrators;
  if (bus_kind_ == bus::BusKind::kUser) administrators.uids.push_back(::getuid());
  // Looked up at the start, never on the loop: the groups may live in a directory that is slow to answer.
  if (const group* entry = ::getgrnam(names::kAdminGroup)) administrators.group = entry->gr_gid;
  if (const group* entry = ::getgrnam(names::kViewerGroup)) administrators.viewers = entry->gr_gid;
  return administrators;
}

Result<void> Daemon::start() {
  keep_descriptor_reserve();  // Ten descriptors a run; the soft limit that systemd gives is made for select(2).
  stay_in_memory();
  come_first();
  keep_memory_reserve(kMemoryReserve);
  connection_ = bus::Connection::prepare(bus_kind_);
  auto attached = connection_->attach(loop_, [this] {
    manager_->on_lost();
    on_bus_away(Error{std::make_error_code(std::errc::connection_aborted), "the bus has gone away"});
  });
  if (!attached) return attached;

  auto signals = loop_.watch_service_signals([this] { reload(); }, [this](const Now& now) { stop(now); });
  if (!signals) return std::move(signals).error();
  signals_ = std::move(*signals);

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
  log::error(why.message + "; limits are enforced, nothing new is registered; trying again every second");
  if (watching_) (void)sd_notify(0, kWatchingWithoutBus);
}

void Daemon::on_bus_late(const Now&) {
  if (watching_) return;
  if (!bus_away_) log::warn("systemd does not answer yet; the analyses that run are watched meanwhile");
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
  if (std::exchange(bus_away_, false)) log::info("the bus is back");
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
  auto series = loop_.watch_fd(series_reader_.done_fd(), EPOLLIN, loop::Priority::kDeferred, "series read",
                               [this](const Now&) { series_reader_.take_done(); });
  if (!series) return std::move(series).error();
  series_read_ = std::move(*series);
  auto kept = loop_.add_deferred("events kept", [this](const Now& now) { tell_kept(now); });
  if (!kept) return std::move(kept).error();
  kept_ = std::move(*kept);
  // Nothing is watched yet, so there is time to read what the daemons before this one have seen. A ledger that can't be
  // opened is no reason not to watch.
  ledger_readable_ = ledger_.wait_until_opened(kLedgerPatience);
  if (!ledger_readable_) {
    log::warn("the ledger " + settings_.ledger.path.string() + " is not open yet; what happened before is not shown");
    runs_unread_ = true;
    ledger_.request_runs();
    return {};
  }
  if (auto read = remember_events(); !read) log::warn("what happened before is not shown: " + read.error().message);
  return {};
}

/// All or nothing.
Result<void> Daemon::remember_events() {
  supervise::EventHistory history;
  ledger::LedgerReader reader(settings_.ledger.path);
  auto read = reader.visit_newest(supervise::EventHistory::kCapacity,
                                  [&](const supervise::EventRecord& event) { history.add(event); });
  if (read) history_ = std::move(history);
  return read;
}

void Daemon::on_ledger_changed() {
  ledger_.take_changed();
  for (const std::string& notice : ledger_.take_notices()) log::warn(notice);
  const bool healthy = ledger_.healthy();
  if (healthy != std::exchange(ledger_healthy_, healthy)) {
    if (healthy) log::info("the ledger takes writes again");
    if (!healthy) log::error(ledger_.problem() + "; limits are enforced, nothing new is registered");
  }
  const unsigned renewals = ledger_.renewals();
  if (renewals != std::exchange(ledger_renewals_, renewals) && supervisor_) {
    for (const auto& [key, run] : supervisor_->runs()) {
      if (run->cgroup) ledger_.change_run(supervisor_->chronicle().row_of(*run));
    }
  }
  if (runs_unread_ && watching_) {
    auto before = take_late_runs();
    if (!runs_unread_) supervisor_->on_record_read(std::move(before), loop_.now());
  }
  watch_shipper();
  if (service_) service_->on_properties_changed();
}

/// Of a ledger that could not be read at the start. runs_unread_ as long as it can't be.
supervise::Supervisor::Before Daemon::take_late_runs() {
  supervise::Supervisor::Before before;
  auto runs = ledger_.take_runs();
  if (!runs) return before;
  runs_unread_ = false;
  std::erase_if(runs->rows, [this](const supervise::RunRow& row) { return ended_unread_.contains(row.run_id); });
  ended_unread_.clear();
  before.rows = std::move(runs->rows);
  before.is_recorded = contained_in(std::move(runs->event_ids));
  return before;
}

void Daemon::end_run(const std::string& run_id) {
  if (runs_unread_) ended_unread_.insert(run_id);
  ledger_.end_run(run_id);
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

api::Vitals Daemon::vitals() {
  const Now now = loop_.now();
  if (!usage_ || now.monotonic - usage_read_ >= kUsagePause) {
    usage_ = read_own_usage();
    usage_read_ = now.monotonic;
  }
  api::Vitals vitals;
  vitals.unshipped = unshipped();
  if (!settings_.postgres.uri.empty()) vitals.unshipped_by_shipper = ledger_.extent().above(shipped_seq_);
  vitals.ledger_queued = ledger_.waiting();
  vitals.ledger_lost = ledger_.lost();
  vitals.ledger_healthy = ledger_.healthy();
  vitals.journal_queued = journal_.waiting();
  vitals.journal_healthy = journal_.healthy();
  vitals.polled = cgroups_ ? cgroups_->polled() : 0;
  vitals.usage = *usage_;
  vitals.started = started_;
  return vitals;
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
  supervise::Machine machine = this_machine();
  if (bus_kind_ == bus::BusKind::kUser) {
    auto missing = check_delegated(cgroup);
    if (!missing) return std::move(missing).error();
    machine.undelegated = *std::move(missing);
  }
  auto cgroups = cgroup::CgroupFs::open(
      loop_, cgroup::kMount, cgroup + "/" + manager_->parent_slice(),
      {[this](supervise::RunKey key, const Now& now) { supervisor_->on_cgroup_changed(key, now); },
       [this](supervise::RunKey key, const Now& now) { supervisor_->on_limits_written(key, now); },
       [](const std::string& sentence) { log::warn(sentence); },
       [this](const Now& now) { supervisor_->on_events_lost(now); }});
  if (!cgroups) return std::move(cgroups).error();
  cgroups_ = std::move(*cgroups);
  auto alarm =
      loop_.add_timer(loop::Priority::kKill, "timer wheel", [this](const Now& now) { supervisor_->on_timer(now); });
  if (!alarm) return std::move(alarm).error();
  alarm_ = std::move(*alarm);
  auto sampling =
      loop_.add_timer(loop::Priority::kIdle, "samples", [this](const Now& now) { supervisor_->on_sampling_due(now); });
  if (!sampling) return std::move(sampling).error();
  sampling_ = std::move(*sampling);
  // A timer as the samples' is: of two sources of one priority, sd-event has the one first that became pending first. A
  // deferred one would have been pending since it was made, and would always go before the samples.
  auto rounds =
      loop_.add_timer(loop::Priority::kIdle, "rounds", [this](const Now& now) { supervisor_->on_rounds_due(now); });
  if (!rounds) return std::move(rounds).error();
  rounds_ = std::move(*rounds);
  supervisor_ = std::make_unique<supervise::Supervisor>(
      supervise::Supervisor::Ports{
          *cgroups_, processes_, *manager_, placements_, *this, identity_,
          [this](std::optional<Instant> due) { loop::Loop::set_timer(alarm_, due.value_or(kNever)); },
          [this](std::optional<Instant> due) { loop::Loop::set_timer(sampling_, due.value_or(kNever)); },
          [this] { loop::Loop::set_timer(rounds_, loop_.now().monotonic); }, read_clock},
      policy(), std::move(machine), loop_.now());
  service_ = std::make_unique<api::Service>(
      api::Service::Parts{*connection_, loop_, *supervisor_, processes_, history_,
                          [this]() -> const supervise::Limits& { return settings_.defaults; },
                          [this] {
                            return api::StoreState{journal_.healthy() && ledger_.healthy(), unshipped()};
                          },
                          [this] { return vitals(); }, bus_kind_ == bus::BusKind::kSystem, kVersion,
                          [this](const std::string& run_id, const api::SeriesDone& done) { find_series(run_id, done); },
                          [](const std::string& sentence) { log::warn(sentence); }},
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
  if (renew_memory_reserve()) log::error("there was no memory: what was in reserve has been used");
  const bool turns = ledger_.take_beat();
  if (turns) (void)sd_notify(0, "WATCHDOG=1");
  if (turns != std::exchange(feeding_, turns)) {
    if (turns) log::info("the ledger's thread has come round again");
    if (!turns) log::error("the ledger's thread does not come round: systemd's watchdog is not fed");
  }
  const Span interval = watchdog_ == Span(0) ? kUnaskedBeat : watchdog_ / 4;
  supervisor_->request_pulse(now.monotonic + interval, [this](const Now& when) { beat(when); });
}

void Daemon::look_whether_passed(const Now& now) {
  if (supervisor_->busy() && now.monotonic < pass_ends_) {
    return loop::Loop::set_timer(passed_, now.monotonic + kPassPause);
  }
  log::info("one pass: " + std::to_string(passed_ends_) + " analyses ended, " +
            std::to_string(supervisor_->runs().size()) + " live on; nobody watches them now");
  stop(now);
}

/// What the daemon before us had in the ledger, and was killed before the journal had it. A slice is kept until both
/// do, and an id gets no other before: the newest that closed a run of it is the only one that may be missing.
void Daemon::complete_journal() {
  const auto slices = cgroups_->list_slices();
  if (!slices || slices->empty()) return;
  std::set<std::string> unseen(slices->begin(), slices->end());
  supervise::EventFilter newest;
  newest.limit = supervise::EventHistory::kCapacity;
  history_.visit(newest, [&](const supervise::EventRecord& event) {
    const bool begins = event.kind == EventKind::kRegistered || event.kind == EventKind::kAdopted;
    const bool closes = event.kind == EventKind::kEnded || event.kind == EventKind::kUnregistered;
    if (event.boot_id != identity_.boot_id() || (!begins && !closes)) return true;
    const auto id = AnalysisId::parse(event.registered_as);
    if (!id || unseen.erase(slice_unit(*id)) == 0 || begins) return true;
    if (const auto there = journal::has_record(event.event_id); there && !*there) journal_.write(event);
    return !unseen.empty();
  });
}

void Daemon::adopt() {
  complete_journal();
  auto before = runs_unread_ ? take_late_runs() : supervise::Supervisor::Before();
  before.defaults = settings_.defaults;
  before.in_passing = stay_ == Stay::kOnePass;
  if (ledger_readable_) {
    std::set<std::string> event_ids;
    if (auto runs = ledger::LedgerReader(settings_.ledger.path).read_live_runs()) {
      before.rows = std::move(runs->rows);
      event_ids = std::move(runs->event_ids);
    } else {
      log::warn("which runs were live is known from their cgroups alone: " + runs.error().message);
      runs_unread_ = true;
      ledger_.request_runs();
    }
    // It is asked later as well, of slices that are found then: from memory, for the loop reads no file of the
    // ledger's. What ended before we came is among the newest events, if anything of it is still there.
    supervise::EventFilter newest;
    newest.limit = supervise::EventHistory::kCapacity;
    history_.visit(newest, [&event_ids](const supervise::EventRecord& event) {
      event_ids.insert(event.event_id);
      return true;
    });
    before.is_recorded = contained_in(std::move(event_ids));
  }
  supervisor_->adopt(std::move(before), loop_.now());
  resume_series();
}

void Daemon::find_series(const std::string& run_id, const api::SeriesDone& done) {
  const auto ask = [this, run_id, done] {
    if (series_reader_.request(run_id, done)) return;
    done(Error{std::make_error_code(std::errc::resource_unavailable_try_again), "too many ask for curves"});
  };
  // Of a run that has ended this moment the last part is on its way to the disk. One that takes nothing is read as it
  // is.
  if (!ledger_.healthy()) return ask();
  when_kept([ask](const Now&) { ask(); });
}

/// What the daemon before us has kept of those that live on. Read beside the loop: they are watched already.
void Daemon::resume_series() {
  for (const auto& [key, run] : supervisor_->runs()) {
    if (!supervisor_->sampler().continues(key)) continue;
    // What can't be asked for now is joined by the ledger, when there is something to write.
    (void)series_reader_.request(run->run_id,
                                 [this, key = key](const Result<std::optional<supervise::SeriesRow>>& found) {
                                   if (found && *found) supervisor_->sampler().resume(key, (*found)->samples);
                                   if (found && !*found) supervisor_->sampler().resume(key, {});
                                 });
  }
}

void Daemon::record(const supervise::EventRecord& event) {
  history_.add(event);
  AW_FAILPOINT("daemon.record");
  ledger_.write(event);
  AW_FAILPOINT("daemon.ledger-told");
  journal_.write(event);
  if (stay_ == Stay::kForGood) return service_->on_event(event);
  // Under systemd the journal has it already.
  if (std::getenv("JOURNAL_STREAM") == nullptr) log::info(journal::message(event));
  if (event.kind == EventKind::kEnded) ++passed_ends_;
}

void Daemon::reload() {
  (void)sd_notify(0, "RELOADING=1");
  auto loaded = config::load_settings(search_);
  if (auto* problems = std::get_if<std::vector<config::Problem>>(&loaded)) {
    for (const config::Problem& problem : *problems) log::error(config::to_string(problem));
    log::error("the configuration was not reloaded; the old settings stay in force");
  } else {
    settings_ = std::get<config::Settings>(std::move(loaded));
    if (supervisor_) {
      supervisor_->set_policy(policy(), loop_.now());
      resume_series();  // Of those that were not sampled until now.
    }
    if (service_) service_->on_properties_changed();
    log::info("the configuration was reloaded");
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
  if (service_) service_->flush();
  AW_FAILPOINT("daemon.stopped");
  loop_.exit(EXIT_SUCCESS);
}

void Daemon::fail(const Error& error) {
  log::critical(error.message);
  // What the host does not have now it won't have in a second either.
  loop_.exit(error.code == std::errc::not_supported ? kCannotServe : EXIT_FAILURE);
}

int Daemon::run() { return loop_.run(); }

}  // namespace aw::daemon
