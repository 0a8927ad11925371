// SPDX-License-Identifier: Apache-2.0
//
// The heart: every run, and what is done about it. It knows no file, no clock and no bus; the ports do (ports.h), and
// time enters with each call. lifecycle.h says what an event means; this class carries it out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "supervise/admission.h"
#include "supervise/chronicle.h"
#include "supervise/policy.h"
#include "supervise/ports.h"
#include "supervise/run.h"
#include "supervise/timer_wheel.h"

namespace aw::supervise {

/// What somebody wants registered.
struct Registration {
  AnalysisId id;
  std::unique_ptr<ProcessHandle> process;
  Limits limits;
  Caller caller;
};

/// A live run, as a reader sees it. What can't be read is absent.
struct Usage {
  Counters counters;
  std::optional<Bytes> unreclaimable;
  std::uint32_t processes = 0;
};

/// What the machine is like.
struct Machine {
  Bytes memory;
  unsigned cpus = 1;
  Bytes page_size{4096};
};

struct RunNote;

class Supervisor {
 public:
  struct Ports {
    Cgroups& cgroups;
    Processes& processes;
    Placer& placer;
    Placements& placements;
    Recorder& recorder;
    Identity& identity;
    /// Told when the next timer is due, each time that changes; nothing: no timer is armed.
    std::function<void(std::optional<Instant>)> set_alarm;
  };
  using RegisterDone = std::function<void(Result<RunKey>, const Now&)>;

  /// How much later than deadline + grace systemd would act: it is there for a daemon that is dead.
  static constexpr Span kBackstopMargin = std::chrono::seconds{15};
  /// After this long cgroup.kill has not emptied a cgroup: unkillable, and tried again.
  static constexpr Span kKillPatience = std::chrono::seconds{10};

  Supervisor(Ports ports, Policy policy, Machine machine, const Now& now);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  void set_policy(const Policy& policy) { policy_ = policy; }

  /// The limits of a run for which none were asked.
  Limits allowed_defaults(const Limits& defaults, const Caller& caller) const {
    return supervise::allowed_defaults(defaults, policy_.caps, caller, machine_.memory);
  }

  // Requests. Refusals carry a code of refusal.h. `done` of a refused request comes at once, of another through the
  // loop.
  void request_register(Registration registration, const Now& now, RegisterDone done);
  void request_attach(const AnalysisId& id, std::unique_ptr<ProcessHandle> process, const Caller& caller,
                      const Now& now, Done done);
  void request_unregister(const AnalysisId& id, const Now& now, Done done);
  void request_set_limits(const AnalysisId& id, const Limits& limits, const Caller& caller, const Now& now, Done done);
  void request_extend(const AnalysisId& id, Span by, const Caller& caller, const Now& now, Done done);
  Result<void> end(const AnalysisId& id, const Caller& caller, const Now& now);

  // What the adapters tell.
  void on_cgroup_changed(RunKey key, const Now& now);
  void on_timer(const Now& now);
  /// systemd has, or had, a job for one of our units that we did not ask for.
  void on_manager_job(const std::string& unit, ManagerJob job, const Now& now);
  /// systemd has unloaded a unit, and not to load it again: it has forgotten it, whatever is in its cgroup.
  void on_unit_removed(const std::string& unit, const Now& now);
  /// Somebody has written to a file that holds a limit of the run: systemd, ourselves, or anybody else.
  void on_limits_written(RunKey key, const Now& now);
  /// Events were lost: look at everything.
  void on_events_lost(const Now& now);

  /// systemd can be talked to again after a time in which it could not: what it was told meanwhile is told again.
  void on_manager_back(const Now& now);
  /// Calls back through the timer wheel at `due`: whoever hears it knows that the wheel turns. One at a time.
  void request_pulse(Instant due, std::function<void(const Now&)> beat);

  /// What the daemons before this one have left on record.
  struct Before {
    std::vector<RunRow> rows;  ///< the runs that were live
    /// Asked during adopt(), and for a slice that nobody accounts for later.
    std::function<bool(const std::string& event_id)> is_recorded = {};
    Limits defaults = {};  ///< for what nobody has registered
    /// Of a daemon that is gone again in a moment (--once) only strangers are put on record as adopted.
    bool in_passing = false;
  };
  /// To be called once, before any request: watches again what runs, finishes what was begun, and puts on record what
  /// ended meanwhile.
  void adopt(Before before, const Now& now);

