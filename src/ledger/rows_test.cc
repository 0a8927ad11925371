// SPDX-License-Identifier: Apache-2.0
#include "ledger/rows.h"

#include <gmock/gmock.h>

#include "ledger/migrations.h"
#include "testing/records.h"

namespace aw::ledger {
namespace {

using supervise::EventRecord;
using supervise::RunRow;
using ::testing::ElementsAre;
using testing::full_event;
using testing::full_run;
using ::testing::HasSubstr;
using testing::told;

/// A database in memory, with the tables.
class Rows : public ::testing::Test {
 protected:
  Rows() {
    auto opened = Database::open(":memory:", Database::Access::kReadWrite, 0);
    EXPECT_TRUE(opened);
    database_.emplace(std::move(*opened));
    EXPECT_TRUE(migrate(*database_));
  }

  EventRecord round_trip(const EventRecord& event) {
    auto insert = EventInsert::prepare(*database_);
    EXPECT_TRUE(insert) << insert.error().message;
    const auto inserted = insert->run(event);
    EXPECT_TRUE(inserted) << inserted.error().message;
    auto select =
        database_->prepare(std::string("SELECT ") + kEventColumns + " FROM watchdog_events ORDER BY seq DESC LIMIT 1");
    EXPECT_TRUE(select && select->step().value_or(false));
    auto read = to_event(*select);
    EXPECT_TRUE(read);
    return read.value_or(EventRecord{});
  }
  RunRow round_trip(const RunRow& row) {
    auto upsert = RunUpsert::prepare(*database_);
    EXPECT_TRUE(upsert) << upsert.error().message;
    const auto written = upsert->run(row);
    EXPECT_TRUE(written) << written.error().message;
    auto select = database_->prepare(std::string("SELECT ") + kRunColumns + " FROM watchdog_processes");
    EXPECT_TRUE(select && select->step().value_or(false));
    auto read = to_run(*select);
    EXPECT_TRUE(read);
    return read.value_or(RunRow{});
  }
  std::string column(const std::string& name) {
    return database_->read_text("SELECT " + name + " FROM watchdog_events ORDER BY seq DESC LIMIT 1").value_or("?");
  }

