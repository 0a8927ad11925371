// SPDX-License-Identifier: Apache-2.0
//
// What is put in from outside: ids of every legal kind, and bad input, which changes nothing and leaves nothing.
#include <fcntl.h>
#include <pwd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <set>
#include <thread>

#include "base/analysis_id.h"
#include "support/manager.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;

std::string repeat(const std::string& text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

// ---- ids ----

const std::vector<std::string>& hostile_ids() {
  static const std::vector<std::string> ids{
      " two  spaces ",
      "a/b/c",
      "..",
      "../../etc/passwd",
      ".hidden",
      "-",
      "a-b",
      "--id=x",
      "\"quoted\" and 'quoted'",
      "100% %n %s %i",
      "back\\slash \\x2d",
      "$(reboot) `reboot` ; reboot & |",
      "Übung Überwachung 解析 🧪",
      "1leading",
      "a.scope",
      "a.slice",
      "org.scidex",
      "_",
      "*?[a]",
      "x\nANALYSIS_REASON=forged",  // Refused; see below.
      repeat("x", 255),
      repeat("🧪", 63) + "abc",
      repeat("-", 255),
  };
  return ids;
}

bool is_legal(const std::string& id) { return id.find('\n') == std::string::npos; }

class AnId : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, AnId, kBothWays, way_name);

TEST_P(AnId, OfAnyLegalKindIsSafe) {
  std::vector<Started> runs;
  std::set<std::string> units, objects;
  for (const std::string& id : hostile_ids()) {
    if (!is_legal(id)) continue;
    runs.push_back(start(GetParam(), own(id), {}, {"stay"}));
    const auto properties = watchdog.find(id);
    ASSERT_TRUE(properties) << id;
    EXPECT_EQ(text(*properties, "Id"), id);
    const std::string unit = text(*properties, "Unit");
    EXPECT_EQ(unit, scope_unit(AnalysisId::parse(id).value()));
    EXPECT_EQ(unit_text(watchdog, unit, "ActiveState"), "active") << unit;
    EXPECT_EQ(unit_text(watchdog, slice_unit(AnalysisId::parse(id).value()), "ActiveState"), "active");
    EXPECT_EQ(folder_of(runs.back().leader), scope_folder(id));
    EXPECT_TRUE(units.insert(unit).second) << "two ids, one unit: " << unit;
    auto object = watchdog.call("GetAnalysis", [&](bus::Message& m) { m.append(id); });
    EXPECT_TRUE(objects.insert(object.reply.read_path().value_or("")).second) << "two ids, one object";
  }

  for (const Started& run : runs) {
    EXPECT_EQ(watchdog.kill(run.id).error, "");
    const Dict end = await_end(run);
    EXPECT_EQ(text(end, "reason"), "requested") << run.id;
    const auto record = await_journal_record("ANALYSIS_EVENT_ID", text(end, "event_id"));
    ASSERT_TRUE(record) << run.id;
    EXPECT_EQ(field(*record, "ANALYSIS_ID"), run.id);
    EXPECT_EQ(field(*record, "ANALYSIS_REASON"), "requested");
    EXPECT_EQ(record->count("ANALYSIS_REASON"), 1U);
  }
}

TEST_P(AnId, OrCommandLineForgesNoField) {
  // Two legal ids that would be one field more where fields were split by text.
  const std::string id = own("forger ANALYSIS_REASON=oom MESSAGE=all is well PRIORITY=7");
  const auto run = start_program(
      GetParam(), id, {}, {"/bin/sh", "-c", "exit 3; : 'ANALYSIS_REASON=oom\nANALYSIS_UID=4242\nMESSAGE=forged'"});

  const Dict end = await_end(run);

  const auto record = await_journal_record("ANALYSIS_EVENT_ID", text(end, "event_id"));
  ASSERT_TRUE(record);
  const std::map<std::string, std::string> fields{
      {"ANALYSIS_ID", id}, {"ANALYSIS_REASON", "exited"}, {"ANALYSIS_UID", std::to_string(::getuid())}};
  for (const auto& [name, value] : fields) {
    EXPECT_EQ(field(*record, name), value);
    EXPECT_EQ(record->count(name), 1U) << name;
  }
  EXPECT_TRUE(find_journal_records("ANALYSIS_UID", "4242").empty());
  EXPECT_TRUE(find_journal_records("MESSAGE", "forged").empty());
}

