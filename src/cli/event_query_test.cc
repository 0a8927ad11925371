// SPDX-License-Identifier: Apache-2.0
#include "cli/event_query.h"

#include <gmock/gmock.h>

#include "cli/report.h"

namespace aw::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr WallTime kNow = WallTime(std::chrono::seconds(1'700'000'000));

/// What `options` leave of events at the seconds `newest_first`, as the daemon sends them.
std::vector<std::uint64_t> narrowed(const EventOptions& options, const std::vector<std::uint64_t>& newest_first) {
  std::vector<bus::Dict> events;
  for (const std::uint64_t second : newest_first) events.push_back({{"occurred_at", {second * 1'000'000}}});
  narrow(events, parse_event_query(options, kNow).value());
  std::vector<std::uint64_t> left;
  for (const bus::Dict& event : events) left.push_back(number_of(event, "occurred_at").value() / 1'000'000);
  return left;
}

std::uint64_t asked_limit(const EventOptions& options) {
  return number_of(to_filter(parse_event_query(options, kNow).value()), "Limit").value();
}

TEST(AnEventQuery, AsksForNoMoreThanItsLimit) {
  EXPECT_EQ(asked_limit({.limit = 7}), 7U);
  EXPECT_EQ(asked_limit({.since = "-1h", .limit = 7}), 7U);
}

TEST(AnEventQuery, AsksForAllThatThereAreWhenTheNewestAreNotWanted) {
  EXPECT_EQ(asked_limit({.until = "-1h", .limit = 7}), kMostEvents);
}

TEST(AnEventQuery, CountsItsLimitFromUntilBackwards) {
  EXPECT_THAT(narrowed({.until = "@40", .limit = 2}, {90, 80, 70, 40, 30, 20, 10}), ElementsAre(40, 30));
  EXPECT_THAT(narrowed({.until = "@40", .limit = 100}, {90, 40, 30}), ElementsAre(40, 30));
  EXPECT_THAT(narrowed({.until = "@5", .limit = 100}, {90, 40, 30}), IsEmpty());
}

TEST(AnEventQuery, IsWhatListEventsTakes) {
  const auto query = parse_event_query({.since = "@40", .id = "a", .reason = "oom", .kind = "ended"}, kNow);

  EXPECT_EQ(to_filter(query.value()), (bus::Dict{{"Since", {std::uint64_t{40'000'000}}},
                                                 {"AnalysisId", {std::string("a")}},
                                                 {"Reason", {std::string("oom")}},
                                                 {"Kind", {std::string("ended")}},
                                                 {"Limit", {std::uint32_t{100}}}}));
}

TEST(AnEventQuery, LeavesOtherRunsOut) {
  std::vector<bus::Dict> events{{{"run_id", {std::string("b")}}}, {{"run_id", {std::string("a")}}}};

  narrow(events, {.run_id = "a"});

  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(text_of(events[0], "run_id"), "a");
}

TEST(AnEventQuery, NamesTheOptionThatIsWrong) {
  const auto said = [](const EventOptions& options) { return parse_event_query(options, kNow).error().message; };

  EXPECT_THAT(said({.since = "soon"}), HasSubstr("--since"));
  EXPECT_THAT(said({.until = "soon"}), HasSubstr("--until"));
  EXPECT_THAT(said({.reason = "boredom"}), HasSubstr("there are exited"));
  EXPECT_THAT(said({.kind = "party"}), HasSubstr("there are registered"));
}

}  // namespace
}  // namespace aw::cli
