// SPDX-License-Identifier: Apache-2.0
//
// Questions to polkit. Each names the connection of whoever called, never a pid, which may be another's by the time
// that polkit looks (CVE-2013-4288). Anything but a yes is a no: no polkit, no answer in time, an answer that is none.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "bus/connection.h"

namespace aw::api {

class Polkit {
 public:
  /// Of one uid at a time; more are denied unasked.
  static constexpr std::size_t kMostOfUser = 16;

  struct Question {
    std::string client;  ///< the unique name of its connection
    uid_t uid;
    const char* action;
    bus::StringMap details;  ///< for the site's rules
    bool interactive;        ///< the client has said that a password may be asked for
  };

  explicit Polkit(bus::Connection& connection) : connection_(connection) {}

  /// `done` is called later, from the loop; never once the client has gone.
  void ask(const Question& question, std::function<void(bool)> done);
  /// A client has gone: its questions are withdrawn, and nothing is done about them.
  void on_client_gone(const std::string& client);
  /// The bus was opened anew: who asked on the old one is not there any more.
  void clear() { pending_.clear(); }

 private:
  struct Pending {
    std::string client;
    uid_t uid;
    std::function<void(bool)> done;
  };
  bus::Message new_call(const char* member);
  void on_answer(std::uint64_t number, bus::Reply answer);

  bus::Connection& connection_;
  std::uint64_t last_ = 0;
  std::map<std::uint64_t, Pending> pending_;
};

}  // namespace aw::api
