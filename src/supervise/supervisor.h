// SPDX-License-Identifier: Apache-2.0
//
// The heart: every run, and what is done about it. It knows no file, no clock and no bus; the ports do (ports.h), and
// time enters with each call. lifecycle.h says what an event means; this class carries it out.
#pragma once

#include <deque>
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
#include "supervise/departures.h"
#include "supervise/policy.h"
#include "supervise/ports.h"
#include "supervise/rounds.h"
#include "supervise/run.h"
#include "supervise/sampler.h"
#include "supervise/tally.h"
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
  std::vector<std::string> not_in_force;  ///< options that it has been given, and the host does not let us enforce
};

/// What the machine is like.
struct Machine {
  Bytes memory;
  unsigned cpus = 1;
  Bytes page_size{4096};
  /// Controllers ("pids", "cpu") that a user's manager was not given: what they limit, nobody enforces.
  std::vector<std::string> undelegated{};
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
    /// The same for the next samples, which everything else goes before.
    std::function<void(std::optional<Instant>)> set_sampling_alarm;
    /// Asks for on_rounds_due() once there is nothing else to do.
    std::function<void()> request_rounds;
    /// CLOCK_MONOTONIC as it is, not as it was at the loop's wake-up: to measure with, never to decide an end.
    std::function<Instant()> read_clock;
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

  void set_policy(const Policy& policy, const Now& now);

  /// The limits of a run for which none were asked.
  Limits allowed_defaults(const Limits& defaults, const Caller& caller) const {
    return supervise::allowed_defaults(defaults, policy_.caps, caller, machine_.memory);
  }

  // Requests. Refusals carry a code of refusal.h. `done` of a refused request comes at once, of another through the
  // loop.
  void request_register(Registration registration, const Now& now, RegisterDone done);
  void request_attach(const AnalysisId& id, std::unique_ptr<ProcessHandle> process, const Caller& caller,
                      const Now& now, Done done);
  void request_unregister(const AnalysisId& id, const Caller& caller, const Now& now, Done done);
  void request_set_limits(const AnalysisId& id, const Limits& limits, const Caller& caller, const Now& now, Done done);
  void request_extend(const AnalysisId& id, Span by, const Caller& caller, const Now& now, Done done);
  Result<void> end(const AnalysisId& id, const Caller& caller, const Now& now);

  // What the adapters tell.
  void on_cgroup_changed(RunKey key, const Now& now);
  void on_timer(const Now& now);
  void on_sampling_due(const Now& now);
  void on_rounds_due(const Now& now);
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
  /// What was on record at the start, for who could not read it then and gave adopt() no rows. Rows of runs that have
  /// ended since are not to be among them.
  void on_record_read(Before before, const Now& now);

  // Reading.
  const Run* find(const AnalysisId& id) const;
  const Run* find(RunKey key) const;
  const std::map<RunKey, std::unique_ptr<Run>>& runs() const { return runs_; }
  const Run* find_by_run_id(const std::string& run_id) const;
  Usage read_usage(const Run& run) const;
  std::uint32_t monitored() const;
  std::uint32_t ending() const;
  /// Something is being ended, or taken away after its end, what is unkillable excepted; or is to be looked at.
  bool busy() const;

  /// Processes of runs that survive SIGKILL.
  std::uint64_t unkillable_processes() const;
  const Tally& tally() const { return tally_; }

  Chronicle& chronicle() { return chronicle_; }
  Sampler& sampler() { return sampler_; }
  const Sampler& sampler() const { return sampler_; }

 private:
  /// What is kept of a run after its end, until it is known whether zombies are left.
  struct Ended {
    Instant look;  ///< for zombies, not before
    EventRecord record;
    std::string cgroup_path;
  };

  // registration.cc
  Result<std::unique_ptr<Run>> admit(Registration& registration);
  /// Of all live runs of `uid` but `without`.
  Sums sums_of(uid_t uid, const Run* without) const;
  void on_placed(RunKey key, Result<void> placed, const Now& now);

  /// A process that was moved, and the cgroup that it was in.
  struct Moved {
    ProcessKey process;
    std::string origin;
  };
  /// `owner`: whose `root` was when it was admitted.
  std::optional<Error> gather_tree(Run& run, const ProcessKey& root, uid_t owner, const std::string& scope,
                                   std::vector<Moved>& moved);
  Result<void> take_over(Run& run, std::vector<Moved>& moved, const Now& now);
  void give_back(const std::string& cgroup, std::vector<Moved> moved, const std::string& shelter, const Now& now,
                 Done done);
  Result<void> finish_attach(Run& run, const ProcessHandle& process, uid_t uid, const std::string& scope,
                             Result<void> placed, std::vector<Moved>& moved);
  /// Has everybody moved who is in a cgroup, those too who are forked meanwhile. Whoever is left, if anybody.
  std::optional<pid_t> clear_out(const std::string& cgroup, const std::function<bool(const ProcessStat&)>& move);
  std::optional<pid_t> put_back_all(const std::string& cgroup, const std::vector<Moved>& moved);
  void keep_backstop_behind(RunKey key, const Now& now);
  /// A process, and those of its tree that would come with it: the first few thousand.
  std::vector<pid_t> find_movable(const ProcessKey& root) const;
  /// The same, where so many may come along, and at this caller's wish now.
  Result<std::vector<pid_t>> admit_tree(const ProcessKey& root, uid_t uid, const Caller& caller, const Now& now);
  void ask_precharge(Run& run, std::vector<pid_t> members) const;
  /// Whether there is more than was known at the registration. `charged`: what the run's own cgroup has by now.
  bool take_late_precharge(Run& run, Bytes charged) const;
  void request_place(const Run& run, const ScopeOrder& order);
  Result<void> refuse_registered(const ProcessHandle& process) const;
  void begin_watching(Run& run, const Now& now);
  void watch_owner(Run& run);
  const Run* find_home(const std::string& cgroup) const;
  bool is_in_a_run(const std::string& cgroup) const;

