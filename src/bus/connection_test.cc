// SPDX-License-Identifier: Apache-2.0
//
// Two connections to a bus of the test's own, driven by one loop: a server, and a client of it.
#include "bus/connection.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "testing/patience.h"
#include "testing/private_bus.h"

namespace aw::bus {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kPath[] = "/test";
constexpr char kInterface[] = "org.example.Test";
constexpr char kFailed[] = "org.freedesktop.DBus.Error.Failed";
constexpr char kNoncharacter[] = "a\xef\xbf\xbe";

class AConnection : public testing::OnAPrivateBus {
 protected:
  AConnection() = default;
  explicit AConnection(testing::BusLimits limits) : OnAPrivateBus(limits) {}
  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    for (auto* connection : {&server_, &client_}) {
      *connection = Connection::open(BusKind::kUser).value();
      ASSERT_TRUE((*connection)->attach(loop_, [] {}));
    }
  }

  /// Serves calls with what `fill` makes of the reply.
  void serve(std::function<void(Message&)> fill) {
    served_ = server_
                  ->serve(kPath,
                          [this, fill = std::move(fill)](const Message& call) {
                            auto reply = Connection::new_reply(call);
                            fill(reply);
                            server_->send(std::move(reply));
                          })
                  .value();
  }
  void wait_for(const std::function<bool()>& what) { ASSERT_TRUE(testing::turn_until(loop_, what)); }
  Reply call() {
    std::optional<Reply> answer;
    client_->request(client_->new_call(server_->unique_name().c_str(), kPath, kInterface, "Do"),
                     [&](Reply reply) { answer = std::move(reply); });
    wait_for([&] { return answer.has_value(); });
    return std::move(*answer);
  }
  RemoteError error_of_call() {
    Reply reply = call();
    const auto* error = std::get_if<RemoteError>(&reply);
    return error == nullptr ? RemoteError{} : *error;
  }

  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<Connection> server_;
  std::unique_ptr<Connection> client_;
  Slot served_;
};

TEST_F(AConnection, SendsAReply) {
  serve([](Message& reply) { reply.append("hello"); });

  auto reply = call();

  EXPECT_EQ(std::get<Message>(reply).read_string().value(), "hello");
}

TEST_F(AConnection, AnswersWithAnErrorWhereAReplyCannotBeBuilt) {
  for (const char* text : {kNoncharacter, "\xff", "\xed\xa0\x80"}) {
    serve([text](Message& reply) { reply.append(Dict{{"comm", {std::string(text)}}}); });

    const RemoteError error = error_of_call();

    EXPECT_EQ(error.name, kFailed);
    EXPECT_THAT(error.message, HasSubstr("cannot be built"));
    served_.reset();
  }
}

TEST_F(AConnection, AnswersWithAnErrorWhereAReplyIsLeftOpen) {
  serve([](Message& reply) { reply.open('a', "s"); });

  EXPECT_EQ(error_of_call().name, kFailed);
}

TEST_F(AConnection, AnswersWithAnErrorInsteadOfMoreThanTheSystemBusTakes) {
  serve([](Message& reply) {
    reply.open('a', "s");
    for (int i = 0; i < 32; ++i) reply.append(std::string(1UL << 20U, 'x'));
    reply.close();
  });

  const RemoteError error = error_of_call();

  EXPECT_EQ(error.name, kFailed);
  EXPECT_THAT(error.message, HasSubstr("more than 31 MiB"));
}

TEST_F(AConnection, AnswersWithAnErrorWhereTheWordsOfOneCannotBeSent) {
  served_ =
      server_->serve(kPath, [this](const Message& call) { server_->send_error(call, kFailed, kNoncharacter); }).value();

  EXPECT_EQ(error_of_call().name, kFailed);
}

TEST_F(AConnection, IsBehindUntilTheBusHasReadWhatItWasSent) {
  ASSERT_FALSE(client_->is_behind());
  // More than the socket takes while nobody reads.
  while (!client_->is_behind()) client_->send(client_->new_signal(kPath, kInterface, "Told"));
  int told = 0;

  client_->request_room([&] {
    ++told;
    EXPECT_FALSE(client_->is_behind());
  });
  EXPECT_EQ(told, 0);
  while (told == 0) ASSERT_TRUE(loop_.iterate(std::chrono::seconds{60}).has_value());

  // Once, also where more is handled.
  (void)call();
  EXPECT_EQ(told, 1);
}

