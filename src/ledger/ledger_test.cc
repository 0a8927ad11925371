// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

#include <gmock/gmock.h>
#include <poll.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>

#include "ledger/ledger_fixture.h"
#include "ledger/ledger_reader.h"
#include "testing/records.h"

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using supervise::EventRecord;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::full_event;
using testing::full_run;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using testing::told;

bool becomes_unhealthy(Ledger& ledger) {
  return comes_true(ledger, [&] { return ledger.wait_until_opened(0s) && !ledger.healthy(); });
}

/// Says what it says of a slow disk as long as it works down a long queue, and this once it can't go on.
bool comes_to_say(Ledger& ledger, const std::string& what) {
  return comes_true(ledger, [&] { return ledger.problem().find(what) != std::string::npos; });
}

EventRecord event_at(const std::string& id, std::int64_t second) {
  EventRecord event = full_event(id);
  event.occurred_at = WallTime(std::chrono::seconds{1'790'000'000 + second});
  return event;
}

class ALedger : public ::testing::Test {
 protected:
  ALedger() {
    std::string pattern = (fs::temp_directory_path() / "ledger-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    options_.path = dir_ / "state/ledger.db";
    options_.retry = 20ms;
    options_.patience = 10min;  // On a busy machine a write takes what it takes.
  }
  ~ALedger() override { fs::remove_all(dir_); }

  std::unique_ptr<Ledger> open() const { return std::make_unique<Ledger>(options_); }

  std::vector<std::string> ids(const EventQuery& query = {}) const {
    LedgerReader reader(options_.path);
    const auto events = reader.read_events(query);
    EXPECT_TRUE(events) << events.error().message;
    std::vector<std::string> found;
    if (events) {
      for (const EventRecord& event : *events) found.push_back(event.event_id);
    }
    return found;
  }
  std::vector<supervise::RunRow> runs() const {
    LedgerReader reader(options_.path);
    auto rows = reader.read_runs();
    EXPECT_TRUE(rows) << rows.error().message;
    return rows ? *std::move(rows) : std::vector<supervise::RunRow>();
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(options_.path.parent_path())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  Database database() const {
    auto opened = Database::open(options_.path, Database::Access::kReadWrite, 10'000);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  std::int64_t number(const char* sql) const {
    Database own = database();
    const auto found = own.read_number(sql);
    EXPECT_TRUE(found) << found.error().message;
    return found.value_or(-1);
  }
  /// A ledger with events, closed again.
  void write_some(int count) const {
    const auto ledger = open();
    for (int i = 0; i < count; ++i) ledger->write(event_at("old-" + std::to_string(i), i));
    EXPECT_TRUE(becomes_durable(*ledger));
  }

  fs::path dir_;
  LedgerOptions options_;
};

TEST_F(ALedger, IsNotReadForLongerThanTheLimitOfTime) {
  write_some(2000);
  LedgerReader reader(options_.path);
  EXPECT_EQ(reader.read_events({.limit = 5000}).value().size(), 2000U);

  reader.set_time_limit(Span(0));
  auto cut = reader.read_events({.limit = 5000});

  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, std::errc::timed_out);
  reader.set_time_limit(kForever);
  EXPECT_EQ(reader.read_events({.limit = 5000}).value().size(), 2000U);
}

TEST_F(ALedger, GivesBackWhatWasWrittenNewestFirst) {
  const auto ledger = open();
  for (int i = 0; i < 3; ++i) ledger->write(event_at("e" + std::to_string(i), i));

  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("e2", "e1", "e0"));
  LedgerReader reader(options_.path);
  const auto events = reader.read_events({.limit = 1});
  ASSERT_TRUE(events);
  EXPECT_EQ(told(events->at(0)), told(event_at("e2", 2)));
  EXPECT_EQ(ledger->lost(), 0U);
  EXPECT_THAT(ledger->problem(), IsEmpty());
  EXPECT_THAT(ledger->take_notices(), IsEmpty());
}

TEST_F(ALedger, TellsWhichRunsWereLiveToWhoCouldNotWaitForIt) {
  const supervise::RunRow row = full_run("r");
  EventRecord event = event_at("e", 1);
  event.run_id = row.run_id;
  event.registered_as = row.registered_as;
  {
    const auto before = open();
    before->begin_run(row);
    before->write(event);
    before->write(event_at("another", 2));
    ASSERT_TRUE(becomes_durable(*before));
  }
  const auto ledger = open();
  EXPECT_FALSE(ledger->take_runs());

  ledger->request_runs();

  std::optional<LiveRuns> runs;
  ASSERT_TRUE(comes_true(*ledger, [&] { return runs || (runs = ledger->take_runs()); }));
  ASSERT_THAT(runs->rows, SizeIs(1));
  EXPECT_EQ(runs->rows[0].run_id, row.run_id);
  EXPECT_THAT(runs->event_ids, ElementsAre("e"));
  EXPECT_FALSE(ledger->take_runs());
}

TEST_F(ALedger, HasAnIdOfItsOwnThatEveryPieceOfItSays) {
  const auto ledger = open();
  for (int i = 0; i < 3; ++i) ledger->write(event_at("e" + std::to_string(i), i));
  ASSERT_TRUE(becomes_durable(*ledger));
  LedgerReader reader(options_.path);

  const auto outbox = reader.read_outbox(1, 1);

  ASSERT_TRUE(outbox) << outbox.error().message;
  EXPECT_THAT(outbox->ledger_id, SizeIs(32));
  EXPECT_EQ(outbox->ledger_id, reader.read_ledger_id().value());
  EXPECT_EQ(outbox->newest, 3);
  EXPECT_EQ(outbox->up_to, 2);
  ASSERT_THAT(outbox->events, SizeIs(1));
  EXPECT_EQ(outbox->events[0].event.event_id, "e1");
  EXPECT_EQ(ledger->extent().ledger_id, outbox->ledger_id);
}

TEST_F(ALedger, ThatTakesThePlaceOfAnotherHasAnotherId) {
  write_some(1);
  LedgerReader reader(options_.path);
  const std::string before = reader.read_ledger_id().value();
  fs::remove_all(options_.path.parent_path());

  write_some(2);

  const auto outbox = reader.read_outbox(0, 10);
  ASSERT_TRUE(outbox) << outbox.error().message;
  EXPECT_NE(outbox->ledger_id, before);
  EXPECT_THAT(outbox->events, SizeIs(2));
}

TEST_F(ALedger, TellsHowManyEventsAreAboveANumber) {
  const auto ledger = open();
  ASSERT_TRUE(ledger->wait_until_opened(testing::kPatience));
  EXPECT_EQ(ledger->extent().above(0), 0U);
  for (int i = 0; i < 5; ++i) ledger->write(event_at("e" + std::to_string(i), i));

  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_EQ(ledger->extent().above(0), 5U);
  EXPECT_EQ(ledger->extent().above(3), 2U);
  EXPECT_EQ(ledger->extent().above(5), 0U);
  EXPECT_EQ(ledger->extent().above(9), 0U);
  EXPECT_EQ((Extent{"", 101, 105}.above(0)), 5U);  // What has been pruned is not waiting.
}

TEST_F(ALedger, IsForItsOwnerAndGroup) {
  write_some(1);

  struct stat status {};
  for (const char* name : {"ledger.db", "ledger.db-wal", "ledger.db-shm"}) {
    ASSERT_EQ(::stat((options_.path.parent_path() / name).c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 07777U, 0640U) << name;
  }
  ASSERT_EQ(::stat(options_.path.parent_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0750U);
}

TEST_F(ALedger, HoldsAnEventOnce) {
  const auto ledger = open();
  ledger->write(event_at("a", 0));
  ASSERT_TRUE(becomes_durable(*ledger));
  ledger->write(event_at("a", 5));
  ledger->write(event_at("b", 1));
  ledger->write(event_at("b", 6));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("b", "a"));
}

TEST_F(ALedger, FindsTheEventsOfOneRun) {
  const auto ledger = open();
  EventRecord other = event_at("b", 1);
  other.run_id = "other";
  ledger->write(event_at("a", 0));
  ledger->write(other);
  ASSERT_TRUE(becomes_durable(*ledger));
  LedgerReader reader(options_.path);

  const auto events = reader.read_events({.analysis_id = other.registered_as, .run_id = "other"});

  ASSERT_TRUE(events) << events.error().message;
  ASSERT_THAT(*events, SizeIs(1));
  EXPECT_EQ(events->front().event_id, "b");
}

TEST_F(ALedger, CountsKillsByReasonAndQuarterOfAnHour) {
  const auto ledger = open();
  const auto write_end = [&](const std::string& id, Reason reason, std::chrono::seconds at) {
    EventRecord end = testing::full_event(id);
    end.kind = EventKind::kEnded;
    end.reason = reason;
    end.occurred_at = WallTime(std::chrono::seconds{1'700'000'100} + at);  // 22:15:00 UTC
    ledger->write(end);
  };
  write_end("before", Reason::kMemory, -901s);
  write_end("a", Reason::kMemory, -1s);
  write_end("b", Reason::kMemory, 0s);
  write_end("c", Reason::kMemory, 899s);
  write_end("d", Reason::kWallClock, 899s);
  write_end("e", Reason::kExited, 10s);
  EventRecord ending = testing::full_event("f");
  ending.kind = EventKind::kEnding;
  ending.occurred_at = WallTime(1'700'000'100s);
  ledger->write(ending);
  ASSERT_TRUE(becomes_durable(*ledger));

  const auto counts = LedgerReader(options_.path).count_kills(WallTime(1'700'000'100s - 900s));

  ASSERT_TRUE(counts) << counts.error().message;
  std::vector<std::string> told;
  for (const KillCount& kill : *counts) told.push_back(kill.at + " " + kill.reason + " " + std::to_string(kill.count));
  EXPECT_THAT(told, ElementsAre("2023-11-14T22:00:00Z memory 1", "2023-11-14T22:15:00Z memory 2",
                                "2023-11-14T22:15:00Z wall-clock 1"));
}

TEST_F(ALedger, KeepsTheOrderInWhichEntriesCame) {
  constexpr int kCount = 10'000;
  const auto ledger = open();
  for (int i = 0; i < kCount; ++i) ledger->write(event_at(std::to_string(i), -i));
  ASSERT_TRUE(becomes_durable(*ledger));

  LedgerReader reader(options_.path);
  const auto first = reader.read_events_after(0, 9'000);
  ASSERT_TRUE(first);
  ASSERT_THAT(*first, SizeIs(9'000));
  const auto rest = reader.read_events_after(first->back().seq, 100'000);
  ASSERT_TRUE(rest);
  ASSERT_THAT(*rest, SizeIs(1'000));
  for (int i = 0; i < kCount; ++i) {
    const auto& stored =
        i < 9'000 ? first->at(static_cast<std::size_t>(i)) : rest->at(static_cast<std::size_t>(i) - 9'000);
    ASSERT_EQ(stored.event.event_id, std::to_string(i));
  }
  EXPECT_EQ(reader.read_newest_seq().value_or(0), rest->back().seq);
}

TEST_F(ALedger, HasAsManyNewestEventsAsAreAskedForHoweverTheirNumbersAre) {
  const auto ledger = open();
  for (int i = 0; i < 30; ++i) {
    for (int time = 0; time < 3; ++time) ledger->write(event_at(std::to_string(i), -i));  // Each is one event.
  }
  ASSERT_TRUE(becomes_durable(*ledger));
  LedgerReader reader(options_.path);
  ASSERT_GT(reader.read_newest_seq().value_or(0), 60) << "there are no gaps";
  const auto newest = [&](std::size_t count) {
    std::string told;
    EXPECT_TRUE(reader.visit_newest(count, [&](const EventRecord& event) { told += event.event_id + " "; }));
    return told;
  };

  EXPECT_EQ(newest(5), "25 26 27 28 29 ");
  EXPECT_THAT(newest(29), ::testing::StartsWith("1 2 3 "));
  EXPECT_THAT(newest(30), ::testing::StartsWith("0 1 2 "));
  EXPECT_THAT(newest(10'000), ::testing::StartsWith("0 1 2 "));
}

TEST_F(ALedger, IsReadAgainAfterARestart) {
  {
    const auto ledger = open();
    ledger->write(event_at("before", 0));
    ledger->begin_run(full_run("r"));
  }  // Writes what is queued.

  const auto ledger = open();
  EXPECT_TRUE(ledger->wait_until_opened(testing::kPatience));
  EXPECT_TRUE(ledger->healthy());
  ledger->write(event_at("after", 1));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("after", "before"));
  EXPECT_THAT(runs(), ElementsAre(full_run("r")));
  EXPECT_THAT(ledger->take_notices(), IsEmpty());
}

TEST_F(ALedger, KnowsTheRunsThatAreLive) {
  const auto ledger = open();
  supervise::RunRow changed = full_run("b");
  changed.limits.memory = Bytes(5);
  changed.limits.headroom.reset();
  changed.state = State::kUnkillable;
  ledger->begin_run(full_run("a"));
  ledger->begin_run(full_run("b"));
  ledger->change_run(changed);
  ledger->end_run("a");
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(runs(), ElementsAre(changed));
  EXPECT_EQ(number("SELECT monitored_count = 1 AND grace_count = 1 FROM watchdog_status WHERE host = 'node1'"), 1);
  EXPECT_EQ(number("SELECT count(*) FROM analyses WHERE id = 'nightly import'"), 1);
}

TEST_F(ALedger, FindsWhatIsAskedFor) {
  const auto ledger = open();
  for (int i = 0; i < 6; ++i) {
    EventRecord event = event_at("e" + std::to_string(i), i);
    event.registered_as = i < 3 ? "a" : "b";
    event.kind = i % 2 == 0 ? EventKind::kEnding : EventKind::kEnded;
    event.reason = i == 5 ? Reason::kExited : Reason::kWallClock;
    event.uid = i == 0 ? 7 : 8;
    ledger->write(event);
  }
  ASSERT_TRUE(becomes_durable(*ledger));
  const auto at = [](std::int64_t second) { return event_at("", second).occurred_at; };

  EXPECT_THAT(ids({.since = at(4)}), ElementsAre("e5", "e4"));
  EXPECT_THAT(ids({.since = at(1), .until = at(2)}), ElementsAre("e2", "e1"));
  EXPECT_THAT(ids({.analysis_id = "a", .limit = 2}), ElementsAre("e2", "e1"));
  EXPECT_THAT(ids({.reason = Reason::kExited}), ElementsAre("e5"));
  EXPECT_THAT(ids({.analysis_id = "b", .kind = EventKind::kEnding}), ElementsAre("e4"));
  EXPECT_THAT(ids({.uid = 7}), ElementsAre("e0"));
  EXPECT_THAT(ids({.analysis_id = "' OR 1=1 --"}), IsEmpty());
  EXPECT_THAT(ids({.limit = 0}), IsEmpty());
}

TEST_F(ALedger, LeavesADeletedAnalysisDeleted) {
  const auto ledger = open();
  EventRecord registered = event_at("registered", 0);
  registered.kind = EventKind::kRegistered;
  ledger->write(registered);
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE analysis_id = 'nightly import'"), 1);
  {
    Database host = database();
    ASSERT_TRUE(host.execute("PRAGMA foreign_keys=ON; DELETE FROM analyses"));
  }

  ledger->write(event_at("ended", 1));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE analysis_id IS NULL"), 2);
  EXPECT_EQ(number("SELECT count(*) FROM analyses"), 0);
}

TEST_F(ALedger, LeavesADeletedAnalysisDeletedWhenItsRunIsAdopted) {
  const auto ledger = open();
  EventRecord event = event_at("registered", 0);
  event.kind = EventKind::kRegistered;
  supervise::RunRow row = full_run(event.run_id);
  row.registered_as = event.registered_as;
  ledger->begin_run(row);
  ledger->write(event);
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_processes WHERE analysis_id = registered_as"), 1);
  ASSERT_TRUE(database().execute("PRAGMA foreign_keys=ON; DELETE FROM analyses"));

  event.event_id = "adopted";
  event.kind = EventKind::kAdopted;
  ledger->begin_run(row);
  ledger->write(event);
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_EQ(number("SELECT count(*) FROM analyses"), 0);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_processes WHERE analysis_id IS NULL"), 1);
}

TEST_F(ALedger, AddsTheAnalysisOfARunThatIsAdoptedWithoutARow) {
  const auto ledger = open();
  EventRecord event = event_at("adopted", 0);
  event.kind = EventKind::kAdopted;
  supervise::RunRow row = full_run(event.run_id);
  row.registered_as = event.registered_as;

  ledger->begin_run(row);
  ledger->write(event);
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE analysis_id = registered_as"), 1);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_processes WHERE analysis_id = registered_as"), 1);
}

TEST_F(ALedger, AddsNothingToTheHostsAnalyses) {
  ASSERT_TRUE(create_file(options_.path));
  ASSERT_TRUE(
      database().execute("CREATE TABLE analyses (id TEXT PRIMARY KEY, title TEXT NOT NULL);"
                         "INSERT INTO analyses VALUES ('known', 'x')"));
  const auto ledger = open();
  for (const char* id : {"known", "unknown"}) {
    EventRecord event = event_at(id, 0);
    event.kind = EventKind::kRegistered;
    event.registered_as = id;
    ledger->write(event);
  }
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_EQ(number("SELECT count(*) FROM analyses"), 1);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE analysis_id = 'known'"), 1);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE analysis_id IS NULL"), 1);
}

TEST_F(ALedger, LeavesOutARefusedEntryAndSaysSo) {
  write_some(0);
  ASSERT_TRUE(database().execute("CREATE UNIQUE INDEX test_only ON watchdog_events (comm)"));
  const auto ledger = open();
  int number_of_event = 0;
  for (const char* comm : {"one", "one", "two"}) {
    EventRecord event = event_at("e-" + std::to_string(++number_of_event), 0);
    event.comm = comm;
    ledger->write(event);
  }
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), SizeIs(2));
  EXPECT_EQ(ledger->lost(), 1U);
  EXPECT_THAT(ledger->take_notices(), ElementsAre(AllOf(HasSubstr("is refused"), HasSubstr("comm"))));
}

// ---- What may be wrong with the file ----

TEST_F(ALedger, RefusesASchemaThatIsNewerAndWaits) {
  write_some(2);
  const std::int64_t version = database().read_number("PRAGMA user_version").value();
  ASSERT_TRUE(database().execute("PRAGMA user_version = 4711"));

  const auto ledger = open();
  ledger->write(event_at("new", 9));
  ASSERT_TRUE(becomes_unhealthy(*ledger));

  EXPECT_THAT(ledger->problem(), AllOf(HasSubstr("ledger.db"), HasSubstr("version 4711"), HasSubstr("newer")));
  EXPECT_EQ(ledger->waiting(), 1U);
  LedgerReader reader(options_.path);
  EXPECT_THAT(reader.read_events({}).error().message, HasSubstr("version 4711"));

  ASSERT_TRUE(database().execute(("PRAGMA user_version = " + std::to_string(version)).c_str()));
  EXPECT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ids(), ElementsAre("new", "old-1", "old-0"));
}

TEST_F(ALedger, SetsAFileThatIsNoDatabaseAside) {
  fs::create_directories(options_.path.parent_path());
  const std::string garbage(100'000, 'g');
  std::ofstream(options_.path) << garbage;

  const auto ledger = open();
  ledger->write(event_at("new", 0));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("new"));
  EXPECT_EQ(ledger->renewals(), 1U);
  const auto notices = ledger->take_notices();
  ASSERT_THAT(notices, SizeIs(1));
  const std::string marker = "set aside as ";
  const auto from = notices[0].find(marker) + marker.size();
  const std::string aside = notices[0].substr(from, notices[0].find(", ", from) - from);
  EXPECT_THAT(aside, ::testing::MatchesRegex(".*/ledger\\.db\\.corrupt-[0-9]{8}T[0-9]{6}Z"));
  std::ifstream file(aside);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), garbage);
}

/// Overwrites everything but the first page, as a failing disk would.
void damage(const fs::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096);
  const std::string garbage(static_cast<std::size_t>(fs::file_size(path)) - 4096, '\xA5');
  file << garbage;
}

TEST_F(ALedger, SetsADamagedFileAsideWhenItIsOpened) {
  write_some(1000);
  damage(options_.path);

  const auto ledger = open();
  ASSERT_TRUE(becomes_durable(*ledger));
  ledger->write(event_at("new", 0));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("new"));
  EXPECT_THAT(files(), Contains(HasSubstr(".corrupt-")));
  EXPECT_THAT(ledger->take_notices(), ElementsAre(HasSubstr("set aside as")));
}

TEST_F(ALedger, SetsAFileAsideThatIsDamagedWhileItIsOpen) {
  const auto ledger = open();
  for (int i = 0; i < 1000; ++i) ledger->write(event_at("old-" + std::to_string(i), i));
  ASSERT_TRUE(becomes_durable(*ledger));
  {
    Database other = database();  // Its write makes the ledger read the file anew.
    ASSERT_TRUE(other.execute("UPDATE watchdog_owner SET owner = owner; PRAGMA wal_checkpoint(TRUNCATE)"));
  }
  damage(options_.path);

  ledger->write(event_at("new", 0));
  ASSERT_TRUE(comes_true(*ledger, [&] { return ledger->renewals() == 1 && ledger->waiting() == 0; }));

  EXPECT_THAT(ids(), ElementsAre("new"));
  EXPECT_TRUE(ledger->healthy());
  EXPECT_THAT(ledger->take_notices(), ElementsAre(HasSubstr("set aside as")));
}

TEST_F(ALedger, SetsAFileAsideWhoseLogIsGoneThoughOthersReadIt) {
  Database reader = [this] {
    const auto ledger = open();
    ledger->write(event_at("old", 0));
    EXPECT_TRUE(becomes_durable(*ledger));
    Database other = database();
    EXPECT_TRUE(other.read_number("SELECT count(*) FROM watchdog_events"));
    return other;
  }();
  ASSERT_GT(fs::file_size(options_.path.string() + "-wal"), 0U);
  fs::remove(options_.path.string() + "-wal");

  const auto ledger = open();
  ledger->write(event_at("new", 0));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("new"));
  EXPECT_THAT(files(), Contains(HasSubstr(".corrupt-")));
  EXPECT_THAT(ledger->take_notices(), ElementsAre(HasSubstr("set aside as")));
}

TEST_F(ALedger, NeverTakesThePlaceOfAnEarlierOneThatWasSetAside) {
  fs::create_directories(options_.path.parent_path());
  const WallTime now{std::chrono::seconds{1'790'000'000}};
  std::vector<std::string> names;
  for (const char* text : {"one", "two", "three"}) {
    std::ofstream(options_.path) << text;
    std::ofstream(options_.path.string() + "-wal") << text << " log";
    const auto name = set_aside(options_.path, now);
    ASSERT_TRUE(name) << name.error().message;
    names.push_back(name->filename());
    std::ifstream log(name->string() + "-wal");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(log), {}), std::string(text) + " log");
  }

  EXPECT_THAT(names, ElementsAre("ledger.db.corrupt-20260921T141320Z", "ledger.db.corrupt-20260921T141320Z.2",
                                 "ledger.db.corrupt-20260921T141320Z.3"));
  EXPECT_THAT(files(), SizeIs(6));
}

TEST_F(ALedger, GoesOnInANewFileWhenItsOwnIsRemoved) {
  const auto ledger = open();
  ledger->write(event_at("gone", 0));
  ASSERT_TRUE(becomes_durable(*ledger));
  LedgerReader reader(options_.path);
  ASSERT_TRUE(reader.read_events({}));
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(options_.path.string() + suffix);

  ledger->write(event_at("new", 0));
  ASSERT_TRUE(becomes_durable(*ledger));

  EXPECT_THAT(ids(), ElementsAre("new"));
  EXPECT_EQ(ledger->renewals(), 1U);
  const auto events = reader.read_events({});
  ASSERT_TRUE(events);
  EXPECT_EQ(events->at(0).event_id, "new");
}

TEST_F(ALedger, WaitsForAPlaceToBe) {
  std::ofstream(options_.path.parent_path()) << "a file where the directory should be";
  options_.capacity = 10;
  const auto ledger = open();
  ASSERT_TRUE(becomes_unhealthy(*ledger));

  for (int i = 0; i < 15; ++i) ledger->write(event_at("e" + std::to_string(i), i));
  EXPECT_EQ(ledger->waiting(), 10U);
  EXPECT_EQ(ledger->lost(), 5U);
  EXPECT_THAT(ledger->problem(), AllOf(HasSubstr("Not a directory"), HasSubstr("10 entries wait")));

  fs::remove(options_.path.parent_path());
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ids(), SizeIs(10));
  EXPECT_EQ(ledger->lost(), 5U);
  EXPECT_THAT(ledger->take_notices(), ElementsAre(HasSubstr("5 entries are lost")));
}

/// Nobody in particular, whatever the test runs as, for this thread and those that it starts.
class AsNobody {
 public:
  static constexpr uid_t kId = 65534;

  AsNobody() {
    if (::geteuid() != 0) return;
    ::setfsgid(kId);
    ::setfsuid(kId);  // And with it go the rights to override modes (capabilities(7)).
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
  ~AsNobody() {
    if (::geteuid() != 0) return;
    ::setfsuid(0);
    ::setfsgid(0);
  }
};

TEST_F(ALedger, KeepsItsQueueWhileTheFileIsReadOnly) {
  std::unique_ptr<Ledger> ledger;
  {
    ASSERT_TRUE(::geteuid() != 0 || ::chown(dir_.c_str(), AsNobody::kId, AsNobody::kId) == 0);
    const AsNobody nobody;
    write_some(1);
    fs::permissions(options_.path, fs::perms::owner_read);
    ledger = open();
  }
  ledger->write(event_at("new", 9));
  ASSERT_TRUE(becomes_unhealthy(*ledger));
  EXPECT_THAT(ledger->problem(), HasSubstr("readonly"));
  EXPECT_EQ(ledger->waiting(), 1U);

  fs::permissions(options_.path, fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ids(), ElementsAre("new", "old-0"));
  EXPECT_EQ(ledger->lost(), 0U);
}

TEST_F(ALedger, IsReadByItsGroupWhetherItIsOpenOrNot) {
  if (::geteuid() != 0) GTEST_SKIP() << "to be somebody else needs root";
  fs::permissions(dir_, fs::perms::owner_all | fs::perms::group_all | fs::perms::others_exec);
  const fs::path state = options_.path.parent_path();
  ASSERT_TRUE(fs::create_directory(state));
  ASSERT_EQ(::chown(state.c_str(), 0, AsNobody::kId), 0);
  ASSERT_EQ(::chmod(state.c_str(), 02750), 0);

  auto ledger = open();
  ledger->write(event_at("a", 0));
  ASSERT_TRUE(becomes_durable(*ledger));
  LedgerReader reader(options_.path);
  {
    const AsNobody member;
    EXPECT_THAT(ids(), ElementsAre("a"));
    EXPECT_TRUE(reader.read_events({}));
  }
  ledger->write(event_at("b", 1));
  ASSERT_TRUE(becomes_durable(*ledger));
  {
    const AsNobody member;
    const auto events = reader.read_events({});
    ASSERT_TRUE(events) << events.error().message;
    EXPECT_THAT(*events, SizeIs(2));
  }
  ledger.reset();
  const AsNobody member;
  EXPECT_THAT(ids(), ElementsAre("b", "a"));
  const auto events = reader.read_events({});
  ASSERT_TRUE(events) << events.error().message;
  EXPECT_THAT(*events, SizeIs(2));
}

/// No file of this process may become larger meanwhile.
class LargestFile {
 public:
  explicit LargestFile(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~LargestFile() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(ALedger, KeepsItsQueueWhileWritingFails) {
  const auto ledger = open();
  ASSERT_TRUE(becomes_durable(*ledger));
  {
    const LargestFile limit(300'000);
    for (int i = 0; i < 1000; ++i) ledger->write(event_at("e" + std::to_string(i), i));
    ASSERT_TRUE(comes_to_say(*ledger, "disk I/O error")) << ledger->problem();
    EXPECT_GT(ledger->waiting(), 0U);
    ledger->write(event_at("last", 5000));
  }
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ids({.limit = 5000}), SizeIs(1001));
  EXPECT_EQ(ledger->lost(), 0U);
}

/// Runs `body` in a thread that sees a file system of `bytes` at `where`; false where that is not permitted.
bool with_small_disk(const fs::path& where, std::size_t bytes, const std::function<void()>& body) {
  bool mounted = false;
  std::thread([&] {
    if (::unshare(CLONE_NEWNS) < 0) return;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return;
    const std::string size = "size=" + std::to_string(bytes);
    if (::mount("none", where.c_str(), "tmpfs", 0, size.c_str()) < 0) return;
    mounted = true;
    body();
  }).join();
  return mounted;
}

TEST_F(ALedger, KeepsItsQueueWhileTheDiskIsFull) {
  const bool possible = with_small_disk(dir_, 4 << 20U, [this] {
    const auto ledger = open();
    ledger->write(event_at("first", 0));
    ASSERT_TRUE(becomes_durable(*ledger));
    {
      std::ofstream filler(dir_ / "filler");
      while (filler << std::string(4096, 'x') << std::flush) {
      }
    }
    for (int i = 1; i < 500; ++i) ledger->write(event_at("e" + std::to_string(i), i));
    ASSERT_TRUE(comes_to_say(*ledger, "disk is full")) << ledger->problem();
    EXPECT_GT(ledger->waiting(), 0U);

    fs::remove(dir_ / "filler");

    ASSERT_TRUE(becomes_durable(*ledger));
    EXPECT_THAT(ids({.limit = 5000}), SizeIs(500));
    EXPECT_EQ(ledger->lost(), 0U);
    EXPECT_EQ(ledger->renewals(), 0U);
  });
  if (!possible) GTEST_SKIP() << "a file system of its own needs root";
}

EventRecord extended(const std::string& id) {
  EventRecord event = event_at(id, 0);
  event.kind = EventKind::kExtended;
  return event;
}

TEST_F(ALedger, SaysThatADiskHangs) {
  options_.patience = 2s;
  const auto ledger = open();
  ledger->write(event_at("before", 0));
  ASSERT_TRUE(becomes_durable(*ledger));
  ledger->take_changed();
  {
    Database other = database();
    const auto lock = Transaction::begin(other);
    ASSERT_TRUE(lock);
    ledger->write(event_at("late", 1));
    EXPECT_TRUE(ledger->healthy());

    ASSERT_TRUE(becomes_unhealthy(*ledger));
    EXPECT_THAT(ledger->problem(),
                MatchesRegex(options_.path.string() + " takes no writes: what came .+ ago is not written yet"));
    ledger->write(event_at("later", 2));
    pollfd poll{ledger->changed_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&poll, 1, 0), 1);  // Who is asked for nothing says it all the same.
  }
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ledger->problem(), IsEmpty());
  EXPECT_THAT(ids(), ElementsAre("later", "late", "before"));
}

TEST_F(ALedger, KeepsRoomForTheEndsOfRuns) {
  std::ofstream(options_.path.parent_path()) << "a file where the directory should be";
  options_.capacity = 20;
  const auto ledger = open();
  ASSERT_TRUE(becomes_unhealthy(*ledger));

  for (int i = 0; i < 50; ++i) ledger->write(extended("x" + std::to_string(i)));
  EXPECT_EQ(ledger->waiting(), 18U);
  EXPECT_THAT(ledger->problem(), HasSubstr("18 entries wait, and there is room for no more"));
  ledger->write(event_at("end", 1));
  ledger->end_run("r");
  EXPECT_EQ(ledger->waiting(), 20U);
  EXPECT_EQ(ledger->lost(), 32U);
  ledger->write(event_at("too many", 1));
  EXPECT_EQ(ledger->lost(), 33U);

  fs::remove(options_.path.parent_path());
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ids(), AllOf(SizeIs(19), Contains("end")));
}

TEST_F(ALedger, BoundsTheTextThatWaits) {
  std::ofstream(options_.path.parent_path()) << "a file where the directory should be";
  options_.most_bytes = 100'000;
  const auto ledger = open();
  ASSERT_TRUE(becomes_unhealthy(*ledger));

  for (int i = 0; i < 50; ++i) {
    EventRecord event = extended("x" + std::to_string(i));
    event.details.emplace_back("note", std::string(10'000, 'x'));
    ledger->write(event);
  }
  EXPECT_EQ(ledger->waiting(), 9U);
  EXPECT_THAT(ledger->problem(), HasSubstr("9 entries wait, and there is room for no more"));
  ledger->write(event_at("end", 1));
  EXPECT_EQ(ledger->waiting(), 10U);

  fs::remove(options_.path.parent_path());
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_THAT(ids(), Contains("end"));
  for (int i = 0; i < 9; ++i) ledger->write(extended("y" + std::to_string(i)));  // What is written needs no room.
  ASSERT_TRUE(becomes_durable(*ledger));
  EXPECT_EQ(ledger->lost(), 41U);
}

TEST_F(ALedger, DeletesTheOldestEventsWhenItIsAtItsBound) {
  constexpr int kCount = 50'000;
  options_.most_pages = 2'000;
  const auto ledger = open();
  supervise::RunRow live = full_run("live");
  ledger->begin_run(live);
  EventRecord of_live = event_at("of-live", 0);
  of_live.run_id = "live";
  ledger->write(of_live);
  std::vector<std::string> notices;
  for (int i = 0; i < kCount; ++i) {
    ledger->write(event_at("e" + std::to_string(i), i));
    if (i % 5'000 != 4'999) continue;
    ASSERT_TRUE(becomes_durable(*ledger));
    EXPECT_THAT(ledger->problem(), IsEmpty());
    for (std::string& notice : ledger->take_notices()) notices.push_back(std::move(notice));
    EXPECT_LE(fs::file_size(options_.path), 2'000U * 4096U) << i;
  }

  EXPECT_EQ(ledger->lost(), 0U);
  EXPECT_THAT(notices, Not(IsEmpty()));
  EXPECT_THAT(notices, Each(AllOf(StartsWith(options_.path.string() + " is at its MaxSize=; the oldest "),
                                  HasSubstr(" events were deleted, whether PostgreSQL has them or not"))));
  const std::vector<std::string> kept = ids({.limit = kCount});
  ASSERT_GT(kept.size(), 1'000U);  // And without a gap.
  for (std::size_t i = 0; i + 1 < kept.size(); ++i) ASSERT_EQ(kept[i], "e" + std::to_string(kCount - 1 - int(i)));
  EXPECT_EQ(kept.back(), "of-live");
  EXPECT_THAT(runs(), ElementsAre(live));
  EXPECT_EQ(database().read_text("PRAGMA integrity_check").value_or(""), "ok");
  EXPECT_EQ(ledger->renewals(), 0U);
}

TEST_F(ALedger, AtItsBoundMakesRoomFromTheChangesOfWhoMakesVeryManyAndKeepsOthersEnds) {
  constexpr int kChanges = 50'000;
  options_.most_pages = 2'000;
  const auto ledger = open();
  for (int i = 0; i < 100; ++i) ledger->write(event_at("end-" + std::to_string(i), i));
  ledger->begin_run(full_run("flooder"));
  EventRecord registered = event_at("registered", 100);
  registered.run_id = "flooder";
  registered.kind = EventKind::kRegistered;
  ledger->write(registered);
  for (int i = 0; i < kChanges; ++i) {
    EventRecord change = event_at("change-" + std::to_string(i), 200 + i);
    change.run_id = "flooder";
    constexpr std::array kKinds{EventKind::kExtended, EventKind::kLimitsChanged, EventKind::kOrphanFound,
                                EventKind::kEscaped};
    change.kind = kKinds.at(static_cast<std::size_t>(i) % kKinds.size());
    ledger->write(change);
    if (i % 5'000 != 4'999) continue;
    ASSERT_TRUE(becomes_durable(*ledger));
    ASSERT_THAT(ledger->problem(), IsEmpty());
  }

  EXPECT_EQ(ledger->lost(), 0U);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE event_id LIKE 'end-%'"), 100);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE event_id = 'registered'"), 1);
  EXPECT_GE(number("SELECT count(*) FROM watchdog_events WHERE run_id = 'flooder'"), 101);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE event_id = 'change-49999'"), 1);
}

TEST_F(ALedger, AtItsBoundLosesTheChangesOfLiveRunsWhereThereIsNothingElse) {
  options_.most_pages = 400;
  const auto ledger = open();
  for (int run = 0; run < 100; ++run) ledger->begin_run(full_run("run-" + std::to_string(run)));
  for (int i = 0; i < 300; ++i) {  // Large ones: more than the file holds, and not many commits for a slow disk.
    EventRecord change = event_at("change-" + std::to_string(i), i);
    change.run_id = "run-" + std::to_string(i % 100);
    change.kind = EventKind::kLimitsRestored;
    change.details.emplace_back("note", std::string(10'000, 'x'));
    ledger->write(change);
  }

  ASSERT_TRUE(becomes_durable(*ledger)) << ledger->problem();
  EXPECT_EQ(ledger->lost(), 0U);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE event_id = 'change-299'"), 1);
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_events WHERE event_id = 'change-0'"), 0);
}

TEST_F(ALedger, WaitsAtItsBoundWhileAllEventsAreOfLiveRuns) {
  options_.most_pages = 200;
  const auto ledger = open();
  ledger->begin_run(full_run(full_event("").run_id));
  for (int i = 0; i < 200; ++i) {  // Large ones: the file is full after a few commits, however slow the disk.
    EventRecord event = event_at("e" + std::to_string(i), i);
    event.details.emplace_back("note", std::string(10'000, 'x'));
    ledger->write(event);
  }
  ASSERT_TRUE(comes_to_say(*ledger, "full")) << ledger->problem();
  EXPECT_GT(ledger->waiting(), 0U);
  EXPECT_EQ(ledger->lost(), 0U);
}

TEST_F(ALedger, DeletesNothingOfItsOwnAccordWhenTheDiskIsFull) {
  options_.most_pages = 2'000;
  const bool possible = with_small_disk(dir_, 3 << 20U, [this] {
    const auto ledger = open();
    for (int i = 0; i < 5'000; ++i) ledger->write(event_at("e" + std::to_string(i), i));
    ASSERT_TRUE(comes_to_say(*ledger, "disk is full")) << ledger->problem();
    EXPECT_THAT(ledger->take_notices(), IsEmpty());
    EXPECT_EQ(ledger->extent().first, 1);
    EXPECT_EQ(ledger->lost(), 0U);
  });
  if (!possible) GTEST_SKIP() << "a file system of its own needs root";
}

TEST(TheBoundOfALedger, IsItsSizeInPages) {
  EXPECT_EQ(most_pages_of(kGiB), 262'144U);
  EXPECT_EQ(most_pages_of(Bytes::infinite()), std::nullopt);
  EXPECT_EQ(most_pages_of(Bytes(std::uint64_t{1} << 60U)), 4'294'967'294U);
}

// ---- Retention ----

TEST_F(ALedger, DeletesWhatIsOldButNothingOfALiveRun) {
  const auto ledger = open();
  EventRecord registered = event_at("registered", 0);
  registered.kind = EventKind::kRegistered;
  ledger->write(registered);
  EventRecord other = event_at("other", 0);
  other.kind = EventKind::kRegistered;
  other.registered_as = "other";
  other.run_id = "other";
  ledger->write(other);
  EventRecord started;
  started.event_id = "started";
  started.kind = EventKind::kDaemonStarted;
  ledger->write(started);
  supervise::RunRow live = full_run("live");
  live.registered_as = "live";
  ledger->begin_run(live);
  EventRecord of_live = event_at("of-live", 1);
  of_live.run_id = "live";
  ledger->write(of_live);
  for (int i = 2; i < 3000; ++i) ledger->write(event_at("e" + std::to_string(i), i));
  ASSERT_TRUE(becomes_durable(*ledger));
  ASSERT_EQ(number("SELECT count(*) FROM analyses"), 3);

  ledger->prune({.older_than = event_at("", 2998).occurred_at});
  ASSERT_TRUE(comes_true(*ledger, [&] { return ids({.limit = 5000}).size() == 3; }));

  EXPECT_THAT(ids(), ElementsAre("e2999", "e2998", "of-live"));
  EXPECT_EQ(number("SELECT group_concat(id) = 'live' OR count(*) = 2 FROM analyses"), 1);
  EXPECT_EQ(number("SELECT count(*) FROM analyses WHERE id = 'other'"), 0);
  EXPECT_TRUE(ledger->healthy());
}

TEST_F(ALedger, DeletesNothingThatHasNotBeenShipped) {
  write_some(10);

  const auto deleted = prune(options_.path, {.older_than = event_at("", 100).occurred_at, .up_to_seq = 4});

  EXPECT_EQ(deleted.value_or(-1), 4);
  EXPECT_THAT(ids(), SizeIs(6));
}

TEST_F(ALedger, GivesTheSpaceBack) {
  write_some(5'000);
  (void)number("PRAGMA wal_checkpoint(TRUNCATE)");
  const auto before = fs::file_size(options_.path);

  EXPECT_EQ(prune(options_.path, {.older_than = event_at("", 4'990).occurred_at}).value_or(-1), 4'990);

  (void)number("PRAGMA wal_checkpoint(TRUNCATE)");
  EXPECT_LT(fs::file_size(options_.path), before / 5);
  EXPECT_THAT(ids(), SizeIs(10));
}

TEST_F(ALedger, StaysSmallHoweverLongItIsUsed) {
  constexpr int kCount = 500;
  constexpr std::uintmax_t kMost = 3 << 20U;  // What 500 events need, twice, and what is left free for more.
  const auto ledger = open();
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < kCount; ++i) {
      const int second = round * kCount + i;
      ledger->write(event_at("e" + std::to_string(second), second));
    }
    ledger->prune({.older_than = event_at("", round * kCount).occurred_at});
    ASSERT_TRUE(becomes_durable(*ledger));
    ASSERT_TRUE(comes_true(*ledger, [&] { return number("SELECT count(*) FROM watchdog_events") == kCount; }));

    EXPECT_LT(fs::file_size(options_.path), kMost) << round;
  }
}

// ---- Crashes ----

/// A process that writes events for ever and says through a pipe which are durable; ended by force.
class Writer {
 public:
  Writer(const LedgerOptions& options, int first) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      write_for_ever(options, first, ends[1]);
    }
    ::close(ends[1]);
    reports_.reset(ends[0]);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() { (void)kill_and_read(); }

  void signal(int number) const { ::kill(pid_, number); }
  void wait_for_a_report() {
    int durable = 0;
    if (::read(reports_.get(), &durable, sizeof durable) == sizeof durable) durable_ = durable;
  }
  void wait_until_stopped() const {
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, WUNTRACED), pid_);
    EXPECT_TRUE(WIFSTOPPED(status));
  }

  /// The number below which all events were reported as durable.
  int kill_and_read() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(std::exchange(pid_, 0), nullptr, 0);
      int durable = 0;
      while (::read(reports_.get(), &durable, sizeof durable) == sizeof durable) durable_ = durable;
    }
    return durable_;
  }
  int read_reported() {
    pollfd poll{reports_.get(), POLLIN, 0};
    while (::poll(&poll, 1, 0) > 0) wait_for_a_report();
    return durable_;
  }

 private:
  [[noreturn]] static void write_for_ever(const LedgerOptions& options, int next, int reports) {
    std::mt19937 random(static_cast<unsigned>(next));
    Ledger ledger(options);
    for (;;) {
      const int batch = 1 + static_cast<int>(random() % 40);
      for (int i = 0; i < batch; ++i, ++next) ledger.write(event_at(std::to_string(next), next));
      while (ledger.waiting() > 0) {
        pollfd poll{ledger.changed_fd(), POLLIN, 0};
        (void)::poll(&poll, 1, 1000);
        ledger.take_changed();
      }
      if (::write(reports, &next, sizeof next) != sizeof next) ::_exit(1);
    }
  }

  pid_t pid_ = 0;
  UniqueFd reports_;
  int durable_ = 0;
};

/// How often each event is in the ledger at `path`.
std::map<int, int> counts(const fs::path& path) {
  LedgerReader reader(path);
  const auto events = reader.read_events_after(0, 10'000'000);
  EXPECT_TRUE(events) << events.error().message;
  std::map<int, int> found;
  if (events) {
    for (const StoredEvent& stored : *events) ++found[std::stoi(stored.event.event_id)];
  }
  return found;
}

TEST_F(ALedger, LosesNothingThatItCalledDurableWhenItIsKilled) {
  std::mt19937 random(std::random_device{}());
  std::vector<std::pair<int, int>> promised;  // From, to.
  for (int round = 0; round < 12; ++round) {
    const int first = round * 1'000'000;
    Writer writer(options_, first);
    writer.wait_for_a_report();
    std::this_thread::sleep_for(std::chrono::microseconds{random() % 30'000});
    promised.emplace_back(first, writer.kill_and_read());
  }

  const auto found = counts(options_.path);
  for (const auto& [from, to] : promised) {
    EXPECT_GT(to, from);
    for (int i = from; i < to; ++i) ASSERT_TRUE(found.contains(i)) << i;
  }
  for (const auto& [id, times] : found) ASSERT_EQ(times, 1) << id;
  const auto ledger = open();
  EXPECT_TRUE(becomes_durable(*ledger));
  EXPECT_EQ(ledger->renewals(), 0U);
  EXPECT_EQ(number("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"), 0);
}

/// How much of the log was synced, by its index (sqlite.org/walformat.html, 2.1): the rest of the file may be missing
/// after a power cut, but not this, because it may be in the main file already.
std::uintmax_t synced_log(const fs::path& path) {
  std::ifstream index(path.string() + "-shm", std::ios::binary);
  std::uint32_t frames = 0;
  index.seekg(16);
  index.read(reinterpret_cast<char*>(&frames), sizeof frames);
  constexpr std::uintmax_t kHeader = 32;
  constexpr std::uintmax_t kFrame = 24 + 4096;
  return kHeader + frames * kFrame;
}

TEST_F(ALedger, IsReadableAfterAPowerCut) {
  std::mt19937 random(std::random_device{}());
  Writer writer(options_, 0);
  writer.wait_for_a_report();
  for (int round = 0; round < 12; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds{random() % 30'000});
    writer.signal(SIGSTOP);
    writer.wait_until_stopped();
    const int durable = writer.read_reported();
    // What a disk holds at that moment, and the same with the end of the log not there yet, or torn.
    for (const bool torn : {false, true}) {
      const fs::path copy = dir_ / ("copy-" + std::to_string(round) + (torn ? "-torn" : "")) / "ledger.db";
      fs::create_directories(copy.parent_path());
      fs::copy_file(options_.path, copy);
      const fs::path log = copy.string() + "-wal";
      fs::copy_file(options_.path.string() + "-wal", log);
      if (torn) {
        const auto synced = synced_log(options_.path);
        const auto size = fs::file_size(log);
        if (size > synced) fs::resize_file(log, synced + random() % (size - synced));
      }

      LedgerOptions options = options_;
      options.path = copy;
      Ledger again(options);
      EXPECT_TRUE(becomes_durable(again));
      EXPECT_EQ(again.renewals(), 0U);
      const auto found = counts(copy);
      for (int i = 0; i < durable; ++i) ASSERT_TRUE(found.contains(i)) << i;
      int expected = 0;
      for (const auto& [id, times] : found) {
        ASSERT_EQ(id, expected++);  // A beginning of what was written, without gaps.
        ASSERT_EQ(times, 1);
      }
    }
    writer.signal(SIGCONT);
  }
}

TEST_F(ALedger, ComesRoundWhenItIsAsked) {
  const auto ledger = open();
  ASSERT_TRUE(ledger->wait_until_opened(testing::kPatience));
  EXPECT_TRUE(ledger->take_beat());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(comes_true(*ledger, [&] { return ledger->take_beat(); }));
  }
}

}  // namespace
}  // namespace aw::ledger