  // mistaken.cc
  std::optional<Moved> find_mistaken(const ProcessKey& asked, const std::string& cgroup) const;
  /// It, and what it has forked in there since; empty: there is none.
  std::vector<Moved> find_mistaken_tree(const ProcessKey& asked, const std::string& cgroup) const;
  void add_mistaken(const ProcessKey& asked, const std::string& cgroup, std::vector<Moved>& moved) const;
  /// Has `write` move `process` to the cgroup `to`. That takes its number, and whoever else has that by then goes back,
  /// unless its parent is in `to`, or in `kin`. An error that says_gone(): `process` was not moved, it has ended.
  Result<void> move_only(const ProcessKey& process, const std::string& to, const std::string& kin,
                         const std::function<Result<void>()>& write);
  /// False: there is nobody who was mistaken for `meant`.
  bool return_mistaken(const ProcessKey& meant, const std::string& to, const std::string& kin);
  void shelter_mistaken(std::vector<ProcessKey> processes);
  bool lives_outside(const ProcessKey& process, const std::string& cgroup) const;
  void forget_asked(Run& run, const ProcessKey& process);

  // adoption.cc
  /// What there was to know a slice by.
  enum class Known {
    kNoted,     ///< its note
    kOnRecord,  ///< the ledger's row alone
    kAskedFor,  ///< that systemd was asked to place it
    kNothing
  };
  struct Recognised;
  std::optional<RunNote> read_placement(const std::string& run_id) const;
  std::optional<RunNote> find_placement(const std::string& slice, const std::string& cgroup) const;
  bool awaits_placements(const Now& now);
  void close_rows(const std::vector<RunRow>& rows, const Now& now);
  void close_row(const RunRow& row, const std::string& why, const Before& before, const Now& now);
  void arm_adoption(const Now& now);
  void settle_asked(Run& run, const ProcessKey& asked);
  void adopt_later(const std::string& slice, std::optional<RunRow> row, const Now& now);
  void adopt_again(const Now& now);
  void arm_sweep(const Now& now);
  void sweep(const Now& now);
  std::set<std::string> find_unaccounted() const;
  void adopt_slice(const std::string& slice, std::optional<RunRow> row, const Before& before, const Now& now);
  std::optional<Recognised> recall(const RunCgroup& cgroup, const std::optional<RunRow>& row, const Before& before,
                                   const Now& now);
  bool give_mistaken_back(const std::string& slice, const std::string& cgroup, const RunNote& asked, const Now& now);
  void watch_again(Run& run, const Recognised& found, const Before& before, const Now& now);
  std::optional<RunNote> note_of_stranger(const std::string& slice, const std::vector<pid_t>& pids,
                                          const Limits& defaults, const Now& now);
  void restore(Run& run, const RunNote& note);
  void finish(Run& run, const RunNote& note, const Now& now);
  void close(Run& run, const RunNote& note, const Now& now);
  RunNote note_of(const Run& run) const;
  void remember(const Run& run);
  /// `uid`: whose run it was.
  void remove_when_kept(const std::string& slice, uid_t uid);
  void remove(const Departures::Departure& departure);
  void remove_next();
  /// Has systemd stop it; what stays is found by a sweep.
  void remove_slice(const std::string& slice, std::function<void(const Now&)> done = nullptr);
  void place_waiting(const std::string& slice);

  // changes.cc
  using Rehoused = std::function<void(Run*, Result<void>, const Now&)>;
  void rehouse(Run& run, std::string slice, std::string scope, Span runtime_max, const Now& now, Rehoused done);
  Result<void> move_all(Run& run, const std::string& slice, const std::string& scope, const Now& now);
  void charge_moves(uid_t uid, std::size_t processes, const Now& now);
  /// Why a run, or processes of this uid, can't be moved at this caller's wish yet.
  std::optional<Error> refuse_move(const Run& run, const Caller& caller, const Now& now) const;
  std::optional<Error> refuse_moves(uid_t uid, const Caller& caller, const Now& now) const;
  void bring_back(Run& run, const std::string& scope);
  bool is_lived_in(const std::string& scope) const;
  /// Of a release that a daemon before this one began: the rest follows whoever is out. False: nobody is.
  bool finish_release(Run& run, const Now& now);
  void take_back(Run& run, const Limits& before);
  void follow_policies(Run& run, const Limits& before, const Now& now);
  static Instant backstop_of(const Run& run);
  /// Whether it needs a fresh scope to live as long as `limits` would let it.
  static bool outlasts_backstop(const Run& run, const Limits& limits);
  void apply_deadline(Run& run, bool fresh_scope, const Now& now, Done done);
  enum class Change { kAttach, kOther };  ///< processes may be attached side by side, anything else is done alone
  Run* find_changeable(const AnalysisId& id, Change change, Error& why);