TEST_F(AConnection, IsBehindOfFewMessagesThatAreLarge) {
  const auto send_large = [this] {
    auto message = client_->new_signal(kPath, kInterface, "Told");
    client_->send(std::move(message.append(std::string(1UL << 20U, 'x'))));
  };
  for (int i = 0; i < 8; ++i) send_large();
  EXPECT_TRUE(client_->is_behind());
  EXPECT_GT(client_->unwritten_bytes(), Connection::kMostUnwrittenBytes);

  bool room = false;
  client_->request_room([&] { room = true; });
  wait_for([&] { return room; });
  EXPECT_LE(client_->unwritten_bytes(), Connection::kMostUnwrittenBytes);
}

TEST_F(AConnection, TellsOnceOfSignalsThatItCannotBuild) {
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    auto to_all = server_->new_signal(kPath, kInterface, "Told");
    server_->send(std::move(to_all.append(kNoncharacter)));
    auto to_one = server_->new_signal(kPath, kInterface, "Told");
    server_->send_to(std::move(to_one.append(kNoncharacter)), client_->unique_name());
  }

  const std::string told = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(told, StartsWith("Told to the bus was not sent: it cannot be built"));
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1);
}

TEST_F(AConnection, KnowsTheProcessOfTheBus) {
  std::optional<pid_t> pid;
  client_->request_bus_pid([&](Result<pid_t> answer) { pid = answer.value(); });
  wait_for([&] { return pid.has_value(); });

  EXPECT_EQ(pid, bus_pid());
  EXPECT_EQ(client_->find_peer(), bus_pid());
}

TEST_F(AConnection, HearsInTheBussNameTheBusAlone) {
  constexpr char kBus[] = "org.freedesktop.DBus";
  serve([](Message&) {});
  for (const std::string name : {"org.example.One", "org.example.Two"}) {
    const std::string order = name == "org.example.One" ? "member='NameOwnerChanged',sender='org.freedesktop.DBus'"
                                                        : "sender='org.freedesktop.DBus',member='NameOwnerChanged'";
    std::vector<std::string> told;
    const auto heard = server_
                           ->match("type='signal'," + order + ",arg0='" + name + "'",
                                   [&told](Message m) { told.push_back(m.sender()); })
                           .value();
    (void)call();  // With the answer the match is in place, too.

    auto forged = client_->new_signal("/org/freedesktop/DBus", kBus, "NameOwnerChanged");
    client_->send_to(std::move(forged.append(name).append(":1.7").append("")), server_->unique_name());
    (void)call();  // Comes after it.
    EXPECT_EQ(told, std::vector<std::string>{});

    client_->request_name(name.c_str(), [](const Result<void>&) {});
    wait_for([&] { return !told.empty(); });
    EXPECT_EQ(told, std::vector<std::string>{kBus});
  }
}

