// SPDX-License-Identifier: Apache-2.0
//
// The record: one kill told the same everywhere, the interface as it is promised, and complete accounting for all.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <deque>
#include <map>
#include <set>

#include "analysis_watchdog/words.h"
#include "base/analysis_id.h"
#include "support/manager.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;

constexpr std::uint64_t kMiB = 1U << 20U;

// ---- one kill, everywhere ----

class OneKill : public EitherWay {
 protected:
  static CommandResult journal_of(const std::string& unit) {
    return run_command({"journalctl", "--no-pager", "-o", "json", is_users() ? "--user-unit" : "--unit", unit});
  }
};
INSTANTIATE_TEST_SUITE_P(, OneKill, kBothWays, way_name);

TEST_P(OneKill, IsToldTheSameOnTheBusAndInTheJournal) {
  const auto run = start_it({memory_limit(32), wall_clock(10min), grace(20s)}, {"leak"});

  const Dict end = await_end(run);

  const auto listed = watchdog.events_of(run.id, "ended");
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(describe(listed[0]), describe(end)) << "the signal and ListEvents";

  const auto record = await_journal_record("ANALYSIS_EVENT_ID", text(end, "event_id"));
  ASSERT_TRUE(record) << "no journal record of " << text(end, "event_id");
  const std::map<std::string, std::string> of_text{{"ANALYSIS_ID", "registered_as"}, {"ANALYSIS_RUN_ID", "run_id"},
                                                   {"ANALYSIS_UNIT", "unit"},        {"ANALYSIS_EVENT_ID", "event_id"},
                                                   {"ANALYSIS_EVENT", "kind"},       {"ANALYSIS_REASON", "reason"},
                                                   {"ANALYSIS_COMM", "comm"},        {"OBJECT_SYSTEMD_UNIT", "unit"}};
  for (const auto& [name, key] : of_text) {
    EXPECT_NE(text(end, key), "") << key;
    EXPECT_EQ(field(*record, name), text(end, key)) << name;
    EXPECT_EQ(record->count(name), 1U) << name;
  }
  const std::map<std::string, std::string> of_number{{"ANALYSIS_PID", "pid"},
                                                     {"ANALYSIS_UID", "uid"},
                                                     {"ANALYSIS_MEMORY_CURRENT", "memory_bytes"},
                                                     {"ANALYSIS_MEMORY_PEAK", "memory_peak_bytes"},
                                                     {"ANALYSIS_MEMORY_LIMIT", "memory_limit_bytes"},
                                                     {"ANALYSIS_DURATION_USEC", "duration_usec"},
                                                     {"ANALYSIS_WALL_CLOCK_LIMIT_USEC", "wall_clock_limit_usec"},
                                                     {"ANALYSIS_CPU_USEC", "cpu_usec"},
                                                     {"ANALYSIS_SIGNAL", "signal"}};
  for (const auto& [name, key] : of_number) {
    ASSERT_TRUE(find_number(end, key)) << key;
    EXPECT_EQ(field(*record, name), std::to_string(number(end, key))) << name;
    EXPECT_EQ(record->count(name), 1U) << name;
  }
  EXPECT_EQ(field(*record, "ANALYSIS_ESCALATED"), flag(end, "escalated") ? "1" : "0");
  EXPECT_EQ(field(*record, "MESSAGE_ID").size(), 32U);
  EXPECT_EQ(field(*record, "SYSLOG_IDENTIFIER"), "analysis-watchdogd");

  // And they are the right ones.
  EXPECT_EQ(text(end, "reason"), "memory");
  EXPECT_EQ(text(end, "unit"), scope_unit(AnalysisId::parse(run.id).value()));
  EXPECT_EQ(number(end, "memory_limit_bytes"), 32 * kMiB);
  EXPECT_EQ(number(end, "wall_clock_limit_usec"), 600'000'000U);
  EXPECT_EQ(number(end, "signal"), static_cast<std::uint64_t>(SIGTERM));
  EXPECT_GT(number(end, "cpu_usec"), 0U);
  EXPECT_GT(number(end, "duration_usec"), 0U);
  EXPECT_EQ(number(end, "uid"), ::getuid());
}

