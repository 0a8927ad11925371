// SPDX-License-Identifier: Apache-2.0
//
// The objects on a bus of the test's own, before the simulated world: what a client is answered, and what it is told.
#include "api/service.h"

#include <gmock/gmock.h>

#include <cstring>

#include "analysis_watchdog/names.h"
#include "testing/patience.h"
#include "testing/private_bus.h"
#include "testing/world.h"

namespace aw::api {
namespace {

using bus::Dict;
using bus::Message;
using bus::RemoteError;
using bus::Reply;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::World;

constexpr char kPropertiesInterface[] = "org.freedesktop.DBus.Properties";

supervise::Policy many_runs() {
  supervise::Policy policy;
  policy.caps.analyses_per_user = policy.caps.analyses;
  return policy;
}

class AService : public testing::OnAPrivateBus {
 protected:
  AService() = default;
  explicit AService(testing::BusLimits limits) : OnAPrivateBus(limits) {}
  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    for (auto* connection : {&server_, &client_}) {
      *connection = bus::Connection::open(bus::BusKind::kUser).value();
      ASSERT_TRUE((*connection)->attach(loop_, [this, connection] { lost_ |= connection == &server_; }));
    }
    service_ = std::make_unique<Service>(
        Service::Parts{*server_, loop_, world_.supervisor, world_.processes, history_,
                       [this]() -> const supervise::Limits& { return defaults_; }, [this] { return store_; },
                       [this] { return vitals_; }, false, "1",
                       [this](const std::string& run_id, const SeriesDone& done) { asked_.emplace_back(run_id, done); },
                       [this](const std::string& sentence) { warnings_.push_back(sentence); }},
        administrators());
    ASSERT_TRUE(service_->start());
    changes_ =
        client_
            ->match(std::string("type='signal',interface='") + kPropertiesInterface + "',member='PropertiesChanged'",
                    [this](const Message& m) { on_properties_changed(Message::share(m.raw())); })
            .value();
    (void)list_of(call("ListAnalyses"));  // With the answer the match is in place, too.
  }

  virtual Administrators administrators() const { return {{::getuid()}, {}, {}}; }

  void on_properties_changed(Message signal) {
    (void)signal.read_string();
    const auto changed = signal.read_dict();
    ASSERT_TRUE(changed);
    for (const auto& [name, value] : *changed) announced_.insert_or_assign(name, value);
  }

  void wait_for(const std::function<bool()>& what) {
    ASSERT_TRUE(testing::comes_true(what, [this] {
      ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{20}));
      world_.deliver();
    }));
  }
  /// What a call of the manager comes back with; `path` and `interface` for another's.
  Reply call(
      const char* member, const std::function<void(Message&)>& fill = [](Message&) {},
      const std::string& path = names::kManagerPath, const char* interface = names::kManagerInterface) {
    auto message = client_->new_call(server_->unique_name().c_str(), path.c_str(), interface, member);
    fill(message);
    std::optional<Reply> answer;
    client_->request(
        std::move(message), [&](Reply reply) { answer = std::move(reply); }, std::chrono::minutes{5});
    wait_for([&] { return answer.has_value(); });
    return answer ? std::move(*answer) : Reply{RemoteError{"none", "none"}};
  }
  static RemoteError error_of(const Reply& reply) {
    const auto* error = std::get_if<RemoteError>(&reply);
    return error == nullptr ? RemoteError{} : *error;
  }
  static std::vector<Dict> list_of(Reply reply) {
    auto* message = std::get_if<Message>(&reply);
    EXPECT_NE(message, nullptr) << error_of(reply).message;
    std::vector<Dict> list;
    if (message == nullptr || !message->enter('a', "a{sv}")) return list;
    while (!message->at_end()) list.push_back(message->read_dict().value());
    return list;
  }

  World world_{many_runs()};
  supervise::EventHistory history_;
  supervise::Limits defaults_;
  StoreState store_;
  Vitals vitals_;
  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> server_;
  std::unique_ptr<bus::Connection> client_;
  std::unique_ptr<Service> service_;
  bus::Slot changes_;
  std::map<std::string, bus::Value> announced_;
  std::vector<std::pair<std::string, SeriesDone>> asked_;  ///< for curves on the disk
  std::vector<std::string> warnings_;
  bool lost_ = false;  ///< the service's connection
};