TEST_F(AConnection, CountsNoLessThanAMessageTakes) {
  auto message = client_->new_call(server_->unique_name().c_str(), kPath, kInterface, "Do");

  message.append(std::vector<std::string>(1000, "ten bytes."));
  EXPECT_GE(message.size(), 1000 * 16U);  // A length, the text and its NUL, to the next length's boundary.

  const std::size_t before = message.size();
  message.append(Dict(1000, {"t", {std::uint64_t{1}}}));
  EXPECT_GE(message.size() - before, 1000 * 24U);  // The key, the signature and the number, to an entry's boundary.
  EXPECT_LT(message.size(), 100'000U);
}

TEST_F(AConnection, ThatIsNotOpenYetAnswersWithAnError) {
  const auto unopened = Connection::prepare(BusKind::kUser);
  ASSERT_TRUE(unopened->attach(loop_, [] {}));
  EXPECT_FALSE(unopened->is_open());

  std::optional<Reply> answer;
  unopened->request(unopened->new_call(server_->unique_name().c_str(), kPath, kInterface, "Do"),
                    [&](Reply reply) { answer = std::move(reply); });
  wait_for([&] { return answer.has_value(); });

  EXPECT_NE(std::get_if<RemoteError>(&*answer), nullptr);
  unopened->send(unopened->new_signal(kPath, kInterface, "Nobody"));  // And nothing happens.
}

TEST_F(AConnection, IsOpenedAnewAfterTheBusHasGone) {
  std::optional<Message> unanswered;
  served_ = server_->serve(kPath, [&](Message call) { unanswered = std::move(call); }).value();
  bool lost = false;
  client_ = Connection::prepare(BusKind::kUser);
  ASSERT_TRUE(client_->attach(loop_, [&] { lost = true; }));
  ASSERT_TRUE(client_->reopen());
  std::optional<Reply> answer;
  client_->request(client_->new_call(server_->unique_name().c_str(), kPath, kInterface, "Do"),
                   [&](Reply reply) { answer = std::move(reply); });
  wait_for([&] { return unanswered.has_value(); });

  restart_bus();
  wait_for([&] { return lost; });
  EXPECT_TRUE(answer) << "what was under way fails before the loss is told";
  EXPECT_FALSE(client_->is_open());

  for (auto* connection : {&server_, &client_}) ASSERT_TRUE((*connection)->reopen());
  EXPECT_TRUE(client_->is_open());
  // Whoever asked on the old bus is not there; that name may be another's.
  server_->send(Connection::new_reply(*unanswered));
  serve([](Message& reply) { reply.append("hello again"); });
  auto reply = call();
  EXPECT_EQ(std::get<Message>(reply).read_string().value(), "hello again");
}

/// On a bus that allows no more unanswered calls than the system bus does, with a server that answers when it is told
/// to.
class AConnectionToADeafPeer : public AConnection {
 protected:
  AConnectionToADeafPeer() : AConnection({.unanswered = 128}) {}

  void SetUp() override {
    AConnection::SetUp();
    if (IsSkipped()) return;
    served_ = server_->serve(kPath, [this](Message call) { calls_.push_back(std::move(call)); }).value();
  }
  Message new_call(const char* member) {
    return client_->new_call(server_->unique_name().c_str(), kPath, kInterface, member);
  }
  void ask(const std::string& member, Sending sending = {}) {
    client_->request(
        new_call(member.c_str()),
        [this, member](Reply reply) {
          const auto* error = std::get_if<RemoteError>(&reply);
          (error == nullptr ? answered_ : refused_).push_back(error == nullptr ? member : member + " " + error->name);
        },
        std::move(sending));
  }
  void turn_for(Span time) {
    for (const Instant until = loop_.now().monotonic + time; loop_.now().monotonic < until;) {
      ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{5}));
    }
  }
  void answer_all() {
    for (const Message& call : std::exchange(calls_, {})) {
      heard_.push_back(call.member());
      server_->send(Connection::new_reply(call));
    }
  }
  std::vector<std::string> names(int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) names.push_back("Do" + std::to_string(i));
    return names;
  }

  std::vector<Message> calls_;  ///< that have come to the server, and have no answer
  std::vector<std::string> heard_;
  std::vector<std::string> answered_;
  std::vector<std::string> refused_;
};

TEST_F(AConnectionToADeafPeer, AsksNoMoreAtOnceThanTheBusAllowsAndIsAnsweredEachOfThem) {
  for (const std::string& name : names(300)) ask(name);
  wait_for([&] { return calls_.size() >= Connection::kMostToOne; });
  turn_for(std::chrono::milliseconds{100});
  EXPECT_EQ(calls_.size(), Connection::kMostToOne);
  EXPECT_THAT(answered_, ::testing::IsEmpty());

  wait_for([&] {
    answer_all();
    return answered_.size() + refused_.size() == 300;
  });

  EXPECT_THAT(refused_, ::testing::IsEmpty());
  EXPECT_EQ(answered_, names(300));
  EXPECT_EQ(heard_, names(300));
}

