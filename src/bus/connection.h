// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <systemd/sd-bus.h>

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

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

/// Which call goes first, of those that wait for their turn.
enum class Turn : std::size_t { kEarly, kInOrder };

/// What is to be known of a call besides its message.
struct Sending {
  Span timeout = std::chrono::seconds{25};  ///< from when it goes out
  Turn turn = Turn::kInOrder;
  /// Called just before it goes out, once, which may be long after it was asked for; false withdraws it, and the answer
  /// is an error of the name kWithdrawn. Not to touch the connection.
  std::function<bool()> before = nullptr;
};

/// The error of a call that was not sent after all.
inline constexpr char kWithdrawn[] = "org.scidex.AnalysisWatchdog1.Local.Withdrawn";
/// What sd-bus says where no answer comes in time, or the connection ends before it does: it may have been heard.
inline constexpr char kNoReply[] = "org.freedesktop.DBus.Error.NoReply";
inline RemoteError no_reply() { return {kNoReply, "Method call timed out"}; }

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

  /// How many calls are under way at once, and how many of them to one destination. dbus-daemon allows a connection of
  /// the system bus 128 that are not answered yet, and refuses whatever is more. The rest leaves room for another
  /// destination while one is deaf. Calls to the bus itself are answered at once, and never wait.
  static constexpr std::size_t kMostUnderWay = 96;
  static constexpr std::size_t kMostToOne = 64;

  /// Sends a call, in its turn; `on_reply` comes from the loop, once, also when the call times out or the bus is lost.
  /// The calls to one destination go out in the order in which they came, those that are early before the others.
  void request(Message call, OnReply on_reply, Sending sending = {});
  void request(Message call, OnReply on_reply, Span timeout) {
    request(std::move(call), std::move(on_reply), Sending{.timeout = timeout});
  }
  /// The most that send() lets onto the bus. dbus-daemon takes 32 MiB on the system bus and disconnects whoever sends
  /// more; the rest is for the header.
  static constexpr std::size_t kMaxMessage = 31UL << 20U;

  /// Sends without waiting for anything. Failures of the bus come back as a lost connection. A reply that can't be
  /// built, or is too large, becomes an error reply (Failed): whoever called is never left without an answer. A signal
  /// is dropped then, and the first one is told on stderr.
  void send(Message message);
  void send_to(Message signal, const std::string& destination);
  void send_error(const Message& call, const std::string& name, const std::string& text);

  /// More waits to be written than gathers before a bus that reads what it is sent: messages, or bytes of them. What
  /// can wait is better kept by whoever has it until then: here it is a message of its own for each who is to have it.
  static constexpr std::uint64_t kMostUnwritten = 256;
  static constexpr std::size_t kMostUnwrittenBytes = 4UL << 20U;
  bool is_behind() const;
  /// Of what waits to be written: no less than it takes on the wire.
  std::size_t unwritten_bytes() const;
  /// Calls `done` once from the loop as soon as the bus is not behind any more; never for one that was lost.
  void request_room(std::function<void()> done);

  /// From here on a bus is taken for lost that takes nothing of what waits for it: in kMostLooks looks of the loop's,
  /// one after each `pause`, so it is not taken for lost because we stood still ourselves. `told` is called before the
  /// loss. dbus-daemon is such a bus to a sender of too much that others have not read; to the same sender on a new
  /// connection it is not.
  static constexpr unsigned kMostLooks = 5;
  void on_stuck(std::function<void()> told, Span pause = std::chrono::seconds{3});

  /// For the tools, which have nothing else to do: sends and waits. Never used by the daemon.
  Reply call_blocking(Message call, Span timeout = std::chrono::seconds{60});

  /// A rule's `sender` is certain where it is the bus. Any peer can send us alone a signal that a rule with another's
  /// well-known name lets through: `on_signal` compares the sender with whoever has the name.
  Result<Slot> match(const std::string& rule, OnMessage on_signal);
  /// All method calls to `path` and below come to `handler`, which answers each of them itself.
  Result<Slot> serve(const char* path, OnMessage handler);

  /// The process at the other end of the socket, as the kernel noted it: the bus daemon, or the manager that listens
  /// for it. Nothing if it is not of our pid namespace.
  std::optional<pid_t> find_peer() const;
  /// Asks the bus for its own process. An error where it does not say.
  void request_bus_pid(std::function<void(Result<pid_t>)> done);

  /// Asks for the name; the answer comes through `done`: an error when somebody else has it. Whoever may have it may
  /// take it from us, as we do ourselves after the bus took nothing any more: there it is still our old connection's.
  void request_name(const char* name, std::function<void(Result<void>)> done);

  /// Writes out what is queued; waits for the socket. For the end of a program.
  void flush();

 private:
  Connection(sd_bus* bus, BusKind kind, Activation activation) : bus_(bus), kind_(kind), activation_(activation) {}
  struct Pending;
  /// A call that waits for its turn.
  struct Waiting {
    Message call;
    OnReply on_reply;
    Sending sending;
  };
  /// Of one opened bus: what is under way on it.
  struct Traffic {
    std::size_t all = 0;
    std::map<std::string, std::size_t> to;  ///< by destination; without those that have none
    bool has_room(const std::string& destination) const;
    void leave(const std::string& destination);
  };
  Result<void> join_loop();
  void send_call(Waiting waiting);
  void send_next();
  void look_for_room();
  void look_whether_taken();
  /// Of what was written, how much the bus has not read yet, as the kernel counts it.
  std::size_t unread() const;
  void answer_later(OnReply on_reply, RemoteError error);
  /// Whose turn does not come any more: the bus has gone.
  std::vector<Waiting> take_waiting();
  void note_sent(const Message& message);
  void forget_written(std::uint64_t left);
  /// How many messages wait to be written.
  std::uint64_t unwritten() const;
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
  std::deque<std::size_t> sent_bytes_;  ///< of each message that may not be written yet, the last at the end
  loop::Source written_;                ///< on while somebody waits for room
  std::function<void()> on_room_;
  std::function<void()> on_stuck_;
  Span look_pause_{0};
  loop::Source look_;  ///< armed until the bus has answered for what was sent
  bool looking_ = false;
  unsigned looks_ = 0;  ///< since the bus took something
  /// What was seen at the last of them.
  struct Seen {
    std::uint64_t taken = 0;
    std::size_t unread = 0;
  };
  Seen seen_;
  std::uint64_t taken_ = 0;  ///< messages that waited, and were written
  bool unasked_ = false;     ///< something was sent since the bus was asked
  unsigned unanswered_ = 0;  ///< how often the bus was asked, and has not answered yet
  bool answered_ = false;    ///< it has since the last look
  bool cut_off_ = false;     ///< what we had on the bus may still be another's, who was us
  bool told_unsent_ = false;
  std::shared_ptr<Traffic> traffic_ = std::make_shared<Traffic>();
  /// By turn, then by destination: one that is deaf does not hold up the others.
  std::array<std::map<std::string, std::deque<Waiting>>, 2> waiting_;
};

}  // namespace aw::bus
