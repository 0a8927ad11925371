// SPDX-License-Identifier: Apache-2.0
#include "testing/world.h"

#include <algorithm>

#include "base/assert.h"
#include "supervise/refusal.h"

namespace aw::testing {

using supervise::Done;
using supervise::is_within;
using supervise::ProcessHandle;
using supervise::ProcessKey;
using supervise::ProcessStat;
using supervise::RunCgroup;
using supervise::RunKey;
using supervise::ScopeOrder;
using supervise::SliceLimits;

namespace {

constexpr pid_t kFirstPid = 101;
constexpr Span kReapDelay = std::chrono::milliseconds{1};
constexpr char kParentPath[] = "/analysis.slice";

Error gone(const char* what, std::errc code = std::errc::no_such_device) {
  return {std::make_error_code(code), std::string(what) + " is gone"};
}

}  // namespace

// ---- a held process ----

class FakeHandle final : public ProcessHandle {
 public:
  FakeHandle(World& world, ProcessKey key) : world_(world), key_(key) {}
  ~FakeHandle() override { world_.watches_.erase(watch_); }
  FakeHandle(const FakeHandle&) = delete;
  FakeHandle& operator=(const FakeHandle&) = delete;

  ProcessKey key() const override { return key_; }
  int pidfd() const override { return key_.pid + 10000; }
  bool alive() const override {
    const Process* process = world_.find_process(key_.pid);
    return process != nullptr && key_of(process->stat) == key_ && process->alive();
  }
  Result<void> signal(int signal) override {
    world_.cross("signal");
    if (!alive()) return gone("the process", std::errc::no_such_process);
    world_.kill(key_.pid, signal, Sender::kWatchdog);
    return {};
  }
  Result<void> watch(std::function<void(const Now&)> ended) override {
    world_.cross("watch");
    if (world_.refuses_watches) return errno_error("epoll_ctl", ENOSPC);
    watch_ = ++world_.last_watch_;
    world_.watches_[watch_] = {key_, std::move(ended)};
    if (!alive()) world_.tell_watcher(watch_);
    return {};
  }

 private:
  World& world_;
  ProcessKey key_;
  std::uint64_t watch_ = 0;
};

// ---- a held cgroup ----

class FakeRunCgroup final : public RunCgroup {
 public:
  FakeRunCgroup(World& world, std::shared_ptr<Slice> slice) : world_(world), slice_(std::move(slice)) {}
  ~FakeRunCgroup() override { slice_->watcher = 0; }
  FakeRunCgroup(const FakeRunCgroup&) = delete;
  FakeRunCgroup& operator=(const FakeRunCgroup&) = delete;

  const std::string& path() const override { return slice_->path; }
  Result<supervise::MemoryEvents> read_memory_events() const override { return read(slice_->events); }
  Result<supervise::MemoryStat> read_memory_stat() const override {
    ++slice_->stat_reads;
    return read(slice_->stat);
  }
  Result<supervise::MemoryPressure> read_memory_pressure() const override { return read(slice_->pressure); }
  Result<bool> read_populated() const override {
    if (world_.cgroups.cannot_tell_populated) return Error{std::make_error_code(std::errc::not_enough_memory), "read"};
    return read(world_.populated(*slice_));
  }
  Result<std::vector<pid_t>> read_processes() const override {
    const auto listed = read(world_.members(slice_->path));
    if (world_.cgroups.after_list) world_.cgroups.after_list();
    return listed;
  }
  supervise::Counters read_counters() const override {
    supervise::Counters counters;
    if (slice_->removed) return counters;
    counters.memory_current = slice_->stat.anon + slice_->stat.file;
    counters.tasks = 0;
    for (const auto& [pid, process] : world_.all()) *counters.tasks += is_within(process.cgroup, slice_->path) ? 1 : 0;
    return counters;
  }
  Result<supervise::Gauge> read_gauge() const override {
    ++slice_->gauge_reads;
    const auto counters = read_counters();
    Span cpu{0};
    for (const pid_t pid : world_.members(slice_->path)) cpu += world_.process(pid).cpu;
    return read(
        supervise::Gauge{counters.memory_current.value_or(Bytes(0)), slice_->stat, cpu, counters.tasks.value_or(0)});
  }
  Result<void> write_tripwire(Bytes limit) override {
    world_.cross("write_tripwire");
    if (slice_->removed) return gone("the cgroup");
    slice_->tripwire = limit;
    return {};
  }
  Result<supervise::LimitsFound> read_limits() const override {
    supervise::LimitsFound found;
    found.tripwire = slice_->tripwire;
    found.ceiling = slice_->ceiling;
    found.swap = slice_->swap;
    found.tasks_max = slice_->tasks_max;
    found.cpu_quota_per_second = slice_->cpu_quota_per_second;
    found.cpu_weight = slice_->cpu_weight;
    std::set<std::string> paths;  // Also those that systemd has forgotten: they are there as long as somebody is in.
    for (const auto& [path, made] : world_.scopes_) paths.insert(path);
    for (const pid_t pid : world_.members(slice_->path)) paths.insert(world_.process(pid).cgroup);
    for (const std::string& path : paths) {
      if (!is_within(path, slice_->path)) continue;
      const std::string scope = path.substr(path.rfind('/') + 1);
      found.scopes.emplace_back(scope, !slice_->killed_singly.contains(scope));
    }
    return read(found);
  }
  Result<void> write_limits(const SliceLimits& limits) override {
    world_.cross("write_limits");
    if (slice_->removed) return gone("the cgroup");
    ++slice_->limit_writes;
    if (world_.cgroups.read_only) return errno_error("memory.high", EROFS);
    world_.enforce(*slice_, limits);
    world_.tell_of_limits(*slice_);
    return {};
  }
  Result<void> write_group_oom(const std::string& scope) override {
    world_.cross("write_group_oom");
    if (slice_->removed) return gone("the cgroup");
    slice_->killed_singly.erase(scope);
    return {};
  }
  Result<void> write_kill() override {
    world_.cross("write_kill");
    if (slice_->removed) return gone("the cgroup");
    ++slice_->kills;
    if (world_.cgroups.kill_error != 0) return errno_error("cgroup.kill", world_.cgroups.kill_error);
    for (const pid_t pid : world_.members(slice_->path)) world_.kill(pid, SIGKILL, Sender::kWatchdog);
    return {};
  }
  Result<void> write_note(const std::string& note) override {
    world_.cross("write_note");
    if (slice_->removed) return gone("the cgroup");
    if (!world_.cgroups.forgets_notes) slice_->note = note;
    return {};
  }
  Result<std::string> read_note() const override {
    if (slice_->removed || !slice_->note) return gone("the note");
    return *slice_->note;
  }
  std::optional<WallTime> find_last_removal() const override {
    return slice_->note ? slice_->last_removal : std::nullopt;
  }
  Result<void> write_thaw() override {
    world_.cross("write_thaw");
    slice_->frozen = false;
    for (const pid_t pid : world_.members(slice_->path)) world_.act_on_signals(pid);
    return {};
  }

