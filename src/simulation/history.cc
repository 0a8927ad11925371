// SPDX-License-Identifier: Apache-2.0
#include "simulation/history.h"

#include <algorithm>
#include <csignal>
#include <numeric>

namespace aw::simulation {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using supervise::EventRecord;
using supervise::Machine;
using supervise::Policy;

namespace {

constexpr unsigned kMostWakeups = 40;
/// The ledger's thread takes what has come together in this time to the disk at once.
constexpr Span kFlushEvery = milliseconds{20};

std::string cause_of(const EventRecord& record) {
  for (const auto& [name, value] : record.details) {
    if (const auto* text = std::get_if<std::string>(&value); text != nullptr && name == "cause")
      return " (" + *text + ")";
  }
  return "";
}

}  // namespace

void Tally::add(const Tally& other) {
  histories += other.histories;
  steps += other.steps;
  registered += other.registered;
  refused += other.refused;
  unregistered += other.unregistered;
  adopted += other.adopted;
  escalated += other.escalated;
  orphans += other.orphans;
  reboots += other.reboots;
  for (const auto& [name, count] : other.deeds) deeds[name] += count;
  for (const auto& [name, count] : other.crashes) crashes[name] += count;
  for (std::size_t i = 0; i < ends.size(); ++i) ends.at(i) += other.ends.at(i);
}

std::uint64_t Tally::crash_count() const {
  return std::accumulate(crashes.begin(), crashes.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const auto& entry) { return sum + entry.second; });
}

const std::vector<History::Deed>& History::all_deeds() {
  static const std::vector<Deed> deeds{
      {"register a new process", 14, true, &History::register_new},
      {"register a live tree", 6, true, &History::register_tree},
      {"register what can't be", 3, true, &History::register_odd},
      {"attach a process", 5, true, &History::attach},
      {"unregister", 4, true, &History::unregister},
      {"set limits", 6, true, &History::set_limits},
      {"extend", 4, true, &History::extend},
      {"ask for an end", 4, true, &History::end},
      {"fork", 8, false, &History::fork},
      {"daemonize", 4, false, &History::daemonize},
      {"exit", 8, false, &History::exit},
      {"exit, all of it", 4, false, &History::exit_whole},
      {"die of a signal", 4, false, &History::die_of_signal},
      {"be killed by somebody", 3, false, &History::be_killed},
      {"lose the owner", 2, false, &History::lose_owner},
      {"grow", 8, false, &History::grow},
      {"overrun the parent's limit", 2, false, &History::overrun_parent},
      {"stall", 3, false, &History::stall},
      {"sleep uninterruptibly, or wake", 4, false, &History::sleep_or_wake},
      {"stop, or be frozen", 3, false, &History::stop_or_freeze},
      {"systemctl stop", 3, false, &History::stop_unit},
      {"trouble with notifications", 5, false, &History::trouble_notifications},
      {"trouble with systemd", 7, false, &History::trouble_systemd},
      {"lose systemd's answers", 3, true, &History::lose_answers},
      {"lose the bus", 2, false, &History::lose_bus},
      {"lose a unit", 3, false, &History::lose_unit},
      {"trouble with readings", 2, false, &History::trouble_readings},
      {"trouble with the loop", 2, false, &History::trouble_loop},
      {"trouble with the ledger", 5, false, &History::trouble_ledger},
      {"trouble with descriptors", 2, false, &History::trouble_descriptors},
      {"take a slice away", 1, false, &History::take_slice},
      {"step the wall clock", 2, false, &History::set_wall_clock},
      {"a moment passes", 20, false, &History::pass_a_moment},
      {"a while passes", 12, false, &History::pass_a_while},
      {"crash", 3, true, &History::crash},
      {"crash soon", 8, true, &History::crash_soon},
      {"reboot", 1, false, &History::reboot},
      {"return to health", 6, false, &History::return_to_health},
  };
  return deeds;
}

