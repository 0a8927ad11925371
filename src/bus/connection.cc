// SPDX-License-Identifier: Apache-2.0
#include "bus/connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <utility>

#include "base/failpoint.h"

namespace aw::bus {

/// Of one call under way. Owned by its slot, which sd-bus frees after the callback or with the connection.
struct Connection::Pending {
  OnReply on_reply;
};

namespace {

RemoteError remote_error(const sd_bus_error* error) {
  return {error->name == nullptr ? "" : error->name, error->message == nullptr ? "" : error->message};
}

constexpr char kFailed[] = "org.freedesktop.DBus.Error.Failed";

RemoteError local_error(int err) { return {kFailed, errno_error("send", err).message}; }

/// Why the bus would not take it, as an errno; 0 if it would.
int why_unsendable(const Message& message) {
  if (message.append_status() < 0) return -message.append_status();
  return message.size() > Connection::kMaxMessage ? EMSGSIZE : 0;
}

bool is_lost(int err) { return err == ENOTCONN || err == ECONNRESET || err == EPIPE || err == ESHUTDOWN; }

/// Runs a callback of ours at sd-bus's C boundary.
template <class F>
void guarded(const char* what, sd_bus_message* m, F&& f) noexcept {
  try {
    f();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s; leaving the loop\n", what, e.what());
    sd_event* event = sd_bus_get_event(sd_bus_message_get_bus(m));
    if (event != nullptr) sd_event_exit(event, 1);
  }
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(BusKind kind, Activation activation) {
  auto connection = prepare(kind, activation);
  if (auto opened = connection->reopen(); !opened) return std::move(opened).error();
  return connection;
}

std::unique_ptr<Connection> Connection::prepare(BusKind kind, Activation activation) {
  // Messages can be made for a bus that is closed, not for one that never was anything else.
  sd_bus* bus = nullptr;
  AW_ASSERT(sd_bus_new(&bus) >= 0);
  AW_ASSERT(sd_bus_set_address(bus, "unix:path=/dev/null/bus") >= 0);
  AW_ASSERT(sd_bus_start(bus) < 0);
  return std::unique_ptr<Connection>(new Connection(bus, kind, activation));
}

Connection::~Connection() {
  disconnected_.reset();
  sd_bus_flush_close_unref(bus_);
}

Result<void> Connection::reopen() {
  if (const int e = AW_FAILPOINT_ERRNO("bus.open", ECONNREFUSED)) return errno_error("connect to the bus", e);
  sd_bus* bus = nullptr;
  const int r = kind_ == BusKind::kSystem ? sd_bus_open_system_with_description(&bus, "system bus")
                                          : sd_bus_open_user_with_description(&bus, "user bus");
  if (r < 0) {
    return errno_error(kind_ == BusKind::kSystem ? "connect to the system bus" : "connect to the user bus", -r);
  }
  disconnected_.reset();
  sd_bus_close_unref(std::exchange(bus_, bus));
  return loop_ == nullptr ? Result<void>() : join_loop();
}

bool Connection::is_open() const { return sd_bus_is_open(bus_) > 0; }

Result<void> Connection::attach(loop::Loop& loop, std::function<void()> on_lost) {
  loop_ = &loop;
  on_lost_ = std::move(on_lost);
  return is_open() ? join_loop() : Result<void>();
}

Result<void> Connection::join_loop() {
  (void)sd_bus_set_exit_on_disconnect(bus_, 0);  // We say ourselves what a lost bus means.
  if (const int r = sd_bus_attach_event(bus_, loop_->raw(), static_cast<int>(loop::Priority::kBus)); r < 0) {
    return errno_error("attach the bus to the loop", -r);
  }
  auto slot = match(
      "type='signal',sender='org.freedesktop.DBus.Local',interface='org.freedesktop.DBus.Local',"
      "path='/org/freedesktop/DBus/Local',member='Disconnected'",
      [this](const Message&) { on_lost_(); });
  if (!slot) return std::move(slot).error();
  disconnected_ = std::make_unique<Slot>(std::move(*slot));
  return {};
}

std::string Connection::unique_name() const {
  const char* name = nullptr;
  if (sd_bus_get_unique_name(bus_, &name) < 0 || name == nullptr) return {};
  return name;
}

Message Connection::new_call(const char* destination, const char* path, const char* interface, const char* member) {
  sd_bus_message* m = nullptr;
  AW_ASSERT(sd_bus_message_new_method_call(bus_, &m, destination, path, interface, member) >= 0);
  if (activation_ == Activation::kNever) AW_ASSERT(sd_bus_message_set_auto_start(m, 0) >= 0);
  return Message::adopt(m);
}

Message Connection::new_signal(const char* path, const char* interface, const char* member) {
  sd_bus_message* m = nullptr;
  AW_ASSERT(sd_bus_message_new_signal(bus_, &m, path, interface, member) >= 0);
  return Message::adopt(m);
}

Message Connection::new_reply(const Message& call) {
  sd_bus_message* m = nullptr;
  AW_ASSERT(sd_bus_message_new_method_return(call.raw(), &m) >= 0);
  return Message::adopt_reply(m, call);
}

int Connection::on_reply(sd_bus_message* m, void* data, sd_bus_error*) noexcept {
  auto* pending = static_cast<Pending*>(data);
  guarded("bus reply", m, [&] {
    const OnReply callback = std::move(pending->on_reply);
    if (const int e = AW_FAILPOINT_ERRNO("bus.reply", ETIMEDOUT)) return callback(local_error(e));
    if (const sd_bus_error* error = sd_bus_message_get_error(m)) {
      callback(remote_error(error));
    } else {
      callback(Message::share(m));
    }
  });
  return 1;
}

int Connection::on_message(sd_bus_message* m, void* data, sd_bus_error*) noexcept {
  AW_FAILPOINT("bus.signal");
  guarded("bus signal", m, [&] {
    const OnMessage keep = *static_cast<OnMessage*>(data);  // The callback may drop its own slot.
    keep(Message::share(m));
  });
  return 0;  // Other matches want to see it too.
}

int Connection::on_call(sd_bus_message* m, void* data, sd_bus_error*) noexcept {
  AW_FAILPOINT("bus.call");
  guarded("bus call", m, [&] { (*static_cast<OnMessage*>(data))(Message::share(m)); });
  return 1;
}

void Connection::request(Message call, OnReply on_reply_callback, Span timeout) {
  auto fail = [&](int err) {
    // Not from within the request: whoever asked is not ready for the answer yet.
    auto source = std::make_shared<loop::Source>();
    auto callback = std::make_shared<OnReply>(std::move(on_reply_callback));
    AW_ASSERT(loop_ != nullptr);
    auto deferred = loop_->add_deferred("failed bus call", [source, callback, err](const Now&) {
      const auto keep = source;  // NOLINT(performance-unnecessary-copy-initialization): the closure goes with it.
      (*callback)(local_error(err));
      keep->reset();
    });
    AW_ASSERT(deferred.has_value());
    *source = std::move(*deferred);
    loop::Loop::schedule(*source);
  };
  if (call.append_status() < 0) return fail(-call.append_status());
  if (const int e = AW_FAILPOINT_ERRNO("bus.request", ENOBUFS)) return fail(e);
  auto pending = std::make_unique<Pending>(Pending{std::move(on_reply_callback)});
  sd_bus_slot* slot = nullptr;
  const int r = sd_bus_call_async(bus_, &slot, call.raw(), &Connection::on_reply, pending.get(),
                                  static_cast<std::uint64_t>(timeout.count()));
  if (r < 0) {
    on_reply_callback = std::move(pending->on_reply);
    return fail(-r);
  }
  (void)sd_bus_slot_set_destroy_callback(slot, [](void* data) { delete static_cast<Pending*>(data); });
  (void)pending.release();
  AW_FAILPOINT("bus.requested");
  (void)sd_bus_slot_set_floating(slot, 1);  // The connection owns it from here on.
  sd_bus_slot_unref(slot);
}

void Connection::send(Message message) {
  // Whoever called on a bus that has gone since is not there any more, and another may have its unique name.
  if (message.call() != nullptr && sd_bus_message_get_bus(message.call()) != bus_) return;
  if (const int err = why_unsendable(message); err != 0) return on_unsent(message, err);
  if (const int e = AW_FAILPOINT_ERRNO("bus.send", ENOBUFS)) return on_unsent(message, e);
  const int r = sd_bus_send(bus_, message.raw(), nullptr);
  if (r < 0 && !is_lost(-r)) on_unsent(message, -r);  // A lost bus is told by Disconnected.
}

void Connection::send_to(Message signal, const std::string& destination) {
  if (const int err = why_unsendable(signal); err != 0) return on_unsent(signal, err);
  if (const int e = AW_FAILPOINT_ERRNO("bus.send-to", ENOBUFS)) return on_unsent(signal, e);
  const int r = sd_bus_send_to(bus_, signal.raw(), destination.c_str(), nullptr);
  if (r < 0 && !is_lost(-r)) on_unsent(signal, -r);  // As in send().
}

void Connection::on_unsent(const Message& message, int err) {
  const std::string why =
      err == EMSGSIZE ? "it would have more than " + std::to_string(kMaxMessage >> 20U) + " MiB; ask for less at once"
                      : errno_error("it cannot be built", err).message;
  if (message.call() != nullptr) return send_error(Message::share(message.call()), kFailed, "no reply: " + why);
  if (std::exchange(told_unsent_, true)) return;  // Once: whatever is wrong with it will be so again.
  std::fprintf(stderr, "%s to the bus was not sent: %s\n", message.member().c_str(), why.c_str());
}

void Connection::send_error(const Message& call, const std::string& name, const std::string& text) {
  if (sd_bus_message_get_bus(call.raw()) != bus_) return;  // As in send().
  sd_bus_message* m = nullptr;
  sd_bus_error error{name.c_str(), text.c_str(), 0};
  if (sd_bus_message_new_method_error(call.raw(), &m, &error) < 0) {
    // A name or words that the bus does not take; that something went wrong can be said all the same.
    error = {kFailed, "the request failed, and the reason cannot be put into words of the bus", 0};
    if (sd_bus_message_new_method_error(call.raw(), &m, &error) < 0) return;
  }
  send(Message::adopt(m));
}

Reply Connection::call_blocking(Message call, Span timeout) {
  if (call.append_status() < 0) return local_error(-call.append_status());
  sd_bus_error error{};
  sd_bus_message* reply = nullptr;
  const int r = sd_bus_call(bus_, call.raw(), static_cast<std::uint64_t>(timeout.count()), &error, &reply);
  if (r < 0) {
    RemoteError remote = sd_bus_error_is_set(&error) != 0 ? remote_error(&error) : local_error(-r);
    sd_bus_error_free(&error);
    return remote;
  }
  return Message::adopt(reply);
}

Result<Slot> Connection::match(const std::string& rule, OnMessage on_signal) {
  if (const int e = AW_FAILPOINT_ERRNO("bus.match", ENOBUFS)) return errno_error("match " + rule, e);
  Slot slot;
  slot.callback_ = std::make_unique<OnMessage>(std::move(on_signal));
  sd_bus_slot* raw = nullptr;
  const int r =
      sd_bus_add_match_async(bus_, &raw, rule.c_str(), &Connection::on_message, nullptr, slot.callback_.get());
  if (r < 0) return errno_error("match " + rule, -r);
  slot.slot_.reset(raw);
  return slot;
}

Result<Slot> Connection::serve(const char* path, OnMessage handler) {
  Slot slot;
  slot.callback_ = std::make_unique<OnMessage>(std::move(handler));
  sd_bus_slot* raw = nullptr;
  const int r = sd_bus_add_fallback(bus_, &raw, path, &Connection::on_call, slot.callback_.get());
  if (r < 0) return errno_error(std::string("serve ") + path, -r);
  slot.slot_.reset(raw);
  return slot;
}

void Connection::request_name(const char* name, std::function<void(Result<void>)> done) {
  AW_FAILPOINT("bus.request-name");
  auto call = new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName");
  call.append(name).append(std::uint32_t{4});  // DBUS_NAME_FLAG_DO_NOT_QUEUE
  request(std::move(call), [name = std::string(name), done = std::move(done)](Reply reply) {
    if (const auto* error = std::get_if<RemoteError>(&reply)) {
      return done(Error{std::make_error_code(std::errc::permission_denied),
                        "take the bus name " + name + ": " + error->message});
    }
    AW_FAILPOINT("bus.name-taken");
    const auto answer = std::get<Message>(reply).read_u32();
    if (answer && (*answer == 1 || *answer == 4)) return done({});  // Primary owner, or already ours.
    done(Error{std::make_error_code(std::errc::address_in_use),
               "the bus name " + name + " belongs to somebody else: is another analysis-watchdogd running?"});
  });
}

std::optional<pid_t> Connection::find_peer() const {
  ucred peer{};
  socklen_t size = sizeof(peer);
  const int fd = sd_bus_get_fd(bus_);
  if (fd < 0 || ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid <= 0) return std::nullopt;
  return peer.pid;
}

void Connection::request_bus_pid(std::function<void(Result<pid_t>)> done) {
  auto call =
      new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixProcessID");
  call.append("org.freedesktop.DBus");
  request(std::move(call), [done = std::move(done)](Reply reply) {
    if (const auto* error = std::get_if<RemoteError>(&reply)) {
      return done(Error{std::make_error_code(std::errc::protocol_error), "ask the bus for its pid: " + error->message});
    }
    const auto pid = std::get<Message>(reply).read_u32();
    if (!pid || *pid == 0 || *pid > INT32_MAX) return done(invalid("the bus does not say which process it is"));
    done(static_cast<pid_t>(*pid));
  });
}

void Connection::flush() { (void)sd_bus_flush(bus_); }

}  // namespace aw::bus
