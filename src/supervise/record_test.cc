// SPDX-License-Identifier: Apache-2.0
//
// What the records say: why a run ended, whose limit it was, who asked, and what was known when it was decided.
#include "supervise/limit_details.h"
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::IsEmpty;
using testing::mib;
using testing::OnTerm;
using ::testing::SizeIs;
using testing::World;

/// A detail as text, "none" where it is not there.
std::string detail(const EventRecord& event, const std::string& name) {
  for (const auto& [key, value] : event.details) {
    if (key != name) continue;
    if (const auto* text = std::get_if<std::string>(&value)) return *text;
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "yes" : "no";
    const std::uint64_t number = std::get<std::uint64_t>(value);
    return number == kUnlimited ? "infinity" : std::to_string(number);
  }
  return "none";
}

class ARecordedRun : public testing::ARun {
 protected:
  static constexpr Bytes kMemory = Bytes(1024 * kMiB.count());
  static Limits limits() {
    Limits limits;
    limits.memory = kMemory;
    limits.tasks_max = 64;
    limits.owner_policy = OwnerPolicy::kIgnore;
    return limits;
  }
  ARecordedRun() : ARun(limits()) {}

  std::string of_end(const std::string& name) const { return detail(end_record(), name); }
  std::string of_ending(const std::string& name) const {
    return detail(world.records("job", EventKind::kEnding).at(0), name);
  }
  void breach() {
    world.advance(seconds{1});  // The first look is over.
    auto& slice = world.slice("job");
    slice.stat.shmem = mib(30);
    slice.stat.kernel = mib(20);
    slice.stat.sock = mib(1);
    slice.pressure = {Span(400), Span(900)};
    world.use_memory("job", kMemory + mib(100), mib(7));
    world.deliver();
  }
};

// ---- the evidence ----

TEST_F(ARecordedRun, HasTheEvidenceOfTheDecisionInTheRecordOfItsEnd) {
  world.process(child).anonymous = mib(900);
  world.process(child).cpu = seconds{7};
  world.process(child).cmdline = "python train.py";
  set_on_term(OnTerm::kCleansUp, seconds{2});

  breach();
  const auto decided = world.now();
  world.slice("job").events.max = 5;
  world.slice("job").pressure = {Span(500), Span(1000)};
  world.slice("job").stat = {};
  world.advance(seconds{3});

  ASSERT_EQ(end_of(), Reason::kMemory);
  EXPECT_EQ(end_record().memory, kMemory + mib(151));
  EXPECT_EQ(of_end("limit_of"), "run");
  EXPECT_EQ(of_end("cause"), "unreclaimable memory passed the limit");
  EXPECT_EQ(of_end("decided_at"), format_iso8601(decided.real));
  EXPECT_EQ(of_end("ending_usec"), "2000000");
  EXPECT_EQ(of_end("sigterm_sufficed"), "yes");
  EXPECT_EQ(of_end("memory_bytes_before"), std::to_string((kMemory + mib(151)).count()));
  EXPECT_EQ(of_end("memory_anon_bytes"), std::to_string((kMemory + mib(100)).count()));
  EXPECT_EQ(of_end("memory_shmem_bytes"), std::to_string(mib(30).count()));
  EXPECT_EQ(of_end("memory_kernel_bytes"), std::to_string(mib(20).count()));
  EXPECT_EQ(of_end("memory_sock_bytes"), std::to_string(mib(1).count()));
  EXPECT_EQ(of_end("memory_file_bytes"), std::to_string(mib(7).count()));
  EXPECT_EQ(of_end("memory_events_max_before"), "0");
  EXPECT_EQ(of_end("memory_events_max"), "5");
  EXPECT_EQ(of_end("memory_pressure_full_usec_before"), "400");
  EXPECT_EQ(of_end("memory_pressure_some_usec_before"), "900");
  EXPECT_EQ(of_end("memory_pressure_full_usec"), "500");
  EXPECT_EQ(of_end("tasks_max"), "64");
  EXPECT_EQ(of_end("memory_headroom_bytes"), std::to_string(mib(128).count()));
  EXPECT_EQ(of_end("grace_usec"), "10000000");
  EXPECT_EQ(of_end("deadline_at"), format_iso8601(decided.real + minutes{30} - (decided.monotonic - registered_at)));

  const auto processes = end_record().processes;
  ASSERT_THAT(processes, SizeIs(2));
  EXPECT_EQ(processes[0].pid, child);
  EXPECT_EQ(processes[0].parent, leader);
  EXPECT_EQ(processes[0].comm, "python");
  EXPECT_EQ(processes[0].resident, mib(900));
  EXPECT_EQ(processes[0].cmdline, "python train.py");
  EXPECT_EQ(processes[0].cpu, seconds{7});
  EXPECT_EQ(of_end("process_count"), "2");
  EXPECT_EQ(of_end("processes_truncated"), "none");
}

