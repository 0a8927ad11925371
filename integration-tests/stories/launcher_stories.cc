// SPDX-License-Identifier: Apache-2.0
//
// analysis-run, as somebody at a shell has it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "support/manager.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

class AnalysisRun : public Story {
 protected:
  CommandResult run(const Words& words, const std::string& input = "") {
    Words all{"analysis-run"};
    all.insert(all.end(), words.begin(), words.end());
    return run_command(all, input);
  }
};

TEST_F(AnalysisRun, PassesOnTheCommandsExitStatus) {
  EXPECT_EQ(run({"true"}).status, 0);
  EXPECT_EQ(run({"--", "false"}).status, 1);
  EXPECT_EQ(run({"sh", "-c", "exit 42"}).status, 42);
  EXPECT_EQ(run({workload_program(), "raise", std::to_string(SIGSEGV)}).status, 128 + SIGSEGV);
  EXPECT_EQ(run({workload_program(), "raise", std::to_string(SIGTERM)}).status, 128 + SIGTERM);
}

TEST_F(AnalysisRun, SaysThatACommandCantBeFoundOrRunAsAShellDoes) {
  const auto absent = run({"no-such-command-anywhere"});
  EXPECT_EQ(absent.status, 127);
  EXPECT_THAT(absent.err, HasSubstr("no-such-command-anywhere"));
  const auto data = run({"/etc/passwd"});
  EXPECT_EQ(data.status, 126);
  EXPECT_THAT(data.err, HasSubstr("/etc/passwd"));
}

TEST_F(AnalysisRun, FailsByItselfWith125) {
  for (const Words& words : {Words{}, Words{"--no-such-option", "true"}, Words{"--memory=12 GiBs", "true"},
                             Words{"--memory=0", "true"}, Words{"--wall-clock=-1s", "true"}, Words{"--id=", "true"},
                             Words{"--orphans=adopt", "true"}, Words{"--json=yaml", "true"}}) {
    const auto failed = run(words);
    EXPECT_EQ(failed.status, 125) << ::testing::PrintToString(words) << failed.err;
    EXPECT_NE(failed.err, "");
  }
  EXPECT_EQ(run({"--help"}).status, 0);
  EXPECT_EQ(run({"--version"}).status, 0);
}

TEST_F(AnalysisRun, LeavesStdinAndStdoutToTheCommand) {
  const auto sorted = run({"sort", "-r"}, "a\nc\nb\n");
  EXPECT_EQ(sorted.status, 0);
  EXPECT_EQ(sorted.out, "c\nb\na\n");
  EXPECT_EQ(sorted.err, "");
  EXPECT_EQ(run({"sh", "-c", "echo to stderr >&2"}).err, "to stderr\n");
}

TEST_F(AnalysisRun, GivesTheCommandItsArgumentsUnchanged) {
  const auto printed = run({"--", "printf", "%s|", "--memory=1G", "a b", "", "$HOME", "--"});
  EXPECT_EQ(printed.out, "--memory=1G|a b||$HOME|--|");
}

TEST_F(AnalysisRun, WatchesFromTheFirstInstruction) {
  const std::string id = new_id("first");
  const auto cgroup = run({"--id=" + id, "cat", "/proc/self/cgroup"});
  EXPECT_THAT("/sys/fs/cgroup" + cgroup.out.substr(3), ::testing::StartsWith(scope_folder(id)));
}

TEST_F(AnalysisRun, SaysInOneLineWhyARunWasEnded) {
  const auto lines = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  const std::string id = new_id("too long");
  const auto late = run({"--id=" + id, "--wall-clock=1s", "sleep", "600"});
  EXPECT_EQ(late.status, 124);
  EXPECT_THAT(late.err, HasSubstr(id + " was ended: wall-clock"));
  EXPECT_EQ(lines(late.err), 1) << late.err;
  EXPECT_EQ(late.out, "");

  const auto fat = run({"--id=" + new_id("too big"), "--memory=32M", workload_program(), "leak"});
  EXPECT_EQ(fat.status, 128 + SIGTERM) << fat.err;
  EXPECT_THAT(fat.err, HasSubstr(" was ended: memory"));
  EXPECT_EQ(lines(fat.err), 1) << fat.err;
}

TEST_F(AnalysisRun, Says124ForTheWallClockHoweverTheTreeDied) {
  EXPECT_EQ(run({"--wall-clock=1s", "--grace=1s", workload_program(), "ignore-term", path("ready")}).status, 124);
  EXPECT_EQ(run({"--wall-clock=1s", workload_program(), "handle-term", path("ready2"), path("marker"), "0"}).status,
            124);
}

TEST_F(AnalysisRun, IsQuietWhenAsked) {
  const auto late = run({"--quiet", "--wall-clock=1s", "sleep", "600"});
  EXPECT_EQ(late.status, 124);
  EXPECT_EQ(late.err, "");
}