Policy History::any_policy(std::uint64_t seed) {
  Dice dice(seed ^ 0x70011C4);
  Policy policy;
  policy.orphans.interval = milliseconds{500 + dice.below(4500)};
  policy.orphans.confirmation = milliseconds{20 + dice.below(480)};
  policy.stall.time = seconds{2 + dice.below(10)};
  policy.caps.analyses = 3 + dice.below(6);
  policy.caps.analyses_per_user = 2 + dice.below(6);
  return policy;
}

Machine History::any_machine(std::uint64_t seed) {
  Dice dice(seed ^ 0x3AC412E);
  return {Bytes(kGiB.count() * (1 + dice.below(8))), 1 + dice.below(64)};
}

History::History(std::uint64_t seed, Options options)
    : seed_(seed),
      options_(std::move(options)),
      dice_(seed),
      fate_(seed ^ 0xFA7E),
      policy_(any_policy(seed)),
      world_(policy_, any_machine(seed)),
      witness_(world_, policy_) {
  world_.on_port_call = [this](const char* call) { before_call(call); };
  world_.recorder.tamper = [this](EventRecord& record) {
    if (options_.tamper && !options_.tamper(record)) return false;
    witness_.on_record(record);
    if (record.kind == EventKind::kEnded && record.reason) ++tally_.ends.at(static_cast<std::size_t>(*record.reason));
    tally_.unregistered += record.kind == EventKind::kUnregistered ? 1 : 0;
    tally_.registered += record.kind == EventKind::kRegistered ? 1 : 0;
    tally_.adopted += record.kind == EventKind::kAdopted ? 1 : 0;
    tally_.escalated += record.kind == EventKind::kEscalated ? 1 : 0;
    tally_.orphans += record.kind == EventKind::kOrphanFound ? 1 : 0;
    say("  on record: ", to_string(record.kind), " \"", record.registered_as, "\"",
        record.reason ? " " + std::string(to_string(*record.reason)) : "", cause_of(record));
    return true;
  };
  world_.recorder.hold();
  world_.pid_max = 101 + static_cast<pid_t>(60 + dice_.below(400));  // They come round again.
  ids_ = {"nightly import", "a/b-c", "x", "größer", std::string(255, 'l')};
  populate();
}

void History::populate() {
  workers_.clear();
  for (int i = 0; i < 3; ++i) workers_.push_back(world_.spawn(world_.user_shell, "worker"));
  bystander_ = world_.spawn(world_.user_shell, "bystander");
  service_ = world_.spawn(testing::World::kInit, "sshd");
  world_.process(service_).cgroup = "/system.slice/ssh.service";
  world_.setsid(service_);
  for (const pid_t pid : {world_.user_shell, bystander_, service_, testing::World::kInit}) witness_.shield(pid);
  for (const pid_t worker : workers_) witness_.shield(worker);
}

std::optional<Violation> History::play() {
  tally_.histories = 1;
  while (step_ < options_.steps && !seen()) step();
  if (!seen()) settle();
  if (!seen()) return std::nullopt;
  for (const auto& [name, slice] : world_.slices())
    say("  ", slice->path, " has the note:\n", slice->note.value_or("none"));
  say("VIOLATED: ", *witness_.complaint());
  return Violation{seed_, step_, *witness_.complaint()};
}

void History::step() {
  ++step_;
  ++tally_.steps;
  dice_ = Dice(seed_ + 0x5EED * std::uint64_t{step_});  // So that one step's choices do not move all later ones.
  (void)dice_.next();
  const auto& deeds = all_deeds();
  static const unsigned total =
      std::accumulate(deeds.begin(), deeds.end(), 0U, [](unsigned sum, const Deed& deed) { return sum + deed.weight; });
  unsigned choice = dice_.below(total);
  auto deed = deeds.begin();
  while (choice >= deed->weight) choice -= (deed++)->weight;
  if (deed->needs_daemon && !up_) return come_up();
  // Whoever wants something of it talks to it on the bus.
  if (deed->needs_daemon && world_.placer.is_away()) return attempt([this] { bring_bus_back(); });
  ++tally_.deeds[deed->name];
  say("step ", step_, ": ", deed->name);
  attempt([&] {
    (this->*deed->what)();
    if (dice_.chance(80)) world_.deliver();
  });
  if (options_.meddle) options_.meddle(world_);
  witness_.check();
}

