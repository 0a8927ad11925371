// SPDX-License-Identifier: Apache-2.0
#include "ledger/migrations.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <set>

#include "ledger/ledger_reader.h"

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class ASchema : public testing::Test {
 protected:
  ASchema() {
    std::string pattern = (fs::temp_directory_path() / "schema-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
  }
  ~ASchema() override { fs::remove_all(dir_); }

  Database open() {
    EXPECT_TRUE(create_file(dir_ / "ledger.db"));
    auto database = Database::open(dir_ / "ledger.db", Database::Access::kReadWrite, 1000);
    EXPECT_TRUE(database) << database.error().message;
    EXPECT_TRUE(database->execute("PRAGMA foreign_keys=ON"));
    return std::move(*database);
  }
  static std::int64_t number(Database& database, const char* sql) {
    const auto found = database.read_number(sql);
    EXPECT_TRUE(found) << found.error().message;
    return found.value_or(-1);
  }
  static void run(Database& database, const std::string& sql) {
    const auto ran = database.execute(sql.c_str());
    EXPECT_TRUE(ran) << ran.error().message;
  }
  static void add_event(Database& database, const std::string& id, const std::string& kind, const std::string& reason) {
    run(database,
        "INSERT INTO watchdog_events (event_id, occurred_at, host, registered_as, analysis_id, kind, reason, escalated)"
        "VALUES ('" +
            id +
            "', strftime('%Y-%m-%dT%H:%M:%f000Z','now'), 'here', 'nightly', "
            "(SELECT id FROM analyses WHERE id='nightly'), '" +
            kind + "', " + reason + ", 0)");
  }

  fs::path dir_;
};

TEST_F(ASchema, IsMadeFromNothing) {
  Database database = open();

  ASSERT_TRUE(migrate(database));

  EXPECT_EQ(number(database, "PRAGMA user_version"), migrations().back().version);
  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_migrations"), std::int64_t(migrations().size()));
  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_events"), 0);
  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_kills"), 0);
  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_status"), 0);
}

TEST_F(ASchema, StaysAsItIsTheSecondTime) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  Database second = open();

  ASSERT_TRUE(migrate(second));

  EXPECT_EQ(number(second, "SELECT count(*) FROM watchdog_migrations"), std::int64_t(migrations().size()));
}

TEST_F(ASchema, NewerThanTheProgramIsRefusedInClearWords) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  run(database, "PRAGMA user_version = 4711");

  const auto refused = migrate(database);

  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, std::errc::not_supported);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("version 4711"),
                                             HasSubstr("knows version " + std::to_string(migrations().back().version)),
                                             HasSubstr("install the newer")));
}

TEST_F(ASchema, IsLeftAsItWasByAMigrationThatFails) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  std::vector<Migration> steps(migrations().begin(), migrations().end());
  const int next = steps.back().version + 1;
  steps.push_back({next, "0099_bad.sql", "CREATE TABLE more (a); INSERT INTO nowhere VALUES (1);"});

  const auto failed = migrate(database, steps);

  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, AllOf(HasSubstr("0099_bad.sql"), HasSubstr("nowhere")));
  EXPECT_EQ(number(database, "PRAGMA user_version"), next - 1);
  EXPECT_EQ(number(database, "SELECT count(*) FROM sqlite_schema WHERE name='more'"), 0);
  steps.back() = {next, "0099_good.sql", "CREATE TABLE more (a);"};
  EXPECT_TRUE(migrate(database, steps));
  EXPECT_EQ(number(database, "PRAGMA user_version"), next);
}

TEST_F(ASchema, HasTheContractsColumnsInItsOrder) {
  Database database = open();
  ASSERT_TRUE(migrate(database));

  const auto columns = database.read_text(
      "SELECT group_concat(name, ' ') FROM (SELECT name FROM pragma_table_info('watchdog_events') ORDER BY cid)");

  ASSERT_TRUE(columns);
  EXPECT_EQ(*columns,
            "seq event_id occurred_at host boot_id run_id analysis_id registered_as kind reason unit pid comm cmdline "
            "uid memory_bytes memory_peak_bytes memory_limit_bytes duration_usec wall_clock_limit_usec cpu_usec signal "
            "escalated exit_code exit_signal leftover_memory_bytes processes details");
}

TEST_F(ASchema, KeepsTheEventsOfADeletedAnalysis) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  run(database, "INSERT INTO analyses VALUES ('nightly', 'now')");
  add_event(database, "e", "ended", "'memory'");
  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_events WHERE analysis_id = 'nightly'"), 1);

  run(database, "DELETE FROM analyses");

  EXPECT_EQ(number(database,
                   "SELECT count(*) FROM watchdog_events WHERE analysis_id IS NULL AND "
                   "registered_as = 'nightly'"),
            1);
}

