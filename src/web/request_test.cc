// SPDX-License-Identifier: Apache-2.0
#include "web/request.h"

#include <gmock/gmock.h>

namespace aw::web {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::string complaint(std::string_view raw) {
  auto target = parse_target(raw);
  return target ? "" : target.error().message;
}

TEST(ATarget, IsItsSegmentsAndParametersWithoutEscapes) {
  const auto target = parse_target("/api/analyses/a%2Fb%20c+d?since=-1h&id=x%26y+z&empty=&bare");

  ASSERT_TRUE(target);
  EXPECT_THAT(target->path, ElementsAre("api", "analyses", "a/b c+d"));
  EXPECT_THAT(target->query,
              ElementsAre(Pair("since", "-1h"), Pair("id", "x&y z"), Pair("empty", ""), Pair("bare", "")));
}

TEST(ATarget, OfTheRootHasNoSegments) {
  EXPECT_THAT(parse_target("/").value().path, IsEmpty());
  EXPECT_THAT(parse_target("/?x=1").value().path, IsEmpty());
}

TEST(ATarget, ThatClimbsIsOnlySegmentsOfThatName) {
  EXPECT_THAT(parse_target("/assets/../../etc/passwd").value().path,
              ElementsAre("assets", "..", "..", "etc", "passwd"));
  EXPECT_THAT(parse_target("/assets/..%2f..%2fetc%2fpasswd").value().path, ElementsAre("assets", "../../etc/passwd"));
}

TEST(ATarget, IsRefusedWithWhatIsWrongWithIt) {
  EXPECT_THAT(complaint(""), HasSubstr("begins with /"));
  EXPECT_THAT(complaint("http://x/"), HasSubstr("begins with /"));
  EXPECT_THAT(complaint("*"), HasSubstr("begins with /"));
  EXPECT_THAT(complaint("/a%"), HasSubstr("two hexadecimal digits"));
  EXPECT_THAT(complaint("/a%2"), HasSubstr("two hexadecimal digits"));
  EXPECT_THAT(complaint("/a%2g"), HasSubstr("two hexadecimal digits"));
  EXPECT_THAT(complaint("/a%00b"), HasSubstr("%00"));
  EXPECT_THAT(complaint("/?a=%00"), HasSubstr("%00"));
  EXPECT_THAT(complaint("/%ff"), HasSubstr("UTF-8"));
  EXPECT_THAT(complaint("/%c0%af"), HasSubstr("UTF-8"));
  EXPECT_THAT(complaint("/a b"), HasSubstr("%XX"));
  EXPECT_THAT(complaint("/a#b"), HasSubstr("%XX"));
  EXPECT_THAT(complaint("/?a=1&a=2"), HasSubstr("twice"));
  EXPECT_THAT(complaint("/?a=1&%61=2"), HasSubstr("twice"));
}

TEST(ACookie, IsFoundAmongOthersByItsWholeName) {
  EXPECT_EQ(find_cookie("a=1; session=x=y ;b=2", "session"), "x=y");
  EXPECT_EQ(find_cookie("session=first; session=second", "session"), "first");
  EXPECT_EQ(find_cookie("mysession=1; sessions=2; session", "session"), std::nullopt);
  EXPECT_EQ(find_cookie("", "session"), std::nullopt);
}

TEST(ABearer, IsOfThatSchemeOnly) {
  EXPECT_EQ(find_bearer("Bearer abc"), "abc");
  EXPECT_EQ(find_bearer("bearer  abc "), "abc");
  EXPECT_EQ(find_bearer("Basic abc"), std::nullopt);
  EXPECT_EQ(find_bearer("Bearer"), std::nullopt);
  EXPECT_EQ(find_bearer("Bearerabc"), std::nullopt);
}

TEST(AForm, HasItsValuesWithoutEscapes) {
  EXPECT_EQ(find_form_value("a=1&token=x%2By+z", "token"), "x+y z");
  EXPECT_EQ(find_form_value("token=1&token=2", "token"), std::nullopt);
  EXPECT_EQ(find_form_value("token=%zz", "token"), std::nullopt);
  EXPECT_EQ(find_form_value("", "token"), std::nullopt);
}

TEST(AHost, IsItsNameWithoutThePort) {
  EXPECT_EQ(parse_host("localhost"), "localhost");
  EXPECT_EQ(parse_host("LocalHost:8787"), "localhost");
  EXPECT_EQ(parse_host("[::1]:80"), "[::1]");
  EXPECT_EQ(parse_host("[::1]"), "[::1]");
  for (const char* none : {"", ":80", "a:b", "a:80:90", "a:99999", "[::1", "[::1]80", "a b", "a/b", "a@b", "a,b"}) {
    EXPECT_EQ(parse_host(none), std::nullopt) << none;
  }
}

TEST(AHost, IsOursWhenNobodyCanHaveItInTheirDnsOrItIsAllowed) {
  for (const char* ours : {"localhost", "127.0.0.1", "[::1]", "batch1.example.org"}) {
    EXPECT_TRUE(is_our_host(ours, {"batch1.example.org"})) << ours;
  }
  for (const char* other :
       {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "example.org", "0.0.0.0"}) {
    EXPECT_FALSE(is_our_host(other, {"batch1.example.org"})) << other;
  }
}

}  // namespace
}  // namespace aw::web