TEST_F(AService, GivesItsMetricsAndCountsWhatItRefusesByError) {
  vitals_.ledger_queued = 7;
  world_.register_run("run", world_.spawn(world_.user_shell));
  (void)call("KillAnalysis", [](Message& m) { m.append("no such run"); });
  (void)call("KillAnalysis", [](Message& m) { m.append("no such run"); });
  (void)call("NoSuchMethod");

  auto reply = call("GetMetrics");
  auto* message = std::get_if<Message>(&reply);
  ASSERT_NE(message, nullptr) << error_of(reply).message;
  ASSERT_EQ(message->signature(), record::kMetricsSignature);
  const auto metrics = record::read_metrics(*message);

  ASSERT_TRUE(metrics) << metrics.error().message;
  const auto expected = collect_metrics(world_.supervisor, {{"NoSuchAnalysis", 2}, {"UnknownMethod", 1}}, vitals_,
                                        history_.kills_last_24h(loop_.now().real), 0, "1");
  EXPECT_EQ(*metrics, expected);  // What was appended is what is read.
}

/// As many bytes of labels as a run may have.
supervise::Limits heavy_limits() {
  supervise::Limits limits;
  limits.description = std::string(1024, 'd');
  for (int i = 0; i < 16; ++i) limits.labels[std::to_string(100 + i)] = std::string(1021, 'v');
  return limits;
}

TEST_F(AService, ListsOfTheEventsTheNewestThatTheBusCarries) {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    supervise::EventRecord event;
    event.event_id = std::to_string(i);
    event.details.emplace_back("much", std::string(64 * 1024, 'x'));
    history_.add(event);
  }

  const auto events = list_of(call("ListEvents", [](Message& m) { m.append(Dict{}); }));

  EXPECT_GT(events.size(), 60U);
  EXPECT_LT(events.size(), 70U);  // About 4 MiB of the 64.
  EXPECT_EQ(*bus::find(events.front(), "event_id"), bus::Value{std::string("999")});
  EXPECT_EQ(*bus::find(events.back(), "event_id"), bus::Value{std::to_string(1000 - events.size())});
}

TEST_F(AService, ListsHundredsOfRunsWithAllTheirTexts) {
  for (int i = 0; i < 500; ++i) {
    world_.register_run("run " + std::to_string(i), world_.spawn(world_.user_shell), heavy_limits());
  }

  const auto runs = list_of(call("ListAnalyses"));

  ASSERT_EQ(runs.size(), 500U);
  for (const Dict& run : runs) ASSERT_NE(bus::find(run, "Labels"), nullptr);
  EXPECT_EQ(
      error_of(call(
                   "GetManagedObjects", [](Message&) {}, names::kManagerPath, "org.freedesktop.DBus.ObjectManager"))
          .message,
      "");
}

TEST_F(AService, ListsMoreRunsThanItsMessageHasRoomForTheirTexts) {
  for (int i = 0; i < 1000; ++i) {
    world_.register_run("run " + std::to_string(i), world_.spawn(world_.user_shell), heavy_limits());
  }

  const auto runs = list_of(call("ListAnalyses"));

  ASSERT_EQ(runs.size(), 1000U);
  EXPECT_NE(bus::find(runs.front(), "Labels"), nullptr);
  EXPECT_EQ(bus::find(runs.back(), "Labels"), nullptr);
  EXPECT_NE(bus::find(runs.back(), "MemoryLimit"), nullptr);
}