TEST_F(ARecordedRun, SaysThatSigtermWasNotEnough) {
  set_on_term(OnTerm::kIgnores);

  breach();
  world.advance(seconds{11});

  EXPECT_EQ(of_end("sigterm_sufficed"), "no");
  EXPECT_EQ(of_end("ending_usec"), "10000000");
}

TEST_F(ARecordedRun, ThatEndedByItselfHasNothingThatWasDecided) {
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{2});

  EXPECT_EQ(of_end("limit_of"), "none");
  EXPECT_EQ(of_end("decided_at"), "none");
  EXPECT_EQ(of_end("sigterm_sufficed"), "none");
  EXPECT_THAT(end_record().processes, IsEmpty());
  EXPECT_EQ(of_end("memory_events_oom_kill"), "0");
}

TEST_F(ARecordedRun, NeedsNoCommandLineToBeEndedAndGetsItLater) {
  set_on_term(OnTerm::kIgnores);
  world.process(child).cmdline_blocks = true;

  breach();
  ASSERT_THAT(world.signals_to(child), testing::ToldToEnd());
  world.process(child).cmdline_blocks = false;
  world.process(child).cmdline = "python slow.py";
  world.processes.catch_up();
  const auto before = world.records("job", EventKind::kEnding).at(0).processes;
  world.advance(seconds{11});

  const auto line_of = [this](const std::vector<ProcessSummary>& processes) {
    for (const auto& process : processes) {
      if (process.pid == child) return process.cmdline;
    }
    return std::string("not there");
  };
  EXPECT_EQ(line_of(before), "");
  EXPECT_EQ(line_of(end_record().processes), "python slow.py");
}

TEST_F(ARecordedRun, ShowsTheLeaderAndTheLargestOfATreeTooLargeToBeLookedAt) {
  std::vector<pid_t> workers;
  for (int i = 0; i < 200; ++i) workers.push_back(world.spawn(child, "worker"));
  const pid_t large = workers[100];
  world.process(large).stat.resident_pages = 1000;
  world.process(large).anonymous = mib(500);
  world.advance(seconds{6});  // A round.
  world.processes.patience = 30;

  end();

  const auto ending = world.records("job", EventKind::kEnding).at(0);
  EXPECT_THAT(ending.processes, SizeIs(kMaxProcesses));
  EXPECT_EQ(ending.processes[0].pid, large);
  EXPECT_EQ(ending.processes[1].pid, leader);
  EXPECT_EQ(detail(ending, "process_count"), "202");
  EXPECT_EQ(detail(ending, "processes_looked_at"), "30");
  EXPECT_EQ(detail(ending, "processes_truncated"), "yes");
  EXPECT_THAT(world.signals_to(workers[0]), testing::ToldToEnd());
}

// ---- whose limit ----

TEST_F(ARecordedRun, ThatReachedItsCeilingSaysSo) {
  world.oom_kill("job", World::scope_name("job"));
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kOom);
  EXPECT_EQ(of_end("limit_of"), "run");
  EXPECT_EQ(of_end("memory_events_oom"), "1");
}

TEST_F(ARecordedRun, ThatTheHostHadNoMemoryForSaysSo) {
  world.oom_kill("job", World::scope_name("job"), false);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_EQ(of_end("limit_of"), "host");
  EXPECT_EQ(of_end("limit_cgroup"), "none");
}

