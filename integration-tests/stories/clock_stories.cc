// SPDX-License-Identifier: Apache-2.0
//
// The clock on the wall is set, and the machine sleeps: how long a run may last is counted on CLOCK_MONOTONIC, which
// knows neither.
#include <unistd.h>

#include <csignal>
#include <ctime>
#include <filesystem>
#include <iostream>

#include "support/chaos.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Le;
using ::testing::Lt;

Span read_clock(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return Span(now.tv_sec * 1'000'000 + now.tv_nsec / 1000);
}

class TheClock : public Story {
 protected:
  void SetUp() override {
    Story::SetUp();
    offset_ = read_clock(CLOCK_REALTIME) - read_clock(CLOCK_MONOTONIC);
  }
  void TearDown() override {
    set_to(offset_ + read_clock(CLOCK_MONOTONIC));
    Story::TearDown();
  }

  static void set_to(Span since_epoch) {
    const auto set = run_command(
        {"date", "-s", "@" + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count())});
    ASSERT_EQ(set.status, 0) << set.err;
  }
  void step(Span by) { set_to(read_clock(CLOCK_REALTIME) + by); }

  std::uint64_t deadline_of(const std::string& id) {
    const auto properties = watchdog.find(id);
    EXPECT_TRUE(properties) << id << " is not watched";
    return properties ? number(*properties, "DeadlineUSec") : 0;
  }

 private:
  Span offset_ = Span(0);
};

TEST_F(TheClock, SetForthAndBackMovesNoDeadline) {
  const Instant began = monotonic_now();
  const auto run = start(How::kLaunched, new_id("stepped"), {wall_clock(12s), grace(2s)}, {"stay"});
  const auto patient = start(How::kRegistered, new_id("stepped too"), {wall_clock(1h)}, {"stay"});
  const std::uint64_t deadline = deadline_of(run.id);
  const std::uint64_t later = deadline_of(patient.id);
  const Held leader(run.leader);
  const Held other(patient.leader);

  for (const Span by : {Span(1h), Span(-2h), Span(1h)}) {
    step(by);
    watchdog.let_pass(1s);
    EXPECT_EQ(deadline_of(run.id), deadline);
    EXPECT_EQ(deadline_of(patient.id), later);
    EXPECT_TRUE(leader.alive());
    EXPECT_TRUE(other.alive());
  }
  step(1h);

  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_THAT(number(end, "duration_usec"), AllOf(Ge(12'000'000U), Lt(20'000'000U)));
  EXPECT_THAT(monotonic_now() - began, Lt(Span(60s)));
  EXPECT_TRUE(other.alive()) << "an hour that did not pass has ended it";
  ASSERT_TRUE(watchdog.kill(patient.id).ok());
  const Dict killed = await_end(patient);
  EXPECT_EQ(text(killed, "reason"), "requested");
  EXPECT_THAT(number(killed, "duration_usec"), Lt(120'000'000U)) << "an hour of it did not pass";
}

/// When, of the daemon's absence, the clock is set: the end of a run that nobody saw is dated by the wall clock.
enum class Step { kBeforeTheEnd, kAfterTheEnd };

TEST_F(TheClock, SetWhileTheDaemonIsAwayMovesNoDeadlineAndNoEnd) {
  forget_bystander();
  for (const Span by : {Span(1h), Span(-1h)}) {
    for (const Step when : {Step::kBeforeTheEnd, Step::kAfterTheEnd}) {
      auto ending = start(How::kRegistered, new_id("ends while away"), {wall_clock(1h)}, {"stay"});
      const auto run = start(How::kRegistered, new_id("goes on"), {wall_clock(1h)}, {"stay"});
      const std::uint64_t deadline = deadline_of(run.id);
      watchdog.let_pass(1s);
      ASSERT_TRUE(systemctl({"stop", kDaemonUnit}));
      if (when == Step::kBeforeTheEnd) step(by);
      ::kill(ending.leader, SIGTERM);
      EXPECT_TRUE(ending.process.await_end());
      // Its scope goes when systemd has noticed.
      ASSERT_TRUE(watchdog.wait_until([&] { return !exists(scope_folder(ending.id)); }));
      if (when == Step::kAfterTheEnd) step(by);
      ASSERT_TRUE(systemctl({"start", kDaemonUnit}));

      ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.find(run.id).has_value(); }));
      EXPECT_EQ(deadline_of(run.id), deadline);
      ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.events_of(ending.id, "ended").size() == 1; }));
      const Dict end = watchdog.events_of(ending.id, "ended").at(0);
      EXPECT_EQ(text(end, "reason"), "exited");
      EXPECT_THAT(number(end, "duration_usec"), AllOf(Ge(1'000'000U), Lt(120'000'000U))) << describe(end);
      ASSERT_TRUE(watchdog.kill(run.id).ok());
      EXPECT_THAT(number(await_end(run), "duration_usec"), Lt(120'000'000U));
    }
  }
}

/// Lets the machine sleep for some seconds, and says how it did that; "" where it can't, with why not in `why`.
std::string fall_asleep(std::string& why) {
  // The kernel's own test of a suspend: all but the last step, for five seconds, and back by itself.
  if (exists("/sys/power/pm_test") && read_file("/sys/power/state").find("mem") != std::string::npos) {
    write_file("/sys/power/pm_test", "core");
    const auto slept = run_command({"sh", "-c", "echo mem >/sys/power/state"});
    write_file("/sys/power/pm_test", "none");
    if (slept.status == 0) return "pm_test";
    why = slept.err;
    return "";
  }
  if (read_file("/sys/power/state").find("freeze") == std::string::npos || !exists("/sys/class/rtc/rtc0/wakealarm")) {
    why = "this kernel can't be woken from a sleep: /sys/power/state has \"" + line_of("/sys/power/state") + "\"";
    return "";
  }
  const auto slept = run_command({"rtcwake", "-m", "freeze", "-s", "3"});
  if (slept.status == 0) return "rtcwake";
  why = slept.err;
  return "";
}

TEST_F(TheClock, ThatStandsStillInASleepIsTheOneThatCounts) {
  if (!chaos_is_full()) GTEST_SKIP() << "a guest that does not wake up takes all other stories with it: --chaos only";
  const auto run = start(How::kLaunched, new_id("asleep"), {wall_clock(15s), grace(2s)}, {"stay"});
  const std::uint64_t deadline = deadline_of(run.id);
  const Held leader(run.leader);
  const Span before = read_clock(CLOCK_BOOTTIME) - read_clock(CLOCK_MONOTONIC);

  std::string why;
  const std::string how = fall_asleep(why);
  const Span slept = read_clock(CLOCK_BOOTTIME) - read_clock(CLOCK_MONOTONIC) - before;
  if (how.empty() || slept < 1s) {
    ::kill(run.leader, SIGKILL);
    GTEST_SKIP() << (how.empty() ? why : how + " did not stop the monotonic clock");
  }
  std::cout << "slept " << slept.count() << " us by " << how << "\n";

  EXPECT_TRUE(leader.alive());
  EXPECT_EQ(deadline_of(run.id), deadline);
  const Dict end = await_end(run);
  EXPECT_EQ(text(end, "reason"), "wall-clock");
  EXPECT_THAT(number(end, "duration_usec"), AllOf(Ge(15'000'000U), Le(25'000'000U)));
}

}  // namespace
}  // namespace aw::stories
