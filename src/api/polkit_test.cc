// SPDX-License-Identifier: Apache-2.0
//
// Callers who are no administrators, on a bus of the test's own: a stand-in for polkit that answers when it is told to,
// and what may happen meanwhile. With the real one: integration-tests/stories/permissions_stories.cc.
#include <gmock/gmock.h>

#include "analysis_watchdog/names.h"
#include "api/service.h"
#include "testing/patience.h"
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

constexpr char kAuthorityName[] = "org.freedesktop.PolicyKit1";
constexpr char kAuthorityPath[] = "/org/freedesktop/PolicyKit1/Authority";
constexpr uid_t kSomebodyElse = 4242;

struct Question {
  Message call;
  std::string subject_kind;
  Dict subject;
  std::string action;
  bus::StringMap details;
  std::string cancellation;
};

class AStranger : public testing::OnAPrivateBus {
 protected:
  using Answer = std::shared_ptr<std::optional<Reply>>;

  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    for (auto* connection : {&server_, &client_, &authority_}) {
      *connection = bus::Connection::open(bus::BusKind::kUser).value();
      ASSERT_TRUE((*connection)->attach(loop_, [] {}));
    }
    served_ =
        authority_->serve(kAuthorityPath, [this](const Message& m) { on_asked(Message::share(m.raw())); }).value();
    bool named = false;
    authority_->request_name(kAuthorityName, [&](const Result<void>& taken) { named = taken.has_value(); });
    wait_for([&] { return named; });
    service_ =
        std::make_unique<Service>(Service::Parts{*server_, loop_, world_.supervisor, world_.processes, history_,
                                                 [this]() -> const supervise::Limits& { return defaults_; },
                                                 [] { return StoreState{}; }, [] { return Vitals{}; }, true, "1"},
                                  administrators());
    ASSERT_TRUE(service_->start());
    world_.process(leader_).uid = kSomebodyElse;
    register_run("job", leader_);
  }

  /// Nobody on this bus is one.
  virtual Administrators administrators() const { return {{}, {}, {}}; }

  /// By its owner.
  void register_run(const std::string& id, pid_t pid) {
    bool done = false;
    world_.supervisor.request_register(
        {World::id(id), world_.handle(pid), {}, {kSomebodyElse, 0, false}}, world_.now(),
        [&done](const Result<supervise::RunKey>& key, const Now&) { done = key.has_value(); });
    world_.deliver();
    ASSERT_TRUE(done);
  }

  void on_asked(Message call) {
    if (call.member() == "CancelCheckAuthorization") return withdrawn_.push_back(call.read_string().value());
    ASSERT_EQ(call.member(), "CheckAuthorization");
    Question question;
    ASSERT_TRUE(call.enter('r', "sa{sv}"));
    question.subject_kind = call.read_string().value();
    question.subject = call.read_dict().value();
    ASSERT_TRUE(call.leave());
    question.action = call.read_string().value();
    ASSERT_TRUE(call.enter('a', "{ss}"));
    while (!call.at_end()) {
      ASSERT_TRUE(call.enter('e', "ss"));
      const std::string key = call.read_string().value();
      question.details[key] = call.read_string().value();
      ASSERT_TRUE(call.leave());
    }
    ASSERT_TRUE(call.leave());
    interactive_ = call.read_u32().value();
    question.cancellation = call.read_string().value();
    question.call = std::move(call);
    asked_.push_back(std::move(question));
  }
  void answer(bool yes) {
    auto reply = bus::Connection::new_reply(asked_.back().call);
    reply.open('r', "bba{ss}").append(yes).append(false).append(bus::StringMap{}).close();
    authority_->send(std::move(reply));
  }

  void wait_for(const std::function<bool()>& what) {
    ASSERT_TRUE(testing::comes_true(what, [this] {
      ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{20}));
      world_.deliver();
    }));
  }
  Answer send(bus::Connection& client, const char* member, const std::function<void(Message&)>& fill) {
    auto message =
        client.new_call(server_->unique_name().c_str(), names::kManagerPath, names::kManagerInterface, member);
    fill(message);
    auto got = std::make_shared<std::optional<Reply>>();
    client.request(std::move(message), [got](Reply reply) { *got = std::move(reply); });
    return got;
  }
  Answer kill(const std::string& id = "job") {
    return send(*client_, "KillAnalysis", [&](Message& m) { m.append(id); });
  }
  Answer attach(pid_t pid) {
    return send(*client_, "AttachProcess",
                [&](Message& m) { m.append("job").append(static_cast<std::uint32_t>(pid)); });
  }
  Answer enrol(const std::string& id, pid_t pid, const Dict& options = {}) {
    return send(*client_, "RegisterAnalysis",
                [&](Message& m) { m.append(id).append(static_cast<std::uint32_t>(pid)).append(options); });
  }
  /// Its error, "" for none.
  RemoteError error_of(const Answer& got) {
    wait_for([&] { return got->has_value(); });
    if (!got->has_value()) return {"none", "no answer"};
    const auto* error = std::get_if<RemoteError>(&**got);
    return error == nullptr ? RemoteError{} : *error;
  }
  void wait_until_asked(std::size_t times = 1) {
    wait_for([&] { return asked_.size() >= times; });
  }
  pid_t process_of(uid_t uid) {
    const pid_t pid = world_.spawn(world_.user_shell);
    world_.process(pid).uid = uid;
    return pid;
  }
  auto cgroup_of(pid_t pid) { return world_.process(pid).cgroup; }
  bool untouched(const std::string& id = "job") {
    const auto* run = world_.supervisor.find(World::id(id));
    return run != nullptr && run->state() == State::kRunning;
  }

  World world_;
  supervise::EventHistory history_;
  supervise::Limits defaults_;
  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> server_;
  std::unique_ptr<bus::Connection> client_;
  std::unique_ptr<bus::Connection> authority_;
  bus::Slot served_;
  std::unique_ptr<Service> service_;
  std::vector<Question> asked_;
  std::vector<std::string> withdrawn_;
  std::uint32_t interactive_ = 7;
  const pid_t leader_ = world_.spawn(world_.user_shell);
};

