// SPDX-License-Identifier: Apache-2.0
//
// The record, from the kill to PostgreSQL: a real server in the guest, the real shipper, and what a bad day does to
// them. One server and one shipper serve all stories of this file; each has a database of its own.
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>

#include "support/chaos.h"
#include "support/ledger.h"
#include "support/shared_store.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Lt;
using ::testing::SizeIs;
using Json = nlohmann::json;

class ASharedStore : public Story {
 protected:
  static void SetUpTestSuite() { SharedStore::start_server(); }
  static void TearDownTestSuite() { SharedStore::stop_server(); }

  void SetUp() override {
    Story::SetUp();
    static int number = 0;
    store_.emplace("analyses" + std::to_string(++number));
  }
  void TearDown() override {
    store_.reset();
    Story::TearDown();
  }

  void set_up() const { store_->set_up(); }
  std::vector<std::string> sql(const std::string& statement) const { return store_->sql(statement); }
  bool await_rows(const std::string& statement, const std::vector<std::string>& rows) {
    std::string wanted;
    for (const std::string& row : rows) wanted += row + "\n";
    return watchdog.wait_until([&] { return store_->try_sql(statement) == wanted; });
  }
  bool await_shipped() {
    return watchdog.wait_until([&] { return number(watchdog.manager_properties(), "UnshippedEvents") == 0; }, 5min);
  }
  bool await_status(const std::string& words) {
    return watchdog.wait_until([&] { return SharedStore::status_text().find(words) != std::string::npos; });
  }

 private:
  std::optional<SharedStore> store_;
};

// ---- One record ----

/// What stores write differently for the same value.
Json normal(const std::string& name, Json value) {
  if (value.is_string() && (name == "processes" || name == "details")) value = Json::parse(value.get<std::string>());
  if (name == "escalated" && value.is_number()) return value != 0;
  if (name == "occurred_at" && value.is_string()) {
    // "…+00:00" and "…Z", with as many decimals as there are.
    std::string text = value;
    text.resize(std::min(text.size(), text.find_first_of("+Z")));
    while (text.ends_with('0')) text.pop_back();
    return text;
  }
  return value;
}

Json to_json(const Dict& dict);
Json to_json(const Value& value) {
  if (const auto* held = value.get_if<std::string>()) return *held;
  // No limit is UINT64_MAX on the bus, and null in JSON and SQL.
  if (const auto* held = value.get_if<std::uint64_t>()) return *held == UINT64_MAX ? Json() : Json(*held);
  if (const auto* held = value.get_if<std::int64_t>()) return *held;
  if (const auto* held = value.get_if<bool>()) return *held;
  if (const auto* held = value.get_if<Dict>()) return to_json(*held);
  Json list = Json::array();
  const auto* held = value.get_if<std::vector<Dict>>();
  EXPECT_NE(held, nullptr) << "a record has a value of another type";
  if (held != nullptr) {
    for (const Dict& entry : *held) list.push_back(to_json(entry));
  }
  return list;
}
Json to_json(const Dict& dict) {
  Json json = Json::object();
  for (const auto& [name, value] : dict) json[name] = to_json(value);
  return json;
}

