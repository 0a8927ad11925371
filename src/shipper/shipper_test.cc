// SPDX-License-Identifier: Apache-2.0
#include "shipper/shipper.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <thread>

#include "base/unique_fd.h"
#include "ledger/database.h"
#include "ledger/shipped.h"
#include "postgres/database_fixture.h"
#include "shipper/outbox_fixture.h"

#if PQXX_VERSION_MAJOR < 7
// libpqxx 6 loses the answer to a statement that has lost the connection; see postgres/connection_test.cc.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:pqxx::connection_base::exec\n"; }
#endif

namespace aw::shipper {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using postgres::ADatabase;
using postgres::AMigratedDatabase;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using Outcome = Round::Outcome;

class AShipper : public AMigratedDatabase {
 protected:
  void SetUp() override {
    AMigratedDatabase::SetUp();
    target_.lock_timeout = 200ms;
    begin();
  }
  void begin() { shipper_ = std::make_unique<Shipper>(options()); }
  ShipperOptions options() const {
    return {.target = target_,
            .ledger = outbox_.file(),
            .shipped_file = outbox_.shipped_file(),
            .host = kHost,
            .largest_batch = largest_batch_};
  }
  Round step() {
    Round round = shipper_->step(now_);
    for (const Notice& notice : round.notices) said_.push_back(notice.text);
    now_ = add_span(now_, round.wait);
    return round;
  }
  /// Until there is no more, or trouble; waits are not waited for.
  Outcome ship() {
    for (;;) {
      const Round round = step();
      if (round.outcome != Outcome::kMore) return round.outcome;
    }
  }
  /// Through trouble as well, as long as it takes.
  bool ship_in_the_end() {
    for (int i = 0; i < 1000; ++i) {
      if (ship() == Outcome::kCaughtUp) return true;
    }
    return false;
  }
  std::string count() { return value("SELECT count(*) FROM watchdog_events"); }
  /// Each once, and in the order of the ledger.
  std::string inventory() {
    return value(
        "SELECT count(*), count(DISTINCT event_id), count(DISTINCT ledger_seq), "
        "bool_and(event_id::text LIKE '%' || (extract(epoch FROM occurred_at) * 1000000 - 1800000000000000)::int) "
        "FROM watchdog_events");
  }
  std::vector<std::string> take_said() { return std::exchange(said_, {}); }

  Outbox outbox_;
  std::size_t largest_batch_ = 100;
  std::unique_ptr<Shipper> shipper_;
  Instant now_{1h};
  std::vector<std::string> said_;
};

TEST_F(AShipper, BringsWhatIsInTheLedgerAndWhatComes) {
  outbox_.write(250);

  EXPECT_EQ(step().outcome, Outcome::kMore);
  EXPECT_EQ(shipper_->status(), "150 events wait; PostgreSQL: takes them");
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(inventory(), "250|250|250|t");
  EXPECT_EQ(shipper_->status(), "0 events wait; PostgreSQL: takes them");
  outbox_.write(3);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(inventory(), "253|253|253|t");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("up to its event 0")));
}

TEST_F(AShipper, LeavesHowFarItIsForTheDaemonAndWhoPrunes) {
  outbox_.write(7);
  EXPECT_EQ(ledger::read_shipped_seq(outbox_.shipped_file(), outbox_.extent().ledger_id), std::nullopt);

  ship();

  EXPECT_EQ(ledger::read_shipped_seq(outbox_.shipped_file(), outbox_.extent().ledger_id), 7);
  EXPECT_EQ(outbox_.extent().above(7), 0U);
}

TEST_F(AShipper, ThatIsStartedAgainGoesOnWhereItWas) {
  outbox_.write(10);
  ship();
  begin();
  outbox_.write(1);

  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(inventory(), "11|11|11|t");
  EXPECT_THAT(said_.back(), HasSubstr("up to its event 10"));
}