TEST_F(AConnectionToADeafPeer, HearsOfOthersWhileItIsDeaf) {
  for (const std::string& name : names(300)) ask(name);
  auto other = Connection::open(BusKind::kUser).value();
  ASSERT_TRUE(other->attach(loop_, [] {}));
  const auto served =
      other->serve(kPath, [&](const Message& call) { other->send(Connection::new_reply(call)); }).value();
  int answers = 0;
  std::optional<pid_t> bus;

  for (int i = 0; i < 50; ++i) {
    client_->request(client_->new_call(other->unique_name().c_str(), kPath, kInterface, "Do"),
                     [&](const Reply& reply) { answers += std::holds_alternative<Message>(reply) ? 1 : 0; });
  }
  client_->request_bus_pid([&](Result<pid_t> pid) { bus = pid.value(); });
  wait_for([&] { return answers == 50 && bus.has_value(); });

  EXPECT_THAT(answered_, ::testing::IsEmpty());
}

TEST_F(AConnectionToADeafPeer, LetsEarlyOnesGoFirst) {
  for (const std::string& name : names(100)) ask(name);
  ask("Stop", {.turn = Turn::kEarly});
  wait_for([&] { return calls_.size() == Connection::kMostToOne; });
  wait_for([&] {
    answer_all();
    return answered_.size() == 101;
  });

  ASSERT_EQ(heard_.size(), 101U);
  EXPECT_EQ(heard_.at(Connection::kMostToOne), "Stop");
}

TEST_F(AConnectionToADeafPeer, CountsTheTimeOfACallFromWhenItGoesOut) {
  for (const std::string& name : names(64)) ask(name);
  ask("Last", {.timeout = std::chrono::milliseconds{300}});
  wait_for([&] { return calls_.size() == 64; });

  turn_for(std::chrono::milliseconds{500});
  EXPECT_THAT(refused_, ::testing::IsEmpty()) << "it waited for its turn only";
  answer_all();
  wait_for([&] { return !refused_.empty(); });
  EXPECT_THAT(refused_.front(), StartsWith("Last "));
}

TEST_F(AConnectionToADeafPeer, SendsAnotherInPlaceOfOneThatTimedOut) {
  for (const std::string& name : names(64)) ask(name, {.timeout = std::chrono::milliseconds{100}});
  ask("Last");
  wait_for([&] { return refused_.size() == 64; });

  wait_for([&] { return calls_.size() == 65; });
  EXPECT_EQ(calls_.back().member(), "Last");
}

TEST_F(AConnectionToADeafPeer, DoesNotSendWhatIsWithdrawnWhileItWaits) {
  bool wanted = true;
  int asked = 0;
  for (const std::string& name : names(64)) ask(name);
  ask("Last", {.before = [&] {
        ++asked;
        return wanted;
      }});
  wait_for([&] { return calls_.size() == 64; });
  EXPECT_EQ(asked, 0);
  wanted = false;
  answer_all();
  wait_for([&] { return !refused_.empty(); });

  EXPECT_EQ(refused_.front(), std::string("Last ") + kWithdrawn);
  EXPECT_EQ(asked, 1);
  EXPECT_THAT(calls_, ::testing::IsEmpty());
}

TEST_F(AConnectionToADeafPeer, FailsWhatWaitsWhenTheBusGoesAndStartsAnewOnTheNext) {
  for (const std::string& name : names(300)) ask(name);
  wait_for([&] { return calls_.size() == Connection::kMostToOne; });

  restart_bus();
  wait_for([&] { return refused_.size() == 300; });
  EXPECT_THAT(answered_, ::testing::IsEmpty());
  calls_.clear();
  for (auto* connection : {&server_, &client_}) ASSERT_TRUE((*connection)->reopen());
  served_ = server_->serve(kPath, [this](Message call) { calls_.push_back(std::move(call)); }).value();
  for (const std::string& name : names(100)) ask(name);
  wait_for([&] { return calls_.size() == Connection::kMostToOne; });
  answer_all();
  wait_for([&] { return calls_.size() == 100 - Connection::kMostToOne; });
}

/// On a bus that reads no more from who has sent others a megabyte that those have not read; with a server that sends
/// more than that to somebody who never reads.
class AConnectionToWhomNobodyListens : public AConnection {
 protected:
  static constexpr Span kPause = std::chrono::milliseconds{500};
  AConnectionToWhomNobodyListens() : AConnection({.incoming_bytes = 1 << 20}) {}

