// SPDX-License-Identifier: Apache-2.0
//
// What a user does who means no good, or a program that has gone wrong: pids and identities that change under the
// watchdog's hands, clients that go away in the middle, floods, and calls with whatever arguments.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <regex>
#include <sstream>
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

  /// The effective uid of a process.
  static std::optional<uid_t> uid_at_work(pid_t pid) {
    std::istringstream status(read_file("/proc/" + std::to_string(pid) + "/status"));
    for (std::string word; status >> word;) {
      uid_t real = 0, effective = 0;
      if (word == "Uid:" && status >> real >> effective) return effective;
    }
    return std::nullopt;
  }

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
  int refused = 0, done_for_the_user = 0;
  constexpr int kRounds = 25;
  // The race is on in the first rounds; then it is made sure that both of its ends are looked at.
  for (int round = 0; round < kRounds + 2; ++round) {
    // It becomes root's program some time between the call and the move.
    std::string pause = "0." + std::to_string(100 + dice() % 300);
    if (round == kRounds) pause = "100000";
    if (round == kRounds + 1) pause = "2";  // Started for certain, as it has to be to count as the user's.
    const Child process = spawn_as(kUser, {"sh", "-c", "sleep " + pause + "; exec " + program + " stay"});
    const std::string before = folder_of(process.pid());
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 300));
    if (round == kRounds + 1) {
      ASSERT_TRUE(watchdog.wait_until([&] { return uid_at_work(process.pid()) == 0; })) << "it has not become root's";
    }

    const std::string id = new_id("meanwhile " + std::to_string(round));
    const auto done = user.register_pidfd(id, process.pid());

    if (done.ok()) {  // It was the user's still when all was done.
      EXPECT_EQ(watchdog.kill(id).error, "");
      (void)await_end(id);
      ++done_for_the_user;
      continue;
    }
    ++refused;
    EXPECT_TRUE(watchdog.wait_until([&] { return folder_of(process.pid()) == before || !in_a_run(process.pid()); }))
        << "it was left in " << folder_of(process.pid());
    EXPECT_TRUE(Held(process.pid()).alive()) << done.message;
  }
  std::cout << refused << " of " << kRounds + 2 << " were refused\n";
  EXPECT_GT(refused, 0);
  EXPECT_GT(done_for_the_user, 0);
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

TEST_F(Abuse, OfPidsThatAreAnothersWhileARunIsMovedMovesNobodyElse) {
  std::mt19937_64 dice(chaos_seed());
  Watchdog user(Hearing::kNothing, kUser);
  int forced = 0;
  for (int round = 0; round < 12; ++round) {
    const std::string id = new_id("moved " + std::to_string(round));
    const Child leader = spawn_users();
    ASSERT_EQ(user.register_process(id, pid_of(leader)).error, "");
    std::vector<std::unique_ptr<Child>> workers;
    for (int i = 0; i < 4; ++i) {
      workers.push_back(std::make_unique<Child>(spawn_users()));
      ASSERT_EQ(user.attach(id, pid_of(*workers.back())).error, "");
    }

    // Both move all that is in the run: into a fresh scope, or out of it.
    const bool released = round % 2 == 0;
    std::atomic<bool> begun = false;
    Outcome done;
    std::thread caller([&] {
      begun = true;
      done = released ? user.unregister(id) : user.set_limits(id, {grace(7s)});
    });
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(dice() % 60));
    std::vector<Child> others;
    for (const auto& worker : workers) {
      const pid_t pid = worker->pid();
      worker->signal(SIGKILL);
      (void)worker->reap();
      SpawnOptions options;
      options.wanted = pid;
      others.push_back(Child::spawn({workload_program(), "stay"}, options));
      if (others.back().pid() == pid) ++forced;
    }
    caller.join();

    EXPECT_EQ(done.error, "") << done.message;
    if (!released) {
      EXPECT_EQ(watchdog.kill(id).error, "");
    }
    EXPECT_TRUE(watchdog.wait_until([&] { return !watchdog.find(id); }));
    for (const Child& other : others) {
      EXPECT_FALSE(in_a_run(other.pid())) << folder_of(other.pid());
      EXPECT_TRUE(Held(other.pid()).alive());
    }
  }
  EXPECT_GT(forced, 12) << "the pids were not used again";
}

