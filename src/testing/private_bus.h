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
#include <string_view>

#include "base/assert.h"
#include "base/unique_fd.h"

namespace aw::testing {

/// What the bus allows a connection; 0: as much as the session bus does, which no test reaches.
struct BusLimits {
  int unanswered = 0;      ///< calls; 128 on the system bus
  int incoming_bytes = 0;  ///< of messages that nobody has read yet; 127 MiB on the system bus
};

/// The user's bus (BusKind::kUser) of each test. Skips where there is no dbus-daemon.
class OnAPrivateBus : public ::testing::Test {
 protected:
  OnAPrivateBus() { start_bus(); }
  explicit OnAPrivateBus(BusLimits limits) : limits_(limits) { start_bus(); }
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
    const std::string config = configuration();
    bus_pid_ = ::fork();
    AW_ASSERT(bus_pid_ >= 0);
    if (bus_pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const std::string print = "--print-address=" + std::to_string(::dup(write.get()));  // Without CLOEXEC.
      ::execlp("dbus-daemon", "dbus-daemon", config.c_str(), "--nofork", "--nopidfile", print.c_str(), nullptr);
      ::_exit(127);
    }
    write.reset();
    for (char c = 0; ::read(read.get(), &c, 1) == 1 && c != '\n';) address_ += c;
    if (has_limits()) ::unlink(config.substr(config.find('/')).c_str());
    ::setenv("DBUS_SESSION_BUS_ADDRESS", address_.c_str(), 1);
  }
  bool has_limits() const { return limits_.unanswered > 0 || limits_.incoming_bytes > 0; }
  static std::string limit(const std::string& name, int most) {
    return most == 0 ? "" : "<limit name=\"" + name + "\">" + std::to_string(most) + "</limit>";
  }
  /// As an argument of the daemon's.
  std::string configuration() const {
    if (!has_limits()) return "--session";
    std::string path = "/tmp/aw-bus-XXXXXX";
    const UniqueFd file(::mkostemp(path.data(), O_CLOEXEC));
    const std::string text =
        "<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><policy context=\"default\">"
        "<allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/></policy>" +
        limit("max_replies_per_connection", limits_.unanswered) + limit("max_incoming_bytes", limits_.incoming_bytes) +
        "</busconfig>";
    AW_ASSERT(::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    return "--config-file=" + path;
  }
  void stop_bus() const {
    ::kill(bus_pid_, SIGKILL);
    ::waitpid(bus_pid_, nullptr, 0);
    const std::string path = socket_path();
    if (!path.empty()) ::unlink(path.c_str());  // It had no time to do so itself.
  }
  /// Of "unix:path=/tmp/dbus-...,guid=..."; empty if it is no file.
  std::string socket_path() const {
    constexpr std::string_view kPath = "unix:path=";
    if (!address_.starts_with(kPath)) return "";
    return address_.substr(kPath.size(), address_.find(',') - kPath.size());
  }

  BusLimits limits_;
  pid_t bus_pid_ = -1;
  std::string address_;
};

}  // namespace aw::testing
