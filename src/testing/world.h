// SPDX-License-Identifier: Apache-2.0
//
// A small simulated machine: processes that fork, die and are reaped, cgroups that count and kill, a systemd that
// answers when it is told to, and a clock that only the test moves. It implements the ports of supervise/ and drives
// one Supervisor as the daemon's loop would: what happens is queued, and told from deliver() and advance().
#pragma once

#include <csignal>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervise/supervisor.h"

namespace aw::testing {

class World;

enum class OnTerm {
  kDies,      ///< no handler
  kIgnores,   ///< a handler that does nothing
  kCleansUp,  ///< exits with status 0 after `cleanup`
};

/// When a parent waits for a child that has died.
enum class Reaps { kSoon, kAtOnce, kNever };

struct Process {
  supervise::ProcessStat stat;
  uid_t uid = 0;
  std::string cgroup;
  std::string cmdline;
  bool cmdline_blocks = false;  ///< whoever reads it has to wait
  Span cpu{0};
  Bytes anonymous;
  std::optional<Bytes> anonymous_share;  ///< unset: shares nothing
  bool share_blocks = false;             ///< whoever reads that has to wait
  OnTerm on_term = OnTerm::kDies;
  Span cleanup{0};
  Reaps reaps = Reaps::kSoon;
  bool subreaper = false;
  bool sleeps_uninterruptibly = false;  ///< SIGKILL has to wait
  std::string protected_as;
  bool term_pending = false;
  bool kill_pending = false;

  bool alive() const { return stat.state != 'Z'; }
};

/// A run's cgroup. Held by shared_ptr, so that one that was made anew under the same name is another.
struct Slice {
  std::string path;
  supervise::MemoryEvents events;
  supervise::MemoryStat stat;
  supervise::MemoryPressure pressure;
  supervise::SliceLimits limits;  ///< as systemd was told last
  Bytes tripwire;                 ///< memory.high as it is
  Bytes ceiling;                  ///< memory.max
  std::optional<Bytes> swap;      ///< memory.swap.max
  std::uint64_t tasks_max = 0;    ///< pids.max
  Span cpu_quota_per_second{0};   ///< cpu.max
  std::uint64_t cpu_weight = 100;
  std::set<std::string> killed_singly;  ///< scopes of which the kernel kills one process; the others it kills whole
  unsigned limit_writes = 0;            ///< by the watchdog, to all of the files
  unsigned kills = 0;                   ///< writes to cgroup.kill
  mutable unsigned stat_reads = 0;
  mutable unsigned gauge_reads = 0;  ///< for samples
  bool frozen = false;
  bool removed = false;
  bool stopping = false;          ///< removed as soon as nobody is left
  supervise::RunKey watcher = 0;  ///< 0: nobody
  std::optional<std::string> note;
  std::optional<WallTime> last_removal;
};

class FakeCmdlines;

class FakeProcesses final : public supervise::Processes {
 public:
  explicit FakeProcesses(World& world) : world_(world) {}
  Result<std::unique_ptr<supervise::ProcessHandle>> open(pid_t pid) override;
  Result<std::unique_ptr<supervise::ProcessHandle>> adopt(int pidfd) override;
  std::optional<supervise::ProcessStat> find_stat(pid_t pid) const override;
  Result<supervise::ProcessStat> read_stat(pid_t pid) const override;
  std::vector<supervise::ProcessStat> read_all() const override;
  bool has_children(pid_t pid) const override;
  std::optional<std::string> find_cgroup(pid_t pid) const override;
  std::optional<uid_t> find_uid(pid_t pid) const override;
  std::string read_cmdline(pid_t pid) const override;
  std::string read_wait_channel(pid_t pid) const override;
  Bytes read_anonymous(pid_t pid) const override;
  mutable std::size_t anonymous_reads = 0;
  mutable std::size_t all_reads = 0;  ///< of the whole list
  std::shared_ptr<const supervise::AnonymousShares> request_anonymous_shares(
      std::span<const pid_t> pids) const override;
  supervise::ProcessSurvey survey(std::span<const pid_t> pids) const override;