  // supervisor.cc
  void happen(Run& run, Happening happening, const Now& now);
  void carry_out(Run& run, Action action, const Now& now);
  void cause(Run& run, Cause cause, const Now& now);
  void kill_whole(Run& run);
  void send_term(Run& run, const std::string& path);
  void measure_signal(const Run& run);
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
  Rounds::Ports rounds();
  void make_round(RunKey key, Purpose purpose, const Now& now);
  void read_leader_status(Run& run) const;
  void confirm_leader(Run& run, const Now& now);
  void confirm_owner(Run& run, const Now& now);
  void arm_unreaped(const Now& now);
  void report_unreaped(const Now& now);

  // sampling.cc
  Sampler::Ports sampling();
  std::optional<Sample> read_sample(Run& run, const Now& now) const;
  void sample_decision(const Run& run);
  void keep_series(const Run& run);
  /// The last sample of a run that is over, and all of them to the disk.
  void close_series(Run& run, const Now& now);

  // restoring.cc
  void tell_limits(Run& run, Done done = nullptr);
  void arm_drift_look(Run& run, Instant due);
  void begin_drift_rounds(Run& run, const Now& now);
  /// True if the tree has more than its restored limit would let it have: it is held to what it has, and must be ended.
  bool spare_what_it_has(Run& run, const LimitsFound& found);
  void look_for_drift(Run& run, const Now& now);
  bool is_inhabited(const Run& run, const std::string& unit) const;
  /// Units that systemd has lost while nobody listened to it.
  void look_for_lost_units();
  void restore_unit(Run& run, const Now& now);
  void restore_limits(Run& run, std::vector<Drift> drifts, const Now& now);

  // orphans.cc
  void look_for_orphans(Run& run, bool confirming, const Now& now);
  void deal_with_orphan(Run& run, const ProcessStat& orphan, const std::vector<ProcessStat>& members, const Now& now);
  /// Where it lives, if that is not in the run. An error: it can't be known at present.
  Result<std::optional<std::string>> find_outside(const Run& run, const ProcessKey& process) const;
  void look_for_escapes(Run& run, const std::vector<ProcessStat>& members, const Now& now);
  void forget_member(const ProcessKey& process);
  void kill_orphans(Run& run, const Now& now);
  void arm_orphan_kill(Run& run);
  void report_leftovers(Run& run, const Now& now);
  /// All of them, or an error: of a part nobody can say whose child is an orphan.
  Result<std::vector<ProcessStat>> read_members(const Run& run) const;
  static void note_largest(Run& run, const std::vector<ProcessStat>& members);

  void arm(Run& run, Purpose purpose, Instant due);
  void disarm(Run& run, Purpose purpose);
  void update_alarm();
  SliceLimits slice_limits(const Run& run) const;
  bool has_more_than_allowed(const Run& run) const;
  bool is_breach(const Run& run, Bytes unreclaimable) const;
  /// Reads a file of each process; `looked_at`, if not null, is set to how many.
  Bytes memory_elsewhere(const Run& run, const MemoryStat& stat, std::size_t* looked_at = nullptr) const;
  void follow_precharge(Run& run, Bytes elsewhere);
  void hold_to_precharge(Run& run);

  Ports ports_;
  Policy policy_;
  Machine machine_;
  Tally tally_;
  Chronicle chronicle_;
  TimerWheel wheel_;
  Sampler sampler_;
  Rounds rounds_;
  std::optional<Instant> alarm_;
  std::vector<TimerTag> due_;
  RunKey last_key_ = 0;
  std::map<RunKey, std::unique_ptr<Run>> runs_;
  std::unordered_map<AnalysisId, RunKey> by_id_;
  std::unordered_map<RunKey, RegisterDone> waiting_;
  std::deque<Ended> ended_;  ///< while something was left in their cgroups, by when that is looked at
  /// Slices of runs whose end is not on the disk yet, or that are taken down again; and what waits for their names.
  std::map<std::string, std::vector<std::function<void()>>> leaving_;
  Departures departures_;  ///< those of them that are on the disk
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
  /// Slices of registrations that came to nothing for want of an answer. systemd may have made them: who asks for the
  /// same id again, and again, would keep what is in them from being adopted.
  std::set<std::string> unanswered_;
  std::function<void(const Now&)> beat_;
  std::map<uid_t, Instant> moves_paid_at_;  ///< when what was moved of each is paid for
  std::vector<std::unique_ptr<Run>>
      finished_;  ///< freed at the next call from outside, when no function of theirs is on the stack
};

}  // namespace aw::supervise
