// SPDX-License-Identifier: Apache-2.0
//
// What can be changed about a live run, what happens to it meanwhile, and what is left of a change that fails.
#include "testing/run_fixture.h"

namespace aw::supervise {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::mib;
using testing::OnTerm;
using ::testing::Pair;
using testing::refusal_of;
using testing::Reply;
using ::testing::SizeIs;
using testing::ToldToEnd;
using testing::World;

constexpr Span kLimit = minutes{30};
constexpr Span kGrace = seconds{10};

class AChangingRun : public testing::ARun {
 protected:
  using ARun::ARun;

  static Reply new_reply() { return std::make_shared<std::optional<Result<void>>>(); }
  Reply unregister() {
    const Reply reply = new_reply();
    supervisor.request_unregister(World::id("job"), world.caller(), world.now(), World::keep(reply));
    world.deliver();
    return reply;
  }
  Reply set(const Limits& limits) {
    const Reply reply = new_reply();
    supervisor.request_set_limits(World::id("job"), limits, world.caller(), world.now(), World::keep(reply));
    world.deliver();
    return reply;
  }
  Reply extend(Span by) {
    const Reply reply = new_reply();
    supervisor.request_extend(World::id("job"), by, world.caller(), world.now(), World::keep(reply));
    world.deliver();
    return reply;
  }
  Reply attach(pid_t pid) {
    const Reply reply = new_reply();
    supervisor.request_attach(World::id("job"), world.handle(pid), world.caller(), world.now(), World::keep(reply));
    world.deliver();
    return reply;
  }
  static bool done(const Reply& reply) { return reply->has_value() && (*reply)->has_value(); }
  static bool failed(const Reply& reply) { return reply->has_value() && !(*reply)->has_value(); }
  void fail_what_waits() {
    world.placer.fail("no");
    world.placer.release();
    world.deliver();
  }
  std::string cgroup_of(pid_t pid) { return world.process(pid).cgroup; }
};

// ---- whose it is ----

TEST_F(AChangingRun, TakesNoProcessThatHasBecomeAnothersOnItsWay) {
  const pid_t late = world.spawn(world.user_shell, "late");
  const std::string home = cgroup_of(late);
  world.placer.hold();
  const Reply reply = attach(late);

  world.process(late).uid = 0;
  world.placer.release();
  world.deliver();

  ASSERT_TRUE(failed(reply));
  EXPECT_EQ(testing::refusal_of(*reply), Refusal::kAccessDenied);
  EXPECT_EQ(cgroup_of(late), home);
  EXPECT_THAT(find()->attached, ::testing::IsEmpty());
  end();
  world.advance(kLimit);
  expect_left_alone(late);
}

// ---- whose pid it is ----

/// A process of a run ends just before its number is written, and somebody else gets that.
class AMovedRun : public AChangingRun {
 protected:
  enum class How { kOtherGrace, kLater, kUnregistered };

  Reply move(How how) {
    Limits limits;
    switch (how) {
      case How::kOtherGrace:
        limits = find()->limits;
        limits.grace = 2 * kGrace;
        return set(limits);
      case How::kLater:
        return extend(minutes{10});
      case How::kUnregistered:
        return unregister();
    }
    unreachable(how);
  }
  /// Once, before `pid` is moved by the watchdog.
  void before_move(pid_t pid, std::function<void()> what) {
    before_[pid] = std::move(what);
    if (world.cgroups.before_move) return;
    world.cgroups.before_move = [this](pid_t moved) {
      if (const auto next = before_.extract(moved)) next.mapped()();
    };
  }

