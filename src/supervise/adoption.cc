// SPDX-License-Identifier: Apache-2.0
//
// What a daemon that starts finds of those before it. The cgroups say what is there, their notes what was being done,
// the ledger what is on record.
#include <algorithm>
#include <csignal>

#include "base/assert.h"
#include "base/failpoint.h"
#include "supervise/refusal.h"
#include "supervise/run_note.h"
#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

/// systemd acts a little after the time it was given; what ends from here on was ended by it.
constexpr Span kBackstopEarliness = std::chrono::seconds{1};

/// What is unaccounted for is left alone until the second sweep: it may be just coming or just going.
constexpr Span kSweepInterval = std::chrono::seconds{15};

/// Nothing: it is gone, or another has its pid. An error: it can't be known at present.
Result<std::unique_ptr<ProcessHandle>> open_same(Processes& processes, const ProcessKey& key) {
  auto opened = processes.open(key.pid);
  // What has no process is refused; what else goes wrong (no descriptor is left) says nothing about the process.
  const bool other = opened ? (*opened)->key() != key : opened.error().code.category() == refusal_category();
  return other ? std::unique_ptr<ProcessHandle>() : std::move(opened);
}

/// The process that everything else in the cgroup comes from, as far as that can be seen.
std::optional<ProcessStat> find_eldest(const Processes& processes, const std::vector<pid_t>& pids) {
  std::optional<ProcessStat> eldest;
  for (const pid_t pid : pids) {
    const auto stat = processes.find_stat(pid);
    const bool comes_from_inside = stat && std::binary_search(pids.begin(), pids.end(), stat->parent);
    if (stat && !comes_from_inside && (!eldest || stat->start_time < eldest->start_time)) eldest = stat;
  }
  return eldest;
}

/// When the last scope of an empty slice went. Its directory tells by the wall clock, which may have been set since the
/// run was registered, before that moment or after it: read by today's clock and by the one of the registration, it is
/// the reading that lies within the time of the run. Neither: now, which is the latest that it can be.
Now when_emptied(const Run& run, const Now& now) {
  const auto removed = run.cgroup->find_last_removal();
  if (!removed) return now;
  for (const Now& clock : {now, Now{run.registered_at, run.registered_real}}) {
    const Instant at = clock.monotonic + (*removed - clock.real);
    if (at >= run.registered_at && at <= now.monotonic) return {at, now.real - (now.monotonic - at)};
  }
  return now;
}

/// A slice whose name does not tell the id (a long one, or none of ours) keeps what can be read of it.
AnalysisId id_of(const std::string& slice) {
  if (const auto id = find_id(slice)) return *id;
  std::string text = slice.substr(0, slice.rfind(".slice"));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return AnalysisId::parse(text.substr(0, 255)).value();
}

unsigned generation_of(const AnalysisId& id, const std::string& scope) {
  constexpr unsigned kMost = 10'000;
  for (unsigned n = 1; n < kMost; ++n) {
    if (scope_unit(id, n) == scope) return n;
  }
  return kMost;
}

/// Whether a row is of the run that has this slice: "analysis-ESC.scope" and "analysis-ESC-2.scope" are in
/// "analysis-ESC.slice". Not by its id: that of a run that nobody registered was made from the name of the slice.
bool is_of(const RunRow& row, const std::string& slice) {
  const std::string stem = slice.substr(0, slice.rfind(".slice"));
  return row.unit.starts_with(stem + ".") || row.unit.starts_with(stem + "-");
}

/// What the ledger alone tells.
RunNote note_of_row(const RunRow& row, Span backstop_margin) {
  RunNote note;
  note.row = row;
  const auto id = AnalysisId::parse(row.registered_as);
  if (id) note.generation = generation_of(*id, row.unit);
  note.backstop = add_span(add_span(row.deadline, row.limits.grace), backstop_margin);
  return note;
}

}  // namespace