// ---- what it can see ----

TEST_F(Abuse, OfARunsCgroupReadsNoNoteAndNoMoreThanWhatIsEverybodys) {
  const Child process = spawn_users();
  const std::string id = new_id("noted");
  Watchdog user(Hearing::kNothing, kUser);
  ASSERT_EQ(user.register_pidfd(id, process.pid(), {{"Labels", {bus::StringMap{{"secret", "4711"}}}}}).error, "");
  const std::string slice = slice_folder(id);
  const Words note{"python3", "-c",
                   "import os, sys\n"
                   "for name in os.listxattr(sys.argv[1]): print(name, os.getxattr(sys.argv[1], name))",
                   slice};

  const auto roots = run_command(note);
  const auto others = run_as(kFlooder, note);
  const auto owners = run_as(kUser, note);

  EXPECT_THAT(roots.out, HasSubstr("4711")) << roots.err;
  for (const auto& seen : {others, owners}) {
    EXPECT_NE(seen.status, 0) << seen.out;
    EXPECT_THAT(seen.err, HasSubstr("PermissionError"));
    EXPECT_THAT(seen.out, Not(HasSubstr("4711")));
  }
  // What it takes and where its processes are stay there to be read.
  for (const std::string& file : {slice + "/memory.current", scope_folder(id) + "/cgroup.procs"}) {
    EXPECT_EQ(run_as(kUser, {"cat", file}).status, 0) << file;
  }
  EXPECT_EQ(run_as(kUser, {"ls", scope_folder(id)}).status, 0);
  ASSERT_EQ(user.kill(id).error, "");
  (void)await_end(id);
}

// ---- in another's name ----