TEST_F(AStranger, IsKnownToPolkitByItsConnection) {
  const Answer got = kill();
  wait_until_asked();

  EXPECT_EQ(asked_[0].subject_kind, "system-bus-name");
  ASSERT_EQ(asked_[0].subject.size(), 1U);
  EXPECT_EQ(asked_[0].subject[0].first, "name");
  EXPECT_EQ(asked_[0].subject[0].second, bus::Value{client_->unique_name()});
  EXPECT_EQ(asked_[0].action, names::kPolkitManage);
  EXPECT_EQ(asked_[0].details, (bus::StringMap{{"analysis", "job"}}));
  EXPECT_EQ(interactive_, 0U);
  EXPECT_FALSE(got->has_value());

  answer(true);

  EXPECT_EQ(error_of(got).message, "");
  EXPECT_FALSE(untouched());
}

TEST_F(AStranger, IsDeniedWithWhateverIsNoYes) {
  const std::vector<std::function<void()>> answers{
      [this] { answer(false); },
      [this] { authority_->send_error(asked_.back().call, "org.freedesktop.PolicyKit1.Error.Failed", "no"); },
      [this] { authority_->send(bus::Connection::new_reply(asked_.back().call)); },
      [this] {
        auto reply = bus::Connection::new_reply(asked_.back().call);
        reply.append(true);
        authority_->send(std::move(reply));
      },
      [this] { authority_ = nullptr; },  // It crashes.
  };
  for (std::size_t i = 0; i < answers.size(); ++i) {
    SCOPED_TRACE(i);
    const Answer got = kill();
    wait_until_asked(i + 1);
    answers[i]();

    EXPECT_EQ(error_of(got).name, names::error::kAccessDenied);
    EXPECT_TRUE(untouched());
  }
  const Answer without = kill();  // There is none by now.
  EXPECT_EQ(error_of(without).name, names::error::kAccessDenied);
  EXPECT_TRUE(untouched());
}

