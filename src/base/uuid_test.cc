// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace aw {
namespace {

constexpr char kRun[] = "7d3c1a52-0d3a-4f3a-8a57-3c2f0d1f5a01";

TEST(DerivedUuid, IsTheSameForEver) {
  // What is on disk was made with these: another digest would make a second end of a run that has one.
  EXPECT_EQ(derived_uuid(kRun, "ended"), derived_uuid(kRun, "ended"));
  EXPECT_NE(derived_uuid(kRun, "ended"), derived_uuid(kRun, "ending"));
  EXPECT_NE(derived_uuid(kRun, "ended"), derived_uuid("another", "ended"));
  EXPECT_NE(derived_uuid("ab", "c"), derived_uuid("a", "bc"));
}

TEST(DerivedUuid, IsOfVersion8) {
  EXPECT_THAT(derived_uuid(kRun, "ended"),
              ::testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
}

}  // namespace
}  // namespace aw