 private:
  template <class T>
  Result<T> read(T value) const {
    if (slice_->removed) return gone("the cgroup");
    return value;
  }

  World& world_;
  std::shared_ptr<Slice> slice_;
};

// ---- processes ----

Result<std::unique_ptr<ProcessHandle>> FakeProcesses::open(pid_t pid) {
  if (before_open) before_open(pid);
  const Process* process = world_.find_process(pid);
  if (out_of_descriptors) return errno_error("pidfd_open", EMFILE);
  if (process == nullptr) return supervise::refuse(supervise::Refusal::kNoSuchProcess, "it does not exist");
  return std::unique_ptr<ProcessHandle>(std::make_unique<FakeHandle>(world_, key_of(process->stat)));
}

Result<std::unique_ptr<ProcessHandle>> FakeProcesses::adopt(int pidfd) { return open(pidfd - 10000); }

std::optional<ProcessStat> FakeProcesses::find_stat(pid_t pid) const {
  auto stat = read_stat(pid);
  return stat ? std::optional(*std::move(stat)) : std::nullopt;
}

Result<ProcessStat> FakeProcesses::read_stat(pid_t pid) const {
  if (unreadable.contains(pid)) return errno_error("/proc/PID/stat", ENFILE);
  const Process* process = world_.find_process(pid);
  if (process == nullptr) return gone("the process", std::errc::no_such_file_or_directory);
  return process->stat;
}

std::vector<ProcessStat> FakeProcesses::read_all() const {
  ++all_reads;
  std::vector<ProcessStat> all;
  for (const auto& [pid, process] : world_.all()) all.push_back(process.stat);
  return all;
}

bool FakeProcesses::has_children(pid_t pid) const {
  return std::any_of(world_.all().begin(), world_.all().end(),
                     [pid](const auto& entry) { return entry.second.stat.parent == pid; });
}

std::optional<std::string> FakeProcesses::find_cgroup(pid_t pid) const {
  const Process* process = world_.find_process(pid);
  return process == nullptr ? std::nullopt : std::optional(process->cgroup);  // A zombie keeps the one it died in.
}

std::optional<uid_t> FakeProcesses::find_uid(pid_t pid) const {
  const Process* process = world_.find_process(pid);
  // (uid_t)-1, which nobody has, stands for more than one.
  return process == nullptr || process->uid == static_cast<uid_t>(-1) ? std::nullopt : std::optional(process->uid);
}

std::string FakeProcesses::read_cmdline(pid_t pid) const {
  const Process* process = world_.find_process(pid);
  return process == nullptr || !process->alive() || process->cmdline_blocks ? "" : process->cmdline;
}

std::string FakeProcesses::read_wait_channel(pid_t pid) const {
  const Process* process = world_.find_process(pid);
  return process != nullptr && process->sleeps_uninterruptibly ? "rpc_wait_bit_killable" : "";
}

Bytes FakeProcesses::read_anonymous(pid_t pid) const {
  ++anonymous_reads;
  const Process* process = world_.find_process(pid);
  return process == nullptr || !process->alive() ? Bytes(0) : process->anonymous;
}

/// Of who blocks it reads what there is when that has an end, as the kernel does.
class FakeShares final : public supervise::AnonymousShares {
 public:
  FakeShares(World& world, std::span<const pid_t> pids) : world_(world) {
    for (const pid_t pid : pids) waiting_.push_back(key_of(world.process(pid).stat));
    read();
  }
  Bytes known() const override {
    read();
    return known_;
  }
  bool complete() const override {
    read();
    return waiting_.empty();
  }

