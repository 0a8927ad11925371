// SPDX-License-Identifier: Apache-2.0
//
// A bad day: runs of every kind come and go, several at a time, while the daemon is killed, PID 1 reloads or executes
// itself anew, the bus is restarted. Afterwards each run that was promised to be watched has exactly one end on record,
// for the reason that it was made to end for; nothing outlived its limits, and nobody else was harmed.
//
// AW_SEED=N plays one day again (as far as a machine with two processors does the same twice). AW_CHAOS=full is the
// full size, AW_CHAOS_FAULTS=N and AW_CHAOS_LANES=N choose one.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "support/chaos.h"
#include "support/ledger.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::IsEmpty;
using Json = nlohmann::json;
using Rng = std::mt19937_64;

constexpr char kSlices[] = "/sys/fs/cgroup/analysis.slice";
constexpr char kDaemonFolder[] = "/sys/fs/cgroup/system.slice/analysis-watchdogd.service";
constexpr char kBusFolder[] = "/sys/fs/cgroup/system.slice/dbus.service";
constexpr char kDropInFolder[] = "/run/systemd/system/analysis-watchdogd.service.d";

constexpr Span kGrace = 1s;
constexpr Span kLongEnough = 60s;  ///< the wall clock of a run that something else is to end
/// How much later than its limit and its grace a run may be ended on such a day: systemd's backstop comes 15 s after
/// the grace and gives a grace of its own; the rest is for a guest that is emulated.
constexpr Span kRestartMargin = 25s;
/// Between one refusal and the next try. Lanes that never rest leave the emulated guest no time to start the daemon in.
constexpr Span kRefused = 1s;

long uniform(Rng& rng, long from, long to) { return std::uniform_int_distribution<long>(from, to)(rng); }
Span ms(long count) { return std::chrono::milliseconds(count); }

/// What is the same for all runs in what was said about this one.
std::string without(std::string said, const std::string& id) {
  said = said.substr(0, said.find('\n'));
  for (std::size_t at = 0; (at = said.find(id)) != std::string::npos;) said.replace(at, id.size(), "ID");
  return said.substr(0, 100);
}

// ---- The faults ----

enum class Fault { kKill, kReexec, kReload, kBus, kRestart };
constexpr Fault kFaults[] = {Fault::kKill, Fault::kReexec, Fault::kReload, Fault::kBus, Fault::kRestart};

std::string to_string(Fault fault) {
  switch (fault) {
    case Fault::kKill:
      return "Killed";
    case Fault::kReexec:
      return "ManagerExecutedAnew";
    case Fault::kReload:
      return "ManagerReloaded";
    case Fault::kBus:
      return "BusRestarted";
    case Fault::kRestart:
      return "Restarted";
  }
  return "";
}
void PrintTo(Fault fault, std::ostream* out) { *out << to_string(fault); }

int faults_of(Fault fault) {
  const int usual = fault == Fault::kKill ? chaos_size(12, 300) : chaos_size(3, 50);
  return static_cast<int>(number_from_environment("AW_CHAOS_FAULTS", usual));
}

/// The daemon's main process, without asking anybody: the bus may be away. 0: there is none.
pid_t find_daemon() {
  for (const pid_t pid : processes_in(kDaemonFolder)) {
    // Not one of ExecStopPost=.
    if (read_file("/proc/" + std::to_string(pid) + "/cmdline").find("--daemon") != std::string::npos) return pid;
  }
  return 0;
}

// ---- The load ----

enum class Kind { kExits, kDeadline, kBreach, kOrphans, kOwner, kRequested, kExtended, kKilledByOthers };
constexpr Kind kKinds[] = {Kind::kExits, Kind::kDeadline,  Kind::kBreach,   Kind::kOrphans,
                           Kind::kOwner, Kind::kRequested, Kind::kExtended, Kind::kKilledByOthers};

std::string to_string(Kind kind) {
  switch (kind) {
    case Kind::kExits:
      return "exits";
    case Kind::kDeadline:
      return "deadline";
    case Kind::kBreach:
      return "breach";
    case Kind::kOrphans:
      return "orphans";
    case Kind::kOwner:
      return "owner";
    case Kind::kRequested:
      return "requested";
    case Kind::kExtended:
      return "extended";
    case Kind::kKilledByOthers:
      return "killed by others";
  }
  return "";
}

