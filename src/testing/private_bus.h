// SPDX-License-Identifier: Apache-2.0
//
// A bus of a test's own: a dbus-daemon that nobody else talks to, and that goes with the test.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <string>

#include "base/assert.h"
#include "base/unique_fd.h"

namespace aw::testing {

/// The user's bus (BusKind::kUser) of each test. Skips where there is no dbus-daemon.
class OnAPrivateBus : public ::testing::Test {
 protected:
  OnAPrivateBus() { start_bus(); }
  ~OnAPrivateBus() override { stop_bus(); }

  /// Another bus, at another address, as it is for whoever connects next; who was on the old one is cut off.
  void restart_bus() {
    stop_bus();
    address_.clear();
    start_bus();
  }
  void SetUp() override {
    if (address_.empty()) GTEST_SKIP() << "no dbus-daemon here (package dbus)";
  }

  pid_t bus_pid() const { return bus_pid_; }

 private:
  void start_bus() {
    std::array<int, 2> ends{};
    AW_ASSERT(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const UniqueFd read(ends[0]);
    UniqueFd write(ends[1]);
    bus_pid_ = ::fork();
    AW_ASSERT(bus_pid_ >= 0);
    if (bus_pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const std::string print = "--print-address=" + std::to_string(::dup(write.get()));  // Without CLOEXEC.
      ::execlp("dbus-daemon", "dbus-daemon", "--session", "--nofork", "--nopidfile", print.c_str(), nullptr);
      ::_exit(127);
    }
    write.reset();
    for (char c = 0; ::read(read.get(), &c, 1) == 1 && c != '\n';) address_ += c;
    ::setenv("DBUS_SESSION_BUS_ADDRESS", address_.c_str(), 1);
  }
  void stop_bus() const {
    ::kill(bus_pid_, SIGKILL);
    ::waitpid(bus_pid_, nullptr, 0);
  }

  pid_t bus_pid_ = -1;
  std::string address_;
};

}  // namespace aw::testing