TEST_F(Abuse, BySignalsInSystemdsNameEndsNothing) {
  Watchdog user(Hearing::kNothing, kUser);
  const Child process = spawn_users();
  const std::string id = new_id("told to be stopped");
  ASSERT_EQ(user.register_pidfd(id, process.pid()).error, "");
  // A job that stops something, and takes its time: what the daemon asks about it, systemd confirms.
  const std::string slow = "story-slow-stop.service";
  ASSERT_EQ(run_command({"systemd-run", "--collect", "--unit=" + slow, "--property=ExecStop=/bin/sleep 100000",
                         "--property=TimeoutStopSec=300", "sleep", "100000"})
                .status,
            0);
  ASSERT_TRUE(systemctl({"stop", "--no-block", slow}));
  std::string job;
  const auto stopping = [&] {
    const auto jobs = run_command({"systemctl", "list-jobs", "--no-legend", "--no-pager", slow});
    std::istringstream(jobs.out) >> job;
    return !job.empty();
  };
  ASSERT_TRUE(watchdog.wait_until(stopping)) << "there is no job to lie about";
  const std::string jobs = "/org/freedesktop/systemd1/job/";
  const std::string scope = scope_folder(id).substr(scope_folder(id).rfind('/') + 1);

  const auto forge = [&](const std::string& as, const Words& rest) {
    Words words{"busctl", "--system", "emit", std::string("--destination=") + names::kBusName};
    words.insert(words.end(), rest.begin(), rest.end());
    const auto sent = as.empty() ? run_command(words) : run_as(as, words);
    EXPECT_EQ(sent.status, 0) << sent.err;
  };
  const Words from_systemd{"/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"};
  const auto forge_job = [&](const std::string& as, const char* member, const std::string& number, const Words& rest) {
    Words words = from_systemd;
    words.insert(words.end(), {member, rest.size() == 2 ? "uoss" : "uos", number, jobs + number});
    words.insert(words.end(), rest.begin(), rest.end());
    forge(as, words);
  };
  // The bus's policy holds up the user's, and nothing but the daemon itself root's.
  for (const std::string as : {kFlooder, ""}) {
    SCOPED_TRACE(as);
    forge_job(as, "JobNew", job, {scope});
    // Ends of the jobs that systemd will have next: of registrations that are under way then.
    for (int next = 1; next <= 30; ++next) {
      forge_job(as, "JobRemoved", std::to_string(std::stoul(job) + static_cast<unsigned>(next)),
                {"analysis-forged.scope", "failed"});
    }
    // Each client that is connected now is said to have gone, and systemd, too.
    const auto list = run_command({"busctl", "--system", "list", "--unique", "--no-legend", "--no-pager"});
    std::istringstream lines(list.out);
    Words names{"org.freedesktop.systemd1"};
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string name, pid;
      if (words >> name >> pid && pid == std::to_string(::getpid())) names.push_back(name);
    }
    ASSERT_GE(names.size(), 3U) << list.out;  // Ours, and the user's.
    for (const std::string& name : names) {
      forge(as, {"/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss", name, name, ""});
    }

    const Child more = spawn_users();
    const std::string second = new_id("registered " + (as.empty() ? "beside root" : as));
    const auto registered = user.register_pidfd(second, more.pid());
    EXPECT_EQ(registered.error, "") << registered.message;
    // systemd is heard as before: a stop that is really one ends its run.
    EXPECT_TRUE(systemctl({"stop", scope_folder(second).substr(scope_folder(second).rfind('/') + 1)}));
    (void)await_end(second);
    const auto run = watchdog.find(id);
    EXPECT_TRUE(run && text(*run, "State") == "running");
    EXPECT_TRUE(watchdog.events_of(id, "ending").empty());
  }
  EXPECT_TRUE(Held(process.pid()).alive());
  (void)run_command({"systemctl", "kill", "--signal=KILL", slow});
  ASSERT_EQ(user.kill(id).error, "");
  (void)await_end(id);
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

  // Six clients of one uid, without a pause: some register and let go, some do so without waiting for an answer, some
  // ask for lists.
  constexpr int kClients = 6;
  constexpr int kAtOnce = 16;
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
      // Of the processors, which are not the watchdog's to share out, the six get what one would, as a user's slice
      // does beside another's.
      EXPECT_EQ(::setpriority(PRIO_PROCESS, 0, 8), 0);
      Watchdog& client = *clients[i];
      const auto id = [&](bus::Message& m) { m.append(ids[i]); };
      const auto process = [&](bus::Message& m) { m.append(ids[i]).append(pid_of(*processes[i])).append(Dict{}); };
      while (!over) {
        if (i % 3 == 0) {
          (void)client.call("RegisterAnalysis", process);
          (void)client.call("UnregisterAnalysis", id);
          calls += 2;
        } else if (i % 3 == 1) {
          for (int pair = 0; pair < kAtOnce; ++pair) {
            client.begin_call("RegisterAnalysis", process);
            client.begin_call("UnregisterAnalysis", id);
          }
          EXPECT_TRUE(client.wait_until([&] { return client.unanswered() == 0; }));
          calls += 2 * kAtOnce;
        } else {
          (void)client.events({});
          ++calls;
        }
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
  // A second on a machine. Where the guest is emulated a registration by itself takes a good part of that, and beside
  // it are PID 1 with the four changes that the flood may have there, and the bus with all of its calls.
  EXPECT_LT(slowest, std::max<Span>(1s, alone * 16));
  EXPECT_EQ(text(end, "reason"), "wall-clock");
  // Two seconds on a machine; systemd's backstop comes twenty after the deadline.
  EXPECT_LT(number(end, "duration_usec"), to_usec(4s + std::clamp<Span>(alone * 4, 2s, 8s)));
}

