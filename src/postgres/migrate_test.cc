// SPDX-License-Identifier: Apache-2.0
#include "postgres/migrate.h"

#include <fstream>
#include <numeric>
#include <thread>

#include "postgres/database_fixture.h"

namespace aw::postgres {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAreArray;

constexpr char kTables[] =
    "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'watchdog%' AND table_schema = ";

/// The file that comes after those that there are.
std::string later(int by = 1) { return "000" + std::to_string(kSchemaVersion + by) + "_more.sql"; }

/// Migrations that a test writes.
class Migrations {
 public:
  explicit Migrations(const std::filesystem::path& parent) : directory_(parent / "migrations") {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    for (const auto& entry : std::filesystem::directory_iterator(kMigrations)) {
      std::filesystem::copy_file(entry, directory_ / entry.path().filename());
    }
  }
  void write(const std::string& name, const std::string& text) { std::ofstream(directory_ / name) << text; }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  std::filesystem::path directory_;
};

class AnEmptyDatabase : public ADatabase {};

TEST_F(AnEmptyDatabase, IsMigratedToTheVersionThatTheProgramKnows) {
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_EQ(migrated->version, kSchemaVersion);
  EXPECT_THAT(migrated->applied, SizeIs(kSchemaVersion));
  EXPECT_EQ(read_schema_version(connection).value(), kSchemaVersion);
  EXPECT_THAT(sql("SELECT version, name, length(checksum) FROM watchdog_migrations ORDER BY version"),
              ElementsAre("1|0001_watchdog.sql|64", "2|0002_series.sql|64"));
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_events"), "0");
  EXPECT_EQ(value("SELECT count(*) FROM analyses"), "0");
}

TEST_F(AnEmptyDatabase, HasVersionZero) {
  Connection connection = open();

  EXPECT_EQ(read_schema_version(connection).value(), 0);
}

TEST_F(AnEmptyDatabase, IsMigratedInASchemaOfItsOwnThatIsMade) {
  target_.schemas = {"watch\"dog", "public"};
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_NE(value(std::string(kTables) + "'watch\"dog'"), "0");
  EXPECT_EQ(value(std::string(kTables) + "'public'"), "0");
  EXPECT_EQ(read_schema_version(connection).value(), kSchemaVersion);
}

TEST_F(AnEmptyDatabase, IsMigratedByARoleThatIsNoSuperuser) {
  sql("CREATE ROLE migrator_" + database_ + " LOGIN");
  sql("CREATE SCHEMA watchdog AUTHORIZATION migrator_" + database_);
  target_.uri = "host=" + server_.directory().string() + " user=migrator_" + database_ + " dbname=" + database_;
  target_.schemas = {"watchdog"};
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
}

TEST_F(AnEmptyDatabase, IsMigratedOnceByManyAtOnce) {
  std::vector<std::thread> threads;
  std::vector<std::vector<Migration>> applied(4);
  for (auto& mine : applied) {
    threads.emplace_back([this, &mine] {
      Connection connection = open();
      const auto migrated = migrate(connection, kMigrations);
      ASSERT_TRUE(migrated) << migrated.error().message;
      mine = migrated->applied;
    });
  }
  for (std::thread& thread : threads) thread.join();

  // They may share the work; each migration is one's.
  std::vector<int> versions;
  for (const auto& mine : applied) {
    for (const auto& migration : mine) versions.push_back(migration.version);
  }
  std::vector<int> all(kSchemaVersion);
  std::iota(all.begin(), all.end(), 1);
  EXPECT_THAT(versions, UnorderedElementsAreArray(all));
}

TEST_F(AnEmptyDatabase, StaysEmptyWhereAMigrationFails) {
  Migrations migrations(server_.directory());
  migrations.write("0001_watchdog.sql", "CREATE TABLE watchdog_half (x int); SELECT 1/0;");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_FALSE(migrated);
  EXPECT_THAT(migrated.error().message, HasSubstr("0001_watchdog.sql: ERROR:  division by zero"));
  EXPECT_EQ(value(std::string(kTables) + "'public'"), "0");
}

TEST_F(AMigratedDatabase, IsLeftAsItIsTheSecondTime) {
  Connection connection = open();

  const auto again = migrate(connection, kMigrations);

  ASSERT_TRUE(again) << again.error().message;
  EXPECT_THAT(again->applied, IsEmpty());
  EXPECT_EQ(again->version, kSchemaVersion);
}

TEST_F(AMigratedDatabase, IsBroughtToALaterVersion) {
  Migrations migrations(server_.directory());
  migrations.write(later(), "ALTER TABLE watchdog_processes ADD COLUMN more text;");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_EQ(migrated->version, kSchemaVersion + 1);
  ASSERT_THAT(migrated->applied, SizeIs(1));
  EXPECT_EQ(migrated->applied[0].name, later());
}

TEST_F(AMigratedDatabase, IsRefusedWhereItIsNewerThanTheProgram) {
  sql("INSERT INTO watchdog_migrations (version, name) VALUES (999, '0999_more.sql')");
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_FALSE(migrated);
  EXPECT_EQ(fault_of(migrated.error()), Fault::kNewerSchema);
  EXPECT_THAT(migrated.error().message,
              HasSubstr("the schema has version 999, this program knows " + std::to_string(kSchemaVersion)));
}

TEST_F(AMigratedDatabase, IsRefusedWhereAnAppliedFileWasChanged) {
  Migrations migrations(server_.directory());
  migrations.write("0001_watchdog.sql", "-- nothing\n");
  migrations.write(later(), "CREATE TABLE watchdog_more (x int);");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_FALSE(migrated);
  EXPECT_EQ(fault_of(migrated.error()), Fault::kSettings);
  EXPECT_EQ(read_schema_version(connection).value(), kSchemaVersion);
}

TEST_F(AnEmptyDatabase, IsTakenAsMigratedByHand) {
  for (const char* name : {"0001_watchdog.sql", "0002_series.sql"}) {
    std::ifstream in(kMigrations / name);
    sql(std::string(std::istreambuf_iterator<char>(in), {}));
  }
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_THAT(migrated->applied, IsEmpty());
}

TEST_F(AnEmptyDatabase, RefusesMigrationsWithAGapInTheirNumbers) {
  Migrations migrations(server_.directory());
  migrations.write(later(2), "SELECT 1;");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_FALSE(migrated);
  EXPECT_THAT(migrated.error().message, HasSubstr(later(2)));
}

class AHostOwnedAnalysesTable : public ADatabase {};

TEST_F(AHostOwnedAnalysesTable, IsLeftAsItIs) {
  sql("CREATE TABLE analyses (title varchar(80) NOT NULL, id varchar(36) PRIMARY KEY, priority int NOT NULL)");
  sql("INSERT INTO analyses VALUES ('Survey', 'survey', 3)");
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_THAT(sql("SELECT * FROM analyses"), ElementsAre("Survey|survey|3"));
  EXPECT_THAT(sql("SELECT column_name FROM information_schema.columns WHERE table_name = 'analyses' "
                  "ORDER BY ordinal_position"),
              ElementsAre("title", "id", "priority"));
}

TEST_F(AHostOwnedAnalysesTable, IsFoundInAnotherSchemaOfTheSearchPath) {
  sql("CREATE SCHEMA app");
  sql("CREATE TABLE app.analyses (id varchar PRIMARY KEY)");
  target_.schemas = {"watchdog", "app"};
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_EQ(value("SELECT confrelid::regclass FROM pg_constraint WHERE conname = 'watchdog_events_analysis_id_fkey'"),
            "app.analyses");
  EXPECT_EQ(value("SELECT to_regclass('watchdog.analyses') IS NULL"), "t");
}

TEST_F(AHostOwnedAnalysesTable, IsRefusedInWordsWhereItsIdIsNoText) {
  sql("CREATE TABLE analyses (id uuid PRIMARY KEY)");
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_FALSE(migrated);
  EXPECT_THAT(migrated.error().message, HasSubstr("incompatible types: text and uuid"));
}

}  // namespace
}  // namespace aw::postgres
