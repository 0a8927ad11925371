// SPDX-License-Identifier: Apache-2.0
#include "systemd/manager.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "testing/patience.h"
#include "testing/private_bus.h"

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

/// One that ends when it is told to.
class Process final : public supervise::ProcessHandle {
 public:
  supervise::ProcessKey key() const override { return {}; }
  int pidfd() const override { return fd_.get(); }
  bool alive() const override { return lives; }
  Result<void> signal(int) override { return {}; }
  Result<void> watch(std::function<void(const Now&)>) override { return {}; }

  bool lives = true;

 private:
  const UniqueFd fd_{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
};

// ---- with a systemd that answers when it is told to, on a bus that allows what the system bus does ----

class AManager : public testing::OnAPrivateBus {
 protected:
  AManager() : OnAPrivateBus({.unanswered = 128}) {}

  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    for (auto* connection : {&pid1_, &ours_}) {
      *connection = bus::Connection::open(bus::BusKind::kUser).value();
      ASSERT_TRUE((*connection)->attach(loop_, [] {}));
    }
    served_ =
        pid1_->serve("/org/freedesktop/systemd1", [this](bus::Message call) { calls_.push_back(std::move(call)); })
            .value();
    bool named = false;
    pid1_->request_name("org.freedesktop.systemd1", [&](const Result<void>& got) { named = got.has_value(); });
    wait_for([&] { return named; });
    manager_ = std::make_unique<Manager>(*ours_, loop_, [](const std::string&, supervise::ManagerJob, const Now&) {});
  }
  void wait_for(const std::function<bool()>& what) { ASSERT_TRUE(testing::turn_until(loop_, what)); }
  void answer_all() {
    for (const bus::Message& call : std::exchange(calls_, {})) {
      heard_.push_back(call.member());
      auto reply = bus::Connection::new_reply(call);
      if (call.member() == "StopUnit") reply.append(bus::ObjectPath{"/org/freedesktop/systemd1/job/1"});
      if (call.member() == "ListUnitsByPatterns") reply.open('a', "(ssssssouso)").close();
      pid1_->send(std::move(reply));
    }
  }
  void refuse_all(const char* name) {
    for (const bus::Message& call : std::exchange(calls_, {})) pid1_->send_error(call, name, "not now");
  }
  static std::string slice(int number) { return "analysis-run" + std::to_string(number) + ".slice"; }
  void set_limits_of(int runs) {
    for (int i = 0; i < runs; ++i) {
      manager_->request_limits(
          slice(i), {}, [this](const Result<void>& set, const Now&) { ++(set ? limits_set_ : limits_refused_); });
    }
  }

  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> pid1_;
  std::unique_ptr<bus::Connection> ours_;
  bus::Slot served_;
  std::unique_ptr<Manager> manager_;
  std::vector<bus::Message> calls_;
  std::vector<std::string> heard_;
  int limits_set_ = 0;
  int limits_refused_ = 0;
};

TEST_F(AManager, TellsTheLimitsOfVeryManyRunsAndThenLearnsOfTheUnits) {
  std::optional<bool> units;
  set_limits_of(300);
  manager_->request_units([&](const auto& found, const Now&) { units = found.has_value(); });

  wait_for([&] {
    answer_all();
    return units.has_value() && limits_set_ + limits_refused_ == 300;
  });
  EXPECT_EQ(limits_refused_, 0);
  EXPECT_TRUE(*units);
}

TEST_F(AManager, StopsAUnitBeforeTheLimitsThatWaitAndDoesNotSetThoseOfWhatIsStopped) {
  set_limits_of(100);
  manager_->request_remove(slice(99), [](const Result<void>&, const Now&) {});
  wait_for([&] { return calls_.size() == bus::Connection::kMostToOne; });
  wait_for([&] {
    answer_all();
    return limits_set_ + limits_refused_ == 100 && heard_.size() >= 100;
  });

  EXPECT_EQ(heard_.at(bus::Connection::kMostToOne), "StopUnit");
  EXPECT_EQ(std::count(heard_.begin(), heard_.end(), "SetUnitProperties"), 99)
      << "limits that come after the stop would load the slice again";
  EXPECT_EQ(limits_refused_, 1);
}

TEST_F(AManager, PlacesNobodyWhoEndedWhileTheCallWaitedForItsTurn) {
  Process process;
  std::optional<std::error_code> why;
  set_limits_of(bus::Connection::kMostToOne);
  supervise::ScopeOrder order;
  order.scope = "analysis-late.scope";
  order.slice = "analysis-late.slice";
  order.process = &process;
  manager_->request_scope(
      order, [&](const Result<void>& placed, const Now&) { why = placed ? std::error_code() : placed.error().code; });
  wait_for([&] { return calls_.size() == bus::Connection::kMostToOne; });

  process.lives = false;  // Its pid may be another's by now.
  answer_all();
  wait_for([&] { return why.has_value(); });

  EXPECT_EQ(*why, std::errc::no_such_process);
  EXPECT_EQ(std::count(heard_.begin(), heard_.end(), "StartTransientUnit"), 0);
  EXPECT_TRUE(calls_.empty());
}

TEST_F(AManager, SetsTheLimitsOfASliceThatWasNotStopped) {
  set_limits_of(1);
  wait_for([&] { return calls_.size() == 1; });
  answer_all();
  manager_->request_remove(slice(0), [](const Result<void>&, const Now&) {});
  wait_for([&] { return limits_set_ == 1; });
}

TEST_F(AManager, DoesNotTakeAPingThatFailedForASettledSystemd) {
  const auto unopened = bus::Connection::prepare(bus::BusKind::kUser);
  ASSERT_TRUE(unopened->attach(loop_, [] {}));
  Manager manager(*unopened, loop_, [](const std::string&, supervise::ManagerJob, const Now&) {});
  std::optional<bool> settled;

  manager.request_settled([&](const Result<void>& done, const Now&) { settled = done.has_value(); });
  wait_for([&] { return settled.has_value(); });

  EXPECT_FALSE(*settled);
}

TEST_F(AManager, AsksForTheUnitsAgainWhereTheBusRefusedToAsk) {
  std::optional<bool> units;
  manager_->request_units([&](const auto& found, const Now&) { units = found.has_value(); });
  wait_for([&] { return calls_.size() == 1; });
  refuse_all("org.freedesktop.DBus.Error.LimitsExceeded");
  wait_for([&] { return calls_.size() == 1; });
  answer_all();
  wait_for([&] { return units.has_value(); });

  EXPECT_TRUE(*units);
}

}  // namespace
}  // namespace aw::systemd