TEST_F(AnalysisRun, PassesSignalsOn) {
  const std::string id = new_id("signalled");
  Child launcher = Child::spawn(
      {"analysis-run", "--id=" + id, "--", workload_program(), "handle-term", path("ready"), path("marker"), "100"});
  await_file("ready");

  launcher.signal(SIGTERM);

  EXPECT_EQ(launcher.reap(), 0) << "the handler's own status";
  EXPECT_EQ(read_file(path("marker")), "entered\ncompleted\n");
  EXPECT_EQ(text(await_end(id), "reason"), "exited") << "the watchdog has not ended it";
}

TEST_F(AnalysisRun, ReportsTheFinalAccounting) {
  const std::string id = new_id("reported");
  const auto text_report = run({"--report", "sh", "-c", "exit 3"});
  EXPECT_EQ(text_report.status, 3);
  EXPECT_THAT(text_report.err, HasSubstr("exited"));

  const auto json_report = run({"--report", "--json", "--id=" + id, "--label=team=astro", "sh", "-c", "exit 3"});
  EXPECT_EQ(json_report.status, 3);
  const Json record = Json::parse(json_report.err, nullptr, false);
  ASSERT_TRUE(record.is_object()) << json_report.err;
  EXPECT_EQ(record.value("registered_as", ""), id);
  EXPECT_EQ(record.value("reason", ""), "exited");
  EXPECT_EQ(record.value("exit_code", -1), 3);
  EXPECT_GT(record.value("memory_peak_bytes", 0), 0);
  EXPECT_GT(record.value("cpu_usec", 0), 0);
  EXPECT_THAT(record.value("occurred_at", ""), ::testing::MatchesRegex("....-..-..T..:..:..*"));

  EXPECT_EQ(run({"--report=" + path("report"), "--json=pretty", "true"}).err, "");
  EXPECT_EQ(Json::parse(read_file(path("report")), nullptr, false).value("reason", ""), "exited");
}

TEST_F(AnalysisRun, DetachesAndPrintsTheId) {
  const std::string id = new_id("detached");
  const auto detached = run({"--detach", "--id=" + id, "--wall-clock=1h", workload_program(), "stay"});
  EXPECT_EQ(detached.status, 0) << detached.err;
  EXPECT_EQ(detached.out, id + "\n");

  watchdog.let_pass(3s);
  const auto properties = watchdog.find(id);
  ASSERT_TRUE(properties) << "it did not outlive its launcher";
  EXPECT_EQ(text(*properties, "State"), "running");
  EXPECT_EQ(number(*properties, "OwnerPid"), 0U);
  EXPECT_EQ(watchdog.kill(id).error, "");
  EXPECT_EQ(text(await_end(id), "reason"), "requested");
}

TEST_F(AnalysisRun, NamesTheAnalysisItself) {
  Child launcher = Child::spawn({"analysis-run", "--", workload_program(), "stay"});
  std::string id;
  ASSERT_TRUE(watchdog.wait_until([&] {
    for (const Dict& analysis : watchdog.list()) {
      if (text(analysis, "Id").starts_with("workload-")) id = text(analysis, "Id");
    }
    return !id.empty();
  }));
  own(id);
  EXPECT_EQ(number(*watchdog.find(id), "OwnerPid"), static_cast<std::uint64_t>(launcher.pid()));
  EXPECT_EQ(watchdog.kill(id).error, "");
  await_end(id);
}

TEST_F(AnalysisRun, RefusesAnIdThatIsTaken) {
  const auto first = start(How::kLaunched, new_id("taken"), {}, {"stay"});
  const auto second = run({"--id=" + first.id, "touch", path("ran")});
  EXPECT_EQ(second.status, 125);
  EXPECT_THAT(second.err, HasSubstr(first.id));
  EXPECT_FALSE(exists(path("ran"))) << "it ran unwatched";
}

class WithoutADaemon : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    forget_bystander();
    ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
  }
  void TearDown() override {
    // systemd may have forgotten it meanwhile.
    EXPECT_THAT(unit_text(watchdog, kDaemonUnit, "ActiveState"), AnyOf("inactive", ""))
        << "who asked for it has started it";
    EXPECT_TRUE(systemctl({"start", kDaemonUnit}));
    Story::TearDown();
  }
};

TEST_F(WithoutADaemon, AnalysisRunRefusesToStartTheCommand) {
  if (is_users()) {
    // Theirs to start or not to start: that of somebody who has masked it is not.
    ASSERT_TRUE(systemctl({"mask", "--runtime", kDaemonUnit}));
  }
  const auto refused = run_command({"analysis-run", "touch", path("ran")});
  EXPECT_EQ(refused.status, 125);
  EXPECT_FALSE(exists(path("ran"))) << "it ran unwatched";
  EXPECT_THAT(refused.err, HasSubstr("analysis-watchdogd.service"));
  if (is_users()) {
    EXPECT_TRUE(systemctl({"unmask", "--runtime", kDaemonUnit}));
  }
}

TEST_F(WithoutADaemon, AnalysisctlSaysWhatToDo) {
  const auto listed = run_command({"analysisctl"});
  EXPECT_EQ(listed.status, 1);
  EXPECT_THAT(listed.err, HasSubstr("analysis-watchdogd.service"));
  EXPECT_EQ(listed.out, "");
}

}  // namespace
}  // namespace aw::stories
