// SPDX-License-Identifier: Apache-2.0
//
// What holds for all runs together: timers, late events, readings, zombies; and random histories.
#include "supervise/supervisor.h"

#include <algorithm>
#include <cstdlib>
#include <random>
#include <sstream>

#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::IsEmpty;
using testing::mib;
using testing::OnTerm;
using ::testing::Pair;
using testing::Sender;
using testing::Sent;
using ::testing::SizeIs;
using testing::World;

// ---- timers ----

class ASupervisor : public testing::AWorld {};

TEST_F(ASupervisor, HasNoTimerArmedWhileThereIsNothingToWatch) {
  world.advance(std::chrono::hours{1});

  EXPECT_EQ(world.alarm(), std::nullopt);
  EXPECT_EQ(world.wakeups, 0);
}

TEST_F(ASupervisor, HasNoTimerArmedOnceItsRunsAreOver) {
  world.register_run("job", leader);
  EXPECT_NE(world.alarm(), std::nullopt);

  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});

  EXPECT_EQ(world.alarm(), std::nullopt);
  EXPECT_EQ(world.watch_count(), 0);
  EXPECT_EQ(world.slice_count(), 0);
}

TEST_F(ASupervisor, IsWokenForRoundsOnlyWhileNothingHappens) {
  world.register_run("job", leader);
  world.advance(seconds{1});
  const unsigned before = world.wakeups;

  world.advance(minutes{1});

  EXPECT_EQ(world.wakeups - before, 12 + 4);  // Orphans every 5 s, limits every 15 s.
}

TEST_F(ASupervisor, DoesNothingWhenItIsWokenForNothing) {
  world.register_run("job", leader);
  world.advance(seconds{1});
  const auto before = world.alarm();

  supervisor.on_timer(world.now());

  EXPECT_EQ(world.alarm(), before);
  expect_left_alone(leader);
}

TEST_F(ASupervisor, CatchesUpWithATimerThatComesLate) {
  Limits limits;
  limits.wall_clock = seconds{3};
  for (const pid_t pid : {leader, child}) world.process(pid).on_term = OnTerm::kIgnores;
  world.register_run("job", leader, limits);
  const Now late{world.now().monotonic + minutes{1}, world.now().real + minutes{1}};

  supervisor.on_timer(late);

  EXPECT_THAT(world.signals_to(leader), testing::ToldToEnd());  // Its grace begins with the signal.
}

// ---- late events ----

TEST_F(ASupervisor, IgnoresEventsOfRunsThatAreOver) {
  const RunKey key = world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});
  const auto before = world.recorder.records.size();

  supervisor.on_cgroup_changed(key, world.now());
  supervisor.on_events_lost(world.now());
  supervisor.on_manager_job(World::scope_name("job"), ManagerJob::kStop, world.now());
  supervisor.on_manager_job(World::slice_name("job"), ManagerJob::kOver, world.now());
  supervisor.on_timer(world.now());

  EXPECT_EQ(world.recorder.records.size(), before);
  EXPECT_FALSE(supervisor.end(World::id("job"), world.caller(), world.now()));
}

TEST_F(ASupervisor, IgnoresEventsOfRunsThatNeverWere) {
  supervisor.on_cgroup_changed(77, world.now());

  EXPECT_THAT(world.recorder.records, IsEmpty());
}

// ---- readings ----

TEST_F(ASupervisor, CountsWhatItMonitorsAndWhatIsEnding) {
  for (const pid_t pid : {leader, child}) world.process(pid).on_term = OnTerm::kIgnores;
  world.register_run("job", leader);
  world.register_run("other", world.spawn(owner));
  EXPECT_EQ(supervisor.monitored(), 2);
  EXPECT_EQ(supervisor.ending(), 0);

  EXPECT_TRUE(supervisor.end(World::id("job"), world.caller(), world.now()));

  EXPECT_EQ(supervisor.monitored(), 2);
  EXPECT_EQ(supervisor.ending(), 1);
}

TEST_F(ASupervisor, ReadsTheUsageOfARun) {
  world.process(leader).anonymous = mib(512);
  world.register_run("job", leader);
  world.process(leader).anonymous = mib(600);
  world.use_memory("job", mib(88), mib(10));

  const Usage usage = supervisor.read_usage(*find());

  EXPECT_EQ(usage.unreclaimable, mib(600));
  EXPECT_EQ(usage.counters.memory_current, mib(98));
  EXPECT_EQ(usage.processes, 2);
}