class AnIllegalId : public Story, public ::testing::WithParamInterface<std::pair<const char*, std::string>> {};

TEST_P(AnIllegalId, IsRefused) {
  Child process = spawn_workload({"stay"});
  const auto refused = watchdog.register_process(GetParam().second, static_cast<std::uint32_t>(process.pid()));
  EXPECT_EQ(refused.error, names::error::kInvalidId);
  EXPECT_NE(refused.message, "");
  const auto launched = run_command({"analysis-run", "--id=" + GetParam().second, "--", "true"});
  EXPECT_EQ(launched.status, 125) << launched.err;
}

INSTANTIATE_TEST_SUITE_P(, AnIllegalId,
                         ::testing::Values(std::pair("OfNothing", std::string()),
                                           std::pair("WithANewline", std::string("a\nb")),
                                           std::pair("WithAControlCharacter", std::string("a\x01"
                                                                                          "b")),
                                           std::pair("WithDelete", std::string("a\x7f"
                                                                               "b")),
                                           std::pair("Of256Bytes", std::string(256, 'x'))),
                         [](const auto& one) { return std::string(one.param.first); });

class ATextThatIsNotUtf8 : public Story {};

TEST_F(ATextThatIsNotUtf8, IsRefusedByTheTools) {
  // The bus carries none.
  EXPECT_EQ(run_command({"analysis-run", "--id=a\xff", "--", "true"}).status, 125);
  EXPECT_EQ(run_command({"analysisctl", "kill", "a\xff"}).status, 1);
}

// ---- processes ----

class BadInput : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    before_ = watchdog.list().size();
  }

  void TearDown() override {
    EXPECT_EQ(watchdog.list().size(), before_);
    EXPECT_TRUE(watchdog.wait_until([&] { return find_units(watchdog, id_).empty(); })) << "a unit was left";
    EXPECT_TRUE(watchdog.events({{"AnalysisId", {id_}}}).empty()) << "a refusal is no event of a run";
    Story::TearDown();
  }

  /// Refused, with this error, and the words are for a person.
  void expect_refused(std::uint32_t pid, const char* error, const Dict& options = {}) {
    const auto refused = watchdog.register_process(id_, pid, options);
    EXPECT_EQ(refused.error, error) << refused.message;
    EXPECT_GE(refused.message.size(), 10U) << "it does not say what was wrong";
  }

  std::string id_ = new_id("bad input");

 private:
  std::size_t before_ = 0;
};

TEST_F(BadInput, APidThatIsGone) {
  Child process = spawn_workload({"exit", "0"});
  const auto pid = static_cast<std::uint32_t>(process.pid());
  ASSERT_TRUE(process.reap());
  expect_refused(pid, names::error::kNoSuchProcess);
}

TEST_F(BadInput, PidZero) { expect_refused(0, names::error::kNoSuchProcess); }

TEST_F(BadInput, APidBeyondAll) {
  expect_refused(0x7fffffff, names::error::kNoSuchProcess);
  expect_refused(0xffffffff, names::error::kNoSuchProcess);
}

TEST_F(BadInput, AThreadId) {
  int gate[2];
  ASSERT_EQ(::pipe2(gate, O_CLOEXEC), 0);
  std::atomic<pid_t> tid = 0;
  std::thread thread([&] {
    tid = static_cast<pid_t>(::syscall(SYS_gettid));
    char go = 0;
    (void)!::read(gate[0], &go, 1);
  });
  while (tid == 0) std::this_thread::yield();
  expect_refused(static_cast<std::uint32_t>(tid.load()), names::error::kNoSuchProcess);
  EXPECT_EQ(::write(gate[1], "!", 1), 1);
  thread.join();
}