  void catch_up();              ///< reads the command lines that are waited for, and block no more
  std::size_t patience = 1000;  ///< how many processes a survey looks at
  bool out_of_descriptors = false;
  std::function<void(pid_t)> before_open;
  std::set<pid_t> unreadable;  ///< /proc/PID/stat can't be opened, for want of descriptors
  Result<void> signal_member(pid_t pid, const std::string& path, std::span<const int> signals) override;
  std::optional<std::string> why_protected(pid_t pid) const override;

 private:
  World& world_;
  mutable std::vector<std::weak_ptr<const FakeCmdlines>> asked_;
};

class FakeCgroups final : public supervise::Cgroups {
 public:
  explicit FakeCgroups(World& world) : world_(world) {}
  Result<std::unique_ptr<supervise::RunCgroup>> open(supervise::RunKey key, const std::string& slice) override;
  Result<void> move(pid_t pid, const std::string& slice, const std::string& scope) override;
  Result<std::vector<std::string>> list_slices() const override;
  std::string path_of(const std::string& slice) const override;
  Result<void> put_back(pid_t pid, const std::string& path) override;
  std::vector<supervise::Ancestor> read_ancestors() const override;

  std::uint64_t parent_ooms = 0;           ///< at the limit of the slice above all runs
  std::function<void(pid_t)> before_move;  ///< e.g. forks
  std::function<void(pid_t)> after_move;
  std::function<void(pid_t)> before_put_back;
  std::function<void()> after_list;  ///< of the processes of a run
  /// Before each move, wherever to: the process and the path of its new cgroup.
  std::function<void(pid_t, const std::string&)> on_move;
  bool forgets_notes = false;
  std::set<pid_t> immovable;
  bool cannot_list = false;            ///< reading what slices there are fails
  bool cannot_tell_populated = false;  ///< … and whether anybody is in one
  bool out_of_descriptors = false;
  int kill_error = 0;             ///< cgroup.kill fails with it
  bool read_only = false;         ///< limits can't be written to files
  std::set<std::string> removed;  ///< nothing can be put back there

 private:
  World& world_;
};

/// They outlive the daemon, and go with the boot.
class FakePlacements final : public supervise::Placements {
 public:
  explicit FakePlacements(World& world) : world_(world) {}
  void write(const std::string& run_id, const std::string& note) override;
  std::optional<std::string> read(const std::string& run_id) const override;
  void remove(const std::string& run_id) override;
  std::vector<std::string> list() const override;

 private:
  friend class World;
  World& world_;
  std::map<std::string, std::string> notes_;
};

class FakePlacer final : public supervise::Placer {
 public:
  explicit FakePlacer(World& world) : world_(world) {}
  void request_place(const supervise::ScopeOrder& scope, const supervise::SliceLimits& limits,
                     supervise::Done done) override;
  void request_scope(const supervise::ScopeOrder& scope, supervise::Done done) override;
  void request_limits(const std::string& slice, const supervise::SliceLimits& limits, supervise::Done done) override;
  void request_remove(const std::string& slice, supervise::Done done) override;
  void request_stop(const std::string& unit, supervise::Done done) override;
  void request_settled(supervise::Done done) override;
  void request_units(Units done) override;
  const std::string& parent_slice() const override { return parent_; }

  void hold() { held_ = true; }  ///< from here on nothing is done or answered …
  void release() {
    held_ = false;
    answer();
  }                                   ///< … until here
  void answer();                      ///< does and answers what was asked so far
  void fail(const std::string& why);  ///< answers with an error, and does nothing; but what is to be stopped is stopped
  /// The bus has gone, and whoever asked is told so. What was asked is done where the function is called, if ever.
  std::function<void()> lose();
  /// No answer comes, and whoever asked is told so; it is done all the same, in its turn.
  void lose_answers();
  /// The bus has gone, until come_back(). What is asked meanwhile fails; what was asked before is done where `sent`
  /// says that systemd had it.
  void go_away(const std::function<bool()>& sent);
  void come_back() { away_ = false; }
  bool is_away() const { return away_; }
  void carry_out();  ///< does what was asked so far, and answers later
  /// What was asked so far, to be done whenever the function is called: nobody is there any more to hear of it.
  std::function<void()> take();
  /// The daemon has gone: what was asked is not answered, and done only where `sent` says that it was on its way.
  void abandon(const std::function<bool()>& sent);
  std::size_t waiting() const { return waiting_.size(); }
  bool is_held() const { return held_; }
  std::function<void(const std::string& unit)> on_stop;  ///< before a unit is stopped for the watchdog
  bool by_pid = false;  ///< systemd before version 254: it moves whoever has the pid by then
  bool removes_nothing = false;

