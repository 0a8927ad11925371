// SPDX-License-Identifier: Apache-2.0
//
// Orphans beside a living leader, and what a leader leaves behind. A look is confirmed by a second one, by pid and
// start time, before anything is done.
#include <algorithm>
#include <csignal>
#include <iterator>
#include <utility>

#include "base/failpoint.h"
#include "supervise/supervisor.h"

namespace aw::supervise {
namespace {

constexpr int kTermThenContinue[] = {SIGTERM, SIGCONT};
constexpr int kKill[] = {SIGKILL};
/// Where there is no descriptor left to read with.
constexpr Span kReadAgain = std::chrono::seconds{1};

bool contains(const std::vector<ProcessKey>& keys, const ProcessKey& key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

}  // namespace

Result<std::vector<ProcessStat>> Supervisor::read_members(const Run& run) const {
  const auto pids = run.cgroup->read_processes();
  if (!pids) return pids.error();
  std::vector<ProcessStat> members;
  members.reserve(pids->size());
  for (const pid_t pid : *pids) {
    auto stat = ports_.processes.read_stat(pid);
    if (!stat && !says_gone(stat.error())) return std::move(stat).error();
    if (stat) members.push_back(*std::move(stat));
  }
  return members;
}

void Supervisor::note_largest(Run& run, const std::vector<ProcessStat>& members) {
  run.largest.clear();
  if (members.size() <= kMaxProcesses) return;  // All of them are looked at in any case.
  std::vector<const ProcessStat*> first(kMaxProcesses);
  std::vector<const ProcessStat*> all;
  all.reserve(members.size());
  for (const ProcessStat& member : members) all.push_back(&member);
  std::partial_sort_copy(all.begin(), all.end(), first.begin(), first.end(),
                         [](const auto* a, const auto* b) { return a->resident_pages > b->resident_pages; });
  for (const ProcessStat* member : first) run.largest.push_back(member->pid);
}

void Supervisor::look_for_orphans(Run& run, bool confirming, const Now& now) {
  if (run.phase != Phase::kRunning) return;
  if (!confirming) arm(run, Purpose::kOrphanRound, add_span(now.monotonic, policy_.orphans.interval));
  if (run.rehousing || finish_release(run, now)) return;
  if (run.attaching == 0) {  // Who was asked for and not answered may have come.
    for (const ProcessKey& asked : std::exchange(run.asked, {})) settle_asked(run, asked);
  }
  const auto read = read_members(run);
  if (!read) return;  // The next round will do.
  const std::vector<ProcessStat>& members = *read;
  look_for_escapes(run, members, now);  // Also when confirming: whose parent is outside is no orphan for it.
  if (run.leader_end.ended) return report_leftovers(run, now);
  note_largest(run, members);
  const auto roots = run.roots();
  // Nobody's parent has died because it was moved out: its children here are nobody's orphans as long as it lives.
  auto family = members;
  std::vector<ProcessKey> outside;
  for (const ProcessKey& escaped : run.orphans.escaped) {
    const auto stat = ports_.processes.read_stat(escaped.pid);
    if (!stat && !says_gone(stat.error())) return;
    const bool lives = stat && key_of(*stat) == escaped && stat->state != 'Z';
    const bool back = std::any_of(members.begin(), members.end(), [&](const auto& m) { return key_of(m) == escaped; });
    if (!lives || back) continue;
    family.push_back(*stat);
    outside.push_back(escaped);
  }
  auto orphans = find_orphans(family, roots);
  std::erase_if(orphans, [&](const ProcessKey& orphan) { return contains(outside, orphan); });
  run.orphans.count = static_cast<std::uint32_t>(orphans.size());
  std::erase_if(run.orphans.reported, [&](const auto& entry) { return !contains(orphans, entry.first); });
  std::vector<ProcessKey> suspects;
  for (const ProcessKey& orphan : orphans) {
    if (run.orphans.reported.contains(orphan)) continue;
    if (!contains(run.orphans.suspects, orphan)) {
      suspects.push_back(orphan);
      continue;
    }
    const auto stat = std::find_if(members.begin(), members.end(),
                                   [&](const ProcessStat& member) { return key_of(member) == orphan; });
    if (stat != members.end()) deal_with_orphan(run, *stat, members, now);
  }
  run.orphans.suspects = std::move(suspects);
  // Those whom only the second look has found are looked at again in the next round, however many it finds each time.
  if (!confirming && !run.orphans.suspects.empty())
    arm(run, Purpose::kOrphanConfirm, now.monotonic + policy_.orphans.confirmation);
}

Result<std::optional<std::string>> Supervisor::find_outside(const Run& run, const ProcessKey& process) const {
  // Read twice: between the two its pid may become another's.
  std::optional<std::string> where;
  for (int reading = 0; reading < 2; ++reading) {
    const auto stat = ports_.processes.read_stat(process.pid);
    if (!stat && !says_gone(stat.error())) return stat.error();
    if (!stat || key_of(*stat) != process || stat->state == 'Z') return std::optional<std::string>();
    if (reading == 0) where = ports_.processes.find_cgroup(process.pid);
  }
  if (!where) return Error{std::make_error_code(std::errc::resource_unavailable_try_again), "its cgroup can't be read"};
  if (is_within(*where, run.cgroup->path())) where.reset();
  return where;
}

void Supervisor::look_for_escapes(Run& run, const std::vector<ProcessStat>& members, const Now& now) {
  std::vector<ProcessKey> here;
  here.reserve(members.size());
  for (const ProcessStat& member : members) here.push_back(key_of(member));
  std::sort(here.begin(), here.end());
  std::vector<ProcessKey> missing;  // Nearly all of them have ended.
  std::set_difference(run.orphans.members.begin(), run.orphans.members.end(), here.begin(), here.end(),
                      std::back_inserter(missing));
  std::erase_if(run.orphans.escaped, [&](const ProcessKey& process) {
    const auto where = find_outside(run, process);
    return where && !*where;
  });
  run.orphans.members = std::move(here);
  for (const ProcessKey& process : missing) {
    const auto where = find_outside(run, process);
    const auto stat = where && *where ? ports_.processes.find_stat(process.pid) : std::nullopt;
    if (!where || (*where && !stat)) run.orphans.members.push_back(process);  // Looked for again at the next round.
    if (!stat) continue;
    run.orphans.escaped.push_back(process);
    chronicle_.escaped(run, *stat, **where, now);
  }
  std::sort(run.orphans.members.begin(), run.orphans.members.end());
}

void Supervisor::forget_member(const ProcessKey& process) {
  for (const auto& [key, run] : runs_) std::erase(run->orphans.members, process);
}

void Supervisor::deal_with_orphan(Run& run, const ProcessStat& orphan, const std::vector<ProcessStat>& members,
                                  const Now& now) {
  const bool kills = run.limits.orphan_policy == OrphanPolicy::kKill;
  run.orphans.reported[key_of(orphan)] = kills ? add_span(now.monotonic, run.limits.grace) : kNever;
  chronicle_.orphan_found(run, orphan, now);
  if (!kills) return;
  AW_FAILPOINT("orphan.recorded");
  const auto roots = run.roots();
  for (const ProcessKey& process : subtree_of(orphan.pid, members, roots)) {
    (void)ports_.processes.signal_member(process.pid, run.cgroup->path(), kTermThenContinue);  // Gone is fine.
  }
  arm_orphan_kill(run);
}

void Supervisor::arm_orphan_kill(Run& run) {
  Instant earliest = kNever;
  for (const auto& [orphan, due] : run.orphans.reported) earliest = std::min(earliest, due);
  arm(run, Purpose::kOrphanKill, earliest);
}

void Supervisor::kill_orphans(Run& run, const Now& now) {
  if (run.phase != Phase::kRunning || run.limits.orphan_policy != OrphanPolicy::kKill) return;
  if (run.rehousing) return arm(run, Purpose::kOrphanKill, now.monotonic + kReadAgain);  // It may be on its way out.
  const auto members = read_members(run);
  if (!members) return arm(run, Purpose::kOrphanKill, now.monotonic + kReadAgain);
  const auto roots = run.roots();
  for (const ProcessKey& orphan : find_orphans(*members, roots)) {
    const auto reported = run.orphans.reported.find(orphan);
    if (reported == run.orphans.reported.end() || reported->second > now.monotonic) continue;  // In its own grace.
    for (const ProcessKey& process : subtree_of(orphan.pid, *members, roots)) {
      (void)ports_.processes.signal_member(process.pid, run.cgroup->path(), kKill);
    }
  }
  // Each is killed when its own grace has passed, and again if it outlives that.
  for (auto& [orphan, due] : run.orphans.reported) {
    if (due <= now.monotonic) due = now.monotonic + kKillPatience;
  }
  arm_orphan_kill(run);
}

void Supervisor::report_leftovers(Run& run, const Now& now) {
  const auto members = read_members(run);
  if (!members) return;
  std::map<ProcessKey, Instant> reported;
  for (const ProcessStat& member : *members) {
    if (!run.orphans.reported.contains(key_of(member))) chronicle_.orphan_found(run, member, now);
    reported[key_of(member)] = kNever;
  }
  run.orphans.reported = std::move(reported);  // The dead are forgotten: there may be any number of them.
  run.orphans.count = static_cast<std::uint32_t>(members->size());
}

}  // namespace aw::supervise