/// A curve with so many points.
supervise::SeriesRow curve(int run, int points) {
  supervise::SeriesRow row;
  row.run_id = uuid('a', run);
  row.registered_as = "run-" + std::to_string(run);
  row.host = kHost;
  row.uid = 1000;
  for (int i = 0; i < points; ++i) {
    row.samples.push_back({WallTime(Span(1'800'000'000'000'000) + i * 2s), kMiB, kMiB, i * 1s, 2});
  }
  return row;
}

TEST_F(AShipper, BringsCurvesAndWhatTheyHaveBecome) {
  outbox_.write(2);
  for (int run = 0; run < 250; ++run) outbox_.keep_series(curve(run, 3));
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_samples"), "750");

  outbox_.keep_series(curve(7, 5));
  begin();

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_samples"), "752");
  EXPECT_EQ(value("SELECT last_change FROM watchdog_shipping"), "251");
}

TEST_F(AShipper, BringsEventsWhereItMayNotBringCurvesAndSaysSoOnce) {
  sql("CREATE ROLE events_only LOGIN");
  sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO events_only");
  sql("REVOKE ALL ON watchdog_series FROM events_only");
  target_.uri += " user=events_only";
  begin();
  outbox_.write(10);
  outbox_.keep_series(curve(1, 3));

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  outbox_.write(10);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  now_ = add_span(now_, 2min);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(count(), "20");
  const auto said = take_said();
  EXPECT_EQ(
      std::count_if(said.begin(), said.end(),
                    [](const std::string& text) { return text.find("run roles.sql again") != std::string::npos; }),
      1);
  sql("GRANT SELECT, INSERT, UPDATE ON watchdog_series TO events_only");
  now_ = add_span(now_, 2min);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_series"), "1");
}

TEST_F(AShipper, WaitsForALedger) {
  outbox_.close();
  fs::remove_all(outbox_.file().parent_path());
  begin();

  EXPECT_EQ(ship(), Outcome::kNoLedger);
  EXPECT_EQ(ship(), Outcome::kNoLedger);
  EXPECT_THAT(take_said(), ElementsAre(HasSubstr("no ledger to read")));
  EXPECT_EQ(shipper_->status(), "no ledger to read");
  outbox_.begin();
  outbox_.write(2);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(count(), "2");
}

TEST_F(AShipper, GoesOnWithTheLedgerThatTookThePlaceOfItsOwn) {
  outbox_.write(5);
  ship();
  outbox_.replace();
  outbox_.write(4);

  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(count(), "9");
  EXPECT_THAT(sql("SELECT last_seq FROM watchdog_shipping ORDER BY shipped_at"), ElementsAre("5", "4"));
  EXPECT_EQ(ledger::read_shipped_seq(outbox_.shipped_file(), outbox_.extent().ledger_id), 4);
  EXPECT_THAT(said_, ::testing::Contains(HasSubstr("another ledger")));
}

TEST_F(AShipper, SendsALedgerThatWasPutBackAgain) {
  outbox_.write(2);
  outbox_.close();
  const fs::path backup = outbox_.file().string() + ".backup";
  fs::copy_file(outbox_.file(), backup);
  fs::copy_file(outbox_.file().string() + "-wal", backup.string() + "-wal");
  outbox_.begin();
  outbox_.write(4);
  ship();
  outbox_.close();
  fs::remove(outbox_.file().string() + "-shm");
  fs::rename(backup.string() + "-wal", outbox_.file().string() + "-wal");
  fs::rename(backup, outbox_.file());
  outbox_.begin();
  outbox_.write(1);

  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(count(), "7");
  EXPECT_THAT(said_, ::testing::Contains(HasSubstr("the ledger has gone back")));
}

TEST_F(AShipper, SetsAPoisonRowAsideAndSaysSoOnce) {
  outbox_.write(20);
  supervise::EventRecord poison = outbox_.next();
  poison.run_id = "no uuid\n\x1b[31m<0>forged";
  outbox_.write(poison);
  outbox_.write(20);

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(count(), "40");
  EXPECT_EQ(value("SELECT event_id, ledger_seq FROM watchdog_refused"), poison.event_id + "|21");
  EXPECT_THAT(said_, SizeIs(2));
  EXPECT_THAT(said_.back(), AllOf(HasSubstr("refuses event " + poison.event_id), HasSubstr("watchdog_refused"),
                                  Not(HasSubstr("\n")), Not(HasSubstr("\x1b"))));
}

TEST_F(AShipper, SaysOnceForEachBatchWhatItCannotRead) {
  outbox_.write(5);
  auto ledger = ledger::Database::open(outbox_.file(), ledger::Database::Access::kReadWrite, 10'000);
  ASSERT_TRUE(ledger);
  ASSERT_TRUE(ledger->execute("UPDATE watchdog_events SET kind = 'frozen' WHERE seq IN (2, 3)"));

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(count(), "3");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("up to its event 0"), HasSubstr("2 of the events 1 to 5 of the ledger")));
}

TEST_F(AShipper, FollowsADatabaseThatHasGoneBack) {
  outbox_.write(10);
  ship();
  sql("DELETE FROM watchdog_events WHERE ledger_seq > 4");
  sql("UPDATE watchdog_shipping SET last_seq = 4");
  outbox_.write(1);

  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(inventory(), "11|11|11|t");
  EXPECT_THAT(said_.back(), HasSubstr("only the events up to 4"));
}

TEST_F(AShipper, FindsOutWithoutAnEventThatADatabaseHasGoneBack) {
  outbox_.write(10);
  ship();
  sql("DELETE FROM watchdog_events");
  sql("DELETE FROM watchdog_shipping");

  now_ = add_span(now_, 2min);
  ship();
  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(inventory(), "10|10|10|t");
}

TEST_F(AShipper, WaitsWithoutASchemaAndSaysHowToMakeIt) {
  sql("ALTER TABLE watchdog_migrations RENAME TO other");
  outbox_.write(1);

  for (int i = 0; i < 5; ++i) EXPECT_EQ(ship(), Outcome::kFault);

  EXPECT_THAT(take_said(), ElementsAre(HasSubstr("analysisctl migrate")));
  EXPECT_EQ(shipper_->status(), "1 event waits; PostgreSQL: schema missing or too old");
  sql("ALTER TABLE other RENAME TO watchdog_migrations");
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(count(), "1");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("up to its event 0"), HasSubstr("takes events again")));
}

TEST_F(AShipper, WaitsWhereTheDatabaseWasMigratedAhead) {
  outbox_.write(1);
  ship();
  sql("INSERT INTO watchdog_migrations (version, name) VALUES (999, '0999_more.sql')");
  outbox_.write(1);

  EXPECT_EQ(ship(), Outcome::kFault);

  EXPECT_THAT(said_.back(), AllOf(HasSubstr("the schema has version 999"), HasSubstr("install the newer")));
  EXPECT_EQ(count(), "1");
}

TEST_F(AShipper, WaitsForAServerThatTakesWrites) {
  sql("ALTER DATABASE " + database_ + " SET default_transaction_read_only = on");
  outbox_.write(1);

  EXPECT_EQ(ship(), Outcome::kFault);
  EXPECT_THAT(said_, ElementsAre(HasSubstr("waiting for a server that takes writes")));
  sql("SET default_transaction_read_only = off; ALTER DATABASE " + database_ + " RESET default_transaction_read_only");
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(count(), "1");
}

TEST_F(AShipper, WaitsWhereItLacksAPrivilege) {
  const std::string writer = "denied_" + database_;
  sql("CREATE ROLE " + writer + " LOGIN; GRANT SELECT ON watchdog_migrations, watchdog_shipping TO " + writer);
  target_.uri = "host=" + server_.directory().string() + " user=" + writer + " dbname=" + database_;
  outbox_.write(1);
  begin();

  EXPECT_EQ(ship(), Outcome::kFault);

  EXPECT_THAT(said_.back(), AllOf(HasSubstr("permission denied"), HasSubstr("roles.sql")));
  EXPECT_EQ(shipper_->status(), "1 event waits; PostgreSQL: access denied");
}

TEST_F(AShipper, SendsLessAtOnceWhereTheServerIsBusy) {
  outbox_.write(100);
  ship();
  pqxx::connection other(target_.uri);
  pqxx::work lock(other);
  lock.exec("LOCK TABLE watchdog_events");
  outbox_.write(100);

  EXPECT_EQ(step().outcome, Outcome::kFault);
  EXPECT_EQ(step().outcome, Outcome::kFault);
  EXPECT_EQ(take_said().size(), 1U);  // Being busy for a moment is no news.
  lock.abort();
  EXPECT_EQ(step().outcome, Outcome::kMore);
  EXPECT_EQ(shipper_->status(), "75 events wait; PostgreSQL: takes them");
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(inventory(), "200|200|200|t");
}

TEST_F(AShipper, LinksEventsOnceTheirAnalysisIsFree) {
  sql("INSERT INTO analyses (id) VALUES ('run-0')");
  pqxx::connection application(target_.uri);
  pqxx::work queue(application);
  queue.exec("SELECT * FROM analyses FOR UPDATE");
  outbox_.write(2);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_unlinked"), "2");

  queue.commit();
  now_ = add_span(now_, 1min);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_unlinked"), "0");
  EXPECT_THAT(sql("SELECT analysis_id FROM watchdog_events"), ElementsAre("run-0", "run-0"));
}

TEST_F(AShipper, BacksOffToAMinuteAndComesBackAtOnce) {
  target_.uri = "host=/nowhere dbname=none";
  begin();
  Span before{0};
  for (int i = 0; i < 10; ++i) {
    const Round round = step();
    EXPECT_EQ(round.outcome, Outcome::kFault);
    EXPECT_GE(round.wait, std::min<Span>(before * 3 / 4, 45s));
    EXPECT_LE(round.wait, 60s);
    before = round.wait;
  }
  EXPECT_GE(before, 45s);
  EXPECT_THAT(said_, ElementsAre(AllOf(HasSubstr("/nowhere"), HasSubstr("tried again"))));
}

TEST_F(AShipper, GoesOnWithoutAPlaceForItsNumberAndSaysSoOnce) {
  ShipperOptions without = options();
  without.shipped_file = "/nowhere/shipped";
  shipper_ = std::make_unique<Shipper>(without);
  outbox_.write(150);

  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_EQ(count(), "150");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("up to its event 0"), HasSubstr("/nowhere/shipped")));
}

