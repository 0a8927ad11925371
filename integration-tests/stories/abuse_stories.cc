// SPDX-License-Identifier: Apache-2.0
//
// What a user does who means no good, or a program that has gone wrong: pids and identities that change under the
// watchdog's hands, clients that go away in the middle, floods, and calls with whatever arguments.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <iostream>
#include <random>
#include <thread>

#include "base/analysis_id.h"
#include "support/chaos.h"
#include "support/story.h"
#include "support/users.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kUser[] = "story-owner";
constexpr char kFlooder[] = "story-other";

class Abuse : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    make_user(kUser);
    make_user(kFlooder);
    ::chmod(path("").c_str(), 01777);
  }

  static Child spawn_users(const std::string& user = kUser) { return spawn_as(user, {workload_program(), "stay"}); }
  static std::uint32_t pid_of(const Child& child) { return static_cast<std::uint32_t>(child.pid()); }
  static bool in_a_run(pid_t pid) { return folder_of(pid).find("/analysis.slice/") != std::string::npos; }

  /// The workload with the set-uid bit of root.
  std::string set_uid_workload() {
    const std::string program = path("set-uid");
    EXPECT_EQ(run_command({"cp", workload_program(), program}).status, 0);
    EXPECT_EQ(::chmod(program.c_str(), 04755), 0);
    return program;
  }
};

// ---- who it is ----

TEST_F(Abuse, OfASetUidProgramIsRefusedToWhoeverStartedIt) {
  const Child process = spawn_as(kUser, {set_uid_workload(), "stay"});
  const std::string before = folder_of(process.pid());
  Watchdog user(Hearing::kNothing, kUser);

  const std::string id = new_id("set-uid");
  for (const auto& refused : {user.register_process(id, pid_of(process)), user.register_pidfd(id, process.pid())}) {
    EXPECT_THAT(refused.error, ::testing::AnyOf(names::error::kProtectedProcess, names::error::kAccessDenied));
  }
  EXPECT_EQ(folder_of(process.pid()), before);
}

TEST_F(Abuse, ByATargetThatExecutesASetUidProgramMeanwhileMovesNoneOfRoots) {
  const std::string program = set_uid_workload();
  Watchdog user(Hearing::kNothing, kUser);
  std::mt19937_64 dice(chaos_seed());
  int refused = 0;
  constexpr int kRounds = 25;
  for (int round = 0; round < kRounds; ++round) {
    // It becomes root's program some time between the call and the move.
    const std::string pause = "0." + std::to_string(100 + dice() % 300);
    const Child process = spawn_as(kUser, {"sh", "-c", "sleep " + pause + "; exec " + program + " stay"});
    const std::string before = folder_of(process.pid());
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 300));

    const std::string id = new_id("meanwhile " + std::to_string(round));
    const auto done = user.register_pidfd(id, process.pid());

    if (done.ok()) {  // It was the user's still when all was done.
      EXPECT_EQ(watchdog.kill(id).error, "");
      (void)await_end(id);
      continue;
    }
    ++refused;
    EXPECT_TRUE(watchdog.wait_until([&] { return folder_of(process.pid()) == before || !in_a_run(process.pid()); }))
        << "it was left in " << folder_of(process.pid());
    EXPECT_TRUE(Held(process.pid()).alive()) << done.message;
  }
  std::cout << refused << " of " << kRounds << " were refused\n";
}

TEST_F(Abuse, ByATreeWithAnothersProcessInItTakesNoneOfThoseAlong) {
  // The set-uid program is started by the leader, and is root's.
  const std::string program = set_uid_workload();
  const Child leader = spawn_as(kUser, {"sh", "-c", program + " stay & exec " + workload_program() + " stay"});
  const std::string before = folder_of(leader.pid());
  ASSERT_TRUE(watchdog.wait_until([&] { return !find_processes(program).empty(); }));
  Watchdog user(Hearing::kNothing, kUser);

  const auto refused = user.register_pidfd(new_id("mixed tree"), leader.pid());

  EXPECT_THAT(refused.error, ::testing::AnyOf(names::error::kProtectedProcess, names::error::kAccessDenied))
      << refused.message;
  EXPECT_EQ(folder_of(leader.pid()), before);
  for (const pid_t pid : find_processes(program)) {
    EXPECT_FALSE(in_a_run(pid));
    ::kill(pid, SIGKILL);
  }
}