TEST_F(ASharedStore, HasTheSameOfAKillAsEverybodyElse) {
  set_up();
  const auto run = start(How::kLaunched, new_id("ev\xc3\xadl \"id\" ' ; DROP"), {memory_limit(32), headroom(64)},
                         {"leak", "1024", "20"});
  const Dict signalled = await_end(run);
  ASSERT_EQ(text(signalled, "reason"), "memory");
  const std::string event_id = text(signalled, "event_id");
  ASSERT_TRUE(await_rows("SELECT count(*) FROM watchdog_events WHERE event_id = '" + event_id + "'", {"1"}));

  // Each is compared with what the tool says; the signal's record, too, below.
  std::map<std::string, Json> told_by;
  told_by["events --json"] = Json::parse(told({"analysisctl", "events", "--json", "--id", run.id, "--kind", "ended"}));
  told_by["explain --json"] = Json::parse(told({"analysisctl", "explain", "--json", run.id})).at("end");
  const auto ledger = read_ledger("event_id = \"" + event_id + "\"");
  ASSERT_THAT(ledger, SizeIs(1));
  told_by["ledger"] = ledger.at(0);
  told_by["PostgreSQL"] = Json::parse(
      sql("SET timezone = 'UTC'; SELECT to_jsonb(e) FROM watchdog_events e WHERE event_id = '" + event_id + "'").at(0));

  const Json& reference = told_by["events --json"];
  for (const auto& [who, record] : told_by) {
    for (const auto& [name, value] : reference.items()) {
      ASSERT_TRUE(record.contains(name)) << who << " lacks " << name;
      EXPECT_EQ(normal(name, record.at(name)), normal(name, value)) << who << ", " << name;
    }
  }
  Json signal = to_json(signalled);
  EXPECT_EQ(signal.size(), reference.size());
  for (const auto& [name, value] : signal.items()) {
    ASSERT_TRUE(reference.contains(name)) << name;
    if (name == "occurred_at") continue;  // Microseconds there, ISO 8601 here.
    EXPECT_EQ(reference.at(name), value) << name;
  }

  const auto journal = await_journal_record("ANALYSIS_EVENT_ID", event_id);
  ASSERT_TRUE(journal);
  const std::map<std::string, std::string> fields{{"ANALYSIS_ID", "registered_as"},
                                                  {"ANALYSIS_RUN_ID", "run_id"},
                                                  {"ANALYSIS_REASON", "reason"},
                                                  {"ANALYSIS_EVENT", "kind"},
                                                  {"ANALYSIS_PID", "pid"},
                                                  {"ANALYSIS_COMM", "comm"},
                                                  {"ANALYSIS_UID", "uid"},
                                                  {"ANALYSIS_UNIT", "unit"},
                                                  {"ANALYSIS_MEMORY_CURRENT", "memory_bytes"},
                                                  {"ANALYSIS_ESCALATED", "escalated"},
                                                  {"ANALYSIS_MEMORY_PEAK", "memory_peak_bytes"},
                                                  {"ANALYSIS_MEMORY_LIMIT", "memory_limit_bytes"},
                                                  {"ANALYSIS_DURATION_USEC", "duration_usec"},
                                                  {"ANALYSIS_WALL_CLOCK_LIMIT_USEC", "wall_clock_limit_usec"},
                                                  {"ANALYSIS_CPU_USEC", "cpu_usec"},
                                                  {"ANALYSIS_SIGNAL", "signal"}};
  for (const auto& [field_name, name] : fields) {
    const Json& value = reference.at(name);
    const Json number = value.is_boolean() ? Json(value.get<bool>() ? 1 : 0) : value;
    EXPECT_EQ(field(*journal, field_name), number.is_string() ? number.get<std::string>() : number.dump())
        << field_name;
  }
}

TEST_F(ASharedStore, KeepsTheEventsOfADeletedAnalysis) {
  set_up();
  const auto first = start(How::kLaunched, new_id("deleted"), {}, {"stay"});
  ASSERT_TRUE(await_rows("SELECT count(*) FROM watchdog_processes WHERE registered_as = '" + first.id + "'", {"1"}));
  EXPECT_EQ(sql("SELECT DISTINCT analysis_id FROM watchdog_events WHERE registered_as = '" + first.id + "'"),
            std::vector<std::string>{first.id});

  sql("DELETE FROM analyses WHERE id = '" + first.id + "'");
  EXPECT_TRUE(watchdog.kill(first.id).ok());
  await_end(first);

  const std::string of = " FROM watchdog_events WHERE registered_as = '" + first.id + "'";
  EXPECT_TRUE(await_rows("SELECT string_agg(kind || ' ' || coalesce(analysis_id, '-'), ',' ORDER BY ledger_seq)" + of,
                         {"registered -,ending -,ended -"}));
  EXPECT_TRUE(await_rows("SELECT count(*) FROM watchdog_processes WHERE registered_as = '" + first.id + "'", {"0"}));
}

