// SPDX-License-Identifier: Apache-2.0
#include "web/history.h"

#include <gmock/gmock.h>

#include "testing/patience.h"

namespace aw::web {
namespace {

using ::testing::ElementsAre;
using namespace std::chrono_literals;

class AQueueForTheLedger : public ::testing::Test {
 protected:
  void ask(const Viewer& asker, const std::string& name) {
    history_.request(asker, {}, [this, name](const History::Events& events) {
      const bool busy = !events && events.error().code == std::errc::device_or_resource_busy;
      answered_.push_back(name + (busy ? " refused" : ""));
    });
  }
  /// What was asked before is read from then on.
  void start(std::size_t answers) {
    ASSERT_TRUE(history_.start());
    ASSERT_TRUE(testing::turn_until(loop_, [&] { return answered_.size() >= answers; }));
  }

  loop::Loop loop_ = loop::Loop::create().value();
  History history_{loop_, "/nonexistent/ledger.db"};
  std::vector<std::string> answered_;
};

constexpr Viewer kSeesAll{Sight::kAll};

TEST_F(AQueueForTheLedger, LetsThoseWhoSeeAllGoFirstAndFewOfTheUnknownWait) {
  ask({}, "one");
  ask({}, "two");
  ask({}, "three");
  ask({Sight::kOwn, 1000}, "own");
  ask(kSeesAll, "all");

  start(5);

  EXPECT_THAT(answered_, ElementsAre("three refused", "all", "own", "one", "two"));
}

TEST_F(AQueueForTheLedger, GivesEachUserATurnAndNobodyMoreThanAFew) {
  for (const char* name : {"1", "2", "3", "4", "5"}) ask({Sight::kOwn, 1000}, name);
  ask({Sight::kOwn, 2000}, "another's 1");
  ask({Sight::kOwn, 2000}, "another's 2");

  start(7);

  EXPECT_THAT(answered_, ElementsAre("5 refused", "1", "another's 1", "2", "another's 2", "3", "4"));
}

TEST_F(AQueueForTheLedger, HasAnEndForThoseWhoSeeAllToo) {
  for (std::size_t i = 0; i <= History::kMostWaiting; ++i) ask(kSeesAll, std::to_string(i));

  start(History::kMostWaiting + 1);

  EXPECT_EQ(answered_.front(), std::to_string(History::kMostWaiting) + " refused");
  EXPECT_EQ(answered_.size(), History::kMostWaiting + 1);
}

}  // namespace
}  // namespace aw::web
