// SPDX-License-Identifier: Apache-2.0
//
// What systemd does with units of its own accord, or because somebody else than the watchdog asked.
#include "testing/world.h"

namespace aw::testing {

using supervise::ManagerJob;
using supervise::ScopeOrder;

std::vector<std::string> World::scopes() const {
  std::vector<std::string> paths;
  for (const auto& [path, scope] : scopes_) paths.push_back(path);
  return paths;
}

void World::begin_scope(const std::string& path, const ScopeOrder& order) {
  const Scope scope{++last_scope_, order.stop_timeout};
  scopes_.insert_or_assign(path, scope);
  if (order.runtime_max == kForever) return;
  at(add_span(clock_, order.runtime_max), [this, path, number = scope.number] {  // RuntimeMaxUSec
    if (const auto it = scopes_.find(path); it != scopes_.end() && it->second.number == number) stop_scope(path);
  });
}

void World::stop_scope(const std::string& path) {
  const auto it = scopes_.find(path);
  if (it == scopes_.end()) return;
  const Scope scope = it->second;
  const auto pids = members(path);
  if (pids.empty()) {  // The one that a zombie was put into.
    scopes_.erase(it);
    return;
  }
  for (const pid_t pid : pids) {
    kill(pid, SIGTERM, Sender::kSystemd);
    kill(pid, SIGCONT, Sender::kSystemd);
  }
  at(add_span(clock_, scope.stop_timeout), [this, path, number = scope.number] {
    if (const auto same = scopes_.find(path); same == scopes_.end() || same->second.number != number) return;
    for (const pid_t pid : members(path)) kill(pid, SIGKILL, Sender::kSystemd);
  });
}

void World::stop_unit(const std::string& unit) {
  if (!placer.away_) later([this, unit] { supervisor.on_manager_job(unit, ManagerJob::kStop, now()); });
  const auto slice = slices_.find(unit);
  const std::string inside = slice == slices_.end() ? "" : slice->second->path;
  if (slice != slices_.end()) slice->second->stopping = true;
  for (const std::string& path : scopes()) {
    if (path.ends_with("/" + unit) || (!inside.empty() && supervise::is_within(path, inside))) stop_scope(path);
  }
  // Nothing was in it.
  if (const auto left = slices_.find(unit); left != slices_.end() && !populated(*left->second)) {
    drop_slice(*left->second);
  }
}

void World::remove_slice(const std::string& name) {
  const auto it = slices_.find(name);
  if (it == slices_.end()) return;
  const std::shared_ptr<Slice> slice = it->second;
  slice->stopping = true;
  for (const pid_t pid : members(slice->path)) kill(pid, SIGKILL, Sender::kSystemd);
  if (!slice->removed && !populated(*slice)) drop_slice(*slice);  // Else with the last one, when that wakes.
}

/// A scope is to be started in a slice that is not there (any more): systemd makes one of that name, without limits.
void World::imply_slice(const std::string& name) {
  auto slice = std::make_shared<Slice>();
  slice->path = path_of(name);
  slice->limits = {Bytes::infinite(), Bytes::infinite()};
  enforce(*slice, slice->limits);
  slices_[name] = std::move(slice);
}

void World::drop_slice(const Slice& slice) {
  std::erase_if(scopes_, [&](const auto& entry) { return supervise::is_within(entry.first, slice.path); });
  for (auto it = slices_.begin(); it != slices_.end(); ++it) {
    if (it->second.get() != &slice) continue;
    it->second->removed = true;
    lost_slices_.erase(it->first);
    slices_.erase(it);
    return;
  }
}

}  // namespace aw::testing
