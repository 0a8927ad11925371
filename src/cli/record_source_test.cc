// SPDX-License-Identifier: Apache-2.0
//
// The record as the commands read and keep it: real ledgers, a real PostgreSQL, and no daemon.
#include "cli/record_source.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "cli/commands.h"
#include "cli/report.h"
#include "cli/upkeep.h"
#include "cli/when.h"
#include "ledger/ledger_file.h"
#include "postgres/migrate.h"
#include "postgres/shipping.h"
#include "testing/private_postgres.h"
#include "testing/records.h"

// libpqxx 6 loses the answer to a statement that has failed with its connection (postgres/connection_test.cc).
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:pqxx::connection_base::exec\n"; }

namespace aw::cli {
namespace {

namespace fs = std::filesystem;
using supervise::EventRecord;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::full_event;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const fs::path kMigrations = fs::path(AW_SOURCE_DIR) / "migrations" / "postgresql";
constexpr int kNow = 1'700'000'000;

/// Event, or run, of that number: 0 to 9.
std::string uuid(char kind, int number) {
  std::string text = "00000000-0000-4000-8000-000000000000";
  text[0] = kind;
  text.back() = static_cast<char>('0' + number);
  return text;
}

/// The end of run `number` on this host, `number` seconds after.
EventRecord end(int number) {
  EventRecord event = full_event(uuid('e', number));
  event.run_id = uuid('a', number);
  event.host = this_host();
  event.occurred_at = WallTime(std::chrono::seconds{kNow + number});
  return event;
}

class ARecord : public ::testing::Test {
 protected:
  ARecord() {
    ::setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1);
    std::string pattern = (fs::temp_directory_path() / "record-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    configure("");
  }
  ~ARecord() override { fs::remove_all(dir_); }

  void configure(const std::string& more) {
    std::ofstream(dir_ / "conf") << "[Ledger]\nPath=" << ledger().string() << "\n" << more;
  }
  fs::path ledger() const { return dir_ / "ledger.db"; }

  void write(const std::vector<EventRecord>& events) {
    auto file = ledger::LedgerFile::open(ledger(), std::nullopt);
    ASSERT_TRUE(file) << file.error().message;
    std::deque<ledger::Entry> entries(events.begin(), events.end());
    const auto refused = file->commit(entries);
    ASSERT_TRUE(refused) << refused.error().message;
    ASSERT_THAT(*refused, IsEmpty());
  }

  Result<RecordSource> open(RecordOptions options = {}) const {
    options.config = dir_ / "conf";
    return RecordSource::open(options);
  }
  /// The numbers of the events, newest first.
  static std::string numbers(RecordSource& source, const EventQuery& query = {}) {
    const auto events = source.read_events(query);
    if (!events) return events.error().message;
    std::string text;
    for (const bus::Dict& event : *events) text += text_of(event, "event_id").back();
    return text;
  }

  RecordPlace place() const { return {.config = dir_ / "conf"}; }