TEST_F(AStranger, WithLeaveToEndARunEndsNoOtherOfItsId) {
  const Answer got = kill();
  wait_until_asked();
  world_.exit(leader_);
  world_.advance(std::chrono::seconds{5});
  ASSERT_EQ(world_.supervisor.find(World::id("job")), nullptr);
  const pid_t second = world_.spawn(world_.user_shell);
  world_.process(second).uid = kSomebodyElse;
  register_run("job", second);

  answer(true);

  EXPECT_EQ(error_of(got).name, names::error::kNoSuchAnalysis);
  EXPECT_TRUE(untouched());
  EXPECT_TRUE(world_.signals_to(second).empty());
}

TEST_F(AStranger, WhoGoesAwayDuringTheQuestionLeavesNothingBehind) {
  auto vanishing = bus::Connection::open(bus::BusKind::kUser).value();
  ASSERT_TRUE(vanishing->attach(loop_, [] {}));
  (void)send(*vanishing, "KillAnalysis", [](Message& m) { m.append("job"); });
  wait_until_asked();

  vanishing.reset();
  wait_for([&] { return !withdrawn_.empty(); });
  answer(true);  // Too late.
  const Answer after = kill();
  wait_until_asked(2);
  answer(false);
  EXPECT_EQ(error_of(after).name, names::error::kAccessDenied);

  EXPECT_EQ(withdrawn_, std::vector<std::string>{asked_[0].cancellation});
  EXPECT_TRUE(untouched());
}

TEST_F(AStranger, MayRegisterAnothersProcessWithLeave) {
  const pid_t pid = process_of(kSomebodyElse);
  const Answer got = enrol("theirs", pid);
  wait_until_asked();
  EXPECT_EQ(asked_[0].action, names::kPolkitRegister);
  EXPECT_EQ(asked_[0].details, (bus::StringMap{{"analysis", "theirs"}, {"pid", std::to_string(pid)}}));

  answer(true);

  EXPECT_EQ(error_of(got).message, "");
  EXPECT_TRUE(untouched("theirs"));
  EXPECT_EQ(world_.supervisor.find(World::id("theirs"))->uid, kSomebodyElse);
}

TEST_F(AStranger, WithLeaveForAProcessRegistersNobodyWhoHasItsPidByThen) {
  const pid_t pid = process_of(kSomebodyElse);
  const Answer got = enrol("theirs", pid);
  wait_until_asked();
  world_.exit(pid);
  world_.advance(std::chrono::seconds{1});
  world_.spawn_again(pid, world_.user_shell, "another");
  world_.process(pid).uid = kSomebodyElse;

  answer(true);

  EXPECT_EQ(error_of(got).name, names::error::kNoSuchProcess);
  EXPECT_EQ(world_.supervisor.find(World::id("theirs")), nullptr);
  EXPECT_EQ(cgroup_of(pid), cgroup_of(world_.user_shell));
}

TEST_F(AStranger, WithLeaveForARunAttachesNobodyElsesProcess) {
  const pid_t pid = process_of(kSomebodyElse + 1);
  const Answer got = attach(pid);
  wait_until_asked();
  EXPECT_EQ(asked_[0].action, names::kPolkitManage);

  answer(true);

  EXPECT_EQ(error_of(got).name, names::error::kAccessDenied);
  EXPECT_EQ(cgroup_of(pid), cgroup_of(world_.user_shell));
}

