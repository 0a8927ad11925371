// SPDX-License-Identifier: Apache-2.0
#include "support/story.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <ostream>

#include "base/analysis_id.h"
#include "support/manager.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;

/// An analysis that has nothing to do with any story, and must not notice any.
class Bystander {
 public:
  static Bystander& instance() {
    static Bystander bystander;
    return bystander;
  }

  void ensure(Watchdog& watchdog) {
    if (process_ && watchdog.find(id_)) return;
    forget();
    id_ = "bystander " + std::to_string(::getpid()) + "/" + std::to_string(++generation_);
    letters_ = "/var/tmp/bystander." + std::to_string(::getpid()) + "." + std::to_string(generation_);
    process_ =
        std::make_unique<Child>(Child::spawn({"analysis-run", "--quiet", "--id=" + id_, "--memory=64M",
                                              "--wall-clock=6h", "--", workload_program(), "witness", letters_}));
    ASSERT_TRUE(watchdog.await_signal("AnalysisRegistered", id_)) << "no bystander";
    ASSERT_TRUE(watchdog.wait_until([&] { return exists(letters_); }));
    const auto properties = watchdog.find(id_);
    ASSERT_TRUE(properties);
    leader_ = std::make_unique<Held>(static_cast<pid_t>(number(*properties, "LeaderPid")));
    run_id_ = text(*properties, "RunId");
  }

  void expect_untouched(Watchdog& watchdog) const {
    if (!process_) return;
    EXPECT_TRUE(leader_->alive()) << "the bystander was killed";
    EXPECT_EQ(read_file(letters_), "") << "the bystander got signals";
    EXPECT_EQ(processes_in(slice_folder(id_)), std::vector<pid_t>{leader_->pid()});
    const auto properties = watchdog.find(id_);
    ASSERT_TRUE(properties) << "the bystander is not watched any more";
    EXPECT_EQ(text(*properties, "State"), "running");
    EXPECT_EQ(text(*properties, "RunId"), run_id_);
  }

  void forget() {
    if (!process_) return;
    ::kill(leader_ ? leader_->pid() : process_->pid(), SIGKILL);
    (void)process_->reap();
    process_.reset();
    leader_.reset();
    std::filesystem::remove(letters_);
    // With the daemon away nobody takes the slice down.
    (void)run_command({"systemctl", "stop", "--quiet", slice_unit(AnalysisId::parse(id_).value())});
  }

 private:
  std::string id_, run_id_, letters_;
  int generation_ = 0;
  std::unique_ptr<Child> process_;
  std::unique_ptr<Held> leader_;
};

class Closing : public ::testing::Environment {
 public:
  void TearDown() override { Bystander::instance().forget(); }
};
[[maybe_unused]] const auto* const kClosing = ::testing::AddGlobalTestEnvironment(new Closing);

std::string option_word(const std::string& name, const Value& value) {
  const auto* const t = value.get_if<std::uint64_t>();
  const auto* const s = value.get_if<std::string>();
  const std::string written = s != nullptr       ? *s
                              : t == nullptr     ? ""
                              : *t == UINT64_MAX ? "infinity"
                                                 : std::to_string(*t);
  const auto span = [&] { return written == "infinity" ? written : written + "us"; };
  if (name == "MemoryLimit") return "--memory=" + written;
  if (name == "MemoryHeadroom") return "--headroom=" + written;
  if (name == "WallClockLimitUSec") return "--wall-clock=" + span();
  if (name == "GraceUSec") return "--grace=" + span();
  if (name == "TasksMax") return "--tasks=" + written;
  if (name == "OrphanPolicy") return "--orphans=" + written;
  if (name == "OwnerPolicy") return "--owner=" + written;
  if (name == "Description") return "--description=" + written;
  ADD_FAILURE() << "no option of analysis-run for " << name;
  return "";
}

}  // namespace

std::string to_string(How how) { return how == How::kLaunched ? "Launched" : "Registered"; }
void PrintTo(How how, std::ostream* out) { *out << to_string(how); }

void Story::SetUp() {
  // The workload may run as another user.
  std::string folder = "/var/tmp/story.XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  ::chmod(folder.c_str(), 0755);
  folder_ = folder;
  ASSERT_TRUE(await_daemon()) << "analysis-watchdogd.service is not active";
  Bystander::instance().ensure(watchdog);
}