// --- a server that goes away ---

/// A server of the test's own, which may be stopped.
class AShipperOfAServer : public AShipper {
 protected:
  AShipperOfAServer() : own_(aw::testing::PrivatePostgres::Durability::kOff) {}
  void SetUp() override {
    ASSERT_EQ(own_.problem(), "");
    target_.uri = own_.uri();
    target_.lock_timeout = aw::testing::kPatience;  // For a transaction whose connection was cut.
    database_ = "postgres";
    postgres::Connection connection = open();
    ASSERT_TRUE(postgres::migrate(connection, postgres::kMigrations));
    begin();
  }
  /// With a connection of its own: the server may have been another before.
  std::string ask(const std::string& query) {
    pqxx::connection connection(own_.uri());
    const auto row = pqxx::nontransaction(connection).exec(query)[0];
    std::string text;
    for (const auto& field : row) text += (text.empty() ? "" : "|") + std::string(field.c_str());
    return text;
  }
  std::string all_there() {
    return ask(
        "SELECT count(*), count(DISTINCT event_id), max(ledger_seq), bool_and(event_id::text LIKE '%' || "
        "(ledger_seq - 1)) FROM watchdog_events");
  }

  aw::testing::PrivatePostgres own_;
};

TEST_F(AShipperOfAServer, BringsAThousandEventsOnceThroughRestarts) {
  largest_batch_ = 37;
  begin();
  for (int i = 0; i < 10; ++i) {
    outbox_.write(100);
    step();
    if (i % 3 == 1) {
      own_.stop();
      EXPECT_EQ(ship(), Outcome::kFault);
      own_.start_again();
    }
    step();
  }

  EXPECT_TRUE(ship_in_the_end());

  EXPECT_EQ(all_there(), "1000|1000|1000|t");
  EXPECT_EQ(ask("SELECT count(*) FROM watchdog_processes"), "0");
  EXPECT_EQ(ask("SELECT count(*) FROM watchdog_events WHERE analysis_id IS NULL"), "0");
}