void Supervisor::adopt(Before before, const Now& now) {
  finished_.clear();
  const auto slices = ports_.cgroups.list_slices();
  if (!slices && !says_gone(slices.error())) {
    // Nobody knows what is there: no run is lost for that.
    unread_ = std::move(before);
    return arm_adoption(now);
  }
  for (const std::string& slice : slices ? *slices : std::vector<std::string>()) {
    const auto row = std::find_if(before.rows.begin(), before.rows.end(), [&](const RunRow& candidate) {
      return candidate.boot_id == ports_.identity.boot_id() && is_of(candidate, slice);
    });
    std::optional<RunRow> known;
    if (row != before.rows.end()) {
      known = std::move(*row);
      before.rows.erase(row);
    }
    adopt_slice(slice, std::move(known), before, now);
  }
  if (awaits_placements(now)) arm_sweep(now);
  const std::vector<RunRow> left = std::move(before.rows);
  before_ = std::move(before);
  close_rows(left, now);
  if (!before_.in_passing) look_for_lost_units();
}

void Supervisor::on_record_read(Before before, const Now& now) {
  finished_.clear();
  before_.is_recorded = before.is_recorded;
  if (unread_) {
    unread_->rows = std::move(before.rows);
    unread_->is_recorded = std::move(before.is_recorded);
    return;
  }
  for (auto& waiting : unadopted_) {
    const auto row = std::find_if(before.rows.begin(), before.rows.end(), [&](const RunRow& candidate) {
      return candidate.boot_id == ports_.identity.boot_id() && is_of(candidate, waiting.first);
    });
    if (row == before.rows.end()) continue;
    waiting.second = std::move(*row);
    before.rows.erase(row);
  }
  close_rows(before.rows, now);
}

/// Of runs that have no cgroup, other than those that are watched.
void Supervisor::close_rows(const std::vector<RunRow>& rows, const Now& now) {
  for (const RunRow& row : rows) {
    const auto has = [&](const auto& what) {
      return std::any_of(runs_.begin(), runs_.end(), [&](const auto& entry) { return what(*entry.second); });
    };
    if (has([&](const Run& run) { return run.run_id == row.run_id; })) continue;
    const bool rebooted = row.boot_id != ports_.identity.boot_id();
    const bool replaced = has([&](const Run& run) { return is_of(row, run.slice); });
    close_row(row,
              rebooted   ? "the host was booted anew"
              : replaced ? "another run has its cgroup"
                         : "its cgroup was gone when the watchdog came back",
              before_, now);
  }
}

/// Of a run that has no cgroup any more.
void Supervisor::close_row(const RunRow& row, const std::string& why, const Before& before, const Now& now) {
  if (chronicle_.has_ended_here(row.run_id)) return;
  chronicle_.pass_over(row.run_id, before.is_recorded);
  // Or was let go. Only the row was left.
  if (chronicle_.has_ended(row.run_id)) return ports_.recorder.end_run(row.run_id);
  AW_FAILPOINT("adoption.lost");
  chronicle_.lost(row, why, now);
}

std::set<std::string> Supervisor::find_unaccounted() const {
  const auto slices = ports_.cgroups.list_slices();
  if (!slices) return {};
  std::set<std::string> unaccounted(slices->begin(), slices->end());
  for (const auto& [key, run] : runs_) unaccounted.erase(run->slice);
  for (const auto& [slice, waiting] : leaving_) unaccounted.erase(slice);
  for (const auto& [slice, row] : unadopted_) unaccounted.erase(slice);
  return unaccounted;
}

/// systemd did not answer: it may have done what it was asked for, or not.
void Supervisor::arm_sweep(const Now& now) {
  if (std::exchange(sweep_armed_, true)) return;
  (void)wheel_.arm(now.monotonic + kSweepInterval, {0, static_cast<std::uint32_t>(Purpose::kSweep), 0});
  update_alarm();
}

