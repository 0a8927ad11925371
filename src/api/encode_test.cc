// SPDX-License-Identifier: Apache-2.0
#include "api/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace aw::api {
namespace {

bus::Value shown(const bus::Dict& dict, const std::string& name) {
  for (const auto& [key, value] : dict) {
    if (key == name) return value;
  }
  ADD_FAILURE() << name;
  return bus::Value{};
}

class ARunOnTheBus : public ::testing::Test {
 protected:
  ARunOnTheBus() {
    run.registered_at = Instant(std::chrono::hours{1});
    run.registered_real = WallTime(std::chrono::years{50});
    run.deadline = run.registered_at + std::chrono::hours{2};
  }
  std::uint64_t deadline() const {
    const bus::Value value = shown(to_dict(run, {}), "DeadlineRealtimeUSec");
    const auto* usec = value.get_if<std::uint64_t>();
    EXPECT_NE(usec, nullptr);
    return usec == nullptr ? 0 : *usec;
  }

  supervise::Run run{1, AnalysisId::parse("job").value(), supervise::StallDetector(80, std::chrono::seconds{30})};
};

TEST_F(ARunOnTheBus, HasItsDeadlineByTheWallClockToo) {
  EXPECT_EQ(deadline(), to_usec(std::chrono::years{50} + std::chrono::hours{2}));
}

TEST_F(ARunOnTheBus, HasNoneBeyondTheEndOfAClock) {
  run.deadline = kNever;
  EXPECT_EQ(deadline(), supervise::kUnlimited);

  run.deadline = kNever - std::chrono::hours{1};
  EXPECT_EQ(deadline(), supervise::kUnlimited);
}

}  // namespace
}  // namespace aw::api
