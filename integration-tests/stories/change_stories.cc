// SPDX-License-Identifier: Apache-2.0
//
// Changes to a live run: released, extended, given other limits, joined by a process, and systemd reloaded meanwhile.
#include <csignal>
#include <filesystem>
#include <set>

#include "base/analysis_id.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Ge;
using ::testing::Lt;

constexpr std::uint64_t kMiB = 1U << 20U;

class AReleasedRun : public Story {};

TEST_F(AReleasedRun, LivesOnWithoutAnyLimit) {
  std::vector<Started> runs;
  std::vector<Held> members;
  const Instant began = monotonic_now();
  for (const How how : {How::kLaunched, How::kRegistered}) {
    runs.push_back(start(how, new_id("released " + to_string(how)),
                         {memory_limit(64), tasks(77), wall_clock(12s), grace(1s)},
                         {"children", "3", path("ready " + to_string(how))}));
    await_file("ready " + to_string(how));
    for (const pid_t pid : processes_in(runs.back().folder)) members.emplace_back(pid);
  }
  ASSERT_EQ(members.size(), 14U);

  for (const Started& run : runs) {
    const auto released = watchdog.unregister(run.id);
    ASSERT_EQ(released.error, "") << released.message;
  }

  for (const Started& run : runs) {
    EXPECT_FALSE(watchdog.find(run.id));
    EXPECT_EQ(watchdog.events_of(run.id, "unregistered").size(), 1U);
    EXPECT_TRUE(watchdog.wait_until([&] { return !exists(run.folder); })) << "its slice is still there";
  }
  std::set<std::string> folders;
  for (const Held& member : members) folders.insert(folder_of(member.pid()));
  for (std::string folder : folders) {
    const std::string unit = folder.substr(folder.rfind('/') + 1);
    EXPECT_EQ(unit_number(watchdog, unit, "RuntimeMaxUSec"), UINT64_MAX) << unit;
    for (; folder != "/sys/fs/cgroup"; folder.resize(folder.rfind('/'))) {
      for (const char* file : {"memory.max", "memory.high", "memory.swap.max"}) {
        EXPECT_EQ(line_of(folder + "/" + file), "max") << folder << "/" << file;
      }
      // Absent where nobody has asked for the controller.
      EXPECT_THAT(line_of(folder + "/cpu.max"), ::testing::AnyOf("", "max 100000")) << folder;
      EXPECT_NE(line_of(folder + "/pids.max"), "77") << folder;
    }
  }
  // Past its deadline, its grace and systemd's backstop.
  (void)watchdog.wait_until([&] { return monotonic_now() > began + 12s + 1s + 15s + 4s; });
  for (const Held& member : members) EXPECT_TRUE(member.alive()) << "it did not outlive its old deadline";
  for (const Started& run : runs) EXPECT_TRUE(watchdog.events_of(run.id, "ended").empty());
  for (const Held& member : members) ::kill(member.pid(), SIGKILL);
}

class ADeadline : public Story {};

TEST_F(ADeadline, CanBeExtendedPastSystemdsBackstop) {
  std::vector<Started> runs;
  for (const How how : {How::kLaunched, How::kRegistered}) {
    runs.push_back(start(how, new_id("extended " + to_string(how)), {wall_clock(10s), grace(1s)}, {"stay"}));
  }
  for (const Started& run : runs) {
    const auto before = watchdog.find(run.id);
    ASSERT_TRUE(before);

    const auto extended = watchdog.extend(run.id, 22'000'000);

    ASSERT_EQ(extended.error, "") << extended.message;
    const auto after = watchdog.find(run.id);
    ASSERT_TRUE(after);
    EXPECT_EQ(number(*after, "DeadlineUSec"), number(*before, "DeadlineUSec") + 22'000'000);
    EXPECT_GT(unit_number(watchdog, text(*after, "Unit"), "RuntimeMaxUSec").value_or(0), 25'000'000U);
    EXPECT_EQ(watchdog.events_of(run.id, "extended").size(), 1U);
  }

  for (const Started& run : runs) {
    const Dict end = await_end(run);
    EXPECT_EQ(text(end, "reason"), "wall-clock") << describe(end);
    EXPECT_THAT(number(end, "duration_usec"), Ge(32'000'000U));
    EXPECT_THAT(number(end, "duration_usec"), Lt(45'000'000U));
  }
}

class ALiveRun : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, ALiveRun, kBothWays, way_name);

TEST_P(ALiveRun, IsEndedWhenItsLimitIsSetBelowWhatItHas) {
  // More than the new ceiling, too: the kernel must not come before SIGTERM.
  const auto run = start_it({memory_limit(512), grace(5s)}, {"hold", "200", path("held")});
  await_file("held");

  const auto set = watchdog.set_limits(run.id, {memory_limit(32)});

  EXPECT_EQ(set.error, "") << set.message;
  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "memory") << describe(end);
  EXPECT_EQ(number(end, "memory_limit_bytes"), 32 * kMiB);
  EXPECT_EQ(number(details(end), "memory_events_oom_kill"), 0U) << describe(end);
}

TEST_P(ALiveRun, MayUseMoreWhenItsLimitIsRaised) {
  const auto run = start_it({memory_limit(32)}, {"hold-on-usr1", "60", path("ready"), path("held")});
  await_file("ready");

  const auto set = watchdog.set_limits(run.id, {memory_limit(256)});

  ASSERT_EQ(set.error, "") << set.message;
  ::kill(run.leader, SIGUSR1);
  await_file("held");
  const auto properties = watchdog.find(run.id);
  ASSERT_TRUE(properties) << "it was ended below its limit";
  EXPECT_EQ(text(*properties, "State"), "running");
  EXPECT_EQ(number(*properties, "MemoryLimit"), 256 * kMiB);
  EXPECT_GE(number(*properties, "MemoryUnreclaimable"), 60 * kMiB);
  EXPECT_EQ(line_of(run.folder + "/memory.high"), std::to_string(256 * kMiB));
  EXPECT_EQ(watchdog.events_of(run.id, "limits-changed").size(), 1U);
}

