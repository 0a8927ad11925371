// SPDX-License-Identifier: Apache-2.0
#include "postgres/shipping.h"

#include <algorithm>
#include <thread>

#include "postgres/database_fixture.h"
#include "supervise/limit_details.h"

namespace aw::postgres {
namespace {

using namespace std::string_literals;
using supervise::EventRecord;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kHost[] = "node-1";
constexpr char kLedger[] = "ledger-a";
constexpr char kBoot[] = "b0070000-0000-4000-8000-000000000001";
constexpr std::int64_t kMinute = 60'000'000;

/// "…-KIND…-NUMBER", so that a test can name it.
std::string uuid(char kind, int number) {
  std::string text = "00000000-0000-4000-8000-000000000000";
  const std::string digits = std::to_string(number);
  text[0] = kind;
  text.replace(text.size() - digits.size(), digits.size(), digits);
  return text;
}
std::string run_id(int run) { return uuid('a', run); }

/// Of an event: no two in this program have the same.
int next_number() {
  static int number = 0;
  return ++number;
}

/// A host that writes events.
class Host {
 public:
  explicit Host(std::string name = kHost) : name_(std::move(name)) {}

  EventRecord& add(EventKind kind, int run = 1, const std::string& id = "survey") {
    OutboxEvent event;
    event.seq = ++seq_;
    EventRecord& record = event.record;
    record.event_id = uuid('e', next_number());
    record.occurred_at = WallTime(Span(1'800'000'000'000'000 + seq_ * 1'000'000));
    record.host = name_;
    record.boot_id = kBoot;
    record.kind = kind;
    if (kind != EventKind::kDaemonStarted && kind != EventKind::kDaemonStopped) {
      record.run_id = run_id(run);
      record.registered_as = id;
      record.unit = "analysis-" + id + ".scope";
      record.pid = 4711;
      record.comm = "python3";
      record.cmdline = "python3 survey.py";
      record.uid = 1000;
      record.memory_limit = kGiB;
      record.wall_clock_limit = Span(30 * kMinute);
      record.duration = Span(0);
    }
    if (kind == EventKind::kEnded || kind == EventKind::kEnding) record.reason = Reason::kMemory;
    events_.push_back(std::move(event));
    return events_.back().record;
  }

  Batch batch(std::int64_t after = 0) const { return {name_, kLedger, after, events_}; }
  std::vector<OutboxEvent>& events() { return events_; }

 private:
  std::string name_;
  std::int64_t seq_ = 0;
  std::vector<OutboxEvent> events_;
};

class AShipment : public AMigratedDatabase {
 protected:
  void SetUp() override {
    AMigratedDatabase::SetUp();
    if (HasFatalFailure()) return;
    connection_.emplace(open());
  }

  /// From here on it goes on without what somebody else has locked, soon.
  void have_little_patience() {
    target_.lock_timeout = std::chrono::milliseconds{200};
    connection_.emplace(open());
  }

  Shipped ship(const Host& host, std::int64_t after = 0) {
    auto shipped = insert_events(*connection_, host.batch(after));
    EXPECT_TRUE(shipped) << shipped.error().message;
    return shipped ? *shipped : Shipped{};
  }
  /// A host application makes `analyses` its own: from here on it gets no rows from us.
  void take_analyses_over() { sql("ALTER TABLE analyses ADD COLUMN title text"); }
  std::string process(const std::string& columns) { return value("SELECT " + columns + " FROM watchdog_processes"); }

  std::optional<Connection> connection_;
  Host host_;
};

TEST_F(AShipment, BringsEveryFieldOfAnEvent) {
  EventRecord& end = host_.add(EventKind::kEnded);
  end.memory = Bytes(7);
  end.memory_peak = Bytes(8);
  end.memory_limit = Bytes(9);
  end.duration = Span(10);
  end.wall_clock_limit = Span(11);
  end.cpu = Span(12);
  end.signal = 15;
  end.escalated = true;
  end.exit_code = 3;
  end.exit_signal = 9;
  end.leftover_memory = Bytes(13);
  end.processes = {{100, 1, "worker", Bytes(5), "worker -n 5", Span(6)}};
  end.details = {{"cause", std::string("full")}, {"tasks", std::uint64_t{2}}, {"sure", true}};

  const Shipped shipped = ship(host_);

  EXPECT_EQ(shipped.inserted, 1U);
  EXPECT_EQ(shipped.cursor, 1);
  EXPECT_EQ(value("SET TIME ZONE 'UTC'; SELECT event_id, occurred_at, host, boot_id, run_id, analysis_id, "
                  "registered_as, kind, reason, unit, pid, comm, cmdline, uid FROM watchdog_events"),
            end.event_id + "|2027-01-15 08:00:01+00|node-1|" + kBoot + "|" + run_id(1) +
                "|-|survey|ended|memory|analysis-survey.scope|4711|python3|python3 survey.py|1000");
  EXPECT_EQ(value("SELECT memory_bytes, memory_peak_bytes, memory_limit_bytes, duration_usec, wall_clock_limit_usec, "
                  "cpu_usec, signal, escalated, exit_code, exit_signal, leftover_memory_bytes, ledger_seq "
                  "FROM watchdog_events"),
            "7|8|9|10|11|12|15|t|3|9|13|1");
  EXPECT_EQ(value("SELECT processes FROM watchdog_events"),
            R"([{"pid": 100, "rss": 5, "comm": "worker", "ppid": 1, "cmdline": "worker -n 5", "cpu_usec": 6}])");
  EXPECT_EQ(value("SELECT details FROM watchdog_events"), R"({"sure": true, "cause": "full", "tasks": 2})");
}

TEST_F(AShipment, WritesNoLimitAsNull) {
  EventRecord& event = host_.add(EventKind::kRegistered);
  event.memory_limit = Bytes::infinite();
  event.wall_clock_limit = kForever;
  event.details = {{"tasks_max", UINT64_MAX}};

  ship(host_);

  EXPECT_EQ(value("SELECT memory_limit_bytes, wall_clock_limit_usec, details FROM watchdog_events"),
            R"(-|-|{"tasks_max": null})");
  EXPECT_EQ(process("memory_limit_bytes, wall_clock_limit_usec, tasks_max, deadline_at"), "-|-|-|-");
}

TEST_F(AShipment, BringsAnEventOfTheDaemonItself) {
  host_.add(EventKind::kDaemonStarted);

  EXPECT_EQ(ship(host_).inserted, 1U);
  EXPECT_EQ(value("SELECT kind, registered_as, run_id FROM watchdog_events"), "daemon-started||-");
}

TEST_F(AShipment, ThatIsRepeatedChangesNothing) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnding);
  host_.add(EventKind::kEnded);
  ship(host_);