TEST_F(ASupervisor, ReadsNoUsageOfARunThatIsBeingPlaced) {
  world.placer.hold();
  (void)world.request_register("job", leader);

  const Usage usage = supervisor.read_usage(*find());

  EXPECT_EQ(usage.unreclaimable, std::nullopt);
  EXPECT_EQ(usage.processes, 0);
}

// ---- zombies ----

TEST_F(ASupervisor, ReportsZombiesThatNobodyReapedWithTheirParent) {
  world.process(owner).reaps = testing::Reaps::kNever;
  world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});

  const auto reports = world.records("job", EventKind::kUnreaped);
  ASSERT_THAT(reports, SizeIs(1));
  EXPECT_THAT(reports[0].details, Contains(Pair("zombie_count", DetailValue(std::uint64_t{1}))));
  EXPECT_THAT(reports[0].details, Contains(Pair("parent_pid", DetailValue(std::uint64_t(owner)))));
  EXPECT_THAT(reports[0].details, Contains(Pair("parent_comm", DetailValue(std::string("worker")))));
  EXPECT_EQ(reports[0].run_id, end_record().run_id);
  EXPECT_NE(reports[0].event_id, end_record().event_id);
  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(ASupervisor, DoesNotReportZombiesThatAreReapedInTime) {
  world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{5});

  EXPECT_THAT(world.records("job", EventKind::kUnreaped), IsEmpty());
}

TEST_F(ASupervisor, DoesNotTakeTheZombiesOfALaterRunForThoseOfAnEarlier) {
  world.register_run("job", leader);
  world.exit(child);
  world.exit(leader);
  world.deliver();
  const pid_t second = world.spawn(owner);
  const pid_t passing = world.spawn(second);
  world.register_run("job", second);
  world.process(second).reaps = testing::Reaps::kNever;
  world.exit(passing);
  world.advance(seconds{5});

  EXPECT_THAT(world.records("job", EventKind::kUnreaped), IsEmpty());
}

// ---- random histories ----