TEST_F(AService, ReadsAllRunsInManyTurnsAndListsThoseThatStillLive) {
  std::vector<pid_t> pids;
  for (int i = 0; i < 200; ++i) {
    pids.push_back(world_.spawn(world_.user_shell));
    world_.register_run("run " + std::to_string(i), pids.back());
  }
  const auto reads = [&] {
    unsigned sum = 0;
    for (const auto& [path, slice] : world_.slices()) sum += slice->stat_reads;
    return sum;
  };
  std::optional<Reply> answer;
  client_->request(
      client_->new_call(server_->unique_name().c_str(), names::kManagerPath, names::kManagerInterface, "ListAnalyses"),
      [&](Reply reply) { answer = std::move(reply); });

  unsigned most = 0;
  wait_for([&, before = reads(), first = reads()]() mutable {
    const unsigned after = reads();
    most = std::max(most, after - before);
    before = after;
    if (after > first && !pids.empty()) {  // It has begun.
      world_.exit(pids.front());
      pids.clear();
    }
    return answer.has_value();
  });

  EXPECT_GT(most, 0U);
  EXPECT_LE(most, 64U);
  EXPECT_EQ(list_of(*std::move(answer)).size(), 199U);
}

TEST_F(AService, AnswersACallWhoseTextItCannotRead) {
  const auto append_noncharacter = [](Message& m) {
    char* text = nullptr;  // As a client of another library's may: sd-bus itself appends no such text.
    ASSERT_GE(sd_bus_message_append_string_space(m.raw(), 3, &text), 0);
    std::memcpy(text, "\xef\xbf\xbe", 3);
  };

  for (const char* member : {"UnregisterAnalysis", "KillAnalysis", "GetAnalysis"}) {
    const RemoteError error = error_of(call(member, append_noncharacter));

    EXPECT_EQ(error.name, "org.freedesktop.DBus.Error.InvalidArgs") << member;
    EXPECT_THAT(error.message, HasSubstr("noncharacters"));
  }
}