void Supervisor::sweep(const Now& now) {
  sweep_armed_ = false;
  const auto unaccounted = find_unaccounted();
  if (awaits_placements(now) || !unaccounted.empty()) arm_sweep(now);
  for (const std::string& slice : std::exchange(unaccounted_, unaccounted)) {
    if (unaccounted.contains(slice)) adopt_slice(slice, std::nullopt, before_, now);
  }
  const auto left = find_unaccounted();  // Not there, or adopted: by then there is more to say of it.
  std::erase_if(unanswered_, [&](const std::string& slice) { return !left.contains(slice); });
}

void Supervisor::on_manager_back(const Now& now) {
  finished_.clear();
  // Nothing can be on its way: with the bus all that was asked has failed.
  for (const std::string& slice : find_unaccounted()) adopt_slice(slice, std::nullopt, before_, now);
  for (const auto& [key, run] : runs_) {
    if (!run->cgroup || run->over() || run->releasing) continue;
    tell_limits(*run);
  }
  look_for_lost_units();
}

/// What a slice is known by, and how.
struct Supervisor::Recognised {
  RunNote note;
  Known known;
};

/// By its note, or by the ledger's row. Nothing, too, if its run is over: only the unit was left to be removed, and
/// what has come into it since, nobody registered.
std::optional<Supervisor::Recognised> Supervisor::recall(const RunCgroup& cgroup, const std::optional<RunRow>& row,
                                                         const Before& before, const Now& now) {
  std::optional<Recognised> recalled;
  if (const auto text = cgroup.read_note()) {
    if (auto parsed = parse_note(*text)) recalled = Recognised{std::move(*parsed), Known::kNoted};
  }
  if (recalled && row && row->run_id != recalled->note.row.run_id) {
    close_row(*row, "another run has its cgroup", before, now);
  }
  if (!recalled && row) recalled = Recognised{note_of_row(*row, kBackstopMargin), Known::kOnRecord};
  if (!recalled) return std::nullopt;

  const RunNote& note = recalled->note;
  if (chronicle_.has_ended_here(note.row.run_id)) return std::nullopt;
  chronicle_.pass_over(note.row.run_id, before.is_recorded);
  if (note.released) {
    chronicle_.released(note.row, now);
  } else if (chronicle_.has_ended(note.row.run_id)) {
    ports_.recorder.end_run(note.row.run_id);
  } else {
    return recalled;
  }
  return std::nullopt;
}

/// systemd has taken another for the leader of the run that it was asked to place. False: it has not.
bool Supervisor::give_mistaken_back(const std::string& slice, const std::string& cgroup, const RunNote& asked,
                                    const Now& now) {
  const auto mistaken = find_mistaken(asked.row.leader, cgroup);
  if (!mistaken) return false;
  const AnalysisId id = AnalysisId::parse(asked.row.registered_as).value();
  leaving_.emplace(slice, std::vector<std::function<void()>>());
  give_back(cgroup, {*mistaken}, shelter_unit(id, asked.row.run_id), now,
            [this, slice, run_id = asked.row.run_id](const Result<void>& empty, const Now& when) {
              if (empty) {
                ports_.placements.remove(run_id);
                remove_slice(slice);
              } else {
                arm_sweep(when);
              }
              place_waiting(slice);
            });
  return true;
}