 private:
  std::map<pid_t, std::function<void()>> before_;
};

TEST_F(AMovedRun, TakesNobodyAlongWhoHasAPidOfItsByThen) {
  for (const How how : {How::kOtherGrace, How::kLater, How::kUnregistered}) {
    const pid_t worker = world.spawn(leader, "worker");
    before_move(worker, [&] { replace_by_roots(worker); });

    const Reply reply = move(how);

    EXPECT_TRUE(done(reply));
    expect_with_cron(worker);
    world.advance(minutes{2});
    expect_with_cron(worker);
  }
}

TEST_F(AMovedRun, GivesOneOfAnotherRunBackToThatOne) {
  before_move(child, [&] { world.replace(child, bystander); });

  EXPECT_TRUE(done(move(How::kUnregistered)));

  EXPECT_EQ(cgroup_of(child), cgroup_of(bystander));
}

TEST_F(AMovedRun, GivesAScopeToOneWhoComesFromNowhereKnown) {
  before_move(child, [&] {
    world.replace(child, World::kInit);
    world.placer.hold();
  });

  EXPECT_TRUE(done(move(How::kLater)));

  EXPECT_EQ(cgroup_of(child), "/") << "waits within reach of whoever ends the run";
  end();
  expect_left_alone(child);
  world.placer.release();
  world.advance(kLimit);
  expect_left_alone(child);
  EXPECT_THAT(cgroup_of(child), ::testing::StartsWith("/analysis.slice/analysis-mistaken-r"));
}

TEST_F(AMovedRun, GivesBackWhatWasForkedMeanwhileToo) {
  for (const pid_t parent : {cron, World::kInit}) {
    const pid_t worker = world.spawn(leader, "worker");
    pid_t forked = 0;
    before_move(worker, [&] { world.replace(worker, parent); });
    world.cgroups.after_move = [&](pid_t pid) {
      if (pid == worker && forked == 0) forked = world.spawn(worker);
    };

    EXPECT_TRUE(done(move(How::kLater)));

    expect_left_alone(forked);
    EXPECT_NE(forked, 0);
    EXPECT_EQ(cgroup_of(forked), cgroup_of(worker));
    EXPECT_FALSE(is_within(cgroup_of(forked), find()->cgroup->path()));
  }
}

TEST_F(AMovedRun, KeepsAForkOfItsOwnThatHasAPidOfItsByThen) {
  before_move(child, [&] { world.replace(child, leader, "next"); });

  EXPECT_TRUE(done(move(How::kLater)));

  EXPECT_EQ(cgroup_of(child), cgroup_of(leader));
  EXPECT_TRUE(is_within(cgroup_of(child), find()->cgroup->path()));
}

TEST_F(AMovedRun, LeavesOneWhereItIsWhoHasAPidOfItsBeforeThatsTurn) {
  const pid_t worker = world.spawn(leader, "worker");
  before_move(child, [&] { replace_by_roots(worker); });
  std::vector<pid_t> moved;
  world.cgroups.after_move = [&](pid_t pid) { moved.push_back(pid); };

  EXPECT_TRUE(done(move(How::kLater)));

  EXPECT_THAT(moved, ElementsAre(child));
  expect_with_cron(worker);
}

TEST_F(AMovedRun, LeavesNobodyBehindWhoForksAndEndsBetweenAnyTwoLists) {
  pid_t hopping = child;
  int hops = 20;
  bool begun = false;
  world.cgroups.on_move = [&](pid_t pid, const std::string&) { begun = begun || pid == leader; };
  world.cgroups.after_list = [&] {
    if (!begun || hops == 0) return;
    --hops;
    const pid_t forked = world.spawn(hopping);
    world.exit(hopping);
    world.reap(hopping);
    hopping = forked;
  };

  EXPECT_TRUE(done(move(How::kUnregistered)));

  EXPECT_EQ(hops, 0);
  EXPECT_EQ(cgroup_of(hopping), cgroup_of(leader));
  expect_left_alone(hopping);
}

TEST_F(AMovedRun, LeavesNobodyBehindWhomOneForkedThatEndedBeforeItsTurn) {
  for (const How how : {How::kLater, How::kUnregistered}) {
    const pid_t worker = how == How::kLater ? child : world.spawn(leader, "worker");
    pid_t forked = 0;
    bool begun = false;
    world.cgroups.on_move = [&](pid_t pid, const std::string&) { begun = begun || pid == leader; };
    world.cgroups.after_list = [&] {
      if (!begun || forked != 0) return;
      forked = world.spawn(worker);
      world.exit(worker);
      world.reap(worker);
    };

    EXPECT_TRUE(done(move(how)));

    ASSERT_NE(forked, 0);
    EXPECT_EQ(cgroup_of(forked), cgroup_of(leader));
    expect_left_alone(forked);
  }
}

TEST_F(AMovedRun, IsNotTriedForEverWhereWhatItIsToGoIntoIsGone) {
  for (int i = 0; i < 3; ++i) world.spawn(leader);
  int moves = 0;
  world.cgroups.before_move = [&](pid_t) {
    // systemd removes a scope whose last process has ended.
    if (++moves == 1) world.exit(leader);
  };

  EXPECT_TRUE(failed(move(How::kLater)));

  EXPECT_EQ(moves, 1);
}

TEST_F(AMovedRun, TakesNobodyAlongOnItsWayBack) {
  world.cgroups.immovable = {child};
  before_move(child, [&] { before_move(leader, [&] { replace_by_roots(leader); }); });

  EXPECT_TRUE(failed(move(How::kUnregistered)));

  expect_with_cron(leader);
  world.advance(kLimit);
  expect_with_cron(leader);
}

TEST_F(AMovedRun, BeginsItsNextScopeWithNobodyElse) {
  std::set<std::string> cgroups;
  world.cgroups.on_move = [&](pid_t pid, const std::string& to) {
    if (pid == leader) cgroups.insert(to);
  };
  bool replaced = false;
  world.processes.before_open = [&](pid_t pid) {
    if (pid == leader && !std::exchange(replaced, true)) replace_by_roots(leader);
  };

  (void)move(How::kLater);
  world.advance(kLimit);

  EXPECT_THAT(cgroups, IsEmpty());
  expect_with_cron(leader);
}

// ---- unregistering ----

TEST_F(AChangingRun, LivesOnWithoutLimitsWhenItIsUnregistered) {
  EXPECT_TRUE(done(unregister()));
  world.advance(2 * kLimit);

  for (const pid_t pid : {leader, child}) {
    expect_left_alone(pid);
    EXPECT_THAT(cgroup_of(pid), ::testing::StartsWith("/analysis.slice/analysis-job-r"));
  }
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kRegistered, EventKind::kUnregistered));
  EXPECT_FALSE(world.has_slice("job"));
  EXPECT_EQ(find(), nullptr);
  EXPECT_EQ(world.placer.orders.back().runtime_max, kForever);
}

