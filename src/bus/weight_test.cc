// SPDX-License-Identifier: Apache-2.0
#include "bus/weight.h"

#include <gtest/gtest.h>

#include <cstring>

#include "bus/connection.h"

namespace aw::bus {
namespace {

class AMessage : public ::testing::Test {
 protected:
  Message sealed() {
    EXPECT_GE(message_.append_status(), 0);
    EXPECT_GE(sd_bus_message_seal(message_.raw(), 1, 0), 0);
    return Message::share(message_.raw());
  }

  std::unique_ptr<Connection> connection_ = Connection::prepare(BusKind::kUser);
  Message message_ = connection_->new_call("a.b", "/a", "a.b", "Do");
};

TEST_F(AMessage, WithoutArgumentsWeighsNothing) { EXPECT_EQ(weigh(sealed(), 0), Weight::kFits); }

TEST_F(AMessage, WeighsWhatItsTextsHave) {
  message_.append(std::string(1000, 'x')).append(std::uint64_t{1});

  const Message message = sealed();
  EXPECT_EQ(weigh(message, 1016), Weight::kFits);
  EXPECT_EQ(weigh(message, 1015), Weight::kTooMuch);
}

TEST_F(AMessage, WeighsWhatIsInItsContainers) {
  Dict dict{{"Labels", {StringMap{{"key", std::string(500, 'v')}}}}, {"Many", {std::uint64_t{1}}}};
  message_.append("id").append(dict);

  const Message message = sealed();
  EXPECT_EQ(weigh(message, 2000), Weight::kFits);
  EXPECT_EQ(weigh(message, 500), Weight::kTooMuch);
}

TEST_F(AMessage, IsReadFromItsBeginningAfterwards) {
  message_.append("id").append(Dict{{"A", {std::uint64_t{1}}}});
  Message message = sealed();

  EXPECT_EQ(weigh(message, 3), Weight::kTooMuch);
  EXPECT_EQ(weigh(message, 3000), Weight::kFits);

  EXPECT_EQ(message.read_string().value(), "id");
  EXPECT_EQ(message.read_dict().value().size(), 1U);
}

TEST_F(AMessage, WithATextThatCannotBeReadSaysSo) {
  char* text = nullptr;
  ASSERT_GE(sd_bus_message_append_string_space(message_.raw(), 3, &text), 0);
  std::memcpy(text, "\xef\xbf\xbe", 3);

  EXPECT_EQ(weigh(sealed(), 1000), Weight::kUnreadable);
}

}  // namespace
}  // namespace aw::bus