/// What may be on record for it.
std::set<std::string> reasons_of(Kind kind) {
  switch (kind) {
    case Kind::kExits:
      return {"exited"};
    case Kind::kDeadline:
    case Kind::kExtended:
      return {"wall-clock"};
    case Kind::kBreach:
      return {"memory", "oom"};  // The kernel's, while nobody was there to decide.
    case Kind::kOrphans:
    case Kind::kOwner:
      return {"orphaned"};
    case Kind::kRequested:
      return {"requested"};
    case Kind::kKilledByOthers:
      return {"external", "exited"};  // Where nobody saw the status, nobody knows.
  }
  return {};
}

/// What became of a registration.
enum class Answer {
  kYes,     ///< it was answered with success, or its command ran
  kPerhaps  ///< whoever should have answered was lost, or lost somebody
};

struct Registration {
  std::string id;
  Kind kind = Kind::kExits;
  Answer answer = Answer::kPerhaps;
  Span at_least = Span(0);  ///< what its record has to have for a duration
};

/// What the lanes have done, for the end of the day.
class Book {
 public:
  void add(const Registration& run) {
    const std::lock_guard lock(mutex_);
    runs_.push_back(run);
  }
  std::vector<Registration> runs() const {
    const std::lock_guard lock(mutex_);
    return runs_;
  }
  bool has_each_kind() const {
    const std::lock_guard lock(mutex_);
    std::set<Kind> seen;
    for (const Registration& run : runs_) {
      if (run.answer == Answer::kYes) seen.insert(run.kind);
    }
    return seen.size() == std::size(kKinds);
  }
  void count(const std::string& what) {
    const std::lock_guard lock(mutex_);
    ++counts_[what];
  }
  std::map<std::string, int> counts() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Registration> runs_;
  std::map<std::string, int> counts_;
};

/// Looks at the cgroups of all runs all day long: whether anything in them lives when it may not any more.
class Watcher {
 public:
  Watcher() : thread_([this] { watch(); }) {}
  ~Watcher() { stop(); }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  /// From `due` on nothing of this run may live, with the margin added to that.
  void expect_gone(const std::string& id, Instant due) {
    const std::lock_guard lock(mutex_);
    due_[id] = due;
  }
  void stop() {
    if (!thread_.joinable()) return;
    stop_ = true;
    thread_.join();
  }
  std::vector<std::string> outlived() const {
    const std::lock_guard lock(mutex_);
    return {outlived_.begin(), outlived_.end()};
  }
  /// How much longer than its limit and its grace anything lived.
  Span latest() const {
    const std::lock_guard lock(mutex_);
    return latest_;
  }
  std::size_t looks() const { return looks_; }

 private:
  void watch() {
    while (!stop_) {
      std::map<std::string, Instant> due;
      {
        const std::lock_guard lock(mutex_);
        due = due_;
      }
      for (const auto& [id, at] : due) look(id, at);
      std::this_thread::sleep_for(200ms);
    }
  }
  void look(const std::string& id, Instant due) {
    ++looks_;
    const Instant now = monotonic_now();  // Before the look: what is seen lived then.
    const std::string folder = slice_folder(id);
    if (now < due) return;
    const bool there = exists(folder);
    const bool lives = there && !processes_in(folder).empty();
    const std::lock_guard lock(mutex_);
    if (!there) due_.erase(id);
    if (!lives) return;
    latest_ = std::max(latest_, Span(now - due));
    if (now > due + kRestartMargin) outlived_.insert(id);
  }

  mutable std::mutex mutex_;
  std::map<std::string, Instant> due_;
  std::set<std::string> outlived_;
  Span latest_ = Span(0);
  std::atomic<std::size_t> looks_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

/// Processes that nobody has registered: the same user's, with the same name as those of the runs, some with a pid that
/// was a run's or its owner's a moment ago. No signal may ever come to any of them.
class Bystanders {
 public:
  explicit Bystanders(std::string folder) : folder_(std::move(folder)) {
    for (int i = 0; i < 5; ++i) add(0);
  }
  void take_pid(pid_t pid) { add(pid); }

  int with_used_pid() const { return with_used_pid_; }
  /// Those that were harmed, in words.
  std::vector<std::string> harmed() {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) check(entry);
    return harmed_;
  }

 private:
  struct Entry {
    Child process;
    std::string letters;
  };

