// SPDX-License-Identifier: Apache-2.0
//
// Very many at once: as many registrations as the machine carries, all of them alive together, then none. What the
// daemon needed for them it gives back. AW_CHAOS=full is the full size, AW_MANY=N another.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "support/chaos.h"
#include "support/ledger.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::IsEmpty;
using ::testing::Le;

constexpr char kSlices[] = "/sys/fs/cgroup/analysis.slice";
constexpr int kCallers = 16;           ///< who register at the same time, each on a connection of its own
constexpr Span kManyPatience = 15min;  ///< for a guest in which systemd needs some 80 ms for a scope

/// What the daemon holds on to.
struct Holdings {
  int descriptors = 0;
  int inotify_watches = 0;
  std::uint64_t rss_kib = 0;
  friend std::ostream& operator<<(std::ostream& out, const Holdings& held) {
    return out << held.descriptors << " descriptors, " << held.inotify_watches << " inotify watches, RSS "
               << held.rss_kib << " KiB";
  }
};

Holdings holdings_of(pid_t pid) {
  Holdings held;
  const std::string process = "/proc/" + std::to_string(pid);
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fdinfo", gone)) {
    ++held.descriptors;
    std::istringstream lines(read_file(entry.path()));
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("inotify wd:")) ++held.inotify_watches;
    }
  }
  std::istringstream status(read_file(process + "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) held.rss_kib = std::stoul(line.substr(6));
  }
  return held;
}

/// A sanitizer keeps what was freed, to find who uses it all the same.
bool is_sanitized(pid_t pid) {
  return read_file("/proc/" + std::to_string(pid) + "/environ").find("ASAN_OPTIONS=") != std::string::npos;
}

double seconds(Span span) { return static_cast<double>(span.count()) / 1e6; }

