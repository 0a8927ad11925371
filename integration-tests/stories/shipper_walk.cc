// SPDX-License-Identifier: Apache-2.0
//
// The walk of the shipper: for each point at which it speaks with PostgreSQL or notes how far it is, and each thing
// that may go wrong there, one story in which it does, once, while runs begin and end. Whatever it was, afterwards
// PostgreSQL has every event of the ledger once, every curve once, nothing refused, and no process of a run that is
// over.
//
// Only a build with AW_FAILPOINTS has points (./dev test --failpoints).
#include <algorithm>
#include <iostream>
#include <map>
#include <optional>

#include "support/faults.h"
#include "support/ledger.h"
#include "support/shared_store.h"
#include "support/story.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::IsEmpty;
using Lines = std::vector<std::string>;

constexpr char kShipper[] = "/usr/sbin/analysis-watchdog-shipper";

/// Points that the scenario can't reach, and why.
const std::map<std::string, std::string> kUnreached{
    {"postgres.commit-reset", "a ledger goes back only when a backup of it was restored"},
    {"postgres.reset-committed", "a ledger goes back only when a backup of it was restored"},
};

/// As long as the walk goes on.
std::optional<OrdersForNextStart> orders;

class ShipperWalk : public Story {
 public:
  explicit ShipperWalk(Fault fault) : fault_(std::move(fault)) {}

 protected:
  void SetUp() override {
    Story::SetUp();
    store_.emplace("walk");
  }
  void TearDown() override {
    store_.reset();
    orders->take_back();
    Story::TearDown();
  }

 private:
  void TestBody() override {
    if (const auto why = kUnreached.find(fault_.point); why != kUnreached.end()) {
      GTEST_SKIP() << fault_.point << " is not reached: " << why->second;
    }
    const Sayings sayings("analysis-watchdog-shipper");
    store_->set_up();
    // With a row of its own in `analyses`, which somebody then holds for a while: its events are linked later.
    const auto held = run_to_its_end("held");
    ASSERT_TRUE(await_all_shipped({held}));
    ASSERT_TRUE(systemctl({"stop", kShipperUnit}));

    const Child holder = hold(held);
    Lines ids{held, run_to_its_end("before it", held), run_to_its_end("before it")};
    const auto lives = start(How::kLaunched, new_id("beside it"), {}, {"stay"});
    ids.push_back(lives.id);
    orders->leave(fault_.order(1));
    ASSERT_TRUE(systemctl({"start", "--no-block", kShipperUnit}));
    for (int i = 0; i < 3; ++i) ids.push_back(run_to_its_end("during it"));
    EXPECT_TRUE(watchdog.kill(lives.id).ok());
    (void)await_end(lives);

    const std::string said = fault_.saying(1);
    EXPECT_TRUE(watchdog.wait_until([&] { return std::ranges::count(sayings.read(), said) > 0; }))
        << "it never came to that: " << ::testing::PrintToString(sayings.read());
    EXPECT_TRUE(await_all_shipped(ids));
    ids.push_back(run_to_its_end("afterwards"));
    EXPECT_TRUE(await_all_shipped(ids)) << SharedStore::status_text();
    for (const std::string& id : ids) expect_the_same(id);
    EXPECT_TRUE(watchdog.wait_until([&] { return store_->sql("SELECT event_id FROM watchdog_unlinked").empty(); }))
        << "what waited for its analysis waits still";
    EXPECT_THAT(store_->sql("SELECT event_id FROM watchdog_events WHERE registered_as = '" + held +
                            "' AND analysis_id IS NULL"),
                IsEmpty());
    EXPECT_THAT(store_->sql("SELECT error FROM watchdog_refused"), IsEmpty());
    EXPECT_TRUE(watchdog.wait_until([&] { return number(watchdog.manager_properties(), "UnshippedEvents") == 0; }))
        << "the daemon does not know how far it is";
    EXPECT_TRUE(watchdog.wait_until([&] {
      return store_->sql("SELECT over FROM watchdog_series WHERE registered_as = '" + lives.id + "'") == Lines{"t"};
    })) << "its curve is not there";
  }

  /// A short run, on record; `as` is an id that there was before.
  std::string run_to_its_end(const std::string& name, const std::string& as = "") {
    const std::string id = as.empty() ? new_id(name) : as;
    const auto launched = run_command({"analysis-run", "--quiet", "--id=" + id, "--", "true"});
    EXPECT_EQ(launched.status, 0) << launched.err;
    return id;
  }

  /// As a queue does that holds its row as long as it works on it: here until an event waits for it.
  Child hold(const std::string& id) {
    const std::string name = "the holder";
    Child holder =
        Child::spawn({"psql", "-q", "-d", "walk", "-c",
                      "SET application_name = '" + name + "'; BEGIN; SELECT FROM analyses WHERE id = '" + id +
                          "' FOR UPDATE; DO $$ BEGIN FOR i IN 1..1200 LOOP "
                          "EXIT WHEN EXISTS (SELECT FROM watchdog_unlinked); "
                          "PERFORM pg_sleep(0.1); END LOOP; END $$; COMMIT"});
    EXPECT_TRUE(watchdog.wait_until([&] {
      return !store_
                  ->sql("SELECT 1 FROM pg_stat_activity WHERE application_name = '" + name +
                        "' AND wait_event = 'PgSleep'")
                  .empty();
    })) << "nobody holds the row";
    return holder;
  }

  Lines shipped(const std::string& id) const {
    return store_->sql("SELECT event_id FROM watchdog_events WHERE registered_as = '" + id + "' ORDER BY ledger_seq");
  }
  static Lines recorded(const std::string& id) {
    Lines ids;
    for (const auto& event : read_ledger("registered_as = \"" + id + "\"")) ids.push_back(event.at("event_id"));
    return ids;
  }

  bool await_all_shipped(const Lines& ids) {
    return watchdog.wait_until([&] {
      return std::ranges::all_of(ids, [&](const std::string& id) {
        const auto ended = "registered_as = \"" + id + "\" AND kind = \"ended\"";
        return !read_ledger(ended).empty() && shipped(id) == recorded(id) &&
               store_->sql("SELECT run_id FROM watchdog_processes WHERE registered_as = '" + id + "'").empty();
      });
    });
  }

  void expect_the_same(const std::string& id) const { EXPECT_EQ(shipped(id), recorded(id)) << id; }

  Fault fault_;
  std::optional<SharedStore> store_;
};

/// What lasts for the whole walk.
class Surroundings : public ::testing::Environment {
 public:
  void SetUp() override {
    SharedStore::start_server();
    orders.emplace(kShipperUnit);
  }
  void TearDown() override {
    orders.reset();
    SharedStore::stop_server();
  }
};

int walk(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  Faults faults = list_faults(kShipper);
  std::erase_if(faults.all, [](const Fault& fault) { return !is_of_shipping(fault.point); });
  if (faults.wrong.empty() && faults.all.empty()) faults.wrong = std::string(kShipper) + " has no points of its own";
  if (!faults.wrong.empty()) {
    add_test<::testing::Test, Nothing>("TheShipper", "HasFailpoints", faults.wrong);
    return RUN_ALL_TESTS();
  }
  for (const Fault& fault : faults.all) add_test<Story, ShipperWalk>("ShipperWalk", fault.test_name(), fault);
  ::testing::AddGlobalTestEnvironment(new Surroundings);
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace aw::stories

int main(int argc, char** argv) { return aw::stories::walk(argc, argv); }
