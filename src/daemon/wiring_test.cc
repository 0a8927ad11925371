// SPDX-License-Identifier: Apache-2.0
#include "daemon/wiring.h"

#include <gmock/gmock.h>

#include "testing/patience.h"
#include "testing/private_bus.h"

namespace aw::daemon {
namespace {

using ::testing::HasSubstr;

class ABus : public testing::OnAPrivateBus {};

TEST_F(ABus, IsProtectedFromBeingRegistered) {
  auto loop = loop::Loop::create().value();
  auto connection = bus::Connection::open(bus::BusKind::kUser).value();
  ASSERT_TRUE(connection->attach(loop, [] {}));
  process::ProcFs processes(loop);
  ASSERT_FALSE(processes.why_protected(bus_pid()));

  protect_bus(*connection, processes);
  EXPECT_TRUE(processes.why_protected(bus_pid()));  // By what the kernel says, before the bus has answered.

  bool answered = false;
  connection->request_bus_pid([&](Result<pid_t> pid) { answered = pid && processes.why_protected(*pid); });
  EXPECT_TRUE(testing::turn_until(loop, [&] { return answered; }));
  EXPECT_THAT(processes.why_protected(bus_pid()).value_or(""), HasSubstr("bus"));
}

}  // namespace
}  // namespace aw::daemon