TEST_F(ASharedStore, LeavesATableOfTheApplicationsAsItIs) {
  sql("CREATE TABLE analyses (id varchar(100) PRIMARY KEY, title text NOT NULL, price numeric);"
      "INSERT INTO analyses VALUES ('known one', 'A title', 3)");
  set_up();
  const auto known = start(How::kLaunched, own("known one"), {}, {"stay"});
  const auto unknown = start(How::kLaunched, own("unknown one"), {}, {"stay"});
  for (const Started* run : {&known, &unknown}) {
    EXPECT_TRUE(watchdog.kill(run->id).ok());
    await_end(*run);
  }

  EXPECT_TRUE(await_rows(
      "SELECT registered_as, coalesce(analysis_id, '-') FROM watchdog_events WHERE kind = 'ended' AND registered_as IN "
      "('known one', 'unknown one') ORDER BY ledger_seq",
      {"known one|known one", "unknown one|-"}));
  EXPECT_EQ(sql("SELECT * FROM analyses"), std::vector<std::string>{"known one|A title|3"});
}

TEST_F(ASharedStore, IsSilentWhereNoneIsConfigured) {
  SharedStore::unconfigure();
  ASSERT_TRUE(systemctl({"reload", kDaemonUnit}));
  EXPECT_TRUE(systemctl({"start", kShipperUnit})) << "a service that has nothing to do is no failure";
  EXPECT_EQ(run_command({"systemctl", "is-active", kShipperUnit}).out, "inactive\n");
  EXPECT_EQ(number(watchdog.manager_properties(), "UnshippedEvents"), 0U);
}

// ---- A bad day ----

/// Starts runs, a few at a time, for as long as the story goes on, and `least` of them at least.
class Churn {
 public:
  static constexpr std::size_t kLanes = 4;

  Churn(const std::string& prefix, std::size_t least) : program_(start(prefix, least)) {}
  ~Churn() { std::filesystem::remove(kGoingOn); }
  Churn(const Churn&) = delete;
  Churn& operator=(const Churn&) = delete;

  /// False: a run failed, or was held up.
  bool end() {
    std::filesystem::remove(kGoingOn);
    return program_.reap(8min) == 0;
  }
  /// How many runs there were, when it has ended.
  static std::size_t count() {
    std::istringstream lanes(read_file(kCounts));
    return std::accumulate(std::istream_iterator<std::size_t>(lanes), {}, std::size_t{0});
  }

 private:
  static constexpr char kGoingOn[] = "/run/churn-goes-on";
  static constexpr char kCounts[] = "/run/churn-counts";

  static Child start(const std::string& prefix, std::size_t least) {
    write_file(kGoingOn, "");
    write_file(kCounts, "");
    return Child::spawn({"sh", "-c",
                         "for lane in $(seq " + std::to_string(kLanes) + "); do ( i=0; while [ $i -lt " +
                             std::to_string(least / kLanes) + " ] || [ -e " + kGoingOn +
                             " ]; do i=$((i + 1)); analysis-run --quiet --id " + prefix +
                             "-$lane-$i -- true || exit 1; done; echo $i >>" + kCounts +
                             " ) & lanes=\"$lanes $!\"; done; for lane in $lanes; do wait $lane || exit 1; done"});
  }

  Child program_;
};