TEST_P(OneKill, IsShownByTheToolsOfTheJournal) {
  const auto run = start_it({}, {"stay"});
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  const Dict end = await_end(run);
  ASSERT_TRUE(await_journal_record("ANALYSIS_EVENT_ID", text(end, "event_id")));

  const std::string unit = scope_unit(AnalysisId::parse(run.id).value());
  const auto by_unit = journal_of(unit);
  const auto by_id = run_command({"journalctl", "--no-pager", "-o", "json", "ANALYSIS_ID=" + run.id});
  const auto catalog =
      run_command({"journalctl", "--no-pager", "--catalog", "ANALYSIS_EVENT_ID=" + text(end, "event_id")});

  EXPECT_THAT(by_unit.out, HasSubstr(text(end, "event_id"))) << by_unit.err;
  EXPECT_THAT(by_id.out, HasSubstr(text(end, "event_id"))) << by_id.err;
  EXPECT_THAT(catalog.out, HasSubstr("Subject: An analysis has ended")) << "its MESSAGE_ID has no entry in the catalog";
}

TEST_P(OneKill, IsShownUnderTheScopeThatItsRunBeganIn) {
  const auto run = start_it({wall_clock(1h)}, {"stay"});
  const std::string first = scope_unit(AnalysisId::parse(run.id).value());
  ASSERT_EQ(watchdog.extend(run.id, to_usec(1h)).error, "");  // Past the backstop, which takes another scope.
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  const Dict end = await_end(run);
  ASSERT_NE(text(end, "unit"), first);

  const auto record = await_journal_record("ANALYSIS_EVENT_ID", text(end, "event_id"));
  const auto by_unit = journal_of(first);

  ASSERT_TRUE(record);
  EXPECT_EQ(field(*record, "ANALYSIS_UNIT"), text(end, "unit"));
  EXPECT_EQ(record->count("OBJECT_SYSTEMD_UNIT"), 2U);
  EXPECT_THAT(by_unit.out, HasSubstr(text(end, "event_id"))) << by_unit.err;
}

TEST_P(OneKill, HasItsEventsInOrder) {
  const auto run = start_it({grace(1s)}, {"ignore-term", path("ready")});
  await_file("ready");
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  await_end(run);

  std::vector<std::string> kinds;
  std::uint64_t before = UINT64_MAX;
  for (const Dict& event : watchdog.events({{"AnalysisId", {run.id}}})) {
    kinds.insert(kinds.begin(), text(event, "kind"));
    EXPECT_LE(number(event, "occurred_at"), std::exchange(before, number(event, "occurred_at"))) << "not newest first";
    EXPECT_NE(text(event, "host"), "");
    EXPECT_NE(text(event, "boot_id"), "");
  }

  EXPECT_THAT(kinds, ::testing::ElementsAre("registered", "ending", "escalated", "ended"));
}

// ---- the interface ----

class TheInterface : public Story {
 protected:
  std::string introspect(const std::string& object) {
    auto reply = watchdog.call_at(names::kBusName, object, "org.freedesktop.DBus.Introspectable", "Introspect");
    EXPECT_EQ(reply.error, "") << reply.message;
    return reply.ok() ? reply.reply.read_string().value_or("") : "";
  }
  std::string object_of(const std::string& id) {
    auto found = watchdog.call("GetAnalysis", [&](bus::Message& m) { m.append(id); });
    return found.ok() ? found.reply.read_path().value_or("") : "";
  }
};