  void add(pid_t wanted) {
    const std::lock_guard lock(mutex_);
    const std::string letters = folder_ + "/bystander." + std::to_string(++count_);
    SpawnOptions options;
    options.wanted = wanted;
    Child process = Child::spawn({workload_program(), "witness", letters}, options);
    if (process.pid() <= 0) return;
    if (wanted > 0) ++with_used_pid_;
    entries_.push_back({std::move(process), letters});
    if (entries_.size() <= kMost) return;
    check(entries_.front());
    entries_.pop_front();
  }
  void check(const Entry& entry) {
    const std::string who = "the one with pid " + std::to_string(entry.process.pid());
    if (entry.process.await_end(Span(0))) harmed_.push_back(who + " is dead");
    const std::string letters = read_file(entry.letters);
    if (!letters.empty()) harmed_.push_back(who + " got " + letters);
  }

  static constexpr std::size_t kMost = 40;
  std::string folder_;
  std::mutex mutex_;
  std::deque<Entry> entries_;
  std::vector<std::string> harmed_;
  int count_ = 0;
  std::atomic<int> with_used_pid_ = 0;
};

/// One run after another, each of another kind, until the day is over.
class Lane {
 public:
  Lane(std::string prefix, std::string folder, Fault fault, std::uint64_t seed, Book& book, Watcher& watcher,
       Bystanders& bystanders)
      : prefix_(std::move(prefix)),
        folder_(std::move(folder)),
        fault_(fault),
        rng_(seed),
        book_(book),
        watcher_(watcher),
        bystanders_(bystanders),
        client_(Hearing::kNothing) {}

  void work(const std::atomic<bool>& over) {
    while (!over) {
      std::vector<Kind> kinds(std::begin(kKinds), std::end(kKinds));
      std::shuffle(kinds.begin(), kinds.end(), rng_);
      for (const Kind kind : kinds) {
        if (over) return;
        // An owner that can be killed is a launcher.
        if (kind == Kind::kOwner || kind == Kind::kKilledByOthers || uniform(rng_, 0, 1) == 0) {
          launch(kind);
        } else {
          register_over_bus(kind);
        }
      }
    }
  }

 private:
  struct Attempt {
    Registration run;
    Span wall_clock = kLongEnough;
    int status = 0;  ///< of a command that exits by itself
    Words words;
  };

  Attempt make(Kind kind) {
    Attempt attempt;
    attempt.run.id = prefix_ + std::to_string(++count_);
    attempt.run.kind = kind;
    attempt.words = {"stay"};
    switch (kind) {
      case Kind::kExits:
        attempt.status = static_cast<int>(uniform(rng_, 0, 40));
        attempt.words = {"live", std::to_string(uniform(rng_, 0, 1500)), std::to_string(attempt.status)};
        break;
      case Kind::kDeadline:
        attempt.wall_clock = ms(uniform(rng_, 1000, 3000));
        if (uniform(rng_, 0, 2) == 0) attempt.words = {"ignore-term", folder_ + "/ready"};
        break;
      case Kind::kBreach:
        attempt.words = {"leak", "1024", "20"};
        break;
      case Kind::kOrphans:
        attempt.words = {"leave", "2"};
        break;
      case Kind::kExtended:
        attempt.wall_clock = 2s;
        break;
      case Kind::kOwner:
      case Kind::kRequested:
      case Kind::kKilledByOthers:
        break;
    }
    attempt.run.at_least = kind == Kind::kDeadline || kind == Kind::kExtended ? attempt.wall_clock : Span(0);
    return attempt;
  }

  // -- through analysis-run --

  void launch(Kind kind) {
    Attempt attempt = make(kind);
    const std::string begun = folder_ + "/begun." + attempt.run.id;
    Words words{"analysis-run", "--quiet", "--id=" + attempt.run.id, "--memory=32M", "--headroom=32M",
                "--wall-clock=" + std::to_string(to_usec(attempt.wall_clock)) + "us", "--grace=1s", "--",
                // That its command ran shows that it was registered.
                "sh", "-c", "echo $$ >\"$0\"; exec \"$@\"", begun, workload_program()};
    words.insert(words.end(), attempt.words.begin(), attempt.words.end());
    const UniqueFd err(::memfd_create("err", MFD_CLOEXEC));
    SpawnOptions options;
    options.err = err.get();
    Child launcher = Child::spawn(words, options);
    const pid_t launcher_pid = launcher.pid();

    std::string leader;
    while (leader.empty() && !launcher.await_end(50ms)) leader = read_file(begun);
    leader = read_file(begun);
    const bool ran = !leader.empty();
    if (ran) {
      attempt.run.answer = Answer::kYes;
      watcher_.expect_gone(attempt.run.id, monotonic_now() + attempt.wall_clock + kGrace);
      meddle(attempt, &launcher, leader);
    }
    const auto status = launcher.reap(attempt.wall_clock + kGrace + kRestartMargin + kPatience);
    if (!status) {
      ADD_FAILURE() << attempt.run.id << ": the launcher waits for ever";
    } else if (ran) {
      check_status(attempt, *status);
    } else if (*status == 124 && attempt.run.at_least > Span(0)) {
      attempt.run.answer = Answer::kYes;
      book_.count("launchers whose time was over before their command ran");
    } else {
      check_refusal(attempt, *status, read_file("/proc/self/fd/" + std::to_string(err.get())));
    }
    book_.add(attempt.run);
    std::filesystem::remove(begun);
    if (status) bystanders_.take_pid(launcher_pid);
  }