TEST_F(ASchema, LeavesTheHostsAnalysesAsTheyAre) {
  Database database = open();
  run(database, "CREATE TABLE analyses (id TEXT PRIMARY KEY, title TEXT NOT NULL, team INTEGER)");

  ASSERT_TRUE(migrate(database));

  EXPECT_EQ(number(database, "SELECT count(*) FROM pragma_table_info('analyses')"), 3);
  EXPECT_EQ(number(database, "SELECT owner = 'host' FROM watchdog_owner WHERE of = 'analyses'"), 1);
}

TEST_F(ASchema, CountsKillsAndStatusPerHost) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  add_event(database, "a", "ended", "'memory'");
  add_event(database, "b", "ended", "'exited'");
  add_event(database, "c", "ending", "'memory'");
  add_event(database, "d", "daemon-started", "NULL");

  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_kills"), 1);
  EXPECT_EQ(number(database, "SELECT count(*) FROM watchdog_status"), 1);
  EXPECT_EQ(number(database, "SELECT kills_last_24h FROM watchdog_status WHERE host = 'here'"), 1);
  EXPECT_EQ(number(database, "SELECT monitored_count + grace_count FROM watchdog_status"), 0);
}

TEST_F(ASchema, HasAnIndexForEachEverydayQuery) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  for (const char* where :
       {"", "WHERE occurred_at >= 'a' AND occurred_at <= 'b'", "WHERE registered_as = 'x'",
        "WHERE registered_as = 'x' AND occurred_at >= 'a'", "WHERE reason = 'memory'", "WHERE kind = 'ended'"}) {
    const std::string query = std::string("EXPLAIN QUERY PLAN SELECT * FROM watchdog_events ") + where +
                              " ORDER BY occurred_at DESC, seq DESC LIMIT 50";
    auto plan = database.prepare(query);
    ASSERT_TRUE(plan) << plan.error().message;
    std::string text;
    while (plan->step().value_or(false)) text += plan->text(3) + "\n";
    EXPECT_THAT(text, AllOf(HasSubstr("USING INDEX"), testing::Not(HasSubstr("TEMP B-TREE")))) << where;
  }
}

// Of an id there are a few, of a kind there may be millions.
TEST_F(ASchema, HasTheIndexOfAnIdUsedWhateverElseIsAskedOfIt) {
  Database database = open();
  ASSERT_TRUE(migrate(database));
  for (const EventQuery& query :
       {EventQuery{.analysis_id = "x", .kind = EventKind::kEnded}, EventQuery{.analysis_id = "x", .run_id = "y"},
        EventQuery{.analysis_id = "x", .reason = Reason::kMemory}}) {
    const EventSelect select = select_events(query);
    auto plan = database.prepare("EXPLAIN QUERY PLAN " + select.sql);
    ASSERT_TRUE(plan) << plan.error().message;
    ASSERT_TRUE(plan->step().value_or(false));
    EXPECT_THAT(plan->text(3), HasSubstr("USING INDEX watchdog_events_by_name")) << select.sql;
  }
}

TEST(Migrations, AreTheFilesOfTheDirectory) {
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(fs::path(AW_SOURCE_DIR) / "migrations/sqlite")) files.insert(entry);
  ASSERT_EQ(files.size(), migrations().size());
  int version = 0;
  for (const fs::path& file : files) {
    const Migration& migration = migrations()[static_cast<std::size_t>(version)];
    std::ifstream stream(file);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_EQ(migration.version, ++version);
    EXPECT_EQ(migration.name, file.filename());
    EXPECT_EQ(migration.sql, text);
  }
}

TEST_F(ASchema, LivesInAFileThatOthersCannotRead) {
  const mode_t before = ::umask(0);
  ASSERT_TRUE(create_file(dir_ / "a/b/ledger.db"));
  ::umask(before);

  struct stat status {};
  ASSERT_EQ(::stat((dir_ / "a/b/ledger.db").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0640U);
  ASSERT_EQ(::stat((dir_ / "a/b").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0750U);
}

TEST_F(ASchema, OfAFileIsBroughtToALaterVersionFromOutside) {
  const Migration first = migrations().front();
  {
    Database database = open();
    run(database, "PRAGMA journal_mode=WAL");
    ASSERT_TRUE(migrate(database, std::span(&first, 1)));
  }
  const Migration steps[] = {first, {2, "0002_more.sql", "CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT;"}};

  const auto done = migrate_file(dir_ / "ledger.db", steps);

  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->applied, std::vector<std::string>{"0002_more.sql"});
  EXPECT_EQ(done->version, 2);
  EXPECT_TRUE(fs::exists(dir_ / "ledger.db-wal")) << "for readers that may not make it";
  const auto again = migrate_file(dir_ / "ledger.db", steps);
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->applied.empty());
  EXPECT_FALSE(migrate_file(dir_ / "ledger.db", std::span(steps, 1))) << "it is newer now";
  EXPECT_FALSE(migrate_file(dir_ / "absent.db"));
}

}  // namespace
}  // namespace aw::ledger
