// SPDX-License-Identifier: Apache-2.0
//
// The real cgroups of runs: held directories below the cgroup2 root, watched through one inotify instance.
//
// inotify is a hint: the kernel merges notifications of one file and spaces them 10 to 16 ms apart
// (CGROUP_FILE_NOTIFY_MIN_INTV), the removal of a cgroup sends none, and its watch stays until it is taken away by
// hand (measured). So a notification only says "look", and whoever looks compares counters.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "base/unique_fd.h"
#include "loop/loop.h"
#include "supervise/ports.h"

namespace aw::cgroup {

/// What is told of changes.
struct Listener {
  std::function<void(supervise::RunKey, const Now&)> on_changed;
  std::function<void(supervise::RunKey, const Now&)> on_limits_written;  ///< to a file with a limit of its slice
  /// No watch could be had for a run, or all have one again: a sentence for the log.
  std::function<void(const std::string&)> on_notice;
  std::function<void(const Now&)> on_lost;  ///< the kernel's queue overflowed: look at everything
};

class HeldCgroup;

/// How changes are heard of. The defaults are the kernel's call and what the manual page says; tests bring their own.
struct Watching {
  std::function<int(int inotify, const char* path, std::uint32_t mask)> add_watch;  ///< none: inotify_add_watch(2)
  Span poll = std::chrono::milliseconds{100};  ///< how often what has no watch is looked at
  Span again = std::chrono::seconds{10};       ///< how often a watch for it is tried again
};

class CgroupFs final : public supervise::Cgroups {
 public:
  /// `mount` is where cgroup2 is mounted; `parent` the cgroup path of the slice that holds the runs' slices,
  /// e.g. "/analysis.slice". Refused, with the fix in words, where `mount` is no cgroup2.
  static Result<std::unique_ptr<CgroupFs>> open(loop::Loop& loop, const std::string& mount, std::string parent,
                                                Listener listener);
  /// The same on a directory with the kernel's file names. For tests only: nothing is checked.
  static Result<std::unique_ptr<CgroupFs>> open_fixture(loop::Loop& loop, const std::string& mount, std::string parent,
                                                        Listener listener, Watching watching = {});
  ~CgroupFs() override;

  Result<std::unique_ptr<supervise::RunCgroup>> open(supervise::RunKey key, const std::string& slice) override;
  Result<void> move(pid_t pid, const std::string& slice, const std::string& scope) override;
  Result<std::vector<std::string>> list_slices() const override;
  std::string path_of(const std::string& slice) const override { return "/" + relative(slice); }
  Result<void> put_back(pid_t pid, const std::string& path) override;
  std::vector<supervise::Ancestor> read_ancestors() const override;

  /// Lifts the tripwires (memory.high) of all runs below the parent slice, so that the ceiling decides: for a daemon
  /// that is going, and must not hold a tree in a stall for ever. Returns how many it lifted.
  std::size_t lift_tripwires();
  /// Runs for which no watch could be had: they are polled.
  std::size_t polled() const { return polled_.size(); }

 private:
  friend class HeldCgroup;
  CgroupFs(loop::Loop& loop, std::string parent, Listener listener, Watching watching);
  static Result<std::unique_ptr<CgroupFs>> open_unchecked(loop::Loop& loop, const std::string& mount,
                                                          std::string parent, Listener listener, Watching watching);
  void on_readable(const Now& now);
  void on_dirty(const Now& now);
  Result<int> add_watch(supervise::RunKey key, int dir);
  void remove_watch(int watch);
  void begin_polling(supervise::RunKey key, HeldCgroup& held, const std::string& why);
  void end_polling(supervise::RunKey key, const HeldCgroup& held);
  void poll(const Now& now);
  void watch_polled(const Now& now);
  void notice(const std::string& sentence);
  std::string relative(const std::string& slice) const;

  std::string parent_;
  Listener listener_;
  UniqueFd root_;
  UniqueFd inotify_;
  std::unordered_map<int, supervise::RunKey> watched_;
  std::set<supervise::RunKey> dirty_;
  std::set<supervise::RunKey> limits_written_;
  bool lost_ = false;
  const Watching watching_;
  std::map<supervise::RunKey, HeldCgroup*> polled_;  ///< for which no watch could be had
  Instant watch_again_ = kNever;
  loop::Loop& loop_;  ///< outlives us
  loop::Source poll_;
  loop::Source readable_;
};

/// Whether this host can serve: cgroup2 mounted alone at `mount`, with the memory, pids and cpu controllers and
/// cgroup.kill. The error says what is missing and which line enables it.
Result<void> check_host(const std::string& mount);

/// Whether cgroups can be written: by writing to our own, `own` as /proc/PID/cgroup shows it, what changes nothing. A
/// watchdog that finds out only when something is to be ended ends nothing.
Result<void> check_writable(const std::string& mount, const std::string& own);

/// Of the controllers that limits need, those that are not there in `path`: what limits there and below is not in
/// force. A host may give a user's manager fewer than it has itself.
Result<std::vector<std::string>> read_missing_controllers(const std::string& mount, const std::string& path);

inline constexpr char kMount[] = "/sys/fs/cgroup";

}  // namespace aw::cgroup
