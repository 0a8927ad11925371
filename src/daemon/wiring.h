// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "api/service.h"
#include "bus/connection.h"
#include "cgroup/cgroup_fs.h"
#include "config/settings.h"
#include "daemon/identity.h"
#include "daemon/instance_lock.h"
#include "daemon/placement_files.h"
#include "journal/journal_writer.h"
#include "ledger/ledger.h"
#include "ledger/series_reader.h"
#include "loop/loop.h"
#include "process/proc_fs.h"
#include "supervise/event_history.h"
#include "supervise/supervisor.h"
#include "systemd/manager.h"

namespace aw::daemon {

/// Nobody registers the bus, or whoever listens for it: without it we are deaf. The kernel's word is taken at once, the
/// bus's own when it answers, which is before it gives us our name.
void protect_bus(bus::Connection& connection, process::ProcFs& processes);

/// How long it stays.
enum class Stay {
  kForGood,  ///< serves the bus and watches until it is stopped
  kOnePass,  ///< --once: does what is due, says what it did, and goes
};

/// The one place that constructs everything and knows concrete types.
class Daemon final : private supervise::Recorder {
 public:
  Daemon(loop::Loop loop, config::Settings settings, config::SearchPath search, bus::BusKind bus, InstanceLock lock,
         Stay stay);
  ~Daemon() override;

  /// Connects and begins. READY is notified when the bus name is ours; or, where the system's bus or PID 1 does not
  /// answer, when the runs are watched all the same.
  Result<void> start();
  /// The exit status.
  int run();

 private:
  void record(const supervise::EventRecord& event) override;
  void begin_run(const supervise::RunRow& row) override { ledger_.begin_run(row); }
  void change_run(const supervise::RunRow& row) override { ledger_.change_run(row); }
  void end_run(const std::string& run_id) override;
  void keep_series(const supervise::SeriesRow& series) override { ledger_.keep_series(series); }
  void when_kept(std::function<void(const Now&)> kept) override;
  std::optional<std::string> find_problem() const override;

  void connect(const Now& now);
  void on_bus_away(const Error& why);
  void on_bus_late(const Now& now);
  void begin();
  void beat(const Now& now);
  void look_whether_passed(const Now& now);
  void adopt();
  void find_series(const std::string& run_id, const api::SeriesDone& done);
  void resume_series();
  void tell_kept(const Now& now);
  void complete_journal();
  Result<void> open_ledger();
  Result<void> remember_events();
  void on_ledger_changed();
  supervise::Supervisor::Before take_late_runs();
  std::filesystem::path shipped_file() const;
  std::uint64_t unshipped();
  api::Vitals vitals();
  void watch_shipper();
  void on_manager_ready(Result<std::string> cgroup);
  Result<void> build(const std::string& cgroup);
  void on_name(Result<void> taken);
  void stop(const Now& now);
  void reload();
  void fail(const Error& error);
  supervise::Policy policy() const;
  api::Administrators administrators() const;

  // In the order of construction; what is below may use what is above.
  InstanceLock lock_;
  loop::Loop loop_;
  config::Settings settings_;
  config::SearchPath search_;
  bus::BusKind bus_kind_;
  Stay stay_;
  HostIdentity identity_;
  supervise::EventHistory history_;
  journal::JournalWriter journal_;
  ledger::Ledger ledger_;
  process::ProcFs processes_;
  PlacementFiles placements_;
  std::unique_ptr<bus::Connection> connection_;
  std::unique_ptr<systemd::Manager> manager_;
  std::unique_ptr<cgroup::CgroupFs> cgroups_;
  loop::Source reconnect_;
  loop::Source bus_late_;
  loop::Source passed_;
  Instant pass_ends_ = kNever;
  unsigned passed_ends_ = 0;  ///< of runs, in this pass
  loop::Source alarm_;
  loop::Source sampling_;
  loop::Source rounds_;
  std::unique_ptr<supervise::Supervisor> supervisor_;
  std::unique_ptr<api::Service> service_;
  ledger::SeriesReader series_reader_;
  loop::Source series_read_;
  std::vector<loop::Source> signals_;
  loop::Source sent_;
  loop::Source ledger_changed_;
  /// Who waits for what was recorded, and for how many entries of the ledger and of the journal.
  struct Unkept {
    std::uint64_t ledger_entries;
    std::uint64_t journal_records;
    Instant since;
    std::function<void(const Now&)> kept;
  };
  std::deque<Unkept> unkept_;
  loop::Source kept_;
  loop::Source shipped_;
  std::string shipped_of_;  ///< the ledger that the number is of
  std::int64_t shipped_seq_ = 0;
  bool shipped_changed_ = false;
  bool ledger_readable_ = false;
  bool runs_unread_ = false;            ///< which runs were live before is not known yet
  std::set<std::string> ended_unread_;  ///< … and these have ended since
  unsigned ledger_renewals_ = 0;
  bool ledger_healthy_ = true;
  std::optional<OwnUsage> usage_;  ///< as of usage_read_, because anybody may ask as often as they like
  Instant usage_read_{};
  WallTime started_;
  Span watchdog_{0};  ///< systemd waits for so long for a sign of life; 0: it does not ask for one
  bool feeding_ = true;
  bool bus_away_ = false;
  bool watching_ = false;
};

}  // namespace aw::daemon