TEST_F(Abuse, OfAPidThatIsAnothersByThenRegistersAndKillsNobodyElse) {
  std::mt19937_64 dice(chaos_seed());
  Watchdog user(Hearing::kNothing, kUser);
  int forced = 0;
  for (int round = 0; round < 25; ++round) {
    auto meant = std::make_unique<Child>(spawn_users());
    const pid_t pid = meant->pid();
    const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const bool by_number = round % 2 == 0;
    const std::string id = new_id("reused " + std::to_string(round));

    std::atomic<bool> begun = false;
    Outcome done;
    std::thread caller([&] {
      begun = true;
      done = by_number ? user.register_process(id, static_cast<std::uint32_t>(pid))
                       : user.call("RegisterAnalysisByPidfd",
                                   [&](bus::Message& m) { m.append(id).append(pidfd).append(Dict{}); });
    });
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 120));
    meant->signal(SIGKILL);
    (void)meant->reap();
    // The next one of that pid is root's: nothing that the user may register, end or limit.
    SpawnOptions options;
    options.wanted = pid;
    const Child other = Child::spawn({workload_program(), "stay"}, options);
    caller.join();
    if (other.pid() != pid) continue;  // Somebody was faster.
    ++forced;

    // A run that was there for a moment has ended; who got the pid is where it was, and lives.
    EXPECT_TRUE(watchdog.wait_until([&] { return !watchdog.find(id); })) << done.error;
    EXPECT_TRUE(watchdog.wait_until([&] { return !in_a_run(other.pid()); })) << folder_of(other.pid());
    EXPECT_TRUE(Held(other.pid()).alive()) << done.error << " " << done.message;
  }
  EXPECT_GT(forced, 5) << "the pids were not used again";
}

// ---- what it is called ----

TEST_F(Abuse, WithAnIdThatIsCodeIsTextEverywhere) {
  // One for each place that an id goes to.
  for (const std::string& id : {
           std::string("x'); DROP TABLE watchdog_events;--"),
           std::string("<script>alert(1)</script>"),
           std::string("a\",reason=\"oom\"} 1 #"),
           std::string("../../system.slice/dbus.service"),
           std::string("x ANALYSIS_REASON=oom"),
       }) {
    SCOPED_TRACE(id);
    const auto run = start(How::kRegistered, own(id), {}, {"stay"});
    EXPECT_THAT(run.folder, StartsWith("/sys/fs/cgroup/analysis.slice/analysis-"));
    ASSERT_EQ(watchdog.kill(id).error, "");
    const Dict end = await_end(run);
    EXPECT_EQ(text(end, "registered_as"), id);
    const auto shown = run_command({"analysisctl", "events", "--json=short", "--id", id});
    EXPECT_EQ(shown.status, 0) << shown.err;
  }
  // The terminal's: legal bytes of C1 are control characters, and refused like the others.
  const Child process = spawn_users();
  for (const char* id : {"a\x1b[2Jb",
                         "a\xc2\x9b"
                         "2Jb",
                         "a\rb"}) {
    EXPECT_EQ(watchdog.register_process(id, pid_of(process)).error, names::error::kInvalidId);
  }
}

// ---- going away, and too much ----

TEST_F(Abuse, ByAClientThatGoesAwayInTheMiddleLeavesNothingHalfDone) {
  std::mt19937_64 dice(chaos_seed());
  int registered = 0;
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    const Child process = spawn_users();
    const std::string id = new_id("gone " + std::to_string(round));
    Child client = spawn_as(kUser, {"busctl", "call", names::kBusName, names::kManagerPath, names::kManagerInterface,
                                    "RegisterAnalysis", "sua{sv}", id, std::to_string(process.pid()), "0"});
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 400));
    client.signal(SIGKILL);
    (void)client.reap();

    // Either it is a run, with its process in it, or there is nothing of it.
    const auto whole = [&] {
      const auto run = watchdog.find(id);
      if (run) return text(*run, "State") == "running" && folder_of(process.pid()) == scope_folder(id);
      return find_units(watchdog, id).empty() && !in_a_run(process.pid());
    };
    EXPECT_TRUE(watchdog.wait_until(whole)) << id << " in " << folder_of(process.pid());
    if (!watchdog.find(id)) continue;
    ++registered;
    EXPECT_EQ(watchdog.kill(id).error, "");
    (void)await_end(id);
  }
  std::cout << registered << " of " << kRounds << " were registered all the same\n";
}

