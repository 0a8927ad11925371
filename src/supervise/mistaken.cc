// SPDX-License-Identifier: Apache-2.0
//
// systemd before version 254 is told by its pid which process to put into a scope. When it gets to do so, that process
// may have ended and another one have its pid: nobody registered that one, and it has to go back unharmed. The daemon
// that asked may have died meanwhile, so what was asked for is noted before: in the run's note, or, where there is no
// cgroup to carry one yet, among the placements.
//
// cgroup.procs takes a number, too, whatever is held beside it: who was moved is looked at after each write.
#include <algorithm>

#include "supervise/run_note.h"
#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

/// After this long systemd has done what it was asked for, or will not do it any more: its own clients give up sooner.
constexpr Span kPlacedAtLast = std::chrono::minutes{10};

}  // namespace

std::optional<Supervisor::Moved> Supervisor::find_mistaken(const ProcessKey& asked, const std::string& cgroup) const {
  const auto stat = ports_.processes.find_stat(asked.pid);
  if (!stat || key_of(*stat) == asked) return std::nullopt;
  const auto where = ports_.processes.find_cgroup(asked.pid);
  if (!where || !is_within(*where, cgroup)) return std::nullopt;
  // Where it came from nobody knows. Its parent has stayed there, unless that is init, or came with it.
  const auto from = stat->parent > 1 ? ports_.processes.find_cgroup(stat->parent) : std::nullopt;
  const bool known = from && !is_within(*from, cgroup);
  return Moved{key_of(*stat), known ? *from : ""};
}

std::vector<Supervisor::Moved> Supervisor::find_mistaken_tree(const ProcessKey& asked,
                                                              const std::string& cgroup) const {
  const auto mistaken = find_mistaken(asked, cgroup);
  if (!mistaken) return {};
  std::vector<ProcessStat> inside;
  for (const ProcessStat& stat : ports_.processes.read_all()) {
    const auto where = ports_.processes.find_cgroup(stat.pid);
    if (stat.state != 'Z' && where && is_within(*where, cgroup)) inside.push_back(stat);
  }
  std::vector<Moved> tree{*mistaken};
  for (const ProcessKey& process : subtree_of(asked.pid, inside)) {
    if (process.pid != asked.pid) tree.push_back({process, mistaken->origin});
  }
  return tree;
}

void Supervisor::add_mistaken(const ProcessKey& asked, const std::string& cgroup, std::vector<Moved>& moved) const {
  auto mistaken = find_mistaken_tree(asked, cgroup);
  if (mistaken.empty()) return;
  if (moved.size() == 1) moved.clear();  // Nobody came with `asked`: who else is in there came with the other one.
  moved.insert(moved.end(), mistaken.begin(), mistaken.end());
}

Result<void> Supervisor::move_only(const ProcessKey& process, const std::string& to, const std::string& kin,
                                   const std::function<Result<void>()>& write) {
  if (auto done = write(); !done) return done;
  if (!return_mistaken(process, to, kin)) return {};
  return Error{std::make_error_code(std::errc::no_such_process),
               "process " + std::to_string(process.pid) + " ended while it was moved"};
}

bool Supervisor::return_mistaken(const ProcessKey& meant, const std::string& to, const std::string& kin) {
  const auto mistaken = find_mistaken(meant, to);
  if (!mistaken) return false;
  const auto stat = ports_.processes.find_stat(meant.pid);
  const auto home = stat ? ports_.processes.find_cgroup(stat->parent) : std::nullopt;
  if (home && (is_within(*home, to) || is_within(*home, kin))) return false;  // Forked by one of theirs.
  std::vector<ProcessKey> homeless;
  for (const Moved& one : find_mistaken_tree(meant, to)) {
    // Its number is new: it is not given out again before all the others have been.
    if (one.origin.empty() || !ports_.cgroups.put_back(one.process.pid, one.origin)) homeless.push_back(one.process);
  }
  if (!homeless.empty()) shelter_mistaken(std::move(homeless));
  return true;
}