  const Shipped again = ship(host_);

  EXPECT_EQ(again.inserted, 0U);
  EXPECT_EQ(again.repeated, 3U);
  EXPECT_EQ(again.cursor, 3);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "3");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
}

TEST_F(AShipment, ThatIsRepeatedUnderAnotherLedgerIdChangesNothingEither) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnded);
  ship(host_);
  Batch batch = host_.batch();
  batch.ledger_id = "ledger-b";

  const auto again = insert_events(*connection_, batch);

  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->repeated, 2U);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "2");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_shipping"), "2");
}

TEST_F(AShipment, AddsOnlyWhatIsNewToWhatWasThere) {
  host_.add(EventKind::kRegistered);
  ship(host_);
  host_.add(EventKind::kEnding);
  host_.add(EventKind::kEnded);

  const Shipped more = ship(host_, 1);

  EXPECT_EQ(more.inserted, 2U);
  EXPECT_EQ(more.repeated, 1U);
  EXPECT_EQ(read_cursor(*connection_, kHost, kLedger).value(), 3);
}

TEST_F(AShipment, IsSentBackToWhereADatabaseThatWasRestoredLeftOff) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnding);
  ship(host_);
  sql("UPDATE watchdog_shipping SET last_seq = 1");
  host_.add(EventKind::kEnded);

  const Shipped shipped = ship(host_, 2);

  EXPECT_EQ(shipped.outcome, Shipped::Outcome::kRewound);
  EXPECT_EQ(shipped.cursor, 1);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "2");
}

TEST_F(AShipment, OfManyAtOnceBringsEachEventOnce) {
  for (int run = 1; run <= 40; ++run) {
    host_.add(EventKind::kRegistered, run);
    host_.add(EventKind::kEnded, run);
  }
  std::vector<std::thread> shippers;
  for (int i = 0; i < 4; ++i) {
    shippers.emplace_back([this] {
      Connection connection = open();
      for (std::size_t end = 10; end <= host_.events().size(); end += 10) {
        Batch batch = host_.batch();
        batch.events = batch.events.first(end);
        EXPECT_TRUE(insert_events(connection, batch));
      }
    });
  }
  for (std::thread& shipper : shippers) shipper.join();

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "80");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
  EXPECT_EQ(value("SELECT last_seq FROM watchdog_shipping"), "80");
}

// --- the analysis that an event belongs to ---

TEST_F(AShipment, OfAKnownAnalysisIsLinkedToIt) {
  sql("INSERT INTO analyses VALUES ('survey')");
  host_.add(EventKind::kRegistered);

  ship(host_);

  EXPECT_EQ(value("SELECT analysis_id, registered_as FROM watchdog_events"), "survey|survey");
  EXPECT_EQ(process("analysis_id"), "survey");
}