  /// Its command ran, so the launcher has its status to tell, whoever was killed meanwhile.
  void check_status(const Attempt& attempt, int status) {
    std::set<int> fit;
    switch (attempt.run.kind) {
      case Kind::kExits:
        fit = {attempt.status};
        break;
      case Kind::kDeadline:
      case Kind::kExtended:
        // 124 is what the record says; where the daemon is away for longer than it waits for that, the command's own.
        fit = {124, 128 + SIGTERM, 128 + SIGKILL};
        if (status != 124) book_.count("launchers without the record of a deadline");
        break;
      case Kind::kBreach:
      case Kind::kRequested:
        fit = {128 + SIGTERM, 128 + SIGKILL};
        break;
      case Kind::kOrphans:
        fit = {0};
        break;
      case Kind::kOwner:
      case Kind::kKilledByOthers:
        fit = {128 + SIGKILL};
        break;
    }
    EXPECT_TRUE(fit.contains(status)) << attempt.run.id << " (" << to_string(attempt.run.kind)
                                      << "): the launcher's status is " << status;
  }

  void check_refusal(const Attempt& attempt, int status, const std::string& said) {
    EXPECT_EQ(status, 125) << attempt.run.id << ": its command was not run: " << said;
    book_.count("launchers that were refused: " + without(said, attempt.run.id));
    const bool daemon_away =
        said.find("is not running") != std::string::npos || said.find("does not answer") != std::string::npos;
    EXPECT_TRUE(daemon_away || manager_or_bus_away()) << attempt.run.id << ": " << said;
    std::this_thread::sleep_for(kRefused);
  }

  // -- over the bus --

  void register_over_bus(Kind kind) {
    Attempt attempt = make(kind);
    int gate[2] = {-1, -1};
    ASSERT_EQ(::pipe2(gate, O_CLOEXEC), 0);
    const UniqueFd inside(gate[0]);
    const UniqueFd outside(gate[1]);
    Words words{workload_program(), "gate", workload_program()};
    words.insert(words.end(), attempt.words.begin(), attempt.words.end());
    SpawnOptions options;
    options.extra = inside.get();
    options.environment = {{"ANALYSIS_ID", attempt.run.id}};
    Child leader = Child::spawn(words, options);
    const pid_t pid = leader.pid();

    const Dict limits{memory_limit(32), headroom(32), wall_clock(attempt.wall_clock), grace(kGrace)};
    const bool by_pidfd = uniform(rng_, 0, 1) == 0;
    const Outcome registered = ask([&] {
      return by_pidfd ? client_.register_pidfd(attempt.run.id, pid, limits)
                      : client_.register_process(attempt.run.id, static_cast<std::uint32_t>(pid), limits);
    });
    if (registered.ok()) {
      attempt.run.answer = Answer::kYes;
      watcher_.expect_gone(attempt.run.id, monotonic_now() + attempt.wall_clock + kGrace);
      (void)!::write(outside.get(), "!", 1);
      meddle(attempt, nullptr, "");
    } else {
      book_.count("registrations that were refused: " + without(registered.message, attempt.run.id));
      EXPECT_TRUE(lost(registered)) << attempt.run.id << ": " << registered.error << ": " << registered.message;
      // It may be watched all the same. It was never let through its gate.
      leader.signal(SIGKILL);
      watcher_.expect_gone(attempt.run.id, monotonic_now());
      std::this_thread::sleep_for(kRefused);
    }
    // Left a zombie until its end is kept, as a good parent does: its status can be read from it.
    EXPECT_TRUE(leader.await_end(attempt.wall_clock + kGrace + kRestartMargin + kPatience))
        << attempt.run.id << " lives for ever";
    await_gone(attempt.run.id);
    (void)leader.reap();
    book_.add(attempt.run);
    bystanders_.take_pid(pid);
  }