TEST_F(TheInterface, IsIntrospectedAsPromised) {
  const auto run = start(How::kRegistered, new_id("introspected"), {}, {"stay"});

  const std::string manager = introspect(names::kManagerPath);
  const std::string analysis = introspect(object_of(run.id));

  for (const char* method :
       {"RegisterAnalysis", "RegisterAnalysisByPidfd", "UnregisterAnalysis", "AttachProcess", "KillAnalysis",
        "SetLimits", "ExtendDeadline", "GetAnalysis", "ListAnalyses", "ListEvents", "GetMetrics"}) {
    EXPECT_THAT(manager, HasSubstr("<method name=\"" + std::string(method) + "\"")) << method;
  }
  for (const char* signal : {"AnalysisRegistered", "AnalysisEnding", "AnalysisEnded", "OrphanFound"}) {
    EXPECT_THAT(manager, HasSubstr("<signal name=\"" + std::string(signal) + "\"")) << signal;
  }
  const auto expect_property = [](const std::string& xml, const char* name, const char* type) {
    EXPECT_THAT(xml, HasSubstr("<property name=\"" + std::string(name) + "\" type=\"" + type + "\"")) << name;
  };
  const std::pair<const char*, const char*> of_manager[] = {{"Version", "s"},
                                                            {"MonitoredCount", "u"},
                                                            {"EndingCount", "u"},
                                                            {"KillsLast24h", "u"},
                                                            {"StoreHealthy", "b"},
                                                            {"UnshippedEvents", "t"},
                                                            {"DefaultMemoryLimit", "t"},
                                                            {"DefaultWallClockLimitUSec", "t"},
                                                            {"DefaultGraceUSec", "t"}};
  for (const auto& [name, type] : of_manager) expect_property(manager, name, type);
  const std::pair<const char*, const char*> of_analysis[] = {{"MemoryLimit", "t"},
                                                             {"MemoryHeadroom", "t"},
                                                             {"WallClockLimitUSec", "t"},
                                                             {"GraceUSec", "t"},
                                                             {"TasksMax", "t"},
                                                             {"CPUQuotaPerSecUSec", "t"},
                                                             {"CPUWeight", "t"},
                                                             {"OrphanPolicy", "s"},
                                                             {"OwnerPolicy", "s"},
                                                             {"Description", "s"},
                                                             {"Labels", "a{ss}"},
                                                             {"Id", "s"},
                                                             {"RunId", "s"},
                                                             {"Unit", "s"},
                                                             {"LeaderPid", "u"},
                                                             {"OwnerPid", "u"},
                                                             {"Uid", "u"},
                                                             {"State", "s"},
                                                             {"RegisteredAtUSec", "t"},
                                                             {"DeadlineUSec", "t"},
                                                             {"RegisteredAtRealtimeUSec", "t"},
                                                             {"DeadlineRealtimeUSec", "t"},
                                                             {"MemoryCurrent", "t"},
                                                             {"MemoryUnreclaimable", "t"},
                                                             {"MemoryPeak", "t"},
                                                             {"CPUUsageUSec", "t"},
                                                             {"ProcessCount", "u"},
                                                             {"OrphanCount", "u"},
                                                             {"LimitsNotInForce", "as"}};
  for (const auto& [name, type] : of_analysis) expect_property(analysis, name, type);
  // What is introspected is what is served.
  const auto properties = watchdog.find(run.id);
  ASSERT_TRUE(properties);
  for (const auto& [name, type] : of_analysis) {
    const Value* value = bus::find(*properties, name);
    ASSERT_NE(value, nullptr) << name;
    EXPECT_STREQ(bus::signature_of(*value), type) << name;
  }
  const Dict served = watchdog.manager_properties();
  for (const auto& [name, type] : of_manager) {
    const Value* value = bus::find(served, name);
    ASSERT_NE(value, nullptr) << name;
    EXPECT_STREQ(bus::signature_of(*value), type) << name;
  }
}