TEST_F(AShipment, OfAnUnknownAnalysisArrivesWithoutIt) {
  take_analyses_over();
  host_.add(EventKind::kRegistered);

  EXPECT_EQ(ship(host_).inserted, 1U);
  EXPECT_EQ(value("SELECT analysis_id, registered_as FROM watchdog_events"), "-|survey");
  EXPECT_EQ(process("analysis_id"), "-");
  EXPECT_EQ(value("SELECT count(*) FROM analyses"), "0");
}

TEST_F(AShipment, OutlivesTheAnalysis) {
  sql("INSERT INTO analyses VALUES ('survey')");
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnding);
  ship(host_);

  sql("DELETE FROM analyses");

  EXPECT_THAT(sql("SELECT analysis_id, registered_as FROM watchdog_events"), ElementsAre("-|survey", "-|survey"));
  EXPECT_EQ(process("analysis_id, registered_as"), "-|survey");
}

TEST_F(AShipment, OfAnAnalysisThatIsDeletedMeanwhileArrives) {
  take_analyses_over();
  sql("INSERT INTO analyses VALUES ('survey')");
  host_.add(EventKind::kRegistered);
  pqxx::connection application(target_.uri);
  pqxx::work deletion(application);
  deletion.exec("DELETE FROM analyses");

  Shipped shipped;
  std::thread shipper([&] { shipped = ship(host_); });
  EXPECT_TRUE(somebody_waits_for_a_lock());
  deletion.commit();
  shipper.join();

  EXPECT_EQ(shipped.inserted, 1U);
  EXPECT_EQ(shipped.unlinked, 0U);
  EXPECT_EQ(value("SELECT analysis_id, registered_as FROM watchdog_events"), "-|survey");
}

TEST_F(AShipment, OfALockedAnalysisDoesNotWaitForItAndIsLinkedLater) {
  have_little_patience();
  take_analyses_over();
  sql("INSERT INTO analyses VALUES ('survey'), ('free')");
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kRegistered, 2, "free");
  host_.add(EventKind::kRegistered, 3, "unknown");
  pqxx::connection application(target_.uri);
  pqxx::work queue(application);
  queue.exec("SELECT * FROM analyses WHERE id = 'survey' FOR UPDATE");

  const Shipped shipped = ship(host_);

  EXPECT_EQ(shipped.inserted, 3U);
  EXPECT_EQ(shipped.unlinked, 2U);
  const Linked some = link_events(*connection_, kHost).value();
  EXPECT_EQ(some.linked, 1U);
  EXPECT_EQ(some.waiting, 1U);
  // If it tried that lock again, it would wait for it until the statement's time is over, and fail.
  target_.lock_timeout = kForever;
  target_.statement_timeout = std::chrono::minutes{1};
  connection_.emplace(open());
  host_.add(EventKind::kEnding);
  EXPECT_EQ(ship(host_, 3).unlinked, 1U);
  queue.commit();
  EXPECT_EQ(link_events(*connection_, kHost).value().linked, 2U);
  EXPECT_THAT(sql("SELECT registered_as, analysis_id FROM watchdog_events ORDER BY ledger_seq"),
              ElementsAre("survey|survey", "free|free", "unknown|-", "survey|survey"));
  EXPECT_THAT(sql("SELECT registered_as, analysis_id FROM watchdog_processes ORDER BY run_id"),
              ElementsAre("survey|survey", "free|free", "unknown|-"));
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_unlinked"), "0");
}

// --- analyses, where the table is ours ---

TEST_F(AShipment, AddsTheAnalysisOfARunThatBegins) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnded);
  host_.add(EventKind::kAdopted, 2, "found running");
  host_.add(EventKind::kEnded, 3, "heard of at its end only");
  host_.add(EventKind::kDaemonStopped);

  ship(host_);

  EXPECT_THAT(sql("SELECT id FROM analyses ORDER BY id"), ElementsAre("found running", "survey"));
  EXPECT_THAT(sql("SELECT analysis_id FROM watchdog_events ORDER BY ledger_seq"),
              ElementsAre("survey", "survey", "found running", "-", "-"));
}

TEST_F(AShipment, LeavesADeletedAnalysisDeletedForTheSameRun) {
  host_.add(EventKind::kRegistered);
  ship(host_);
  sql("DELETE FROM analyses");
  host_.add(EventKind::kAdopted);
  host_.add(EventKind::kEnding);

  EXPECT_EQ(ship(host_, 1).inserted, 2U);
  Batch again = host_.batch();
  again.ledger_id = "ledger-b";
  EXPECT_TRUE(insert_events(*connection_, again));

  EXPECT_EQ(value("SELECT count(*) FROM analyses"), "0");
  EXPECT_THAT(sql("SELECT analysis_id FROM watchdog_events"), ElementsAre("-", "-", "-"));
}