TEST_F(AStranger, WithLeaveForARunAttachesNotEvenAProcessOfItsOwners) {
  const pid_t pid = process_of(kSomebodyElse);
  const Answer got = attach(pid);
  wait_until_asked();

  answer(true);

  EXPECT_EQ(error_of(got).name, names::error::kAccessDenied);
  EXPECT_EQ(cgroup_of(pid), cgroup_of(world_.user_shell));
}

TEST_F(AStranger, WithLeaveForARunAttachesAProcessOfTheirOwn) {
  const pid_t pid = process_of(::getuid());
  const Answer got = attach(pid);
  wait_until_asked();

  answer(true);

  EXPECT_EQ(error_of(got).message, "");
  EXPECT_NE(cgroup_of(pid), cgroup_of(world_.user_shell));
}

TEST_F(AStranger, WithLeaveForARunAttachesNobodyWhoHasThePidByThen) {
  const pid_t pid = process_of(::getuid());
  const Answer got = attach(pid);
  wait_until_asked();
  world_.exit(pid);
  world_.advance(std::chrono::seconds{1});
  world_.spawn_again(pid, world_.user_shell, "another");
  world_.process(pid).uid = ::getuid();  // Theirs as well, and not what was said yes to.

  answer(true);

  EXPECT_EQ(error_of(got).name, names::error::kNoSuchProcess);
  EXPECT_EQ(cgroup_of(pid), cgroup_of(world_.user_shell));
}

TEST_F(AStranger, WhoAsksWithoutEndIsDeniedUnasked) {
  std::vector<Answer> waiting;
  for (std::size_t i = 0; i < Polkit::kMostOfUser; ++i) waiting.push_back(kill());
  wait_until_asked(Polkit::kMostOfUser);

  EXPECT_EQ(error_of(kill()).name, names::error::kAccessDenied);
  EXPECT_EQ(asked_.size(), Polkit::kMostOfUser);
  EXPECT_TRUE(untouched());
}

// ---- turns ----

TEST_F(AStranger, HasNoMoreThanAFewChangesWithPid1AtATime) {
  std::vector<pid_t> pids;
  for (int i = 0; i < 7; ++i) pids.push_back(process_of(::getuid()));
  world_.placer.hold();
  std::vector<Answer> answers;
  for (const pid_t pid : pids) answers.push_back(enrol("run " + std::to_string(pid), pid));
  wait_for([&] { return world_.placer.waiting() == Turns::kOfUser.under_way; });
  const Answer list = send(*client_, "ListAnalyses", [](Message&) {});
  EXPECT_EQ(error_of(list).message, "");  // Passes those that wait.
  EXPECT_EQ(world_.placer.waiting(), Turns::kOfUser.under_way);

  world_.placer.release();

  for (const Answer& got : answers) EXPECT_EQ(error_of(got).message, "");
  EXPECT_EQ(world_.supervisor.runs().size(), pids.size() + 1);
}

TEST_F(AStranger, WhoGoesAwayHasNothingDoneThatHasNotBegun) {
  auto vanishing = bus::Connection::open(bus::BusKind::kUser).value();
  ASSERT_TRUE(vanishing->attach(loop_, [] {}));
  world_.placer.hold();
  for (int i = 0; i < 7; ++i) {
    const pid_t pid = world_.spawn(world_.user_shell);
    world_.process(pid).uid = ::getuid();
    (void)send(*vanishing, "RegisterAnalysis", [&](Message& m) {
      m.append("run " + std::to_string(pid)).append(static_cast<std::uint32_t>(pid)).append(Dict{});
    });
  }
  wait_for([&] { return world_.placer.waiting() == Turns::kOfUser.under_way; });

  vanishing.reset();
  (void)error_of(send(*client_, "ListAnalyses", [](Message&) {}));  // The bus tells us of the end before this call.
  world_.placer.release();
  (void)error_of(send(*client_, "ListAnalyses", [](Message&) {}));
  world_.deliver();

  // What was begun is whole: registered, and watched.
  EXPECT_EQ(world_.supervisor.runs().size(), Turns::kOfUser.under_way + 1);
  EXPECT_EQ(world_.supervisor.monitored(), Turns::kOfUser.under_way + 1);
}

