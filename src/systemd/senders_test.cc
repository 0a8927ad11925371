// SPDX-License-Identifier: Apache-2.0
//
// Whom the manager believes.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "systemd/manager.h"
#include "testing/patience.h"
#include "testing/private_bus.h"

namespace aw::systemd {
namespace {

// ---- what systemd tells ----

constexpr char kName[] = "org.freedesktop.systemd1";
constexpr char kPath[] = "/org/freedesktop/systemd1";
constexpr char kInterface[] = "org.freedesktop.systemd1.Manager";
constexpr char kJob[] = "/org/freedesktop/systemd1/job/7";
constexpr char kScope[] = "analysis-a.scope";

/// This process.
class Ourselves final : public supervise::ProcessHandle {
 public:
  supervise::ProcessKey key() const override { return {::getpid(), 1}; }
  int pidfd() const override { return pidfd_.get(); }
  bool alive() const override { return true; }
  Result<void> signal(int) override { return {}; }
  Result<void> watch(std::function<void(const Now&)>) override { return {}; }

 private:
  const UniqueFd pidfd_{static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))};
};

/// On a bus of the test's own: a stand-in for systemd, and somebody who would like to be it.
class Systemd : public testing::OnAPrivateBus {
 protected:
  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    for (auto* connection : {&ours_, &forger_}) *connection = connect();
    come();
    manager_ = std::make_unique<Manager>(
        *ours_, loop_,
        [this](const std::string& unit, supervise::ManagerJob, const Now&) { told_.push_back("stop of " + unit); },
        [this](const std::string& unit, const Now&) { told_.push_back("removal of " + unit); });
    std::optional<Result<std::string>> started;
    manager_->request_start([&](Result<std::string> cgroup) { started = std::move(cgroup); });
    wait_for([&] { return started.has_value(); });
    ASSERT_TRUE(started->has_value()) << started->error().message;
  }

  std::unique_ptr<bus::Connection> connect() {
    auto connection = bus::Connection::open(bus::BusKind::kUser).value();
    EXPECT_TRUE(connection->attach(loop_, [] {}));
    return connection;
  }
  /// Takes the name, as it does at its start and after each daemon-reexec.
  void come() {
    systemd_ = connect();
    served_ = systemd_->serve(kPath, [this](const bus::Message& m) { answer(bus::Message::share(m.raw())); }).value();
    bool named = false;
    systemd_->request_name(kName, [&](const Result<void>& taken) { named = taken.has_value(); });
    wait_for([&] { return named; });
  }
  void leave() {
    served_.reset();
    systemd_.reset();
  }
  void answer(bus::Message call) {
    auto reply = bus::Connection::new_reply(call);
    if (call.member() == "Get") {
      (void)call.read_string();
      reply.append_variant(bus::Value{std::string(call.read_string().value() == "JobType" ? "stop" : "/")});
    } else if (call.member() == "StartTransientUnit") {
      started_ = true;
      reply.append(bus::ObjectPath{kJob});
    } else if (call.member() == "GetUnit") {
      return systemd_->send_error(call, "org.freedesktop.systemd1.NoSuchUnit", "gone");
    }
    systemd_->send(std::move(reply));
  }
  /// As PID 1 sends it, and as anybody may.
  void tell(bus::Connection& whoever, const char* member) {
    const std::string name = member;
    auto signal = whoever.new_signal(kPath, kInterface, member);
    if (name.starts_with("Job")) {
      signal.append(std::uint32_t{7}).append(bus::ObjectPath{kJob}).append(kScope);
      if (name == "JobRemoved") signal.append(&whoever == forger_.get() ? "failed" : "done");
    } else {
      signal.append(kScope).append(bus::ObjectPath{kPath});
    }
    whoever.send_to(std::move(signal), ours_->unique_name());
  }
  void tell_of_owner(const std::string& after) {
    auto signal = forger_->new_signal("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged");
    signal.append(kName).append(systemd_->unique_name()).append(after);
    forger_->send_to(std::move(signal), ours_->unique_name());
  }
  /// Until what has been told is here, and the answers to what that made us ask are, too.
  void settle() {
    for (int i = 0; i < 2; ++i) {
      bool heard = false;
      forger_->request(forger_->new_call(ours_->unique_name().c_str(), "/", "org.freedesktop.DBus.Peer", "Ping"),
                       [&](const bus::Reply&) { heard = true; });
      wait_for([&] { return heard; });
      bool settled = false;
      manager_->request_settled([&](const Result<void>&, const Now&) { settled = true; });
      wait_for([&] { return settled; });
    }
  }
  void wait_for(const std::function<bool()>& what) { ASSERT_TRUE(testing::turn_until(loop_, what)); }

  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> ours_;
  std::unique_ptr<bus::Connection> forger_;
  std::unique_ptr<bus::Connection> systemd_;
  bus::Slot served_;
  std::unique_ptr<Manager> manager_;
  bool started_ = false;
  std::vector<std::string> told_;
};

TEST_F(Systemd, IsHeardOfStopsAndNobodyElseIs) {
  tell(*forger_, "JobNew");
  settle();
  EXPECT_EQ(told_, std::vector<std::string>{});

  tell(*systemd_, "JobNew");
  wait_for([&] { return !told_.empty(); });
  EXPECT_EQ(told_, std::vector<std::string>{"stop of analysis-a.scope"});
}

TEST_F(Systemd, IsHeardOfTheEndOfAJobAndNobodyElseIs) {
  const Ourselves process;
  supervise::ScopeOrder order;
  order.scope = kScope;
  order.slice = "analysis-a.slice";
  order.process = &process;
  std::optional<Result<void>> done;
  manager_->request_scope(order, [&](Result<void> result, const Now&) { done = std::move(result); });
  wait_for([&] { return started_; });
  settle();

  tell(*forger_, "JobRemoved");
  settle();
  EXPECT_FALSE(done);

  tell(*systemd_, "JobRemoved");
  wait_for([&] { return done.has_value(); });
  EXPECT_TRUE(done->has_value()) << done->error().message;
}

TEST_F(Systemd, IsHeardOfUnitsAndNobodyElseIs) {
  tell(*forger_, "UnitRemoved");
  tell(*systemd_, "UnitRemoved");
  settle();
  tell(*forger_, "UnitNew");  // Would have it that the unit is there again.

  wait_for([&] { return !told_.empty(); });
  EXPECT_EQ(told_, std::vector<std::string>{"removal of analysis-a.scope"});

  told_.clear();
  tell(*forger_, "UnitRemoved");
  settle();
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(loop_.iterate(std::chrono::milliseconds{20}));  // Past the pause.
  EXPECT_EQ(told_, std::vector<std::string>{});
}

TEST_F(Systemd, IsNobodyWhoIsSaidToBeByAPeer) {
  tell_of_owner(forger_->unique_name());
  tell(*forger_, "JobNew");
  settle();
  EXPECT_EQ(told_, std::vector<std::string>{});

  tell_of_owner("");  // Nor is it gone.
  tell(*systemd_, "JobNew");
  wait_for([&] { return !told_.empty(); });
}

TEST_F(Systemd, IsHeardUnderTheNameThatItComesBackWith) {
  leave();
  tell(*forger_, "JobNew");
  settle();
  EXPECT_EQ(told_, std::vector<std::string>{});

  come();
  tell(*forger_, "JobNew");
  settle();
  EXPECT_EQ(told_, std::vector<std::string>{});
  tell(*systemd_, "JobNew");
  wait_for([&] { return !told_.empty(); });
}

}  // namespace
}  // namespace aw::systemd
