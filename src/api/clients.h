// SPDX-License-Identifier: Apache-2.0
//
// Who is on the bus. The credentials of every connection are asked for once, asynchronously, and kept as long as it
// lives (a unique name is never given twice), so that each call has its caller's and each signal finds those who may
// see it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bus/connection.h"
#include "supervise/admission.h"

namespace aw::api {

/// Who counts as an administrator, and who may look at everything without being one.
struct Administrators {
  std::vector<uid_t> uids{0};
  std::optional<gid_t> group;    ///< analysis-admin, where the host has it
  std::optional<gid_t> viewers;  ///< analysis-viewer, where the host has it
};

/// Who is at the other end of a connection.
struct Client : supervise::Caller {
  bool viewer = false;  ///< a member of analysis-viewer: sees every run and record, and manages none but its own
};

class Clients {
 public:
  Clients(bus::Connection& connection, Administrators administrators)
      : connection_(connection), administrators_(std::move(administrators)) {}

  /// Begins to listen, and asks for those who are there already. On a bus that was opened anew nobody is known any
  /// more: it gives the same names to others.
  Result<void> start();
  /// Whether all who were there when it began are known: who is not can't be told of anything.
  bool ready() const { return listed_ && unknown_.empty(); }
  /// Called when that has become so.
  void on_ready(std::function<void()> told) { on_ready_ = std::move(told); }

  /// Told of each client that goes away.
  void on_gone(std::function<void(const std::string&)> told) { on_gone_ = std::move(told); }

  /// Nothing: the bus does not say who it is, or it has too many calls waiting for that, so it may do nothing.
  using OnKnown = std::function<void(const std::optional<Client>&)>;
  /// Calls back with the credentials of `name`, at once if they are known; never if it goes away first.
  void request(const std::string& name, OnKnown done);

  /// The unique names of all who may see what belongs to `uid`, pid 1 and ourselves excepted: administrators, viewers
  /// and `uid` itself.
  /// Of the uids that are `deaf` administrators only.
  std::vector<std::string> observers_of(uid_t uid, const std::set<uid_t>& deaf) const;

  using Unread = std::map<uid_t, std::size_t>;
  /// How many bytes wait in the bus for those who are known, by uid, whoever sent them. What the bus does not say is
  /// not in it.
  void request_unread(std::function<void(const Unread&)> done);

  static bool may_see(const Client& client, uid_t uid) {
    return client.administrator || client.viewer || client.uid == uid;
  }
  static bool may_manage(const supervise::Caller& caller, uid_t uid) {
    return caller.administrator || caller.uid == uid;
  }

 private:
  void ask(const std::string& name);
  void settle(const std::string& name);
  void on_credentials(const std::string& name, bus::Reply reply);
  std::optional<Client> read_credentials(bus::Reply reply) const;
  void on_name_owner_changed(bus::Message signal);

  bus::Connection& connection_;
  Administrators administrators_;
  bus::Slot changed_;
  std::map<std::string, Client> known_;
  std::map<std::string, std::vector<OnKnown>> asked_;
  bool listed_ = false;
  std::set<std::string> unknown_;  ///< of those who were there at the start
  std::function<void()> on_ready_;
  std::function<void(const std::string&)> on_gone_;
};

}  // namespace aw::api