class Many : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    forget_bystander();
    ASSERT_TRUE(allow_many_descriptors());
    ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
    ASSERT_TRUE(await_daemon());
    // What is loaded or allocated with the first run is no part of what many need.
    const auto first = start(How::kRegistered, new_id("first"), {wall_clock(1s)}, {"stay"});
    await_end(first);
    ASSERT_TRUE(watchdog.wait_until([&] { return slices_left() == 0 && find_units(watchdog, first.id).empty(); }));
    daemon_ = daemon_pid(watchdog);
    before_ = holdings_of(daemon_);
    units_before_ = units_of_runs();
    std::cout << "before: " << before_ << "\n";
  }

  static std::size_t slices_left() {
    std::size_t count = 0;
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator(kSlices, gone)) count += entry.is_directory(gone);
    return count;
  }

  std::string id_of(int number) const { return prefix_ + std::to_string(number); }

  /// Starts processes and registers them, all callers at once, as fast as it goes. How many a second.
  double burst(int count) {
    std::vector<Child> fresh;
    for (int i = 0; i < count; ++i) fresh.push_back(spawn_workload({"stay"}));
    std::vector<std::unique_ptr<Watchdog>> callers;
    for (int i = 0; i < kCallers; ++i) callers.push_back(std::make_unique<Watchdog>(Hearing::kNothing));
    std::atomic<int> next = 0;
    const int offset = registered_;
    const Instant began = monotonic_now();
    {
      std::vector<std::jthread> threads;
      for (const auto& caller : callers) {
        threads.emplace_back([&] {
          for (int i = next++; i < count; i = next++) {
            const auto told = caller->register_pidfd(id_of(offset + i), fresh[static_cast<std::size_t>(i)].pid(),
                                                     {wall_clock(2h), memory_limit(64), grace(5s)});
            EXPECT_TRUE(told.ok()) << id_of(offset + i) << ": " << told.error << ": " << told.message;
          }
        });
      }
    }
    const double rate = count / seconds(monotonic_now() - began);
    for (Child& child : fresh) processes_.push_back(std::move(child));
    registered_ += count;
    return rate;
  }

  /// Every second one is asked to be killed, the others end by themselves.
  void end_all() {
    std::atomic<int> next = 0;
    const int count = static_cast<int>(processes_.size());
    const int offset = registered_ - count;
    std::vector<std::unique_ptr<Watchdog>> callers;
    for (int i = 0; i < kCallers; ++i) callers.push_back(std::make_unique<Watchdog>(Hearing::kNothing));
    const Instant began = monotonic_now();
    {
      std::vector<std::jthread> threads;
      for (const auto& caller : callers) {
        threads.emplace_back([&] {
          for (int i = next++; i < count; i = next++) {
            if (i % 2 == 1) {
              processes_[static_cast<std::size_t>(i)].signal(SIGTERM);
              continue;
            }
            const auto told = caller->kill(id_of(offset + i));
            EXPECT_TRUE(told.ok()) << id_of(offset + i) << ": " << told.error << ": " << told.message;
          }
        });
      }
    }
    const auto all_ended = [&] {
      return std::all_of(processes_.begin(), processes_.end(),
                         [](const Child& process) { return process.await_end(Span(0)); });
    };
    EXPECT_TRUE(watchdog.wait_until(all_ended, kManyPatience)) << "some of them live on";
    std::cout << count << " processes ended within " << seconds(monotonic_now() - began) << " s\n";
    EXPECT_TRUE(watchdog.wait_until([] { return slices_left() == 0; }, kManyPatience)) << slices_left() << " are left";
    std::cout << "their slices were gone within " << seconds(monotonic_now() - began) << " s\n";
    processes_.clear();
  }

  /// The daemon has done with all of it, too: nothing waits for PID 1 or the disk any more, and it has `more_kib` more
  /// memory than before, at most.
  void expect_as_before(std::uint64_t more_kib) {
    (void)watchdog.wait_until(
        [&] {
          const Holdings now = holdings_of(daemon_);
          return now.descriptors <= before_.descriptors + kSlack && now.inotify_watches <= before_.inotify_watches;
        },
        2min);
    const Holdings after = holdings_of(daemon_);
    std::cout << "afterwards: " << after << "\n";
    EXPECT_EQ(daemon_pid(watchdog), daemon_) << "it was started anew meanwhile";
    EXPECT_THAT(after.descriptors, Le(before_.descriptors + kSlack));
    EXPECT_THAT(after.inotify_watches, Le(before_.inotify_watches));
    if (!is_sanitized(daemon_)) {
      EXPECT_THAT(after.rss_kib, Le(before_.rss_kib + more_kib));
    }
    EXPECT_TRUE(watchdog.wait_until([&] { return units_of_runs() == units_before_; }, 5min))
        << ::testing::PrintToString(units_of_runs());
    EXPECT_EQ(number(watchdog.manager_properties(), "MonitoredCount"), 0U);
  }

  void expect_each_ended_once() {
    std::map<std::string, int> ends;
    std::map<std::string, int> reasons;
    for (const auto& row : read_ledger("kind = 'ended' AND registered_as GLOB '" + prefix_ + "*'")) {
      ++ends[row.at("registered_as").get<std::string>()];
      ++reasons[row.at("reason").get<std::string>()];
    }
    EXPECT_EQ(ends.size(), static_cast<std::size_t>(registered_));
    for (const auto& [id, count] : ends) EXPECT_EQ(count, 1) << id;
    EXPECT_EQ(reasons, (std::map<std::string, int>{{"exited", registered_ / 2}, {"requested", registered_ / 2}}));
  }

  /// The reasons, by id.
  std::map<std::string, std::string> ends_so_far() const {
    std::map<std::string, std::string> ends;
    for (const auto& row : read_ledger("kind = 'ended' AND registered_as GLOB '" + prefix_ + "*'")) {
      ends[row.at("registered_as").get<std::string>()] = row.at("reason").get<std::string>();
    }
    return ends;
  }

  static constexpr int kSlack =
      4;  ///< a file that the ledger has open at the moment, a process that is being looked at
  const std::string prefix_ = "many-" + std::to_string(::getpid()) + "-" +
                              ::testing::UnitTest::GetInstance()->current_test_info()->name() + "-";
  pid_t daemon_ = 0;
  Holdings before_;
  std::vector<std::string> units_before_;
  std::vector<Child> processes_;
  int registered_ = 0;
};

TEST_F(Many, AreCarriedTogetherAndLeaveNothingBehind) {
  const int count = static_cast<int>(number_from_environment("AW_MANY", chaos_size(200, 2000))) / 2 * 2;

  const double rate = burst(count);
  std::cout << count << " runs; " << rate << " registrations a second\n";
  const Holdings full = holdings_of(daemon_);
  std::cout << "with all of them: " << full << "\n";
  EXPECT_EQ(number(watchdog.manager_properties(), "MonitoredCount"), static_cast<std::uint64_t>(count));
  EXPECT_EQ(watchdog.list().size(), static_cast<std::size_t>(count));
  EXPECT_EQ(slices_left(), static_cast<std::size_t>(count));
  // A run of the common kind among them ends on time all the same.
  const auto late = start(How::kRegistered, new_id("among many"), {wall_clock(2s)}, {"stay"});
  const Dict end = await_end(late);
  EXPECT_EQ(text(end, "reason"), "wall-clock");
  std::cout << "a deadline's end among them: " << number(end, "duration_usec") - 2'000'000 << " us after it\n";
  EXPECT_THAT(number(end, "duration_usec"), Le(7'000'000U));
  end_all();

  // It has 4 MiB of the ledger's pages by now, and what is remembered of each run, half a KiB for each event. Between
  // that lies what the runs themselves needed, free for those that come later.
  expect_as_before(8 * 1024 + 10 * static_cast<std::uint64_t>(count));

  // A second time it is there already. What grows every time is a leak.
  before_ = holdings_of(daemon_);
  const int fewer = count / 4 / 2 * 2;
  (void)burst(fewer);
  end_all();
  expect_as_before(2 * 1024 + 2 * static_cast<std::uint64_t>(fewer));
  expect_each_ended_once();
}