TEST_F(BadInput, AZombie) {
  Child process = spawn_workload({"exit", "0"});
  ASSERT_TRUE(process.await_end());
  expect_refused(static_cast<std::uint32_t>(process.pid()), names::error::kNoSuchProcess);
  const auto by_pidfd = watchdog.register_pidfd(id_, process.pid());
  EXPECT_EQ(by_pidfd.error, names::error::kNoSuchProcess) << by_pidfd.message;
}

TEST_F(BadInput, AKernelThread) { expect_refused(2, names::error::kProtectedProcess); }

TEST_F(BadInput, PidOne) { expect_refused(1, names::error::kProtectedProcess); }

TEST_F(BadInput, TheDaemonItself) {
  expect_refused(static_cast<std::uint32_t>(daemon_pid(watchdog)), names::error::kProtectedProcess);
}

TEST_F(BadInput, TheBus) {
  const auto pid = unit_number(watchdog, "dbus.service", "MainPID");
  ASSERT_TRUE(pid);
  expect_refused(static_cast<std::uint32_t>(*pid), names::error::kProtectedProcess);
}

TEST_F(BadInput, AProcessOfAnotherService) {
  if (is_users()) GTEST_SKIP() << "all services of a user's manager are that user's own";
  ASSERT_EQ(run_command({"systemd-run", "--quiet", "--unit=story-other", workload_program(), "stay"}).status, 0);
  const auto pid = unit_number(watchdog, "story-other.service", "MainPID");
  ASSERT_TRUE(pid);
  expect_refused(static_cast<std::uint32_t>(*pid), names::error::kProtectedProcess);
  EXPECT_THAT(folder_of(static_cast<pid_t>(*pid)), HasSubstr("/story-other.service")) << "it was moved";
  EXPECT_TRUE(systemctl({"stop", "story-other.service"}));
}

TEST_F(BadInput, APidfdThatIsNone) {
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto refused =
      watchdog.call("RegisterAnalysisByPidfd", [&](bus::Message& m) { m.append(id_).append(null).append(Dict{}); });
  EXPECT_EQ(refused.error, names::error::kNoSuchProcess) << refused.message;
}

// ---- options ----

TEST_F(BadInput, LimitsOfZero) {
  Child process = spawn_workload({"stay"});
  const auto pid = static_cast<std::uint32_t>(process.pid());
  for (const char* name : {"MemoryLimit", "WallClockLimitUSec", "TasksMax", "CPUQuotaPerSecUSec", "CPUWeight"}) {
    SCOPED_TRACE(name);
    expect_refused(pid, names::error::kInvalidOption, {{name, {std::uint64_t{0}}}});
  }
  expect_refused(pid, names::error::kInvalidOption, {{"CPUWeight", {std::uint64_t{10001}}}});
}

TEST_F(BadInput, LimitsAboveTheMachine) {
  Child process = spawn_workload({"stay"});
  expect_refused(static_cast<std::uint32_t>(process.pid()), names::error::kLimitTooHigh,
                 {{"MemoryLimit", {std::uint64_t{1} << 50U}}});
}

TEST_F(BadInput, UnknownOptionsAndWrongTypes) {
  Child process = spawn_workload({"stay"});
  const auto pid = static_cast<std::uint32_t>(process.pid());
  expect_refused(pid, names::error::kInvalidOption, {{"MemoryLimits", {std::uint64_t{1} << 30U}}});
  expect_refused(pid, names::error::kInvalidOption, {{"MemoryLimit", {std::string("1G")}}});
  expect_refused(pid, names::error::kInvalidOption, {{"MemoryLimit", {std::uint32_t{1U << 30U}}}});
  expect_refused(pid, names::error::kInvalidOption, {{"OrphanPolicy", {std::string("adopt")}}});
  expect_refused(pid, names::error::kInvalidOption, {{"OwnerPolicy", {std::uint64_t{1}}}});
  expect_refused(pid, names::error::kInvalidOption, {{"Labels", {std::string("a=b")}}});
}