void Supervisor::adopt_slice(const std::string& slice, std::optional<RunRow> row, const Before& before,
                             const Now& now) {
  const RunKey key = ++last_key_;
  auto cgroup = ports_.cgroups.open(key, slice);
  if (!cgroup && says_gone(cgroup.error())) {
    if (row) close_row(*row, "its cgroup went when the watchdog came back", before, now);
    return;
  }
  if (!cgroup) return adopt_later(slice, std::move(row), now);
  AW_FAILPOINT("adoption.opened");
  const std::string path = (*cgroup)->path();
  const auto pids = (*cgroup)->read_processes();
  const auto populated = (*cgroup)->read_populated();
  if (!populated && !says_gone(populated.error())) return adopt_later(slice, std::move(row), now);
  const bool lives = populated && *populated;

  auto found = recall(**cgroup, row, before, now);
  // A registration that came to nothing, or what is left of a run.
  if (!found && !lives) return remove_when_kept(slice, row ? row->uid : 0);
  if (!found) {
    if (auto asked = find_placement(slice, path)) found = Recognised{std::move(*asked), Known::kAskedFor};
    if (found && give_mistaken_back(slice, path, found->note, now)) return;
  }
  if (!found) {
    auto made = note_of_stranger(slice, pids ? *pids : std::vector<pid_t>(), before.defaults, now);
    if (!made) return;  // Not ours, or it ended while it was looked at: the next start finds it empty.
    found = Recognised{std::move(*made), Known::kNothing};
  }
  const RunNote& note = found->note;
  auto leader = open_same(ports_.processes, note.row.leader);
  if (!leader) return adopt_later(slice, std::move(row), now);
  const AnalysisId id = AnalysisId::parse(note.row.registered_as).value();
  if (!lives && note.releasing && ((*leader && (*leader)->alive()) || is_lived_in(shelter_unit(id, note.row.run_id)))) {
    chronicle_.released(note.row, now);  // It lives where it was moved to.
    return remove_when_kept(slice, note.row.uid);
  }

  AW_FAILPOINT("adoption.read");
  if (by_id_.contains(id)) return;  // Two slices that tell the same id: one of them is not of our making.
  auto made = std::make_unique<Run>(key, id, StallDetector(policy_.stall.pressure_percent, policy_.stall.time));
  Run& run = *made;
  run.cgroup = std::move(*cgroup);
  run.slice = slice;
  run.leader = *std::move(leader);
  restore(run, note);
  by_id_.emplace(id, key);
  runs_.emplace(key, std::move(made));
  if (!lives) return close(run, note, now);
  watch_again(run, *found, before, now);
}

void Supervisor::watch_again(Run& run, const Recognised& found, const Before& before, const Now& now) {
  const RunNote& note = found.note;
  run.phase = Phase::kRunning;
  if (found.known == Known::kAskedFor) {
    if (std::vector<Moved> moved; run.leader) (void)gather_tree(run, run.leader_key, run.uid, run.scope, moved);
  }
  const bool is_new = found.known == Known::kAskedFor || found.known == Known::kNothing;
  if (is_new || !before.in_passing) chronicle_.adopted(run, found.known == Known::kNothing, now);
  AW_FAILPOINT("adoption.recorded");
  if (found.known != Known::kNoted) remember(run);
  ports_.placements.remove(run.run_id);
  for (const ProcessKey& asked : note.asked) settle_asked(run, asked);
  if (finish_release(run, now) && run.over()) return;
  // The daemon before this one has lifted the tripwire when it went, and anybody may have changed what is there.
  const auto limits = run.cgroup->read_limits();
  const bool has_more = limits && spare_what_it_has(run, *limits);
  (void)run.cgroup->write_tripwire(slice_limits(run).tripwire);
  tell_limits(run);
  const bool owner_ended = note.row.owner && !run.owner;
  sampler_.begin(run.key, Sampler::Earlier::kOnDisk, now);
  begin_watching(run, now);  // Drops an owner that can't be watched.
  if (owner_ended) on_owner_ended(run.key, now);
  if (!note.cause && has_more) {
    return cause(run, {Reason::kMemory, "unreclaimable memory was above the limit when the watchdog came back"}, now);
  }
  AW_FAILPOINT("adoption.watched");
  if (note.cause) return finish(run, note, now);
  const RunKey key = run.key;
  look(run, now);
  // The daemon before this one may have gone while it extended the run: a part of it is in a scope of the old deadline.
  keep_backstop_behind(key, now);
}