TEST_F(AShipment, AddsADeletedAnalysisAgainForANewRun) {
  host_.add(EventKind::kRegistered);
  ship(host_);
  sql("DELETE FROM analyses");
  host_.add(EventKind::kEnded);
  host_.add(EventKind::kRegistered, 2);

  ship(host_, 1);

  EXPECT_THAT(sql("SELECT analysis_id FROM watchdog_events ORDER BY ledger_seq"), ElementsAre("-", "survey", "survey"));
  EXPECT_EQ(process("analysis_id"), "survey");
}

TEST_F(AShipment, AddsNothingToATableThatAHostApplicationHasTakenOver) {
  const std::string application = "application_" + database_;
  sql("CREATE ROLE " + application);
  int run = 0;
  for (const std::string& change : {std::string("ADD COLUMN title text"), "OWNER TO " + application,
                                    std::string("RENAME created_at TO begun_at")}) {
    sql("ALTER TABLE analyses " + change);
    host_.add(EventKind::kRegistered, ++run);

    EXPECT_EQ(ship(host_, run - 1).inserted, 1U) << change;
    EXPECT_EQ(value("SELECT count(*) FROM analyses"), "0") << change;
    if (change.starts_with("ADD")) sql("ALTER TABLE analyses DROP COLUMN title");
    if (change.starts_with("OWNER")) sql("ALTER TABLE analyses OWNER TO tester");
  }
  sql("ALTER TABLE analyses RENAME begun_at TO created_at");
  host_.add(EventKind::kRegistered, ++run);
  ship(host_, run - 1);
  EXPECT_EQ(value("SELECT count(*) FROM analyses"), "1");  // None of it had any other reason.
}

TEST_F(AShipment, ArrivesWhereTheAnalysisCannotBeAdded) {
  sql("ALTER TABLE analyses ADD CONSTRAINT picky CHECK (id <> 'survey')");
  host_.add(EventKind::kRegistered);

  const Shipped shipped = ship(host_);

  EXPECT_EQ(shipped.inserted, 1U);
  EXPECT_EQ(shipped.refused, 0U);
  EXPECT_EQ(value("SELECT analysis_id, registered_as FROM watchdog_events"), "-|survey");
}

TEST_F(AShipment, ArrivesWhereSomebodyElseIsAddingTheSameAnalysis) {
  have_little_patience();
  pqxx::connection other(target_.uri);
  pqxx::work addition(other);
  addition.exec("INSERT INTO analyses (id) VALUES ('survey')");
  host_.add(EventKind::kRegistered);

  EXPECT_EQ(ship(host_).inserted, 1U);

  addition.commit();
  EXPECT_EQ(value("SELECT registered_as FROM watchdog_events"), "survey");
}