  // Reading.
  const Run* find(const AnalysisId& id) const;
  const Run* find(RunKey key) const;
  const std::map<RunKey, std::unique_ptr<Run>>& runs() const { return runs_; }
  Usage read_usage(const Run& run) const;
  std::uint32_t monitored() const;
  std::uint32_t ending() const;
  /// Something is being ended, or taken away after its end; what is unkillable excepted.
  bool busy() const;

  Chronicle& chronicle() { return chronicle_; }

 private:
  struct Ended;

  // registration.cc
  Result<std::unique_ptr<Run>> admit(Registration& registration);
  void on_placed(RunKey key, Result<void> placed, const Now& now);

  /// A process that was moved, and the cgroup that it was in.
  struct Moved {
    ProcessKey process;
    std::string origin;
  };
  std::optional<Error> gather_tree(Run& run, pid_t root, const std::string& scope, std::vector<Moved>& moved);
  Result<void> take_over(Run& run, std::vector<Moved>& moved, const Now& now);
  void give_back(const std::string& cgroup, std::vector<Moved> moved, const std::string& shelter, const Now& now,
                 Done done);
  Result<void> finish_attach(Run& run, const ProcessHandle& process, const std::string& scope, Result<void> placed,
                             std::vector<Moved>& moved);
  std::optional<pid_t> put_back_all(const std::string& cgroup, const std::vector<Moved>& moved);
  void keep_backstop_behind(RunKey key, const Now& now);
  Bytes read_precharge(const Run& run) const;
  void request_place(const Run& run, const ScopeOrder& order);
  Result<void> refuse_registered(const ProcessHandle& process) const;
  void begin_watching(Run& run, const Now& now);
  void watch_owner(Run& run);
  const Run* find_home(const std::string& cgroup) const;
  bool is_in_a_run(const std::string& cgroup) const;

  // mistaken.cc
  std::optional<Moved> find_mistaken(const ProcessKey& asked, const std::string& cgroup) const;
  bool lives_outside(const ProcessKey& process, const std::string& cgroup) const;
  void forget_asked(Run& run, const ProcessKey& process);

  // adoption.cc
  /// What there was to know a slice by.
  enum class Known {
    kNoted,     ///< its note, or the ledger's row
    kAskedFor,  ///< that systemd was asked to place it
    kNothing
  };
  std::optional<RunNote> read_placement(const std::string& slice) const;
  bool awaits_placements(const Now& now);
  void close_row(const RunRow& row, const std::string& why, const Before& before, const Now& now);
  void arm_adoption(const Now& now);
  void settle_asked(Run& run, const ProcessKey& asked, const Now& now);
  void adopt_later(const std::string& slice, std::optional<RunRow> row, const Now& now);
  void adopt_again(const Now& now);
  void arm_sweep(const Now& now);
  void sweep(const Now& now);
  std::set<std::string> find_unaccounted() const;
  void adopt_slice(const std::string& slice, std::optional<RunRow> row, const Before& before, const Now& now);
  std::optional<RunNote> note_of_stranger(const std::string& slice, const std::vector<pid_t>& pids,
                                          const Limits& defaults, const Now& now);
  void restore(Run& run, const RunNote& note);
  void finish(Run& run, const RunNote& note, const Now& now);
  void close(Run& run, const RunNote& note, const Now& now);
  RunNote note_of(const Run& run) const;
  void remember(const Run& run);
  void remove_when_kept(const std::string& slice);
  void place_waiting(const std::string& slice);

  // changes.cc
  using Rehoused = std::function<void(Run*, Result<void>, const Now&)>;
  void rehouse(Run& run, std::string slice, std::string scope, Span runtime_max, const Now& now, Rehoused done);
  Result<void> move_all(Run& run, const std::string& slice, const std::string& scope);
  void bring_back(Run& run, const std::string& scope);
  bool is_lived_in(const std::string& scope) const;
  /// Of a release that a daemon before this one began: the rest follows whoever is out. False: nobody is.
  bool finish_release(Run& run, const Now& now);
  void take_back(Run& run, const Limits& before);
  void follow_policies(Run& run, const Limits& before, const Now& now);
  static Instant backstop_of(const Run& run);
  void apply_deadline(Run& run, bool fresh_scope, const Now& now, Done done);
  enum class Change { kAttach, kOther };  ///< processes may be attached side by side, anything else is done alone
  Run* find_changeable(const AnalysisId& id, Change change, Error& why);

