// SPDX-License-Identifier: Apache-2.0
#include "supervise/orphan_rule.h"

#include <algorithm>
#include <set>

namespace aw::supervise {

namespace {

/// Processes in the order of one of their fields, for finding those that have a value of it.
class Index {
 public:
  Index(std::span<const ProcessStat> processes, pid_t ProcessStat::*field) : field_(field) {
    order_.reserve(processes.size());
    for (const ProcessStat& process : processes) order_.push_back(&process);
    std::sort(order_.begin(), order_.end(),
              [field](const ProcessStat* a, const ProcessStat* b) { return a->*field < b->*field; });
  }

  std::span<const ProcessStat* const> with(pid_t value) const {
    const auto first = std::lower_bound(order_.begin(), order_.end(), value,
                                        [this](const ProcessStat* a, pid_t wanted) { return a->*field_ < wanted; });
    const auto last = std::upper_bound(first, order_.end(), value,
                                       [this](pid_t wanted, const ProcessStat* a) { return wanted < a->*field_; });
    return {first, last};
  }

 private:
  pid_t ProcessStat::*field_;
  std::vector<const ProcessStat*> order_;
};

std::vector<ProcessKey> sorted(std::span<const ProcessKey> keys) {
  std::vector<ProcessKey> all(keys.begin(), keys.end());
  std::sort(all.begin(), all.end());
  return all;
}

bool contains(const std::vector<ProcessKey>& sorted_keys, const ProcessKey& key) {
  return std::binary_search(sorted_keys.begin(), sorted_keys.end(), key);
}

/// A pid that began later than the process that names it was given out again: it is somebody else.
bool may_stem_from(const ProcessStat& process, std::uint64_t elder_start) { return elder_start <= process.start_time; }

/// Everything reached from `found` by `expand`, which is given a key and a sink for the processes next to it.
template <class Expand>
std::set<ProcessKey> reach(std::vector<ProcessKey> found, Expand expand) {
  std::set<ProcessKey> seen(found.begin(), found.end());
  const auto add = [&](const ProcessStat& process) {
    if (seen.insert(key_of(process)).second) found.push_back(key_of(process));
  };
  while (!found.empty()) {
    const ProcessKey key = found.back();
    found.pop_back();
    expand(key, add);
  }
  return seen;
}

/// A snapshot of processes that can say who stems from whom.
class Snapshot {
 public:
  explicit Snapshot(std::span<const ProcessStat> all)
      : by_pid_(all, &ProcessStat::pid),
        by_parent_(all, &ProcessStat::parent),
        by_group_(all, &ProcessStat::process_group),
        by_session_(all, &ProcessStat::session) {}

  const ProcessStat* find_pid(pid_t pid) const {
    const auto here = by_pid_.with(pid);
    return here.empty() ? nullptr : here.front();
  }

  bool holds(const ProcessKey& key) const {
    const ProcessStat* here = find_pid(key.pid);
    return here != nullptr && key_of(*here) == key;
  }

  bool has_parent_of(const ProcessStat& process) const {
    const ProcessStat* parent = find_pid(process.parent);
    return parent != nullptr && may_stem_from(process, parent->start_time);
  }

  template <class Add>
  void add_children(const ProcessKey& key, Add add) const {
    // The dead have no children: those were reparented when it died, and whoever has the pid now is somebody else.
    if (!holds(key)) return;
    for (const ProcessStat* child : by_parent_.with(key.pid)) {
      if (may_stem_from(*child, key.start_time)) add(*child);
    }
  }

  /// Members of the process group and the session that `founder`, dead or alive, gave its number to.
  template <class Add>
  void add_founded(const ProcessKey& founder, Add add) const {
    for (const Index* index : {&by_group_, &by_session_}) {
      for (const ProcessStat* process : index->with(founder.pid)) {
        if (is_founder_of(founder, *process)) add(*process);
      }
    }
  }

 private:
  bool is_founder_of(const ProcessKey& founder, const ProcessStat& process) const {
    if (!may_stem_from(process, founder.start_time)) return false;
    const ProcessStat* here = find_pid(founder.pid);
    if (here == nullptr || key_of(*here) == founder) return true;
    // Reused: the number means the newer process, unless that came after the group was made.
    return !may_stem_from(process, here->start_time);
  }

  Index by_pid_;
  Index by_parent_;
  Index by_group_;
  Index by_session_;
};

}  // namespace

std::vector<ProcessKey> find_orphans(std::span<const ProcessStat> members, std::span<const ProcessKey> roots) {
  const Snapshot snapshot(members);
  const std::vector<ProcessKey> rooted = sorted(roots);
  // Every walk up ends at a root, in a cycle, or at a member whose parent is not inside: those last are the topmost
  // orphans, so nothing has to be walked.
  std::set<ProcessKey> orphans;
  for (const ProcessStat& member : members) {
    if (!contains(rooted, key_of(member)) && !snapshot.has_parent_of(member)) orphans.insert(key_of(member));
  }
  return {orphans.begin(), orphans.end()};
}

std::vector<ProcessKey> subtree_of(pid_t root, std::span<const ProcessStat> members,
                                   std::span<const ProcessKey> spared) {
  const Snapshot snapshot(members);
  const ProcessStat* top = snapshot.find_pid(root);
  if (top == nullptr) return {};
  const std::vector<ProcessKey> left_out = sorted(spared);
  const auto tree = reach({key_of(*top)}, [&](const ProcessKey& key, auto add) {
    snapshot.add_children(key, [&](const ProcessStat& child) {
      if (!contains(left_out, key_of(child))) add(child);
    });
  });
  return {tree.begin(), tree.end()};
}

std::vector<ProcessKey> find_tree(pid_t root, std::span<const ProcessStat> all, std::span<const ProcessKey> known) {
  const Snapshot snapshot(all);
  std::vector<ProcessKey> founders(known.begin(), known.end());
  const auto is_root = [root](const ProcessKey& key) { return key.pid == root; };
  // A root that is known with a start time and not here with it has died, and its pid may be another's now.
  const ProcessStat* top = snapshot.find_pid(root);
  if (top != nullptr && std::none_of(known.begin(), known.end(), is_root)) founders.push_back(key_of(*top));

  // A sibling in the same process group is another command of the same pipeline, started by the same shell: not ours.
  const auto is_sibling = [top](const ProcessStat& process) {
    return top != nullptr && top->parent > 1 && process.parent == top->parent && key_of(process) != key_of(*top);
  };
  auto tree = reach(std::move(founders), [&](const ProcessKey& key, auto add) {
    snapshot.add_children(key, add);
    snapshot.add_founded(key, [&](const ProcessStat& process) {
      if (!is_sibling(process)) add(process);
    });
  });
  std::erase_if(tree, [&](const ProcessKey& key) { return !snapshot.holds(key); });
  return {tree.begin(), tree.end()};
}

}  // namespace aw::supervise