  fs::path dir_;
};

TEST_F(ARecord, ComesFromTheLedgerWithoutADaemon) {
  write({end(1), end(2)});

  auto source = open();

  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(numbers(*source), "21");
  EXPECT_EQ(numbers(*source, {.until = WallTime(std::chrono::seconds{kNow + 1})}), "1");
  EXPECT_EQ(source->to_json()["kind"], "ledger");
  EXPECT_EQ(source->to_json()["path"], ledger().string());
  EXPECT_THAT(source->to_text(), HasSubstr(ledger().string()));
  EXPECT_THAT(source->take_warnings(), IsEmpty());
}

TEST_F(ARecord, ThatCannotBeReadSaysWhatWasTried) {
  const auto source = open();

  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, AllOf(HasSubstr(ledger().string()), HasSubstr("No such file")));
}

TEST_F(ARecord, OfOtherHostsNeedsTheSharedStore) {
  write({end(1)});

  EXPECT_THAT(open({.host = "node2"}).error().message, HasSubstr("PostgresUri="));
  EXPECT_THAT(open({.all_hosts = true}).error().message, HasSubstr("PostgresUri="));
}

TEST_F(ARecord, IsThisHostsOwnWhileTheSharedStoreIsAway) {
  write({end(1)});
  configure("[PostgreSQL]\nPostgresUri=host=" + dir_.string() + " dbname=none\n");

  auto source = open();

  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(numbers(*source), "1");
  EXPECT_THAT(source->take_warnings(), ElementsAre(AllOf(HasSubstr("connect to PostgreSQL"), Not(HasSubstr("\n")))));
  EXPECT_FALSE(open({.all_hosts = true})) << "nobody else knows of other hosts";
}

TEST(MergedEvents, AreInOrderAndOnce) {
  const auto event = [](const char* id, std::uint64_t at) {
    return bus::Dict{{"event_id", {std::string(id)}}, {"occurred_at", {at}}};
  };

  const auto all = merge_events({event("d", 4), event("b", 2), event("a", 2)}, {event("c", 3), event("b", 2)});

  std::string ids;
  for (const bus::Dict& dict : all) ids += text_of(dict, "event_id");
  EXPECT_EQ(ids, "dcba");
}

// ---- with PostgreSQL ----

class ASharedRecord : public ARecord {
 protected:
  void SetUp() override {
    ASSERT_EQ(server_.problem(), "");
    static int number = 0;
    schema_ = "test_" + std::to_string(++number);
    configure("[PostgreSQL]\nPostgresUri=" + server_.uri() + "\nSearchPath=" + schema_ + "\n");
    target_.uri = server_.uri();
    target_.schemas = {schema_};
  }
  postgres::Connection connect() {
    auto connection = postgres::Connection::open(target_);
    EXPECT_TRUE(connection) << connection.error().message;
    return std::move(*connection);
  }
  void ship(const std::vector<EventRecord>& records) {
    auto connection = connect();
    ASSERT_TRUE(postgres::migrate(connection, kMigrations));
    std::vector<postgres::OutboxEvent> events;
    for (const EventRecord& record : records) events.push_back({std::int64_t(events.size() + 1), record});
    const auto shipped = postgres::insert_events(connection, {records[0].host, "ledger", 0, events});
    ASSERT_TRUE(shipped) << shipped.error().message;
    ASSERT_EQ(shipped->inserted, records.size());
  }

  testing::PrivatePostgres& server_ = testing::PrivatePostgres::shared();
  std::string schema_;
  postgres::Target target_;
};

TEST_F(ASharedRecord, IsOneWithTheLedgerThatIsAhead) {
  ship({end(1), end(2)});
  write({end(2), end(3)});

  auto source = open();

  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(numbers(*source), "321");
  EXPECT_EQ(numbers(*source, {.limit = 2}), "32");
  EXPECT_EQ(source->to_json()["kind"], "postgresql");
  EXPECT_EQ(source->to_json()["host"], this_host());
  EXPECT_EQ(source->to_json()["ledger"], ledger().string());
  EXPECT_THAT(source->take_warnings(), IsEmpty());
}

TEST_F(ASharedRecord, GivesTheSameEventAsTheLedger) {
  ship({end(1)});
  auto shared = open();
  ASSERT_TRUE(shared) << shared.error().message;
  auto from_shared = shared->read_events({});
  fs::remove(ledger());
  write({end(1)});
  configure("");
  auto own = open();
  ASSERT_TRUE(own) << own.error().message;
  auto from_ledger = own->read_events({});

  ASSERT_TRUE(from_shared && from_ledger);
  ASSERT_EQ(from_shared->size(), 1U);
  ASSERT_EQ(from_ledger->size(), 1U);
  // An object of JSON has no order; the texts sort by it.
  EXPECT_EQ(nlohmann::json(record_to_json(from_shared->front())), nlohmann::json(record_to_json(from_ledger->front())));
}

TEST_F(ASharedRecord, HasOtherHosts) {
  EventRecord other = end(5);
  other.host = "node2";
  ship({end(1)});
  ship({other});
  write({end(1), end(2)});

  auto all = open({.all_hosts = true});
  auto one = open({.host = "node2"});

  ASSERT_TRUE(all && one);
  EXPECT_EQ(numbers(*all), "521");
  EXPECT_TRUE(all->is_shared());
  EXPECT_EQ(numbers(*one), "5");
  EXPECT_EQ(one->to_json()["host"], "node2");
  EXPECT_FALSE(one->to_json().contains("ledger"));
}

TEST_F(ASharedRecord, WithoutOurTablesSaysSo) {
  write({end(1)});

  auto source = open();

  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(numbers(*source), "1");
  EXPECT_THAT(source->take_warnings(), ElementsAre(HasSubstr("analysisctl migrate")));
}

TEST_F(ASharedRecord, ThatCannotBeReadIsLeftForThisHostsOwn) {
  ship({end(1)});
  write({end(2)});
  auto source = open();
  auto all = open({.all_hosts = true});
  auto one = open({.host = this_host()});
  ASSERT_TRUE(source && all && one);
  server_.stop();

  EXPECT_EQ(numbers(*source), "2");
  EXPECT_THAT(source->take_warnings(),
              ElementsAre(AllOf(HasSubstr("PostgreSQL"), HasSubstr("this host's own record"), Not(HasSubstr("\n")))));
  EXPECT_EQ(numbers(*source), "2");
  EXPECT_THAT(source->take_warnings(), IsEmpty()) << "it is said once";
  EXPECT_EQ(source->to_json()["kind"], "ledger");
  EXPECT_FALSE(all->read_events({})) << "nobody else knows of other hosts";
  EXPECT_FALSE(one->read_events({}));
  server_.start_again();
}

// ---- the commands ----

/// What a command says and returns.
struct Said {
  int status;
  std::string out, err;
};
template <class Command>
Said say(Command&& command) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const int status = command();
  std::fflush(stdout);
  return {status, ::testing::internal::GetCapturedStdout(), ::testing::internal::GetCapturedStderr()};
}