TEST_F(Many, AreWatchedAgainByADaemonThatStartsAnewAndThatHearsOfOthersMeanwhile) {
  // More than the calls that the bus lets a connection have under way, with each of which systemd is told of limits.
  const int count = chaos_size(200, 2000) / 2 * 2;
  (void)burst(count);

  ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
  ASSERT_TRUE(await_daemon());
  daemon_ = daemon_pid(watchdog);
  (void)burst(40);  // While it tells systemd the limits of all the others.
  const auto carried = static_cast<std::uint64_t>(count + 40);
  EXPECT_EQ(number(watchdog.manager_properties(), "MonitoredCount"), carried);
  for (const auto& [id, end] : ends_so_far()) ADD_FAILURE() << id << " has ended: " << end;
  EXPECT_EQ(slices_left(), carried);
  end_all();

  expect_each_ended_once();
  EXPECT_TRUE(watchdog.wait_until([&] { return units_of_runs() == units_before_; }, 5min))
      << ::testing::PrintToString(units_of_runs());
}

TEST_F(Many, AtABurstAreEachAnsweredWhateverTheRate) {
  // Short ones, two hundred a second as far as the machine carries it: each is started by somebody who does not wait
  // for the others.
  const int wanted_rate = 200;
  const int count = chaos_size(100, 1000) / 2 * 2;
  std::vector<std::unique_ptr<Watchdog>> callers;
  for (int i = 0; i < kCallers; ++i) callers.push_back(std::make_unique<Watchdog>(Hearing::kNothing));
  std::vector<Child> processes;
  for (int i = 0; i < count; ++i) processes.push_back(spawn_workload({"live", "600000"}));
  std::atomic<int> next = 0;
  std::atomic<std::int64_t> slowest = 0;
  const Instant began = monotonic_now();
  {
    std::vector<std::jthread> threads;
    for (const auto& caller : callers) {
      threads.emplace_back([&] {
        for (int i = next++; i < count; i = next++) {
          // Not before its turn: the rate is what is asked for, not the most there is.
          const Instant turn = began + Span(std::int64_t{1'000'000} * i / wanted_rate);
          if (const Span left = turn - monotonic_now(); left > Span(0)) std::this_thread::sleep_for(left);
          const Instant asked = monotonic_now();
          const auto told = caller->register_pidfd(id_of(i), processes[static_cast<std::size_t>(i)].pid(),
                                                   {wall_clock(2h), memory_limit(64), grace(5s)});
          EXPECT_TRUE(told.ok()) << id_of(i) << ": " << told.error << ": " << told.message;
          const std::int64_t took = Span(monotonic_now() - asked).count();
          std::int64_t so_far = slowest;
          while (took > so_far && !slowest.compare_exchange_weak(so_far, took)) {
          }
          processes[static_cast<std::size_t>(i)].signal(SIGTERM);
        }
      });
    }
  }
  const double rate = count / seconds(monotonic_now() - began);
  std::cout << count << " registrations, " << wanted_rate << " a second wanted, " << rate
            << " reached; the slowest took " << slowest / 1000 << " ms\n";
  EXPECT_TRUE(watchdog.wait_until([] { return slices_left() == 0; }, kManyPatience));
  const auto rows = read_ledger("kind = 'ended' AND registered_as GLOB '" + prefix_ + "*'");
  std::set<std::string> ended;
  for (const auto& row : rows) ended.insert(row.at("registered_as").get<std::string>());
  EXPECT_EQ(rows.size(), static_cast<std::size_t>(count));
  EXPECT_EQ(ended.size(), static_cast<std::size_t>(count));
  expect_as_before(8 * 1024);
}

}  // namespace
}  // namespace aw::stories