TEST_F(ARecordedRun, ThatDiedAtItsParentsLimitSaysWhose) {
  world.oom_kill_at_parent("job");
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_EQ(of_end("limit_of"), "parent");
  EXPECT_EQ(of_end("limit_cgroup"), "/analysis.slice");
}

TEST_F(ARecordedRun, ThatDiedUnseenSaysWhoseLimitItWasAllTheSame) {
  world.losing_notifications = true;
  world.oom_kill_at_parent("job");
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_EQ(of_end("limit_of"), "parent");
}

TEST_F(ARecordedRun, IsNotSaidToHaveDiedOfWhatItsParentSufferedLongAgo) {
  ++world.cgroups.parent_ooms;  // Somebody else's end.
  world.register_run("later", world.spawn(world.user_shell));
  world.advance(minutes{1});

  world.oom_kill("job", World::scope_name("job"), false);
  world.advance(seconds{1});

  EXPECT_EQ(of_end("limit_of"), "host");
}

TEST_F(ARecordedRun, SharesAParentsOverrunWithTheOthersThatItKilled) {
  const pid_t other = world.spawn(world.user_shell);
  world.register_run("other", other);

  world.oom_kill_at_parent("other");
  world.oom_kill("job", World::scope_name("job"), false);
  world.advance(seconds{2});

  EXPECT_EQ(of_end("limit_of"), "parent");
  EXPECT_EQ(detail(world.records("other", EventKind::kEnded).at(0), "limit_of"), "parent");
}

TEST_F(ARecordedRun, ThatSomebodyKilledWasAtNobodysLimit) {
  world.kill(child, SIGKILL);
  world.kill(leader, SIGKILL);
  world.advance(seconds{2});

  EXPECT_EQ(end_of(), Reason::kExternal);
  EXPECT_EQ(of_end("limit_of"), "none");
}

// ---- who asked ----

TEST_F(ARecordedRun, SaysWhoAsked) {
  end();
  world.advance(seconds{1});

  for (const auto& event : {end_record(), world.records("job", EventKind::kEnding).at(0)}) {
    EXPECT_EQ(detail(event, "requested_by_uid"), "1000");
    EXPECT_EQ(detail(event, "requested_by_pid"), std::to_string(world.user_shell));
    EXPECT_EQ(detail(event, "requested_by_comm"), "bash");
    EXPECT_EQ(detail(event, "limit_of"), "none");
  }
}

TEST_F(ARecordedRun, SaysThatItWasSystemd) {
  world.systemctl_stop("job");
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_EQ(of_end("requested_by_comm"), "systemd");
  EXPECT_EQ(of_end("requested_by_uid"), "none");  // Of whoever asked systemd nothing is known.
  EXPECT_EQ(of_end("sigterm_sufficed"), "none");  // It was not ours.
}

// ---- the limits ----

TEST_F(ARecordedRun, IsRegisteredWithAllItsLimits) {
  const auto registered = world.records("job", EventKind::kRegistered).at(0);

  EXPECT_EQ(detail(registered, "memory_headroom_bytes"), std::to_string(mib(128).count()));
  EXPECT_EQ(detail(registered, "grace_usec"), "10000000");
  EXPECT_EQ(detail(registered, "tasks_max"), "64");
  EXPECT_EQ(detail(registered, "cpu_quota_per_sec_usec"), "infinity");
  EXPECT_EQ(detail(registered, "cpu_weight"), "infinity");
  EXPECT_EQ(detail(registered, "orphan_policy"), "kill");
  EXPECT_EQ(detail(registered, "owner_policy"), "ignore");
}

TEST(LimitDetails, HaveTheNamesOfTheDifferences) {
  Limits other;
  other.headroom = Bytes(1);
  other.grace = Span(2);
  other.tasks_max = 3;
  other.cpu_quota_per_second = Span(4);
  other.cpu_weight = 5;
  other.orphan_policy = OrphanPolicy::kReport;
  other.owner_policy = OwnerPolicy::kIgnore;

  const Details changed = differences(Limits{}, other);

  for (const auto& one : limit_details(other)) EXPECT_THAT(changed, Contains(one)) << one.first;
  EXPECT_THAT(differences(other, other), IsEmpty());
}

}  // namespace
}  // namespace aw::supervise