TEST_F(BadInput, ADescriptionOrLabelWithALineOfItsOwn) {
  // systemd writes the description into a unit file.
  const Child process = spawn_workload({"stay"});
  const auto pid = static_cast<std::uint32_t>(process.pid());
  expect_refused(pid, names::error::kInvalidOption, {{"Description", {"x\nSuccessAction=poweroff-force"}}});
  expect_refused(pid, names::error::kInvalidOption, {{"Labels", {bus::StringMap{{"a", "b\x1b[2J"}}}}});
}

TEST_F(BadInput, CallsOfTheWrongForm) {
  EXPECT_EQ(watchdog.call("RegisterAnalysis", [&](bus::Message& m) { m.append(id_); }).error,
            "org.freedesktop.DBus.Error.InvalidArgs");
  // The system bus's policy lets through what it names, and no more; a user's has none.
  EXPECT_EQ(watchdog.call("NoSuchMethod").error,
            is_users() ? "org.freedesktop.DBus.Error.UnknownMethod" : names::error::kAccessDenied);
}

TEST_F(BadInput, AnalysesThatAreNotThere) {
  EXPECT_EQ(watchdog.kill(id_).error, names::error::kNoSuchAnalysis);
  EXPECT_EQ(watchdog.unregister(id_).error, names::error::kNoSuchAnalysis);
  EXPECT_EQ(watchdog.extend(id_, 1).error, names::error::kNoSuchAnalysis);
  EXPECT_EQ(watchdog.set_limits(id_, {}).error, names::error::kNoSuchAnalysis);
  EXPECT_EQ(watchdog.attach(id_, 1).error, names::error::kNoSuchAnalysis);
  EXPECT_EQ(watchdog.call("GetAnalysis", [&](bus::Message& m) { m.append(id_); }).error, names::error::kNoSuchAnalysis);
}

class AWatchedRun : public EitherWay {};
INSTANTIATE_TEST_SUITE_P(, AWatchedRun, kBothWays, way_name);

TEST_P(AWatchedRun, RefusesBadChangesAndStaysAsItIs) {
  const auto run = start_it({memory_limit(128)}, {"parent", path("child"), "stay"});
  const auto child = static_cast<std::uint32_t>(std::stoul(await_file("child")));
  const auto before = watchdog.find(run.id);
  ASSERT_TRUE(before);
  Child other = spawn_workload({"stay"});
  const std::string second = new_id("second");

  EXPECT_EQ(watchdog.register_process(run.id, static_cast<std::uint32_t>(other.pid())).error,
            names::error::kAlreadyRegistered);
  for (const auto pid : {static_cast<std::uint32_t>(run.leader), child}) {
    EXPECT_EQ(watchdog.register_process(second, pid).error, names::error::kProcessAlreadyRegistered);
    EXPECT_EQ(watchdog.attach(run.id, pid).error, names::error::kProcessAlreadyRegistered);
  }
  EXPECT_EQ(watchdog.attach(run.id, 1).error, names::error::kProtectedProcess);
  EXPECT_EQ(watchdog.attach(run.id, 0).error, names::error::kNoSuchProcess);
  EXPECT_EQ(watchdog.set_limits(run.id, {{"MemoryLimit", {std::uint64_t{0}}}}).error, names::error::kInvalidOption);
  EXPECT_EQ(watchdog.set_limits(run.id, {memory_limit(64), {"No", {std::uint64_t{1}}}}).error,
            names::error::kInvalidOption);
  EXPECT_EQ(watchdog.set_limits(run.id, {{"MemoryLimit", {std::uint64_t{1} << 50U}}}).error,
            names::error::kLimitTooHigh);
  EXPECT_EQ(watchdog.extend(run.id, 0).error, names::error::kInvalidOption);

  const auto after = watchdog.find(run.id);
  ASSERT_TRUE(after);
  for (const char* same : {"State", "RunId", "Unit", "MemoryLimit", "MemoryHeadroom", "DeadlineUSec", "ProcessCount"}) {
    EXPECT_EQ(describe({{"", *bus::find(*after, same)}}), describe({{"", *bus::find(*before, same)}})) << same;
  }
  EXPECT_EQ(line_of(run.folder + "/memory.high"), std::to_string(128U << 20U));
  EXPECT_TRUE(watchdog.events_of(run.id, "limits-changed").empty());
  EXPECT_TRUE(find_units(watchdog, second).empty());
}