TEST_F(ASharedStore, HasEachOfVeryManyEndsOnceAfterABadDay) {
  set_up();
  const std::string prefix = "churn";
  const std::string ours = " WHERE registered_as LIKE '" + prefix + "-%'";
  const auto least = static_cast<std::size_t>(chaos_size(200, 1000));
  std::vector<std::uint64_t> late;
  const auto measure_lateness = [&](const char* when) {
    const auto run = start(How::kLaunched, new_id(std::string("late ") + when), {wall_clock(1s)}, {"stay"});
    const auto end = await_end(run);
    late.push_back(number(end, "duration_usec") - 1'000'000);
    std::cout << when << ": a deadline's end " << late.back() << " us after it\n";
  };
  measure_lateness("all well");
  // It comes after what the stories before have left in the ledger, which is new to this database.
  ASSERT_TRUE(watchdog.wait_until(
      [&] { return sql("SELECT count(*) FROM watchdog_events WHERE registered_as LIKE 'late %'").at(0) != "0"; }, 5min))
      << SharedStore::status_text();
  Churn churn(prefix, least);
  ASSERT_TRUE(watchdog.wait_until([&] { return sql("SELECT count(*) FROM watchdog_events" + ours).at(0) != "0"; }));

  // Cut off in the middle, again and again.
  for (int i = 0; i < 10; ++i) {
    SharedStore::cut_off();
    watchdog.let_pass(200ms);
  }

  // A disk of its own for the table, and that full.
  const std::string small = "/var/lib/postgresql/small";
  std::filesystem::create_directories(small);
  ASSERT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=64m"), 0);
  told({"chown", "postgres:postgres", small});
  SharedStore::sql_as_admin("CREATE TABLESPACE small LOCATION '" + small + "'");
  SharedStore::sql_as_admin("GRANT CREATE ON TABLESPACE small TO root");
  sql("ALTER TABLE watchdog_events SET TABLESPACE small");
  (void)run_command({"sh", "-c", "cat /dev/zero > " + small + "/filler"});
  ASSERT_TRUE(await_status("out of disk")) << SharedStore::status_text();
  measure_lateness("full");
  std::filesystem::remove(small + "/filler");

  ASSERT_TRUE(systemctl({"stop", "postgresql"}));
  ASSERT_TRUE(await_status("not reachable"));
  measure_lateness("stopped");
  ASSERT_TRUE(systemctl({"start", "postgresql"}));
  ASSERT_TRUE(systemctl({"restart", "postgresql"}));

  SharedStore::sql_as_admin("ALTER ROLE \"analysis-watchdog-shipper\" SET default_transaction_read_only = on");
  SharedStore::cut_off();
  ASSERT_TRUE(await_status("read-only"));
  measure_lateness("read-only");
  SharedStore::sql_as_admin("ALTER ROLE \"analysis-watchdog-shipper\" RESET default_transaction_read_only");

  SharedStore::sql_as_admin("ALTER ROLE \"analysis-watchdog-shipper\" NOLOGIN");
  SharedStore::cut_off();
  ASSERT_TRUE(await_status("denied"));
  SharedStore::sql_as_admin("ALTER ROLE \"analysis-watchdog-shipper\" LOGIN");

  sql("INSERT INTO watchdog_migrations (version, name) VALUES (99, '0099_later.sql')");
  SharedStore::cut_off();
  ASSERT_TRUE(await_status("too new"));
  sql("DELETE FROM watchdog_migrations WHERE version = 99");

  ASSERT_TRUE(churn.end()) << "a run was held up, or failed";
  ASSERT_TRUE(await_shipped()) << SharedStore::status_text();

  const auto ledger = read_ledger("registered_as LIKE \"" + prefix + "-%\"");
  std::vector<std::string> in_ledger;
  std::map<std::string, std::multiset<std::string>> runs_of;  // by kind
  for (const Json& event : ledger) {
    in_ledger.push_back(event.at("event_id"));
    runs_of[event.at("kind").get<std::string>()].insert(event.at("run_id").get<std::string>());
  }
  EXPECT_GE(Churn::count(), least);
  EXPECT_THAT(runs_of["registered"], SizeIs(Churn::count()));
  EXPECT_EQ(runs_of["ended"], runs_of["registered"]);
  // Nothing else, but that on a busy machine one is left as a zombie for a while.
  EXPECT_EQ(ledger.size(), 2 * Churn::count() + runs_of["unreaped"].size());
  EXPECT_EQ(sql("SELECT event_id FROM watchdog_events" + ours + " ORDER BY ledger_seq"), in_ledger);
  EXPECT_EQ(sql("SELECT count(*) FROM watchdog_processes" + ours), std::vector<std::string>{"0"});
  EXPECT_EQ(sql("SELECT count(*) FROM watchdog_refused"), std::vector<std::string>{"0"});
  for (const std::uint64_t usec : late) EXPECT_THAT(usec, Lt(5'000'000U)) << "nothing may be held up by PostgreSQL";

  EXPECT_TRUE(systemctl({"stop", kShipperUnit}));
  sql("ALTER TABLE watchdog_events SET TABLESPACE pg_default");
  SharedStore::sql_as_admin("DROP TABLESPACE small");
  EXPECT_EQ(::umount(small.c_str()), 0);
}

}  // namespace
}  // namespace aw::stories