TEST_F(AShipment, OfManyHostsWithNewAnalysesInCommonBringsAll) {
  std::vector<std::thread> shippers;
  for (int i = 0; i < 4; ++i) {
    shippers.emplace_back([this, i] {
      Connection connection = open();
      Host host("host-" + std::to_string(i));
      for (int run = 0; run < 50; ++run) {
        OutboxEvent event;
        event.seq = run + 1;
        event.record.event_id = uuid('d', i * 100 + run);
        event.record.occurred_at = WallTime(Span(1'800'000'000'000'000));
        event.record.host = "host-" + std::to_string(i);
        event.record.run_id = uuid('c', i * 100 + run);
        event.record.registered_as = "shared-" + std::to_string(i % 2 == 0 ? run : 49 - run);
        host.events().push_back(event);
      }
      Batch batch = host.batch();
      for (std::size_t done = 0; done < host.events().size(); done += 10) {
        batch.events = std::span(host.events()).subspan(done, 10);
        batch.after = static_cast<std::int64_t>(done);
        const auto shipped = insert_events(connection, batch);
        EXPECT_TRUE(shipped) << shipped.error().message;
      }
    });
  }
  for (std::thread& shipper : shippers) shipper.join();

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "200");
  EXPECT_EQ(value("SELECT count(*) FROM analyses"), "50");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events WHERE analysis_id IS NULL"), "0");
}

TEST_F(AShipment, AddsAnalysesWithTheWritersGrants) {
  const std::string writer = "writer_" + database_;
  sql("CREATE ROLE " + writer + " LOGIN; GRANT SELECT, INSERT ON watchdog_events TO " + writer +
      "; GRANT SELECT, INSERT, UPDATE, DELETE ON watchdog_processes TO " + writer +
      "; GRANT SELECT, INSERT, UPDATE ON watchdog_shipping, watchdog_refused TO " + writer +
      "; GRANT SELECT ON watchdog_unlinked, watchdog_migrations TO " + writer +
      "; GRANT SELECT (id), INSERT (id) ON analyses TO " + writer);
  target_.uri = "host=" + server_.directory().string() + " user=" + writer + " dbname=" + database_;
  connection_.emplace(open());
  host_.add(EventKind::kRegistered);

  ship(host_);

  EXPECT_EQ(process("analysis_id"), "survey");
}

TEST_F(ADatabase, WithAHostOwnedAnalysesTableOfVarcharsTakesEvents) {
  sql("CREATE TABLE analyses (title varchar(80) NOT NULL, id varchar(36) PRIMARY KEY, priority int NOT NULL)");
  sql("INSERT INTO analyses VALUES ('Survey', 'survey', 3)");
  Connection connection = open();
  ASSERT_TRUE(migrate(connection, kMigrations));
  Host host;
  host.add(EventKind::kRegistered);
  host.add(EventKind::kRegistered, 2, std::string(255, 'x'));

  const auto shipped = insert_events(connection, host.batch());

  ASSERT_TRUE(shipped) << shipped.error().message;
  EXPECT_EQ(shipped->inserted, 2U);
  EXPECT_THAT(sql("SELECT analysis_id FROM watchdog_events ORDER BY ledger_seq"), ElementsAre("survey", "-"));
  EXPECT_EQ(value("SELECT count(*) FROM analyses"), "1");
}

TEST_F(AShipment, NeedsNoMoreThanTheWritersGrants) {
  const std::string writer = "writer_" + database_;
  sql("CREATE ROLE " + writer + " LOGIN; GRANT USAGE ON SCHEMA public TO " + writer +
      "; GRANT SELECT, INSERT, UPDATE (analysis_id) ON watchdog_events TO " + writer +
      "; GRANT SELECT, INSERT, UPDATE, DELETE ON watchdog_processes TO " + writer +
      "; GRANT SELECT, INSERT, UPDATE ON watchdog_shipping, watchdog_refused TO " + writer +
      "; GRANT SELECT, INSERT, DELETE ON watchdog_unlinked TO " + writer + "; GRANT SELECT ON watchdog_migrations TO " +
      writer + "; GRANT SELECT (id) ON analyses TO " + writer);
  sql("INSERT INTO analyses VALUES ('survey')");
  const std::string superuser = target_.uri;
  target_.uri = "host=" + server_.directory().string() + " user=" + writer + " dbname=" + database_;
  have_little_patience();
  pqxx::connection application(superuser);
  pqxx::work queue(application);
  queue.exec("SELECT * FROM analyses FOR UPDATE");
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kExtended);
  host_.add(EventKind::kEnded).boot_id = "nonsense";

  const Shipped shipped = ship(host_);
  queue.commit();

  EXPECT_EQ(shipped.inserted, 2U);
  EXPECT_EQ(shipped.refused, 1U);
  EXPECT_EQ(link_events(*connection_, kHost).value().linked, 2U);
}

// --- what the database refuses ---

TEST_F(AShipment, SetsABadEventAsideAndGoesOn) {
  for (int run = 1; run <= 20; ++run) host_.add(EventKind::kRegistered, run);
  host_.events()[6].record.run_id = "no uuid\x1b";
  host_.events()[12].record.event_id = "";

  const Shipped shipped = ship(host_);

  EXPECT_EQ(shipped.inserted, 18U);
  EXPECT_EQ(shipped.refused, 2U);
  EXPECT_EQ(shipped.cursor, 20);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "18");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "18");
  EXPECT_THAT(sql("SELECT host, ledger_id, ledger_seq, sqlstate FROM watchdog_refused ORDER BY ledger_seq"),
              ElementsAre("node-1|ledger-a|7|22P02", "node-1|ledger-a|13|22P02"));
  EXPECT_THAT(value("SELECT error FROM watchdog_refused WHERE ledger_seq = 7"), HasSubstr("uuid"));
  EXPECT_EQ(value("SELECT payload::json->>'registered_as' FROM watchdog_refused WHERE ledger_seq = 7"), "survey");
}

