// SPDX-License-Identifier: Apache-2.0
//
// The walk: for each failpoint that the installed daemon has, and each thing that may go wrong there, one story in
// which it does, once, in the middle of the whole life of a dozen runs. Whatever it was, afterwards every run has ended
// exactly once, for its own reason, on record in ledger and journal alike; nothing of any run is left; nobody else has
// noticed anything; and the next run is watched.
//
// How often the scenario reaches a point is counted first, in a life in which nothing goes wrong: the fault then comes
// at about a half of that. Only a build with AW_FAILPOINTS has points (./dev test --failpoints).
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "base/analysis_id.h"
#include "base/unique_fd.h"
#include "ledger/ledger_reader.h"
#include "support/faults.h"
#include "support/shared_store.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kDaemon[] = "/usr/sbin/analysis-watchdogd";
constexpr char kLedger[] = "/var/lib/analysis-watchdog/ledger.db";
constexpr char kCensus[] = "/run/failpoint-walk/census";
constexpr char kIdentifier[] = "analysis-watchdogd";

/// What a run may be late by, beyond its limit and its grace: a crash, RestartSec=, and a start in the emulated guest.
constexpr Span kRestart = 60s;
/// Until everything is over. systemd's own backstop would be later.
constexpr Span kOver = 3min;

/// Points that the scenario can't reach, and why.
const std::map<std::string, std::string> kUnreached{
    {"ledger.prune", "the daemon deletes events only when the ledger is at its MaxSize=, and 64 MiB are the least"},
};

/// As long as the walk goes on.
std::optional<OrdersForNextStart> orders;
std::optional<SharedStore> store;

/// Only a ledger that is damaged is set aside.
bool needs_damage(const std::string& point) { return point == "ledger.set-aside" || point == "ledger.was-set-aside"; }

/// A run of the scenario. One that came to nothing was tried again under another id, and is looked after all the same.
struct Life {
  std::string what;
  std::string id;
  std::set<std::string> reasons;       ///< that are right; none: it is released and does not end
  Child process;                       ///< analysis-run, or the leader
  bool to_be_killed = false;           ///< it ends when asked to
  std::optional<Instant> latest = {};  ///< when nothing of it may be alive any more, wherever that is sure
  std::vector<Held> members = {};
};