TEST_F(TheInterface, HasTheRunAsItIs) {
  Dict options{memory_limit(100),
               headroom(20),
               wall_clock(1h),
               grace(7s),
               tasks(50),
               {"CPUWeight", {std::uint64_t{50}}},
               {"CPUQuotaPerSecUSec", {std::uint64_t{900000}}},
               orphan_policy("report"),
               owner_policy("ignore"),
               {"Description", {std::string("a story")}},
               {"Labels", {bus::StringMap{{"team", "astro"}}}}};
  const Instant before = monotonic_now();
  const auto run = start(How::kRegistered, new_id("live"), options, {"children", "2", path("ready")});
  await_file("ready");

  const auto a = watchdog.find(run.id);

  ASSERT_TRUE(a);
  for (const auto& [name, value] : options)
    EXPECT_EQ(describe({{"", *bus::find(*a, name)}}), describe({{"", value}})) << name;
  EXPECT_EQ(text(*a, "Id"), run.id);
  EXPECT_EQ(text(*a, "RunId").size(), 36U);
  EXPECT_EQ(text(*a, "Unit"), scope_unit(AnalysisId::parse(run.id).value()));
  EXPECT_EQ(number(*a, "LeaderPid"), static_cast<std::uint64_t>(run.leader));
  EXPECT_EQ(text(*a, "State"), "running");
  EXPECT_EQ(number(*a, "ProcessCount"), 5U);
  EXPECT_EQ(number(*a, "OrphanCount"), 0U);
  EXPECT_GE(number(*a, "RegisteredAtUSec"), static_cast<std::uint64_t>(before.time_since_epoch().count()));
  EXPECT_EQ(number(*a, "DeadlineUSec"), number(*a, "RegisteredAtUSec") + to_usec(1h));
  EXPECT_EQ(number(*a, "DeadlineRealtimeUSec"), number(*a, "RegisteredAtRealtimeUSec") + to_usec(1h));
  EXPECT_GT(number(*a, "MemoryUnreclaimable"), 0U);
  EXPECT_LE(number(*a, "MemoryUnreclaimable"), number(*a, "MemoryPeak") + kMiB);
  EXPECT_GT(number(*a, "CPUUsageUSec"), 0U);
  // In the kernel, too.
  EXPECT_EQ(line_of(run.folder + "/memory.high"), std::to_string(100 * kMiB));
  EXPECT_EQ(line_of(run.folder + "/memory.max"), std::to_string(120 * kMiB));
  EXPECT_EQ(line_of(run.folder + "/memory.swap.max"), "0");
  EXPECT_EQ(line_of(run.folder + "/pids.max"), "50");
  EXPECT_EQ(line_of(run.folder + "/cpu.max"), "90000 100000");
  EXPECT_EQ(line_of(run.folder + "/cpu.weight"), "50");
  EXPECT_EQ(line_of(scope_folder(run.id) + "/memory.oom.group"), "1");
  const std::string unit = text(*a, "Unit");
  EXPECT_EQ(unit_number(watchdog, unit, "TimeoutStopUSec"), 7'000'000U);
  EXPECT_GT(unit_number(watchdog, unit, "RuntimeMaxUSec").value_or(0), to_usec(1h) + 7'000'000U);
  EXPECT_EQ(unit_text(watchdog, unit, "Description"), "a story");
  // And in the list.
  bool listed = false;
  for (const Dict& other : watchdog.list()) listed |= text(other, "RunId") == text(*a, "RunId");
  EXPECT_TRUE(listed);
}

TEST_F(TheInterface, ManagesItsObjects) {
  const auto run = start(How::kRegistered, new_id("object"), {}, {"stay"});
  const std::string object = object_of(run.id);

  auto managed =
      watchdog.call_at(names::kBusName, names::kManagerPath, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects");
  ASSERT_EQ(managed.error, "") << managed.message;
  std::map<std::string, Dict> objects;
  ASSERT_TRUE(managed.reply.enter('a', "{oa{sa{sv}}}"));
  while (!managed.reply.at_end()) {
    ASSERT_TRUE(managed.reply.enter('e', "oa{sa{sv}}"));
    const auto where = managed.reply.read_path();
    ASSERT_TRUE(managed.reply.enter('a', "{sa{sv}}"));
    while (!managed.reply.at_end()) {
      ASSERT_TRUE(managed.reply.enter('e', "sa{sv}"));
      const auto interface = managed.reply.read_string();
      const auto properties = managed.reply.read_dict();
      if (interface && *interface == names::kAnalysisInterface) objects[*where] = properties.value_or({});
      ASSERT_TRUE(managed.reply.leave());
    }
    ASSERT_TRUE(managed.reply.leave());
    ASSERT_TRUE(managed.reply.leave());
  }
  ASSERT_TRUE(objects.contains(object));
  EXPECT_EQ(text(objects[object], "Id"), run.id);

  EXPECT_TRUE(watchdog.await_signal("InterfacesAdded", object));
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  EXPECT_TRUE(watchdog.await_signal("InterfacesRemoved", object));
  await_end(run);
}

TEST_F(TheInterface, TellsWhatChanges) {
  const auto counts = [&] { return number(watchdog.manager_properties(), "MonitoredCount"); };
  const std::uint64_t before = counts();
  const auto told = [&](std::uint64_t wanted) {
    return watchdog.wait_until([&] {
      for (const Signal& signal : watchdog.signals()) {
        if (signal.member == "PropertiesChanged" && signal.path == names::kManagerPath &&
            find_number(signal.record, "MonitoredCount") == wanted) {
          return true;
        }
      }
      return false;
    });
  };

  const auto run = start(How::kRegistered, new_id("counted"), {}, {"stay"});
  EXPECT_EQ(counts(), before + 1);
  EXPECT_TRUE(told(before + 1));
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  await_end(run);
  EXPECT_EQ(counts(), before);
  EXPECT_GE(number(watchdog.manager_properties(), "KillsLast24h"), 1U);
}

TEST_F(TheInterface, FiltersEvents) {
  const auto wall_time = [] {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count());
  };
  const auto first = start(How::kRegistered, new_id("first"), {}, {"exit", "0"});
  await_end(first);
  const std::uint64_t between = wall_time();
  const auto second = start(How::kRegistered, new_id("second"), {}, {"stay"});
  ASSERT_EQ(watchdog.kill(second.id).error, "");
  await_end(second);

  for (const Dict& event : watchdog.events({{"AnalysisId", {first.id}}}))
    EXPECT_EQ(text(event, "registered_as"), first.id);
  EXPECT_GE(watchdog.events({{"AnalysisId", {first.id}}}).size(), 2U);
  for (const Dict& event : watchdog.events({{"Kind", {std::string("ended")}}})) EXPECT_EQ(text(event, "kind"), "ended");
  for (const Dict& event : watchdog.events({{"Reason", {std::string("requested")}}})) {
    EXPECT_EQ(text(event, "reason"), "requested");
  }
  EXPECT_EQ(watchdog.events({{"Limit", {std::uint32_t{1}}}}).size(), 1U);
  const Dict ended_since{{"AnalysisId", {first.id}}, {"Kind", {std::string("ended")}}, {"Since", {between}}};
  EXPECT_TRUE(watchdog.events(ended_since).empty());  // Its zombie may have been reported since.
  EXPECT_FALSE(watchdog.events({{"AnalysisId", {second.id}}, {"Since", {between}}}).empty());
  const auto bad = [&](const Dict& filter) {
    return watchdog.call("ListEvents", [&](bus::Message& m) { m.append(filter); }).error;
  };
  EXPECT_EQ(bad({{"Reason", {std::string("boredom")}}}), names::error::kInvalidOption);
  EXPECT_EQ(bad({{"Nothing", {std::string("x")}}}), names::error::kInvalidOption);
  EXPECT_EQ(bad({{"Limit", {std::uint64_t{1}}}}), names::error::kInvalidOption);
}