TEST_F(AChangingRun, TakesItsForksAlongWhenItIsUnregistered) {
  std::vector<pid_t> forked;
  world.cgroups.before_move = [&](pid_t pid) {
    if (forked.size() < 5) forked.push_back(world.spawn(pid));
  };

  EXPECT_TRUE(done(unregister()));

  for (const pid_t pid : forked) expect_left_alone(pid);
}

TEST_F(AChangingRun, MayBeRegisteredAgainAfterItWasUnregistered) {
  unregister();

  world.register_run("job", leader);

  EXPECT_EQ(cgroup_of(leader), scope_path());
  EXPECT_EQ(cgroup_of(child), scope_path());
}

TEST_F(AChangingRun, IsNotEndedByADeadlineThatPassesWhileItIsReleased) {
  world.placer.hold();
  const Reply reply = unregister();
  advance_to(kLimit + seconds{1});
  expect_left_alone(leader);

  world.placer.release();
  world.advance(seconds{20});

  EXPECT_TRUE(done(reply));
  expect_left_alone(leader);
  EXPECT_EQ(end_of(), std::nullopt);
}

TEST_F(AChangingRun, IsNotToldToHaveBeenEndedWhileItIsReleased) {
  world.placer.hold();
  const Reply reply = unregister();

  const auto ended = supervisor.end(World::id("job"), world.caller(), world.now());
  world.placer.release();
  world.advance(seconds{20});

  EXPECT_EQ(refusal_of(std::optional(ended)), Refusal::kScopeFailed);
  EXPECT_TRUE(done(reply));
  expect_left_alone(leader);
}

TEST_F(AChangingRun, IsEndedByADeadlineThatPassedWhenItsReleaseFails) {
  world.placer.hold();
  const Reply reply = unregister();
  advance_to(kLimit + seconds{1});

  fail_what_waits();

  EXPECT_TRUE(failed(reply));
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, ThatIsKilledWhileItsReleaseFailsWasNotEndedForWhatWasPutOff) {
  world.placer.hold();
  const Reply reply = unregister();
  world.advance(kLimit + seconds{1});  // Its deadline passes, and is put off.
  for (const pid_t pid : {leader, child}) world.kill(pid, SIGKILL);
  fail_what_waits();
  world.advance(seconds{2});

  EXPECT_TRUE(failed(reply));
  EXPECT_EQ(end_of(), Reason::kExternal);
}

TEST_F(AChangingRun, GoesOnWhenItsReleaseFails) {
  world.placer.hold();
  const Reply reply = unregister();
  fail_what_waits();

  EXPECT_EQ(refusal_of(*reply), Refusal::kScopeFailed);
  EXPECT_THAT((*reply)->error().message, HasSubstr("\"job\" stays as it was: no"));
  expect_left_alone(leader);
  EXPECT_EQ(cgroup_of(leader), scope_path());
  advance_to(kLimit);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, IsWholeAgainWhenItsReleaseFailsHalfWay) {
  world.cgroups.immovable = {child};

  EXPECT_EQ(refusal_of(*unregister()), Refusal::kScopeFailed);

  EXPECT_EQ(cgroup_of(leader), scope_path());
  EXPECT_EQ(cgroup_of(child), scope_path());
  advance_to(kLimit);
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, ThatEndsWhileItIsReleasedHasEnded) {
  world.placer.hold();
  const Reply reply = unregister();
  world.exit(child);
  world.exit(leader, 1);
  world.advance(seconds{5});
  world.placer.release();
  world.advance(seconds{5});

  EXPECT_TRUE(failed(reply));
  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(AChangingRun, ThatTheKernelHitsWhileItIsReleasedDoesNotLiveOnByHalves) {
  const pid_t attached = world.spawn(world.user_shell);
  ASSERT_TRUE(done(attach(attached)));
  world.placer.hold();
  const Reply reply = unregister();

  world.oom_kill("job", World::scope_name("job"));
  world.advance(seconds{1});
  world.placer.release();
  world.advance(seconds{1});

  EXPECT_TRUE(failed(reply));
  EXPECT_FALSE(world.alive(attached));
  EXPECT_EQ(end_of(), Reason::kOom);
}

TEST_F(AChangingRun, SaysThatItIsKilledBeforeWhatWasLetOutIsStopped) {
  const pid_t attached = world.spawn(world.user_shell);
  ASSERT_TRUE(done(attach(attached)));
  world.placer.hold();
  const Reply reply = unregister();
  world.oom_kill("job", World::scope_name("job", 2));  // Only what was attached.
  world.placer.on_stop = [&](const std::string& unit) {
    if (unit.ends_with(".slice")) return;
    EXPECT_THAT(world.records("job", EventKind::kEscalated), SizeIs(1)) << unit;
  };
  world.placer.release();
  world.advance(seconds{20});

  EXPECT_TRUE(failed(reply));
  EXPECT_FALSE(world.alive(leader));
  EXPECT_EQ(end_of(), Reason::kOom);
}

TEST_F(AChangingRun, IsNotUnregisteredOnceItsEndIsAnnounced) {
  set_on_term(OnTerm::kIgnores);
  end();

  EXPECT_EQ(refusal_of(*unregister()), Refusal::kNoSuchAnalysis);
  world.advance(kGrace);
  EXPECT_EQ(end_of(), Reason::kRequested);
}

// ---- limits ----

TEST_F(AChangingRun, HasItsNewLimitsInForceAndOnRecord) {
  Limits limits;
  limits.memory = mib(1024);
  limits.tasks_max = 12;
  limits.description = "smaller";

  EXPECT_TRUE(done(set(limits)));

  EXPECT_EQ(world.slice("job").limits.tripwire, mib(1024));
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(1024 + 128));
  EXPECT_EQ(world.slice("job").limits.tasks_max, 12);
  const auto changed = world.records("job", EventKind::kLimitsChanged);
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_THAT(changed[0].details, Contains(Pair("memory_limit_bytes", DetailValue(mib(1024).count()))));
  EXPECT_THAT(changed[0].details, Contains(Pair("memory_limit_bytes_before", DetailValue(mib(2048).count()))));
  EXPECT_THAT(changed[0].details, Contains(Pair("description", DetailValue(std::string("smaller")))));
}

