// SPDX-License-Identifier: Apache-2.0
//
// What `analysisctl top` shows, without a terminal: runs in, lines out.
#include "cli/top_screen.h"

#include <gmock/gmock.h>

#include "cli/report.h"

namespace aw::cli {
namespace {

using bus::Dict;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::uint64_t kMiB64 = 1UL << 20U;

class AScreen : public ::testing::Test {
 protected:
  AScreen() { set_colours(false); }

  Now now() const { return {Instant(minutes{600}) + passed_, WallTime(std::chrono::days{20000}) + passed_}; }
  void pass(Span span) { passed_ += span; }

  /// A run as ListAnalyses() has it, registered ten minutes ago and with an hour altogether.
  Dict run(const std::string& id, std::uint64_t memory_mib, Dict more = {}) const {
    const auto registered = static_cast<std::uint64_t>(minutes{590}.count()) * 60'000'000;
    Dict dict{{"Id", {id}},
              {"RunId", {"run of " + id}},
              {"State", {std::string("running")}},
              {"MemoryUnreclaimable", {memory_mib * kMiB64}},
              {"MemoryLimit", {2048 * kMiB64}},
              {"CPUUsageUSec", {std::uint64_t{60'000'000}}},
              {"ProcessCount", {std::uint32_t{3}}},
              {"GraceUSec", {std::uint64_t{10'000'000}}},
              {"RegisteredAtUSec", {registered}},
              {"DeadlineUSec", {registered + 3'600'000'000}}};
    for (auto& property : more) {
      std::erase_if(dict, [&](const auto& entry) { return entry.first == property.first; });
      dict.push_back(std::move(property));
    }
    return dict;
  }
  void list(std::vector<Dict> runs) {
    screen_.on_listed(std::move(runs), {{"KillsLast24h", {std::uint32_t{3}}}, {"StoreHealthy", {true}}}, now());
  }
  std::vector<std::string> draw(std::size_t columns = 120, std::size_t lines = 24) {
    return screen_.draw({columns, lines}, now());
  }
  /// The line of that run.
  std::string row(const std::string& id, std::size_t columns = 120) {
    for (const std::string& line : draw(columns)) {
      if (line.starts_with(id + " ")) return line;
    }
    return "";
  }
  std::vector<std::string> ids() {
    std::vector<std::string> ids;
    const auto lines = draw();
    for (std::size_t i = 3; i + 1 < lines.size() && !lines[i].empty(); ++i) {
      ids.push_back(lines[i].substr(0, lines[i].find(' ')));
    }
    return ids;
  }

  TopScreen screen_{TopOrder::kMemory};

 private:
  Span passed_{0};
};

TEST_F(AScreen, ShowsEachRunWithItsBarsAndNumbers) {
  list({run("job", 1024)});

  const auto lines = draw();

  EXPECT_THAT(lines.at(0), StartsWith("analysisctl top - "));
  EXPECT_THAT(lines.at(0), HasSubstr(", 1 running, 0 ending, 3 killed in 24 h, by memory"));
  EXPECT_THAT(lines.at(2), StartsWith("ID  STATE   MEMORY "));
  EXPECT_THAT(lines.at(3), StartsWith("job running ██████······ "));
  EXPECT_THAT(lines.at(3), HasSubstr(" 1G/2G "));
  EXPECT_THAT(lines.at(3), HasSubstr(" 10.0 "));      // A minute of CPU time in ten.
  EXPECT_THAT(lines.at(3), HasSubstr(" █▍······ "));  // Ten minutes of sixty: a sixth of eight columns.
  EXPECT_THAT(lines.at(3), HasSubstr("50min"));
  EXPECT_THAT(lines.back(), HasSubstr("q quit"));
}

TEST_F(AScreen, IsNeverLargerThanTheTerminal) {
  std::vector<Dict> runs;
  for (int i = 0; i < 50; ++i)
    runs.push_back(run("a rather long name of an analysis, number " + std::to_string(i), 10));
  list(std::move(runs));

  for (std::size_t columns = 1; columns < 200; ++columns) {
    for (const std::size_t lines : {1U, 2U, 5U, 24U, 70U}) {
      const auto picture = draw(columns, lines);
      ASSERT_LE(picture.size(), lines);
      for (const std::string& line : picture) ASSERT_LE(width_of(line), columns) << line;
    }
  }
}

TEST_F(AScreen, GivesUpWhatMattersLeastWhereThereIsNoRoom) {
  list({run("job", 1024, {{"State", {std::string("ending")}}})});
  screen_.on_ending("job", "wall-clock", now().monotonic);

  EXPECT_THAT(draw(200).at(2), HasSubstr("RUNTIME"));
  EXPECT_THAT(draw(60).at(2), Not(HasSubstr("RUNTIME")));
  EXPECT_THAT(draw(60).at(2), HasSubstr("LEFT"));
  EXPECT_THAT(row("job", 24), StartsWith("job ending: wall-clock"));
}

TEST_F(AScreen, HasCpuTimeFromDifferences) {
  list({run("job", 1)});
  pass(seconds{2});
  list({run("job", 1, {{"CPUUsageUSec", {std::uint64_t{65'000'000}}}})});

  EXPECT_THAT(row("job"), HasSubstr(" 250 "));

  pass(milliseconds{50});  // Told of something in between: too near to say anything.
  list({run("job", 1, {{"CPUUsageUSec", {std::uint64_t{65'000'001}}}})});
  EXPECT_THAT(row("job"), HasSubstr(" 250 "));

  pass(seconds{1});
  list({run("job", 1, {{"CPUUsageUSec", {std::uint64_t{65'000'001}}}})});
  EXPECT_THAT(row("job"), HasSubstr(" 0.0 "));
}

TEST_F(AScreen, DoesNotCompareARunWithTheOneBeforeIt) {
  list({run("job", 1)});
  pass(seconds{2});
  list({run("job", 1, {{"RunId", {std::string("another")}}, {"CPUUsageUSec", {std::uint64_t{6'020'000}}}})});

  EXPECT_THAT(row("job"), HasSubstr(" 1.0 "));  // Of ten minutes and two seconds.
}

TEST_F(AScreen, ShowsWhyARunEndsAndHowMuchOfItsGraceIsLeft) {
  list({run("job", 1)});
  screen_.on_ending("job", "memory", now().monotonic);
  pass(seconds{3});

  EXPECT_THAT(row("job"), HasSubstr("ending: memory"));
  EXPECT_THAT(row("job"), HasSubstr(" 7s "));
  EXPECT_THAT(draw().at(0), HasSubstr("0 running, 1 ending"));
}

TEST_F(AScreen, KeepsARunForAMomentThatHasEnded) {
  list({run("job", 1), run("other", 1)});
  screen_.on_ended("run of job", "oom", now());
  list({run("other", 1)});

  EXPECT_THAT(row("job"), HasSubstr("ended: oom"));
  pass(seconds{6});
  EXPECT_EQ(row("job"), "");
  EXPECT_THAT(row("other"), HasSubstr("running"));
}

TEST_F(AScreen, KeepsARunThatIsListedNoMoreUntilItIsToldWhy) {
  list({run("job", 1), run("other", 1)});
  list({run("other", 1)});
  EXPECT_THAT(row("job"), HasSubstr("gone"));
  EXPECT_THAT(screen_.to_text(false, now()), Not(HasSubstr("job")));

  screen_.on_ended("run of job", "oom", now());

  EXPECT_THAT(row("job"), HasSubstr("ended: oom"));
  pass(seconds{6});
  EXPECT_EQ(row("job"), "");
}

TEST_F(AScreen, TakesNoOlderListForANewOne) {
  list({run("job", 1)});
  screen_.on_ended("run of job", "oom", now());

  list({run("job", 1)});

  EXPECT_THAT(row("job"), HasSubstr("ended: oom"));
  EXPECT_THAT(ids(), ElementsAre("job"));
}

TEST_F(AScreen, DoesNotTakeTheEndOfARunForThatOfTheNextOfItsId) {
  list({run("job", 1)});
  list({run("job", 1, {{"RunId", {std::string("another")}}})});

  screen_.on_ended("run of job", "oom", now());

  EXPECT_THAT(row("job"), HasSubstr("running"));
}

TEST_F(AScreen, AsksWhyARunEndsThatWasEndingBefore) {
  list({run("job", 1, {{"State", {std::string("ending")}}}), run("other", 1)});
  EXPECT_THAT(screen_.unexplained(), ElementsAre("job"));

  screen_.on_ending("job", "requested", now().monotonic);
  EXPECT_THAT(screen_.unexplained(), ::testing::IsEmpty());
}

TEST_F(AScreen, ShowsNoNumberOfAWatchdogThatIsAway) {
  list({run("job", 1)});
  screen_.on_away("the watchdog is not running");

  const auto lines = draw();

  EXPECT_EQ(lines.at(1), "the watchdog is not running");
  EXPECT_EQ(row("job"), "");
  EXPECT_THAT(lines.at(0), Not(HasSubstr("running,")));

  list({run("job", 1)});
  EXPECT_EQ(draw().at(1), "");
  EXPECT_NE(row("job"), "");
}

TEST_F(AScreen, SaysWhenRecordsAreNotKept) {
  screen_.on_listed({}, {{"StoreHealthy", {false}}}, now());

  EXPECT_THAT(draw().at(1), HasSubstr("records can't be kept"));
  EXPECT_THAT(draw().at(3), HasSubstr("nothing is being watched"));
}

TEST_F(AScreen, IsNotForgedByAnId) {
  list({run("\x1b[2J\n\x1b]0;owned\x07 \xe2\x80\xae", 1)});

  std::string all;
  for (const std::string& line : draw(300)) all += line;

  EXPECT_EQ(all.find('\x1b'), std::string::npos);
  EXPECT_EQ(all.find('\n'), std::string::npos);
  EXPECT_THAT(all, HasSubstr("\\x1b[2J\\x0a\\x1b]0;owned\\x07 \\xe2\\x80\\xae"));
  EXPECT_EQ(screen_.to_text(true, now()).find('\x1b'), std::string::npos);
}

TEST_F(AScreen, IsSortedByWhatAKeyAsksFor) {
  list({run("small", 10, {{"ProcessCount", {std::uint32_t{9}}}}), run("large", 900),
        run("busy", 20, {{"CPUUsageUSec", {std::uint64_t{600'000'000}}}}),
        run("hurried", 15, {{"DeadlineUSec", {std::uint64_t{36'001'000'000}}}}),
        run("endless", 12, {{"DeadlineUSec", {std::uint64_t{UINT64_MAX}}}})});
  const auto first_after = [&](const char* key) {
    EXPECT_EQ(screen_.on_key(key), TopScreen::Answer::kDraw);
    return ids().front();
  };

  EXPECT_EQ(ids().front(), "large");
  EXPECT_EQ(first_after("P"), "busy");
  EXPECT_EQ(first_after("T"), "hurried");
  EXPECT_EQ(ids().back(), "endless");
  EXPECT_EQ(first_after("N"), "small");
  EXPECT_EQ(first_after("I"), "busy");
  EXPECT_EQ(first_after("R"), "small");
  EXPECT_EQ(first_after("R"), "busy");
  EXPECT_EQ(first_after(">"), "large");  // From the last order on to the first.
  EXPECT_EQ(first_after("<"), "busy");
}

TEST_F(AScreen, ScrollsWithinItsRows) {
  std::vector<Dict> runs;
  for (int i = 0; i < 30; ++i) runs.push_back(run("job-" + std::to_string(100 + i), 1));
  list(std::move(runs));
  const auto first = [&] { return draw(120, 14).at(3).substr(0, 7); };

  EXPECT_EQ(first(), "job-100");
  screen_.on_key("\x1b[A");
  EXPECT_EQ(first(), "job-100");
  screen_.on_key("\x1b[B");
  EXPECT_EQ(first(), "job-101");
  screen_.on_key("\x1b[6~");
  EXPECT_EQ(first(), "job-111");
  EXPECT_THAT(draw(120, 14).back(), HasSubstr("12 to 21 of 30"));
  screen_.on_key("\x1b[F");
  EXPECT_EQ(first(), "job-120");
  list({run("job-1", 1), run("job-2", 1)});
  EXPECT_EQ(draw(120, 14).at(3).substr(0, 5), "job-1");
}

TEST_F(AScreen, HelpsQuitsAndIgnoresWhatIsNoKeyOfIts) {
  EXPECT_EQ(screen_.on_key("h"), TopScreen::Answer::kDraw);
  EXPECT_THAT(draw().at(2), HasSubstr("sort by memory"));
  EXPECT_EQ(screen_.on_key("x"), TopScreen::Answer::kDraw);  // Any key leads back.
  EXPECT_THAT(draw().at(2), HasSubstr("STATE"));
  EXPECT_EQ(screen_.on_key("x"), TopScreen::Answer::kNothing);
  EXPECT_EQ(screen_.on_key(" "), TopScreen::Answer::kLook);
  EXPECT_EQ(screen_.on_key("q"), TopScreen::Answer::kQuit);
}

TEST_F(AScreen, IsATableWhereThereIsNoTerminal) {
  list({run("job", 1024), run("free", 1, {{"MemoryLimit", {std::uint64_t{UINT64_MAX}}}})});

  const std::string text = screen_.to_text(true, now());

  EXPECT_THAT(text, HasSubstr("\n\nID   STATE   REASON MEMORY LIMIT MEM% CPU% PROCS RUNTIME LEFT\n"
                              "job  running -      1G     2G    50.0 10.0 3     10min   50min\n"
                              "free running -      1M     none  -    10.0 3     10min   50min\n"));
  EXPECT_THAT(screen_.to_text(false, now()), StartsWith("job  running"));
}

TEST(ABar, IsAsFullAsItSays) {
  EXPECT_EQ(bar(0, 4, TopScreen::Bars::kUnicode), "····");
  EXPECT_EQ(bar(0.5, 4, TopScreen::Bars::kUnicode), "██··");
  EXPECT_EQ(bar(0.53125, 4, TopScreen::Bars::kUnicode), "██▏·");
  EXPECT_EQ(bar(7, 4, TopScreen::Bars::kUnicode), "████");
  EXPECT_EQ(bar(-1, 4, TopScreen::Bars::kUnicode), "····");
  EXPECT_EQ(bar(0.0 / 0.0, 4, TopScreen::Bars::kUnicode), "····");
  EXPECT_EQ(bar(0.5, 6, TopScreen::Bars::kAscii), "[||  ]");
  EXPECT_EQ(bar(0.5, 2, TopScreen::Bars::kAscii), "");
}

TEST(Keys, AreTakenApart) {
  EXPECT_THAT(parse_keys("qM"), ElementsAre("q", "M"));
  EXPECT_THAT(parse_keys("\x1b[A\x1b[6~\x1bOBx"), ElementsAre("\x1b[A", "\x1b[6~", "\x1bOB", "x"));
  EXPECT_THAT(parse_keys("\x1b"), ElementsAre("\x1b"));
  EXPECT_THAT(parse_keys("\x1b[1;5"), ElementsAre("\x1b[1;5"));  // Cut off: no key, and no other either.
}

}  // namespace
}  // namespace aw::cli