TEST_F(AShipment, CanSayWhatWasRefused) {
  for (int run = 1; run <= 3; ++run) host_.add(EventKind::kRegistered, run);
  host_.events()[1].record.boot_id = "nonsense";
  ship(host_);

  const auto refusals = read_refusals(*connection_, kHost, kLedger, 0, 10);

  ASSERT_TRUE(refusals) << refusals.error().message;
  ASSERT_EQ(refusals->size(), 1U);
  EXPECT_EQ(refusals->front().seq, 2);
  EXPECT_EQ(refusals->front().event_id, host_.events()[1].record.event_id);
  EXPECT_THAT(refusals->front().error, HasSubstr("nonsense"));
  EXPECT_THAT(read_refusals(*connection_, kHost, kLedger, 2, 10).value(), IsEmpty());
}

TEST_F(AShipment, OfALedgerThatWasPutBackBeginsAnew) {
  for (int run = 1; run <= 3; ++run) host_.add(EventKind::kRegistered, run);
  ship(host_);
  host_.events().resize(1);
  host_.add(EventKind::kRegistered, 4).event_id = uuid('e', next_number());
  host_.events().back().seq = 2;

  ASSERT_TRUE(reset_cursor(*connection_, kHost, kLedger));

  EXPECT_EQ(read_cursor(*connection_, kHost, kLedger).value(), 0);
  const Shipped shipped = ship(host_);
  EXPECT_EQ(shipped.repeated, 1U);
  EXPECT_EQ(shipped.inserted, 1U);
}

TEST_F(AShipment, DoesNotLetARunEndTwice) {
  host_.add(EventKind::kEnded);
  host_.add(EventKind::kEnded);

  const Shipped shipped = ship(host_);

  EXPECT_EQ(shipped.inserted, 1U);
  EXPECT_EQ(shipped.refused, 1U);
  EXPECT_EQ(value("SELECT sqlstate FROM watchdog_refused"), "23505");
}

TEST_F(AShipment, TakesARunWhoseEndIsRefusedForOver) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnded).boot_id = "nonsense";

  EXPECT_EQ(ship(host_).refused, 1U);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
}

TEST_F(AShipment, SetsNothingAsideWhereTheServerIsToBlame) {
  host_.add(EventKind::kRegistered);
  sql("ALTER DATABASE " + database_ + " SET default_transaction_read_only = on");
  target_.access = Access::kAny;
  connection_.emplace(open());

  const auto shipped = insert_events(*connection_, host_.batch());

  ASSERT_FALSE(shipped);
  EXPECT_EQ(fault_of(shipped.error()), Fault::kReadOnly) << shipped.error().message;
}

TEST_F(AShipment, KnowsEachTroubleByItsSqlstate) {
  const std::map<std::string, Fault> kExpected{
      {"40001", Fault::kBusy},     {"40P01", Fault::kBusy},     {"42501", Fault::kDenied}, {"53100", Fault::kFull},
      {"53200", Fault::kFull},     {"53300", Fault::kFull},     {"53400", Fault::kFull},   {"55006", Fault::kOther},
      {"57014", Fault::kBusy},     {"25006", Fault::kReadOnly}, {"XX001", Fault::kOther},  {"58030", Fault::kOther},
      {"42703", Fault::kNoSchema}, {"42P01", Fault::kNoSchema}, {"0A000", Fault::kOther},
  };
  for (const auto& [sqlstate, fault] : kExpected) {
    sql("CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'as told' "
        "USING ERRCODE = '" +
        sqlstate +
        "'; END $$; CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON watchdog_events EXECUTE FUNCTION fail()");
    host_.add(EventKind::kRegistered);
    connection_.emplace(open());

    const auto shipped = insert_events(*connection_, host_.batch());

    ASSERT_FALSE(shipped) << sqlstate;
    EXPECT_EQ(fault_of(shipped.error()), fault) << sqlstate << ": " << shipped.error().message;
  }
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_refused"), "0");
}

TEST_F(AShipment, IsSetAsideByItsSqlstateToo) {
  int seq = 0;
  for (const char* sqlstate :
       {"22000", "22P02", "23502", "23503", "23505", "23514", "23P01", "44000", "54000", "P0001", "P0002", "P0004"}) {
    sql("CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'as told' "
        "USING ERRCODE = '" +
        std::string(sqlstate) +
        "'; END $$; CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON watchdog_events EXECUTE FUNCTION fail()");
    host_.add(EventKind::kRegistered);

    EXPECT_EQ(ship(host_, seq++).refused, 1U) << sqlstate;
  }
}

TEST_F(AShipment, IsRefusedByASchemaThatIsNewer) {
  sql("INSERT INTO watchdog_migrations (version, name) VALUES (999, '0999_more.sql')");
  host_.add(EventKind::kRegistered);

  const auto shipped = insert_events(*connection_, host_.batch());

  ASSERT_FALSE(shipped);
  EXPECT_EQ(fault_of(shipped.error()), Fault::kNewerSchema);
  EXPECT_EQ(fault_of(read_cursor(*connection_, kHost, kLedger).error()), Fault::kNewerSchema);
}

