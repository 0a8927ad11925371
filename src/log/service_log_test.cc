// SPDX-License-Identifier: Apache-2.0
#include "log/service_log.h"

#include <gmock/gmock.h>

#include <cstdlib>

namespace aw::log {
namespace {

using ::testing::ExitedWithCode;

/// What a program of its own says, with this JOURNAL_STREAM.
[[noreturn]] void speak(const char* journal) {
  if (journal != nullptr) {
    ::setenv("JOURNAL_STREAM", journal, 1);
  } else {
    ::unsetenv("JOURNAL_STREAM");
  }
  set_up("somebody");
  log::info("all is well");
  log::warn("a disk is slow");
  log::error("a disk is gone");
  log::critical("so am I");
  std::exit(0);
}

TEST(TheLogOfAService, HasItsLevelsAsTheJournalReadsThem) {
  EXPECT_EXIT(speak("8:1234"), ExitedWithCode(0),
              "^<6>all is well\n<4>a disk is slow\n<3>a disk is gone\n<2>so am I\n$");
}

TEST(TheLogOfAService, NamesTheProgramAtATerminal) {
  EXPECT_EXIT(speak(nullptr), ExitedWithCode(0),
              "^somebody: info: all is well\nsomebody: warning: a disk is slow\nsomebody: error: a disk is gone\n"
              "somebody: critical: so am I\n$");
}

}  // namespace
}  // namespace aw::log