void Story::TearDown() {
  Bystander::instance().expect_untouched(watchdog);
  // Whatever a story let live, or a failed one left: in the runs' slices, and in the scopes of released runs.
  const auto left = [&] { return find_units(watchdog, ids_); };
  for (const std::string& unit : left()) {
    const UniqueFd kill(::open((runs_folder() + "/" + unit + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
    if (kill) (void)!::write(kill.get(), "1", 1);  // It may be gone by now.
  }
  // Thousands at once take an emulated machine minutes.
  if (!watchdog.wait_until([&] { return left().empty(); }, 60s + ids_.size() * 200ms)) {
    ADD_FAILURE() << "units are left: " << ::testing::PrintToString(left());
    for (const std::string& unit : left()) (void)run_command({"systemctl", "stop", unit});
  }
  if (!folder_.empty()) std::filesystem::remove_all(folder_);
}

std::string Story::new_id(const std::string& name) {
  static int count = 0;
  return own(name + " " + std::to_string(::getpid()) + "-" + std::to_string(++count));
}

const std::string& Story::own(const std::string& id) {
  ids_.push_back(id);
  return ids_.back();
}

Started Story::start(How how, const std::string& id, const Dict& options, const Words& workload,
                     const Words& launcher) {
  Words words{workload_program()};
  words.insert(words.end(), workload.begin(), workload.end());
  return start_program(how, id, options, words, launcher);
}

Started Story::start_program(How how, const std::string& id, const Dict& options, const Words& program,
                             const Words& launcher) {
  if (how == How::kLaunched) {
    Words words{"analysis-run", "--id=" + id};
    for (const auto& [name, value] : options) words.push_back(option_word(name, value));
    words.insert(words.end(), launcher.begin(), launcher.end());
    words.emplace_back("--");
    words.insert(words.end(), program.begin(), program.end());
    const std::size_t before = watchdog.signals().size();
    Started run{how, id, Child::spawn(words), 0, slice_folder(id)};
    EXPECT_TRUE(watchdog.await_signal("AnalysisRegistered", id, before)) << id << " was not registered";
    if (const auto properties = watchdog.find(id)) run.leader = static_cast<pid_t>(number(*properties, "LeaderPid"));
    return run;
  }
  // It waits at a gate until it is registered, so that what it does falls under its limits.
  int gate[2] = {-1, -1};
  EXPECT_EQ(::pipe2(gate, O_CLOEXEC), 0);
  const UniqueFd inside(gate[0]);
  const UniqueFd outside(gate[1]);
  Words words{workload_program(), "gate"};
  words.insert(words.end(), program.begin(), program.end());
  Started run{how, id, Child::spawn(words, {-1, -1, -1, inside.get(), {}}), 0, slice_folder(id)};
  run.leader = run.process.pid();
  const auto registered = watchdog.register_pidfd(id, run.leader, options);
  EXPECT_EQ(registered.error, "") << registered.message;
  EXPECT_EQ(::write(outside.get(), "!", 1), 1);
  return run;
}

Child Story::spawn_workload(const Words& words) const {
  Words all{workload_program()};
  all.insert(all.end(), words.begin(), words.end());
  return Child::spawn(all);
}

Dict Story::await_end(const Started& run) {
  const Dict record = await_end(run.id);
  EXPECT_EQ(processes_in(run.folder), std::vector<pid_t>{}) << "a part of the tree is left";
  if (run.leader > 0) {
    EXPECT_EQ(number(record, "pid"), static_cast<std::uint64_t>(run.leader));
  }
  return record;
}

Dict Story::await_end(const std::string& id) {
  const auto ended = watchdog.await_signal("AnalysisEnded", id);
  EXPECT_TRUE(ended) << id << " has not ended";
  if (!ended) return {};
  EXPECT_EQ(ended->reason, text(ended->record, "reason"));
  EXPECT_EQ(text(ended->record, "registered_as"), id);
  // An id may have had runs before.
  auto on_record = watchdog.events_of(id, "ended");
  std::erase_if(on_record, [&](const Dict& other) { return text(other, "run_id") != text(ended->record, "run_id"); });
  EXPECT_EQ(on_record.size(), 1U) << "its end is not on record exactly once";
  EXPECT_FALSE(watchdog.find(id)) << "it is listed although it has ended";
  return ended->record;
}

std::string Story::await_file(const std::string& name, Span patience) {
  std::string content;
  const bool there = watchdog.wait_until(
      [&] {
        content = read_file(path(name));
        return !content.empty();
      },
      patience);
  EXPECT_TRUE(there) << "the workload has not written " << name;
  return content;
}

std::vector<Held> Story::hold_members(const Started& run) {
  std::vector<Held> held;
  for (const pid_t pid : processes_in(run.folder)) held.emplace_back(pid);
  return held;
}

bool Story::await_all_gone(const std::vector<Held>& processes, Span patience) {
  return watchdog.wait_until(
      [&] {
        for (const Held& process : processes) {
          if (process.alive()) return false;
        }
        return true;
      },
      patience);
}

bool Story::await_daemon() {
  return watchdog.wait_until([&] { return unit_text(watchdog, kDaemonUnit, "ActiveState") == "active"; }, 30s);
}

void Story::forget_bystander() { Bystander::instance().forget(); }

Started EitherWay::start_it(const Dict& options, const Words& workload, const Words& launcher) {
  std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  name.resize(std::min(name.find('/'), std::size_t{40}));
  return start(GetParam(), new_id(name + "-" + to_string(GetParam())), options, workload, launcher);
}

}  // namespace aw::stories