/// The daemon before this one had asked systemd to move it into the run: it is in there, or comes yet.
void Supervisor::settle_asked(Run& run, const ProcessKey& asked) {
  const auto stat = ports_.processes.find_stat(asked.pid);
  const auto where = ports_.processes.find_cgroup(asked.pid);
  if (!stat || !where) return;
  const bool inside = is_within(*where, run.cgroup->path());
  if (key_of(*stat) != asked) {
    (void)return_mistaken(asked, run.cgroup->path(), run.cgroup->path());  // Or nobody was.
    return;
  }
  const auto roots = run.roots();
  if (stat->state == 'Z' || std::find(roots.begin(), roots.end(), asked) != roots.end()) return;
  (inside ? run.attached : run.asked).push_back(asked);
  std::vector<Moved> moved;
  const uid_t uid = ports_.processes.find_uid(asked.pid).value_or(run.uid);
  if (inside) (void)gather_tree(run, asked, uid, where->substr(where->rfind('/') + 1), moved);
  remember(run);
}

void Supervisor::adopt_later(const std::string& slice, std::optional<RunRow> row, const Now& now) {
  if (unadopted_.empty()) arm_adoption(now);
  unadopted_.emplace_back(slice, std::move(row));
}

void Supervisor::arm_adoption(const Now& now) {
  constexpr Span kAgain = std::chrono::seconds{1};
  (void)wheel_.arm(now.monotonic + kAgain, {0, static_cast<std::uint32_t>(Purpose::kAdoptAgain), 0});
  update_alarm();
}

void Supervisor::adopt_again(const Now& now) {
  if (unread_) return adopt(*std::exchange(unread_, std::nullopt), now);
  for (auto& [slice, row] : std::exchange(unadopted_, {})) adopt_slice(slice, std::move(row), before_, now);
  if (!before_.in_passing) look_for_lost_units();
}

std::optional<RunNote> Supervisor::note_of_stranger(const std::string& slice, const std::vector<pid_t>& pids,
                                                    const Limits& defaults, const Now& now) {
  const auto eldest = find_eldest(ports_.processes, pids);
  if (!eldest) return std::nullopt;
  const AnalysisId id = id_of(slice);
  const std::string where = ports_.processes.find_cgroup(eldest->pid).value_or("");
  const std::string unit = where.substr(where.rfind('/') + 1);
  // Somebody's service in a slice that has such a name is none of ours.
  if (!unit.starts_with("analysis-") || !unit.ends_with(".scope")) return std::nullopt;
  RunNote note;
  note.row.run_id = ports_.identity.new_uuid();
  note.row.registered_as = id.text();
  note.row.host = ports_.identity.host();
  note.row.boot_id = ports_.identity.boot_id();
  note.row.leader = key_of(*eldest);
  note.row.unit = unit;
  note.row.uid = ports_.processes.find_uid(eldest->pid).value_or(0);
  note.row.limits = defaults;
  note.row.limits.owner_policy = OwnerPolicy::kIgnore;  // Nobody knows who started it.
  note.row.registered = now.monotonic;
  note.row.registered_at = now.real;
  note.row.deadline = add_span(now.monotonic, defaults.wall_clock);
  note.comm = eldest->comm;
  note.generation = generation_of(id, note.row.unit);
  return note;
}

void Supervisor::restore(Run& run, const RunNote& note) {
  const RunRow& row = note.row;
  run.run_id = row.run_id;
  run.uid = row.uid;
  run.limits = row.limits;
  run.scope = row.unit;
  run.generation = note.generation;
  run.leader_key = row.leader;
  run.comm = note.comm;
  run.cmdline = note.cmdline;
  run.attached = note.attached;
  run.registered_at = row.registered;
  run.registered_real = row.registered_at;
  run.deadline = row.deadline;
  run.backstop = note.backstop;
  run.memory.precharged = note.precharged;
  run.memory.highest_unreclaimable = note.highest_unreclaimable;
  run.escalated = note.escalated;
  run.release_begun = note.releasing && !note.cause;
  if (row.owner) {
    if (auto owner = open_same(ports_.processes, *row.owner)) run.owner = *std::move(owner);
  }
  if (run.leader) return renew_names(run);
  run.leader_end.ended = true;
}

