// SPDX-License-Identifier: Apache-2.0
//
// The objects on a bus of the test's own, before the simulated world: what a client is answered, and what it is told.
#include "api/service.h"

#include <gmock/gmock.h>

#include <cstring>

#include "analysis_watchdog/names.h"
#include "testing/private_bus.h"
#include "testing/world.h"

namespace aw::api {
namespace {

using bus::Dict;
using bus::Message;
using bus::RemoteError;
using bus::Reply;
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
  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    for (auto* connection : {&server_, &client_}) {
      *connection = bus::Connection::open(bus::BusKind::kUser).value();
      ASSERT_TRUE((*connection)->attach(loop_, [] {}));
    }
    service_ = std::make_unique<Service>(Service::Parts{*server_, loop_, world_.supervisor, world_.processes, history_,
                                                        [this]() -> const supervise::Limits& { return defaults_; },
                                                        [this] { return store_; }, false, "1"},
                                         Administrators{{::getuid()}, {}});
    ASSERT_TRUE(service_->start());
    changes_ =
        client_
            ->match(std::string("type='signal',interface='") + kPropertiesInterface + "',member='PropertiesChanged'",
                    [this](const Message& m) { on_properties_changed(Message::share(m.raw())); })
            .value();
    (void)list_of(call("ListAnalyses"));  // With the answer the match is in place, too.
  }

  void on_properties_changed(Message signal) {
    (void)signal.read_string();
    const auto changed = signal.read_dict();
    ASSERT_TRUE(changed);
    for (const auto& [name, value] : *changed) announced_.insert_or_assign(name, value);
  }

  void wait_for(const std::function<bool()>& what) {
    for (int i = 0; i < 1500 && !what(); ++i) {
      ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{20}));
      world_.deliver();
    }
    ASSERT_TRUE(what());
  }
  /// What a call of the manager comes back with; `path` and `interface` for another's.
  Reply call(
      const char* member, const std::function<void(Message&)>& fill = [](Message&) {},
      const std::string& path = names::kManagerPath, const char* interface = names::kManagerInterface) {
    auto message = client_->new_call(server_->unique_name().c_str(), path.c_str(), interface, member);
    fill(message);
    std::optional<Reply> answer;
    client_->request(std::move(message), [&](Reply reply) { answer = std::move(reply); });
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
  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> server_;
  std::unique_ptr<bus::Connection> client_;
  std::unique_ptr<Service> service_;
  bus::Slot changes_;
  std::map<std::string, bus::Value> announced_;
};

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

  EXPECT_GT(events.size(), 240U);
  EXPECT_LT(events.size(), 270U);  // About 16 MiB of the 64.
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

}  // namespace
}  // namespace aw::api