  void await_gone(const std::string& id) {
    const std::string folder = slice_folder(id);
    const Instant patience = monotonic_now() + kPatience;
    while (exists(folder) && monotonic_now() < patience) std::this_thread::sleep_for(50ms);
  }

  // -- to a run that is there --

  void meddle(Attempt& attempt, const Child* launcher, const std::string& leader) {
    switch (attempt.run.kind) {
      case Kind::kExits:
      case Kind::kDeadline:
      case Kind::kBreach:
      case Kind::kOrphans:
        return;
      case Kind::kOwner:
        std::this_thread::sleep_for(ms(uniform(rng_, 0, 800)));
        launcher->signal(SIGKILL);
        watcher_.expect_gone(attempt.run.id, monotonic_now() + kGrace);
        return;
      case Kind::kKilledByOthers: {
        std::this_thread::sleep_for(ms(uniform(rng_, 0, 800)));
        const Held held(static_cast<pid_t>(std::stol(leader)));
        if (folder_of(held.pid()).starts_with(slice_folder(attempt.run.id))) ::kill(held.pid(), SIGKILL);
        watcher_.expect_gone(attempt.run.id, monotonic_now());
        return;
      }
      case Kind::kRequested:
        std::this_thread::sleep_for(ms(uniform(rng_, 0, 800)));
        return request_end(attempt.run.id);
      case Kind::kExtended:
        return extend(attempt);
    }
  }

  /// As somebody who means it: asks again where the answer was lost.
  void request_end(const std::string& id) {
    const Instant patience = monotonic_now() + kLongEnough - 20s;
    std::map<std::string, int> answers;
    while (monotonic_now() < patience) {
      const Outcome told = ask([&] { return client_.kill(id); });
      if (told.ok()) return watcher_.expect_gone(id, monotonic_now() + kGrace);
      if (processes_in(slice_folder(id)).empty()) return;  // The one whose answer was lost has worked.
      EXPECT_TRUE(lost(told) || told.error == names::error::kNoSuchAnalysis)
          << id << ": " << told.error << ": " << told.message;
      ++answers[told.error + ": " + told.message];
      std::this_thread::sleep_for(200ms);
    }
    ADD_FAILURE() << id << ": nobody took the request to end it: " << ::testing::PrintToString(answers);
  }

  void extend(Attempt& attempt) {
    constexpr Span kBy = 2s;
    // Also one whose answer is lost may have been heard.
    attempt.wall_clock += kBy;
    watcher_.expect_gone(attempt.run.id, monotonic_now() + attempt.wall_clock + kGrace);
    const Outcome told = ask([&] { return client_.extend(attempt.run.id, to_usec(kBy)); });
    if (told.ok()) {
      attempt.run.at_least = attempt.wall_clock;
    } else {
      // Too late is no fault.
      EXPECT_TRUE(lost(told) || told.error.starts_with("org.scidex.AnalysisWatchdog1.Error."))
          << attempt.run.id << ": " << told.error << ": " << told.message;
    }
  }

  // -- who is away --

  template <class Call>
  Outcome ask(const Call& call) {
    Outcome outcome = call();
    if (fault_ == Fault::kBus && !outcome.ok() && lost(outcome)) {
      const Instant patience = monotonic_now() + 60s;
      while (!client_.reconnect() && monotonic_now() < patience) std::this_thread::sleep_for(200ms);
    }
    return outcome;
  }

  /// Calls of the daemon's own to PID 1 may be lost too.
  bool manager_or_bus_away() const { return fault_ == Fault::kReexec || fault_ == Fault::kBus; }

  bool lost(const Outcome& outcome) const {
    static const std::set<std::string> kAway{
        "org.freedesktop.DBus.Error.NoReply",        "org.freedesktop.DBus.Error.Disconnected",
        "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
        "org.freedesktop.DBus.Error.Timeout",        "org.freedesktop.DBus.Error.TimedOut",
    };
    if (kAway.contains(outcome.error)) return true;
    if (outcome.error.starts_with("System.Error.")) return true;  // A connection that broke.
    return manager_or_bus_away() && outcome.error == names::error::kScopeFailed;
  }