TEST_F(Abuse, ByAMassEndIsNoHindranceToAnother) {
  constexpr int kMany = 120;
  Watchdog flooder(Hearing::kNothing, kFlooder);
  Watchdog user(Hearing::kNothing, kUser);
  std::vector<std::unique_ptr<Child>> processes;
  std::vector<std::string> ids;
  for (int i = 0; i < kMany; ++i) {
    processes.push_back(std::make_unique<Child>(spawn_users(kFlooder)));
    ids.push_back(new_id("mass " + std::to_string(i)));
    ASSERT_EQ(flooder.register_pidfd(ids.back(), processes.back()->pid()).error, "");
  }
  const Child process = spawn_users();
  const std::string id = new_id("beside a mass end");

  for (const auto& one : processes) one->signal(SIGKILL);
  // Their ends have begun, and their slices wait to be taken down.
  ASSERT_TRUE(watchdog.wait_until([&] { return !watchdog.find(ids.front()); }));
  const Instant begun = monotonic_now();
  ASSERT_EQ(user.register_pidfd(id, process.pid()).error, "");
  const Span took = monotonic_now() - begun;
  const std::size_t left = find_units(watchdog, ids).size();

  std::cout << "a registration took " << took.count() / 1000 << " ms, with " << left << " units left of " << kMany
            << " runs that have ended\n";
  EXPECT_GT(left, 0U) << "there was nothing to be a hindrance";
  EXPECT_EQ(watchdog.kill(id).error, "");
  (void)await_end(id);
  for (const std::string& ended : ids) EXPECT_EQ(watchdog.events_of(ended, "ended").size(), 1U) << ended;
  EXPECT_TRUE(watchdog.wait_until([&] { return find_units(watchdog, ids).empty(); }));
}

// ---- whatever arguments ----

/// A method as introspection data has it.
struct Method {
  std::string path;
  std::string interface;
  std::string member;
  std::vector<std::string> in;  ///< the types of its arguments
};

std::vector<Method> methods_of(const std::string& path, const std::string& xml) {
  static const std::regex kPart("<(interface|method|arg|signal) (?:name=\"([\\w.]+)\")?[^>]*>");
  static const std::regex kType("type=\"([^\"]+)\"");
  std::vector<Method> methods;
  std::string interface;
  bool in_method = false;
  for (std::sregex_iterator at(xml.begin(), xml.end(), kPart); at != std::sregex_iterator(); ++at) {
    const std::string element = (*at)[1];
    const std::string rest = at->str();
    if (element == "interface") interface = (*at)[2];
    if (element == "method") methods.push_back({path, interface, (*at)[2], {}});
    if (element == "method" || element == "signal") in_method = element == "method";
    std::smatch type;
    if (element != "arg" || !in_method || rest.find("direction=\"out\"") != std::string::npos) continue;
    if (std::regex_search(rest, type, kType)) methods.back().in.push_back(type[1]);
  }
  return methods;
}

/// Arguments of all types, some that mean something here and some that mean nothing anywhere.
class Babble {
 public:
  Babble(std::uint64_t seed, std::vector<std::string> ids) : dice_(seed), ids_(std::move(ids)) {}
  std::size_t below(std::size_t end) { return dice_() % end; }
  template <class T>
  const T& one_of(const std::vector<T>& all) {
    return all[below(all.size())];
  }

  std::string text() {
    static const std::vector<std::string> kTexts{"",
                                                 "a",
                                                 std::string(255, 'x'),
                                                 std::string(5000, 'y'),
                                                 "\xc3\xbc",
                                                 "../..",
                                                 "a\nb",
                                                 "-",
                                                 "%",
                                                 "\x7f\x01",
                                                 "running",
                                                 names::kAnalysisInterface,
                                                 names::kManagerInterface,
                                                 "GraceUSec",
                                                 "Labels",
                                                 "Id"};
    return below(2) == 0 ? one_of(ids_) : one_of(kTexts);
  }
  std::uint64_t number() {
    static const std::vector<std::uint64_t> kNumbers{0, 1, 2, 4096, 1U << 30U, INT64_MAX, UINT64_MAX, UINT32_MAX};
    return one_of(kNumbers);
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
    for (std::size_t i = below(2) * below(4); i > 0; --i) dict.emplace_back(one_of(kNames), value());
    return dict;
  }
  /// False for a type that nobody has taught us.
  bool append(bus::Message& m, const std::string& type, const std::vector<pid_t>& pids) {
    if (type == "s") {
      m.append(text());
    } else if (type == "u") {
      m.append(below(3) == 0 ? static_cast<std::uint32_t>(number()) : static_cast<std::uint32_t>(one_of(pids)));
    } else if (type == "t") {
      m.append(number());
    } else if (type == "h") {
      const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, one_of(pids), 0)));
      const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      m.append(pidfd && below(4) != 0 ? pidfd : null);
    } else if (type == "a{sv}") {
      m.append(options());
    } else if (type == "v") {
      m.append_variant(value());
    } else {
      return false;
    }
    return true;
  }

 private:
  std::mt19937_64 dice_;
  const std::vector<std::string> ids_;
};