unsigned seed_from_environment() {
  const char* text = std::getenv("AW_SEED");
  return text == nullptr ? 0 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

/// Some runs, and a great deal that happens to them in no sensible order.
class AHistory {
 public:
  explicit AHistory(unsigned seed) : random_(seed), world_(impatient()) {
    worker_ = world_.spawn(world_.user_shell, "worker");
    bystander_ = world_.spawn(world_.user_shell, "bystander");
    world_.on_signal = [this](const Sent& sent) { check_signal(sent); };
  }

  void play(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      happen();
      check();
    }
    settle();
  }

  std::string log() const { return log_.str(); }

 private:
  static constexpr Span kGrace = seconds{2};
  static constexpr Bytes kMemory = mib(256);

  static Policy impatient() {
    Policy policy;
    policy.orphans.interval = seconds{1};
    policy.orphans.confirmation = milliseconds{100};
    return policy;
  }

  unsigned below(unsigned bound) { return std::uniform_int_distribution<unsigned>(0, bound - 1)(random_); }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string any_id() { return "run" + std::to_string(below(4)); }

  void note(const std::string& what) {
    log_ << world_.now().monotonic.time_since_epoch().count() << " " << what << "\n";
  }

  /// A living process of a run, or nobody.
  pid_t any_member(const std::string& id) {
    if (!world_.has_slice(id)) return 0;
    const auto members = world_.members("/analysis.slice/" + World::slice_name(id));
    return members.empty() ? 0 : members[below(static_cast<unsigned>(members.size()))];
  }

  pid_t fork_of(pid_t parent) {
    const pid_t pid = world_.spawn(parent);
    testing::Process& process = world_.process(pid);
    process.on_term = std::array{OnTerm::kDies, OnTerm::kIgnores, OnTerm::kCleansUp}.at(below(3));
    process.cleanup = milliseconds{below(3000)};
    process.reaps = std::array{testing::Reaps::kSoon, testing::Reaps::kAtOnce, testing::Reaps::kNever}.at(below(3));
    process.subreaper = chance(10);
    if (chance(20)) world_.setsid(pid);
    return pid;
  }

  void happen() {
    const std::string id = any_id();
    const pid_t member = any_member(id);
    switch (below(16)) {
      case 0:
      case 1:
        return add_run(id);
      case 2:
      case 3:
        if (member == 0) return;
        note("fork of " + std::to_string(member));
        return (void)fork_of(member);
      case 4:
        if (member == 0) return;
        note("exit of " + std::to_string(member));
        return world_.exit(member, static_cast<int>(below(3)));
      case 5:
        if (member == 0) return;
        note("kill of " + std::to_string(member));
        return world_.kill(member, chance(50) ? SIGKILL : SIGTERM);
      case 6:
        if (!world_.has_slice(id)) return;
        note("memory of " + id);
        return world_.use_memory(id, mib(below(280)), mib(below(256)));
      case 7:
        if (!world_.has_slice(id) || chance(50)) return;
        note("oom of " + id);
        return world_.oom_kill(id, World::scope_name(id), chance(70));
      case 8:
        note("end of " + id);
        (void)world_.supervisor.end(World::id(id), world_.caller(), world_.now());
        return;
      case 9:
        note("unregister " + id);
        return world_.supervisor.request_unregister(World::id(id), world_.now(), ignore());
      case 10: {
        note("extend " + id);
        const Span by = milliseconds{below(60000)};
        return world_.supervisor.request_extend(World::id(id), by, world_.caller(), world_.now(), ignore());
      }
      case 11: {
        note("attach to " + id);
        auto process = world_.handle(fork_of(worker_));
        return world_.supervisor.request_attach(World::id(id), std::move(process), world_.caller(), world_.now(),
                                                ignore());
      }
      case 12:
        note("set limits of " + id);
        return world_.supervisor.request_set_limits(World::id(id), any_limits(), world_.caller(), world_.now(),
                                                    ignore());
      case 13:
        return trouble();
      default:
        const Span span = milliseconds{1U << below(14)};
        note("advance " + format_span(span));
        world_.advance(span);
    }
  }

  void trouble() {
    switch (below(4)) {
      case 0:
        note("notifications lost");
        world_.losing_notifications = true;
        return;
      case 1:
        note("… and told so");
        world_.losing_notifications = false;
        return world_.supervisor.on_events_lost(world_.now());
      case 2:
        note("systemd deaf");
        return world_.placer.hold();
      default:
        note("systemd answers");
        if (chance(30)) world_.placer.fail("random");
        return world_.placer.release();
    }
  }

  static Done ignore() {
    return [](const Result<void>&, const Now&) {};
  }

  Limits any_limits() {
    Limits limits;
    limits.memory = kMemory;
    limits.wall_clock = milliseconds{1000 + below(60000)};
    limits.grace = kGrace;
    limits.orphan_policy = chance(70) ? OrphanPolicy::kKill : OrphanPolicy::kReport;
    limits.owner_policy = chance(70) ? OwnerPolicy::kKill : OwnerPolicy::kIgnore;
    return limits;
  }

  void add_run(const std::string& id) {
    const pid_t leader = fork_of(chance(50) ? worker_ : fork_of(worker_));
    while (chance(50)) (void)fork_of(leader);
    note("register " + id + " with " + std::to_string(leader));
    (void)world_.request_register(id, leader, any_limits());
  }

  /// The watchdog signals members only: of a run that is being ended, or an orphan's subtree beside a living leader.
  void check_signal(const Sent& sent) {
    if (sent.sender != Sender::kWatchdog) return;
    const testing::Process& target = world_.process(sent.pid);
    const Run* home = nullptr;
    for (const auto& [key, run] : world_.supervisor.runs()) {
      if (run->cgroup && (target.cgroup + "/").starts_with(run->cgroup->path() + "/")) home = run.get();
    }
    note("signal " + std::to_string(sent.signal) + " to " + std::to_string(sent.pid));
    ASSERT_NE(home, nullptr) << "a signal to " << sent.pid << ", which is in no run: " << target.cgroup;
    if (home->phase != Phase::kRunning) return;
    ASSERT_FALSE(is_rooted(sent.pid, *home)) << "a signal to " << sent.pid << ", which is no orphan";
  }

  /// The rule of the design, in its own words: walk up, inside the run, to a root.
  bool is_rooted(pid_t pid, const Run& run) {
    const auto roots = run.roots();
    for (const testing::Process* process = world_.find_process(pid); process != nullptr;) {
      if (std::find(roots.begin(), roots.end(), key_of(process->stat)) != roots.end()) return true;
      const testing::Process* parent = world_.find_process(process->stat.parent);
      const bool inside =
          parent != nullptr && parent->alive() && (parent->cgroup + "/").starts_with(run.cgroup->path() + "/");
      process = inside ? parent : nullptr;
    }
    return false;
  }

  void check() {
    const Instant now = world_.now().monotonic;
    std::map<std::string, unsigned> begun;
    std::map<std::string, unsigned> over;
    for (const EventRecord& record : world_.recorder.records) {
      if (record.kind == EventKind::kRegistered) ++begun[record.run_id];
      if (record.kind == EventKind::kEnded || record.kind == EventKind::kUnregistered) ++over[record.run_id];
      EXPECT_TRUE(record.kind != EventKind::kEnded || record.reason.has_value());
    }
    for (const auto& [run_id, count] : over) EXPECT_TRUE(count == 1 && begun[run_id] == 1) << run_id;
    std::set<std::string> live;
    for (const auto& [key, run] : world_.supervisor.runs()) {
      if (run->state() == State::kPlacing) continue;
      live.insert(run->run_id);
      EXPECT_EQ(over.count(run->run_id), 0) << run->id.text() << " is over and lives";
      check_time(*run, now);
    }
    for (const auto& [run_id, count] : begun) EXPECT_EQ(live.count(run_id) + over.count(run_id), 1) << run_id;
    EXPECT_THAT(world_.signals_to(bystander_), IsEmpty());
    EXPECT_THAT(world_.signals_to(worker_), IsEmpty());
    EXPECT_TRUE(live.empty() || world_.alarm());
  }

  /// No live member past deadline + grace + patience, nor past an announced end + grace + patience.
  void check_time(const Run& run, Instant now) {
    const Span most = kGrace + Supervisor::kKillPatience;
    // A deadline may have been set to a time that had passed already.
    auto& [deadline, due] = due_[run.run_id];
    if (std::exchange(deadline, run.deadline) != run.deadline) due = std::max(run.deadline, now);
    if (run.releasing && due != kNever) due = std::max(due, now);  // Put off, in case it fails.
    if (run.releasing || world_.members(run.cgroup->path()).empty()) return;
    EXPECT_LT(now, add_span(due, most)) << run.id.text();
    if (run.phase == Phase::kRunning) {
      announced_.erase(run.run_id);
      return;
    }
    const auto [it, first] = announced_.emplace(run.run_id, now);
    EXPECT_LT(now, it->second + most + seconds{20}) << run.id.text();
  }

  /// Everything mended, and time enough: nothing is left of any run.
  void settle() {
    note("settle");
    world_.losing_notifications = false;
    world_.placer.release();
    world_.supervisor.on_events_lost(world_.now());
    for (int i = 0; i < 40; ++i) {
      world_.advance(seconds{3});
      check();
    }
    for (int i = 0; i < 20 && !world_.supervisor.runs().empty(); ++i) {
      const AnalysisId id = world_.supervisor.runs().begin()->second->id;
      EXPECT_TRUE(world_.supervisor.end(id, world_.caller(), world_.now()));
      world_.advance(seconds{30});
    }
    EXPECT_THAT(world_.supervisor.runs(), IsEmpty());
    EXPECT_EQ(world_.alarm(), std::nullopt);
    EXPECT_EQ(world_.slice_count(), 0);
    EXPECT_EQ(world_.watch_count(), 0);
    check();
  }

  std::mt19937 random_;
  World world_;
  pid_t worker_ = 0;
  pid_t bystander_ = 0;
  std::map<std::string, Instant> announced_;
  std::map<std::string, std::pair<Instant, Instant>> due_;
  std::ostringstream log_;
};

TEST(RandomHistories, EndEachRunOnceAndTouchNobodyElse) {
  constexpr unsigned kHistories = 200;
  const unsigned only = seed_from_environment();

  for (unsigned seed = only == 0 ? 1 : only; seed <= (only == 0 ? kHistories : only); ++seed) {
    AHistory history(seed);
    history.play(120);
    if (HasFailure()) {
      ADD_FAILURE() << "AW_SEED=" << seed << "\n" << history.log();
      break;
    }
  }
}

}  // namespace
}  // namespace aw::supervise