  /// Every scope that was ordered, oldest first; `process` is not to be followed.
  std::vector<supervise::ScopeOrder> orders;
  bool answers_settled = true;
  bool refuses_settled = false;  ///< with an error, at once

 private:
  friend class World;
  using Deed = std::function<Result<void>()>;
  enum class Kind { kStart, kStop };
  struct Asked {
    Kind kind;
    Deed deed;
    supervise::Done done;
  };
  static Error unanswered();
  void ask(Kind kind, Deed deed, supervise::Done done);
  Result<void> start_scope(const supervise::ScopeOrder& order, supervise::ProcessKey process);

  World& world_;
  const std::string parent_ = "analysis.slice";
  bool held_ = false;
  bool away_ = false;
  std::deque<Asked> waiting_;
};

class RecordingRecorder final : public supervise::Recorder {
 public:
  explicit RecordingRecorder(World& world) : world_(world) {}
  void record(const supervise::EventRecord& event) override;
  void begin_run(const supervise::RunRow& row) override;
  void change_run(const supervise::RunRow& row) override;
  void end_run(const std::string& run_id) override;
  void keep_series(const supervise::SeriesRow& row) override;
  void when_kept(std::function<void(const Now&)> kept) override;
  std::optional<std::string> find_problem() const override { return problem; }
  void hold();           ///< from here on nothing comes to the disk …
  void release();        ///< … until here
  void forget_unkept();  ///< the daemon has gone
  void flush();          ///< what has been recorded so far comes to the disk, nothing after it
  std::size_t kept() const { return held_ ? kept_records_ : records.size(); }

  /// Sees each record first; false: it is dropped.
  std::function<bool(supervise::EventRecord&)> tamper;
  std::vector<supervise::EventRecord> records;
  std::map<std::string, supervise::RunRow> rows;       ///< of the live runs
  std::map<std::string, supervise::SeriesRow> series;  ///< as the ledger would have them
  unsigned series_kept = 0;                            ///< how often one was handed over
  std::optional<std::string> problem;

 private:
  World& world_;
  bool held_ = false;
  std::vector<std::function<void(const Now&)>> waiting_;
  std::size_t kept_records_ = 0;
  std::map<std::string, supervise::RunRow> kept_rows_;
};

class FixedIdentity final : public supervise::Identity {
 public:
  std::string new_uuid() override;
  const std::string& host() const override { return host_; }
  const std::string& boot_id() const override { return boot_; }
  void boot_anew() { boot_ = new_uuid(); }

 private:
  unsigned last_ = 0;
  const std::string host_ = "testhost";
  std::string boot_ = "00000000-0000-4000-8000-000000000b00";
};

enum class Sender { kWatchdog, kSystemd, kKernel, kSomebody };

/// A signal to a process, or to the zombie that the one before has made of it.
struct Sent {
  pid_t pid;
  int signal;
  Sender sender;
};

/// Whom systemd tells.
enum class Told { kTheWatchdog, kNobody };

/// A registration, answered or not yet.
using Answer = std::shared_ptr<std::optional<Result<supervise::RunKey>>>;
using Reply = std::shared_ptr<std::optional<Result<void>>>;

class World {
 public:
  static constexpr uid_t kUser = 1000;
  static constexpr pid_t kInit = 1;

  explicit World(supervise::Policy policy = {}, supervise::Machine machine = {kGiB + kGiB + kGiB + kGiB, 2});
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // ---- time ----
  Now now() const;
  /// Lets time pass: everything that is due meanwhile happens, and is told, when it is due.
  void advance(Span span);
  /// Tells all that waits to be told, without time passing.
  void deliver();
  void later(std::function<void()> what) { queue_.push_back(std::move(what)); }
  std::optional<Instant> alarm() const { return alarm_; }
  std::optional<Instant> sampling_alarm() const { return sampling_alarm_; }
  void set_wall_clock(Span by) { wall_clock_ += by; }