class FailpointWalk : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    token_ = path("token");
    bystander_ = std::make_unique<Child>(spawn_workload({"witness", path("letters")}));
    await_file_of_bystander();
  }

  void TearDown() override {
    lives_.clear();
    if (HasFailure()) restart_daemon();  // What it was to do may still be before it.
    Story::TearDown();
  }

  /// The whole life of all runs, with a daemon that starts with this in its environment, and everything that must be so
  /// afterwards. `order` is obeyed by that one daemon; if it dies of it, the next has none.
  void tell(const std::string& order, bool damage, bool journal_fails) {
    lives_.clear();  // The first story of a boot tells it twice.
    ids_.clear();
    for (const char* told : {"ending", "stubborn", "leak", "orphan", "tree"}) std::filesystem::remove(path(told));
    begin_with_the_daemon_before();
    if (HasFatalFailure()) return;
    begin_again(order, damage);
    if (HasFatalFailure()) return;
    begin_with_this_daemon();
    await_the_end();
    restart_daemon();  // Its stop is a part of its life.
    if (HasFatalFailure()) return;
    expect_all_on_record(journal_fails);
    expect_all_shipped();
    expect_nothing_left();
    expect_a_run_to_be_watched();
  }

  /// How often each point is reached: at least this often, and less than twice as often.
  std::map<std::string, std::uint64_t> take_census() {
    const Sayings sayings(kIdentifier);
    tell("*=count", false, false);
    std::map<std::string, std::uint64_t> census;
    for (const std::string& line : sayings.read()) {
      // failpoint NAME hit N: count
      std::istringstream words(line);
      std::string word, name;
      std::uint64_t hits = 0;
      if (words >> word >> name >> word >> hits) census[name] = std::max(census[name], hits);
    }
    std::string text;
    for (const auto& [name, hits] : census) text += name + " " + std::to_string(hits) + "\n";
    write_file(kCensus, text);
    return census;
  }

  /// The same from an earlier story of this boot, if there was one.
  std::map<std::string, std::uint64_t> census() {
    if (!exists(kCensus)) return take_census();
    std::map<std::string, std::uint64_t> census;
    std::istringstream text(read_file(kCensus));
    std::string name;
    std::uint64_t hits = 0;
    while (text >> name >> hits) census[name] = hits;
    return census;
  }

 private:
  // ---- beginning ----

  void await_file_of_bystander() {
    ASSERT_TRUE(watchdog.wait_until([&] { return exists(path("letters")); }));
  }

  /// Whether the ledger has this of the id, whoever wrote it.
  static std::vector<supervise::EventRecord> on_record(const std::string& id) {
    ledger::LedgerReader reader(kLedger);
    auto events = reader.read_events({.analysis_id = id, .limit = 10'000});
    return events ? *std::move(events) : std::vector<supervise::EventRecord>{};
  }

  static Words with_token(const Words& workload, const std::string& token) {
    Words words{workload_program()};
    words.insert(words.end(), workload.begin(), workload.end());
    words.push_back(token);
    return words;
  }

  Life& add(const std::string& what, const std::string& id, std::set<std::string> reasons, Child process) {
    lives_.push_back({what, id, std::move(reasons), std::move(process)});
    Life& life = lives_.back();
    for (const pid_t pid : processes_in(slice_folder(id))) life.members.emplace_back(pid);
    return life;
  }

  /// By analysis-run, again and again until one is registered: a daemon that dies over it, or says no for want of
  /// something, may be asked once more.
  Life& launch(const std::string& what, std::set<std::string> reasons, const Words& options, const Words& workload) {
    const Instant give_up = monotonic_now() + kRestart;
    for (;;) {
      const std::string id = new_id(what);
      ids_.push_back(id);
      Words words{"analysis-run", "--quiet", "--id=" + id};
      words.insert(words.end(), options.begin(), options.end());
      words.emplace_back("--");
      for (const std::string& word : with_token(workload, token_)) words.push_back(word);
      Child launcher = Child::spawn(words);
      const Held watched(launcher.pid());
      // Beyond its gate: analysis-run has its word that it is watched.
      const bool known = watchdog.wait_until([&] { return !watched.alive() || runs_workload(id); });
      EXPECT_TRUE(known) << what << ": analysis-run hangs";
      const bool registered = watched.alive() || launcher.reap().value_or(125) != 125;
      if (registered || monotonic_now() >= give_up) {
        EXPECT_TRUE(registered) << what << " is refused all the time";
        return add(what, id, std::move(reasons), std::move(launcher));
      }
      watchdog.let_pass(1s);
    }
  }

  /// By RegisterAnalysis of what runs, until it is.
  Life& enrol(const std::string& what, std::set<std::string> reasons, const Dict& options, Child leader) {
    const std::string id = new_id(what);
    ids_.push_back(id);
    std::string said;
    const bool registered = watchdog.wait_until([&] {
      const auto outcome = watchdog.register_process(id, static_cast<std::uint32_t>(leader.pid()), options);
      // No answer is none: it may be registered all the same.
      if (outcome.ok() || watchdog.find(id) || !on_record(id).empty()) return true;
      said = outcome.error + ": " + outcome.message;
      return false;
    });
    EXPECT_TRUE(registered) << what << " can't be registered: " << said;
    return add(what, id, std::move(reasons), std::move(leader));
  }

  static bool runs_workload(const std::string& id) {
    const auto members = processes_in(slice_folder(id));
    return std::any_of(members.begin(), members.end(), [](pid_t pid) {
      std::error_code gone;  // By its file: at the gate it has the command's name already.
      return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", gone) == workload_program();
    });
  }

  /// The same for one that does nothing before it is registered.
  Life& enrol_at_gate(const std::string& what, std::set<std::string> reasons, const Dict& options,
                      const Words& workload) {
    int gate[2] = {-1, -1};
    EXPECT_EQ(::pipe2(gate, O_CLOEXEC), 0);
    const UniqueFd inside(gate[0]);
    const UniqueFd outside(gate[1]);
    Words words{workload_program(), "gate"};
    for (const std::string& word : with_token(workload, token_)) words.push_back(word);
    Life& life = enrol(what, std::move(reasons), options, Child::spawn(words, {-1, -1, -1, inside.get(), {}}));
    EXPECT_EQ(::write(outside.get(), "!", 1), 1);
    return life;
  }

  Child spawn(const Words& workload) const { return Child::spawn(with_token(workload, token_)); }

  /// Asks until it is done, or until there is no such run.
  void ask(const std::string& what, const std::function<Outcome()>& call, const std::string& done_already = "") {
    std::string said;
    const bool done = watchdog.wait_until([&] {
      const Outcome outcome = call();
      said = outcome.error + ": " + outcome.message;
      return outcome.ok() || outcome.error == names::error::kNoSuchAnalysis ||
             (!done_already.empty() && outcome.error == done_already);
    });
    EXPECT_TRUE(done) << what << ": " << said;
  }

  // ---- the scenario ----

  /// What the faulty daemon finds: it has these to adopt.
  void begin_with_the_daemon_before() {
    Life& kept = launch("kept", {"requested"}, {"--grace=1s"}, {"stay"});
    kept.to_be_killed = true;
    closed_ = &enrol("closed", {"exited"}, {grace(1s)}, spawn({"stay"}));
    lost_ = &enrol("lost", {"lost", "requested", "exited"}, {grace(1s)}, spawn({"stay"}));
    Life& ending = enrol("ending", {"requested"}, {grace(10s)}, spawn({"ignore-term", path("ending")}));
    await_file("ending");
    EXPECT_TRUE(watchdog.kill(ending.id).ok());
    ending.latest = monotonic_now() + 10s + kRestart;
  }

  void begin_again(const std::string& order, bool damage) {
    const pid_t before = daemon_pid(watchdog);
    // In place already: whoever calls meanwhile has it started.
    orders->leave(order);
    ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
    closed_->process.signal(SIGTERM);
    EXPECT_TRUE(closed_->process.await_end());
    (void)run_command({"systemctl", "stop", slice_unit(AnalysisId::parse(lost_->id).value())});
    if (damage) damage_ledger();
    ASSERT_TRUE(systemctl({"start", "--no-block", kDaemonUnit}));
    ASSERT_TRUE(watchdog.wait_until([&] {
      const pid_t now = daemon_pid(watchdog);
      return now > 0 && now != before && unit_text(watchdog, kDaemonUnit, "ActiveState") == "active";
    })) << "no daemon comes up";
  }

  void damage_ledger() {
    // What is not in the file yet is in its log, which the shipper may keep from being moved over.
    const std::string log = std::string(kLedger) + "-wal";
    std::string bytes = read_file(kLedger);
    ASSERT_TRUE(bytes.size() > 8192U || exists(log));
    for (std::size_t i = 4096; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
    write_file(kLedger, bytes);
    std::filesystem::remove(log);
    // The row of a run whose slice has gone was all that there was of it.
    lost_->reasons.clear();
    damaged_ = true;
  }

  void begin_with_this_daemon() {
    Life& deadline = launch("deadline", {"wall-clock"}, {"--wall-clock=2s", "--grace=1s"}, {"stay"});
    deadline.latest = monotonic_now() + 3s + kRestart;
    Life& stubborn =
        launch("stubborn", {"wall-clock"}, {"--wall-clock=2s", "--grace=1s"}, {"ignore-term", path("stubborn")});
    stubborn.latest = monotonic_now() + 3s + kRestart;
    launch("exits", {"exited"}, {}, {"live", "300", "0"});
    launch("leak", {"memory", "oom"}, {"--memory=32M", "--headroom=32M", "--grace=2s"},
           {"leak", "256", "2", path("leak"), "100"});
    launch("leaves", {"orphaned"}, {"--grace=1s"}, {"leave", "2"});

    Life& orphans = enrol_at_gate("orphans", {"requested"}, {grace(1s)}, {"daemonize", path("orphan")});
    orphans.to_be_killed = true;
    const Held orphan(static_cast<pid_t>(std::stol("0" + await_file("orphan"))));

    Child tree = spawn({"children", "2", path("tree")});
    await_file("tree");
    Life& released = enrol("released", {}, {grace(1s)}, std::move(tree));
    ask("unregister", [&] { return watchdog.unregister(released.id); });
    for (const Held& member : released.members) EXPECT_TRUE(member.alive()) << "it was released, and is dead";

    Life& changed = enrol("changed", {"requested"}, {grace(1s)}, spawn({"stay"}));
    changed.to_be_killed = true;
    ask("set limits", [&] { return watchdog.set_limits(changed.id, {memory_limit(64), grace(2s)}); });
    ask("extend", [&] { return watchdog.extend(changed.id, 60'000'000); });
    guest_ = std::make_unique<Child>(spawn({"stay"}));
    ask(
        "attach", [&] { return watchdog.attach(changed.id, static_cast<std::uint32_t>(guest_->pid())); },
        names::error::kProcessAlreadyRegistered);

    EXPECT_TRUE(watchdog.wait_until([&] { return !orphan.alive(); })) << "the orphan lives on";
    for (const Life& life : lives_) {
      if (!life.latest) continue;
      const Span left = std::max(Span(1s), *life.latest - monotonic_now());
      EXPECT_TRUE(await_all_gone(life.members, left)) << life.what << " is alive past its limit and its grace";
    }
    released.process.signal(SIGKILL);
    for (const Held& member : released.members) ::kill(member.pid(), SIGKILL);
  }

  void await_the_end() {
    Instant ask_next = monotonic_now();
    std::string left;
    const bool over = watchdog.wait_until(
        [&] {
          const bool ask = monotonic_now() >= ask_next;
          if (ask) ask_next = monotonic_now() + 5s;  // It may have died over the question.
          left.clear();
          for (const Life& life : lives_) {
            if (!watchdog.find(life.id)) continue;
            left += life.what + " ";
            if (ask && life.to_be_killed) (void)watchdog.kill(life.id);
          }
          if (!left.empty()) return false;
          for (const std::string& unit : find_units(watchdog, ids_)) left += unit + " ";
          return left.empty();
        },
        kOver);
    EXPECT_TRUE(over) << "not over: " << left;
  }

  void restart_daemon() {
    orders->take_back();
    ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
    ASSERT_TRUE(await_daemon());
  }

  // ---- what must be so ----

  void expect_all_on_record(bool journal_fails) {
    ASSERT_TRUE(watchdog.wait_until([&] { return flag(watchdog.manager_properties(), "StoreHealthy"); }));
    // A run that is lost is so only for a daemon that has read its row; of what was refused there may never be
    // anything.
    (void)watchdog.wait_until([this] { return std::ranges::all_of(ids_, is_closed); }, 30s);
    for (const std::string& id : ids_) {
      const auto life = std::find_if(lives_.begin(), lives_.end(), [&](const Life& l) { return l.id == id; });
      const bool expected = life != lives_.end() && !life->reasons.empty();
      std::map<std::string, std::vector<supervise::EventRecord>> runs;
      for (auto& event : on_record(id)) runs[event.run_id].push_back(std::move(event));
      EXPECT_TRUE(!runs.empty() || !expected) << id << " is not on record at all";
      for (const auto& [run_id, events] : runs) expect_one_end(id, run_id, events, journal_fails);
      if (!expected) continue;
      std::set<std::string> reasons;
      for (const auto& [run_id, events] : runs) {
        for (const auto& event : events) {
          if (event.kind == EventKind::kEnded) reasons.emplace(to_string(*event.reason));
        }
      }
      EXPECT_TRUE(std::any_of(reasons.begin(), reasons.end(), [&](const auto& r) { return life->reasons.contains(r); }))
          << life->what << " ended as " << ::testing::PrintToString(reasons) << " instead of "
          << ::testing::PrintToString(life->reasons);
    }
  }

  /// PostgreSQL has what the ledger has, each event once. A ledger that was set aside has left there what it had.
  void expect_all_shipped() {
    for (const std::string& id : ids_) {
      std::multiset<std::string> in_ledger, in_store;
      (void)watchdog.wait_until([&] {
        in_ledger.clear();
        for (const auto& event : on_record(id)) in_ledger.insert(event.event_id);
        const auto rows = store->sql("SELECT event_id FROM watchdog_events WHERE registered_as = '" + id + "'");
        in_store = {rows.begin(), rows.end()};
        return std::ranges::includes(in_store, in_ledger);
      });
      if (damaged_) {
        EXPECT_TRUE(std::ranges::includes(in_store, in_ledger)) << id << " is not all in PostgreSQL";
      } else {
        EXPECT_EQ(in_store, in_ledger) << id << " is another in PostgreSQL";
      }
      const auto ends = store->sql(
          "SELECT run_id FROM watchdog_events WHERE kind IN ('ended', 'unregistered')"
          " AND registered_as = '" +
          id + "' GROUP BY run_id HAVING count(*) > 1");
      EXPECT_THAT(ends, IsEmpty()) << id << " has more than one end in PostgreSQL";
    }
  }

  static bool closes(const supervise::EventRecord& event) {
    return event.kind == EventKind::kEnded || event.kind == EventKind::kUnregistered;
  }

  static bool is_closed(const std::string& id) {
    std::map<std::string, bool> runs;
    for (const auto& event : on_record(id)) runs[event.run_id] |= closes(event);
    return !runs.empty() && std::all_of(runs.begin(), runs.end(), [](const auto& run) { return run.second; });
  }

  void expect_one_end(const std::string& id, const std::string& run_id,
                      const std::vector<supervise::EventRecord>& events, bool journal_fails) const {
    std::vector<const supervise::EventRecord*> ends;
    for (const auto& event : events) {
      if (closes(event)) ends.push_back(&event);
    }
    if (ends.empty() && damaged_ && id == lost_->id) return;
    ASSERT_THAT(ends, SizeIs(1)) << id << " (run " << run_id << ") has not one end on record";
    const supervise::EventRecord& end = *ends[0];
    std::set<std::string> told;
    for (const JournalRecord& record : find_journal_records("ANALYSIS_RUN_ID", run_id)) {
      const std::string kind = field(record, "ANALYSIS_EVENT");
      if (kind != "ended" && kind != "unregistered") continue;
      told.insert(field(record, "ANALYSIS_EVENT_ID"));
      EXPECT_EQ(kind, to_string(end.kind)) << id;
      EXPECT_EQ(field(record, "ANALYSIS_REASON"), end.reason ? to_string(*end.reason) : "") << id;
    }
    if (told.empty() && journal_fails) return;  // It was refused by the journal, and not by us.
    EXPECT_EQ(told, std::set<std::string>{end.event_id}) << id << " has not that end in the journal";
  }

  void expect_nothing_left() {
    for (const Life& life : lives_) EXPECT_TRUE(life.process.await_end(60s)) << life.what << " is waited for in vain";
    EXPECT_THAT(find_processes(token_), IsEmpty()) << "processes of ended runs are left";
    std::vector<std::string> slices;
    EXPECT_TRUE(watchdog.wait_until([&] {
      slices.clear();
      for (const auto& entry : std::filesystem::directory_iterator("/sys/fs/cgroup/analysis.slice")) {
        const std::string name = entry.path().filename();
        const bool of_a_run = name.starts_with("analysis-") && name.ends_with(".slice");
        if (of_a_run && !name.starts_with("analysis-bystander")) slices.push_back(name);
      }
      return slices.empty();
    })) << "cgroups are left: "
        << ::testing::PrintToString(slices);
    EXPECT_TRUE(Held(bystander_->pid()).alive()) << "somebody who has nothing to do with it was killed";
    EXPECT_EQ(read_file(path("letters")), "") << "somebody who has nothing to do with it got signals";
    EXPECT_TRUE(await_daemon());
  }

  void expect_a_run_to_be_watched() {
    const std::string id = new_id("afterwards");
    const auto launched = run_command({"analysis-run", "--quiet", "--id=" + id, "--", "true"});
    EXPECT_EQ(launched.status, 0) << launched.err;
    EXPECT_TRUE(watchdog.wait_until([&] { return is_closed(id); })) << "a run after it is not on record";
    EXPECT_TRUE(watchdog.wait_until([&] { return find_units(watchdog, id).empty(); }));
  }

  std::string token_;  ///< in the command line of everything that is started here
  std::unique_ptr<Child> bystander_;
  std::list<Life> lives_;
  std::vector<std::string> ids_;  ///< of all that were tried
  std::unique_ptr<Child> guest_;
  Life* closed_ = nullptr;
  Life* lost_ = nullptr;
  bool damaged_ = false;
};

/// Nothing goes wrong, and every point is counted.
class Unharmed : public FailpointWalk {
 public:
  explicit Unharmed(std::vector<Fault> faults) : faults_(std::move(faults)) {}

 private:
  void TestBody() override {
    const auto census = take_census();
    std::string last;
    for (const Fault& fault : faults_) {
      if (fault.point == std::exchange(last, fault.point)) continue;
      const auto found = census.find(fault.point);
      std::cout << fault.point << ": " << (found == census.end() ? 0 : found->second) << " hits or more" << std::endl;
      if (found == census.end() && !needs_damage(fault.point)) {
        EXPECT_TRUE(kUnreached.contains(fault.point)) << fault.point << " is not reached by the scenario";
      }
    }
  }
  std::vector<Fault> faults_;
};

/// One thing goes wrong.
class Harmed : public FailpointWalk {
 public:
  explicit Harmed(Fault fault) : fault_(std::move(fault)) {}

 private:
  void TestBody() override {
    const auto reached = census();
    if (HasFailure()) return;
    const auto hits = reached.find(fault_.point);
    if (hits == reached.end() && !needs_damage(fault_.point)) {
      const auto why = kUnreached.find(fault_.point);
      ASSERT_NE(why, kUnreached.end()) << fault_.point << " is not reached by the scenario";
      GTEST_SKIP() << fault_.point << " is not reached: " << why->second;
    }
    const std::uint64_t hit = hits == reached.end() ? 1 : std::max<std::uint64_t>(1, hits->second / 2);
    const Sayings sayings(kIdentifier);

    tell(fault_.order(hit), needs_damage(fault_.point), fault_.point == "journal.send" && fault_.act != "crash");

    const std::string said = fault_.saying(hit);
    const auto lines = sayings.read();
    const bool was_hit = std::find(lines.begin(), lines.end(), said) != lines.end();
    std::cout << fault_.point << " " << fault_.act << ": " << (was_hit ? "hit " : "never came to hit ") << hit
              << std::endl;
    EXPECT_THAT(lines, Contains(said)) << "it never came to that";
  }
  Fault fault_;
};

/// What lasts for the whole walk: a way to give orders to the daemon, and a shared store that gets all that happens.
class Surroundings : public ::testing::Environment {
 public:
  void SetUp() override {
    orders.emplace(kDaemonUnit);
    ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));  // A walk before this one may have been broken off.
    SharedStore::start_server();
    store.emplace("walk");
    store->set_up();
  }
  void TearDown() override {
    store.reset();
    SharedStore::stop_server();
    orders.reset();
  }
};

int walk(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  Faults faults = list_faults(kDaemon);
  std::erase_if(faults.all, [](const Fault& fault) { return is_of_shipping(fault.point); });
  if (!faults.wrong.empty()) {
    add_test<::testing::Test, Nothing>("TheDaemon", "HasFailpoints", faults.wrong);
    return RUN_ALL_TESTS();
  }
  add_test<FailpointWalk, Unharmed>("FailpointWalk", "NothingGoesWrong", faults.all);
  for (const Fault& fault : faults.all) add_test<FailpointWalk, Harmed>("FailpointWalk", fault.test_name(), fault);
  ::testing::AddGlobalTestEnvironment(new Surroundings);
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace aw::stories

int main(int argc, char** argv) { return aw::stories::walk(argc, argv); }