/// What a daemon holds: its descriptors, and its memory in KiB.
struct Holding {
  std::size_t descriptors = 0;
  std::uint64_t memory = 0;
};

Holding held_by(pid_t daemon) {
  const std::string folder = "/proc/" + std::to_string(daemon);
  Holding holding;
  holding.descriptors =
      static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder + "/fd"), {}));
  std::istringstream status(read_file(folder + "/status"));
  for (std::string word; status >> word;) {
    if (word == "RssAnon:") status >> holding.memory;
  }
  return holding;
}

TEST_F(Abuse, WithAnyArgumentsHasNoEffectThatTheCallerHasNoRightTo) {
  const auto roots = start(How::kRegistered, new_id("roots"), {memory_limit(128)}, {"witness", path("letters")});
  ASSERT_TRUE(watchdog.wait_until([&] { return exists(path("letters")); }));
  // And one of somebody who is nobody in particular.
  const std::string theirs = new_id("theirs");
  std::filesystem::create_directory(path("theirs"));
  ASSERT_EQ(::chmod(path("theirs").c_str(), 0777), 0);
  const std::string their_letters = path("theirs/letters");
  const Child their_leader = spawn_as(kUser, {workload_program(), "witness", their_letters});
  ASSERT_EQ(watchdog.register_process(theirs, pid_of(their_leader), {memory_limit(128)}).error, "");
  ASSERT_TRUE(watchdog.wait_until([&] { return exists(their_letters); }));
  std::map<std::string, Dict> before;
  for (const std::string& id : {roots.id, theirs}) before[id] = watchdog.find(id).value();
  const pid_t daemon = daemon_pid(watchdog);
  const std::string daemons_folder = folder_of(daemon);
  const auto seed = chaos_seed();
  std::cout << "AW_SEED=" << seed << "\n";
  const std::vector<std::string> ids{roots.id, theirs, "babble 1", "babble 2", "babble/3"};
  Babble babble(seed, ids);
  Watchdog user(Hearing::kNothing, kFlooder);
  // All that is there to be called, as the daemon itself says.
  std::vector<Method> methods;
  for (const std::string& where :
       {std::string(names::kManagerPath), std::string(names::kAnalysisPathPrefix) + "/" + escape_for_path(roots.id)}) {
    auto told = watchdog.call_at(names::kBusName, where, "org.freedesktop.DBus.Introspectable", "Introspect");
    ASSERT_TRUE(told.ok()) << told.message;
    for (const Method& method : methods_of(where, told.reply.read_string().value_or(""))) methods.push_back(method);
  }
  ASSERT_GE(methods.size(), 20U);
  std::vector<std::unique_ptr<Child>> targets;
  std::map<std::string, std::size_t> calls;
  std::map<std::string, std::size_t> done;

  // And longer, where nothing that it said has meant anything by then.
  const Instant end = monotonic_now() + std::chrono::seconds(number_from_environment("AW_FUZZ_SECONDS", 20));
  const auto registered = [&] { return done["RegisterAnalysisByPidfd"] + done["RegisterAnalysis"]; };
  std::optional<Holding> settled;
  const auto half = end - (end - monotonic_now()) / 2;
  while (monotonic_now() < end || (registered() == 0 && monotonic_now() < end + kPatience)) {
    // There is always somebody of the caller's own to register, change and end.
    std::erase_if(targets, [](const auto& target) { return target->await_end(0s); });
    while (targets.size() < 3) targets.push_back(std::make_unique<Child>(spawn_users(kFlooder)));
    std::vector<pid_t> pids{1, daemon, roots.leader, their_leader.pid(), 2, ::getpid()};
    for (const auto& target : targets) pids.insert(pids.end(), 2, target->pid());

    const Method& method = babble.one_of(methods);
    const std::string where = babble.below(3) != 0
                                  ? method.path
                                  : std::string(names::kAnalysisPathPrefix) + "/" + escape_for_path(babble.one_of(ids));
    const auto outcome =
        user.call_at(names::kBusName, where, method.interface.c_str(), method.member.c_str(), [&](bus::Message& m) {
          auto types = method.in;
          if (babble.below(8) == 0) types.push_back(babble.one_of(std::vector<std::string>{"s", "u", "v", "a{sv}"}));
          if (babble.below(8) == 0 && !types.empty()) types.erase(types.begin());
          for (const std::string& type : types) {
            ASSERT_TRUE(babble.append(m, type, pids)) << "no words of type " << type << " for " << method.member;
          }
        });
    ++calls[method.member];
    if (outcome.ok()) ++done[method.member];
    // What it holds when each thing has been done a few times it may hold; from there on it must not grow.
    if (!settled && monotonic_now() > half) settled = held_by(daemon);
    ASSERT_EQ(daemon_pid(watchdog), daemon) << "it has crashed over " << method.member;
  }
  for (const Method& method : methods) {
    EXPECT_GT(calls[method.member], 0U) << method.member << " was not called";
    std::cout << method.member << ": " << calls[method.member] << " calls, " << done[method.member] << " done\n";
  }
  EXPECT_GT(registered(), 0U) << "nothing was ever done for it";

  // Its own are ended by whoever may; nobody else's was touched.
  const std::uint64_t flooder = uid_of(kFlooder);
  for (const Dict& run : watchdog.list()) {
    if (number(run, "Uid") == flooder) (void)watchdog.kill(own(text(run, "Id")));
  }
  EXPECT_TRUE(watchdog.wait_until([&] {
    const auto live = watchdog.list();
    return std::none_of(live.begin(), live.end(), [&](const Dict& run) { return number(run, "Uid") == flooder; });
  })) << "a run of its is left";
  for (const auto& [id, was] : before) {
    const auto is = watchdog.find(id);
    ASSERT_TRUE(is) << id;
    for (const char* same : {"State", "RunId", "Unit", "MemoryLimit", "GraceUSec", "DeadlineUSec", "ProcessCount"}) {
      EXPECT_EQ(describe({{"", *bus::find(*is, same)}}), describe({{"", *bus::find(was, same)}})) << id << ", " << same;
    }
  }
  EXPECT_EQ(read_file(path("letters")) + read_file(their_letters), "") << "an analysis got signals";
  EXPECT_EQ(folder_of(daemon), daemons_folder);
  for (const pid_t pid : {1, ::getpid()}) EXPECT_FALSE(in_a_run(pid)) << pid;
  ASSERT_TRUE(settled);
  const Holding holds = held_by(daemon);
  std::cout << settled->descriptors << " descriptors, then " << holds.descriptors << "; " << settled->memory
            << " KiB, then " << holds.memory << "\n";
  // A run has seven; at the half there may have been none.
  EXPECT_LT(holds.descriptors, settled->descriptors + 30) << "descriptors leak";
  EXPECT_LT(holds.memory, settled->memory + (24U << 10U)) << "memory leaks";
}

