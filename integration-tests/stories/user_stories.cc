// SPDX-License-Identifier: Apache-2.0
//
// A user's own watchdog: in their manager, on their bus, without root. It begins with the first analysis-run --user.
#include <pwd.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/story.h"
#include "support/users.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kUser[] = "story-self";

class AUser : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    if (::getpwnam(kUser) == nullptr) {
      ASSERT_EQ(run_command({"useradd", "--create-home", kUser}).status, 0);
    }
    ASSERT_EQ(run_command({"loginctl", "enable-linger", kUser}).status, 0);
    runtime_ = "/run/user/" + std::to_string(uid_of(kUser));
    const bool manager = watchdog.wait_until([&] { return exists(runtime_ + "/systemd/private"); });
    ASSERT_TRUE(manager) << "the user has no manager";
    if (!watchdog.wait_until([&] { return exists(runtime_ + "/bus"); }, 10s)) {
      GTEST_SKIP() << "there is no bus for users (package dbus-user-session)";
    }
  }
  void TearDown() override {
    (void)as_user({"systemctl", "--user", "stop", "analysis-watchdogd.service"});
    (void)as_user({"systemctl", "--user", "stop", "analysis-watchdog-once.timer"});
    Story::TearDown();
  }

  CommandResult as_user(const Words& words) const {
    Words all{"env", "XDG_RUNTIME_DIR=" + runtime_};
    all.insert(all.end(), words.begin(), words.end());
    return run_as(kUser, all);
  }
  /// What their own ledger has of a run's end.
  Json end_of(const std::string& id) const {
    const auto listed =
        as_user({"analysisctl", "--user", "events", "--json=short", "--id", id, "--kind", "ended", "--no-pager"});
    EXPECT_EQ(listed.status, 0) << listed.err;
    const Json event = Json::parse(listed.out.substr(0, listed.out.find('\n')), nullptr, false);
    EXPECT_TRUE(event.is_object()) << listed.out;
    return event;
  }

  std::string runtime_;
};

TEST_F(AUser, HasAWatchdogOfTheirOwnWithOneCommand) {
  ASSERT_NE(as_user({"systemctl", "--user", "is-active", "analysis-watchdogd.service"}).out, "active\n");

  const auto run =
      as_user({"analysis-run", "--user", "--id=own time", "--wall-clock=3s", "--", workload_program(), "stay"});

  EXPECT_EQ(run.status, 124) << run.err;
  const Json end = end_of("own time");
  EXPECT_EQ(end.value("reason", ""), "wall-clock");
  EXPECT_EQ(end.value("uid", 0U), uid_of(kUser));
  EXPECT_EQ(as_user({"systemctl", "--user", "is-active", "analysis-watchdogd.service"}).out, "active\n");
}

TEST_F(AUser, StartsNoWatchdogWithAQuestion) {
  const auto listed = as_user({"analysisctl", "--user", "list"});

  EXPECT_EQ(listed.status, 1);
  EXPECT_THAT(listed.err, HasSubstr("systemctl --user enable --now analysis-watchdogd.service"));
  EXPECT_NE(as_user({"systemctl", "--user", "is-active", "analysis-watchdogd.service"}).out, "active\n");
}

TEST_F(AUser, WhoHasMaskedTheWatchdogHasNoneAndRunsNothing) {
  ASSERT_EQ(as_user({"systemctl", "--user", "mask", "--runtime", "analysis-watchdogd.service"}).status, 0);
  const std::string ran = std::string(::getpwnam(kUser)->pw_dir) + "/ran";

  const auto refused = as_user({"analysis-run", "--user", "--", "touch", ran});

  EXPECT_EQ(as_user({"systemctl", "--user", "unmask", "--runtime", "analysis-watchdogd.service"}).status, 0);
  EXPECT_EQ(refused.status, 125);
  EXPECT_THAT(refused.err, HasSubstr("analysis-watchdogd.service"));
  EXPECT_FALSE(exists(ran)) << "it ran unwatched";
}

TEST_F(AUser, HasTheirMemoryLimitEnforced) {
  const auto run = as_user(
      {"analysis-run", "--user", "--id=own leak", "--memory=48M", "--grace=5s", "--", workload_program(), "leak"});

  EXPECT_NE(run.status, 0) << run.err;
  EXPECT_THAT(end_of("own leak").value("reason", ""), ::testing::AnyOf("memory", "oom"));
}

