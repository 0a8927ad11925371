// SPDX-License-Identifier: Apache-2.0
#include "simulation/churn.h"

#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "simulation/dice.h"
#include "testing/world.h"

namespace aw::simulation {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using supervise::Limits;
using testing::World;

constexpr unsigned kIds = 20;
constexpr Span kRound = seconds{10};

/// One machine, on which some of a fixed number of analyses begin and end in each round, in all the ways there are.
class Churn {
 public:
  Churn() { world_.pid_max = 2000; }

  std::size_t runs() const { return runs_; }

  void round() {
    for (unsigned i = 0; i < kIds; ++i) {
      const std::string id = "job " + std::to_string(i);
      const bool lives = world_.has_slice(id);
      if (!lives && dice_.chance(60)) begin(id);
      if (lives && dice_.chance(40)) end(id);
    }
    world_.advance(kRound);
    forget();
  }

 private:
  void begin(const std::string& id) {
    const pid_t owner = world_.spawn(world_.user_shell, "worker");
    const pid_t leader = world_.spawn(owner, "analysis");
    for (unsigned i = dice_.below(4); i > 0; --i) (void)world_.spawn(leader, "python");
    Limits limits;
    limits.wall_clock = seconds{1 + dice_.below(120)};
    limits.grace = seconds{1};
    (void)world_.request_register(id, leader, limits);
    owners_.push_back(owner);
    ++runs_;
  }

  void end(const std::string& id) {
    const auto members = world_.members(world_.cgroups.path_of(World::slice_name(id)));
    switch (dice_.below(6)) {
      case 0:
        (void)world_.supervisor.end(World::id(id), world_.caller(), world_.now());
        return;
      case 1:
        return world_.use_memory(id, kGiB + kGiB + kGiB);
      case 2:
        return world_.supervisor.request_unregister(World::id(id), world_.caller(), world_.now(),
                                                    [](const Result<void>&, const Now&) {});
      case 3:
        return world_.supervisor.request_extend(World::id(id), seconds{60}, world_.caller(), world_.now(),
                                                [](const Result<void>&, const Now&) {});
      case 4:  // The leader alone: the rest is orphaned.
        if (!members.empty()) world_.exit(members.front());
        return;
      default:
        for (const pid_t pid : members) world_.exit(pid);
    }
  }

  /// What the world remembers is not the watchdog's.
  void forget() {
    world_.recorder.records.clear();
    world_.recorder.series.clear();
    world_.sent.clear();
    world_.placer.orders.clear();
    std::erase_if(owners_, [this](pid_t owner) {
      if (world_.processes.has_children(owner)) return false;
      if (world_.alive(owner)) world_.exit(owner);
      return true;
    });
    for (const auto& [pid, process] : std::map(world_.all())) {  // Those that were released have done their work.
      if (process.cgroup.find("/analysis.slice/analysis-") != std::string::npos && process.cgroup.ends_with(".scope") &&
          process.cgroup.find(".slice/", sizeof("/analysis.slice/")) == std::string::npos && process.alive()) {
        world_.exit(pid);
      }
    }
  }

  Dice dice_{1};
  World world_;
  std::vector<pid_t> owners_;
  std::size_t runs_ = 0;
};

std::size_t heap_in_use() {
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

}  // namespace

Churned churn(unsigned hours) {
  constexpr unsigned kRoundsPerHour = static_cast<unsigned>(std::chrono::hours{1} / kRound);
  Churned result;
  Churn machine;
  const unsigned rounds = hours * kRoundsPerHour;
  for (unsigned i = 0; i < rounds; ++i) {
    machine.round();
    if (i < rounds / 3) continue;
    std::size_t& most = i < rounds / 3 * 2 ? result.second_third : result.last_third;
    most = std::max(most, heap_in_use());
  }
  result.runs = machine.runs();
  return result;
}

int simulate_churn(unsigned hours) {
  const Churned result = churn(hours);
  if (result.last_third == 0) {  // As under valgrind, whose malloc is its own.
    std::printf("%u hours, %zu runs: the heap has no figures here\n", hours, result.runs);
    return EXIT_SUCCESS;
  }
  std::printf("%u hours, %zu runs: at most %zu bytes of heap in use in the second third, %zu in the last (%s)\n", hours,
              result.runs, result.second_third, result.last_third, result.is_flat() ? "flat" : "GROWING");
  return result.is_flat() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace aw::simulation