TEST_F(AStranger, WhoSendsTooMuchIsRefused) {
  const pid_t pid = process_of(::getuid());

  const auto error = error_of(enrol("much", pid, {{"Description", {std::string(70'000, 'x')}}}));

  EXPECT_EQ(error.name, "org.freedesktop.DBus.Error.LimitsExceeded");
  EXPECT_THAT(error.message, HasSubstr("64 KiB"));
}

/// A member of analysis-viewer, and of nothing else.
class AViewer : public AStranger {
 protected:
  Administrators administrators() const override { return {{}, {}, ::getegid()}; }

  Answer set_property(const char* name, const bus::Value& value) {
    auto message = client_->new_call(server_->unique_name().c_str(), object_path(World::id("job")).c_str(),
                                     "org.freedesktop.DBus.Properties", "Set");
    message.append(names::kAnalysisInterface).append(name).append_variant(value);
    auto got = std::make_shared<std::optional<Reply>>();
    client_->request(std::move(message), [got](Reply reply) { *got = std::move(reply); });
    return got;
  }
};

TEST_F(AViewer, SeesTheRunsOfEverybody) {
  const Answer list = send(*client_, "ListAnalyses", [](Message&) {});
  const Answer path = send(*client_, "GetAnalysis", [](Message& m) { m.append("job"); });

  EXPECT_EQ(error_of(path).message, "");
  ASSERT_EQ(error_of(list).message, "");
  const auto runs = std::get<Message>(**list).read_dicts().value();
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(*bus::find(runs[0], "Id"), bus::Value{std::string("job")});
  EXPECT_EQ(*bus::find(runs[0], "Uid"), bus::Value{std::uint32_t{kSomebodyElse}});
}

TEST_F(AViewer, IsToldOfWhatHappensToTheRunsOfEverybody) {
  std::vector<std::string> heard;
  const auto slot = client_
                        ->match(std::string("type='signal',interface='") + names::kManagerInterface + "'",
                                [&](const Message& m) { heard.push_back(m.member()); })
                        .value();
  (void)error_of(send(*client_, "ListAnalyses", [](Message&) {}));  // With the answer the match is in place, too.
  supervise::EventRecord event;
  event.kind = EventKind::kEnding;
  event.registered_as = "job";
  event.uid = kSomebodyElse;

  service_->on_event(event);

  wait_for([&] { return !heard.empty(); });
  EXPECT_EQ(heard, std::vector<std::string>{"AnalysisEnding"});
}

TEST_F(AViewer, ManagesNobodysRun) {
  const Dict grace{{"GraceUSec", {std::uint64_t{7'000'000}}}};
  const std::vector<std::function<Answer()>> deeds{
      [&] { return kill(); },
      [&] { return send(*client_, "UnregisterAnalysis", [](Message& m) { m.append("job"); }); },
      [&] { return send(*client_, "SetLimits", [&](Message& m) { m.append("job").append(grace); }); },
      [&] {
        return send(*client_, "ExtendDeadline", [](Message& m) { m.append("job").append(std::uint64_t{1'000'000}); });
      },
      [&] { return send(*client_, "AttachProcess", [&](Message& m) { m.append("job").append(std::uint32_t{4}); }); },
      [&] { return set_property("GraceUSec", grace[0].second); },
  };
  for (std::size_t i = 0; i < deeds.size(); ++i) {
    SCOPED_TRACE(i);
    const Answer got = deeds[i]();
    wait_until_asked(i + 1);
    answer(false);

    EXPECT_EQ(error_of(got).name, names::error::kAccessDenied);
    EXPECT_TRUE(untouched());
  }
  EXPECT_EQ(world_.supervisor.find(World::id("job"))->limits.grace, supervise::Limits().grace);
}

}  // namespace
}  // namespace aw::api