TEST_F(ADatabase, WithoutASchemaSaysHowToMakeIt) {
  Connection connection = open();
  Host host;
  host.add(EventKind::kRegistered);

  for (const Error& error :
       {insert_events(connection, host.batch()).error(), read_cursor(connection, kHost, kLedger).error()}) {
    EXPECT_EQ(fault_of(error), Fault::kNoSchema);
    EXPECT_THAT(error.message, HasSubstr("analysisctl migrate"));
  }
}

// --- hostile texts ---

TEST_F(AShipment, KeepsHostileTextsAsTheyAreAsFarAsTextGoes) {
  EventRecord& event = host_.add(EventKind::kRegistered, 1, "'; DROP TABLE analyses; --\\");
  event.comm = "a\nb\tc\x1b[31m\"\\";
  event.cmdline = "nul\0here \xff\xc3 \xed\xa0\x80 \xef\xbf\xbe \xf0\x9f\x98\x80"s;
  event.unit = "\\u0000 {\"}";
  event.processes = {{1, 2, "x\0\xfe"s, Bytes(1), "y\0\n\x1b[31m\xfe"s, Span(0)}};
  event.details = {{"la\0bel_\xff"s, "\x01\x7f"s}};

  EXPECT_EQ(ship(host_).inserted, 1U);
  EXPECT_EQ(value("SELECT registered_as FROM watchdog_events"), "'; DROP TABLE analyses; --\\");
  EXPECT_EQ(value("SELECT comm FROM watchdog_events"), "a\nb\tc\x1b[31m\"\\");
  const std::string kept = value("SELECT cmdline FROM watchdog_events");
  EXPECT_THAT(kept, HasSubstr("nulhere \xef\xbf\xbd"));
  EXPECT_THAT(kept, HasSubstr("\xf0\x9f\x98\x80"));
  EXPECT_EQ(value("SELECT unit FROM watchdog_events"), "\\u0000 {\"}");
  EXPECT_EQ(value("SELECT processes->0->>'comm' FROM watchdog_events"), "x\xef\xbf\xbd");
  EXPECT_EQ(value("SELECT processes->0->>'cmdline' FROM watchdog_events"), "y\n\x1b[31m\xef\xbf\xbd");
  EXPECT_EQ(value("SELECT details->>E'label_\\uFFFD' FROM watchdog_events"), "\x01\x7f");
}

TEST_F(AShipment, KeepsCommandLinesOfAMegabyte) {
  for (int run = 1; run <= 40; ++run) {
    host_.add(EventKind::kRegistered, run).cmdline = std::string(1U << 20U, static_cast<char>('a' + run % 26));
  }

  EXPECT_EQ(ship(host_).inserted, 40U);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events WHERE length(cmdline) = 1048576"), "40");
}

// --- the projection ---

TEST_F(AShipment, OfARegistrationMakesARow) {
  EventRecord& event = host_.add(EventKind::kRegistered);
  event.details = {{"description", std::string("the survey")},
                   {"label_team", std::string("sky")},
                   {"grace_usec", std::uint64_t{5'000'000}},
                   {"memory_headroom_bytes", std::uint64_t{64}}};

  ship(host_);

  EXPECT_EQ(process("run_id, registered_as, host, unit, leader_pid, uid, memory_limit_bytes, memory_headroom_bytes, "
                    "wall_clock_limit_usec, grace_usec, state, boot_id, comm, cmdline, description, labels"),
            run_id(1) + "|survey|node-1|analysis-survey.scope|4711|1000|1073741824|64|1800000000|5000000|running|" +
                kBoot + "|python3|python3 survey.py|the survey|{\"team\": \"sky\"}");
  EXPECT_EQ(process("registered_at = '2027-01-15 08:00:01+00', deadline_at = '2027-01-15 08:30:01+00'"), "t|t");
}

TEST_F(AShipment, OfARegistrationFillsAColumnForEachLimit) {
  supervise::Limits limits;
  limits.headroom = Bytes(64);
  limits.grace = Span(5);
  limits.tasks_max = 6;
  limits.cpu_quota_per_second = Span(7);
  limits.cpu_weight = 8;
  host_.add(EventKind::kRegistered).details = supervise::limit_details(limits);

  ship(host_);

  EXPECT_EQ(process("memory_headroom_bytes, grace_usec, tasks_max, cpu_quota_per_sec_usec, cpu_weight"), "64|5|6|7|8");
}