TEST_F(AShipperOfAServer, SaysOnceThatItIsAwayAndOnceThatItIsBack) {
  ship();
  take_said();
  own_.stop();
  outbox_.write(1);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ship(), Outcome::kFault);
  EXPECT_LE(said_.size(), 2U);  // The connection was cut; no new one can be made.
  EXPECT_EQ(shipper_->status(), "1 event waits; PostgreSQL: not reachable");
  take_said();

  own_.start_again();

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_THAT(said_, ElementsAre(HasSubstr("takes events again")));
}

TEST_F(AShipperOfAServer, CountsWhatWaitsWhileItIsAway) {
  own_.stop();
  ship();
  outbox_.write(12);

  shipper_->recount();

  EXPECT_EQ(shipper_->status(), "12 events wait; PostgreSQL: not reachable");
}

TEST_F(AShipperOfAServer, IsToldOfAWrongPasswordAndComesInWithTheRightOne) {
  ask("CREATE ROLE shipper LOGIN SUPERUSER PASSWORD 'right'");
  own_.stop();
  own_.start_again("local all shipper scram-sha-256\nlocal all all trust\n");
  target_.uri = "host=" + own_.directory().string() + " user=shipper dbname=postgres";
  target_.password_file = outbox_.shipped_file().string() + ".password";
  std::ofstream(target_.password_file) << "wrong";
  outbox_.write(1);
  begin();

  EXPECT_EQ(ship(), Outcome::kFault);
  EXPECT_THAT(said_.back(),
              AllOf(HasSubstr("password authentication failed"), HasSubstr("PassFile="), Not(HasSubstr("wrong"))));
  EXPECT_EQ(shipper_->status(), "1 event waits; PostgreSQL: access denied");

  std::ofstream(target_.password_file) << "right\n";
  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(all_there(), "1|1|1|t");
}