TEST_F(AService, SaysScopeFailedWhenSystemdRefusesAChange) {
  world_.register_run("job", world_.spawn(world_.user_shell));
  const std::string path = object_path(World::id("job"));
  const auto failed = [&](const char* member, const std::function<void(Message&)>& fill, const std::string& at,
                          const char* interface) {
    world_.placer.hold();
    auto message = client_->new_call(server_->unique_name().c_str(), at.c_str(), interface, member);
    fill(message);
    std::optional<Reply> answer;
    client_->request(std::move(message), [&](Reply reply) { answer = std::move(reply); });
    wait_for([&] { return world_.placer.waiting() > 0; });
    world_.placer.fail("systemd is out of memory");
    world_.placer.release();
    wait_for([&] { return answer.has_value(); });
    EXPECT_EQ(error_of(*answer).name, names::error::kScopeFailed) << member;
    EXPECT_THAT(error_of(*answer).message, HasSubstr("systemd is out of memory"));
  };
  const Dict memory{{"MemoryLimit", {std::uint64_t{1} << 30U}}};

  failed(
      "SetLimits", [&](Message& m) { m.append("job").append(memory); }, names::kManagerPath, names::kManagerInterface);
  failed(
      "ExtendDeadline", [](Message& m) { m.append("job").append(std::uint64_t{3'600'000'000}); }, names::kManagerPath,
      names::kManagerInterface);
  failed(
      "UnregisterAnalysis", [](Message& m) { m.append("job"); }, names::kManagerPath, names::kManagerInterface);
  failed(
      "Set",
      [&](Message& m) { m.append(names::kAnalysisInterface).append("MemoryLimit").append_variant(memory[0].second); },
      path, kPropertiesInterface);
}

TEST_F(AService, TellsOfEachEventOnceAndInItsOrderHoweverManyThereAre) {
  constexpr std::uint32_t kMany = 500;
  std::vector<std::uint32_t> pids;
  const auto heard =
      client_->match(std::string("type='signal',interface='") + names::kManagerInterface + "',member='OrphanFound'",
                     [&](const Message& m) {
                       auto signal = Message::share(m.raw());
                       EXPECT_EQ(signal.read_string().value_or(""), "job");
                       pids.push_back(signal.read_u32().value_or(0));
                     });
  ASSERT_TRUE(heard);
  (void)list_of(call("ListAnalyses"));
  supervise::EventRecord event;
  event.kind = EventKind::kOrphanFound;
  event.registered_as = "job";
  event.uid = ::getuid();

  for (std::uint32_t i = 1; i <= kMany; ++i) {
    event.pid = static_cast<pid_t>(i);
    service_->on_event(event);
  }
  wait_for([&] { return pids.size() == kMany; });

  for (std::uint32_t i = 0; i < kMany; ++i) ASSERT_EQ(pids[i], i + 1);
}

TEST_F(AService, HasInItsIntrospectionDataEachPropertyThatItServes) {
  auto got = call(
      "GetAll", [](Message& m) { m.append(names::kManagerInterface); }, names::kManagerPath, kPropertiesInterface);
  auto* message = std::get_if<Message>(&got);
  ASSERT_NE(message, nullptr) << error_of(got).message;
  const Dict served = message->read_dict().value();

  const std::string xml = introspect_manager({});
  std::size_t told = 0;
  for (auto at = xml.find("<property "); at != std::string::npos; at = xml.find("<property ", at + 1)) ++told;
  EXPECT_EQ(served.size(), told);
  for (const auto& [name, value] : served) {
    EXPECT_THAT(xml, HasSubstr("<property name=\"" + name + "\" type=\"" + bus::signature_of(value) + "\""));
  }
}

TEST_F(AService, AnnouncesTheDefaultsThatAReloadHasChanged) {
  defaults_.grace = std::chrono::seconds{3};
  service_->on_properties_changed();

  wait_for([&] { return !announced_.empty(); });

  EXPECT_EQ(announced_.size(), 1U);
  EXPECT_EQ(announced_["DefaultGraceUSec"], bus::Value{std::uint64_t{3'000'000}});
}

TEST_F(AService, AnnouncesThatNothingWaitsAnyMore) {
  store_ = {false, 3};
  service_->on_properties_changed();
  wait_for([&] { return announced_.contains("UnshippedEvents"); });
  EXPECT_EQ(announced_["UnshippedEvents"], bus::Value{std::uint64_t{3}});
  EXPECT_EQ(announced_["StoreHealthy"], bus::Value{false});

  store_ = {true, 0};
  service_->on_properties_changed();

  wait_for([&] { return announced_["UnshippedEvents"] == bus::Value{std::uint64_t{0}}; });
  EXPECT_EQ(announced_["StoreHealthy"], bus::Value{true});
}

// ---- before one who does not read ----

/// On a bus that reads no more from who has sent others 16 MiB that those have not read: 127 on the system bus.
class AServiceWithADeafClient : public AService {
 protected:
  AServiceWithADeafClient() : AService({.incoming_bytes = 16 << 20}) {}

  void SetUp() override {
    AService::SetUp();
    if (IsSkipped()) return;
    for (std::uint64_t i = 0; i < 1000; ++i) {
      supervise::EventRecord event;
      event.event_id = std::to_string(i);
      event.details.emplace_back("much", std::string(4 * 1024, 'x'));
      history_.add(event);
    }
    deaf_ = bus::Connection::open(bus::BusKind::kUser).value();  // No loop drives it.
    ASSERT_NE(deaf_->unique_name(), "");                         // It is on the bus.
  }
  /// Each call is answered with 4 MiB.
  void call_deafly() {
    for (std::size_t i = 0; i < bus::Connection::kMostToOne; ++i) {
      auto message =
          deaf_->new_call(server_->unique_name().c_str(), names::kManagerPath, names::kManagerInterface, "ListEvents");
      deaf_->request(std::move(message.append(Dict{})), [](const Reply&) {});
    }
  }
  /// As the daemon does when its bus has gone.
  void connect_again() {
    wait_for([this] { return lost_; });
    ASSERT_TRUE(server_->reopen());
    ASSERT_TRUE(service_->start());
  }

  std::unique_ptr<bus::Connection> deaf_;
};

TEST_F(AServiceWithADeafClient, KeepsNoMoreAnswersThanTheBusTakes) {
  call_deafly();
  wait_for([this] { return server_->is_behind(); });
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{20}));

  EXPECT_TRUE(server_->is_behind());
  EXPECT_LT(server_->unwritten_bytes(), bus::Connection::kMostUnwrittenBytes + (5UL << 20U));  // One more answer.
}

TEST_F(AServiceWithADeafClient, AnswersAnother) {
  call_deafly();
  connect_again();

  EXPECT_EQ(list_of(call("ListEvents", [](Message& m) { m.append(Dict{{"Limit", {std::uint32_t{3}}}}); })).size(), 3U);
}

TEST_F(AServiceWithADeafClient, NamesItOnce) {
  call_deafly();
  connect_again();
  wait_for([this] { return warnings_.size() == 2; });
  (void)list_of(call("ListAnalyses"));

  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("connecting anew"),
                                     HasSubstr("uid " + std::to_string(::getuid()) + " does not read")));
}