TEST_F(Abuse, ByOneUidIsNoHindranceToAnother) {
  Watchdog user(Hearing::kNothing, kUser);
  // What it takes with nobody else there.
  Span alone = Span::max();
  for (int i = 0; i < 3; ++i) {
    const Child process = spawn_users();
    const std::string id = new_id("alone " + std::to_string(i));
    const Instant begun = monotonic_now();
    ASSERT_EQ(user.register_pidfd(id, process.pid()).error, "");
    alone = std::min(alone, monotonic_now() - begun);
    ASSERT_EQ(watchdog.kill(id).error, "");
    (void)await_end(id);
  }

  // Six clients of one uid: some register and let go, some ask for lists, without a pause.
  constexpr int kClients = 6;
  std::vector<std::unique_ptr<Watchdog>> clients;
  std::vector<std::unique_ptr<Child>> processes;
  std::vector<std::string> ids;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<Watchdog>(Hearing::kNothing, kFlooder));
    processes.push_back(std::make_unique<Child>(spawn_users(kFlooder)));
    ids.push_back(new_id("flood " + std::to_string(i)));
  }
  std::atomic<bool> over = false;
  std::atomic<int> calls = 0;
  std::vector<std::thread> flood;
  for (std::size_t i = 0; i < kClients; ++i) {
    flood.emplace_back([&, i] {
      while (!over) {
        if (i < kClients / 2) {
          (void)clients[i]->register_process(ids[i], pid_of(*processes[i]));
          (void)clients[i]->unregister(ids[i]);
          ++calls;
        } else {
          (void)clients[i]->events({});
        }
        ++calls;
      }
    });
  }

  const Child timed = spawn_users();
  const std::string timed_id = new_id("timed");
  EXPECT_EQ(user.register_pidfd(timed_id, timed.pid(), {wall_clock(4s), grace(5s)}).error, "");
  Span slowest{0};
  for (int i = 0; i < 5; ++i) {
    const Child process = spawn_users();
    const std::string id = new_id("beside " + std::to_string(i));
    const Instant begun = monotonic_now();
    EXPECT_EQ(user.register_pidfd(id, process.pid()).error, "");
    slowest = std::max(slowest, monotonic_now() - begun);
    EXPECT_EQ(user.kill(id).error, "");
  }
  const Dict end = await_end(timed_id);
  over = true;
  for (std::thread& thread : flood) thread.join();

  std::cout << calls << " calls; a registration takes " << alone.count() / 1000 << " ms alone, at most "
            << slowest.count() / 1000 << " ms in the flood\n";
  EXPECT_GT(calls, 10);
  // A second on a machine; the guest is emulated, and there a registration by itself takes most of that.
  EXPECT_LT(slowest, std::max<Span>(1s, alone * 8));
  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_LT(number(end, "duration_usec"), to_usec(4s + 2s));
}

// ---- whatever arguments ----

class Babble {
 public:
  explicit Babble(std::uint64_t seed) : dice_(seed) {}
  std::size_t below(std::size_t end) { return dice_() % end; }

  std::string text() {
    static const std::vector<std::string> kTexts{
        "",  "a",        "story",  std::string(255, 'x'), std::string(5000, 'y'), "\xc3\xbc", "../..", "a\nb", "-",
        "%", "\x7f\x01", "running"};
    return kTexts[below(kTexts.size())];
  }
  std::uint64_t number() {
    static const std::vector<std::uint64_t> kNumbers{0, 1, 2, 4096, 1U << 30U, INT64_MAX, UINT64_MAX, UINT32_MAX};
    return kNumbers[below(kNumbers.size())];
  }
  Value value() {
    switch (below(6)) {
      case 0:
        return {text()};
      case 1:
        return {number()};
      case 2:
        return {static_cast<std::uint32_t>(number())};
      case 3:
        return {bus::StringMap{{text(), text()}, {"k", text()}}};
      case 4:
        return {below(2) == 0};
      default:
        return {static_cast<std::int32_t>(below(1000))};
    }
  }
  Dict options() {
    static const std::vector<std::string> kNames{"MemoryLimit", "MemoryHeadroom", "WallClockLimitUSec",
                                                 "GraceUSec",   "TasksMax",       "CPUQuotaPerSecUSec",
                                                 "CPUWeight",   "OrphanPolicy",   "OwnerPolicy",
                                                 "Description", "Labels",         "Since",
                                                 "Limit",       "AnalysisId",     "Reason",
                                                 "Kind",        "Nothing"};
    Dict dict;
    for (std::size_t i = below(4); i > 0; --i) dict.emplace_back(kNames[below(kNames.size())], value());
    return dict;
  }

