// SPDX-License-Identifier: Apache-2.0
#include "systemd/manager.h"

#include <gtest/gtest.h>

namespace aw::systemd {
namespace {

TEST(AUnitsDescription, IsTheTextAsItIs) {
  for (const char* text : {"", "Analysis nightly", "gr\xc3\xbc\xc3\x9f 100 %n", "C:\\data", "a \\ b"}) {
    EXPECT_EQ(unit_description(text), text);
  }
}

TEST(AUnitsDescription, DoesNotSwallowTheNextLine) {
  EXPECT_EQ(unit_description("Analysis a\\"), "Analysis a");
  EXPECT_EQ(unit_description("Analysis a\\\\"), "Analysis a");
  EXPECT_EQ(unit_description("Analysis a\\ "), "Analysis a");
  EXPECT_EQ(unit_description("\\"), "");
}

TEST(AUnitsDescription, IsOneLine) {
  EXPECT_EQ(unit_description("x\nSuccessAction=poweroff-force"), "x SuccessAction=poweroff-force");
  EXPECT_EQ(unit_description("a\r\x7f\xc2\x85"
                             "b\xff"
                             "c\\\n"),
            "a   b c");
}

}  // namespace
}  // namespace aw::systemd
