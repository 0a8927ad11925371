// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include <gtest/gtest.h>

namespace aw {
namespace {

TEST(FindCharacter, ReadsEachLength) {
  EXPECT_EQ(find_character("a|")->code, U'a');
  EXPECT_EQ(find_character("\xc3\xbc|")->code, U'\u00fc');
  EXPECT_EQ(find_character("\xe2\x82\xac|")->code, U'\u20ac');
  EXPECT_EQ(find_character("\xf0\x9f\x98\x80|")->code, U'\U0001f600');
  EXPECT_EQ(find_character("\xf0\x9f\x98\x80|")->bytes, 4U);
}

TEST(FindCharacter, FindsNoneInWhatIsNotUtf8) {
  for (const char* text : {"\xff", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80",
                           "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xf0\x9f\x98", "\xc3|"}) {
    EXPECT_FALSE(find_character(text)) << text;
  }
}

TEST(ACharacter, IsAControlCharacterInC0AndC1) {
  for (const char32_t code : {0x00U, 0x0aU, 0x1fU, 0x7fU, 0x80U, 0x85U, 0x9fU})
    EXPECT_TRUE(is_control(code)) << static_cast<unsigned>(code);
  for (const char32_t code : {0x20U, 0x7eU, 0xa0U, 0x2028U})
    EXPECT_FALSE(is_control(code)) << static_cast<unsigned>(code);
}

TEST(ACharacter, IsNoneWhereUnicodeSaysSo) {
  for (const char32_t code : {0xfdd0U, 0xfdefU, 0xfffeU, 0xffffU, 0x1fffeU, 0x10ffffU}) {
    EXPECT_TRUE(is_noncharacter(code)) << static_cast<unsigned>(code);
  }
  for (const char32_t code : {0xfdcfU, 0xfdf0U, 0xfffdU, 0x10000U, 0x10fffdU})
    EXPECT_FALSE(is_noncharacter(code)) << static_cast<unsigned>(code);
}

}  // namespace
}  // namespace aw