// ---- the services' powers ----

class TheServices : public Story {};

TEST_F(TheServices, ComeBeforeWhatTheyWatch) {
  const pid_t daemon = daemon_pid(watchdog);
  EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(daemon)), -10);
  // Debian's kernels share processors out by sessions first.
  EXPECT_THAT(read_file("/proc/" + std::to_string(daemon) + "/autogroup"), ::testing::EndsWith(" nice -10\n"));
}

TEST_F(TheServices, AreNoMoreExposedThanTheyNeedToBe) {
  for (const char* unit :
       {"analysis-watchdogd.service", "analysis-watchdog-shipper.service", "analysis-watchdog-web.service",
        "analysis-watchdog-once.service", "analysis-watchdog-prune.service"}) {
    const auto judged = run_command({"systemd-analyze", "security", "--no-pager", "--threshold=15", unit});
    EXPECT_EQ(judged.status, 0) << unit << "\n" << judged.out << judged.err;
  }
  // Of a user's own (docs/security.md): what a user's manager can't take away, the tool counts as given by root.
  const auto users =
      run_command({"env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "--user", "security", "--no-pager",
                   "--offline=true", "--threshold=62", "/usr/lib/systemd/user/analysis-watchdogd.service"});
  EXPECT_EQ(users.status, 0) << users.out << users.err;
}

}  // namespace
}  // namespace aw::stories