 private:
  std::mt19937_64 dice_;
};

TEST_F(Abuse, WithAnyArgumentsHasNoEffectThatTheCallerHasNoRightTo) {
  const auto roots = start(How::kRegistered, new_id("roots"), {memory_limit(128)}, {"stay"});
  const auto before = watchdog.find(roots.id);
  ASSERT_TRUE(before);
  const pid_t daemon = daemon_pid(watchdog);
  const Child target = spawn_users(kFlooder);
  const auto seed = chaos_seed();
  std::cout << "AW_SEED=" << seed << "\n";
  Babble babble(seed);
  Watchdog user(Hearing::kNothing, kFlooder);
  // Its own ids all begin alike, so that what is left of them is found.
  const std::vector<std::string> ids{roots.id, own("babble 1"), own("babble 2"), own("babble/3")};
  const std::vector<std::uint32_t> pids{
      pid_of(target), 1, static_cast<std::uint32_t>(daemon), static_cast<std::uint32_t>(roots.leader), 0, 2,
      UINT32_MAX};
  const auto id = [&] { return babble.below(3) == 0 ? babble.text() : ids[babble.below(ids.size())]; };
  const auto pid = [&] { return pids[babble.below(pids.size())]; };

  const Instant end = monotonic_now() + std::chrono::seconds(number_from_environment("AW_FUZZ_SECONDS", 20));
  std::size_t calls = 0;
  for (; monotonic_now() < end; ++calls) {
    const std::string path = babble.below(2) == 0 ? std::string(names::kManagerPath)
                                                  : std::string(names::kAnalysisPathPrefix) + "/" +
                                                        escape_for_path(ids[babble.below(ids.size())]);
    const std::vector<std::function<void()>> all{
        [&] { (void)user.register_process(id(), pid(), babble.options()); },
        [&] { (void)user.register_pidfd(id(), static_cast<pid_t>(pid()), babble.options()); },
        [&] { (void)user.unregister(id()); },
        [&] { (void)user.attach(id(), pid()); },
        [&] { (void)user.kill(ids[babble.below(1)]); },  // Root's: its own would leave nothing to try with.
        [&] { (void)user.set_limits(id(), babble.options()); },
        [&] { (void)user.extend(id(), babble.number()); },
        [&] { (void)user.find(id()); },
        [&] { (void)user.list(); },
        [&] { (void)user.events(babble.options()); },
        [&] {
          (void)user.call_at(names::kBusName, path, "org.freedesktop.DBus.Properties", "Set", [&](bus::Message& m) {
            m.append(names::kAnalysisInterface).append("GraceUSec").append_variant(babble.value());
          });
        },
        [&] {
          (void)user.call_at(names::kBusName, path, "org.freedesktop.DBus.Properties", "Get",
                             [&](bus::Message& m) { m.append(babble.text()).append(babble.text()); });
        },
        [&] { (void)user.call_at(names::kBusName, path, "org.freedesktop.DBus.Introspectable", "Introspect"); },
        [&] { (void)user.call("RegisterAnalysis", [&](bus::Message& m) { m.append(babble.options()); }); },
    };
    all[babble.below(all.size())]();
  }
  std::cout << calls << " calls\n";
  for (std::size_t i = 1; i < ids.size(); ++i) (void)watchdog.kill(ids[i]);

  EXPECT_EQ(daemon_pid(watchdog), daemon) << "it has crashed";
  const auto after = watchdog.find(roots.id);
  ASSERT_TRUE(after);
  for (const char* same : {"State", "RunId", "Unit", "MemoryLimit", "GraceUSec", "DeadlineUSec", "ProcessCount"}) {
    EXPECT_EQ(describe({{"", *bus::find(*after, same)}}), describe({{"", *bus::find(*before, same)}})) << same;
  }
}

// ---- the services' powers ----

class TheServices : public Story {};

TEST_F(TheServices, AreNoMoreExposedThanTheyNeedToBe) {
  for (const char* unit : {"analysis-watchdogd.service", "analysis-watchdog-shipper.service",
                           "analysis-watchdog-once.service", "analysis-watchdog-prune.service"}) {
    const auto judged = run_command({"systemd-analyze", "security", "--no-pager", "--threshold=15", unit});
    EXPECT_EQ(judged.status, 0) << unit << "\n" << judged.out << judged.err;
  }
}

}  // namespace
}  // namespace aw::stories
