// SPDX-License-Identifier: Apache-2.0
#include "web/viewer.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "base/unique_fd.h"

namespace aw::web {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const std::string kToken = "0123456789abcdef";
constexpr gid_t kViewers = 77;

Gatekeeper with_token() { return Gatekeeper({kToken, {0}, {kViewers}}); }
Viewer judged(const Gatekeeper& gatekeeper, const std::optional<Peer>& peer, const std::string& authorization = "",
              const std::string& cookie = "") {
  return gatekeeper.judge(peer, authorization, cookie).value();
}

TEST(AReaderOverTcp, IsNobodyWithoutTheToken) {
  EXPECT_EQ(judged(with_token(), {}), Viewer{});
  EXPECT_EQ(judged(with_token(), {}, "", "other=1"), Viewer{});
  EXPECT_FALSE(Viewer{}.may_see(1000));
  EXPECT_FALSE(Viewer{}.may_see(std::nullopt));
}

TEST(AReaderOverTcp, SeesAllWithTheToken) {
  EXPECT_EQ(judged(with_token(), {}, "Bearer " + kToken).sight, Sight::kAll);
}

TEST(AReaderOverTcp, IsRefusedWithAnotherToken) {
  for (const std::string& wrong : {kToken + "x", kToken.substr(1), std::string("x"), std::string(4000, 'x')}) {
    EXPECT_FALSE(with_token().judge({}, "Bearer " + wrong, "")) << wrong;
  }
  EXPECT_FALSE(with_token().judge({}, "Basic " + kToken, ""));
  EXPECT_FALSE(with_token().judge({}, "Bearer", ""));
}

TEST(AReaderOverTcp, HasNoTokenWhereThereIsNone) {
  const Gatekeeper without{Gatekeeper::Trusted{}};

  EXPECT_FALSE(without.judge({}, "Bearer ", ""));
  EXPECT_FALSE(without.judge({}, "Bearer x", ""));
  EXPECT_FALSE(without.is_token(""));
  EXPECT_EQ(judged(without, {}, "", std::string(kSessionCookie) + "="), Viewer{});
}

TEST(ASession, IsAsGoodAsTheTokenItWasMadeOfAndTellsNothingOfIt) {
  const Gatekeeper gatekeeper = with_token();
  const std::string cookie = std::string(kSessionCookie) + "=" + gatekeeper.session();

  EXPECT_EQ(judged(gatekeeper, {}, "", cookie).sight, Sight::kAll);
  EXPECT_EQ(judged(Gatekeeper({"another token 0123", {0}, {}}), {}, "", cookie), Viewer{});
  EXPECT_EQ(gatekeeper.session().find(kToken), std::string::npos);
  EXPECT_FALSE(gatekeeper.is_token(gatekeeper.session()));
}

TEST(APeer, SeesItsOwnUnlessItIsTrusted) {
  const Viewer own = judged(with_token(), Peer{1000, {1000, 4}});

  EXPECT_EQ(own, (Viewer{Sight::kOwn, 1000}));
  EXPECT_TRUE(own.may_see(1000));
  EXPECT_FALSE(own.may_see(1001));
  EXPECT_TRUE(own.may_see(std::nullopt)) << "the daemon's own events name nobody";
  EXPECT_EQ(judged(with_token(), Peer{0, {0}}).sight, Sight::kAll);
  EXPECT_EQ(judged(with_token(), Peer{1000, {1000, kViewers}}).sight, Sight::kAll);
  EXPECT_EQ(judged(with_token(), Peer{1000, {1000}}, "Bearer " + kToken).sight, Sight::kAll);
}

TEST(APeer, IsReadFromItsSocketWithAllItsGroups) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const UniqueFd one(ends[0]), other(ends[1]);

  const auto peer = read_peer(one.get());

  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->uid, ::geteuid());
  EXPECT_THAT(peer->groups, Contains(::getegid()));
  std::vector<gid_t> groups(static_cast<std::size_t>(::getgroups(0, nullptr)));
  ASSERT_GE(::getgroups(static_cast<int>(groups.size()), groups.data()), 0);
  for (const gid_t group : groups) EXPECT_THAT(peer->groups, Contains(group));
  EXPECT_FALSE(read_peer(-1));
}

TEST(ATokenFile, HoldsATokenInItsFirstLineOrSaysWhatToDo) {
  const std::string file = ::testing::TempDir() + "token";
  const auto read = [&](const std::string& content) {
    std::ofstream(file) << content;
    return read_token(file);
  };
  EXPECT_EQ(read(kToken + "\nmore\n").value(), kToken);
  EXPECT_EQ(read(kToken).value(), kToken);
  for (const char* bad : {"", "\n", "short\n", "0123456789 abcdef\n", "0123456789\tabcdef\n", "0123456789äbcdef\n"}) {
    auto token = read(bad);
    ASSERT_FALSE(token) << bad;
    EXPECT_THAT(token.error().message, HasSubstr("openssl rand -hex 32"));
  }
  EXPECT_THAT(read_token("/nowhere/token").error().message, HasSubstr("/nowhere/token"));
}

}  // namespace
}  // namespace aw::web