 private:
  void read() const {
    std::erase_if(waiting_, [this](const ProcessKey& key) {
      const Process* process = world_.find_process(key.pid);
      if (process == nullptr || key_of(process->stat) != key || !process->alive()) return true;
      if (process->share_blocks) return false;
      known_ = known_ + process->anonymous_share.value_or(process->anonymous);
      return true;
    });
  }

  World& world_;
  mutable std::vector<ProcessKey> waiting_;
  mutable Bytes known_{0};
};

std::shared_ptr<const supervise::AnonymousShares> FakeProcesses::request_anonymous_shares(
    std::span<const pid_t> pids) const {
  return std::make_shared<FakeShares>(world_, pids);
}

class FakeCmdlines final : public supervise::Cmdlines {
 public:
  FakeCmdlines(World& world, std::span<const pid_t> pids) : world_(world) {
    for (const pid_t pid : pids) waiting_.push_back(key_of(world.process(pid).stat));
    catch_up();
  }
  std::optional<std::string> find(pid_t pid) const override {
    const auto found = read_.find(pid);
    return found == read_.end() ? std::nullopt : std::optional(found->second);
  }
  void catch_up() const {
    std::erase_if(waiting_, [this](const ProcessKey& key) {
      const Process* process = world_.find_process(key.pid);
      const bool lives = process != nullptr && key_of(process->stat) == key && process->alive();
      if (lives && process->cmdline_blocks) return false;
      read_[key.pid] = lives ? process->cmdline : "";
      return true;
    });
  }