  std::string prefix_;
  std::string folder_;
  Fault fault_;
  Rng rng_;
  Book& book_;
  Watcher& watcher_;
  Bystanders& bystanders_;
  Watchdog client_;
  int count_ = 0;
};

// ---- The day ----

class ABadDay : public Story, public ::testing::WithParamInterface<Fault> {
 protected:
  void SetUp() override {
    Story::SetUp();
    forget_bystander();  // This story has its own.
    seed_ = chaos_seed();
    rng_.seed(seed_);
    // Many kills in a row are no reason for systemd to give up; where the unit does not say so itself, we do.
    const auto limit = run_command({"systemctl", "show", "--property=StartLimitIntervalUSec", "--value", kDaemonUnit});
    if (limit.out != "0\n") {
      std::cout << "the unit has a start limit (" << limit.out.substr(0, limit.out.find('\n')) << "): lifted here\n";
      std::filesystem::create_directories(kDropInFolder);
      write_file(std::string(kDropInFolder) + "/chaos.conf", "[Unit]\nStartLimitIntervalSec=0\n");
      ASSERT_TRUE(systemctl({"daemon-reload"}));
    }
    ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
    ASSERT_TRUE(await_daemon());
    fresh_descriptors_ = descriptors_of(find_daemon());
    ASSERT_GT(fresh_descriptors_, 0);
  }

  void TearDown() override {
    if (GetParam() == Fault::kBus) {
      // These leave with the bus, and come back when they are asked for; not all of them at once.
      for (const char* unit : {"dbus.service", "systemd-logind.service", "polkit.service"}) {
        (void)run_command({"systemctl", "reset-failed", unit});
      }
      (void)run_command({"systemctl", "restart", "systemd-logind.service"});
      EXPECT_TRUE(await([&] { return watchdog.reconnect(); }));
    }
    std::filesystem::remove(std::string(kDropInFolder) + "/chaos.conf");
    EXPECT_TRUE(systemctl({"daemon-reload"}));
    (void)run_command({"systemctl", "reset-failed", kDaemonUnit});
    EXPECT_TRUE(systemctl({"start", kDaemonUnit}));
    Story::TearDown();
  }

  /// Without the bus, which may be away.
  static bool await(const std::function<bool()>& done, Span patience = kPatience) {
    const Instant deadline = monotonic_now() + patience;
    while (!done()) {
      if (monotonic_now() >= deadline) return false;
      std::this_thread::sleep_for(100ms);
    }
    return true;
  }

  /// A moment, mostly short, so that faults also come on the heels of each other. Of the kills one in four comes into a
  /// start; were it each of them, no daemon would ever be there to watch anything.
  void wait_a_moment(Fault fault) {
    if (fault == Fault::kKill && uniform(rng_, 0, 3) != 0) {
      ASSERT_TRUE(await([] { return unit_is_active(); }, 60s)) << "the daemon does not start";
    }
    const double drawn = std::uniform_real_distribution<double>(0, 1)(rng_);
    std::this_thread::sleep_for(ms(static_cast<long>(drawn * drawn * 4000)));
  }

  void cause(Fault fault) {
    switch (fault) {
      case Fault::kKill: {
        pid_t pid = 0;
        ASSERT_TRUE(await([&] { return (pid = find_daemon()) > 0; }, 60s)) << "systemd starts the daemon no more";
        const Held held(pid);
        if (pid == find_daemon()) ::kill(pid, SIGKILL);
        ASSERT_TRUE(await([&] { return !held.alive(); }));
        return;
      }
      case Fault::kReexec:
        ASSERT_TRUE(systemctl({"daemon-reexec"}));
        return;
      case Fault::kReload:
        ASSERT_TRUE(systemctl({"daemon-reload"}));
        return;
      case Fault::kBus:
        return restart_bus();
      case Fault::kRestart:
        if (uniform(rng_, 0, 1) == 0) {
          ASSERT_TRUE(systemctl({"restart", kDaemonUnit}));
          return;
        }
        ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
        std::this_thread::sleep_for(ms(uniform(rng_, 0, 3000)));
        ASSERT_TRUE(systemctl({"start", kDaemonUnit}));
        return;
    }
  }

