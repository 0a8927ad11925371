// SPDX-License-Identifier: Apache-2.0
#include "api/options.h"

#include <gmock/gmock.h>

#include "supervise/refusal.h"

namespace aw::api {
namespace {

using supervise::Limits;
using ::testing::HasSubstr;

std::string refusal_of(const bus::Dict& options) {
  const auto applied = apply_options(Limits{}, options);
  if (applied) return "accepted";
  EXPECT_EQ(applied.error().code,
            std::error_code(static_cast<int>(supervise::Refusal::kInvalidOption), supervise::refusal_category()));
  return applied.error().message;
}

TEST(ApplyOptions, LaysEachOptionOverTheLimits) {
  const bus::Dict options{{"MemoryLimit", {std::uint64_t{1000}}},     {"MemoryHeadroom", {std::uint64_t{0}}},
                          {"WallClockLimitUSec", {std::uint64_t{5}}}, {"GraceUSec", {std::uint64_t{6}}},
                          {"TasksMax", {std::uint64_t{7}}},           {"CPUQuotaPerSecUSec", {std::uint64_t{8}}},
                          {"CPUWeight", {std::uint64_t{9}}},          {"OrphanPolicy", {std::string("report")}},
                          {"OwnerPolicy", {std::string("ignore")}},   {"Description", {std::string("d")}},
                          {"Labels", {bus::StringMap{{"k", "v"}}}}};

  const auto limits = apply_options(Limits{}, options);

  ASSERT_TRUE(limits);
  EXPECT_EQ(to_options(*limits), options);
  EXPECT_EQ(options.size(), option_specs().size());
}

TEST(ApplyOptions, LeavesWhatIsNotNamed) {
  Limits before;
  before.memory = Bytes(77);
  EXPECT_EQ(apply_options(before, {}).value(), before);
}

TEST(ApplyOptions, TakesTheGreatestNumberForNoLimit) {
  const auto limits = apply_options(
      Limits{}, {{"MemoryLimit", {std::uint64_t{UINT64_MAX}}}, {"WallClockLimitUSec", {std::uint64_t{UINT64_MAX}}}});
  EXPECT_TRUE(limits.value().memory.is_infinite());
  EXPECT_EQ(limits.value().wall_clock, kForever);
}

TEST(ApplyOptions, RefusesAnUnknownOptionAndSaysWhichThereAre) {
  EXPECT_THAT(refusal_of({{"MemoryMax", {std::uint64_t{1}}}}), HasSubstr("there are MemoryLimit"));
}

TEST(ApplyOptions, RefusesAWrongTypeAndSaysWhichIsRight) {
  EXPECT_THAT(refusal_of({{"MemoryLimit", {std::string("2G")}}}), HasSubstr("its type is t, not s"));
  EXPECT_THAT(refusal_of({{"OrphanPolicy", {true}}}), HasSubstr("its type is s, not b"));
}

TEST(ApplyOptions, RefusesZeroForEveryLimit) {
  for (const char* name :
       {"MemoryLimit", "WallClockLimitUSec", "GraceUSec", "TasksMax", "CPUQuotaPerSecUSec", "CPUWeight"}) {
    EXPECT_THAT(refusal_of({{name, {std::uint64_t{0}}}}), HasSubstr(name));
  }
}

TEST(ApplyOptions, RefusesUnknownPolicies) {
  EXPECT_THAT(refusal_of({{"OrphanPolicy", {std::string("adopt")}}}), HasSubstr("neither \"kill\" nor \"report\""));
  EXPECT_THAT(refusal_of({{"OwnerPolicy", {std::string("")}}}), HasSubstr("neither \"kill\" nor \"ignore\""));
}

TEST(ApplyOptions, BoundsWhatAClientCanMakeUsHold) {
  EXPECT_THAT(refusal_of({{"Description", {std::string(1025, 'x')}}}), HasSubstr("1024"));
  bus::StringMap many;
  for (int i = 0; i < 65; ++i) many[std::to_string(i)] = "";
  EXPECT_THAT(refusal_of({{"Labels", {many}}}), HasSubstr("64"));
  EXPECT_THAT(refusal_of({{"Labels", {bus::StringMap{{"", "v"}}}}}), HasSubstr("key"));
  bus::StringMap heavy;
  for (int i = 0; i < 16; ++i) heavy["k" + std::to_string(10 + i)] = std::string(1021, 'v');
  EXPECT_EQ(refusal_of({{"Labels", {heavy}}}), "accepted");
  heavy["k"] = "";
  EXPECT_THAT(refusal_of({{"Labels", {heavy}}}), HasSubstr("16385 bytes; up to 16384 are accepted"));
}

TEST(ApplyOptions, RefusesTextThatWouldBeginALineOfItsOwn) {
  EXPECT_EQ(
      refusal_of({{"Description", {std::string("x\nSuccessAction=poweroff-force")}}}),
      "Description: the text has the control character U+000A at byte 2; UTF-8 text without control characters is "
      "accepted");
  for (const char* text : {"\r", "\t", "\x1b[31m", "\x7f", "\xc2\x80", "\xc2\x85", "\xc2\x9f"}) {
    EXPECT_THAT(refusal_of({{"Description", {std::string(text)}}}), HasSubstr("control character")) << text;
    EXPECT_THAT(refusal_of({{"Labels", {bus::StringMap{{text, "v"}}}}}), HasSubstr("a key has the control character"));
    EXPECT_THAT(refusal_of({{"Labels", {bus::StringMap{{"k", text}}}}}),
                HasSubstr("the value of \"k\" has the control character"));
  }
  EXPECT_THAT(refusal_of({{"Description", {std::string(1, '\0')}}}), HasSubstr("U+0000"));
}

TEST(ApplyOptions, RefusesTextThatTheBusDoesNotTake) {
  for (const char* text : {"\xff", "\xc0\x8a", "\xed\xa0\x80", "\xe2\x82"}) {
    EXPECT_THAT(refusal_of({{"Description", {std::string(text)}}}), HasSubstr("Description: the text is not UTF-8"));
    EXPECT_THAT(refusal_of({{"Labels", {bus::StringMap{{"k", text}}}}}), HasSubstr("is not UTF-8"));
  }
  EXPECT_THAT(refusal_of({{"Description", {std::string("a\xf4\x8f\xbf\xbf")}}}), HasSubstr("U+10FFFF at byte 2"));
}

TEST(ApplyOptions, TakesAnyOtherText) {
  for (const char* text : {"", "gr\xc3\xbc\xc3\x9f", "100 %n $HOME \"'`", "ends in \\", "\xe2\x80\xa8", "\xc2\xa0"}) {
    EXPECT_EQ(refusal_of({{"Description", {std::string(text)}}}), "accepted") << text;
    EXPECT_EQ(refusal_of({{"Labels", {bus::StringMap{{"k", text}}}}}), "accepted") << text;
  }
}

}  // namespace
}  // namespace aw::api
