// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <csignal>

#include "analysis_watchdog/names.h"
#include "base/analysis_id.h"
#include "cli/json.h"
#include "cli/launcher.h"
#include "cli/limit_options.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/watchdog_client.h"
#include "cli/when.h"

namespace aw::cli {
namespace {

using ::testing::HasSubstr;
using namespace std::string_literals;

// ---- what a terminal is shown ----

TEST(Printable, KeepsTextOfEveryLanguage) { EXPECT_EQ(printable("naïve 日本 🚀"), "naïve 日本 🚀"); }

TEST(Printable, ShowsControlCharactersInsteadOfSendingThem) {
  EXPECT_EQ(printable("a\x1b[31m\nb\t\x7f"), "a\\x1b[31m\\x0ab\\x09\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");           // A C1 control, which some terminals obey.
  EXPECT_EQ(printable("\xe2\x80\xae"), "\\xe2\\x80\\xae");  // Turns the line around.
}

TEST(Printable, ShowsBytesThatAreNoText) {
  EXPECT_EQ(printable("\xff"), "\\xff");
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");
  EXPECT_EQ(printable("\xe2\x82"), "\\xe2\\x82");
}

TEST(Cut, EndsInAnEllipsisWithinTheWidth) {
  EXPECT_EQ(cut("abcdef", 6), "abcdef");
  EXPECT_EQ(cut("abcdef", 4), "abc…");
  EXPECT_EQ(cut("日本語", 2), "日…");
  EXPECT_EQ(cut("abc", 0), "");
}

class ATable : public ::testing::Test {
 protected:
  ATable() { set_colours(false); }
};

TEST_F(ATable, IsAsWideAsWhatItHolds) {
  Table table({"ID", "STATE"});
  table.add({"a-long-one"s, "running"s});
  table.add({"b"s, "ending"s});
  EXPECT_EQ(table.to_string(0, true), "ID         STATE\na-long-one running\nb          ending\n");
}

TEST_F(ATable, GivesWayToANarrowTerminal) {
  Table table({"ID", "S"});
  table.add({std::string(50, 'x'), "r"s});
  EXPECT_EQ(table.to_string(20, false), std::string(17, 'x') + "… r\n");
}

TEST_F(ATable, CannotBeBrokenByAnId) {
  Table table({"ID"});
  table.add({"two\nlines"s});
  EXPECT_EQ(table.to_string(0, false), "two\\x0alines\n");
}

// ---- limits as typed ----

bus::Dict options_of(const LimitOptions& typed) { return to_bus_options(typed).value(); }

TEST(LimitOptions, AreSystemdsSpellings) {
  LimitOptions typed;
  typed.memory = "2G";
  typed.wall_clock = "1h 30s";
  typed.tasks = "infinity";
  typed.cpu_quota = "150%";
  typed.labels = {"team=astro", "note=a=b"};

  EXPECT_EQ(options_of(typed), (bus::Dict{{"MemoryLimit", {std::uint64_t{2} << 30U}},
                                          {"WallClockLimitUSec", {std::uint64_t{3'630'000'000}}},
                                          {"TasksMax", {std::uint64_t{UINT64_MAX}}},
                                          {"CPUQuotaPerSecUSec", {std::uint64_t{1'500'000}}},
                                          {"Labels", {bus::StringMap{{"team", "astro"}, {"note", "a=b"}}}}}));
}

TEST(LimitOptions, ThatWereNotTypedAreLeftToTheDaemon) { EXPECT_TRUE(options_of({}).empty()); }

TEST(LimitOptions, NameTheOptionThatIsWrong) {
  LimitOptions typed;
  typed.memory = "12x";
  EXPECT_THAT(to_bus_options(typed).error().message, HasSubstr("--memory: \"12x\""));
  typed = {};
  typed.orphans = "adopt";
  EXPECT_THAT(to_bus_options(typed).error().message, HasSubstr("--orphans"));
  typed = {};
  typed.labels = {"nothing"};
  EXPECT_THAT(to_bus_options(typed).error().message, HasSubstr("KEY=VALUE"));
  typed = {};
  typed.cpu_quota = "150";
  EXPECT_THAT(to_bus_options(typed).error().message, HasSubstr("150%"));
}

TEST(Assignments, TakeTheNameOnTheBusOrAShortOne) {
  EXPECT_EQ(parse_assignment("MemoryLimit=4G").value().second, bus::Value{std::uint64_t{4} << 30U});
  EXPECT_EQ(parse_assignment("WallClockLimit=2h").value().first, "WallClockLimitUSec");
  EXPECT_EQ(parse_assignment("Grace=30s").value().first, "GraceUSec");
  EXPECT_THAT(parse_assignment("Memory").error().message, HasSubstr("MemoryLimit=4G"));
  EXPECT_THAT(parse_assignment("Speed=9").error().message, HasSubstr("there are"));
}

// ---- how it ended ----

bus::Dict ended(const char* reason) {
  return {{"registered_as", {std::string("job")}},
          {"reason", {std::string(reason)}},
          {"memory_bytes", {std::uint64_t{2} << 30U}},
          {"memory_limit_bytes", {std::uint64_t{2} << 30U}},
          {"duration_usec", {std::uint64_t{182'400'000}}},
          {"wall_clock_limit_usec", {std::uint64_t{60'000'000}}},
          {"escalated", {false}}};
}

TEST(ExitStatus, IsTheCommandsOwn) {
  EXPECT_EQ(exit_status(7 << 8, "exited"), 7);
  EXPECT_EQ(exit_status(SIGKILL, "oom"), 137);
  EXPECT_EQ(exit_status(SIGTERM, "memory"), 143);
  EXPECT_EQ(exit_status(3 << 8, "memory"), 3);
}

TEST(ExitStatus, Is124ForTheWallClockHoweverItDied) {
  EXPECT_EQ(exit_status(SIGTERM, "wall-clock"), 124);
  EXPECT_EQ(exit_status(SIGKILL, "wall-clock"), 124);
  EXPECT_EQ(exit_status(0, "wall-clock"), 124);
}

TEST(EndSentence, SaysWhichLimitAndWhetherSigtermWasEnough) {
  EXPECT_EQ(end_sentence(ended("exited")), "");
  EXPECT_THAT(end_sentence(ended("memory")),
              HasSubstr("memory: it used 2G of its limit of 2G; it had run 3min 2s; SIGTERM was enough"));
  EXPECT_THAT(end_sentence(ended("wall-clock")), HasSubstr("its limit of 1min"));
  EXPECT_THAT(end_sentence(ended("external")), HasSubstr("not the watchdog"));
}

// ---- JSON ----

TEST(JsonKeys, AreTheColumnsOfTheTables) {
  EXPECT_EQ(json_key("Id"), "analysis_id");
  EXPECT_EQ(json_key("LeaderPid"), "leader_pid");
  EXPECT_EQ(json_key("MemoryLimit"), "memory_limit_bytes");
  EXPECT_EQ(json_key("GraceUSec"), "grace_usec");
  EXPECT_EQ(json_key("WallClockLimitUSec"), "wall_clock_limit_usec");
  EXPECT_EQ(json_key("OrphanPolicy"), "orphan_policy");
}

TEST(JsonOfARecord, HasItsTimeInIso8601) {
  const auto json = record_to_json({{"event_id", {std::string("e")}}, {"occurred_at", {std::uint64_t{1'000'000}}}});
  EXPECT_EQ(to_text(json, JsonStyle::kShort), R"({"event_id":"e","occurred_at":"1970-01-01T00:00:01.000000Z"})");
}

TEST(JsonText, EscapesWhatATerminalWouldObey) {
  const Json json{{"id\u202e", "a\u009b31m\u202a\u2066\u2069b \u0080 na\u00efve \u65e5\u672c\u200f"}};

  const std::string text = to_text(json, JsonStyle::kShort);

  EXPECT_EQ(text, "{\"id\\u202e\":\"a\\u009b31m\\u202a\\u2066\\u2069b \\u0080 na\u00efve \u65e5\u672c\u200f\"}");
  EXPECT_EQ(Json::parse(text), json);
}

TEST(JsonOfAnAnalysis, SaysNullForADeadlineThatIsNone) {
  const auto json = analysis_to_json({{"DeadlineRealtimeUSec", {std::uint64_t{UINT64_MAX}}}});
  EXPECT_TRUE(json["deadline_at"].is_null());
}

// ---- ids and moments ----

TEST(MakeId, IsALegalIdWhateverTheCommandIsCalled) {
  for (const char* command : {"/usr/bin/python3", "a\nb", "", "/", "\xff"}) {
    EXPECT_TRUE(AnalysisId::parse(make_id(command))) << make_id(command);
  }
  EXPECT_THAT(make_id("/usr/bin/python3"), HasSubstr("python3-"));
  EXPECT_NE(make_id("x"), make_id("x"));
}

constexpr WallTime kNoon = WallTime(std::chrono::seconds(1'700'000'000));

TEST(ParseWhen, TakesWhatJournalctlTakes) {
  EXPECT_EQ(parse_when("now", kNoon).value(), kNoon);
  EXPECT_EQ(parse_when("-1h", kNoon).value(), kNoon - std::chrono::hours(1));
  EXPECT_EQ(parse_when("2h ago", kNoon).value(), kNoon - std::chrono::hours(2));
  EXPECT_EQ(parse_when("+5min", kNoon).value(), kNoon + std::chrono::minutes(5));
  EXPECT_EQ(parse_when("@1600000000", kNoon).value(), WallTime(std::chrono::seconds(1'600'000'000)));
  EXPECT_LE(parse_when("today", kNoon).value(), kNoon);
  EXPECT_LT(parse_when("yesterday", kNoon).value(), parse_when("today", kNoon).value());
  EXPECT_EQ(format_local(parse_when("2026-11-03 10:20:30", kNoon).value()), "2026-11-03 10:20:30");
  EXPECT_EQ(format_local(parse_when("2026-11-03", kNoon).value()), "2026-11-03 00:00:00");
}

TEST(ParseWhen, RefusesWhatIsNoMoment) {
  for (const char* text : {"", "soon", "25:99", "@x", "-", "2026-13-41", "infinity ago"}) {
    EXPECT_FALSE(parse_when(text, kNoon)) << text;
  }
}

TEST(DescribeError, SaysWhatToDo) {
  for (const char* absent :
       {"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"}) {
    EXPECT_THAT(describe_error({absent, "x"}, bus::BusKind::kSystem).message, HasSubstr("systemctl enable --now"));
    EXPECT_THAT(describe_error({absent, "x"}, bus::BusKind::kUser).message, HasSubstr("systemctl --user enable --now"));
  }
  EXPECT_THAT(describe_error({names::error::kNoSuchAnalysis, "no x"}, bus::BusKind::kSystem).message,
              HasSubstr("analysisctl list"));
}

}  // namespace
}  // namespace aw::cli