TEST_F(AShipment, OfChangesChangesTheRow) {
  host_.add(EventKind::kRegistered).details = {{"label_team", std::string("sky")},
                                               {"grace_usec", std::uint64_t{5'000'000}}};
  ship(host_);
  EventRecord& changed = host_.add(EventKind::kLimitsChanged);
  changed.memory_limit = Bytes::infinite();
  changed.duration = Span(1'000'000);
  changed.unit = "analysis-survey-2.scope";
  changed.details = {{"memory_limit_bytes", UINT64_MAX}, {"tasks_max", std::uint64_t{9}}};
  EventRecord& extended = host_.add(EventKind::kExtended);
  extended.memory_limit = Bytes::infinite();
  extended.unit = "analysis-survey-2.scope";
  extended.wall_clock_limit = Span(40 * kMinute);
  extended.duration = Span(2'000'000);
  extended.details = {{"extended_by_usec", std::uint64_t{10 * kMinute}}};

  ship(host_, 1);

  EXPECT_EQ(process("unit, memory_limit_bytes, tasks_max, wall_clock_limit_usec, grace_usec, labels, state"),
            "analysis-survey-2.scope|-|9|2400000000|5000000|{\"team\": \"sky\"}|running");
  EXPECT_EQ(process("deadline_at = registered_at + interval '40 min'"), "t");
}

TEST_F(AShipment, OfAnEndingChangesTheStateAndOfTheEndRemovesTheRow) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kEnding);
  ship(host_);
  EXPECT_EQ(process("state"), "ending");
  host_.add(EventKind::kEscalated);
  host_.add(EventKind::kUnkillable);
  ship(host_, 2);
  EXPECT_EQ(process("state"), "unkillable");
  EXPECT_EQ(value("SELECT host, monitored_count, grace_count, kills_last_24h FROM watchdog_status"), "node-1|1|1|0");

  host_.add(EventKind::kEnded).occurred_at =
      WallTime(Span(std::stoll(value("SELECT (extract(epoch FROM now()) * 1e6)::bigint"))));
  ship(host_, 4);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
  EXPECT_EQ(value("SELECT host, monitored_count, grace_count, kills_last_24h FROM watchdog_status"), "node-1|0|0|1");
}

TEST_F(AShipment, OfAWholeLifeAtOnceLeavesNoRow) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kLimitsChanged);
  host_.add(EventKind::kUnregistered);

  ship(host_);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
}

TEST_F(AShipment, ThatComesAfterTheEndOfItsRunLeavesNoRow) {
  host_.add(EventKind::kEnded);
  ship(host_);
  host_.add(EventKind::kRegistered);

  ship(host_, 1);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_processes"), "0");
}

TEST_F(AShipment, OfAnOrphanLeavesTheLeaderAsItIs) {
  host_.add(EventKind::kRegistered);
  host_.add(EventKind::kOrphanFound).pid = 1;

  ship(host_);

  EXPECT_EQ(process("leader_pid"), "4711");
}

TEST_F(AShipment, OfAnAdoptionMakesOrRenewsARow) {
  host_.add(EventKind::kRegistered).details = {{"label_team", std::string("sky")}};
  host_.add(EventKind::kEnding);
  host_.add(EventKind::kAdopted).unit = "analysis-survey-2.scope";
  host_.add(EventKind::kAdopted, 2, "other");

  ship(host_);

  EXPECT_THAT(sql("SELECT registered_as, unit, state, labels FROM watchdog_processes ORDER BY run_id"),
              ElementsAre("survey|analysis-survey-2.scope|running|{\"team\": \"sky\"}",
                          "other|analysis-other.scope|running|{}"));
}

TEST_F(AShipment, OfARebootRemovesWhatThatHostHadBefore) {
  host_.add(EventKind::kRegistered);
  Host other("node-2");
  other.add(EventKind::kRegistered, 2);
  ship(host_);
  ship(other);
  host_.add(EventKind::kDaemonStarted).boot_id = uuid('b', 2);
  host_.add(EventKind::kRegistered, 3, "later").boot_id = uuid('b', 2);

  ship(host_, 1);

  EXPECT_THAT(sql("SELECT host, registered_as FROM watchdog_processes ORDER BY host"),
              ElementsAre("node-1|later", "node-2|survey"));
}

TEST_F(AShipment, InASchemaOfItsOwnNeedsNoSearchPathOfTheRole) {
  target_.schemas = {"watchdog"};
  connection_.emplace(open());
  ASSERT_TRUE(migrate(*connection_, kMigrations));
  host_.add(EventKind::kRegistered);

  ship(host_);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog.watchdog_events"), "1");
  EXPECT_EQ(value("SELECT count(*) FROM public.watchdog_events"), "0");
}

}  // namespace
}  // namespace aw::postgres