TEST_F(AShipperOfAServer, FindsTheOneOfSeveralThatTakesWrites) {
  target_.uri = "host=/nowhere," + own_.directory().string() + " user=tester dbname=postgres";
  outbox_.write(1);
  begin();

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
}

/// A way to the server that breaks when a commit was passed on, before its answer is.
class Fragile {
 public:
  explicit Fragile(const fs::path& server) : directory_(server / "proxy") {
    fs::create_directory(directory_);
    server_ = server / ".s.PGSQL.5432";
    listener_ = make_socket();
    const sockaddr_un address = address_of(directory_ / ".s.PGSQL.5432");
    AW_ASSERT(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    AW_ASSERT(::listen(listener_.get(), 8) == 0);
    thread_ = std::thread([this] { run(); });
  }
  ~Fragile() {
    stop_ = true;
    thread_.join();
  }
  Fragile(const Fragile&) = delete;
  Fragile& operator=(const Fragile&) = delete;

  const fs::path& directory() const { return directory_; }
  enum class Break { kNever, kBeforeTheCommit, kAfterTheCommit };
  std::atomic<Break> next{Break::kNever};  ///< once
  std::atomic<int> broken{0};

 private:
  static UniqueFd make_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
  static sockaddr_un address_of(const fs::path& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    AW_ASSERT(path.string().size() < sizeof address.sun_path);
    path.string().copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
  }
  void run() {
    while (!stop_) {
      pollfd incoming{listener_.get(), POLLIN, 0};
      if (::poll(&incoming, 1, 20) > 0) serve(UniqueFd(::accept(listener_.get(), nullptr, nullptr)));
    }
  }
  /// One connection at a time is enough for one shipper.
  void serve(UniqueFd client) {
    UniqueFd server = make_socket();
    const sockaddr_un address = address_of(server_);
    if (::connect(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return;
    std::array<char, 65536> buffer{};
    bool committing = false;
    while (!stop_) {
      std::array<pollfd, 2> both{pollfd{client.get(), POLLIN, 0}, pollfd{server.get(), POLLIN, 0}};
      if (::poll(both.data(), both.size(), 20) <= 0) continue;
      for (const auto& [from, to] : {std::pair{0, 1}, {1, 0}}) {
        if (both.at(static_cast<std::size_t>(from)).revents == 0) continue;
        const ssize_t size = ::read(both.at(static_cast<std::size_t>(from)).fd, buffer.data(), buffer.size());
        if (size <= 0) return;
        const std::string_view bytes(buffer.data(), static_cast<std::size_t>(size));
        if (from == 1 && committing) return ++broken, void();  // The answer: it has been done, and nobody hears of it.
        if (from == 0 && next != Break::kNever && bytes.find("COMMIT") != std::string_view::npos) {
          if (next.exchange(Break::kNever) == Break::kBeforeTheCommit) return ++broken, void();
          committing = true;
        }
        for (std::size_t sent = 0; sent < bytes.size();) {
          const ssize_t some =
              ::send(both.at(static_cast<std::size_t>(to)).fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
          if (some <= 0) return;
          sent += static_cast<std::size_t>(some);
        }
      }
    }
  }

  fs::path directory_;
  fs::path server_;
  UniqueFd listener_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_F(AShipperOfAServer, BringsEachEventOnceThoughCommitsGoUnanswered) {
  Fragile way(own_.directory());
  target_.uri = "host=" + way.directory().string() + " user=tester dbname=postgres";
  largest_batch_ = 50;
  begin();
  ship();
  for (int i = 0; i < 20; ++i) {
    outbox_.write(50);
    way.next = i % 2 == 0 ? Fragile::Break::kAfterTheCommit : Fragile::Break::kBeforeTheCommit;
    EXPECT_EQ(ship(), Outcome::kFault);
    const bool done = i % 2 == 0;
    EXPECT_EQ(ask("SELECT count(*) FROM watchdog_events"), std::to_string(50 * i + (done ? 50 : 0)));
    EXPECT_EQ(ship(), Outcome::kCaughtUp);
  }

  EXPECT_EQ(way.broken, 20);
  EXPECT_EQ(all_there(), "1000|1000|1000|t");
  EXPECT_EQ(ask("SELECT count(*) FROM watchdog_processes"), "0");
}

TEST_F(AShipperOfAServer, SaysWhatWasRefusedThoughTheCommitWentUnanswered) {
  Fragile way(own_.directory());
  target_.uri = "host=" + way.directory().string() + " user=tester dbname=postgres";
  begin();
  ship();
  supervise::EventRecord poison = outbox_.next();
  poison.boot_id = "nonsense";
  outbox_.write(poison);
  way.next = Fragile::Break::kAfterTheCommit;
  EXPECT_EQ(ship(), Outcome::kFault);
  take_said();

  EXPECT_EQ(ship(), Outcome::kCaughtUp);
  EXPECT_EQ(ship(), Outcome::kCaughtUp);

  EXPECT_THAT(said_, ElementsAre(HasSubstr("refuses event " + poison.event_id), HasSubstr("takes events again")));
}

TEST_F(AShipperOfAServer, IsCutOffInTheMiddleAndGoesOn) {
  outbox_.write(500);
  std::atomic<bool> done{false};
  std::thread saboteur([&] {
    pqxx::connection connection(own_.uri());
    while (!done) {
      pqxx::nontransaction(connection)
          .exec(
              "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
              "AND application_name = 'analysis-watchdog' AND random() < 0.2");
      std::this_thread::sleep_for(2ms);
    }
  });
  largest_batch_ = 5;
  begin();

  for (int i = 0; i < 50; ++i) (void)step();
  done = true;
  saboteur.join();

  EXPECT_TRUE(ship_in_the_end());
  EXPECT_EQ(all_there(), "500|500|500|t");
}

}  // namespace
}  // namespace aw::shipper
