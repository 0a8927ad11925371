// SPDX-License-Identifier: Apache-2.0
#include "base/analysis_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

namespace aw {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

AnalysisId id(std::string_view text) { return AnalysisId::parse(text).value(); }

std::string refusal(std::string_view text) {
  const auto parsed = AnalysisId::parse(text);
  return parsed ? "accepted" : parsed.error().message;
}

class ALegalId : public testing::TestWithParam<std::string> {};

TEST_P(ALegalId, IsKeptAsItIs) { EXPECT_EQ(AnalysisId::parse(GetParam()).value().text(), GetParam()); }

INSTANTIATE_TEST_SUITE_P(AnalysisId, ALegalId,
                         testing::Values("a", "nightly-run 7", "/", "..", ".", "-", "--help", "a/b/../c", " ", "%n",
                                         "@", "grüße", "分析", "🧪", "\u00a0", "\u2028", "\u2029", "\ufeff",
                                         "\U0010ffff", "\ud7ff", "\ue000", std::string(255, 'x')));

TEST(AnalysisIdText, IsRefusedWithTheRuleThatItBreaks) {
  EXPECT_THAT(refusal(""), HasSubstr("empty"));
  EXPECT_THAT(refusal(std::string(256, 'x')), HasSubstr("at most 255 bytes; this one has 256"));
  EXPECT_THAT(refusal("a\nb"), HasSubstr("no control characters; this one has \\x0a at byte 2"));
  EXPECT_THAT(refusal("ab\xff"), HasSubstr("UTF-8 text; this one is not, at byte 3"));
}

TEST(AnalysisIdText, HoldsNoControlCharacters) {
  for (char c = 0; c < 0x20; ++c) EXPECT_THAT(refusal(std::string(1, c)), HasSubstr("control")) << int{c};
  EXPECT_THAT(refusal("\x7f"), HasSubstr("control"));
  for (char c = 0; c < 0x20; ++c) {
    const std::string c1 = {'\xc2', static_cast<char>('\x80' + c)};
    EXPECT_THAT(refusal(c1), HasSubstr("control")) << int{c};
  }
}

TEST(AnalysisIdText, IsStrictUtf8) {
  const std::vector<std::string> broken = {
      "\x80",              // a continuation without a start
      "\xc3",              // cut short
      "\xe2\x82",          // cut short
      "\xf0\x9f\xa7",      // cut short
      "\xc3(",             // no continuation
      "\xe2\x82(",         // no continuation
      "\xc0\x80",          // overlong NUL
      "\xc1\xbf",          // overlong
      "\xe0\x80\xaf",      // overlong '/'
      "\xf0\x80\x80\xaf",  // overlong '/'
      "\xed\xa0\x80",      // surrogate
      "\xed\xbf\xbf",      // surrogate
      "\xf4\x90\x80\x80",  // above U+10FFFF
      "\xf8\x88\x80\x80\x80",
      "\xfe",
      "\xff",
  };
  for (const std::string& text : broken) EXPECT_THAT(refusal(text), HasSubstr("UTF-8")) << testing::PrintToString(text);
}

TEST(AnalysisIdMessage, NeverRepeatsTheId) { EXPECT_THAT(refusal("evil\nFORGED=1"), Not(HasSubstr("FORGED"))); }

TEST(EscapeForUnit, FollowsSystemdButForTheSlash) {
  EXPECT_EQ(escape_for_unit(id("plain_7:a.b")), "plain_7:a.b");
  EXPECT_EQ(escape_for_unit(id("a-b")), "a\\x2db");
  EXPECT_EQ(escape_for_unit(id("a/b")), "a\\x2fb");
  EXPECT_EQ(escape_for_unit(id("/")), "\\x2f");
  EXPECT_EQ(escape_for_unit(id(".")), "\\x2e");
  EXPECT_EQ(escape_for_unit(id("..")), "\\x2e.");
  EXPECT_EQ(escape_for_unit(id("a b@c%d")), "a\\x20b\\x40c\\x25d");
  EXPECT_EQ(escape_for_unit(id("a\\x2db")), "a\\x5cx2db");
  EXPECT_EQ(escape_for_unit(id("ü")), "\\xc3\\xbc");
}

constexpr std::size_t kMostEscaped = 229;

TEST(EscapeForUnit, IsWholeAsLongAsTheUnitNameHasRoom) {
  EXPECT_EQ(escape_for_unit(id(std::string(kMostEscaped, 'x'))), std::string(kMostEscaped, 'x'));
}

TEST(EscapeForUnit, BecomesAHeadAndAHashBeyond) {
  const std::string escaped = escape_for_unit(id(std::string(kMostEscaped + 1, 'x')));

  EXPECT_THAT(escaped, SizeIs(kMostEscaped));
  EXPECT_THAT(escaped, StartsWith(std::string(161, 'x') + "\\xff"));
  // printf 'x%.0s' {1..230} | sha256sum
  EXPECT_THAT(escaped, EndsWith("17f5e6ed54a8109d97483057fd3282449a6f4ebaf8d567c66893e23bdfe5fd3b"));
}

TEST(EscapeForUnit, IsCutBetweenEscapesOnly) {
  const std::string escaped = escape_for_unit(id(std::string(100, '-')));

  EXPECT_THAT(escaped, MatchesRegex("(\\\\x2d)+\\\\xff[0-9a-f]+"));
  EXPECT_THAT(escaped, SizeIs(160 + 4 + 64));
}

TEST(EscapeForUnit, KeepsLongIdsApartThatDifferAtTheEndOnly) {
  EXPECT_NE(escape_for_unit(id(std::string(254, '-') + "a")), escape_for_unit(id(std::string(254, '-') + "b")));
}

TEST(EscapeForUnit, IsNotReachedByAnIdThatLooksLikeAHash) {
  const std::string hashed = escape_for_unit(id(std::string(255, 'x')));

  EXPECT_NE(escape_for_unit(id(hashed)), hashed);
}

TEST(UnitNames, AreThoseOfTheContract) {
  EXPECT_EQ(slice_unit(id("a/b-c")), "analysis-a\\x2fb\\x2dc.slice");
  EXPECT_EQ(scope_unit(id("a/b-c")), "analysis-a\\x2fb\\x2dc.scope");
  EXPECT_EQ(scope_unit(id("run"), 2), "analysis-run-2.scope");
  EXPECT_EQ(scope_unit(id("run-2")), "analysis-run\\x2d2.scope");
}

TEST(UnitNames, FitIntoSystemdsLongest) {
  for (const char c : {'x', '-', '/'}) {
    const AnalysisId longest = id(std::string(255, c));

    EXPECT_LE(slice_unit(longest).size(), 255U);
    EXPECT_LE(scope_unit(longest, std::numeric_limits<unsigned>::max()).size(), 255U);
  }
}

// Few letters, so that ids are often alike; and those that escapes, slices and paths are made of.
std::string random_id(std::mt19937& random) {
  static const std::vector<std::string> kPieces = {"a", "x",  "2", "d", "f", "-", "/",
                                                   ".", "\\", "_", "@", " ", "ü", "🧪"};
  const std::size_t length = 1 + random() % (random() % 10 == 0 ? 255 : 6);
  std::string text;
  while (true) {
    const std::string& piece = kPieces[random() % kPieces.size()];
    if (text.size() + piece.size() > 255) return text;
    text += piece;
    if (text.size() >= length) return text;
  }
}

std::set<std::string> random_ids() {
  std::mt19937 random(20261103);  // NOLINT(bugprone-random-generator-seed): the same ids in every run.
  std::set<std::string> ids;
  while (ids.size() < 20000) ids.insert(random_id(random));
  return ids;
}

TEST(RandomIds, HaveDifferentUnitsWhichSystemdAccepts) {
  const std::string valid = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\";
  const std::set<std::string> ids = random_ids();
  std::unordered_set<std::string> names;

  for (const std::string& text : ids) {
    const std::string escaped = escape_for_unit(id(text));
    ASSERT_EQ(escaped.find('-'), std::string::npos) << escaped;
    for (const std::string& name : {slice_unit(id(text)), scope_unit(id(text)), scope_unit(id(text), 2)}) {
      ASSERT_EQ(name.find_first_not_of(valid), std::string::npos) << name;
      ASSERT_LE(name.size(), 255U);
      names.insert(name);
    }
  }

  EXPECT_EQ(names.size(), 3 * ids.size());
}

TEST(RandomIds, HaveDifferentPathElementsWhichAreReadBack) {
  const std::set<std::string> ids = random_ids();
  std::unordered_set<std::string> elements;

  for (const std::string& text : ids) {
    const std::string element = escape_for_path(text);
    ASSERT_EQ(unescape_from_path(element), text);
    elements.insert(element);
  }

  EXPECT_EQ(elements.size(), ids.size());
}

TEST(EscapeForPath, FollowsSdBus) {
  EXPECT_EQ(escape_for_path(""), "_");
  EXPECT_EQ(escape_for_path("abcXYZ"), "abcXYZ");
  EXPECT_EQ(escape_for_path("a1"), "a1");
  EXPECT_EQ(escape_for_path("1a1"), "_31a1");
  EXPECT_EQ(escape_for_path("a_b"), "a_5fb");
  EXPECT_EQ(escape_for_path("a/b-c.scope"), "a_2fb_2dc_2escope");
  EXPECT_EQ(escape_for_path("ü"), "_c3_bc");
}

TEST(UnescapeFromPath, ReadsWhatWasEscaped) {
  EXPECT_EQ(unescape_from_path("_"), "");
  EXPECT_EQ(unescape_from_path("_31a1"), "1a1");
  EXPECT_EQ(unescape_from_path("a_2fb"), "a/b");
}

TEST(UnescapeFromPath, RefusesWhatIsNeverWritten) {
  for (const char* element : {"", "1a", "__", "a_", "a_2", "_2F", "_41", "a_31", "a_zz", "_-1", "a-b", "a/b", "_ 1"}) {
    EXPECT_EQ(unescape_from_path(element), std::nullopt) << element;
  }
}

TEST(AnalysisIds, AreComparedAndHashedByTheirText) {
  EXPECT_EQ(id("a"), id("a"));
  EXPECT_LT(id("a"), id("b"));
  EXPECT_EQ((std::unordered_set<AnalysisId>{id("a"), id("a"), id("b")}.size()), 2U);
}

TEST(UnitNamesDeathTest, HaveNoZerothGeneration) { EXPECT_DEATH((void)scope_unit(id("a"), 0), ""); }

}  // namespace
}  // namespace aw
