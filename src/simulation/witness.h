// SPDX-License-Identifier: Apache-2.0
//
// Sees what is done in a simulated world, and says when something happens that must not. It goes by the processes and
// cgroups of the world, by the records and by the notes on the cgroups; it never asks the supervisor what that
// believes.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervise/run_note.h"
#include "testing/world.h"

namespace aw::simulation {

/// What is known from outside of one run: what was agreed, and what has happened to it.
struct Known {
  std::string id;
  std::string run_id;
  Instant registered{};
  Instant earliest = kNever;  ///< deadline of all that were ever asked for
  Instant latest{};           ///< … of those that may be in force
  Instant longest{};          ///< … of all
  Span grace{0};              ///< the longest of all
  supervise::Limits limits;
  std::optional<supervise::Limits> wanted;  ///< by the last who asked for a change
  /// By all who have asked the daemon that is there, and have no answer: it goes by what they want meanwhile.
  std::vector<supervise::Limits> unanswered;
  bool owned = false;  ///< it has, or has had, an owner whose death counts

  bool asked = false;        ///< somebody wanted it ended
  bool lost_leader = false;  ///< or an attached process
  bool lost_owner = false;
  bool decided = false;  ///< that it is to be ended
  bool over = false;     ///< when that was decided it had more than its limit
  bool stalled = false;
  bool killed = false;                               ///< by somebody's SIGKILL, or for a limit that is not its own
  bool unguarded = false;                            ///< systemd has lost a unit of it, and with that its backstop
  bool taken = false;                                ///< its slice was taken away by somebody
  bool told = false;                                 ///< the watchdog has sent SIGTERM to all of it
  unsigned releases = 0;                             ///< asked of the daemon that is there, and not answered yet
  Instant found{};                                   ///< when it was adopted by a daemon that had no answer for it
  Instant joined{};                                  ///< when a process was moved into it last
  std::optional<Instant> over_limit;                 ///< since when it has had more memory than allowed, unreclaimable
  std::map<supervise::ProcessKey, Instant> orphans;  ///< beside a living leader, and since when
};

class Witness {
 public:
  Witness(testing::World& world, const supervise::Policy& policy);

  // What the history does.
  void shield(pid_t pid) { outsiders_.insert(key_of(world_.process(pid).stat)); }  ///< never to be touched
  void on_request(const std::string& id, const supervise::ProcessKey& leader, const supervise::Limits& limits);
  void on_answer(const std::string& id, const supervise::ProcessKey& leader, bool registered);
  void on_change_asked(const std::string& id, const supervise::Limits& wanted);
  void on_change_answered(const std::string& id, const supervise::Limits& wanted, bool done);
  /// What is known of the run that has this id now, or is being placed; nothing if there is none.
  Known* find(const std::string& id);
  /// The ids of all that has a cgroup now.
  std::vector<std::string> ids() const;
  Known* find_by_cgroup(const std::string& cgroup);
  /// What is answered, with the run that it is of.
  std::string on_release_asked(const std::string& id);
  void on_release_answered(const std::string& run_id);
  void on_daemon_gone(bool by_reboot);
  void on_daemon_up();
  void allow_delay(Span span) { delayed_ = delayed_ + span; }  ///< systemd could not do what it was asked

  // Seen in the world at the moment.
  void on_signal(const testing::Sent& sent);
  void on_death(pid_t pid);  ///< before it is dead
  void on_move(pid_t pid, const std::string& to);
  void on_stop(const std::string& unit);
  void on_record(const supervise::EventRecord& record);

  /// After each step.
  void check();
  /// When all is healthy and over.
  void check_quiet();

  /// The first thing that must not have been.
  const std::optional<std::string>& complaint() const { return complaint_; }

 private:
  /// Somebody wants to register a process under an id. Of several who want the same id only the last can be live: the
  /// others are refused, and wait to be told so.
  struct Wanted {
    supervise::ProcessKey leader;
    Known known;
  };

  void complain(const std::string& what);
  std::optional<supervise::RunNote> read_note(const testing::Slice& slice) const;
  void discover();
  std::multimap<std::string, Wanted>::iterator find_pending(const std::string& id, const supervise::ProcessKey& leader);
  bool is_noted_ahead(const Wanted& wanted) const;
  void see_decision(const testing::Slice& slice, const supervise::RunNote& note);
  void check_ends();
  void check_time(const testing::Slice& slice, const supervise::RunNote& note, const Known& run);
  void check_memory(const testing::Slice& slice, const supervise::RunNote& note, Known& run);
  void check_orphans(const testing::Slice& slice, const supervise::RunNote& note, Known& run);
  void check_kept_deadline(const supervise::RunNote& note);
  bool is_orphaned(const supervise::RunNote& note, const Known& run) const;
  bool is_blind() const;
  void check_end(const supervise::EventRecord& end, const Known& run);
  std::optional<std::string> why_implausible(const supervise::EventRecord& end, const Known& run) const;
  Known take_unnoted(const std::shared_ptr<testing::Slice>& slice);
  const testing::Slice* find_slice(const std::string& run_id) const;
  const testing::Slice* find_slice_of(const std::string& cgroup) const;
  bool is_rooted(pid_t pid, const supervise::RunNote& note, const std::string& path) const;
  bool has_record(const std::string& run_id, EventKind kind) const;
  bool lives(const supervise::ProcessKey& key) const;
  bool has_too_much(const testing::Slice& slice, const supervise::Limits& limits) const;
  static Bytes allowed_memory(const Known& run);
  bool is_slow_to_die(const std::string& path) const;
  Span patience() const;
  /// What a round may take longer where the loop has had no rest.
  Span lateness() const;

  testing::World& world_;
  const supervise::Policy policy_;
  std::set<supervise::ProcessKey> outsiders_;
  std::multimap<std::string, Wanted> pending_;  ///< by id, the oldest first
  std::map<std::string, Known> runs_;           ///< by run id
  /// Of slices that have no note: the daemon that was about to write it is dead.
  std::map<std::shared_ptr<testing::Slice>, Known> unnoted_;
  std::map<std::string, supervise::RunNote> left_;  ///< by the daemon before this one, by run id
  bool up_ = true;
  bool just_up_ = false;
  bool crashed_ = false;
  Instant up_since_{};
  Instant blind_until_{};              ///< no descriptor was left
  std::optional<Instant> busy_until_;  ///< the loop had no rest
  Span delayed_{0};
  std::optional<std::string> complaint_;
};

}  // namespace aw::simulation