  /// Debian's dbus.service lets the old daemon live when it is stopped (KillMode=none), which would leave two of them
  /// behind one socket. A bus that crashes is a restart that everybody notices.
  void restart_bus() {
    for (const pid_t pid : processes_in(kBusFolder)) ::kill(pid, SIGKILL);
    (void)run_command({"systemctl", "reset-failed", "dbus.service", "dbus.socket"});
    ASSERT_TRUE(await([] {
      return run_command({"systemctl", "start", "dbus.socket", "dbus.service"}).status == 0 &&
             !processes_in(kBusFolder).empty();
    })) << "the bus does not come back";
  }

  static int descriptors_of(pid_t pid) {
    if (pid <= 0) return -1;
    int count = 0;
    std::error_code gone;
    for (auto entry = std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", gone);
         !gone && entry != std::filesystem::directory_iterator(); entry.increment(gone)) {
      ++count;
    }
    return gone ? -1 : count;
  }

  static std::vector<std::string> slices_left() {
    std::vector<std::string> left;
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator(kSlices, gone)) {
      if (entry.is_directory(gone)) left.push_back(entry.path().filename());
    }
    return left;
  }

  /// Runs' processes that are anywhere at all, in or out of their slices.
  static std::vector<std::string> processes_left(const std::string& prefix) {
    std::vector<std::string> left;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      if (read_file("/proc/" + name + "/environ").find("ANALYSIS_ID=" + prefix) == std::string::npos) continue;
      std::string cmdline = read_file("/proc/" + name + "/cmdline");
      std::replace(cmdline.begin(), cmdline.end(), '\0', ' ');
      left.push_back(name + " " + cmdline);
    }
    return left;
  }

  void check_records(const std::string& prefix, const std::vector<Registration>& runs, const Book& book);

  std::uint64_t seed_ = 0;
  Rng rng_;
  int fresh_descriptors_ = 0;
};

