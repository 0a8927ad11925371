// SPDX-License-Identifier: Apache-2.0
#include "postgres/events.h"

#include <algorithm>

#include "postgres/database_fixture.h"
#include "postgres/shipping.h"
#include "testing/records.h"

namespace aw::postgres {
namespace {

using supervise::EventRecord;
using ::testing::ElementsAre;
using testing::full_event;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::told;

/// "…-KIND…-NUMBER", so that a test can name it.
std::string uuid(char kind, int number) {
  std::string text = "00000000-0000-4000-8000-000000000000";
  text[0] = kind;
  text.back() = static_cast<char>('0' + number);
  return text;
}

WallTime at(int second) { return WallTime(std::chrono::seconds{1'800'000'000 + second}); }

/// Of run `number`, at the second `number`.
EventRecord event(int number) {
  EventRecord event = full_event(uuid('e', number));
  event.run_id = uuid('a', number);
  event.occurred_at = at(number);
  return event;
}

/// jsonb keeps no order.
EventRecord with_sorted_details(EventRecord event) {
  std::sort(event.details.begin(), event.details.end());
  return event;
}

class AStoreOfEvents : public AMigratedDatabase {
 protected:
  void SetUp() override {
    AMigratedDatabase::SetUp();
    if (!HasFatalFailure()) connection_.emplace(open());
  }

  void ship(const std::vector<EventRecord>& records) {
    std::vector<OutboxEvent> events;
    for (const EventRecord& record : records) events.push_back({++seq_, record});
    const auto shipped = insert_events(*connection_, {"node1", "ledger", 0, events});
    ASSERT_TRUE(shipped) << shipped.error().message;
    ASSERT_EQ(shipped->refused, 0U);
  }
  std::vector<EventRecord> read(const EventQuery& query) {
    auto events = read_events(*connection_, query);
    EXPECT_TRUE(events) << events.error().message;
    return events.value_or({});
  }
  std::string numbers(const EventQuery& query) {
    std::string text;
    for (const EventRecord& event : read(query)) text += event.event_id.back();
    return text;
  }

  std::optional<Connection> connection_;
  std::int64_t seq_ = 0;
};

TEST_F(AStoreOfEvents, GivesThemBackWithAllTheirFields) {
  const EventRecord whole = full_event(uuid('e', 1));
  ship({whole});

  const auto events = read({});

  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(told(with_sorted_details(events[0])), told(with_sorted_details(whole)));
}

TEST_F(AStoreOfEvents, GivesThemBackWithoutWhatIsNotThere) {
  EventRecord daemon;
  daemon.event_id = uuid('e', 1);
  daemon.occurred_at = at(1);
  daemon.host = "node1";
  daemon.kind = EventKind::kDaemonStarted;
  EventRecord unlimited = event(2);
  unlimited.memory_limit = Bytes::infinite();
  unlimited.wall_clock_limit = kForever;
  unlimited.exit_code.reset();
  unlimited.processes.clear();
  unlimited.details.clear();
  ship({daemon, unlimited});

  const auto events = read({});

  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(told(events[0]), told(unlimited));
  EXPECT_EQ(told(events[1]), told(daemon));
}

TEST_F(AStoreOfEvents, GivesThemBackWithHostileText) {
  EventRecord hostile = event(1);
  hostile.registered_as = "'); DROP TABLE watchdog_events; -- \x1b[2J\n\xF0\x9F\x9A\x80";
  hostile.cmdline = "python3 -c 'x'\n\t\\";
  hostile.details = {{"cause", std::string("\"\\\n\x01")}, {"large", std::uint64_t{1} << 62U}};
  ship({hostile});

  const auto events = read({.analysis_id = hostile.registered_as});

  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(told(events[0]), told(hostile));
  EXPECT_THAT(read({.analysis_id = std::string("a\0b", 3)}), IsEmpty());
}

TEST_F(AStoreOfEvents, IsReadNewestFirst) {
  ship({event(2), event(1), event(3)});

  EXPECT_EQ(numbers({}), "321");
  EXPECT_EQ(numbers({.limit = 2}), "32");
}

TEST_F(AStoreOfEvents, KeepsTheOrderOfTheLedgerWithinOneMoment) {
  std::vector<EventRecord> moment{event(3), event(1), event(2)};
  for (EventRecord& record : moment) record.occurred_at = at(0);
  ship(moment);

  EXPECT_EQ(numbers({}), "213");
}

TEST_F(AStoreOfEvents, IsReadByEachCondition) {
  EventRecord other = event(4);
  other.host = "node2";
  other.registered_as = "other";
  other.kind = EventKind::kEnding;
  other.reason = Reason::kWallClock;
  ship({event(1), event(2), event(3), other});

  EXPECT_EQ(numbers({.since = at(2)}), "432");
  EXPECT_EQ(numbers({.until = at(2)}), "21");
  EXPECT_EQ(numbers({.host = "node2"}), "4");
  EXPECT_EQ(numbers({.analysis_id = "nightly import"}), "321");
  EXPECT_EQ(numbers({.run_id = uuid('a', 2)}), "2");
  EXPECT_EQ(numbers({.reason = Reason::kWallClock}), "4");
  EXPECT_EQ(numbers({.kind = EventKind::kEnded}), "321");
  EXPECT_EQ(numbers({.since = at(2), .until = at(3), .host = "node1", .analysis_id = "nightly import", .limit = 1}),
            "3");
  EXPECT_EQ(numbers({.host = "nowhere"}), "");
}

TEST_F(AStoreOfEvents, LeavesOutKindsThatAreNewToThisProgram) {
  ship({event(1), event(2)});
  sql("UPDATE watchdog_events SET kind = 'frozen', reason = NULL WHERE event_id = '" + uuid('e', 2) + "'");

  EXPECT_EQ(numbers({}), "1");
}

TEST_F(AStoreOfEvents, LeavesOutWhatHappenedAtNoTime) {
  ship({event(1), event(2)});
  const std::string at_no_time =
      "UPDATE watchdog_events SET occurred_at = 'infinity' WHERE event_id = '" + uuid('e', 2) + "'";
  EXPECT_THROW(sql(at_no_time), pqxx::check_violation);
  sql("ALTER TABLE watchdog_events DROP CONSTRAINT watchdog_events_occurred_at_check");  // Whatever put it there.
  sql(at_no_time);

  EXPECT_EQ(numbers({}), "1");
}

TEST_F(ADatabase, WithoutOurTablesSaysSo) {
  Connection connection = open();

  const auto events = read_events(connection, {});

  ASSERT_FALSE(events);
  EXPECT_EQ(fault_of(events.error()), Fault::kNoSchema);
}

TEST(ASelect, HoldsNoValue) {
  const Select select = select_events({.since = at(1), .host = "a'b", .analysis_id = "id", .reason = Reason::kOom});

  EXPECT_THAT(select.sql, HasSubstr("WHERE occurred_at >= $1 AND host = $2 AND registered_as = $3 AND reason = $4"));
  EXPECT_THAT(select.sql, Not(HasSubstr("a'b")));
  EXPECT_THAT(select.parameters, ElementsAre(format_iso8601(at(1)), "a'b", "id", "oom", "100"));
}

}  // namespace
}  // namespace aw::postgres
