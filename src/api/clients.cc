// SPDX-License-Identifier: Apache-2.0
#include "api/clients.h"

#include <algorithm>

namespace aw::api {
namespace {

constexpr char kBus[] = "org.freedesktop.DBus";
constexpr char kStats[] = "org.freedesktop.DBus.Debug.Stats";
constexpr char kBusPath[] = "/org/freedesktop/DBus";
constexpr std::size_t kMaxWaiting = 256;  // Calls of one connection that wait for its credentials.

}  // namespace

Result<void> Clients::start() {
  known_.clear();
  asked_.clear();
  unknown_.clear();
  listed_ = false;
  auto changed = connection_.match(
      "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',interface='org.freedesktop.DBus',"
      "member='NameOwnerChanged'",
      [this](const bus::Message& m) { on_name_owner_changed(bus::Message::share(m.raw())); });
  if (!changed) return std::move(changed).error();
  changed_ = std::move(*changed);
  connection_.request(connection_.new_call(kBus, kBusPath, kBus, "ListNames"), [this](bus::Reply reply) {
    auto* message = std::get_if<bus::Message>(&reply);
    const auto names = message == nullptr ? std::nullopt : std::optional(message->read_strings());
    listed_ = true;
    if (names && *names) {  // Else they become known as they call.
      for (const std::string& name : **names) {
        if (!name.starts_with(':') || known_.contains(name)) continue;
        unknown_.insert(name);
        ask(name);
      }
    }
    settle("");
  });
  return {};
}

void Clients::ask(const std::string& name) {
  if (known_.contains(name) || asked_.contains(name)) return;
  asked_[name];
  auto call = connection_.new_call(kBus, kBusPath, kBus, "GetConnectionCredentials");
  call.append(name);
  connection_.request(std::move(call), [this, name](bus::Reply reply) { on_credentials(name, std::move(reply)); });
}

void Clients::request(const std::string& name, OnKnown done) {
  if (const auto known = known_.find(name); known != known_.end()) return done(known->second);
  ask(name);
  auto& waiting = asked_.at(name);
  if (waiting.size() >= kMaxWaiting) return done(std::nullopt);
  waiting.push_back(std::move(done));
}

void Clients::settle(const std::string& name) {
  const bool was_ready = !name.empty() && ready();
  unknown_.erase(name);
  if (!was_ready && ready() && on_ready_) on_ready_();
}

void Clients::on_credentials(const std::string& name, bus::Reply reply) {
  auto waiting = asked_.extract(name);
  if (waiting) {  // Else it has gone.
    const auto caller = read_credentials(std::move(reply));
    if (caller) known_[name] = *caller;
    for (const auto& done : waiting.mapped()) done(caller);
  }
  settle(name);
}

std::optional<Client> Clients::read_credentials(bus::Reply reply) const {
  auto* message = std::get_if<bus::Message>(&reply);
  if (message == nullptr) return std::nullopt;
  Client caller;
  std::optional<std::uint32_t> uid;
  // Read by hand: the dictionary holds types that have no meaning to us (ay, au, h).
  if (!message->enter('a', "{sv}")) return std::nullopt;
  while (!message->at_end()) {
    if (!message->enter('e', "sv")) return std::nullopt;
    const auto key = message->read_string();
    if (!key) return std::nullopt;
    if (*key == "UnixUserID" || *key == "ProcessID") {
      const auto value = message->read_variant();
      const auto* number = value ? value->get_if<std::uint32_t>() : nullptr;
      if (number == nullptr) return std::nullopt;
      if (*key == "UnixUserID") uid = *number;
      if (*key == "ProcessID") caller.pid = static_cast<pid_t>(*number);
    } else if (*key == "UnixGroupIDs") {
      const auto groups = message->read_u32_list_variant();
      if (!groups) return std::nullopt;
      const auto has = [&](const std::optional<gid_t>& group) {
        return group && std::find(groups->begin(), groups->end(), *group) != groups->end();
      };
      caller.administrator |= has(administrators_.group);
      caller.viewer |= has(administrators_.viewers);
    } else {
      message->skip("v");
    }
    if (!message->leave()) return std::nullopt;
  }
  // (uid_t)-1 is nobody, and must not come to be taken for somebody by a cast (CVE-2018-19788).
  if (!uid || *uid == static_cast<std::uint32_t>(-1)) return std::nullopt;
  caller.uid = *uid;
  const auto& uids = administrators_.uids;
  caller.administrator |= std::find(uids.begin(), uids.end(), caller.uid) != uids.end();
  return caller;
}

void Clients::on_name_owner_changed(bus::Message signal) {
  const auto name = signal.read_string();
  const auto before = signal.read_string();
  const auto after = signal.read_string();
  if (!name || !before || !after || !name->starts_with(':')) return;
  if (after->empty()) {
    known_.erase(*name);
    asked_.erase(*name);
    settle(*name);
    if (on_gone_) on_gone_(*name);
  } else {
    ask(*name);
  }
}

std::vector<std::string> Clients::observers_of(uid_t uid, const std::set<uid_t>& deaf) const {
  std::vector<std::string> names;
  const std::string own = connection_.unique_name();
  for (const auto& [name, caller] : known_) {
    if (!may_see(caller, uid) || caller.pid == 1 || name == own) continue;
    if (caller.administrator || !deaf.contains(caller.uid)) names.push_back(name);
  }
  return names;
}

void Clients::request_unread(std::function<void(const Unread&)> done) {
  struct Question {
    Unread unread;
    std::function<void(const Unread&)> done;
    std::size_t open = 0;
  };
  const auto question = std::make_shared<Question>(Question{{}, std::move(done)});
  question->open = known_.size();
  for (const auto& [name, client] : known_) {
    auto call = connection_.new_call(kBus, kBusPath, kStats, "GetConnectionStats");
    call.append(name);
    connection_.request(std::move(call), [question, uid = client.uid](bus::Reply reply) {
      auto* message = std::get_if<bus::Message>(&reply);  // An error: it has gone, or the bus does not count.
      const auto stats = message == nullptr ? std::nullopt : std::optional(message->read_dict());
      const auto* value = stats && *stats ? bus::find(**stats, "OutgoingBytes") : nullptr;
      const auto* bytes = value == nullptr ? nullptr : value->get_if<std::uint32_t>();
      if (bytes != nullptr) question->unread[uid] += *bytes;
      if (--question->open == 0) question->done(question->unread);
    });
  }
}

}  // namespace aw::api
