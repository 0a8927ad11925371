// SPDX-License-Identifier: Apache-2.0
#include "simulation/witness.h"

#include <algorithm>
#include <csignal>

namespace aw::simulation {

using supervise::EventRecord;
using supervise::is_within;
using supervise::key_of;
using supervise::Limits;
using supervise::RunNote;
using supervise::Supervisor;
using testing::Process;
using testing::Sender;
using testing::Sent;
using testing::Slice;
using testing::World;

namespace {

std::string name_of(const Process& process) {
  return std::to_string(process.stat.pid) + " (" + process.stat.comm + ", in " + process.cgroup + ")";
}

std::string unit_of(const Slice& slice) { return slice.path.substr(slice.path.rfind('/') + 1); }

Instant deadline_of(Instant registered, const Limits& limits) { return add_span(registered, limits.wall_clock); }

}  // namespace

Witness::Witness(World& world, const supervise::Policy& policy) : world_(world), policy_(policy) {
  world_.on_signal = [this](const Sent& sent) { on_signal(sent); };
  world_.cgroups.on_move = [this](pid_t pid, const std::string& to) { on_move(pid, to); };
  world_.on_death = [this](pid_t pid) { on_death(pid); };
  world_.placer.on_stop = [this](const std::string& unit) { on_stop(unit); };
}

void Witness::complain(const std::string& what) {
  if (!complaint_) complaint_ = what;
}

// ---- what is there ----

std::optional<RunNote> Witness::read_note(const Slice& slice) const {
  if (!slice.note) return std::nullopt;
  auto note = supervise::parse_note(*slice.note);
  if (!note) return std::nullopt;
  return std::move(*note);
}

const Slice* Witness::find_slice(const std::string& run_id) const {
  for (const auto& [name, slice] : world_.slices()) {
    if (const auto note = read_note(*slice); note && note->row.run_id == run_id) return slice.get();
  }
  return nullptr;
}

const Slice* Witness::find_slice_of(const std::string& cgroup) const {
  for (const auto& [name, slice] : world_.slices()) {
    if (is_within(cgroup, slice->path)) return slice.get();
  }
  return nullptr;
}

Known* Witness::find_by_cgroup(const std::string& cgroup) {
  const Slice* slice = find_slice_of(cgroup);
  if (slice == nullptr) return nullptr;
  discover();
  if (const auto note = read_note(*slice)) return &runs_.at(note->row.run_id);
  for (auto it = pending_.rbegin(); it != pending_.rend(); ++it) {
    if (World::slice_name(it->first) == unit_of(*slice)) return &it->second.known;
  }
  return &unnoted_[world_.slices().at(unit_of(*slice))];
}

Known* Witness::find(const std::string& id) {
  discover();
  if (const auto last = pending_.upper_bound(id); last != pending_.begin() && std::prev(last)->first == id) {
    return &std::prev(last)->second.known;
  }
  for (const auto& [name, slice] : world_.slices()) {
    if (const auto note = read_note(*slice); note && note->row.registered_as == id) return &runs_.at(note->row.run_id);
  }
  return nullptr;
}

std::vector<std::string> Witness::ids() const {
  std::vector<std::string> ids;
  for (const auto& [name, slice] : world_.slices()) {
    if (const auto note = read_note(*slice)) ids.push_back(note->row.registered_as);
  }
  return ids;
}

void Witness::discover() {
  for (const auto& [name, slice] : world_.slices()) {
    const auto note = read_note(*slice);
    if (!note || runs_.contains(note->row.run_id)) continue;
    Known known = take_unnoted(slice);
    const auto pending = find_pending(note->row.registered_as, note->row.leader);
    const bool was_pending = pending != pending_.end();
    if (was_pending) {
      known = std::move(pending->second.known);
      pending_.erase(pending);
      if (!(known.limits == note->row.limits)) complain("a run has other limits than those it was registered with");
    }
    known.id = note->row.registered_as;
    known.run_id = note->row.run_id;
    known.limits = note->row.limits;
    known.registered = note->row.registered;
    known.earliest = known.latest = known.longest = deadline_of(known.registered, known.limits);
    if (note->row.deadline != known.latest) complain("a new run has another deadline than its limit says");
    known.grace = known.limits.grace;
    known.owned = note->row.owner.has_value();
    known.lost_leader = !lives(note->row.leader);
    known.lost_owner = known.owned && !lives(*note->row.owner);
    if (!was_pending) {
      // Its registration was not answered. Whoever had died by the time that it was found is in no note.
      known.found = world_.now().monotonic;
      if (!known.owned) known.owned = known.lost_owner = known.limits.owner_policy == supervise::OwnerPolicy::kKill;
    }
    runs_.emplace(known.run_id, std::move(known));
  }
}

/// What has happened to it before anybody knew whose it is.
Known Witness::take_unnoted(const std::shared_ptr<Slice>& slice) {
  auto found = unnoted_.extract(slice);
  return found ? std::move(found.mapped()) : Known();
}

bool Witness::lives(const supervise::ProcessKey& key) const {
  const Process* process = world_.find_process(key.pid);
  return process != nullptr && process->alive() && key_of(process->stat) == key;
}

// ---- what the history does ----

void Witness::on_request(const std::string& id, const supervise::ProcessKey& leader, const Limits& limits) {
  Known known;
  known.id = id;
  known.limits = limits;
  pending_.emplace(id, Wanted{leader, std::move(known)});
}

void Witness::on_answer(const std::string& id, const supervise::ProcessKey& leader, bool registered) {
  discover();
  const auto pending = find_pending(id, leader);
  if (pending == pending_.end()) return;
  pending_.erase(pending);
  if (registered) complain("\"" + id + "\" is said to be registered, and has no note");
}

std::multimap<std::string, Witness::Wanted>::iterator Witness::find_pending(const std::string& id,
                                                                            const supervise::ProcessKey& leader) {
  const auto [first, last] = pending_.equal_range(id);
  for (auto it = last; it != first;) {
    if ((--it)->second.leader == leader) return it;
  }
  return pending_.end();
}

void Witness::on_change_asked(const std::string& id, const Limits& wanted) {
  Known* run = find(id);
  if (run == nullptr || run->run_id.empty()) return;
  const Instant deadline = deadline_of(run->registered, wanted);
  run->earliest = std::min(run->earliest, deadline);
  run->latest = std::max(run->latest, deadline);
  run->longest = std::max(run->longest, deadline);
  run->grace = std::max(run->grace, wanted.grace);
  run->wanted = wanted;
  run->unanswered.push_back(wanted);
  run->owned = run->owned || wanted.owner_policy == supervise::OwnerPolicy::kKill;
  run->over_limit.reset();
}

void Witness::on_change_answered(const std::string& id, const Limits& wanted, bool done) {
  Known* run = find(id);
  if (run == nullptr || run->run_id.empty()) return;
  if (done) run->limits = wanted;
  const auto asked = std::find(run->unanswered.begin(), run->unanswered.end(), wanted);
  if (asked != run->unanswered.end()) run->unanswered.erase(asked);
  // One that has passed already counts from now.
  run->latest = std::max(deadline_of(run->registered, run->limits), world_.now().monotonic);
}

std::string Witness::on_release_asked(const std::string& id) {
  Known* run = find(id);
  if (run == nullptr || run->run_id.empty()) return "";
  ++run->releases;
  return run->run_id;
}

void Witness::on_release_answered(const std::string& run_id) {
  if (const auto run = runs_.find(run_id); run != runs_.end() && run->second.releases > 0) --run->second.releases;
}

void Witness::on_death(pid_t pid) {
  const Process& process = world_.process(pid);
  for (auto& [name, slice] : world_.slices()) {
    const auto note = read_note(*slice);
    if (!note || !runs_.contains(note->row.run_id)) continue;
    Known& run = runs_.at(note->row.run_id);
    const auto key = key_of(process.stat);
    if (note->row.leader == key) run.lost_leader = true;
    if (note->row.owner == key) run.lost_owner = true;
  }
}

void Witness::on_daemon_gone(bool by_reboot) {
  discover();  // It may have come as far as the note, and was asked to end before.
  up_ = just_up_ = false;
  left_.clear();
  crashed_ = true;
  for (auto& [run_id, run] : runs_) {
    run.releases = 0;
    run.unanswered.clear();
  }
  std::erase_if(unnoted_, [](const auto& entry) { return entry.first->removed; });
  for (const auto& [name, slice] : world_.slices()) {
    const auto note = read_note(*slice);
    if (!note) {
      // What was wanted of the daemon is forgotten with it; what was done to the processes is not.
      for (const auto& [id, wanted] : pending_) {
        if (World::slice_name(id) != name) continue;
        unnoted_[slice].killed |= wanted.known.killed;
        unnoted_[slice].taken |= wanted.known.taken;
      }
      continue;
    }
    left_[note->row.run_id] = *note;
    see_decision(*slice, *note);  // That is not on record yet, perhaps, and will be by the next daemon.
  }
  std::erase_if(pending_, [this](const auto& entry) { return !is_noted_ahead(entry.second); });
  for (auto& [run_id, run] : runs_) run.taken = run.taken || by_reboot;
}

/// Asked to end before systemd was asked to place it: the next daemon knows of both.
bool Witness::is_noted_ahead(const Wanted& wanted) const {
  const auto placements = world_.placements.list();
  return std::any_of(placements.begin(), placements.end(), [&](const std::string& run_id) {
    const auto note = supervise::parse_note(*world_.placements.read(run_id));
    return note && note->row.registered_as == wanted.known.id && note->row.leader == wanted.leader && note->cause;
  });
}

void Witness::on_daemon_up() {
  up_ = just_up_ = true;
  up_since_ = world_.now().monotonic;
}

// ---- what is done ----

bool Witness::is_rooted(pid_t pid, const RunNote& note, const std::string& path) const {
  for (const Process* process = world_.find_process(pid); process != nullptr;) {
    const auto key = key_of(process->stat);
    const bool attached = std::find(note.attached.begin(), note.attached.end(), key) != note.attached.end();
    if (attached || note.row.leader == key) return true;
    const Process* parent = world_.find_process(process->stat.parent);
    process = parent != nullptr && parent->alive() && is_within(parent->cgroup, path) ? parent : nullptr;
  }
  return false;
}

bool Witness::has_record(const std::string& run_id, EventKind kind) const {
  return std::any_of(world_.recorder.records.begin(), world_.recorder.records.end(),
                     [&](const EventRecord& record) { return record.run_id == run_id && record.kind == kind; });
}

void Witness::on_signal(const Sent& sent) {
  const Process& target = world_.process(sent.pid);
  // What the kernel does for its own limit is told by its counters.
  if (sent.signal == SIGKILL && sent.sender != Sender::kWatchdog && sent.sender != Sender::kKernel) {
    if (Known* run = find_by_cgroup(target.cgroup)) run->killed = true;
  }
  if (sent.sender != Sender::kWatchdog) return;
  const std::string what = "signal " + std::to_string(sent.signal) + " to " + name_of(target);
  if (outsiders_.contains(key_of(target.stat))) return complain(what + ", which is nobody's business");
  const Slice* slice = find_slice_of(target.cgroup);
  if (slice == nullptr) return complain(what + ", which is in no run");
  const auto note = read_note(*slice);
  if (!note) return complain(what + ", without a note of it");
  discover();
  if (note->cause) {
    if (sent.signal == SIGTERM) runs_.at(note->row.run_id).told = true;
    if (sent.signal == SIGKILL && !note->escalated) complain(what + ", without a note that it comes to this");
    return;
  }
  // Beside a living run only an orphan is ended, and that is on record first.
  if (!has_record(note->row.run_id, EventKind::kOrphanFound)) return complain(what + ", without a word on record");
  if (is_rooted(sent.pid, *note, slice->path)) complain(what + ", which is no orphan");
}

void Witness::on_move(pid_t pid, const std::string& to) {
  const Process& process = world_.process(pid);
  const std::string what = "a move to " + to + " of " + name_of(process);
  if (outsiders_.contains(key_of(process.stat))) return complain(what + ", which is nobody's business");
  const Slice* from = find_slice_of(process.cgroup);
  const Slice* into = find_slice_of(to);
  // Whoever systemd has placed for a registration that had failed by then is in no run, and may be registered again.
  const bool of_a_run =
      from != nullptr && (read_note(*from) || std::any_of(pending_.begin(), pending_.end(), [&](const auto& wanted) {
                            return from->path == world_.cgroups.path_of(World::slice_name(wanted.first));
                          }));
  if (of_a_run && into != nullptr && from != into) complain(what + ", which is another run's");
  if (into == nullptr || from == into) return;
  if (const auto note = read_note(*into); note && runs_.contains(note->row.run_id)) {
    runs_.at(note->row.run_id).joined = world_.now().monotonic;
  }
}

void Witness::on_stop(const std::string& unit) {
  for (const auto& [pid, process] : world_.all()) {
    const bool inside = (process.cgroup + "/").find("/" + unit + "/") != std::string::npos;
    if (!process.alive() || !inside) continue;
    const Slice* slice = find_slice_of(process.cgroup);
    const auto note = slice == nullptr ? std::nullopt : read_note(*slice);
    bool ends = note && note->cause;
    // Let out by a release that came to nothing, because the run was being ended meanwhile.
    for (const auto& [run_id, run] : runs_) {
      if (unit != shelter_unit(World::id(run.id), run_id)) continue;
      ends = has_record(run_id, EventKind::kEscalated) || has_record(run_id, EventKind::kEnding) ||
             has_record(run_id, EventKind::kEnded);
    }
    if (!ends) complain("a stop of " + unit + " takes " + name_of(process) + " with it");
  }
}

void Witness::on_record(const EventRecord& record) {
  if (record.run_id.empty()) return;
  discover();
  const auto it = runs_.find(record.run_id);
  if (record.kind == EventKind::kEnding) {
    const bool counted = std::any_of(record.details.begin(), record.details.end(),
                                     [](const auto& detail) { return detail.first == "process_count"; });
    const Slice* slice = find_slice(record.run_id);
    const bool alive = slice != nullptr && !world_.members(slice->path).empty();
    if (!record.reason || !counted || !record.memory || (alive && record.processes.empty())) {
      complain("\"" + record.registered_as + "\" is being ended without evidence on record");
    }
    if (slice != nullptr && it != runs_.end()) {
      const auto note = read_note(*slice);
      see_decision(*slice, *note);
      if (record.reason == Reason::kOrphaned && !is_orphaned(*note, it->second)) {
        complain("\"" + record.registered_as + "\" is called orphaned, and is not");
      }
    }
  }
  const bool after_end =
      record.kind != EventKind::kEnded && record.kind != EventKind::kUnreaped &&
      (has_record(record.run_id, EventKind::kEnded) ||
       (record.kind != EventKind::kUnregistered && has_record(record.run_id, EventKind::kUnregistered)));
  if (after_end) {
    complain("\"" + record.registered_as + "\" has " + std::string(to_string(record.kind)) + " after its end");
  }
  if (record.kind == EventKind::kEnded && it != runs_.end()) check_end(record, it->second);
}

/// What counts is what it had when its end was decided. A daemon that starts meanwhile says again that it is being
/// ended, and then a part of it may be gone.
void Witness::see_decision(const Slice& slice, const RunNote& note) {
  Known& run = runs_.at(note.row.run_id);
  if (!note.cause || std::exchange(run.decided, true)) return;
  run.over = has_too_much(slice, note.row.limits);
}

void Witness::check_end(const EventRecord& end, const Known& run) {
  if (!end.reason) return complain("\"" + run.id + "\" has ended for no reason");
  if (const auto why = why_implausible(end, run)) {
    complain("\"" + run.id + "\" is said to have ended as " + std::string(to_string(*end.reason)) + ", but " + *why);
  }
}

std::optional<std::string> Witness::why_implausible(const EventRecord& end, const Known& run) const {
  const Slice* slice = find_slice(run.run_id);
  const supervise::MemoryEvents events = slice == nullptr ? supervise::MemoryEvents{} : slice->events;
  switch (*end.reason) {
    case Reason::kExited:
      if (run.told && !run.taken) return "was sent SIGTERM";  // With its slice went the note of what it was for.
      if (events.oom_kill > 0) return "the kernel has killed in it";
      return std::nullopt;
    case Reason::kWallClock:
      if (world_.now().monotonic < run.earliest) return "its time was not up";
      return std::nullopt;
    case Reason::kMemory:
      if (slice != nullptr && events.high == 0 && !run.over && !run.stalled) return "it has passed no tripwire";
      return std::nullopt;
    case Reason::kOom:
      if (slice != nullptr && events.oom == 0) return "it was not at its ceiling";
      return std::nullopt;
    case Reason::kOrphaned:
      if (!run.lost_leader && !(run.owned && run.lost_owner)) return "neither its leader nor its owner died";
      return std::nullopt;
    case Reason::kExternal:
      if (!run.killed) return "nobody has killed it";
      return std::nullopt;
    case Reason::kRequested:
      if (!run.asked) return "nobody has asked";
      return std::nullopt;
    case Reason::kLost:
      if (!run.taken) return "its cgroup was there all the time";
      return std::nullopt;
  }
  unreachable(*end.reason);
}

// ---- what must hold all the time ----

void Witness::check() {
  discover();
  if (is_blind()) blind_until_ = world_.now().monotonic;
  if (world_.busy_loop) busy_until_ = world_.now().monotonic;
  check_ends();
  for (const auto& [name, slice] : world_.slices()) {
    const auto note = read_note(*slice);
    if (!note) continue;
    Known& run = runs_.at(note->row.run_id);
    // Its limits are void while it is on its way out; one that fails has its time from then. A daemon that comes after
    // goes on with it at once, or lets it be.
    if (note->releasing && run.releases > 0 && !note->cause) run.latest = std::max(run.latest, world_.now().monotonic);
    if (just_up_) {
      check_kept_deadline(*note);
      if (note->row.limits == run.wanted) run.limits = *run.wanted;  // It had come so far, and nobody was told.
    }
    check_time(*slice, *note, run);
    check_memory(*slice, *note, run);
    check_orphans(*slice, *note, run);
  }
  just_up_ = false;
}

bool Witness::is_blind() const {
  const auto& cgroups = world_.cgroups;
  return cgroups.out_of_descriptors || cgroups.cannot_list || cgroups.cannot_tell_populated;
}

void Witness::check_ends() {
  std::map<std::string, std::set<std::string>> ends;
  std::map<std::string, std::optional<Reason>> told;
  for (const EventRecord& record : world_.recorder.records) {
    if (record.kind != EventKind::kEnded && record.kind != EventKind::kUnregistered) continue;
    auto& ids = ends[record.run_id];
    ids.insert(record.event_id);
    if (ids.size() > 1) complain("\"" + record.registered_as + "\" has ended more than once");
    const auto [it, first] = told.emplace(record.event_id, record.reason);
    if (!first && it->second != record.reason) complain("\"" + record.registered_as + "\" has ended for two reasons");
  }
}

Span Witness::patience() const { return Supervisor::kKillPatience + std::chrono::seconds{3}; }

Span Witness::lateness() const {
  // The next round is that much later as well.
  const Span late = supervise::Rounds::kLongestWait + std::chrono::seconds{1};
  const bool busy = busy_until_ && world_.now().monotonic - *busy_until_ < late + policy_.orphans.interval + patience();
  return busy ? late : Span(0);
}

bool Witness::has_too_much(const Slice& slice, const Limits& limits) const {
  // What came along with the processes is charged to where they were.
  Bytes held(0);
  for (const pid_t pid : world_.members(slice.path)) held = held + world_.process(pid).anonymous;
  const Bytes limit = limits.memory;
  return !limit.is_infinite() && slice.stat.unreclaimable() + held > limit - limit / supervise::kLargestSlackShare;
}

bool Witness::is_slow_to_die(const std::string& path) const {
  const auto pids = world_.members(path);
  return std::all_of(pids.begin(), pids.end(), [this](pid_t pid) {
    const Process& process = world_.process(pid);
    return process.sleeps_uninterruptibly;
  });
}

void Witness::check_time(const Slice& slice, const RunNote& note, const Known& run) {
  if (is_slow_to_die(slice.path)) return;  // Or nobody is there.
  const Instant now = world_.now().monotonic;
  if (!up_ && run.unguarded) return;
  if (!up_) {
    // systemd's own patience with SIGTERM is the grace once more.
    const Span margin = Supervisor::kBackstopMargin + run.grace + run.grace + delayed_ + std::chrono::seconds{1};
    if (now > add_span(run.longest, margin)) complain("\"" + run.id + "\" lives past its time, with no daemon there");
    return;
  }
  const Instant able = std::max({up_since_, blind_until_ + std::chrono::seconds{2}, run.found});
  // Who was on the way in while systemd was deaf may come when all others have been killed, and goes with the next try.
  if (now <= run.joined + patience()) return;
  if (now > add_span(std::max(run.latest, able), run.grace + patience())) {
    complain("\"" + run.id + "\" lives past its time");
  }
  if (note.cause && now > add_span(std::max(note.ending_since, able), run.grace + patience())) {
    complain("\"" + run.id + "\" was to be ended, and lives");
  }
}

Bytes Witness::allowed_memory(const Known& run) {
  Bytes allowed = run.limits.memory;
  for (const Limits& wanted : run.unanswered) allowed = std::max(allowed, wanted.memory);
  return allowed;
}

void Witness::check_memory(const Slice& slice, const RunNote& note, Known& run) {
  const Instant now = world_.now().monotonic;
  const bool over = slice.stat.unreclaimable() > allowed_memory(run) && slice.events.high > 0;
  const bool judged = note.cause || run.releases > 0 || !up_ || world_.members(slice.path).empty();
  if (!over || judged) return run.over_limit.reset();
  if (!run.over_limit) run.over_limit = now;
  const Instant since = std::max({*run.over_limit, up_since_, blind_until_});
  if (now - since > policy_.orphans.interval + lateness() + std::chrono::seconds{2}) {
    complain("\"" + run.id + "\" has had more memory than its limit for too long");
  }
}

/// An orphan is seen within two rounds, and has its grace then.
void Witness::check_orphans(const Slice& slice, const RunNote& note, Known& run) {
  const Instant now = world_.now().monotonic;
  // Nobody is killed while somebody is on the way into the run, or out of it.
  const bool busy = note.cause || !note.asked.empty() || run.releases > 0 || !run.unanswered.empty() ||
                    world_.placer.is_held() || world_.placer.waiting() > 0;
  const bool kills = run.limits.orphan_policy == supervise::OrphanPolicy::kKill &&
                     note.row.limits.orphan_policy == supervise::OrphanPolicy::kKill;
  if (!up_ || busy || !kills || !lives(note.row.leader)) return run.orphans.clear();
  std::map<supervise::ProcessKey, Instant> orphans;
  for (const pid_t pid : world_.members(slice.path)) {
    const Process& process = world_.process(pid);
    if (process.sleeps_uninterruptibly || is_rooted(pid, note, slice.path)) continue;
    const auto known = run.orphans.find(key_of(process.stat));
    const Instant since = known == run.orphans.end() ? now : known->second;
    orphans.emplace(key_of(process.stat), since);
    const Span rounds = 2 * (policy_.orphans.interval + lateness()) + policy_.orphans.confirmation;
    const Instant able = std::max({since, up_since_ + std::chrono::seconds{2}, blind_until_ + std::chrono::seconds{2}});
    if (now - able > rounds + run.grace + patience()) {
      complain("\"" + run.id + "\" has the orphan " + name_of(process) + " for too long");
    }
  }
  run.orphans = std::move(orphans);
}

bool Witness::is_orphaned(const RunNote& note, const Known& run) const {
  // What was decided before a restart goes on record again after it, when the leader that lost its owner may be dead.
  const auto left = left_.find(note.row.run_id);
  const bool decided_before = left != left_.end() && left->second.cause;
  auto possible = run.unanswered;
  possible.push_back(run.limits);
  possible.push_back(note.row.limits);
  return std::any_of(possible.begin(), possible.end(), [&](const Limits& limits) {
    if (!lives(note.row.leader)) {
      if (limits.orphan_policy == supervise::OrphanPolicy::kKill) return true;
      if (!decided_before) return false;
    }
    return limits.owner_policy == supervise::OwnerPolicy::kKill && run.owned && run.lost_owner;
  });
}

void Witness::check_kept_deadline(const RunNote& note) {
  const auto left = left_.find(note.row.run_id);
  if (left == left_.end()) return;
  const RunNote& before = left->second;
  const std::string who = "\"" + note.row.registered_as + "\"";
  if (note.row.deadline != before.row.deadline) complain(who + " has another deadline since the restart");
  const auto row = world_.recorder.rows.find(note.row.run_id);
  const bool adopted = !is_blind();
  if (adopted && row != world_.recorder.rows.end() && row->second.deadline != before.row.deadline) {
    complain(who + " has another deadline on record since the restart");
  }
  if (!before.cause) return;
  if (!note.cause || note.cause->reason != before.cause->reason) complain(who + " ends for another reason since");
  // None yet: a kill was asked for while it was being placed, and the note of that was the last that was written.
  if (before.ending_since != Instant{} && note.ending_since != before.ending_since)
    complain(who + " has been given a second grace");
}

// ---- at the end ----

void Witness::check_quiet() {
  check();
  for (const auto& [run_id, run] : runs_) {
    const bool over = has_record(run_id, EventKind::kEnded) || has_record(run_id, EventKind::kUnregistered);
    // Its note went with its slice, and nothing of it had come to the disk: nobody can know of it.
    const bool unknown =
        run.taken && std::none_of(world_.recorder.records.begin(), world_.recorder.records.end(),
                                  [&id = run_id](const EventRecord& record) { return record.run_id == id; });
    if (!over && !unknown) complain("\"" + run.id + "\" (" + run_id + ") has no end on record");
  }
  if (!world_.slices().empty()) complain(world_.slices().begin()->first + " is left over");
  for (const std::string& scope : world_.scopes()) {
    // Of one that a daemon asked for and did not live to see, with a process that died meanwhile, nobody knows.
    const bool unknown = crashed_ && scope.find(".slice/", 1) == scope.rfind(".slice/");
    if (world_.members(scope).empty() && !unknown) complain("the empty scope " + scope + " is left over");
  }
  if (!world_.recorder.rows.empty()) {
    complain("a row of \"" + world_.recorder.rows.begin()->second.registered_as + "\" is left over");
  }
  if (world_.watch_count() > 0) complain("a process is still watched");
  if (world_.alarm()) complain("a timer is still armed");
  if (world_.placer.waiting() > 0) complain("systemd has not answered");
}

}  // namespace aw::simulation