void ABadDay::check_records(const std::string& prefix, const std::vector<Registration>& runs, const Book& book) {
  EXPECT_EQ(ledger_integrity(), "ok");
  std::map<std::string, std::vector<Json>> ends;
  std::map<std::string, std::set<std::string>> run_ids;
  std::set<std::string> event_ids;
  const auto rows = read_ledger("registered_as GLOB '" + prefix + "*'");
  for (const Json& row : rows) {
    const std::string id = row.at("registered_as");
    run_ids[id].insert(row.at("run_id").get<std::string>());
    event_ids.insert(row.at("event_id").get<std::string>());
    if (row.at("kind") == "ended") ends[id].push_back(row);
  }
  EXPECT_EQ(event_ids.size(), rows.size());

  (void)run_command({"journalctl", "--sync"});
  std::map<std::string, std::set<std::string>> in_journal;
  for (const JournalRecord& record : find_journal_records("ANALYSIS_EVENT", "ended")) {
    const std::string id = field(record, "ANALYSIS_ID");
    if (id.starts_with(prefix)) in_journal[id].insert(field(record, "ANALYSIS_EVENT_ID"));
  }

  std::map<std::string, int> summary;
  std::set<std::string> known;
  for (const Registration& run : runs) {
    known.insert(run.id);
    const auto& of_run = ends[run.id];
    const std::string who = run.id + " (" + to_string(run.kind) + ")";
    EXPECT_LE(of_run.size(), 1U) << who << " has more than one end in the ledger";
    if (run.answer == Answer::kYes) {
      EXPECT_EQ(of_run.size(), 1U) << who << " has no end in the ledger";
    }
    EXPECT_EQ(of_run.size(), run_ids[run.id].size()) << who << " is known to the ledger, and has no end there";
    if (of_run.size() != 1) {
      summary[to_string(run.kind) + ": never registered"]++;
      continue;
    }
    const Json& end = of_run.front();
    const std::string reason = end.at("reason");
    auto fit = reasons_of(run.kind);
    if (run.answer == Answer::kPerhaps) fit.insert({"exited", "external"});  // It never got through its gate.
    EXPECT_TRUE(fit.contains(reason)) << who << " ended as " << reason << ": " << end.dump();
    // A moment less: the end that nobody saw is dated by the wall clock, to the millisecond.
    if (run.answer == Answer::kYes && run.at_least > Span(0)) {
      EXPECT_GE(end.at("duration_usec").get<std::uint64_t>() + 50'000, to_usec(run.at_least))
          << who << ": " << end.dump();
    }
    EXPECT_EQ(in_journal[run.id], std::set<std::string>{end.at("event_id").get<std::string>()})
        << who << " is not in the journal as it is in the ledger";
    summary[to_string(run.kind) + ": " + reason]++;
  }
  for (const auto& [id, of_run] : run_ids) EXPECT_TRUE(known.contains(id)) << id << " was registered by nobody";
  for (const auto& [what, count] : summary) std::cout << "  " << what << " " << count << "\n";
  for (const auto& [what, count] : book.counts()) std::cout << "  " << what << " " << count << "\n";
}

TEST_P(ABadDay, LosesAndDoublesNoEndAndHarmsNobodyElse) {
  const Fault fault = GetParam();
  const int faults = faults_of(fault);
  const int lanes = static_cast<int>(number_from_environment("AW_CHAOS_LANES", 6));
  const std::string prefix = "chaos-" + std::to_string(::getpid()) + "-" + to_string(fault) + "-";
  std::cout << faults << " times, " << lanes << " runs at a time; AW_SEED=" << seed_ << " plays it again\n";
  const Instant began = monotonic_now();

  Book book;
  Watcher watcher;
  Bystanders bystanders(path("."));
  std::vector<std::unique_ptr<Lane>> work;
  for (int i = 0; i < lanes; ++i) {
    const std::string folder = path("lane" + std::to_string(i));
    std::filesystem::create_directory(folder);
    work.push_back(std::make_unique<Lane>(prefix + std::to_string(i) + "-", folder, fault,
                                          seed_ * 1000 + static_cast<std::uint64_t>(i), book, watcher, bystanders));
  }
  std::atomic<bool> over = false;
  {
    std::vector<std::jthread> threads;
    // Also when the story ends early.
    const std::unique_ptr<std::atomic<bool>, void (*)(std::atomic<bool>*)> at_last(&over,
                                                                                   [](auto* flag) { *flag = true; });
    for (const auto& lane : work) threads.emplace_back([&lane, &over] { lane->work(over); });

    for (int i = 0; i < faults && !HasFatalFailure(); ++i) {
      wait_a_moment(fault);
      cause(fault);
    }
    // A day that is too short for each kind to have come says little.
    EXPECT_TRUE(await([&] { return book.has_each_kind(); }, 5min)) << "no run of some kind could be started";
    over = true;
  }

  EXPECT_TRUE(await([] { return unit_is_active(); }, 60s)) << "the daemon is away";
  EXPECT_TRUE(await([] { return slices_left().empty(); }, 3min)) << ::testing::PrintToString(slices_left());
  watcher.stop();
  const auto runs = book.runs();
  std::cout << runs.size() << " runs in "
            << std::chrono::duration_cast<std::chrono::seconds>(monotonic_now() - began).count() << " s; "
            << watcher.looks() << " looks at them; the last lived "
            << std::chrono::duration_cast<std::chrono::milliseconds>(watcher.latest()).count()
            << " ms beyond its limit and grace; " << bystanders.with_used_pid() << " bystanders got a used pid\n";

  EXPECT_THAT(watcher.outlived(), IsEmpty()) << "lived more than " << kRestartMargin.count() << " us too long";
  EXPECT_THAT(bystanders.harmed(), IsEmpty());
  EXPECT_GT(bystanders.with_used_pid(), 0) << "no pid could be used again: nothing is known about those who have one";
  EXPECT_THAT(processes_left(prefix), IsEmpty());
  check_records(prefix, runs, book);
  if (fault == Fault::kReexec || fault == Fault::kReload) {
    for (const auto& [what, count] : book.counts()) {
      EXPECT_EQ(what.find("refused"), std::string::npos) << what << ", " << count << " times";
    }
  }

  EXPECT_EQ(run_command({"systemctl", "list-units", "--plain", "--no-legend", "--state=failed", "analysis*"}).out, "");
  EXPECT_TRUE(await([] { return units_of_runs().empty(); })) << ::testing::PrintToString(units_of_runs());
  EXPECT_TRUE(await([&] {
    const int now = descriptors_of(find_daemon());
    return now > 0 && now <= fresh_descriptors_ + 4;
  })) << descriptors_of(find_daemon())
      << " descriptors; a fresh daemon has " << fresh_descriptors_;
}

INSTANTIATE_TEST_SUITE_P(, ABadDay, ::testing::ValuesIn(kFaults),
                         [](const ::testing::TestParamInfo<Fault>& fault) { return to_string(fault.param); });

}  // namespace
}  // namespace aw::stories