  // ---- processes ----
  pid_t spawn(pid_t parent, const std::string& comm = "job");  ///< inherits cgroup, uid, group and session
  /// … with a pid that was another's, who is gone.
  void spawn_again(pid_t used, pid_t parent, const std::string& comm);
  /// The process ends, is reaped, and its pid goes to a child of `parent`.
  void replace(pid_t pid, pid_t parent, const std::string& comm = "stranger");
  void setsid(pid_t pid);
  void exit(pid_t pid, int code = 0) { die(pid, code << 8); }
  void die(pid_t pid, int wait_status);
  void kill(pid_t pid, int signal, Sender sender = Sender::kSomebody);
  void wake(pid_t pid);  ///< out of its uninterruptible sleep
  void reap(pid_t pid) { processes_.erase(pid); }
  Process& process(pid_t pid) { return processes_.at(pid); }
  Process* find_process(pid_t pid);
  void insert(const Process& process) {
    processes_[process.stat.pid] = process;
  }  ///< e.g. under a pid that was another's
  bool alive(pid_t pid);
  std::vector<int> signals_to(pid_t pid, Sender sender = Sender::kWatchdog) const;
  const std::map<pid_t, Process>& all() const { return processes_; }
  std::vector<pid_t> members(const std::string& path) const;  ///< the living ones, ascending

  // ---- cgroups ----
  /// The slice of a run; one that is gone is an error of the test.
  Slice& slice(const std::string& id) { return *slices_.at(slice_name(id)); }
  bool has_slice(const std::string& id) const { return slices_.contains(slice_name(id)); }
  std::size_t slice_count() const { return slices_.size(); }
  std::size_t watch_count() const { return watches_.size(); }
  /// What the tree has in memory now; passing the tripwire moves the counter, as in the kernel.
  void use_memory(const std::string& id, Bytes anonymous, Bytes page_cache = Bytes(0));
  /// The kernel kills one scope, because of a limit of the run's own or one from elsewhere.
  void oom_kill(const std::string& id, const std::string& scope, bool own_limit = true);
  /// The same at the limit of the slice above all runs.
  void oom_kill_at_parent(const std::string& id);
  void notify(Slice& slice);
  /// Somebody has written to the files that hold the limits of the slice.
  void tell_of_limits(Slice& slice);
  void remove_slice(const std::string& name);
  const std::map<std::string, std::shared_ptr<Slice>>& slices() const { return slices_; }
  std::vector<std::string> scopes() const;  ///< paths of those that systemd has
  bool losing_notifications = false;
  Span notification_delay{0};

  // ---- systemd, clients ----
  void systemctl_stop(const std::string& id);
  /// systemd forgets a unit, whatever is in its cgroup; of a slice, the limits too.
  void lose_unit(const std::string& unit, Told told = Told::kTheWatchdog);
  /// The same for any unit of a run, its slice included, with the SIGKILL that follows.
  void stop_unit(const std::string& unit);
  std::unique_ptr<supervise::ProcessHandle> handle(pid_t pid);
  supervise::Caller caller(uid_t uid = kUser) const { return {uid, user_shell, uid == 0}; }
  Answer request_register(const std::string& id, pid_t pid, supervise::Limits limits = {});
  supervise::RunKey register_run(const std::string& id, pid_t pid, supervise::Limits limits = {});
  /// A Done that keeps what it is told.
  static supervise::Done keep(const Reply& reply);

  // ---- the daemon ----
  /// kill -9 and a new one, which has not looked at anything yet; or the whole machine.
  void restart_daemon(bool by_reboot = false);
  void adopt();  ///< what the new one does first
  /// The same where the record can't be read; and what it does as soon as that can be.
  void adopt_without_record();
  void read_record();
  /// Asked before each call into a port that does something; the call is not made if it throws.
  std::function<void(const char* call)> on_port_call;

  // ---- records ----
  std::vector<supervise::EventRecord> records(const std::string& id) const;
  std::vector<supervise::EventRecord> records(const std::string& id, EventKind kind) const;
  std::vector<EventKind> kinds(const std::string& id) const;