// ---- accounting ----

class Accounting : public Story {
 protected:
  static void expect_complete(const Dict& end, std::uint64_t status) {
    EXPECT_EQ(text(end, "reason"), "exited") << describe(end);
    EXPECT_EQ(find_number(end, "exit_code"), status) << describe(end);
    EXPECT_GT(number(end, "memory_peak_bytes"), 0U) << describe(end);
    EXPECT_GT(number(end, "cpu_usec"), 0U) << describe(end);
    EXPECT_TRUE(find_number(end, "duration_usec")) << describe(end);
    EXPECT_TRUE(find_number(details(end), "memory_events_oom_kill")) << describe(end);
  }
};

TEST_F(Accounting, IsCompleteForARunOfFiveMilliseconds) {
  for (const How how : {How::kLaunched, How::kRegistered}) {
    const auto run = start(how, new_id("short " + to_string(how)), {}, {"live", "5", "7"});
    expect_complete(await_end(run.id), 7);
  }
}

TEST_F(Accounting, IsCompleteForFiveHundredRunsOfTrue) {
  constexpr int kRuns = 500;
  constexpr std::size_t kAtOnce = 4;
  const std::string head = "true " + std::to_string(::getpid()) + "-";
  std::deque<Child> running;
  std::map<std::string, std::uint64_t> statuses;
  for (int i = 0; i < kRuns; ++i) {
    if (running.size() == kAtOnce) {
      EXPECT_EQ(running.front().reap(), 0);
      running.pop_front();
    }
    running.push_back(Child::spawn({"analysis-run", "--id=" + own(head + std::to_string(i)), "--", "true"}));
    if ((i + 1) % 100 == 0) std::printf("%d runs of true\n", i + 1), std::fflush(stdout);
  }
  for (Child& child : running) EXPECT_EQ(child.reap(), 0);

  std::map<std::string, int> ends;
  for (const Dict& end : watchdog.events({{"Kind", {std::string("ended")}}, {"Limit", {std::uint32_t{5000}}}})) {
    if (!text(end, "registered_as").starts_with(head)) continue;
    ++ends[text(end, "registered_as")];
    expect_complete(end, 0);
    EXPECT_EQ(text(end, "comm"), "true");
  }
  EXPECT_EQ(ends.size(), static_cast<std::size_t>(kRuns));
  for (const auto& [id, count] : ends) EXPECT_EQ(count, 1) << id;
}

}  // namespace
}  // namespace aw::stories