void History::attempt(const std::function<void()>& what) {
  try {
    what();
  } catch (const Crash& crash) {
    go_down(crash.call, false);
    if (dice_.chance(70)) come_up();
  }
}

void History::before_call(const char* call) {
  if (!disk_is_stuck_ && fate_.chance(3)) world_.recorder.flush();  // What has come so far, and no more.
  if (crash_in_ && (*crash_in_)-- == 0) {
    crash_in_.reset();
    throw Crash{call};
  }
}

void History::go_down(const char* call, bool by_reboot) {
  say(by_reboot ? "  the machine goes down" : "  the daemon is killed", *call == '\0' ? "" : " before ", call);
  crash_in_.reset();
  if (by_reboot) {
    ++tally_.reboots;
  } else {
    ++tally_.crashes[call];
    // PID 1 has what was sent to it; what it was told by halves it forgets.
    const bool all = fate_.chance(50);
    world_.placer.abandon([this, all] {
      const bool sent = all || fate_.chance(50);
      late_units_ = late_units_ || sent;
      return sent;
    });
  }
  const bool deaf = world_.placer.is_held();
  record_unread_ = false;
  if (by_reboot) world_.placer.come_back();
  world_.restart_daemon(by_reboot);
  if (deaf) world_.placer.hold();
  world_.recorder.hold();
  up_ = false;
  if (by_reboot) populate();
  witness_.on_daemon_gone(by_reboot);
}

void History::come_up() {
  say("  the daemon starts");
  up_ = true;
  if (fate_.chance(20)) crash_in_ = fate_.below(12);
  attempt([this] {
    witness_.on_daemon_up();
    record_unread_ = disk_is_stuck_ && fate_.chance(50);
    if (record_unread_) say("  … and can't read what is on record");
    record_unread_ ? world_.adopt_without_record() : world_.adopt();
  });
  if (options_.on_start) options_.on_start(world_);
  if (up_) witness_.check();
}

void History::pass(Span span) {
  while (span > Span(0) && !seen()) {
    const Span next = std::min(span, std::max(kFlushEvery, span / 16));
    passed_ += next;
    if (world_.placer.is_held()) witness_.allow_delay(next);
    span -= next;
    world_.advance(next);
    if (up_ && !disk_is_stuck_) world_.recorder.flush();
    if (up_ && !disk_is_stuck_ && std::exchange(record_unread_, false)) world_.read_record();
    world_.deliver();
    witness_.check();
  }
}

void History::settle() {
  say("everything is well, and time passes");
  crash_in_.reset();
  attempt([this] { return_to_health(); });
  crash_in_.reset();
  for (const auto& [pid, process] : std::map(world_.all())) {
    if (process.sleeps_uninterruptibly) world_.wake(pid);
    if (process.stat.state == 'T') world_.kill(pid, SIGCONT);
  }
  if (late_units_ || !up_) {
    // What a daemon had asked for and did not live to see is found by the next one that starts.
    if (up_) go_down("", false);
    crash_in_.reset();
    up_ = true;
    record_unread_ = false;
    witness_.on_daemon_up();
    world_.adopt();
  }
  crash_in_.reset();
  pass(seconds{10});
  for (unsigned i = 0; i < kMostWakeups && !world_.slices().empty() && !seen(); ++i) {
    for (const std::string& id : witness_.ids()) ask_to_end(id);
    pass(seconds{5});
  }
  pass(std::chrono::minutes{11});  // Zombies are looked for, and scopes that a daemon before this one has asked for.
  if (!seen()) witness_.check_quiet();
}

}  // namespace aw::simulation