  // supervisor.cc
  void happen(Run& run, Happening happening, const Now& now);
  void carry_out(Run& run, Action action, const Now& now);
  void cause(Run& run, Cause cause, const Now& now);
  void kill_whole(Run& run);
  void send_term(Run& run, const std::string& path);
  void record_end(Run& run, const Now& now);
  Reason reason_of_end(const Run& run) const;
  Cause kernel_kill(const MemoryEvents& events, const Now& now);
  void follow_ancestors(const Now& now);
  void forget(Run& run);
  void look(Run& run, const Now& now);
  void look_at_memory(Run& run, const Now& now);
  void weigh_memory(Run& run, const Now& now);
  bool is_empty(const Run& run) const;
  void on_emptied(Run& run, const Now& now);
  void confirm_empty(Run& run, const Now& now);
  bool may_have_been_stopped(const Run& run) const;
  void on_leader_ended(RunKey key, const Now& now);
  void on_owner_ended(RunKey key, const Now& now);
  void renew_names(Run& run);
  void on_due(Run& run, Purpose purpose, const Now& now);
  void read_leader_status(Run& run) const;
  void confirm_leader(Run& run, const Now& now);
  void confirm_owner(Run& run, const Now& now);
  void report_unreaped(RunKey key, const Now& now);

  // restoring.cc
  void tell_limits(Run& run, Done done = nullptr);
  void arm_drift_look(Run& run, Instant due);
  void begin_drift_rounds(Run& run, const Now& now);
  /// True if the tree has more than its restored limit would let it have: it is held to what it has, and must be ended.
  bool spare_what_it_has(Run& run, const LimitsFound& found);
  void look_for_drift(Run& run, const Now& now);
  bool is_inhabited(const Run& run, const std::string& unit) const;
  void restore_unit(Run& run, const Now& now);
  void restore_limits(Run& run, std::vector<Drift> drifts, const Now& now);

  // orphans.cc
  void look_for_orphans(Run& run, bool confirming, const Now& now);
  void deal_with_orphan(Run& run, const ProcessStat& orphan, const std::vector<ProcessStat>& members, const Now& now);
  std::optional<std::string> find_outside(const Run& run, const ProcessKey& process) const;
  void look_for_escapes(Run& run, const std::vector<ProcessStat>& members, const Now& now);
  void forget_member(const ProcessKey& process);
  void kill_orphans(Run& run, const Now& now);
  void arm_orphan_kill(Run& run);
  void report_leftovers(Run& run, const Now& now);
  std::vector<ProcessStat> read_members(const Run& run) const;
  static void note_largest(Run& run, const std::vector<ProcessStat>& members);

  void arm(Run& run, Purpose purpose, Instant due);
  void disarm(Run& run, Purpose purpose);
  void update_alarm();
  SliceLimits slice_limits(const Run& run) const;
  bool has_more_than_allowed(const Run& run) const;
  bool is_breach(const Run& run, Bytes unreclaimable) const;
  Bytes memory_elsewhere(const Run& run, const MemoryStat& stat) const;
  void follow_precharge(Run& run, Bytes elsewhere);

  Ports ports_;
  Policy policy_;
  Machine machine_;
  Chronicle chronicle_;
  TimerWheel wheel_;
  std::optional<Instant> alarm_;
  std::vector<TimerTag> due_;
  RunKey last_key_ = 0;
  std::map<RunKey, std::unique_ptr<Run>> runs_;
  std::unordered_map<AnalysisId, RunKey> by_id_;
  std::unordered_map<RunKey, RegisterDone> waiting_;
  std::map<RunKey, std::unique_ptr<Ended>> ended_;
  /// Slices of runs whose end is not on the disk yet, or that are taken down again; and what waits for their names.
  std::map<std::string, std::vector<std::function<void()>>> leaving_;
  /// How often the limits of the cgroups above the runs had been reached when that was last looked at, by path; none
  /// before it was.
  std::optional<std::map<std::string, std::uint64_t>> ancestor_ooms_;
  struct Overrun {
    std::string cgroup;
    Instant seen;
  };
  std::optional<Overrun> overrun_;  ///< the last time that one of them was
  /// Slices that could not be watched at the start, for want of descriptors, and what is needed to try again.
  std::vector<std::pair<std::string, std::optional<RunRow>>> unadopted_;
  std::optional<Before> unread_;  ///< of a start at which the slices could not be listed
  Before before_;
  bool sweep_armed_ = false;
  std::set<std::string> unaccounted_;  ///< slices of no run of ours, at the last sweep
  std::function<void(const Now&)> beat_;
  std::vector<std::unique_ptr<Run>>
      finished_;  ///< freed at the next call from outside, when no function of theirs is on the stack
};

}  // namespace aw::supervise
