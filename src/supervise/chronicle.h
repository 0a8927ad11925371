// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "supervise/event_record.h"
#include "supervise/ports.h"
#include "supervise/run.h"
#include "supervise/tally.h"

namespace aw::supervise {

/// Writes what happens to runs as records: the one place where an EventRecord is filled.
class Chronicle {
 public:
  /// `tally` counts what is put on record. `undelegated`: controllers that are not there (Machine). Both outlive us.
  Chronicle(Identity& identity, const Processes& processes, Recorder& recorder, Tally& tally,
            const std::vector<std::string>& undelegated)
      : identity_(identity), processes_(processes), recorder_(recorder), tally_(tally), undelegated_(undelegated) {}

  void registered(const Run& run, const Now& now);
  /// Watched again by a daemon that has just started; a stranger is one of which nothing was on record.
  void adopted(const Run& run, bool stranger, const Now& now);
  /// The end of a run of which nobody can know how it ended.
  void lost(const RunRow& row, const std::string& why, const Now& now);
  /// A run that was unregistered by a daemon that could not say so any more.
  void released(const RunRow& row, const Now& now);
  void unregistered(const Run& run, const Now& now);
  void limits_changed(const Run& run, Details what, const Now& now);
  /// Limits that somebody else had changed. `times`: so often since the last record of it.
  void limits_restored(const Run& run, std::span<const Drift> drifts, std::uint64_t times, const Now& now);
  /// A unit that systemd had lost, with processes in it: they are in another now.
  void unit_restored(const Run& run, const std::string& lost, const Now& now);
  void extended(const Run& run, Span by, const Now& now);
  void orphan_found(const Run& run, const ProcessStat& orphan, const Now& now);
  void escaped(const Run& run, const ProcessStat& process, const std::string& cgroup, const Now& now);
  /// The intent, with what is known at this moment, which the run keeps. Bounded work: it precedes a signal, and takes
  /// less than 5 ms however large the tree is and whatever it does.
  void ending(Run& run, const Now& now);
  void escalated(Run& run, const Now& now);
  void unkillable(const Run& run, const Now& now);
  void ended(const Run& run, Reason reason, const Now& now);
  void unreaped(const EventRecord& end, std::span<const ProcessStat> zombies, const Now& now);
  /// The row of a run, as it is now.
  RunRow row_of(const Run& run) const;
  void daemon(EventKind kind, const std::string& version, const Now& now);

  /// Of this run, what `is_recorded` already is not recorded again. For what happens to a run once at most.
  void pass_over(const std::string& run_id, const std::function<bool(const std::string& event_id)>& is_recorded);
  /// Or was unregistered: as pass_over() was told of it.
  bool has_ended(const std::string& run_id) const;
  /// … while this daemon watched it, which its row need not be told again.
  bool has_ended_here(const std::string& run_id);

  /// The record of the end that ended() wrote last, for what is found out after it.
  const EventRecord& last_end() const { return last_end_; }

 private:
  EventRecord begin(EventKind kind, const Now& now);
  EventRecord begin(const RunRow& row, EventKind kind, const Now& now);
  EventRecord begin(const Run& run, EventKind kind, const Now& now);
  void add_terms(EventRecord& event, const Run& run);
  void add_not_in_force(EventRecord& event, const Run& run) const;
  bool is_ours(const std::string& event_id);
  void keep(const std::string& event_id);
  void put(const EventRecord& event);
  Evidence gather(const Run& run, const Now& now);

  Identity& identity_;
  const Processes& processes_;
  Recorder& recorder_;
  Tally& tally_;
  const std::vector<std::string>& undelegated_;
  EventRecord last_end_;
  std::set<std::string> recorded_;  ///< ids of events that daemons before this one have put on record
  /// Ids of ends that this one has: a slice that can't be removed, or a row that is read late, brings a run back that
  /// is over. The last ones, and of those before them what is still asked for, as each sweep does for a slice that
  /// stays.
  std::set<std::string> ours_;
  std::set<std::string> ours_before_;
};

}  // namespace aw::supervise