/// … that is no administrator's.
class AServiceWithADeafUser : public AServiceWithADeafClient {
 protected:
  Administrators administrators() const override { return {}; }
};

TEST_F(AServiceWithADeafUser, RefusesItAndTellsItNothing) {
  if (::getuid() == 0) GTEST_SKIP() << "root is not refused";
  int told = 0;
  const auto heard = client_
                         ->match(std::string("type='signal',interface='") + names::kManagerInterface + "'",
                                 [&](const Message&) { ++told; })
                         .value();
  call_deafly();
  connect_again();
  wait_for([this] { return warnings_.size() == 2; });

  const RemoteError error = error_of(call("ListAnalyses"));
  EXPECT_EQ(error.name, "org.freedesktop.DBus.Error.LimitsExceeded");
  EXPECT_THAT(error.message, HasSubstr("does not read what it is sent"));
  supervise::EventRecord event;
  event.kind = EventKind::kOrphanFound;
  event.registered_as = "job";
  event.uid = ::getuid();
  service_->on_event(event);
  for (int i = 0; i < 3; ++i) (void)call("ListAnalyses");  // It would come before the last answer.
  EXPECT_EQ(told, 0);
}

// ---- of one who is no administrator ----

class AServiceOfAUser : public AService {
 protected:
  Administrators administrators() const override { return {}; }

  RemoteError extend() {
    return error_of(call("ExtendDeadline", [](Message& m) { m.append("job").append(std::uint64_t{1'000'000}); }));
  }
};

TEST_F(AServiceOfAUser, TakesABurstOfChangesAndThenSaysWhenToTryAgain) {
  if (::getuid() == 0) GTEST_SKIP() << "root is not held to it";
  for (int i = 0; i < Allowance::kBurst; ++i) ASSERT_NE(extend().name, "org.freedesktop.DBus.Error.LimitsExceeded");
  RemoteError refused;
  for (int i = 0; i < Allowance::kBurst && refused.name != "org.freedesktop.DBus.Error.LimitsExceeded"; ++i) {
    refused = extend();  // Meanwhile it may a few times more.
  }

  EXPECT_EQ(refused.name, "org.freedesktop.DBus.Error.LimitsExceeded");
  EXPECT_THAT(refused.message, ::testing::ContainsRegex("try again in [0-9]+ ms"));
  EXPECT_EQ(error_of(call("KillAnalysis", [](Message& m) { m.append("none"); })).name, names::error::kNoSuchAnalysis);
}

TEST_F(AServiceOfAUser, DoesNotCountTheChangesOfRoot) {
  if (::getuid() != 0) GTEST_SKIP() << "not root";
  for (int i = 0; i < 3 * Allowance::kBurst; ++i) ASSERT_EQ(extend().name, names::error::kNoSuchAnalysis);
}

TEST_F(AService, DoesNotCountTheChangesOfAdministrators) {
  for (int i = 0; i < 3 * Allowance::kBurst; ++i) {
    ASSERT_EQ(
        error_of(call("ExtendDeadline", [](Message& m) { m.append("job").append(std::uint64_t{1'000'000}); })).name,
        names::error::kNoSuchAnalysis);
  }
}

// ---- curves ----

using Points = std::vector<std::array<std::uint64_t, 5>>;