TEST_F(AUser, HasSomebodyPassByWhileTheirWatchdogIsDown) {
  ASSERT_EQ(as_user({"systemd-run", "--user", "--quiet", "--unit=story-passed-by", "--", "analysis-run", "--user",
                     "--id=passed by", "--wall-clock=20s", "--grace=30min", "--", workload_program(), "stay"})
                .status,
            0);
  ASSERT_TRUE(watchdog.wait_until([&] { return as_user({"analysisctl", "--user", "show", "passed by"}).status == 0; }));

  ASSERT_EQ(as_user({"systemctl", "--user", "stop", "analysis-watchdogd.service"}).status, 0);

  EXPECT_EQ(as_user({"systemctl", "--user", "is-active", "analysis-watchdog-once.timer"}).out, "active\n");
  // Long before systemd's backstop.
  ASSERT_TRUE(watchdog.wait_until(
      [&] {
        return as_user({"systemctl", "--user", "is-active", "story-passed-by.service"}).out != "active\n";
      },
      5min));
  EXPECT_EQ(end_of("passed by").value("reason", ""), "wall-clock");
  // Whoever wants one has a watchdog again, and no passes.
  EXPECT_EQ(as_user({"analysis-run", "--user", "--", "true"}).status, 0);
  EXPECT_EQ(as_user({"systemctl", "--user", "is-active", "analysis-watchdog-once.timer"}).out, "inactive\n");
}

TEST_F(AUser, HasALedgerThatNobodyElseReads) {
  (void)as_user({"analysis-run", "--user", "--", "true"});

  const std::string folder = std::string(::getpwnam(kUser)->pw_dir) + "/.local/state/analysis-watchdog";
  struct stat status {};
  ASSERT_EQ(::stat((folder + "/ledger.db").c_str(), &status), 0) << folder;
  EXPECT_EQ(status.st_uid, uid_of(kUser));
  ASSERT_EQ(::stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0700U);
}

/// A manager that was given less than a host gives by default.
class AUserWithoutCpu : public AUser {
 protected:
  void SetUp() override {
    AUser::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    std::filesystem::create_directories(kDropInFolder);
    write_file(kDropIn, "[Service]\nDelegate=\nDelegate=memory pids\n");
    ASSERT_NO_FATAL_FAILURE(restart_manager());
  }
  void TearDown() override {
    std::filesystem::remove(kDropIn);
    restart_manager();
    AUser::TearDown();
  }
  void restart_manager() {
    ASSERT_TRUE(systemctl({"daemon-reload"}));
    ASSERT_TRUE(systemctl({"restart", "user@" + std::to_string(uid_of(kUser)) + ".service"}));
    ASSERT_TRUE(watchdog.wait_until([&] { return exists(runtime_ + "/bus"); }));
  }
  std::string controllers() const {
    const std::string uid = std::to_string(uid_of(kUser));
    return " " +
           line_of("/sys/fs/cgroup/user.slice/user-" + uid + ".slice/user@" + uid + ".service/cgroup.controllers") +
           " ";
  }
  static constexpr char kDropInFolder[] = "/run/systemd/system/user@.service.d";
  static constexpr char kDropIn[] = "/run/systemd/system/user@.service.d/50-story.conf";
};

TEST_F(AUserWithoutCpu, IsToldWithEachRegistrationThatAsksForThem) {
  if (controllers().find(" cpu ") != std::string::npos) GTEST_SKIP() << "systemd delegates cpu all the same";

  const auto run = as_user({"analysis-run", "--user", "--id=own quota", "--cpu-quota=50%", "--", "true"});
  const auto plain = as_user({"analysis-run", "--user", "--", "true"});

  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.err, HasSubstr("not in force: CPUQuotaPerSecUSec"));
  EXPECT_EQ(plain.err, "");
  const auto listed =
      as_user({"analysisctl", "--user", "events", "--json=short", "--id=own quota", "--kind=registered", "--no-pager"});
  EXPECT_THAT(listed.out, HasSubstr("\"limits_not_in_force\":\"CPUQuotaPerSecUSec\""));
}

TEST_F(AUser, IsToldWhatTheHostDoesNotDelegate) {
  const std::string manager = folder_of(static_cast<pid_t>(
      std::stol("0" + as_user({"systemctl", "--user", "show", "--value", "-p", "MainPID", "dbus.service"}).out)));
  ASSERT_THAT(manager, HasSubstr("user@"));
  const std::string controllers = line_of(manager.substr(0, manager.find(".service/") + 8) + "/cgroup.controllers");
  (void)as_user({"analysis-run", "--user", "--", "true"});

  const auto told =
      run_command({"journalctl", "--no-pager", "_UID=" + std::to_string(uid_of(kUser)), "-t", "analysis-watchdogd"});
  for (const char* controller : {"cpu", "pids"}) {
    const bool given = (" " + controllers + " ").find(std::string(" ") + controller + " ") != std::string::npos;
    const bool said = told.out.find("does not delegate the " + std::string(controller)) != std::string::npos;
    EXPECT_EQ(said, !given) << controllers;
  }
}

}  // namespace
}  // namespace aw::stories