void Supervisor::finish(Run& run, const RunNote& note, const Now& now) {
  run.cause = note.cause;
  run.ending_since = note.ending_since;
  run.told = note.told;
  // The kernel had killed a part of it, and so had we the rest: nobody is to be warned any more.
  if (note.escalated && !note.told) return happen(run, Happening::kKernelKilled, now);
  happen(run, Happening::kCause, now);
  // The grace goes on; nobody gets a second one.
  if (note.escalated) return happen(run, Happening::kGraceExpired, now);
  // It begins now where the note was written before the end was decided: a kill while the run was being placed.
  arm(run, Purpose::kGrace, add_span(note.told ? run.ending_since : now.monotonic, run.limits.grace));
}

void Supervisor::close(Run& run, const RunNote& note, const Now& now) {
  const Now then = when_emptied(run, now);
  run.unseen = true;
  run.phase = Phase::kRunning;
  run.leader_end.ended = true;
  read_leader_status(run);
  if (const auto events = run.cgroup->read_memory_events()) run.memory.last_events = *events;
  run.cause = note.cause;
  if (note.cause && note.told) run.signal = SIGTERM;
  AW_FAILPOINT("adoption.closing");
  if (!run.cause && run.memory.last_events.oom_kill == 0 && run.backstop != kNever &&
      then.monotonic >= std::max(run.deadline, run.backstop - kBackstopEarliness)) {
    run.cause = Cause{Reason::kWallClock, "systemd ended it, at its backstop, while the watchdog was away", true};
  }
  happen(run, Happening::kEmptied, then);
}

RunNote Supervisor::note_of(const Run& run) const {
  RunNote note;
  note.row = chronicle_.row_of(run);
  note.comm = run.comm;
  note.cmdline = run.cmdline;
  note.generation = run.generation;
  note.attached = run.attached;
  note.asked = run.asked;
  note.backstop = run.backstop;
  note.precharged = run.memory.precharged;
  note.highest_unreclaimable = run.memory.highest_unreclaimable;
  if (run.phase != Phase::kPlacing && run.phase != Phase::kRunning) note.cause = run.cause;
  note.ending_since = run.ending_since;
  note.told = run.told;
  note.escalated = run.escalated;
  note.releasing = run.releasing || run.release_begun;
  note.released = run.phase == Phase::kGone;
  return note;
}

void Supervisor::remember(const Run& run) {
  RunNote note = note_of(run);
  if (run.cgroup->write_note(format_note(note))) return;
  // Too long: what is only for people can go, the ledger has it too.
  note.row.limits.labels.clear();
  note.cmdline.clear();
  (void)run.cgroup->write_note(format_note(note));
}

void Supervisor::remove_when_kept(const std::string& slice, uid_t uid) {
  if (!leaving_.emplace(slice, std::vector<std::function<void()>>()).second) return;
  ports_.recorder.when_kept([this, slice, uid](const Now&) {
    AW_FAILPOINT("run.end-durable");
    departures_.add(uid, slice);
    const bool awaited = !leaving_.at(slice).empty();
    if (const auto departure = awaited ? departures_.take(slice) : std::nullopt) remove(*departure);
    remove_next();
  });
}

void Supervisor::remove_next() {
  while (const auto departure = departures_.next()) remove(*departure);
}

void Supervisor::remove(const Departures::Departure& departure) {
  remove_slice(departure.slice, [this, uid = departure.uid](const Now&) {
    departures_.left(uid);
    remove_next();
  });
  place_waiting(departure.slice);
}

void Supervisor::remove_slice(const std::string& slice, std::function<void(const Now&)> done) {
  ports_.placer.request_remove(slice, [this, done = std::move(done)](const Result<void>& removed, const Now& now) {
    if (!removed) arm_sweep(now);
    if (done) done(now);
  });
}

void Supervisor::place_waiting(const std::string& slice) {
  const auto waiting = leaving_.extract(slice);
  for (const auto& place : waiting.mapped()) place();
}

}  // namespace aw::supervise
