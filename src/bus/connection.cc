// SPDX-License-Identifier: Apache-2.0
#include "bus/connection.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <iterator>
#include <numeric>
#include <utility>

#include "base/failpoint.h"

namespace aw::bus {

/// Of one call under way. Owned by its slot, which sd-bus frees after the callback or with the bus, which a message
/// that somebody has kept may make outlive the connection.
struct Connection::Pending {
  Connection& connection;
  std::shared_ptr<Traffic> traffic;
  std::string destination;
  OnReply on_reply;
};

bool Connection::Traffic::has_room(const std::string& destination) const {
  const auto there = to.find(destination);
  return all < kMostUnderWay && (there == to.end() || there->second < kMostToOne);
}

void Connection::Traffic::leave(const std::string& destination) {
  const auto there = to.find(destination);
  if (there == to.end()) return;
  --all;
  if (--there->second == 0) to.erase(there);
}

namespace {

RemoteError remote_error(const sd_bus_error* error) {
  return {error->name == nullptr ? "" : error->name, error->message == nullptr ? "" : error->message};
}

constexpr char kFailed[] = "org.freedesktop.DBus.Error.Failed";
// Flags of RequestName.
constexpr std::uint32_t kAllowReplacement = 1;
constexpr std::uint32_t kReplaceExisting = 2;
constexpr std::uint32_t kDoNotQueue = 4;
constexpr char kTheBus[] = "org.freedesktop.DBus";
/// What a message takes besides its arguments.
constexpr std::size_t kHeader = 256;

RemoteError local_error(int err) { return {kFailed, errno_error("send", err).message}; }

/// Why the bus would not take it, as an errno; 0 if it would.
int why_unsendable(const Message& message) {
  if (message.append_status() < 0) return -message.append_status();
  return message.size() > Connection::kMaxMessage ? EMSGSIZE : 0;
}

/// Who alone may have sent what `rule` asks for: the bus itself, if it says so. The names of peers go by a name that
/// the bus looks up; it does so for what it spreads, not for what a peer sends to us alone, and sd-bus lets those
/// through.
std::string literal_sender(const std::string& rule) {
  constexpr std::string_view kSender = "sender='";
  const auto at = rule.find(kSender);
  if (at == std::string::npos || (at > 0 && rule[at - 1] != ',')) return {};
  const auto begin = at + kSender.size();
  std::string sender = rule.substr(begin, rule.find('\'', begin) - begin);
  return sender == "org.freedesktop.DBus" || sender == "org.freedesktop.DBus.Local" ? sender : std::string();
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
  traffic_ = std::make_shared<Traffic>();
  sent_bytes_.clear();
  looking_ = answered_ = false;
  unanswered_ = 0;
  for (Waiting& waiting : take_waiting()) answer_later(std::move(waiting.on_reply), local_error(ENOTCONN));
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
  on_room_ = nullptr;
  // What was written is not told, but it is written by the loop, and after that comes this.
  auto written = loop_->add_post("room on the bus", [this](const Now&) { look_for_room(); });
  if (!written) return std::move(written).error();
  written_ = std::move(*written);
  auto look =
      loop_->add_timer(loop::Priority::kBus, "a bus that takes nothing", [this](const Now&) { look_whether_taken(); });
  if (!look) return std::move(look).error();
  look_ = std::move(*look);
  auto slot = match(
      "type='signal',sender='org.freedesktop.DBus.Local',interface='org.freedesktop.DBus.Local',"
      "path='/org/freedesktop/DBus/Local',member='Disconnected'",
      [this](const Message&) {
        for (const Waiting& waiting : take_waiting()) waiting.on_reply(local_error(ENOTCONN));
        on_lost_();
      });
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
    pending->traffic->leave(pending->destination);
    // First, for the callback may be the end of the connection.
    if (pending->traffic == pending->connection.traffic_) pending->connection.send_next();
    if (AW_FAILPOINT_ERRNO("bus.reply", ETIMEDOUT) != 0) return callback(no_reply());
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

void Connection::request(Message call, OnReply on_reply, Sending sending) {
  if (call.append_status() < 0) return answer_later(std::move(on_reply), local_error(-call.append_status()));
  const char* to = sd_bus_message_get_destination(call.raw());
  const std::string destination = to == nullptr ? "" : to;
  Waiting waiting{std::move(call), std::move(on_reply), std::move(sending)};
  if (!is_open()) return send_call(std::move(waiting));  // The bus says why not.
  waiting_.at(static_cast<std::size_t>(waiting.sending.turn))[destination].push_back(std::move(waiting));
  send_next();
}

void Connection::send_next() {
  if (!is_open()) return;  // Disconnected follows.
  for (auto& destinations : waiting_) {
    for (auto at = destinations.begin(); at != destinations.end();) {
      auto& [destination, calls] = *at;
      while (!calls.empty() && (destination == kTheBus || traffic_->has_room(destination))) {
        Waiting next = std::move(calls.front());
        calls.pop_front();
        send_call(std::move(next));
      }
      at = calls.empty() ? destinations.erase(at) : std::next(at);
    }
  }
}

void Connection::send_call(Waiting waiting) {
  if (waiting.sending.before && !waiting.sending.before()) {
    return answer_later(std::move(waiting.on_reply), {kWithdrawn, "not sent any more"});
  }
  if (const int e = AW_FAILPOINT_ERRNO("bus.request", ENOBUFS)) {
    return answer_later(std::move(waiting.on_reply), local_error(e));
  }
  const char* to = sd_bus_message_get_destination(waiting.call.raw());
  auto pending =
      std::make_unique<Pending>(Pending{*this, traffic_, to == nullptr ? "" : to, std::move(waiting.on_reply)});
  sd_bus_slot* slot = nullptr;
  const int r = sd_bus_call_async(bus_, &slot, waiting.call.raw(), &Connection::on_reply, pending.get(),
                                  static_cast<std::uint64_t>(waiting.sending.timeout.count()));
  if (r < 0) return answer_later(std::move(pending->on_reply), local_error(-r));
  note_sent(waiting.call);
  if (pending->destination != kTheBus) {
    ++traffic_->all;
    ++traffic_->to[pending->destination];
  }
  (void)sd_bus_slot_set_destroy_callback(slot, [](void* data) { delete static_cast<Pending*>(data); });
  (void)pending.release();
  AW_FAILPOINT("bus.requested");
  (void)sd_bus_slot_set_floating(slot, 1);  // The connection owns it from here on.
  sd_bus_slot_unref(slot);
}

void Connection::answer_later(OnReply on_reply, RemoteError error) {
  // Not from within the request: whoever asked is not ready for the answer yet.
  auto source = std::make_shared<loop::Source>();
  auto callback = std::make_shared<OnReply>(std::move(on_reply));
  AW_ASSERT(loop_ != nullptr);
  auto deferred = loop_->add_deferred("failed bus call", [source, callback, error = std::move(error)](const Now&) {
    const auto keep = source;  // NOLINT(performance-unnecessary-copy-initialization): the closure goes with it.
    (*callback)(error);
    keep->reset();
  });
  AW_ASSERT(deferred.has_value());
  *source = std::move(*deferred);
  loop::Loop::schedule(*source);
}

std::vector<Connection::Waiting> Connection::take_waiting() {
  std::vector<Waiting> taken;
  for (auto& destinations : std::exchange(waiting_, {})) {
    for (auto& [destination, calls] : destinations) {
      std::move(calls.begin(), calls.end(), std::back_inserter(taken));
    }
  }
  return taken;
}

void Connection::send(Message message) {
  // Whoever called on a bus that has gone since is not there any more, and another may have its unique name.
  if (message.call() != nullptr && sd_bus_message_get_bus(message.call()) != bus_) return;
  if (const int err = why_unsendable(message); err != 0) return on_unsent(message, err);
  if (const int e = AW_FAILPOINT_ERRNO("bus.send", ENOBUFS)) return on_unsent(message, e);
  const int r = sd_bus_send(bus_, message.raw(), nullptr);
  if (r < 0 && !is_lost(-r)) on_unsent(message, -r);  // A lost bus is told by Disconnected.
  if (r >= 0) note_sent(message);
}

void Connection::send_to(Message signal, const std::string& destination) {
  if (const int err = why_unsendable(signal); err != 0) return on_unsent(signal, err);
  if (const int e = AW_FAILPOINT_ERRNO("bus.send-to", ENOBUFS)) return on_unsent(signal, e);
  const int r = sd_bus_send_to(bus_, signal.raw(), destination.c_str(), nullptr);
  if (r < 0 && !is_lost(-r)) on_unsent(signal, -r);  // As in send().
  if (r >= 0) note_sent(signal);
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

void Connection::note_sent(const Message& message) {
  const std::uint64_t waiting = unwritten();  // It may be among them.
  forget_written(waiting == 0 ? 0 : waiting - 1);
  if (waiting > 0) sent_bytes_.push_back(message.size() + kHeader);
  unasked_ = true;
  if (!on_stuck_ || !look_ || std::exchange(looking_, true)) return;
  looks_ = 0;
  seen_ = {taken_, unread()};
  loop::Loop::set_timer(look_, loop_->now().monotonic + look_pause_);
}

void Connection::forget_written(std::uint64_t left) {
  for (; sent_bytes_.size() > left; ++taken_) sent_bytes_.pop_front();
}

std::uint64_t Connection::unwritten() const {
  std::uint64_t messages = 0;
  return sd_bus_get_n_queued_write(bus_, &messages) >= 0 ? messages : 0;
}

std::size_t Connection::unwritten_bytes() const {
  // What sd-bus sends of its own accord is small, and not noted: one that was written is counted in its place.
  const auto messages = std::min<std::uint64_t>(unwritten(), sent_bytes_.size());
  return std::accumulate(sent_bytes_.end() - static_cast<std::ptrdiff_t>(messages), sent_bytes_.end(), std::size_t{0});
}

bool Connection::is_behind() const { return unwritten() > kMostUnwritten || unwritten_bytes() > kMostUnwrittenBytes; }

void Connection::request_room(std::function<void()> done) {
  on_room_ = std::move(done);
  loop::Loop::set_post(written_, true);
}

void Connection::look_for_room() {
  if (is_behind()) return;
  loop::Loop::set_post(written_, false);
  if (const auto done = std::exchange(on_room_, nullptr)) done();
}

void Connection::on_stuck(std::function<void()> told, Span pause) {
  on_stuck_ = std::move(told);
  look_pause_ = pause;
}

std::size_t Connection::unread() const {
  int bytes = 0;
  const int fd = sd_bus_get_fd(bus_);
  return fd >= 0 && ::ioctl(fd, SIOCOUTQ, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

void Connection::look_whether_taken() {
  looking_ = false;
  if (sd_bus_is_ready(bus_) <= 0) return;  // One that opens is late, or away; that is noticed without us.
  forget_written(unwritten());
  const Seen now{taken_, unread()};
  const bool took = std::exchange(answered_, false) || now.taken != seen_.taken || now.unread < seen_.unread;
  looks_ = took ? 0 : looks_ + 1;
  seen_ = now;
  if (looks_ == kMostLooks) {
    on_stuck_();
    // As if the bus had gone. The bus itself finds us gone when it writes to us, which may be never.
    cut_off_ = true;
    (void)::shutdown(sd_bus_get_fd(bus_), SHUT_RDWR);
    return;
  }
  if (unanswered_ == 0 && !unasked_) return;  // What was sent before an answer was asked for has been read.
  looking_ = true;
  loop::Loop::set_timer(look_, loop_->now().monotonic + look_pause_);
  // dbus-daemon takes a little from the socket that it then leaves lying; what it has read it answers. It takes that up
  // only when more comes, also where there is room again: so it is asked each time.
  ++unanswered_;
  request(new_call(kTheBus, "/org/freedesktop/DBus", kTheBus, "GetId"), [this](const Reply&) {
    if (unanswered_ > 0) --unanswered_;  // Else it was asked on a connection that has gone.
    answered_ = true;
  });
  unasked_ = false;
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
  if (const std::string sender = literal_sender(rule); !sender.empty()) {
    on_signal = [sender, on_signal = std::move(on_signal)](Message m) {
      if (m.sender() == sender) on_signal(std::move(m));
    };
  }
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
  call.append(name).append(kDoNotQueue | kAllowReplacement | (cut_off_ ? kReplaceExisting : 0U));
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