TEST_P(ALiveRun, IsEndedAtAnEarlierDeadline) {
  const auto run = start_it({wall_clock(1h)}, {"stay"});

  ASSERT_EQ(watchdog.set_limits(run.id, {wall_clock(1s)}).error, "");

  EXPECT_EQ(text(await_end(run), "reason"), "wall-clock");
}

TEST_P(ALiveRun, HasWritableProperties) {
  const auto run = start_it({}, {"stay"});
  auto found = watchdog.call("GetAnalysis", [&](bus::Message& m) { m.append(run.id); });
  ASSERT_TRUE(found.ok());
  const std::string object = found.reply.read_path().value_or("");
  const auto set = [&](const char* property, const Value& value) {
    return watchdog
        .call_at(names::kBusName, object, "org.freedesktop.DBus.Properties", "Set",
                 [&](bus::Message& m) { m.append(names::kAnalysisInterface).append(property).append_variant(value); })
        .error;
  };

  EXPECT_EQ(set("TasksMax", {std::uint64_t{99}}), "");
  EXPECT_EQ(set("Id", {std::string("other")}), "org.freedesktop.DBus.Error.PropertyReadOnly");
  EXPECT_EQ(set("TasksMax", {std::string("many")}), names::error::kInvalidOption);

  EXPECT_EQ(number(*watchdog.find(run.id), "TasksMax"), 99U);
  EXPECT_EQ(line_of(run.folder + "/pids.max"), "99");
}

TEST_P(ALiveRun, TakesInOneMoreProcess) {
  const auto run = start_it({}, {"stay"});
  Child more = spawn_workload({"parent", path("child"), "stay"});
  await_file("child");

  const auto attached = watchdog.attach(run.id, static_cast<std::uint32_t>(more.pid()));

  ASSERT_EQ(attached.error, "") << attached.message;
  const auto properties = watchdog.find(run.id);
  ASSERT_TRUE(properties);
  EXPECT_EQ(number(*properties, "ProcessCount"), 3U) << "with the child of the one attached";
  watchdog.let_pass(7s);  // An orphan round: its parent is this story, outside.
  EXPECT_EQ(processes_in(run.folder).size(), 3U);
  const auto members = hold_members(run);
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  EXPECT_EQ(text(await_end(run), "reason"), "requested");
  EXPECT_TRUE(await_all_gone(members, 5s));
}

TEST_P(ALiveRun, KeepsItsLimitsThroughADaemonReload) {
  const auto run = start_it({memory_limit(128), tasks(70), grace(60s)}, {"leak-on-usr1", path("ready"), "512", "2"});
  await_file("ready");
  ASSERT_EQ(watchdog.set_limits(run.id, {memory_limit(40), headroom(24), tasks(80)}).error, "");
  const auto limits = [&] {
    std::string all;
    for (const char* file : {"memory.high", "memory.max", "memory.swap.max", "pids.max"}) {
      all += std::string(file) + "=" + line_of(run.folder + "/" + file) + " ";
    }
    return all + "oom.group=" + line_of(folder_of(run.leader) + "/memory.oom.group");
  };
  const std::string before = limits();
  EXPECT_EQ(before, "memory.high=41943040 memory.max=67108864 memory.swap.max=0 pids.max=80 oom.group=1");

  ASSERT_TRUE(systemctl({"daemon-reload"}));

  EXPECT_EQ(limits(), before);
  EXPECT_EQ(text(*watchdog.find(run.id), "State"), "running");
  ::kill(run.leader, SIGUSR1);
  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "memory") << describe(end);
  EXPECT_FALSE(flag(end, "escalated"));
}

class AForkingTree : public Story {};

TEST_F(AForkingTree, OfTwentyProcessesIsRegisteredWhole) {
  const std::string token = "token-of-" + std::to_string(monotonic_now().time_since_epoch().count());
  Child leader = spawn_workload({"forking-tree", "20", path("ready"), token});
  await_file("ready");
  const std::string id = new_id("live tree");

  const auto registered = watchdog.register_process(id, static_cast<std::uint32_t>(leader.pid()));

  ASSERT_EQ(registered.error, "") << registered.message;
  // What is forked from here on is inside by itself: look until nothing else was seen, three times over.
  for (int look = 0; look < 3; ++look) {
    for (const pid_t pid : find_processes(token)) {
      const std::string folder = folder_of(pid);
      if (folder.empty() || read_file("/proc/" + std::to_string(pid) + "/stat").find(") Z ") != std::string::npos)
        continue;
      EXPECT_TRUE(folder.starts_with(slice_folder(id) + "/")) << pid << " was left in " << folder;
    }
  }
  const auto properties = watchdog.find(id);
  ASSERT_TRUE(properties);
  EXPECT_GE(number(*properties, "ProcessCount"), 20U);
  ASSERT_EQ(watchdog.kill(id).error, "");
  EXPECT_EQ(text(await_end(id), "reason"), "requested");
  EXPECT_TRUE(leader.reap());
  EXPECT_TRUE(watchdog.wait_until([&] { return find_processes(token).empty(); })) << "a part of it lives on";
}

}  // namespace
}  // namespace aw::stories
