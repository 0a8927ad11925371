// SPDX-License-Identifier: Apache-2.0
#include "support/watchdog.h"

#include <sys/syscall.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <iostream>
#include <sstream>
#include <stdexcept>

#include "support/manager.h"
#include "support/users.h"

namespace aw::stories {
namespace {

/// PID 1 may be reloading in the middle of a placement.
constexpr Span kCallPatience = std::chrono::minutes{3};
constexpr Span kTurn = std::chrono::milliseconds{50};

void print(std::ostream& out, const Value& value);

void print(std::ostream& out, const Dict& dict) {
  out << "{";
  const char* comma = "";
  for (const auto& [key, value] : dict) {
    out << std::exchange(comma, ", ") << key << ": ";
    print(out, value);
  }
  out << "}";
}

void print(std::ostream& out, const Value& value) {
  std::visit(
      [&out](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T>) {
          out << held;
        } else if constexpr (std::is_same_v<T, std::string>) {
          out << '"' << held << '"';
        } else if constexpr (std::is_same_v<T, bus::ObjectPath>) {
          out << held.text;
        } else if constexpr (std::is_same_v<T, Dict>) {
          print(out, held);
        } else if constexpr (std::is_same_v<T, std::vector<Dict>>) {
          out << "[";
          for (const Dict& dict : held) print(out, dict);
          out << "]";
        } else {
          out << "(" << held.size() << " entries)";
        }
      },
      value.v);
}

}  // namespace

std::optional<std::uint64_t> find_number(const Dict& dict, std::string_view key) {
  const Value* value = bus::find(dict, key);
  if (value == nullptr) return std::nullopt;
  if (const auto* t = value->get_if<std::uint64_t>()) return *t;
  if (const auto* u = value->get_if<std::uint32_t>()) return *u;
  if (const auto* x = value->get_if<std::int64_t>()) return static_cast<std::uint64_t>(*x);
  if (const auto* i = value->get_if<std::int32_t>()) return static_cast<std::uint64_t>(*i);
  return std::nullopt;
}

std::uint64_t number(const Dict& dict, std::string_view key) { return find_number(dict, key).value_or(0); }

std::string text(const Dict& dict, std::string_view key) {
  const Value* value = bus::find(dict, key);
  const auto* held = value == nullptr ? nullptr : value->get_if<std::string>();
  return held == nullptr ? "" : *held;
}

bool flag(const Dict& dict, std::string_view key) {
  const Value* value = bus::find(dict, key);
  const auto* held = value == nullptr ? nullptr : value->get_if<bool>();
  return held != nullptr && *held;
}

Dict details(const Dict& record) {
  const Value* value = bus::find(record, "details");
  const auto* held = value == nullptr ? nullptr : value->get_if<Dict>();
  return held == nullptr ? Dict{} : *held;
}

std::vector<Dict> dicts(const Dict& record, std::string_view key) {
  const Value* value = bus::find(record, key);
  const auto* held = value == nullptr ? nullptr : value->get_if<std::vector<Dict>>();
  return held == nullptr ? std::vector<Dict>{} : *held;
}

std::string describe(const Dict& record) {
  std::ostringstream out;
  print(out, record);
  return out.str();
}

Watchdog::Watchdog(Hearing hearing, std::string user) : hearing_(hearing), user_(std::move(user)) {
  auto loop = loop::Loop::create();
  if (!loop) throw std::runtime_error(loop.error().message);
  loop_ = std::make_unique<loop::Loop>(std::move(*loop));
  connection_ = bus::Connection::prepare(
      bus_kind(), hearing_ == Hearing::kSignals ? bus::Activation::kAllowed : bus::Activation::kNever);
  if (auto attached = connection_->attach(*loop_, [] {}); !attached) throw std::runtime_error(attached.error().message);
  if (auto connected = connect(); !connected) throw std::runtime_error(connected.error().message);
}

Result<void> Watchdog::connect() {
  const As as(user_);  // The bus is told by the kernel who has connected.
  if (auto opened = connection_->reopen(); !opened) return opened;
  (void)connection_->unique_name();  // The bus closes a connection that takes half a minute to say who it is.
  slots_.clear();
  if (hearing_ == Hearing::kNothing) return {};
  const std::string path = std::string("type='signal',path_namespace='") + names::kManagerPath + "'";
  auto slot = connection_->match(path, [this](const bus::Message& m) {
    auto message = bus::Message::share(m.raw());
    note(message);
  });
  if (!slot) return std::move(slot).error();
  slots_.push_back(std::move(*slot));
  // sd-bus closes a connection whose loop has not come to see a match confirmed within 25 s. A story may be busy with
  // other things for longer.
  bool confirmed = false;
  connection_->request(
      connection_->new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"),
      [&confirmed](const bus::Reply&) { confirmed = true; });
  while (!confirmed) {
    if (auto turned = loop_->iterate(kTurn); !turned) return turned;
  }
  return {};
}

bool Watchdog::reconnect() { return connect().has_value(); }

void Watchdog::note(bus::Message& message) {
  Signal signal;
  signal.member = message.member();
  signal.path = message.path();
  const bool ours = message.interface() == names::kManagerInterface;
  if (ours) {
    signal.id = message.read_string().value_or("");
    if (signal.member == "AnalysisEnding" || signal.member == "AnalysisEnded") {
      signal.reason = message.read_string().value_or("");
    }
    if (signal.member == "AnalysisEnding") signal.grace = message.read_u64().value_or(0);
    if (signal.member == "AnalysisEnded") signal.record = message.read_dict().value_or({});
    if (signal.member == "OrphanFound") {
      signal.pid = message.read_u32().value_or(0);
      signal.comm = message.read_string().value_or("");
    }
  } else if (signal.member == "PropertiesChanged") {
    signal.id = message.read_string().value_or("");  // The interface.
    signal.record = message.read_dict().value_or({});
  } else if (signal.member == "InterfacesAdded" || signal.member == "InterfacesRemoved") {
    signal.id = message.read_path().value_or("");
  }
  signals_.push_back(std::move(signal));
}