TEST_F(AChangingRun, IsEndedAtOnceByALimitBelowWhatItHas) {
  world.use_memory("job", mib(1500));
  Limits limits;
  limits.memory = mib(1024);

  set_on_term(testing::OnTerm::kIgnores);
  EXPECT_TRUE(done(set(limits)));
  world.advance(seconds{5});

  // The kernel would kill it at the new ceiling before it could hear of its end.
  EXPECT_EQ(world.slice("job").limits.ceiling, mib(2048 + 256));
  EXPECT_EQ(world.slice("job").tripwire, mib(2048 + 128));
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
  EXPECT_THAT(world.kinds("job"), ElementsAre(EventKind::kRegistered, EventKind::kLimitsChanged, EventKind::kEnding));
  world.advance(seconds{20});
  EXPECT_EQ(end_of(), Reason::kMemory);
  EXPECT_EQ(end_record().memory_limit, mib(1024));
}

TEST_F(AChangingRun, IsEndedAtItsNewDeadline) {
  Limits limits;
  limits.wall_clock = minutes{10};

  EXPECT_TRUE(done(set(limits)));
  advance_to(minutes{10} - Span(1));
  expect_left_alone(leader);
  world.advance(Span(1));

  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_THAT(world.placer.orders, SizeIs(2));  // The bystander's and this: the backstop is later, and stays.
}

TEST_F(AChangingRun, IsEndedAtOnceByADeadlineThatHasPassed) {
  advance_to(minutes{11});
  Limits limits;
  limits.wall_clock = minutes{10};

  set(limits);
  world.advance(Span(1));

  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, HasNoDeadlineOnceThatIsLifted) {
  Limits limits;
  limits.wall_clock = kForever;

  EXPECT_TRUE(done(set(limits)));
  world.advance(std::chrono::hours{20});

  expect_left_alone(leader);
  EXPECT_EQ(world.placer.orders.back().runtime_max, kForever);
  EXPECT_EQ(cgroup_of(leader), scope_path(World::scope_name("job", 2)));
  EXPECT_EQ(cgroup_of(child), scope_path(World::scope_name("job", 2)));
}

TEST_F(AChangingRun, GetsAFreshScopeForANewGrace) {
  set_on_term(OnTerm::kIgnores);
  Limits limits;
  limits.grace = seconds{3};

  EXPECT_TRUE(done(set(limits)));
  EXPECT_EQ(world.placer.orders.back().stop_timeout, seconds{3});
  end();
  world.advance(seconds{3});

  EXPECT_EQ(end_of(), Reason::kRequested);
  EXPECT_EQ(end_record().unit, World::scope_name("job", 2));
}

TEST_F(AChangingRun, KeepsItsLimitsWhenTheNewOnesAreRefused) {
  Limits zero;
  zero.wall_clock = Span(0);
  EXPECT_EQ(refusal_of(*set(zero)), Refusal::kInvalidOption);

  world.placer.hold();
  Limits limits;
  limits.memory = mib(1024);
  limits.wall_clock = minutes{5};
  const Reply reply = set(limits);
  fail_what_waits();

  EXPECT_EQ(refusal_of(*reply), Refusal::kScopeFailed);
  EXPECT_EQ(find()->limits, Limits());
  EXPECT_THAT(world.records("job", EventKind::kLimitsChanged), SizeIs(0));
  advance_to(minutes{6});
  expect_left_alone(leader);
}