  void SetUp() override {
    AConnection::SetUp();
    if (IsSkipped()) return;
    server_ = Connection::open(BusKind::kUser).value();
    ASSERT_TRUE(server_->attach(loop_, [this] { lost_ = true; }));
    server_->on_stuck([this] { ++stuck_; }, kPause);
    serve([](Message& reply) { reply.append("hello"); });
    take_name();
    deaf_ = Connection::open(BusKind::kUser).value();  // No loop drives it.
  }
  void take_name() {
    std::optional<Result<void>> taken;
    server_->request_name("org.example.Test", [&](Result<void> answer) { taken = std::move(answer); });
    wait_for([&] { return taken.has_value(); });
    EXPECT_TRUE(*taken) << (*taken ? "" : taken->error().message);
  }
  void send_large(const std::string& to) {
    auto signal = server_->new_signal(kPath, kInterface, "Told");
    server_->send_to(std::move(signal.append(std::string(400'000, 'x'))), to);
  }

  /// Returns when the bus has done what was asked of it before; the loop of those who asked does not turn meanwhile.
  void let_the_bus_catch_up() {
    auto loop = loop::Loop::create().value();
    const auto other = Connection::open(BusKind::kUser).value();
    ASSERT_TRUE(other->attach(loop, [] {}));
    for (int i = 0; i < 2; ++i) {
      bool answered = false;
      other->request_bus_pid([&](const Result<pid_t>&) { answered = true; });
      ASSERT_TRUE(testing::turn_until(loop, [&] { return answered; }));
    }
  }

  std::unique_ptr<Connection> deaf_;
  bool lost_ = false;
  int stuck_ = 0;
};

TEST_F(AConnectionToWhomNobodyListens, IsOpenedAnewAndHasItsNameAgain) {
  for (int i = 0; i < 20; ++i) send_large(deaf_->unique_name());
  bool answered = false;
  server_->request_bus_pid([&](const Result<pid_t>&) { answered = true; });
  wait_for([&] { return lost_; });
  EXPECT_EQ(stuck_, 1);
  EXPECT_TRUE(answered) << "what was under way fails before the loss is told";

  ASSERT_TRUE(server_->reopen());
  take_name();
  serve([](Message& reply) { reply.append("hello again"); });
  auto reply = call();
  EXPECT_EQ(std::get<Message>(reply).read_string().value(), "hello again");
}

TEST_F(AConnectionToWhomNobodyListens, IsOpenedAnewAlsoWhereAllItHasSentIsWritten) {
  for (bool answered = true; answered;) {
    auto signal = server_->new_signal(kPath, kInterface, "Told");
    server_->send_to(std::move(signal.append(std::string(40'000, 'x'))), deaf_->unique_name());
    answered = false;
    server_->request_bus_pid([&](const Result<pid_t>& pid) { answered = pid.has_value(); });
    wait_for([&] { return answered || lost_; });
    EXPECT_EQ(server_->unwritten_bytes(), 0U);
  }

  EXPECT_EQ(stuck_, 1);
}

TEST_F(AConnectionToWhomNobodyListens, IsKeptWhereItStoodStillItself) {
  for (int i = 0; i < 20; ++i) send_large(client_->unique_name());
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for((Connection::kMostLooks + 1) * kPause);
    ASSERT_TRUE(loop_.iterate(Span(0)));
  }

  EXPECT_EQ(std::get<Message>(call()).read_string().value(), "hello");
  EXPECT_EQ(stuck_, 0);
}

TEST_F(AConnectionToWhomNobodyListens, IsKeptWhereTheBusStandsStillAgainAndAgain) {
  for (int i = 0; i < 5; ++i) {
    ::kill(bus_pid(), SIGSTOP);
    for (int k = 0; k < 5; ++k) send_large(client_->unique_name());
    for (const Instant until = loop_.now().monotonic + 3 * kPause; loop_.now().monotonic < until;) {
      ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{5}));
    }
    ::kill(bus_pid(), SIGCONT);
    let_the_bus_catch_up();
    ASSERT_EQ(std::get<Message>(call()).read_string().value(), "hello");
  }

  EXPECT_EQ(stuck_, 0);
}

}  // namespace
}  // namespace aw::bus