 private:
  World& world_;
  mutable std::vector<ProcessKey> waiting_;
  mutable std::map<pid_t, std::string> read_;
};

void FakeProcesses::catch_up() {
  for (const auto& asked : asked_) {
    if (const auto cmdlines = asked.lock()) cmdlines->catch_up();
  }
}

supervise::ProcessSurvey FakeProcesses::survey(std::span<const pid_t> pids) const {
  supervise::ProcessSurvey survey;
  auto& largest = survey.largest;
  for (const pid_t pid : pids.first(std::min(pids.size(), patience))) {
    ++survey.looked_at;
    const Process* process = world_.find_process(pid);
    if (process == nullptr) continue;
    largest.push_back({pid, process->stat.parent, process->stat.comm, read_anonymous(pid), "", process->cpu});
  }
  std::stable_sort(largest.begin(), largest.end(),
                   [](const auto& a, const auto& b) { return a.resident > b.resident; });
  if (largest.size() > supervise::kMaxProcesses) largest.resize(supervise::kMaxProcesses);
  std::vector<pid_t> shown;
  for (const auto& process : largest) shown.push_back(process.pid);
  const auto cmdlines = std::make_shared<const FakeCmdlines>(world_, shown);
  std::erase_if(asked_, [](const auto& asked) { return asked.expired(); });
  asked_.push_back(cmdlines);
  survey.cmdlines = cmdlines;
  for (auto& process : largest) process.cmdline = survey.cmdlines->find(process.pid).value_or("");
  return survey;
}

Result<void> FakeProcesses::signal_member(pid_t pid, const std::string& path, std::span<const int> signals) {
  world_.cross("signal_member");
  if (out_of_descriptors) return errno_error("pidfd_open", EMFILE);
  const Process* process = world_.find_process(pid);
  if (process == nullptr || !is_within(process->cgroup, path)) return gone("the process", std::errc::no_such_process);
  for (const int signal : signals) world_.kill(pid, signal, Sender::kWatchdog);
  return {};
}

std::optional<std::string> FakeProcesses::why_protected(pid_t pid) const {
  const Process* process = world_.find_process(pid);
  if (process == nullptr || process->protected_as.empty()) return std::nullopt;
  return process->protected_as;
}

// ---- cgroups ----

Result<std::unique_ptr<RunCgroup>> FakeCgroups::open(RunKey key, const std::string& slice) {
  world_.cross("open");
  if (out_of_descriptors) return errno_error("the cgroup", EMFILE);
  const auto it = world_.slices_.find(slice);
  if (it == world_.slices_.end()) return gone("the cgroup", std::errc::no_such_file_or_directory);
  it->second->watcher = key;
  return std::unique_ptr<RunCgroup>(std::make_unique<FakeRunCgroup>(world_, it->second));
}

Result<void> FakeCgroups::move(pid_t pid, const std::string& slice, const std::string& scope) {
  world_.cross("move");
  if (before_move) before_move(pid);
  if (immovable.contains(pid)) return errno_error("cgroup.procs", EACCES);
  Process* process = world_.find_process(pid);
  if (process == nullptr || !process->alive()) return gone("the process", std::errc::no_such_process);
  const std::string to = world_.path_of(slice) + "/" + scope;
  if (!world_.scopes_.contains(to)) return gone("the scope", std::errc::no_such_file_or_directory);
  if (on_move) on_move(pid, to);
  const std::string from = std::exchange(process->cgroup, to);
  if (from != to) world_.on_left(from);
  if (after_move) after_move(pid);
  return {};
}

Result<std::vector<std::string>> FakeCgroups::list_slices() const {
  if (cannot_list) return Error{std::make_error_code(std::errc::not_enough_memory), "list"};
  std::vector<std::string> slices;
  for (const auto& [name, slice] : world_.slices_) slices.push_back(name);
  return slices;
}

std::string FakeCgroups::path_of(const std::string& slice) const { return world_.path_of(slice); }

Result<void> FakeCgroups::put_back(pid_t pid, const std::string& path) {
  world_.cross("put_back");
  if (before_put_back) before_put_back(pid);
  const bool scope_of_ours = path.starts_with(kParentPath);
  if (removed.contains(path) || (scope_of_ours && !world_.scopes_.contains(path))) {
    return gone("the cgroup", std::errc::no_such_file_or_directory);
  }
  Process* process = world_.find_process(pid);
  if (process == nullptr || !process->alive()) return gone("the process", std::errc::no_such_process);
  if (on_move) on_move(pid, path);
  world_.on_left(std::exchange(process->cgroup, path));
  return {};
}

std::vector<supervise::Ancestor> FakeCgroups::read_ancestors() const { return {{kParentPath, parent_ooms}}; }

// ---- systemd ----

void FakePlacer::ask(Kind kind, Deed deed, Done done) {
  if (away_) {
    return world_.later([this, done = std::move(done)] { done(unanswered(), world_.now()); });
  }
  waiting_.push_back({kind, std::move(deed), std::move(done)});
  if (!held_) world_.later([this] { answer(); });
}

Error FakePlacer::unanswered() {
  return {std::make_error_code(std::errc::connection_aborted), "the bus has gone away"};
}

void FakePlacer::answer() {
  for (auto asked = std::exchange(waiting_, {}); const auto& [kind, deed, done] : asked) done(deed(), world_.now());
}

void FakePlacer::fail(const std::string& why) {
  for (auto asked = std::exchange(waiting_, {}); const auto& [kind, deed, done] : asked) {
    const Error error{std::make_error_code(std::errc::operation_canceled), why};
    done(kind == Kind::kStop ? deed() : error, world_.now());
  }
}

std::function<void()> FakePlacer::lose() {
  const auto asked = std::exchange(waiting_, {});
  std::vector<Deed> deeds;
  for (const Asked& one : asked) deeds.push_back(one.deed);
  for (const Asked& one : asked) one.done(unanswered(), world_.now());
  return [deeds] {
    for (const Deed& deed : deeds) (void)deed();
  };
}

void FakePlacer::lose_answers() {
  std::vector<Done> told;
  for (Asked& asked : waiting_) told.push_back(std::exchange(asked.done, [](const Result<void>&, const Now&) {}));
  for (const Done& done : told) done(unanswered(), world_.now());
}

void FakePlacer::go_away(const std::function<bool()>& sent) {
  away_ = true;
  held_ = false;
  const auto asked = std::exchange(waiting_, {});
  for (const Asked& one : asked) {
    if (sent()) (void)one.deed();
  }
  for (const Asked& one : asked) one.done(unanswered(), world_.now());
}

Result<void> FakePlacer::start_scope(const ScopeOrder& order, ProcessKey process) {
  Process* found = world_.find_process(process.pid);
  if (found == nullptr || (!by_pid && key_of(found->stat) != process))
    return gone("the process", std::errc::no_such_process);
  const std::string path = world_.path_of(order.slice) + "/" + order.scope;
  world_.lost_slices_.erase(order.slice);
  if (order.slice != parent_ && !world_.slices_.contains(order.slice)) world_.imply_slice(order.slice);
  world_.begin_scope(path, order);
  if (!found->alive()) return {};  // Accepted: the scope is made, and stays empty (measured).
  if (world_.cgroups.on_move) world_.cgroups.on_move(process.pid, path);
  if (const std::string from = std::exchange(found->cgroup, path); from != path) world_.on_left(from);
  return {};
}

void FakePlacer::request_place(const ScopeOrder& scope, const SliceLimits& limits, Done done) {
  world_.cross("request_place");
  orders.push_back(scope);
  ask(
      Kind::kStart,
      [this, scope, limits, process = scope.process->key()]() -> Result<void> {
        if (world_.find_process(process.pid) == nullptr) return gone("the process", std::errc::no_such_process);
        if (world_.slices_.contains(scope.slice)) {
          return Error{std::make_error_code(std::errc::file_exists), "Unit " + scope.slice + " already exists"};
        }
        Slice slice;
        slice.path = world_.path_of(scope.slice);
        slice.limits = limits;
        slice.swap = Bytes(0);
        world_.enforce(slice, limits);
        world_.slices_[scope.slice] = std::make_shared<Slice>(slice);
        return start_scope(scope, process);
      },
      std::move(done));
}

void FakePlacer::request_scope(const ScopeOrder& scope, Done done) {
  world_.cross("request_scope");
  orders.push_back(scope);
  ask(
      Kind::kStart, [this, scope, process = scope.process->key()] { return start_scope(scope, process); },
      std::move(done));
}

void FakePlacer::request_limits(const std::string& slice, const SliceLimits& limits, Done done) {
  world_.cross("request_limits");
  ask(
      Kind::kStart,
      [this, slice, limits]() -> Result<void> {
        const auto it = world_.slices_.find(slice);
        if (it == world_.slices_.end()) return gone("the unit");
        const std::shared_ptr<Slice> limited = it->second;  // Which goes if the kernel kills its last process.
        limited->limits = limits;
        world_.enforce(*limited, limits);
        world_.tell_of_limits(*limited);
        return {};
      },
      std::move(done));
}

void FakePlacer::request_remove(const std::string& slice, Done done) {
  world_.cross("request_remove");
  ask(
      Kind::kStop,
      [this, slice]() -> Result<void> {
        if (on_stop) on_stop(slice);
        if (!removes_nothing) world_.remove_slice(slice);
        return {};
      },
      std::move(done));
}

void FakePlacer::request_stop(const std::string& unit, Done done) {
  world_.cross("request_stop");
  ask(
      Kind::kStop,
      [this, unit]() -> Result<void> {
        if (on_stop) on_stop(unit);
        for (const std::string& path : world_.scopes()) {
          if (path.ends_with("/" + unit)) world_.stop_scope(path);
        }
        return {};
      },
      std::move(done));
}

void FakePlacer::request_settled(Done done) {
  world_.cross("request_settled");
  if (!answers_settled || away_) return;
  world_.later([this, done = std::move(done)] {
    done(refuses_settled ? Result<void>(invalid("too many calls are under way")) : Result<void>(), world_.now());
  });
}

void FakePlacer::request_units(Units done) {
  const auto units = std::make_shared<std::set<std::string>>();
  ask(
      Kind::kStart,
      [this, units]() -> Result<void> {
        for (const auto& [name, slice] : world_.slices_) {
          if (!world_.lost_slices_.contains(name)) units->insert(name);
        }
        for (const std::string& path : world_.scopes()) units->insert(path.substr(path.rfind('/') + 1));
        return {};
      },
      [units, done = std::move(done)](const Result<void>& asked, const Now& now) {
        done(asked ? Result(*units) : Result<std::set<std::string>>(asked.error()), now);
      });
}

void FakePlacer::carry_out() {
  for (Asked& asked : waiting_) {
    asked.deed = [done = std::make_shared<Result<void>>(asked.deed())] { return *done; };
  }
}

std::function<void()> FakePlacer::take() {
  return [asked = std::exchange(waiting_, {})] {
    for (const Asked& one : asked) (void)one.deed();
  };
}

void FakePlacer::abandon(const std::function<bool()>& sent) {
  for (auto asked = std::exchange(waiting_, {}); const auto& one : asked) {
    if (sent()) (void)one.deed();  // Nobody is there to hear how it went.
  }
}

void FakePlacements::write(const std::string& run_id, const std::string& note) {
  world_.cross("write_placement");
  notes_[run_id] = note;
}

std::optional<std::string> FakePlacements::read(const std::string& run_id) const {
  const auto found = notes_.find(run_id);
  return found == notes_.end() ? std::nullopt : std::optional(found->second);
}

void FakePlacements::remove(const std::string& run_id) {
  world_.cross("remove_placement");
  notes_.erase(run_id);
}

std::vector<std::string> FakePlacements::list() const {
  std::vector<std::string> run_ids;
  for (const auto& [run_id, note] : notes_) run_ids.push_back(run_id);
  return run_ids;
}

void RecordingRecorder::record(const supervise::EventRecord& event) {
  world_.cross("record");
  supervise::EventRecord taken = event;
  if (!tamper || tamper(taken)) records.push_back(std::move(taken));
}

void RecordingRecorder::begin_run(const supervise::RunRow& row) {
  world_.cross("begin_run");
  rows.insert_or_assign(row.run_id, row);
}

void RecordingRecorder::change_run(const supervise::RunRow& row) {
  world_.cross("change_run");
  rows.insert_or_assign(row.run_id, row);
}

/// As the ledger's thread does it.
void RecordingRecorder::keep_series(const supervise::SeriesRow& row) {
  ++series_kept;
  supervise::SeriesRow kept = row;
  if (const auto before = series.find(row.run_id); row.continues && before != series.end()) {
    supervise::Series joined(row.most);
    joined.prepend(row.samples);
    joined.prepend(before->second.samples);
    kept.samples = joined.samples();
  }
  kept.continues = false;
  series[row.run_id] = std::move(kept);
}

void RecordingRecorder::end_run(const std::string& run_id) {
  world_.cross("end_run");
  rows.erase(run_id);
}

void RecordingRecorder::flush() {
  release();
  hold();
}

void RecordingRecorder::when_kept(std::function<void(const Now&)> kept) {
  world_.cross("when_kept");
  waiting_.push_back(std::move(kept));
  if (!held_) release();
}

void RecordingRecorder::hold() {
  held_ = true;
  kept_records_ = records.size();
  kept_rows_ = rows;
}

void RecordingRecorder::release() {
  held_ = false;
  for (auto& kept : std::exchange(waiting_, {})) {
    world_.later([this, kept = std::move(kept)] { kept(world_.now()); });
  }
}

void RecordingRecorder::forget_unkept() {
  waiting_.clear();
  if (!std::exchange(held_, false)) return;
  records.resize(kept_records_);
  rows = kept_rows_;
}

std::string FixedIdentity::new_uuid() {
  std::string number = std::to_string(++last_);
  number.insert(0, 8 - number.size(), '0');
  return number + "-0000-4000-8000-000000000000";
}

// ---- the world ----

World::World(supervise::Policy policy, supervise::Machine machine)
    : policy_(policy), machine_(machine), supervisor(ports(), policy, machine, now()) {
  Process init;
  init.stat.pid = kInit;
  init.stat.state = 'S';
  init.stat.comm = "systemd";
  init.cgroup = "/init.scope";
  init.protected_as = "the system's manager";
  processes_[kInit] = init;
  log_in();
}

void World::log_in() {
  user_shell = spawn(kInit, "bash");
  process(user_shell).uid = kUser;
  process(user_shell).cgroup = "/user.slice/user-1000.slice/session-1.scope";
  setsid(user_shell);
}

World::~World() {
  // What waits may hold processes, which unregister themselves here.
  queue_.clear();
  timed_.clear();
  placer.waiting_.clear();
}

Now World::now() const { return {clock_, WallTime(clock_.time_since_epoch() + wall_clock_)}; }

void World::deliver() {
  for (int told = 0; !at_once_.empty() || !queue_.empty(); ++told) {
    AW_ASSERT(told < 100000);  // Otherwise somebody goes round in circles.
    auto& first = at_once_.empty() ? queue_ : at_once_;
    const auto what = std::move(first.front());
    first.pop_front();
    what();
  }
}

void World::advance(Span span) {
  const Instant end = clock_ + span;
  deliver();
  for (int steps = 0;; ++steps) {
    AW_ASSERT(steps < 100000);
    const Instant other = std::min(alarm_.value_or(kNever), timed_.empty() ? kNever : timed_.begin()->first);
    const Instant rounds = busy_loop ? kNever : rounds_requested_.value_or(kNever);
    const Instant sampling = busy_loop ? kNever : sampling_alarm_.value_or(kNever);
    const Instant next = std::min({other, rounds, sampling});
    if (next > end || next == kNever) break;
    clock_ = std::max(clock_, next);
    if (other > clock_) {  // As in the daemon's loop: of what is due, rounds and samples come last.
      if (rounds <= sampling) {
        rounds_requested_.reset();
        ++rounds_turns;
        supervisor.on_rounds_due(now());
      } else {
        sampling_alarm_.reset();
        ++sampling_turns;
        supervisor.on_sampling_due(now());
      }
    } else if (!timed_.empty() && timed_.begin()->first <= clock_) {
      const auto due = timed_.extract(timed_.begin());
      due.mapped()();
    } else {
      alarm_.reset();
      ++wakeups;
      supervisor.on_timer(now());
    }
    deliver();
  }
  clock_ = end;
}

Process* World::find_process(pid_t pid) {
  const auto it = processes_.find(pid);
  return it == processes_.end() ? nullptr : &it->second;
}

bool World::alive(pid_t pid) {
  const Process* process = find_process(pid);
  return process != nullptr && process->alive();
}

pid_t World::spawn(pid_t parent, const std::string& comm) {
  Process child;
  const Process& from = process(parent);
  do {
    last_pid_ = pid_max != 0 && last_pid_ >= pid_max ? kFirstPid : last_pid_ + 1;
  } while (processes_.contains(last_pid_));
  child.stat = {.pid = last_pid_,
                .parent = parent,
                .process_group = from.stat.process_group,
                .session = from.stat.session,
                .state = 'S',
                .start_time = ++ticks_,
                .comm = comm};
  child.uid = from.uid;
  child.cgroup = from.cgroup;
  child.cmdline = "/usr/bin/" + comm;
  processes_[child.stat.pid] = child;
  return child.stat.pid;
}

void World::spawn_again(pid_t used, pid_t parent, const std::string& comm) {
  AW_ASSERT(find_process(used) == nullptr);
  const pid_t last = std::exchange(last_pid_, used - 1);
  const pid_t pid = spawn(parent, comm);
  AW_ASSERT(pid == used);
  last_pid_ = last;
}

void World::replace(pid_t pid, pid_t parent, const std::string& comm) {
  exit(pid);
  reap(pid);
  spawn_again(pid, parent, comm);
}

void World::setsid(pid_t pid) { process(pid).stat.session = process(pid).stat.process_group = pid; }

void World::kill(pid_t pid, int signal, Sender sender) {
  Process* target = find_process(pid);
  if (target == nullptr) return;
  sent.push_back({pid, signal, sender});
  if (!target->alive()) return;
  if (on_signal) on_signal(Sent{pid, signal, sender});
  if (signal == SIGSTOP) target->stat.state = 'T';
  if (signal == SIGCONT && target->stat.state == 'T') target->stat.state = 'S';
  if (signal == SIGTERM) target->term_pending = true;
  if (signal == SIGKILL && !(refuses_to_kill && sender == Sender::kWatchdog)) target->kill_pending = true;
  act_on_signals(pid);
}

void World::act_on_signals(pid_t pid) {
  Process& target = process(pid);
  if (!target.alive() || target.sleeps_uninterruptibly) return;
  if (target.kill_pending) return die(pid, SIGKILL);
  const Slice* slice = find_slice_of(target.cgroup);
  if (!target.term_pending || target.stat.state == 'T' || (slice != nullptr && slice->frozen)) return;
  target.term_pending = false;
  switch (target.on_term) {
    case OnTerm::kDies:
      return die(pid, SIGTERM);
    case OnTerm::kIgnores:
      return;
    case OnTerm::kCleansUp:
      return at(clock_ + target.cleanup, [this, key = key_of(target.stat)] {
        if (alive(key.pid) && key_of(process(key.pid).stat) == key) exit(key.pid, 0);
      });
  }
  unreachable(target.on_term);
}

std::vector<int> World::signals_to(pid_t pid, Sender sender) const {
  std::vector<int> signals;
  for (const Sent& one : sent) {
    if (one.pid == pid && one.sender == sender) signals.push_back(one.signal);
  }
  return signals;
}

void World::wake(pid_t pid) {
  process(pid).sleeps_uninterruptibly = false;
  act_on_signals(pid);
}

pid_t World::adopter_of(const Process& dead) const {
  for (pid_t pid = dead.stat.parent; pid > kInit;) {
    const auto it = processes_.find(pid);
    if (it == processes_.end()) break;
    if (it->second.subreaper && it->second.alive()) return pid;
    pid = it->second.stat.parent;
  }
  return kInit;
}

void World::die(pid_t pid, int wait_status) {
  Process& dead = process(pid);
  if (!dead.alive()) return;
  if (on_death) on_death(pid);
  dead.stat.state = 'Z';
  dead.stat.exit_status = wait_status;
  const pid_t adopter = adopter_of(dead);
  const auto reap_when_due = [this](Process& zombie) {
    const Process* parent = find_process(zombie.stat.parent);
    const ProcessKey key = key_of(zombie.stat);
    const auto reap_it = [this, key] {
      if (const Process* it = find_process(key.pid); it != nullptr && key_of(it->stat) == key) reap(key.pid);
    };
    if (parent == nullptr || parent->reaps == Reaps::kSoon) at(clock_ + kReapDelay, reap_it);
    if (parent != nullptr && parent->reaps == Reaps::kAtOnce) at_once_.push_back(reap_it);
  };
  for (auto& [child, process] : processes_) {
    if (process.stat.parent != pid) continue;
    process.stat.parent = adopter;
    if (!process.alive()) reap_when_due(process);
  }
  for (const auto& [id, watch] : watches_) {
    if (watch.key == key_of(dead.stat)) tell_watcher(id);
  }
  on_left(dead.cgroup);
  reap_when_due(dead);
}

void World::on_left(const std::string& cgroup) {
  if (members(cgroup).empty() && scopes_.erase(cgroup) > 0) {  // systemd removes a scope that has emptied.
    if (Slice* slice = find_slice_of(cgroup); slice != nullptr) slice->last_removal = now().real;
  }
  Slice* slice = find_slice_of(cgroup);
  if (slice == nullptr || populated(*slice)) return;
  notify(*slice);
  if (slice->stopping) drop_slice(*slice);
}

void World::tell_watcher(std::uint64_t watch) {
  later([this, watch] {
    const auto found = watches_.extract(watch);
    if (found) found.mapped().ended(now());
  });
}

std::string World::path_of(const std::string& slice) const {
  return slice == placer.parent_slice() ? kParentPath : std::string(kParentPath) + "/" + slice;
}

Slice* World::find_slice_of(const std::string& cgroup) const {
  for (const auto& [name, slice] : slices_) {
    if (is_within(cgroup, slice->path)) return slice.get();
  }
  return nullptr;
}

std::vector<pid_t> World::members(const std::string& path) const {
  std::vector<pid_t> pids;
  for (const auto& [pid, process] : processes_) {
    if (process.alive() && is_within(process.cgroup, path)) pids.push_back(pid);
  }
  return pids;
}

void World::notify(Slice& slice) {
  if (slice.watcher == 0 || losing_notifications || !notified_.insert(slice.watcher).second) return;
  const auto tell = [this, key = slice.watcher, daemon = daemons_] {
    if (daemon != daemons_) return;
    notified_.erase(key);
    supervisor.on_cgroup_changed(key, now());
  };
  if (notification_delay == Span(0)) return later(tell);
  at(clock_ + notification_delay, tell);
}

void World::tell_of_limits(Slice& slice) {
  if (slice.watcher == 0 || losing_notifications) return;
  later([this, key = slice.watcher] { supervisor.on_limits_written(key, now()); });
}

void World::enforce(Slice& slice, const supervise::SliceLimits& limits) {
  slice.tripwire = limits.tripwire;
  const Bytes before = std::exchange(slice.ceiling, limits.ceiling);
  if (slice.swap) slice.swap = Bytes(0);
  slice.tasks_max = limits.tasks_max;
  slice.cpu_quota_per_second = limits.cpu_quota_per_second;
  slice.cpu_weight = limits.cpu_weight.value_or(100);
  if (slice.ceiling >= before || slice.stat.unreclaimable() <= slice.ceiling || !populated(slice)) return;
  // memory.max is put below what can't be reclaimed: the kernel kills at once.
  ++slice.events.oom;
  oom_kill(slice, slice.path);
}

/// Tells first: with its last process a slice that is being stopped goes.
void World::oom_kill(Slice& hit, const std::string& cgroup) {
  const std::vector<pid_t> killed = members(cgroup);
  hit.events.oom_kill += killed.size();
  notify(hit);
  for (const pid_t pid : killed) kill(pid, SIGKILL, Sender::kKernel);
}

void World::use_memory(const std::string& id, Bytes anonymous, Bytes page_cache) {
  Slice& used = slice(id);
  used.stat.anon = anonymous;
  used.stat.file = page_cache;
  if (anonymous + page_cache <= used.tripwire) return;
  ++used.events.high;
  notify(used);
}

void World::oom_kill(const std::string& id, const std::string& scope, bool own_limit) {
  Slice& hit = slice(id);
  if (own_limit) ++hit.events.oom;
  oom_kill(hit, hit.path + "/" + scope);
}

void World::restart_daemon(bool by_reboot) {
  // Whatever it held is closed, what it had asked for on the bus goes unanswered.
  std::destroy_at(&supervisor);
  queue_.clear();
  placer.waiting_.clear();
  placer.held_ = false;
  notified_.clear();
  ++daemons_;
  watches_.clear();
  alarm_.reset();
  sampling_alarm_.reset();
  rounds_requested_.reset();
  recorder.forget_unkept();
  if (by_reboot) {
    identity.boot_anew();
    placements.notes_.clear();
    slices_.clear();
    scopes_.clear();
    lost_slices_.clear();
    timed_.clear();
    processes_.erase(std::next(processes_.find(kInit)), processes_.end());
    log_in();
  }
  std::construct_at(&supervisor, ports(), policy_, machine_, now());
}

supervise::Supervisor::Before World::on_record() const {
  supervise::Supervisor::Before before;
  for (const auto& [run_id, row] : recorder.rows) before.rows.push_back(row);
  // As the daemon has it: what was on record when it started, and nothing of what comes to it since.
  std::set<std::string> event_ids;
  for (const auto& record : recorder.records) event_ids.insert(record.event_id);
  before.is_recorded = [event_ids = std::move(event_ids)](const std::string& id) { return event_ids.contains(id); };
  return before;
}

void World::adopt() {
  supervisor.adopt(on_record(), now());
  deliver();
}

void World::adopt_without_record() {
  supervisor.adopt({}, now());
  deliver();
}

void World::read_record() {
  supervisor.on_record_read(on_record(), now());
  deliver();
}

supervise::Supervisor::Ports World::ports() {
  return {cgroups,
          processes,
          placer,
          placements,
          recorder,
          identity,
          [this](std::optional<Instant> due) { alarm_ = due; },
          [this](std::optional<Instant> due) { sampling_alarm_ = due; },
          [this] { rounds_requested_ = clock_; },
          [this] { return clock_ + signalling_takes; }};
}

void World::oom_kill_at_parent(const std::string& id) {
  ++cgroups.parent_ooms;
  oom_kill(id, scope_name(id), false);
}

void World::systemctl_stop(const std::string& id) {
  const std::string unit = scope_name(id);
  if (!placer.away_) later([this, unit] { supervisor.on_manager_job(unit, supervise::ManagerJob::kStop, now()); });
  for (const pid_t pid : members(slice(id).path + "/" + unit)) kill(pid, SIGTERM, Sender::kSystemd);
}

void World::lose_unit(const std::string& unit, Told told) {
  std::erase_if(scopes_, [&](const auto& scope) { return scope.first.ends_with("/" + unit); });
  if (const auto slice = slices_.find(unit); slice != slices_.end()) {
    slice->second->limits = {Bytes::infinite(), Bytes::infinite()};
    lost_slices_.insert(unit);
  }
  if (told == Told::kTheWatchdog) later([this, unit] { supervisor.on_unit_removed(unit, now()); });
}

// ---- clients ----

std::unique_ptr<ProcessHandle> World::handle(pid_t pid) { return processes.open(pid).value(); }

Answer World::request_register(const std::string& text, pid_t pid, supervise::Limits limits) {
  auto answer = std::make_shared<std::optional<Result<RunKey>>>();
  supervisor.request_register({id(text), handle(pid), std::move(limits), caller()}, now(),
                              [answer](Result<RunKey> key, const Now&) { *answer = std::move(key); });
  return answer;
}

RunKey World::register_run(const std::string& text, pid_t pid, supervise::Limits limits) {
  const Answer answer = request_register(text, pid, std::move(limits));
  deliver();
  AW_ASSERT(*answer && **answer);
  return ***answer;
}

Done World::keep(const Reply& reply) {
  return [reply](Result<void> result, const Now&) { *reply = std::move(result); };
}

std::vector<supervise::EventRecord> World::records(const std::string& id) const {
  std::vector<supervise::EventRecord> found;
  std::copy_if(recorder.records.begin(), recorder.records.end(), std::back_inserter(found),
               [&](const auto& record) { return record.registered_as == id; });
  return found;
}

std::vector<supervise::EventRecord> World::records(const std::string& id, EventKind kind) const {
  auto found = records(id);
  std::erase_if(found, [kind](const auto& record) { return record.kind != kind; });
  return found;
}

std::vector<EventKind> World::kinds(const std::string& id) const {
  std::vector<EventKind> kinds;
  for (const auto& record : records(id)) kinds.push_back(record.kind);
  return kinds;
}

}  // namespace aw::testing
