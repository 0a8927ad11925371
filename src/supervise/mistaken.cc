// SPDX-License-Identifier: Apache-2.0
//
// systemd before version 254 is told by its pid which process to put into a scope. When it gets to do so, that process
// may have ended and another one have its pid: nobody registered that one, and it has to go back unharmed. The daemon
// that asked may have died meanwhile, so what was asked for is noted before: in the run's note, or, where there is no
// cgroup to carry one yet, among the placements.
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
  // Where it came from nobody knows. Its parent has stayed there, unless that is init or a run's itself.
  const auto from = stat->parent > 1 ? ports_.processes.find_cgroup(stat->parent) : std::nullopt;
  const bool known = from && !is_within(*from, ports_.cgroups.path_of(ports_.placer.parent_slice()));
  return Moved{key_of(*stat), known ? *from : ""};
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

std::optional<RunNote> Supervisor::read_placement(const std::string& slice) const {
  const auto text = ports_.placements.read(slice);
  if (!text) return std::nullopt;
  auto note = parse_note(*text);
  if (!note || note->row.boot_id != ports_.identity.boot_id()) return std::nullopt;
  return std::move(*note);
}

bool Supervisor::awaits_placements(const Now& now) {
  bool awaited = false;
  for (const std::string& slice : ports_.placements.list()) {
    const auto theirs =
        std::find_if(runs_.begin(), runs_.end(), [&](const auto& entry) { return entry.second->slice == slice; });
    if (theirs != runs_.end() && theirs->second->phase == Phase::kPlacing) continue;  // Whoever asked will hear.
    const auto note = read_placement(slice);
    if (theirs == runs_.end() && note && now.monotonic - note->row.registered < kPlacedAtLast) {
      awaited = true;
    } else {
      ports_.placements.remove(slice);
    }
  }
  return awaited;
}

}  // namespace aw::supervise
