// SPDX-License-Identifier: Apache-2.0
#include "cli/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/advise.h"
#include "cli/report.h"

namespace aw::cli {
namespace {

using bus::Dict;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr std::uint64_t kMinute = 60'000'000;

Dict event(const std::string& run, const std::string& kind, const std::string& reason = "", Dict more = {}) {
  Dict dict{{"registered_as", {std::string("job")}}, {"run_id", {run}}, {"kind", {kind}}, {"occurred_at", {kMinute}}};
  if (!reason.empty()) dict.emplace_back("reason", bus::Value{reason});
  for (auto& entry : more) dict.push_back(std::move(entry));
  return dict;
}

Dict end(const std::string& run, const std::string& reason, Bytes memory, std::uint64_t minutes) {
  return event(run, "ended", reason,
               {{"memory_bytes", {memory.count()}},
                {"memory_limit_bytes", {kGiB.count()}},
                {"wall_clock_limit_usec", {30 * kMinute}},
                {"duration_usec", {minutes * kMinute}},
                {"escalated", {false}}});
}

/// A run that was ended for its memory, after one that needed more and one that was ended as well; newest first.
std::vector<Dict> a_history() {
  Dict process{{"pid", {std::int64_t{42}}},
               {"ppid", {std::int64_t{1}}},
               {"comm", {std::string("py\nthon")}},
               {"rss", {kGiB.count()}}};
  return {end("c", "memory", kGiB, 3),
          event("c", "ending", "memory",
                {{"processes", {std::vector<Dict>{process}}},
                 {"details", {Dict{{"cause", {std::string("unreclaimable memory passed the limit")}}}}}}),
          event("c", "registered", "", {{"pid", {std::int64_t{42}}}, {"cmdline", {std::string("python x\x1b[2J")}}}),
          end("b", "exited", kGiB + kGiB, 10),
          event("b", "registered", "", {{"details", {Dict{{"label_team", {std::string("astro")}}}}}}),
          end("a", "wall-clock", kMiB, 30)};
}

TEST(AStory, IsThatOfTheLastRun) {
  const auto story = find_story(a_history());

  ASSERT_TRUE(story);
  EXPECT_THAT(story->events, SizeIs(3));
  EXPECT_EQ(text_of(story->events.front(), "kind"), "registered");
  EXPECT_THAT(story->ends, SizeIs(2));
  EXPECT_FALSE(find_story({}));
  EXPECT_FALSE(find_story({event("", "daemon-started")}));
}

TEST(AStory, TellsWhyWhatAndWhatToChange) {
  const std::string text = explain_text(*find_story(a_history()));

  EXPECT_THAT(text, HasSubstr("job was ended: memory: it used 1G of its limit of 1G"));
  EXPECT_THAT(text, HasSubstr("registered: pid 42, python x\\x1b[2J"));
  EXPECT_THAT(text, HasSubstr("unreclaimable memory passed the limit"));
  EXPECT_THAT(text, HasSubstr("py\\x0athon"));
  EXPECT_THAT(text, HasSubstr("--memory=2304M: other runs of this name"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(AStory, IsTheSameAsJson) {
  const Json json = explain_json(*find_story(a_history()));

  EXPECT_EQ(json["run_id"], "c");
  EXPECT_EQ(json["reason"], "memory");
  EXPECT_TRUE(json["ended"]);
  EXPECT_EQ(json["events"].size(), 3U);
  EXPECT_EQ(json["suggestions"][0]["option"], "--memory");
}

TEST(AStory, OfALiveRunHasNoEndAndNothingToChange) {
  const auto story = find_story({event("a", "registered")});

  EXPECT_THAT(explain_text(*story), HasSubstr("job has not ended."));
  EXPECT_TRUE(explain_json(*story)["reason"].is_null());
  EXPECT_THAT(suggest(*story), IsEmpty());
}

TEST(AStory, SuggestsWhatTheEndWasFor) {
  const auto first = [](const std::vector<Dict>& events) { return suggest(*find_story(events)).at(0); };

  EXPECT_EQ(first({end("a", "memory", kGiB, 1)}).value, "1536M");  // No history: half as much again.
  EXPECT_EQ(first({end("a", "oom", kMiB, 1)}).option, "--memory");
  EXPECT_EQ(first({end("a", "wall-clock", kMiB, 30)}).value, "1h");
  EXPECT_EQ(first({end("b", "wall-clock", kMiB, 30), end("a", "exited", kMiB, 100)}).value, "2h 15min");
  EXPECT_EQ(first({end("a", "orphaned", kMiB, 1)}).option, "--orphans");
  EXPECT_EQ(first({end("a", "external", kMiB, 1)}).option, "");
  EXPECT_THAT(suggest(*find_story({end("a", "exited", kMiB, 1)})), IsEmpty());
}

TEST(RoundingUp, GivesWhatOneWouldWrite) {
  EXPECT_EQ(round_up(Bytes(1)), kMiB);
  EXPECT_EQ(round_up(kGiB), kGiB);
  EXPECT_EQ(round_up(kGiB + Bytes(1)), kGiB + kGiB / 8);
  EXPECT_EQ(round_up(Span(1)), std::chrono::seconds{1});
  EXPECT_EQ(round_up(std::chrono::seconds{61}), std::chrono::minutes{2});
  EXPECT_EQ(round_up(std::chrono::minutes{61}), std::chrono::minutes{75});
}

TEST(TheSpread, IsOfWhatWasReallyThere) {
  EXPECT_EQ(spread_of({7}).median, 7U);
  std::vector<std::uint64_t> hundred;
  for (std::uint64_t i = 100; i > 0; --i) hundred.push_back(i);
  EXPECT_EQ(spread_of(hundred).median, 50U);
  EXPECT_EQ(spread_of(hundred).p95, 95U);
  EXPECT_EQ(spread_of(hundred).most, 100U);
}

TEST(Advice, IsForTheRunsThatMatch) {
  const auto all = advise(a_history(), {.id = "jo*"});
  ASSERT_TRUE(all);
  EXPECT_EQ(all->runs, 3U);
  EXPECT_EQ(all->reasons.at("memory"), 1U);
  EXPECT_EQ(all->memory->most, 2 * kGiB.count());
  EXPECT_EQ(all->suggestions.at(0).value, "3G");  // One was ended at its limit: half as much again.
  EXPECT_EQ(all->suggestions.at(1).value, "1h");

  const auto labelled = advise(a_history(), {.label = {{"team", "astro"}}});
  ASSERT_TRUE(labelled);
  EXPECT_EQ(labelled->runs, 1U);
  EXPECT_EQ(labelled->suggestions.at(0).value, "2304M");
  EXPECT_EQ(advice_json(*labelled)["memory_bytes"]["max"], 2 * kGiB.count());
  EXPECT_THAT(advice_text(*labelled), HasSubstr("1 run has ended: 1 exited"));

  EXPECT_FALSE(advise(a_history(), {.id = "other"}));
}

}  // namespace
}  // namespace aw::cli