TEST_F(AChangingRun, IsJudgedByTheRaisedLimitAsLongAsSystemdHasNotRefusedIt) {
  Limits raised;
  raised.memory = kGiB + kGiB;
  Limits small = raised;
  small.memory = mib(512);
  ASSERT_TRUE(done(set(small)));
  world.placer.hold();
  const Reply reply = set(raised);
  world.use_memory("job", mib(540));
  world.advance(minutes{1});
  EXPECT_THAT(world.signals_to(leader), IsEmpty());

  fail_what_waits();
  world.advance(seconds{1});

  EXPECT_TRUE(failed(reply));
  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
}

TEST_F(AChangingRun, KeepsItsLimitsWhenItsFreshScopeFails) {
  Limits limits;
  limits.memory = mib(1024);
  limits.wall_clock = 2 * kLimit;
  world.placer.hold();
  const Reply reply = set(limits);
  world.placer.answer();
  fail_what_waits();

  EXPECT_EQ(refusal_of(*reply), Refusal::kScopeFailed);
  EXPECT_EQ(find()->limits, Limits());
  EXPECT_EQ(world.slice("job").limits.tripwire, mib(2048));
  advance_to(kLimit);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, IsChangedByOneAtATime) {
  world.placer.hold();
  Limits limits;
  limits.grace = seconds{3};
  const Reply first = set(limits);
  const Reply second = set(Limits());
  const Reply third = unregister();
  world.placer.release();
  world.deliver();

  EXPECT_TRUE(done(first));
  for (const Reply& refused : {second, third}) {
    EXPECT_EQ(refusal_of(*refused), Refusal::kScopeFailed);
    ASSERT_TRUE(failed(refused));
    EXPECT_EQ((*refused)->error().message, "another change of this analysis is under way; try again");
  }
  EXPECT_TRUE(done(unregister()));
  expect_left_alone(leader);
}

TEST_F(AChangingRun, ThatIsEndedWhileItIsChangedIsNotToBeTriedAgain) {
  set_on_term(OnTerm::kIgnores);
  world.placer.hold();
  Limits limits;
  limits.memory = mib(1024);
  set(limits);
  end();

  EXPECT_EQ(refusal_of(*extend(seconds{1})), Refusal::kNoSuchAnalysis);
  world.placer.release();
  world.advance(kGrace);
}

