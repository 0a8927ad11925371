// SPDX-License-Identifier: Apache-2.0
#include "supervise/event_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace aw::supervise {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr WallTime at(std::int64_t seconds) { return WallTime(std::chrono::seconds(seconds)); }
constexpr std::int64_t kDaySeconds = 24 * 60 * 60;

class AHistory : public ::testing::Test {
 protected:
  void add(WallTime when, const std::string& analysis, EventKind kind, std::optional<Reason> reason = std::nullopt) {
    EventRecord event;
    event.event_id = std::to_string(++last_);
    event.occurred_at = when;
    event.registered_as = analysis;
    event.kind = kind;
    event.reason = reason;
    event.uid = uid;
    history.add(event);
  }

  std::vector<std::string> find(const EventFilter& wanted) const {
    std::vector<std::string> ids;
    history.visit(wanted, [&ids](const EventRecord& event) {
      ids.push_back(event.event_id);
      return true;
    });
    return ids;
  }

  static EventFilter last(std::size_t limit) {
    EventFilter newest;
    newest.limit = limit;
    return newest;
  }

  EventHistory history;
  EventFilter filter;
  std::optional<std::uint32_t> uid;

 private:
  unsigned last_ = 0;
};

class ADayOfEvents : public AHistory {
 protected:
  ADayOfEvents() {
    add(at(10), "a", EventKind::kRegistered);
    add(at(20), "b", EventKind::kRegistered);
    add(at(30), "a", EventKind::kEnding, Reason::kMemory);
    add(at(40), "a", EventKind::kEnded, Reason::kMemory);
    add(at(50), "b", EventKind::kEnded, Reason::kExited);
  }
};

TEST_F(AHistory, OfNothingHasNothing) {
  EXPECT_THAT(find({}), IsEmpty());
  EXPECT_EQ(history.kills_last_24h(at(0)), 0);
}

TEST_F(ADayOfEvents, IsToldNewestFirst) { EXPECT_THAT(find({}), ElementsAre("5", "4", "3", "2", "1")); }

TEST_F(ADayOfEvents, IsToldUpToALimit) {
  EXPECT_THAT(find(last(2)), ElementsAre("5", "4"));
  EXPECT_THAT(find(last(0)), IsEmpty());
}

TEST_F(ADayOfEvents, IsToldFromATimeOnThatTimeIncluded) {
  filter.since = at(40);

  EXPECT_THAT(find(filter), ElementsAre("5", "4"));
}

TEST_F(ADayOfEvents, IsToldOfOneAnalysis) {
  filter.analysis_id = "b";

  EXPECT_THAT(find(filter), ElementsAre("5", "2"));
}

TEST_F(ADayOfEvents, IsToldOfOneReason) {
  filter.reason = Reason::kMemory;

  EXPECT_THAT(find(filter), ElementsAre("4", "3"));
}

TEST_F(ADayOfEvents, IsToldOfOneKind) {
  filter.kind = EventKind::kRegistered;

  EXPECT_THAT(find(filter), ElementsAre("2", "1"));
}

TEST_F(ADayOfEvents, IsToldOfWhatMeetsAllConditions) {
  filter.analysis_id = "b";
  filter.reason = Reason::kMemory;

  EXPECT_THAT(find(filter), IsEmpty());
}

TEST_F(ADayOfEvents, CountsTowardsTheLimitOnlyWhatTheReaderMaySee) {
  uid = 1000;
  add(at(60), "a", EventKind::kRegistered);
  uid = 1001;
  add(at(70), "b", EventKind::kRegistered);
  filter = last(2);
  filter.visible = [](const std::optional<std::uint32_t>& whose) { return whose != 1001; };

  EXPECT_THAT(find(filter), ElementsAre("6", "5"));
}

TEST_F(ADayOfEvents, IsToldUntilTheReaderHasEnough) {
  std::size_t told = 0;

  history.visit(filter, [&told](const EventRecord&) { return ++told < 3; });

  EXPECT_EQ(told, 3);
}