  std::optional<Database> database_;
};

TEST_F(Rows, GiveAnEventBackWithAllItsFields) {
  const EventRecord event = full_event("e");

  EXPECT_EQ(told(round_trip(event)), told(event));
  EXPECT_EQ(column("occurred_at"), "2026-09-21T14:13:20.123456Z");
  EXPECT_EQ(column("processes"), R"([{"pid":4711,"ppid":1,"comm":"python3","rss":1900000000,)"
                                 R"("cmdline":"python3 import.py","cpu_usec":1203000000},)"
                                 R"({"pid":4712,"ppid":4711,"comm":"sort","rss":8192,)"
                                 R"("cmdline":"sort -u","cpu_usec":40000}])");
  EXPECT_EQ(column("details ->> 'a_limit' IS NULL"), "1");
}

TEST_F(Rows, HoldWhateverAProcessIsCalled) {
  EventRecord event = full_event("e");
  event.processes = {{1, 0, std::string("a\0b", 3), Bytes(1), "\xff\n\"\x1b[2J" + std::string(1 << 20, 'x'), Span(2)}};

  const auto read = round_trip(event).processes.at(0);

  EXPECT_EQ(read.comm,
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(read.cmdline, "\xEF\xBF\xBD\n\"\x1b[2J" + std::string(1 << 20, 'x'));
  EXPECT_EQ(read.cpu, Span(2));
}

TEST_F(Rows, GiveAProcessBackThatWasWrittenWithLess) {
  (void)round_trip(full_event("e"));
  ASSERT_TRUE(database_->execute("UPDATE watchdog_events SET processes = '[{\"pid\":7,\"comm\":\"sh\",\"rss\":9}]'"));

  auto select = database_->prepare(std::string("SELECT ") + kEventColumns + " FROM watchdog_events");
  ASSERT_TRUE(select && select->step().value_or(false));
  const auto processes = to_event(*select)->processes;

  ASSERT_EQ(processes.size(), 1U);
  EXPECT_EQ(processes[0].pid, 7);
  EXPECT_EQ(processes[0].resident, Bytes(9));
  EXPECT_EQ(processes[0].cmdline, "");
}

TEST_F(Rows, GiveAnEventOfTheDaemonsBack) {
  EventRecord event;
  event.event_id = "d";
  event.kind = EventKind::kDaemonStarted;

  EXPECT_EQ(told(round_trip(event)), told(event));
  EXPECT_EQ(column("run_id IS NULL AND registered_as = '' AND memory_limit_bytes IS NULL"), "1");
}

TEST_F(Rows, HoldNoLimitAsNull) {
  EventRecord event = full_event("e");
  event.memory_limit = Bytes::infinite();
  event.wall_clock_limit = kForever;

  EXPECT_EQ(told(round_trip(event)), told(event));
  EXPECT_EQ(column("memory_limit_bytes IS NULL AND wall_clock_limit_usec IS NULL"), "1");
}

TEST_F(Rows, TakeASizeBeyond63BitsForNoLimit) {
  EventRecord event = full_event("e");
  event.memory_limit = Bytes(std::uint64_t{1} << 63U);

  EXPECT_EQ(round_trip(event).memory_limit, Bytes::infinite());
}

TEST_F(Rows, KeepWhatAnAnalysisMayBeCalled) {
  for (const std::string& id : {std::string("'); DROP TABLE watchdog_events; --"), std::string("../../etc/passwd"),
                                std::string("\"}],\"x\":[{\""), std::string("-"), std::string("%s%n"),
                                std::string("\u202Egnp.exe"), std::string("\U0001F4A5"), std::string(255, 'x')}) {
    EventRecord event = full_event(id);
    event.registered_as = id;
    event.comm = id;
    event.processes = {{1, 2, id, Bytes(3)}};
    event.details = {{id, id}};

    EXPECT_EQ(told(round_trip(event)), told(event));
  }
}

TEST_F(Rows, KeepALongCommandLineWithNewlinesAndEscapes) {
  EventRecord event = full_event("e");
  event.cmdline = "sh -c\n\x1b[31mred\t" + std::string(1024 * 1024, 'x') + "\n";

  EXPECT_EQ(told(round_trip(event)), told(event));
}

TEST_F(Rows, ReplaceWhatIsNoText) {
  EventRecord event = full_event("e");
  event.cmdline = std::string("a\0b\xff\xc3", 5);
  event.comm = "\xed\xa0\x80";  // A surrogate.
  event.processes = {{1, 2, "\xff", Bytes(3)}};
  event.details = {{"cau\xffse", std::string("\xff")}};

  const EventRecord read = round_trip(event);

  EXPECT_EQ(read.cmdline, "a\uFFFDb\uFFFD\uFFFD");
  EXPECT_EQ(read.comm, "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(read.processes.at(0).comm, "\uFFFD");
  EXPECT_EQ(read.details.at(0).first, "cau\uFFFDse");
  EXPECT_EQ(std::get<std::string>(read.details.at(0).second), "\uFFFD");
}

TEST_F(Rows, HoldAnEventOnceHoweverOftenItIsWritten) {
  (void)round_trip(full_event("e"));
  EventRecord again = full_event("e");
  again.comm = "other";

  EXPECT_EQ(round_trip(again).comm, "python3");
  EXPECT_EQ(database_->read_number("SELECT count(*) FROM watchdog_events").value_or(-1), 1);
}

TEST_F(Rows, DoNotHideAnotherConstraint) {
  ASSERT_TRUE(database_->execute("CREATE UNIQUE INDEX test_only ON watchdog_events (comm)"));
  (void)round_trip(full_event("e"));
  auto insert = EventInsert::prepare(*database_);
  ASSERT_TRUE(insert);

  const auto refused = insert->run(full_event("f"));

  ASSERT_FALSE(refused);
  EXPECT_EQ(trouble_of(refused.error().code), Trouble::kRefused);
  EXPECT_THAT(refused.error().message, HasSubstr("comm"));
}

TEST_F(Rows, GiveARunBackWithAllItsFields) {
  const RunRow row = full_run("r");

  EXPECT_EQ(round_trip(row), row);
}

TEST_F(Rows, GiveARunBackThatHasNoLimits) {
  RunRow row = full_run("r");
  row.owner.reset();
  row.limits = {};
  row.limits.memory = Bytes::infinite();
  row.limits.wall_clock = kForever;
  row.limits.grace = kForever;
  row.deadline_at.reset();
  row.deadline = kNever;

  EXPECT_EQ(round_trip(row), row);
  row.limits.headroom = Bytes::infinite();
  EXPECT_EQ(round_trip(row), row);
}

TEST_F(Rows, SayWhichAnalysisAsLongAsItIsKnown) {
  (void)round_trip(full_event("before"));
  EXPECT_EQ(column("analysis_id IS NULL AND registered_as = 'nightly import'"), "1");

  ASSERT_TRUE(database_->execute("INSERT INTO analyses VALUES ('nightly import', 'now')"));

  (void)round_trip(full_event("after"));
  EXPECT_EQ(column("analysis_id"), "nightly import");
}

TEST(AnIso8601Time, IsReadAsItIsWritten) {
  for (const std::int64_t usec : {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1},
                                  std::int64_t{1'790'000'000'123'456}, std::int64_t{253'402'300'799'999'999}}) {
    const WallTime time{Span(usec)};
    EXPECT_EQ(parse_iso8601(format_iso8601(time)), time) << usec;
  }
  for (const char* text : {"", "2026-09-21T14:13:20Z", "2026-09-21 14:13:20.123456Z", "2026-09-21T14:13:20.123456+",
                           "20x6-09-21T14:13:20.123456Z"}) {
    EXPECT_EQ(parse_iso8601(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace aw::ledger