TEST_F(AChangingRun, ThatEndsWhileItIsChangedHasEnded) {
  world.placer.hold();
  Limits limits;
  limits.memory = mib(1024);
  const Reply reply = set(limits);
  end();
  world.placer.release();
  world.deliver();

  EXPECT_TRUE(failed(reply));
  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(AChangingRun, IsOrphanedByItsOwnerOnceThatPolicyIsSet) {
  Limits limits;
  limits.owner_policy = OwnerPolicy::kIgnore;
  set(limits);
  limits.owner_policy = OwnerPolicy::kKill;
  set(limits);

  world.exit(owner);
  world.advance(seconds{1});

  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(AChangingRun, IsOrphanedByItsOwnerOnceThatPolicyIsSetAlsoForTheNextDaemon) {
  for (const OwnerPolicy policy : {OwnerPolicy::kIgnore, OwnerPolicy::kKill}) {
    Limits limits;
    limits.owner_policy = policy;
    ASSERT_TRUE(done(set(limits)));
  }

  world.restart_daemon();
  world.adopt();
  world.exit(owner);
  world.advance(seconds{1});

  EXPECT_THAT(world.signals_to(leader), ToldToEnd());
}

TEST_F(AChangingRun, OutlivesItsOwnerOnceThatPolicyIsSet) {
  Limits limits;
  limits.owner_policy = OwnerPolicy::kIgnore;
  set(limits);

  world.exit(owner);
  world.advance(seconds{10});

  expect_left_alone(leader);
}

// ---- deadlines ----

TEST_F(AChangingRun, IsExtendedWithinItsBackstopAsItIs) {
  EXPECT_TRUE(done(extend(seconds{15})));

  EXPECT_THAT(world.placer.orders, SizeIs(2));
  advance_to(kLimit + seconds{15} - Span(1));
  expect_left_alone(leader);
  world.advance(Span(1));
  EXPECT_EQ(end_of(), Reason::kWallClock);
  EXPECT_THAT(world.records("job", EventKind::kExtended).at(0).details,
              Contains(Pair("extended_by_usec", DetailValue(std::uint64_t{15'000'000}))));
}

TEST_F(AChangingRun, IsExtendedPastItsBackstopInAFreshScope) {
  advance_to(minutes{20});

  EXPECT_TRUE(done(extend(minutes{10})));

  EXPECT_EQ(world.placer.orders.back().scope, World::scope_name("job", 2));
  EXPECT_EQ(world.placer.orders.back().runtime_max, minutes{20} + kGrace + Supervisor::kBackstopMargin);
  for (const pid_t pid : {leader, child}) EXPECT_EQ(cgroup_of(pid), scope_path(World::scope_name("job", 2)));
  EXPECT_EQ(find()->limits.wall_clock, minutes{40});
  advance_to(minutes{40} - Span(1));
  expect_left_alone(leader);
  world.advance(Span(1));
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, IsExtendedWithinItsNewBackstopAsItIs) {
  extend(minutes{10});

  EXPECT_TRUE(done(extend(seconds{15})));
  EXPECT_THAT(world.placer.orders, SizeIs(3));
  EXPECT_TRUE(done(extend(seconds{1})));
  EXPECT_THAT(world.placer.orders, SizeIs(4));
}

TEST_F(AChangingRun, KeepsItsDeadlineWhenItsFreshScopeFails) {
  world.placer.hold();
  const Reply reply = extend(minutes{10});
  fail_what_waits();

  EXPECT_EQ(refusal_of(*reply), Refusal::kScopeFailed);
  EXPECT_THAT(world.records("job", EventKind::kExtended), SizeIs(0));
  advance_to(kLimit);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AChangingRun, ThatEndsWhileItIsExtendedHasEnded) {
  world.placer.hold();
  const Reply reply = extend(minutes{10});
  world.exit(child);
  world.exit(leader);
  world.advance(seconds{10});
  world.placer.release();
  world.advance(seconds{10});

  EXPECT_TRUE(failed(reply));
  EXPECT_EQ(end_of(), Reason::kExited);
}

TEST_F(AChangingRun, IsNotExtendedByNothingNorByMoreThanIsAllowed) {
  Policy policy;
  policy.caps.wall_clock = minutes{45};
  supervisor.set_policy(policy, world.now());

  EXPECT_EQ(refusal_of(*extend(Span(0))), Refusal::kInvalidOption);
  EXPECT_EQ(refusal_of(*extend(-seconds{1})), Refusal::kInvalidOption);
  EXPECT_EQ(refusal_of(*extend(minutes{16})), Refusal::kLimitTooHigh);
  EXPECT_TRUE(done(extend(minutes{15})));
}

TEST_F(AChangingRun, IsExtendedWithoutEnd) {
  EXPECT_TRUE(done(extend(kForever)));

  EXPECT_EQ(find()->deadline, kNever);
  EXPECT_TRUE(done(extend(minutes{1})));
  world.advance(std::chrono::hours{20});
  expect_left_alone(leader);
}

TEST_F(AChangingRun, ThatIsNoneIsToldSo) {
  const Reply reply = new_reply();

  supervisor.request_extend(World::id("nothing"), seconds{1}, world.caller(), world.now(), World::keep(reply));
  EXPECT_EQ(refusal_of(*reply), Refusal::kNoSuchAnalysis);
  supervisor.request_unregister(World::id("nothing"), world.caller(), world.now(), World::keep(reply));
  EXPECT_EQ(refusal_of(*reply), Refusal::kNoSuchAnalysis);
  supervisor.request_set_limits(World::id("nothing"), {}, world.caller(), world.now(), World::keep(reply));
  EXPECT_EQ(refusal_of(*reply), Refusal::kNoSuchAnalysis);
  EXPECT_FALSE(supervisor.end(World::id("nothing"), world.caller(), world.now()));
}

// ---- attaching ----

// ---- very many processes ----

class AVeryLargeRun : public AChangingRun {
 protected:
  AVeryLargeRun() {
    for (int i = 0; i < 3000; ++i) world.spawn(leader, "worker");
    advance_to(minutes{20});
  }
  Reply extend_as(uid_t uid, Span by) {
    const Reply reply = new_reply();
    supervisor.request_extend(World::id("job"), by, world.caller(uid), world.now(), World::keep(reply));
    world.deliver();
    return reply;
  }
};

TEST_F(AVeryLargeRun, IsNotMovedAgainAtOnce) {
  EXPECT_TRUE(done(extend(minutes{10})));

  const Reply again = extend(minutes{10});
  EXPECT_EQ(refusal_of(*again), Refusal::kScopeFailed);
  EXPECT_THAT((*again)->error().message, HasSubstr("moved a moment ago; try again in 1001 ms"));
  Limits limits = find()->limits;
  limits.grace = 2 * kGrace;
  EXPECT_EQ(refusal_of(*set(limits)), Refusal::kScopeFailed);
  EXPECT_EQ(refusal_of(*unregister()), Refusal::kScopeFailed);
  EXPECT_EQ(find()->limits.wall_clock, minutes{40});
  EXPECT_EQ(find()->limits.grace, kGrace);

  world.advance(std::chrono::milliseconds{1001});
  EXPECT_TRUE(done(extend(minutes{10})));
}

TEST_F(AVeryLargeRun, IsChangedAllTheSameWhereNobodyIsMoved) {
  EXPECT_TRUE(done(extend(minutes{10})));

  Limits limits = find()->limits;
  limits.memory = limits.memory / 2;
  EXPECT_TRUE(done(set(limits)));
}

TEST_F(AVeryLargeRun, KeepsNobodyFromMovingASmallOne) {
  const pid_t small = world.spawn(owner);
  world.register_run("small", small);
  EXPECT_TRUE(done(extend(minutes{10})));

  const Reply reply = new_reply();
  supervisor.request_extend(World::id("small"), minutes{60}, world.caller(), world.now(), World::keep(reply));
  world.deliver();

  EXPECT_TRUE(done(reply));
}

TEST_F(AVeryLargeRun, IsMovedForAnAdministratorWhenTheyLike) {
  EXPECT_TRUE(done(extend(minutes{10})));

  EXPECT_TRUE(done(extend_as(0, minutes{10})));
}

class AnAttachedProcess : public AChangingRun {
 protected:
  const pid_t helper = world.spawn(world.user_shell, "helper");
  const pid_t helpers_child = world.spawn(helper);
};

TEST_F(AnAttachedProcess, IsInTheRunWithItsTree) {
  EXPECT_TRUE(done(attach(helper)));

  EXPECT_EQ(cgroup_of(helper), scope_path(World::scope_name("job", 2)));
  EXPECT_TRUE(cgroup_of(helpers_child).starts_with("/analysis.slice/" + World::slice_name("job") + "/"));
  world.advance(minutes{1});
  expect_left_alone(helper);  // Nobody's orphan.
  expect_left_alone(helpers_child);
}

TEST_F(AnAttachedProcess, IsEndedWithTheRun) {
  set_on_term(OnTerm::kIgnores);
  attach(helper);

  advance_to(kLimit);

  for (const pid_t pid : {leader, child, helper, helpers_child}) EXPECT_THAT(world.signals_to(pid), ToldToEnd());
  world.advance(kGrace);
  EXPECT_EQ(end_of(), Reason::kWallClock);
}

TEST_F(AnAttachedProcess, ThatComesWhileTheRunIsEndedIsToldOnceAndNobodyElseAgain) {
  set_on_term(OnTerm::kIgnores);
  world.placer.hold();
  const Reply reply = attach(helper);
  end();
  world.placer.release();
  world.deliver();

  for (const pid_t pid : {leader, child, helper, helpers_child}) EXPECT_THAT(world.signals_to(pid), ToldToEnd());
  world.advance(kGrace);
  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(AnAttachedProcess, ThatComesWhenTheTreeHasJustEmptiedIsNotLost) {
  world.placer.answers_settled = false;
  world.process(owner).reaps = testing::Reaps::kAtOnce;
  world.exit(child);
  world.exit(leader);
  world.deliver();

  const Reply reply = attach(helper);
  world.advance(seconds{20});

  // Either it was refused, and lives; or it belongs to a run without a leader, and was ended by the rule.
  if (done(reply)) {
    EXPECT_THAT(world.signals_to(helper), ToldToEnd());
    EXPECT_EQ(end_of(), Reason::kOrphaned);
  } else {
    expect_left_alone(helper);
  }
}

TEST_F(AnAttachedProcess, IsNoneIfItDiesMeanwhile) {
  world.placer.hold();
  const Reply reply = attach(helper);
  world.exit(helpers_child);
  world.exit(helper);
  world.advance(seconds{1});
  world.placer.release();
  world.advance(seconds{1});

  EXPECT_EQ(refusal_of(*reply), Refusal::kNoSuchProcess);
  EXPECT_EQ(find()->state(), State::kRunning);
}

TEST_F(AnAttachedProcess, GoesBackWhereItCameFromWhenItsTreeCannotBeMoved) {
  const std::string home = cgroup_of(helper);
  world.cgroups.immovable = {helpers_child};

  EXPECT_EQ(refusal_of(*attach(helper)), Refusal::kScopeFailed);
  world.advance(seconds{1});

  EXPECT_EQ(cgroup_of(helper), home);
  end();
  world.advance(seconds{20});
  expect_left_alone(helper);
  expect_left_alone(helpers_child);
}

TEST_F(AnAttachedProcess, IsNotEndedWithARunThatEndsMeanwhile) {
  world.placer.hold();
  const Reply reply = attach(helper);
  world.kill(child, SIGKILL);
  world.kill(leader, SIGKILL);
  world.deliver();
  EXPECT_EQ(end_of(), std::nullopt);  // Its slice is not removed while somebody is on the way in.
  world.placer.release();
  world.advance(minutes{1});

  EXPECT_TRUE(done(reply));
  EXPECT_EQ(end_of(), Reason::kOrphaned);
}

TEST_F(AnAttachedProcess, IsNotStoppedWhereSystemdHasNotAnsweredAndDoesItAllTheSame) {
  world.placer.hold();
  const Reply reply = attach(helper);
  world.placer.lose_answers();
  world.deliver();
  EXPECT_TRUE(failed(reply));
  world.placer.release();
  world.advance(minutes{1});

  expect_left_alone(helper);
  EXPECT_THAT(world.signals_to(helper, testing::Sender::kSystemd), IsEmpty());
  EXPECT_THAT(find()->attached, ElementsAre(key_of(world.process(helper).stat)));
}

TEST_F(AnAttachedProcess, GoesBackWhenTheSliceWasStoppedMeanwhile) {
  const std::string home = cgroup_of(helper);
  world.placer.hold();
  const Reply reply = attach(helper);
  world.remove_slice(World::slice_name("job"));
  world.placer.release();  // systemd makes another slice of that name for the scope.
  world.advance(minutes{2});

  EXPECT_EQ(refusal_of(*reply), Refusal::kNoSuchAnalysis);
  EXPECT_EQ(cgroup_of(helper), home);
  expect_left_alone(helper);
  expect_left_alone(helpers_child);
  EXPECT_TRUE(end_of());
  EXPECT_FALSE(world.has_slice("job"));
}

TEST_F(AnAttachedProcess, IsNotKilledWithARunThatIsBeingKilled) {
  set_on_term(OnTerm::kIgnores);
  world.placer.hold();
  const Reply reply = attach(helper);
  end();
  world.advance(minutes{1});
  EXPECT_FALSE(world.alive(leader));
  EXPECT_THAT(world.records("job", EventKind::kUnkillable), IsEmpty()) << "there is nobody left to kill";
  world.placer.release();
  world.advance(minutes{1});

  EXPECT_EQ(refusal_of(*reply), Refusal::kNoSuchAnalysis);
  expect_left_alone(helper);
  expect_left_alone(helpers_child);
  EXPECT_EQ(end_of(), Reason::kRequested);
}

TEST_F(AnAttachedProcess, HasTheRunsWholeTimeWhereSystemdWasSlowToPlaceIt) {
  const pid_t late = world.spawn(owner);
  world.placer.hold();
  Limits limits;
  limits.wall_clock = limits.grace = seconds{1};
  const testing::Answer answer = world.request_register("late", late, limits);
  world.advance(minutes{5});  // By the time of the request its backstop has passed already.
  world.placer.release();
  world.placer.fail("no fresh scope for it");
  const Reply reply = new_reply();
  supervisor.request_attach(World::id("late"), world.handle(helper), world.caller(), world.now(), World::keep(reply));
  world.advance(std::chrono::milliseconds{1});

  ASSERT_TRUE(*answer && **answer);
  EXPECT_TRUE(done(reply));
  EXPECT_TRUE(world.alive(helper));
  EXPECT_THAT(world.signals_to(helper, testing::Sender::kSystemd), IsEmpty());
}

TEST_F(AnAttachedProcess, IsRefusedWhereItIsAMemberOrForbidden) {
  EXPECT_EQ(refusal_of(*attach(child)), Refusal::kProcessAlreadyRegistered);
  EXPECT_EQ(refusal_of(*attach(bystander)), Refusal::kProcessAlreadyRegistered);
  EXPECT_EQ(refusal_of(*attach(World::kInit)), Refusal::kProtectedProcess);
}

TEST_F(AnAttachedProcess, MovesAlongIntoAFreshScope) {
  attach(helper);

  EXPECT_TRUE(done(extend(minutes{10})));

  for (const pid_t pid : {leader, child, helper, helpers_child}) {
    EXPECT_EQ(cgroup_of(pid), scope_path(World::scope_name("job", 3)));
  }
  world.advance(minutes{1});
  expect_left_alone(helper);
}

TEST_F(AnAttachedProcess, IsReleasedWithTheRun) {
  attach(helper);

  EXPECT_TRUE(done(unregister()));
  world.advance(minutes{1});

  expect_left_alone(helper);
  expect_left_alone(helpers_child);
}

TEST_F(AnAttachedProcess, IsNotStoppedByAReleaseThatWasAskedMeanwhile) {
  world.placer.hold();
  const Reply attached = attach(helper);
  const Reply released = unregister();
  world.placer.release();
  world.advance(seconds{1});

  EXPECT_TRUE(done(attached));
  EXPECT_EQ(refusal_of(*released), Refusal::kScopeFailed);
  expect_left_alone(helper);
}

TEST_F(AChangingRun, ReleasesNobodyWhomTheKernelHasKilledMeanwhile) {
  world.process(owner).reaps = testing::Reaps::kNever;  // systemd takes the zombie, and its scope stays empty.
  world.placer.hold();
  const Reply reply = unregister();
  world.losing_notifications = true;
  world.oom_kill("job", World::scope_name("job"));
  world.placer.release();
  world.advance(seconds{10});

  EXPECT_EQ(end_of(), Reason::kOom);
  EXPECT_THAT(world.records("job", EventKind::kUnregistered), IsEmpty());
  ASSERT_TRUE(*reply);
  EXPECT_FALSE(**reply);
  EXPECT_THAT(world.scopes(), SizeIs(1)) << "besides the bystander's";
}

}  // namespace
}  // namespace aw::supervise