Outcome Watchdog::call_at(const std::string& destination, const std::string& path, const char* interface,
                          const char* member, const std::function<void(bus::Message&)>& append) {
  auto message = connection_->new_call(destination.c_str(), path.c_str(), interface, member);
  if (append) append(message);
  auto reply = connection_->call_blocking(std::move(message), kCallPatience);
  if (auto* error = std::get_if<bus::RemoteError>(&reply)) {
    // The others are the story's to judge; this one is about the story itself.
    if (error->name.starts_with("System.Error.") || error->name == SD_BUS_ERROR_DISCONNECTED ||
        error->name == SD_BUS_ERROR_NO_REPLY || error->name == SD_BUS_ERROR_LIMITS_EXCEEDED) {
      std::cout << member << " of " << destination << ": " << error->name << ": " << error->message << "\n";
    }
    return {error->name, error->message, {}};
  }
  return {"", "", std::get<bus::Message>(std::move(reply))};
}

Outcome Watchdog::call(const char* member, const std::function<void(bus::Message&)>& append) {
  return call_at(names::kBusName, names::kManagerPath, names::kManagerInterface, member, append);
}

void Watchdog::begin_call(const char* member, const std::function<void(bus::Message&)>& append) {
  auto message = connection_->new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, member);
  if (append) append(message);
  ++unanswered_;
  connection_->request(std::move(message), [this](const bus::Reply&) { --unanswered_; });
}

Outcome Watchdog::register_process(const std::string& id, std::uint32_t pid, const Dict& options) {
  return call("RegisterAnalysis", [&](bus::Message& m) { m.append(id).append(pid).append(options); });
}

Outcome Watchdog::register_pidfd(const std::string& id, pid_t pid, const Dict& options) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return call("RegisterAnalysisByPidfd", [&](bus::Message& m) { m.append(id).append(pidfd).append(options); });
}

Outcome Watchdog::unregister(const std::string& id) {
  return call("UnregisterAnalysis", [&](bus::Message& m) { m.append(id); });
}

Outcome Watchdog::attach(const std::string& id, std::uint32_t pid) {
  return call("AttachProcess", [&](bus::Message& m) { m.append(id).append(pid); });
}

Outcome Watchdog::kill(const std::string& id) {
  return call("KillAnalysis", [&](bus::Message& m) { m.append(id); });
}

Outcome Watchdog::set_limits(const std::string& id, const Dict& options) {
  return call("SetLimits", [&](bus::Message& m) { m.append(id).append(options); });
}

Outcome Watchdog::extend(const std::string& id, std::uint64_t usec) {
  return call("ExtendDeadline", [&](bus::Message& m) { m.append(id).append(usec); });
}

std::optional<Dict> Watchdog::find(const std::string& id) {
  auto found = call("GetAnalysis", [&](bus::Message& m) { m.append(id); });
  if (!found.ok()) return std::nullopt;
  const auto path = found.reply.read_path();
  if (!path) return std::nullopt;
  Dict properties = get_all(names::kBusName, *path, names::kAnalysisInterface);
  if (properties.empty()) return std::nullopt;  // It ended between the two calls.
  return properties;
}

std::vector<Dict> Watchdog::list() {
  auto listed = call("ListAnalyses");
  return listed.ok() ? listed.reply.read_dicts().value_or({}) : std::vector<Dict>{};
}

Dict Watchdog::manager_properties() { return get_all(names::kBusName, names::kManagerPath, names::kManagerInterface); }

Dict Watchdog::get_all(const std::string& destination, const std::string& path, const char* interface) {
  auto got = call_at(destination, path, "org.freedesktop.DBus.Properties", "GetAll",
                     [&](bus::Message& m) { m.append(interface); });
  return got.ok() ? got.reply.read_dict().value_or({}) : Dict{};
}

std::vector<Dict> Watchdog::events(const Dict& filter) {
  auto listed = call("ListEvents", [&](bus::Message& m) { m.append(filter); });
  return listed.ok() ? listed.reply.read_dicts().value_or({}) : std::vector<Dict>{};
}

std::vector<Dict> Watchdog::events_of(const std::string& id, const std::string& kind) {
  return events({{"AnalysisId", {id}}, {"Kind", {kind}}});
}

bool Watchdog::wait_until(const std::function<bool()>& done, Span patience) {
  const Instant deadline = monotonic_now() + patience;
  while (!done()) {
    if (monotonic_now() >= deadline) return false;
    if (auto turned = loop_->iterate(kTurn); !turned) throw std::runtime_error(turned.error().message);
  }
  return true;
}

void Watchdog::let_pass(Span time) {
  (void)wait_until([] { return false; }, time);
}

std::optional<Signal> Watchdog::await_signal(const std::string& member, const std::string& id, std::size_t from) {
  std::optional<Signal> found;
  (void)wait_until([&] {
    for (; from < signals_.size() && !found; ++from) {
      const Signal& signal = signals_[from];
      if (signal.member == member && signal.id == id) found = signal;
    }
    return found.has_value();
  });
  return found;
}

std::optional<Dict> Watchdog::await_event(const std::string& id, const std::string& kind, Span patience) {
  std::optional<Dict> found;
  (void)wait_until(
      [&] {
        const auto listed = events_of(id, kind);
        if (!listed.empty()) found = listed.front();
        return found.has_value();
      },
      patience);
  return found;
}

}  // namespace aw::stories