TEST_F(AHistory, RemembersTheNewestOfTooMany) {
  for (std::size_t i = 0; i < EventHistory::kCapacity + 5; ++i) {
    add(at(static_cast<std::int64_t>(i)), "a", EventKind::kRegistered);
  }

  const auto all = find(last(2 * EventHistory::kCapacity));

  EXPECT_EQ(all.size(), EventHistory::kCapacity);
  EXPECT_EQ(all.back(), "6");
}

TEST_F(AHistory, ThatIsFullOfOneUidsEventsKeepsThoseOfOthers) {
  uid = 1001;
  for (int i = 0; i < 10; ++i) add(at(i), "quiet", EventKind::kEnded, Reason::kExited);
  uid = std::nullopt;
  add(at(10), "", EventKind::kDaemonStarted);
  uid = 1000;
  for (std::size_t i = 0; i < 2 * EventHistory::kCapacity; ++i) add(at(20), "loud", EventKind::kExtended);
  uid = 1001;
  add(at(30), "quiet", EventKind::kEnded, Reason::kExited);

  EXPECT_EQ(find(last(2 * EventHistory::kCapacity)).size(), EventHistory::kCapacity);
  filter.analysis_id = "quiet";
  EXPECT_THAT(find(filter), ElementsAre("20012", "10", "9", "8", "7", "6", "5", "4", "3", "2", "1"));
  filter.analysis_id = "";
  EXPECT_THAT(find(filter), ElementsAre("11"));
  filter = last(1);
  filter.analysis_id = "loud";
  EXPECT_THAT(find(filter), ElementsAre("20011")) << "of its own the newest";
}

TEST_F(AHistory, ThatIsFullSharesWhatThereIsAmongThoseWhoWantMuch) {
  for (std::size_t i = 0; i < 2 * EventHistory::kCapacity; ++i) {
    uid = i % 2 == 0 ? 1000 : 1001;
    add(at(1), i % 2 == 0 ? "a" : "b", EventKind::kExtended);
  }

  filter = last(EventHistory::kCapacity);
  filter.analysis_id = "a";
  EXPECT_EQ(find(filter).size(), EventHistory::kCapacity / 2);
}

TEST_F(AHistory, CountsEveryEndThatWasNoExitAsAKill) {
  add(at(1), "a", EventKind::kEnding, Reason::kMemory);
  for (const Reason reason : {Reason::kExited, Reason::kWallClock, Reason::kMemory, Reason::kOom, Reason::kOrphaned,
                              Reason::kExternal, Reason::kRequested, Reason::kLost}) {
    add(at(2), "a", EventKind::kEnded, reason);
  }

  EXPECT_EQ(history.kills_last_24h(at(3)), 7);
}

TEST_F(AHistory, ForgetsAKillAfterADay) {
  add(at(0), "a", EventKind::kEnded, Reason::kOom);
  add(at(kDaySeconds / 2), "a", EventKind::kEnded, Reason::kOom);

  EXPECT_EQ(history.kills_last_24h(at(kDaySeconds)), 2);
  EXPECT_EQ(history.kills_last_24h(at(kDaySeconds + 1)), 1);
  EXPECT_EQ(history.kills_last_24h(at(2 * kDaySeconds)), 0);
}

TEST_F(AHistory, CountsKillsThatABusyDayHasPushedOut) {
  add(at(0), "a", EventKind::kEnded, Reason::kOom);
  for (std::size_t i = 0; i < EventHistory::kCapacity; ++i) add(at(1), "b", EventKind::kRegistered);

  filter.reason = Reason::kOom;
  EXPECT_THAT(find(filter), IsEmpty());
  EXPECT_EQ(history.kills_last_24h(at(2)), 1);
}

}  // namespace
}  // namespace aw::supervise