// ---- users ----

class AnUnprivilegedUser : public Story {
 protected:
  static constexpr char kUser[] = "story-user";

  void SetUp() override {
    if (is_users()) GTEST_SKIP() << "on a user's bus there are no others";
    Story::SetUp();
    if (::getpwnam(kUser) == nullptr) {
      ASSERT_EQ(run_command({"useradd", "--no-create-home", kUser}).status, 0);
    }
    ASSERT_NE(::getpwnam(kUser), nullptr);
  }
};

TEST_F(AnUnprivilegedUser, MayWatchAndManageItsOwn) {
  const std::string id = new_id("users own");
  Child launcher = Child::spawn(
      {"runuser", "-u", kUser, "--", "analysis-run", "--id=" + id, "--memory=64M", "--", workload_program(), "stay"});
  ASSERT_TRUE(watchdog.await_signal("AnalysisRegistered", id));
  const auto properties = watchdog.find(id);
  ASSERT_TRUE(properties);
  EXPECT_EQ(number(*properties, "Uid"), ::getpwnam(kUser)->pw_uid);

  const auto shown = run_as(kUser, {"analysisctl", "show", "--json=short", id});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_EQ(run_as(kUser, {"analysisctl", "set", id, "MemoryLimit=96M"}).status, 0);
  const auto killed = run_as(kUser, {"analysisctl", "kill", id});
  EXPECT_EQ(killed.status, 0) << killed.err;

  const Dict end = await_end(id);
  EXPECT_EQ(text(end, "reason"), "requested");
  EXPECT_EQ(number(end, "uid"), ::getpwnam(kUser)->pw_uid);
  EXPECT_EQ(launcher.reap(), 128 + SIGTERM);
}

TEST_F(AnUnprivilegedUser, MayNeitherSeeNorTouchAnothers) {
  const auto run = start(How::kRegistered, new_id("roots own"), {}, {"stay"});
  Child process = spawn_workload({"stay"});

  const auto registered = run_as(kUser, {"analysisctl", "register", new_id("stolen"), std::to_string(process.pid())});
  EXPECT_EQ(registered.status, 1);
  for (const Words& command :
       {Words{"analysisctl", "kill", run.id}, Words{"analysisctl", "unregister", run.id},
        Words{"analysisctl", "extend", run.id, "1h"}, Words{"analysisctl", "set", run.id, "MemoryLimit=1G"},
        Words{"analysisctl", "show", run.id}}) {
    const auto refused = run_as(kUser, command);
    EXPECT_EQ(refused.status, 1) << command[1];
    EXPECT_EQ(refused.out, "") << command[1];
  }
  const auto denied =
      run_as(kUser, {"busctl", "call", names::kBusName, names::kManagerPath, names::kManagerInterface,
                     "RegisterAnalysis", "sua{sv}", new_id("denied"), std::to_string(process.pid()), "0"});
  EXPECT_THAT(denied.err, ::testing::ContainsRegex("[Aa]ccess denied|not yours")) << denied.out;
  for (const Words& command :
       {Words{"analysisctl", "list", "--json=short"}, Words{"analysisctl", "events", "--json=short"},
        Words{"analysisctl", "status", "--json=short"}}) {
    const auto seen = run_as(kUser, command);
    EXPECT_EQ(seen.status, 0) << seen.err;
    EXPECT_EQ(seen.out.find(run.id), std::string::npos) << command[1] << " shows what is not theirs";
  }
  EXPECT_EQ(text(*watchdog.find(run.id), "State"), "running");
}

}  // namespace
}  // namespace aw::stories
