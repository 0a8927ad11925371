// SPDX-License-Identifier: Apache-2.0
//
// One history of a machine with a watchdog on it, from a seed: a policy, some programs, and a number of things that
// happen, each of which may happen on any host. The daemon may be killed at any of them, and in the middle of any. A
// witness looks on. The same seed is the same history, always and everywhere.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>

#include "simulation/dice.h"
#include "simulation/witness.h"
#include "testing/world.h"

namespace aw::simulation {

/// What has happened in a history, or in many: so that one can see whether it was much.
struct Tally {
  std::uint64_t histories = 0;
  std::uint64_t steps = 0;
  std::uint64_t registered = 0;
  std::uint64_t refused = 0;
  std::uint64_t unregistered = 0;
  std::uint64_t adopted = 0;
  std::uint64_t escalated = 0;
  std::uint64_t orphans = 0;
  std::uint64_t reboots = 0;
  std::map<std::string, std::uint64_t> deeds;    ///< by name
  std::map<std::string, std::uint64_t> crashes;  ///< by the call that was not made; "" between two steps
  std::array<std::uint64_t, kReasonWords.size()> ends{};

  void add(const Tally& other);
  std::uint64_t crash_count() const;
};

struct Options {
  unsigned steps = 60;
  std::function<void(const std::string&)> tell = {};  ///< each step in words
  /// For tests of the witness: what does wrong after each step, when a daemon has started, and with each record
  /// (false: it is dropped).
  std::function<void(testing::World&)> meddle = {};
  std::function<void(testing::World&)> on_start = {};
  std::function<bool(supervise::EventRecord&)> tamper = {};
};

/// Something that must not have been, and when.
struct Violation {
  std::uint64_t seed = 0;
  unsigned step = 0;
  std::string what;
};

class History {
 public:
  explicit History(std::uint64_t seed, Options options = {});

  /// To be called once. Nothing: all was as it must be.
  std::optional<Violation> play();
  const Tally& tally() const { return tally_; }
  testing::World& world() { return world_; }

 private:
  /// kill -9, in the middle of a call into the heart.
  struct Crash {
    const char* call;
  };
  struct Deed {
    const char* name;
    unsigned weight;
    bool needs_daemon;
    void (History::*what)();
  };
  static const std::vector<Deed>& all_deeds();

  template <class... Parts>
  void say(const Parts&... parts) {
    if (!options_.tell) return;
    std::ostringstream text;
    (text << ... << parts);
    options_.tell(format_span(passed_) + "  " + text.str());
  }

  // history.cc
  static supervise::Policy any_policy(std::uint64_t seed);
  static supervise::Machine any_machine(std::uint64_t seed);
  void populate();
  void step();
  void attempt(const std::function<void()>& what);
  void before_call(const char* call);
  void go_down(const char* call, bool by_reboot);
  void come_up();
  void pass(Span span);
  void settle();
  bool seen() const { return witness_.complaint().has_value(); }

  // subjects.cc: who it happens to
  const std::string& any_id() { return dice_.one_of(ids_); }
  supervise::Limits any_limits();
  supervise::Caller any_caller();
  pid_t fork_of(pid_t parent, const char* comm);
  pid_t any_member(const std::string& id);
  pid_t any_worker();
  std::vector<pid_t> members_of(const std::string& id) const;
  std::string cgroup_of(const std::string& id) const { return world_.cgroups.path_of(testing::World::slice_name(id)); }
  std::unique_ptr<supervise::ProcessHandle> hold(pid_t pid);

  // requests.cc
  void register_new();
  void register_tree();
  void register_odd();
  void attach();
  void unregister();
  void set_limits();
  void extend();
  void end();
  void request_register(const std::string& id, pid_t pid);
  void ask_to_end(const std::string& id);

  // happenings.cc
  bool is_at_work(pid_t pid);
  void fork();
  void daemonize();
  void exit();
  void exit_whole();
  void die_of_signal();
  void be_killed();
  void lose_owner();
  void grow();
  void overrun_parent();
  void stall();
  void sleep_or_wake();
  void stop_or_freeze();
  void grow_over(testing::Slice& slice, const std::string& id);

  // faults.cc
  void stop_unit();
  void trouble_notifications();
  void trouble_systemd();
  void lose_answers();
  void lose_bus();
  void bring_bus_back();
  void lose_unit();
  void trouble_readings();
  void trouble_loop();
  void trouble_ledger();
  void trouble_descriptors();
  void take_slice();
  void set_wall_clock();
  void pass_a_moment();
  void pass_a_while();
  void crash();
  void crash_soon();
  void reboot();
  void return_to_health();

  const std::uint64_t seed_;
  const Options options_;
  Dice dice_;
  Dice fate_;  ///< of what is decided while the heart works
  const supervise::Policy policy_;
  testing::World world_;
  Witness witness_;
  std::vector<std::string> ids_;
  std::vector<pid_t> workers_;
  pid_t bystander_ = 0;
  pid_t service_ = 0;
  bool up_ = true;
  bool disk_is_stuck_ = false;
  bool record_unread_ = false;        ///< by the daemon that is there
  bool late_units_ = false;           ///< systemd has made some that were asked for by a daemon that died
  std::optional<unsigned> crash_in_;  ///< so many calls from now
  unsigned step_ = 0;
  Span passed_{0};
  Tally tally_;
};

}  // namespace aw::simulation
