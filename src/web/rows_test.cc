// SPDX-License-Identifier: Apache-2.0
#include "web/rows.h"

#include <gmock/gmock.h>

#include "api/encode.h"
#include "record/event_dict.h"
#include "testing/world.h"

namespace aw::web {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::World;

constexpr char kSecret[] = "hush";

/// A live run of the simulated world, all of whose texts are secret.
bus::Dict secret_run() {
  static World world;
  static const bus::Dict run = [] {
    supervise::Limits limits;
    limits.description = kSecret;
    limits.labels = {{kSecret, kSecret}};
    world.register_run(kSecret, world.spawn(world.user_shell), limits);
    const auto* found = world.supervisor.find(World::id(kSecret));
    return api::to_dict(*found, world.supervisor.read_usage(*found));
  }();
  return run;
}

supervise::EventRecord secret_event() {
  supervise::EventRecord event;
  event.event_id = "8d0a5c9e-0000-4000-8000-000000000001";
  event.occurred_at = WallTime(std::chrono::seconds{1'700'000'000});
  event.host = event.boot_id = event.run_id = event.registered_as = event.unit = event.comm = event.cmdline = kSecret;
  event.kind = EventKind::kEnded;
  event.reason = Reason::kMemory;
  event.uid = 4242;
  event.pid = 31337;
  event.processes.push_back({31337, 1, kSecret, Bytes(7), kSecret, Span(3)});
  event.details.emplace_back(kSecret, std::string(kSecret));
  return event;
}

TEST(AnAnonymousRow, SaysHowARunIsAndNotWhose) {
  const Row row = to_row(secret_run());

  EXPECT_THAT(row.full, HasSubstr(kSecret));
  EXPECT_THAT(row.anonymous, Not(HasSubstr(kSecret)));
  const Json json = Json::parse(row.anonymous);
  EXPECT_EQ(json["state"], "running");
  EXPECT_EQ(json["key"], row.key);
  for (const char* shown : {"memory_bytes", "memory_limit_bytes", "deadline_at", "process_count", "cpu_usec"}) {
    EXPECT_TRUE(json.contains(shown)) << shown;
  }
  for (const char* hidden : {"analysis_id", "registered_as", "run_id", "unit", "uid", "leader_pid", "owner_pid",
                             "description", "labels", "host"}) {
    EXPECT_TRUE(Json::parse(row.full).contains(hidden)) << hidden;
    EXPECT_FALSE(json.contains(hidden)) << hidden;
  }
}

TEST(AnAnonymousEvent, SaysWhatHappenedAndNotToWhom) {
  const Event event = to_event(record::to_dict(secret_event()));

  EXPECT_THAT(event.full, HasSubstr(kSecret));
  EXPECT_THAT(event.anonymous, Not(HasSubstr(kSecret)));
  EXPECT_THAT(event.anonymous, Not(HasSubstr("31337")));
  EXPECT_THAT(event.anonymous, Not(HasSubstr("4242")));
  const Json json = Json::parse(event.anonymous);
  EXPECT_EQ(json["reason"], "memory");
  EXPECT_EQ(json["kind"], "ended");
  EXPECT_EQ(json["occurred_at"], "2023-11-14T22:13:20.000000Z");
  EXPECT_EQ(json["key"], run_key(kSecret));
}

TEST(AKey, IsTheSameForOneRunAndAnotherForAnother) {
  EXPECT_EQ(run_key("a"), run_key("a"));
  EXPECT_NE(run_key("a"), run_key("b"));
  EXPECT_EQ(run_key(""), "");
}

TEST(ARow, IsTheObjectThatTheToolsPrintAndItsKey) {
  Json expected = cli::analysis_to_json(secret_run());
  expected["key"] = run_key(cli::analysis_to_json(secret_run())["run_id"].get<std::string>());

  EXPECT_EQ(Json::parse(to_row(secret_run()).full), expected);
}

TEST(TheStatus, IsTheContractsEmptyFormWhileTheDaemonIsAway) {
  EXPECT_EQ(status_json(nullptr, {}), R"({"monitored_count":0,"grace_count":0,"kills_last_24h":0,"recent_events":[]})");
}

TEST(TheStatus, HasTheCountsAndTheEvents) {
  const bus::Dict counts{{"MonitoredCount", {std::uint32_t{3}}},  {"EndingCount", {std::uint32_t{1}}},
                         {"KillsLast24h", {std::uint32_t{9}}},    {"StoreHealthy", {true}},
                         {"UnshippedEvents", {std::uint64_t{4}}}, {"Version", {std::string("1")}}};
  const std::string first = R"({"a":1})", second = R"({"b":2})";

  EXPECT_EQ(Json::parse(status_json(&counts, {&first, &second})),
            Json::parse(R"({"monitored_count":3,"grace_count":1,"kills_last_24h":9,"recent_events":[{"a":1},{"b":2}],
                            "available":true,"version":"1","store_healthy":true,"unshipped_events":4})"));
}

}  // namespace
}  // namespace aw::web
