// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <systemd/sd-bus.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "base/result.h"
#include "bus/message.h"
#include "loop/loop.h"

namespace aw::bus {

/// What a call came back with.
using Reply = std::variant<Message, RemoteError>;
using OnReply = std::function<void(Reply)>;
using OnMessage = std::function<void(Message)>;

/// A match, a handler or a call that is under way; dropping it cancels it.
class Slot {
 public:
  Slot() = default;
  explicit operator bool() const { return slot_ != nullptr; }
  void reset() {
    slot_.reset();
    callback_.reset();
  }

 private:
  friend class Connection;
  struct Unref {
    void operator()(sd_bus_slot* slot) const noexcept { sd_bus_slot_unref(slot); }
  };
  std::unique_ptr<OnMessage> callback_;
  std::unique_ptr<sd_bus_slot, Unref> slot_;
};

enum class BusKind { kSystem, kUser };

/// Whether a call may make the bus start the service that it is for.
enum class Activation { kAllowed, kNever };

/// A connection to the system's or the user's bus. It may be lost, and opened again: what was under way then has failed
/// with an error, what is sent meanwhile is dropped or answered with one, and matches and handlers are to be made anew.
class Connection {
 public:
  /// `activation` holds for all calls made through it.
  static Result<std::unique_ptr<Connection>> open(BusKind kind, Activation activation = Activation::kAllowed);
  /// One that is not open yet.
  static std::unique_ptr<Connection> prepare(BusKind kind, Activation activation = Activation::kAllowed);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  /// Connects, anew if need be. Not to be called from within a callback of this connection's.
  Result<void> reopen();
  bool is_open() const;

  /// Lets the loop drive the connection, also after it was opened anew. `on_lost` is called when the bus goes away.
  Result<void> attach(loop::Loop& loop, std::function<void()> on_lost);

  std::string unique_name() const;

  Message new_call(const char* destination, const char* path, const char* interface, const char* member);
  Message new_signal(const char* path, const char* interface, const char* member);
  static Message new_reply(const Message& call);

  /// Sends a call; `on_reply` comes from the loop, once, also when the call times out or the bus is lost.
  void request(Message call, OnReply on_reply, Span timeout = std::chrono::seconds{25});
  /// The most that send() lets onto the bus. dbus-daemon takes 32 MiB on the system bus and disconnects whoever sends
  /// more; the rest is for the header.
  static constexpr std::size_t kMaxMessage = 31UL << 20U;

  /// Sends without waiting for anything. Failures of the bus come back as a lost connection. A reply that can't be
  /// built, or is too large, becomes an error reply (Failed): whoever called is never left without an answer. A signal
  /// is dropped then, and the first one is told on stderr.
  void send(Message message);
  void send_to(Message signal, const std::string& destination);
  void send_error(const Message& call, const std::string& name, const std::string& text);

  /// For the tools, which have nothing else to do: sends and waits. Never used by the daemon.
  Reply call_blocking(Message call, Span timeout = std::chrono::seconds{60});

  Result<Slot> match(const std::string& rule, OnMessage on_signal);
  /// All method calls to `path` and below come to `handler`, which answers each of them itself.
  Result<Slot> serve(const char* path, OnMessage handler);

  /// The process at the other end of the socket, as the kernel noted it: the bus daemon, or the manager that listens
  /// for it. Nothing if it is not of our pid namespace.
  std::optional<pid_t> find_peer() const;
  /// Asks the bus for its own process. An error where it does not say.
  void request_bus_pid(std::function<void(Result<pid_t>)> done);

  /// Asks for the name; the answer comes through `done`: an error when somebody else has it.
  void request_name(const char* name, std::function<void(Result<void>)> done);

  /// Writes out what is queued; waits for the socket. For the end of a program.
  void flush();

 private:
  Connection(sd_bus* bus, BusKind kind, Activation activation) : bus_(bus), kind_(kind), activation_(activation) {}
  struct Pending;
  Result<void> join_loop();
  void on_unsent(const Message& message, int err);
  static int on_reply(sd_bus_message* m, void* data, sd_bus_error* error) noexcept;
  static int on_message(sd_bus_message* m, void* data, sd_bus_error* error) noexcept;
  static int on_call(sd_bus_message* m, void* data, sd_bus_error* error) noexcept;

  sd_bus* bus_;
  BusKind kind_;
  Activation activation_;
  loop::Loop* loop_ = nullptr;
  std::function<void()> on_lost_;
  std::unique_ptr<Slot> disconnected_;
  bool told_unsent_ = false;
};

}  // namespace aw::bus