class AServiceWithCurves : public AService {
 protected:
  /// Of a client that waits for it.
  void request(const std::string& run_id) {
    auto message =
        client_->new_call(server_->unique_name().c_str(), names::kManagerPath, names::kManagerInterface, "GetSeries");
    message.append(run_id);
    answer_.reset();
    client_->request(std::move(message), [this](Reply reply) { answer_ = std::move(reply); });
  }
  Points points() {
    wait_for([this] { return answer_.has_value(); });
    Points points;
    auto* message = std::get_if<Message>(&*answer_);
    EXPECT_NE(message, nullptr) << error_of(*answer_).message;
    if (message == nullptr || !message->enter('a', "(ttttt)")) return points;
    while (!message->at_end()) {
      EXPECT_TRUE(message->enter('r', "ttttt"));
      points.push_back({});
      for (std::uint64_t& value : points.back()) value = message->read_u64().value_or(0);
      EXPECT_TRUE(message->leave());
    }
    return points;
  }
  std::string error() {
    wait_for([this] { return answer_.has_value(); });
    return error_of(*answer_).name;
  }
  const supervise::Run& begin_run() {
    const pid_t pid = world_.spawn(world_.user_shell);
    supervise::Limits limits;
    limits.wall_clock = kForever;
    return *world_.supervisor.find(world_.register_run("job", pid, limits));
  }
  void answer_from_disk(Result<std::optional<supervise::SeriesRow>> series) {
    wait_for([this] { return !asked_.empty(); });
    const auto [run_id, done] = asked_.front();
    asked_.clear();
    done(std::move(series));
  }
  static supervise::SeriesRow row(uid_t uid, WallTime at) {
    supervise::SeriesRow series;
    series.uid = uid;
    series.samples = {{at, Bytes(20), Bytes(10), Span(5), 2}};
    return series;
  }

  std::optional<Reply> answer_;
};

TEST_F(AServiceWithCurves, TellsThatOfALiveRunWithoutAskingTheDisk) {
  const supervise::Run& run = begin_run();
  world_.use_memory("job", kMiB);
  world_.advance(std::chrono::seconds{10});

  request(run.run_id);
  const Points curve = points();

  ASSERT_GE(curve.size(), 8U);
  EXPECT_EQ(curve.back()[1], kMiB.count());
  EXPECT_EQ(curve.back()[2], kMiB.count());
  EXPECT_EQ(curve.back()[4], 1U);
  EXPECT_LT(curve.front()[0], curve.back()[0]);
  EXPECT_TRUE(asked_.empty());
}

TEST_F(AServiceWithCurves, TellsThatOfARunThatHasEndedFromTheDisk) {
  request("run-of-last-week");
  answer_from_disk(std::optional(row(World::kUser, WallTime(Span(77)))));

  EXPECT_EQ(points(), (Points{{77, 20, 10, 5, 2}}));
}

TEST_F(AServiceWithCurves, PutsWhatTheDaemonBeforeItHadKeptInFront) {
  const std::string run_id = begin_run().run_id;
  world_.advance(std::chrono::seconds{10});
  world_.restart_daemon();
  world_.adopt();
  world_.advance(std::chrono::seconds{10});

  request(run_id);
  answer_from_disk(std::optional(row(World::kUser, WallTime(Span(77)))));
  const Points curve = points();

  ASSERT_GE(curve.size(), 8U);
  EXPECT_EQ(curve.front()[0], 77U);
}

TEST_F(AServiceWithCurves, KnowsNoRunThatNobodyKnows) {
  request("nothing");
  answer_from_disk(std::optional<supervise::SeriesRow>());

  EXPECT_EQ(error(), names::error::kNoSuchAnalysis);
}

TEST_F(AServiceWithCurves, SaysWhereTheDiskCannotBeRead) {
  request("nothing");
  answer_from_disk(Error{std::make_error_code(std::errc::io_error), "the ledger is away"});

  EXPECT_EQ(error(), "org.freedesktop.DBus.Error.Failed");
}

}  // namespace
}  // namespace aw::api