  static std::string slice_name(const std::string& id) { return slice_unit(AnalysisId::parse(id).value()); }
  static std::string scope_name(const std::string& id, unsigned n = 1) {
    return scope_unit(AnalysisId::parse(id).value(), n);
  }

  static AnalysisId id(const std::string& text) { return AnalysisId::parse(text).value(); }

  FakeProcesses processes{*this};
  FakeCgroups cgroups{*this};
  FakePlacer placer{*this};
  FakePlacements placements{*this};
  RecordingRecorder recorder{*this};
  FixedIdentity identity;
  pid_t user_shell = 0;          ///< a process of kUser in a login session
  bool refuses_watches = false;  ///< no process can be watched any more
  bool refuses_to_kill = false;  ///< SIGKILL of the watchdog does nothing
  pid_t pid_max = 0;             ///< pids are given out anew after it; 0: never
  unsigned wakeups = 0;          ///< of the supervisor by its alarm
  unsigned sampling_turns = 0;   ///< … by that for samples
  unsigned rounds_turns = 0;     ///< … by that for rounds
  bool busy_loop = false;        ///< it never comes to what everything else goes before: samples, rounds
  Span signalling_takes{0};      ///< what the clock says after a signal, above the wake-up's time
  std::vector<Sent> sent;        ///< every signal so far
  std::function<void(const Sent&)> on_signal;
  std::function<void(pid_t)> on_death;  ///< before it is done

 private:
  friend class FakeHandle;
  friend class FakeRunCgroup;
  friend class FakeProcesses;
  friend class FakeCmdlines;
  friend class FakeCgroups;
  friend class FakePlacer;
  friend class FakePlacements;
  friend class RecordingRecorder;
  struct Watch {
    supervise::ProcessKey key;
    std::function<void(const Now&)> ended;
  };

  /// What systemd knows of a scope.
  struct Scope {
    std::uint64_t number;  ///< of all that were ever made
    Span stop_timeout{0};
  };

  supervise::Supervisor::Ports ports();
  supervise::Supervisor::Before on_record() const;
  void cross(const char* call) const {
    if (on_port_call) on_port_call(call);
  }
  void log_in();
  void begin_scope(const std::string& path, const supervise::ScopeOrder& order);
  void stop_scope(const std::string& path);
  void drop_slice(const Slice& slice);
  void imply_slice(const std::string& name);
  void act_on_signals(pid_t pid);
  pid_t adopter_of(const Process& dead) const;
  void on_left(const std::string& cgroup);
  void tell_watcher(std::uint64_t watch);
  void enforce(Slice& slice, const supervise::SliceLimits& limits);
  void oom_kill(Slice& hit, const std::string& cgroup);
  Slice* find_slice_of(const std::string& cgroup) const;
  bool populated(const Slice& slice) const { return !members(slice.path).empty(); }
  std::string path_of(const std::string& slice) const;
  void at(Instant when, std::function<void()> what) { timed_.emplace(when, std::move(what)); }

  const supervise::Policy policy_;
  const supervise::Machine machine_;
  Instant clock_{std::chrono::hours{1}};
  Span wall_clock_ = std::chrono::years{50};  ///< ahead of the other one
  std::optional<Instant> alarm_;
  std::optional<Instant> sampling_alarm_;
  std::optional<Instant> rounds_requested_;  ///< since when
  std::multimap<Instant, std::function<void()>> timed_;
  std::deque<std::function<void()>> queue_;    ///< what the daemon is to be told
  std::deque<std::function<void()>> at_once_;  ///< … and what happens before it is told
  unsigned daemons_ = 0;                       ///< before this one
  std::set<supervise::RunKey> notified_;
  std::map<pid_t, Process> processes_;
  std::map<std::string, std::shared_ptr<Slice>> slices_;  ///< by name
  std::map<std::string, Scope> scopes_;                   ///< those that systemd has, by path
  std::set<std::string> lost_slices_;                     ///< … and the slices that it has not, by name
  std::uint64_t last_scope_ = 0;
  std::map<std::uint64_t, Watch> watches_;
  std::uint64_t last_watch_ = 0;
  std::uint64_t ticks_ = 0;
  pid_t last_pid_ = 100;

 public:
  supervise::Supervisor supervisor;
};

}  // namespace aw::testing