constexpr Common kJson{.json = JsonStyle::kShort};

TEST_F(ARecord, IsPrintedOldestFirstAndSaysWhereItIsFrom) {
  write({end(1), end(2)});

  const auto people = say([&] { return events_command({}, {}, place()); });
  EXPECT_EQ(people.status, 0) << people.err;
  EXPECT_LT(people.out.find("TIME"), people.out.find("nightly import"));
  EXPECT_THAT(people.out, HasSubstr("From the ledger of this host (" + ledger().string() + ")."));
  EXPECT_EQ(people.err, "");

  const auto programs = say([&] { return events_command(kJson, {.limit = 1}, place()); });
  EXPECT_EQ(Json::parse(programs.out)["event_id"], uuid('e', 2)) << "a line for each event, nothing else";
  EXPECT_THAT(programs.err, HasSubstr("ledger"));

  EXPECT_EQ(say([&] { return events_command({.legend = false}, {.id = "other"}, place()); }).out, "");
}

TEST_F(ARecord, IsPrintedSafely) {
  EventRecord hostile = end(1);
  hostile.registered_as = "a\x1b[2J\nb\xff";
  hostile.cmdline = "x\nMESSAGE=forged\r\x07";
  hostile.processes = {{1, 1, "\x1b]0;title\x07", kMiB}};
  hostile.details = {{"cause", std::string("\x1b[31m")}};
  write({hostile});
  const std::string id = "a\x1b[2J\nb\xEF\xBF\xBD";

  for (const auto& said :
       {say([&] { return events_command({}, {}, place()); }), say([&] { return explain_command({}, id, "", place()); }),
        say([&] { return advise_command({}, {.id = "a*"}, place()); })}) {
    EXPECT_EQ(said.status, 0) << said.err;
    for (const char* raw : {"\x1b", "\x07", "\r", "\nMESSAGE"}) EXPECT_THAT(said.out, Not(HasSubstr(raw)));
  }
  const auto json = Json::parse(say([&] { return explain_command(kJson, id, "", place()); }).out);
  EXPECT_EQ(json["end"]["cmdline"], hostile.cmdline);
}

TEST_F(ARecord, ExplainsTheLastRunOrTheOneThatIsNamed) {
  write({end(1), end(2)});

  const auto last = Json::parse(say([&] { return explain_command(kJson, "nightly import", "", place()); }).out);
  EXPECT_EQ(last["run_id"], uuid('a', 2));
  EXPECT_EQ(last["source"]["kind"], "ledger");
  EXPECT_EQ(last["other_runs"][0]["run_id"], uuid('a', 1));
  const auto text = say([&] { return explain_command({}, "nightly import", uuid('a', 1), place()); }).out;
  EXPECT_THAT(text, AllOf(HasSubstr("nightly import was ended: memory"), HasSubstr("Run " + uuid('a', 1) + " on "),
                          HasSubstr(uuid('a', 2)), HasSubstr("What to change:"), HasSubstr("From the ledger")));
}

TEST_F(ARecord, SaysWhereItLookedForWhatIsNotThere) {
  write({end(1)});

  const auto unknown = say([&] { return explain_command({}, "x\n", "", place()); });
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, AllOf(HasSubstr("no run of \"x\\x0a\""), HasSubstr(ledger().string())));
  EXPECT_EQ(say([&] { return explain_command({}, "nightly import", uuid('a', 9), place()); }).status, 1);
  EXPECT_THAT(say([&] { return explain_command({}, "x", "'; DROP", place()); }).err, HasSubstr("is no run id"));
  const auto none = say([&] { return advise_command({}, {.id = "other*"}, place()); });
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr(ledger().string()));
}