void Supervisor::shelter_mistaken(std::vector<ProcessKey> processes) {
  // systemd answers when it likes, and the run may be killed meanwhile. The root has neither limits nor a kill; where
  // we may not write to it, as a user's daemon may not, they wait where they are.
  for (const ProcessKey& process : processes) (void)ports_.cgroups.put_back(process.pid, "/");
  auto opened = ports_.processes.open(processes.front().pid);
  if (!opened || (*opened)->key() != processes.front()) return;
  const std::shared_ptr<ProcessHandle> first = std::move(*opened);
  // Not in the name of a run: they belong to none.
  const std::string shelter = shelter_unit(AnalysisId::parse("mistaken").value(), ports_.identity.new_uuid());
  const ScopeOrder order{shelter, ports_.placer.parent_slice(), first.get(), kForever, Span(0),
                         false,   "Given back by the watchdog"};
  ports_.placer.request_scope(
      order, [this, shelter, first, processes = std::move(processes)](const Result<void>& placed, const Now&) {
        finished_.clear();
        if (!placed) return;
        const std::string there = ports_.cgroups.path_of(ports_.placer.parent_slice()) + "/" + shelter;
        for (const ProcessKey& process : processes) {
          const auto stat = ports_.processes.find_stat(process.pid);
          if (stat && key_of(*stat) == process) (void)ports_.cgroups.put_back(process.pid, there);  // Unharmed anyway.
        }
      });
}

bool Supervisor::lives_outside(const ProcessKey& process, const std::string& cgroup) const {
  const auto stat = ports_.processes.find_stat(process.pid);
  if (!stat || key_of(*stat) != process) return false;
  const auto where = ports_.processes.find_cgroup(process.pid);
  return where && !is_within(*where, cgroup);
}

void Supervisor::forget_asked(Run& run, const ProcessKey& process) {
  const auto it = std::find(run.asked.begin(), run.asked.end(), process);
  if (it == run.asked.end()) return;
  run.asked.erase(it);
  remember(run);
}

std::optional<RunNote> Supervisor::read_placement(const std::string& run_id) const {
  const auto text = ports_.placements.read(run_id);
  if (!text) return std::nullopt;
  auto note = parse_note(*text);
  if (!note || note->row.boot_id != ports_.identity.boot_id()) return std::nullopt;
  return std::move(*note);
}

/// Of the runs that systemd was asked to place in this slice, the one that is there. Whose leader is inside is; else
/// whose leader's pid is, which is another's now; else the one that was asked for first, and whose leader has ended.
/// Whose leader is elsewhere was not placed yet, and who is here was left by another run of that name.
std::optional<RunNote> Supervisor::find_placement(const std::string& slice, const std::string& cgroup) const {
  std::optional<RunNote> found;
  const auto rank = [&](const RunNote& note) {
    const auto stat = ports_.processes.find_stat(note.row.leader.pid);
    if (stat && key_of(*stat) == note.row.leader && stat->state != 'Z') return 2;
    return find_mistaken(note.row.leader, cgroup) ? 1 : 0;
  };
  for (const std::string& run_id : ports_.placements.list()) {
    auto note = read_placement(run_id);
    const auto id = note ? AnalysisId::parse(note->row.registered_as) : Result<AnalysisId>(invalid("no note"));
    if (!id || slice_unit(*id) != slice || lives_outside(note->row.leader, cgroup)) continue;
    const auto better = [&] {
      if (const int a = rank(*note), b = rank(*found); a != b) return a > b;
      return note->row.registered < found->row.registered;
    };
    if (!found || better()) found = std::move(*note);
  }
  return found;
}

bool Supervisor::awaits_placements(const Now& now) {
  bool awaited = false;
  for (const std::string& run_id : ports_.placements.list()) {
    const auto theirs =
        std::find_if(runs_.begin(), runs_.end(), [&](const auto& entry) { return entry.second->run_id == run_id; });
    if (theirs != runs_.end() && theirs->second->phase == Phase::kPlacing) continue;  // Whoever asked will hear.
    const auto note = read_placement(run_id);
    if (theirs == runs_.end() && note && now.monotonic - note->row.registered < kPlacedAtLast) {
      awaited = true;
    } else {
      ports_.placements.remove(run_id);
    }
  }
  return awaited;
}

}  // namespace aw::supervise
