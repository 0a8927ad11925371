// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace aw {
namespace {

Result<int> half(int number) {
  if (number % 2 != 0) return invalid(std::to_string(number) + " is odd");
  return number / 2;
}

TEST(Result, HoldsAValue) {
  const Result<int> result = half(4);

  ASSERT_TRUE(result);
  EXPECT_TRUE(result.has_value());
  EXPECT_EQ(*result, 2);
  EXPECT_EQ(result.value_or(7), 2);
}

TEST(Result, HoldsAnError) {
  const Result<int> result = half(3);

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "3 is odd");
  EXPECT_EQ(result.error().code, std::errc::invalid_argument);
  EXPECT_EQ(result.value_or(7), 7);
}

TEST(Result, GivesItsValueAwayWhenItIsMoved) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(5);

  const std::unique_ptr<int> value = *std::move(result);

  EXPECT_EQ(*value, 5);
}

TEST(Result, GivesAccessToTheMembersOfItsValue) {
  Result<std::string> result = std::string("text");

  result->push_back('!');

  EXPECT_EQ(result->size(), 5U);
}

TEST(Result, TransformsAValueAndPassesAnErrorOn) {
  const auto to_text = [](int number) { return std::to_string(number); };

  EXPECT_EQ(half(8).transform(to_text).value(), "4");
  EXPECT_EQ(half(7).transform(to_text).error().message, "7 is odd");
}

TEST(Result, ChainsUntilTheFirstError) {
  EXPECT_EQ(half(8).and_then(half).and_then(half).value(), 1);
  EXPECT_EQ(half(6).and_then(half).and_then(half).error().message, "3 is odd");
}

TEST(ResultOfNothing, IsSuccessUnlessAnErrorIsSaid) {
  const Result<void> success;
  const Result<void> failure = invalid("no");

  EXPECT_TRUE(success);
  ASSERT_FALSE(failure);
  EXPECT_EQ(failure.error().message, "no");
}

TEST(ErrorMessage, SaysFromOutsideInWhereItHappened) {
  Error error = Error{{}, "Access denied"}.within("StartTransientUnit").within("place analysis 7");

  EXPECT_EQ(error.message, "place analysis 7: StartTransientUnit: Access denied");
}

TEST(ErrorMessage, KeepsItsCodeOnTheWay) {
  const Error error = errno_error("open", ENOENT).within("configuration");

  EXPECT_EQ(error.message, "configuration: open: No such file or directory");
  EXPECT_EQ(error.code, std::errc::no_such_file_or_directory);
}

TEST(ResultDeathTest, AbortsWhenTheWrongSideIsRead) {
  EXPECT_DEATH((void)half(3).value(), "");
  EXPECT_DEATH((void)half(4).error(), "");
  EXPECT_DEATH((void)Result<void>().error(), "");
}

}  // namespace
}  // namespace aw