TEST_F(ARecord, AdvisesByPatternAndByLabel) {
  EventRecord registered = end(3);
  registered.kind = EventKind::kRegistered;
  registered.reason.reset();
  registered.run_id = uuid('a', 1);
  registered.details = {{"label_team", std::string("astro")}};
  write({end(1), end(2), registered});

  const auto all = Json::parse(say([&] { return advise_command(kJson, {.id = "night*"}, place()); }).out);
  EXPECT_EQ(all["runs"], 2);
  EXPECT_EQ(all["source"]["kind"], "ledger");
  const auto exact = Json::parse(say([&] { return advise_command(kJson, {.id = "nightly import"}, place()); }).out);
  EXPECT_EQ(exact["runs"], 2);
  const auto labelled = Json::parse(say([&] {
                                      return advise_command(kJson, {.label = {{"team", "astro"}}}, place());
                                    }).out);
  EXPECT_EQ(labelled["runs"], 1);
}

TEST_F(ARecord, IsMigratedWhereThereIsALedger) {
  MigrateOptions options{.config = dir_ / "conf"};
  EXPECT_THAT(say([&] { return migrate_command({}, options); }).out, HasSubstr("there is none yet"));
  write({end(1)});

  const auto done = say([&] { return migrate_command({}, options); });

  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr(ledger().string() + ": up to date"), HasSubstr("PostgreSQL: none")));
}

TEST_F(ASharedRecord, IsMigratedOnce) {
  MigrateOptions options{.config = dir_ / "conf", .migrations = kMigrations};

  const auto first = say([&] { return migrate_command(kJson, options); });
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_EQ(Json::parse(first.out)["postgresql"]["applied"][0], "0001_watchdog.sql");
  const auto second = say([&] { return migrate_command({}, options); });
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_THAT(second.out, HasSubstr("up to date, version " + std::to_string(postgres::kSchemaVersion)));
}

TEST_F(ASharedRecord, ThatCannotBeMigratedIsAnError) {
  MigrateOptions options{.config = dir_ / "conf", .postgres = "host=" + dir_.string()};

  const auto said = say([&] { return migrate_command({}, options); });

  EXPECT_EQ(said.status, 1);
  EXPECT_THAT(said.err, HasSubstr("connect to PostgreSQL"));
}

TEST_F(ARecord, IsPruned) {
  write({end(1), end(2)});
  PruneOptions options{.config = dir_ / "conf", .older_than = "@" + std::to_string(kNow + 2)};

  const auto said = say([&] { return prune_command(kJson, options); });

  EXPECT_EQ(said.status, 0) << said.err;
  EXPECT_EQ(Json::parse(said.out)["deleted"], 1);
  auto source = open();
  ASSERT_TRUE(source);
  EXPECT_EQ(numbers(*source), "2");
}

TEST_F(ARecord, IsNotPrunedOfWhatTheSharedStoreDoesNotHave) {
  write({end(1)});
  configure("[PostgreSQL]\nPostgresUri=host=" + dir_.string() + "\n");

  const auto said = say([&] { return prune_command(kJson, {.config = dir_ / "conf", .older_than = "1s"}); });

  EXPECT_EQ(said.status, 0) << said.err;
  EXPECT_EQ(Json::parse(said.out)["deleted"], 0);
  EXPECT_THAT(said.err, HasSubstr("all are kept"));
}

TEST_F(ARecord, IsNotPrunedForEver) {
  write({end(1)});
  configure("Retention=infinity\n");

  EXPECT_EQ(Json::parse(say([&] { return prune_command(kJson, {.config = dir_ / "conf"}); }).out)["deleted"], 0);
}

TEST(OlderThan, IsASpanOrAMoment) {
  const WallTime now(std::chrono::seconds{kNow});

  EXPECT_EQ(parse_older_than("90d", now).value(), now - std::chrono::days{90});
  EXPECT_EQ(parse_older_than("@5", now).value(), WallTime(std::chrono::seconds{5}));
  EXPECT_EQ(parse_older_than("-1h", now).value(), now - std::chrono::hours{1});
  for (const char* text : {"", "90", "infinity", "+1h", "soon", "tomorrow"}) {
    EXPECT_FALSE(parse_older_than(text, now)) << text;
  }
}

}  // namespace
}  // namespace aw::cli
