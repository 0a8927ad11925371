// SPDX-License-Identifier: Apache-2.0
//
// Two connections to a bus of the test's own, driven by one loop: a server, and a client of it.
#include "bus/connection.h"

#include <gmock/gmock.h>

#include <algorithm>

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
  void wait_for(const std::function<bool()>& what) {
    for (int i = 0; i < 1000 && !what(); ++i) ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{20}));
    ASSERT_TRUE(what());
  }
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

}  // namespace
}  // namespace aw::bus
