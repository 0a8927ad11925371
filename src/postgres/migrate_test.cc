// SPDX-License-Identifier: Apache-2.0
#include "postgres/migrate.h"

#include <fstream>
#include <thread>

#include "postgres/database_fixture.h"

namespace aw::postgres {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kTables[] =
    "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'watchdog%' AND table_schema = ";

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
  EXPECT_THAT(sql("SELECT version, name, length(checksum) FROM watchdog_migrations"),
              ElementsAre("1|0001_watchdog.sql|64"));
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
  std::vector<std::size_t> applied(4, 99);
  for (std::size_t& count : applied) {
    threads.emplace_back([this, &count] {
      Connection connection = open();
      const auto migrated = migrate(connection, kMigrations);
      if (migrated) count = migrated->applied.size();
      EXPECT_TRUE(migrated) << migrated.error().message;
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::ranges::sort(applied);
  EXPECT_THAT(applied, ElementsAre(0U, 0U, 0U, std::size_t{kSchemaVersion}));
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
  migrations.write("0002_more.sql", "ALTER TABLE watchdog_processes ADD COLUMN more text;");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_EQ(migrated->version, 2);
  ASSERT_THAT(migrated->applied, SizeIs(1));
  EXPECT_EQ(migrated->applied[0].name, "0002_more.sql");
}

TEST_F(AMigratedDatabase, IsRefusedWhereItIsNewerThanTheProgram) {
  sql("INSERT INTO watchdog_migrations (version, name) VALUES (2, '0002_more.sql')");
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_FALSE(migrated);
  EXPECT_EQ(fault_of(migrated.error()), Fault::kNewerSchema);
  EXPECT_THAT(migrated.error().message, HasSubstr("the schema has version 2, this program knows 1"));
}

TEST_F(AMigratedDatabase, IsRefusedWhereAnAppliedFileWasChanged) {
  Migrations migrations(server_.directory());
  migrations.write("0001_watchdog.sql", "-- nothing\n");
  migrations.write("0002_more.sql", "CREATE TABLE watchdog_more (x int);");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_FALSE(migrated);
  EXPECT_EQ(fault_of(migrated.error()), Fault::kSettings);
  EXPECT_EQ(read_schema_version(connection).value(), 1);
}

TEST_F(AnEmptyDatabase, IsTakenAsMigratedByHand) {
  std::ifstream in(kMigrations / "0001_watchdog.sql");
  sql(std::string(std::istreambuf_iterator<char>(in), {}));
  Connection connection = open();

  const auto migrated = migrate(connection, kMigrations);

  ASSERT_TRUE(migrated) << migrated.error().message;
  EXPECT_THAT(migrated->applied, IsEmpty());
}

TEST_F(AnEmptyDatabase, RefusesMigrationsWithAGapInTheirNumbers) {
  Migrations migrations(server_.directory());
  migrations.write("0003_more.sql", "SELECT 1;");
  Connection connection = open();

  const auto migrated = migrate(connection, migrations.directory());

  ASSERT_FALSE(migrated);
  EXPECT_THAT(migrated.error().message, HasSubstr("0003_more.sql"));
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
