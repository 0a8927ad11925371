// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "analysis_watchdog/names.h"
#include "bus/connection.h"
#include "loop/loop.h"
#include "support/process.h"

namespace aw::stories {

using bus::Dict;
using bus::Value;

/// What a call came back with: an error's name and words, or the reply.
struct Outcome {
  std::string error;
  std::string message;
  bus::Message reply;
  bool ok() const { return error.empty(); }
};

/// A signal of the watchdog's, with whatever of these it carries.
struct Signal {
  std::string member;
  std::string path;
  std::string id;
  std::string reason;
  std::uint64_t grace = 0;
  std::uint32_t pid = 0;
  std::string comm;
  Dict record;  ///< of AnalysisEnded; of PropertiesChanged the changed ones
};

// Readers of a record or of properties. What is not there, or of another type, is nothing, "" or an empty Dict.
std::optional<std::uint64_t> find_number(const Dict& dict, std::string_view key);
std::uint64_t number(const Dict& dict, std::string_view key);  ///< 0 if it is not there
std::string text(const Dict& dict, std::string_view key);
bool flag(const Dict& dict, std::string_view key);
Dict details(const Dict& record);
std::vector<Dict> dicts(const Dict& record, std::string_view key);
/// A record for the message of a failure.
std::string describe(const Dict& record);

/// Whether a client hears the watchdog's signals. One of many that only call does without, and its calls do not make
/// the bus start a daemon that was stopped.
enum class Hearing { kSignals, kNothing };

/// A client of the watchdog on the system bus, or on the user's (manager.h), and of systemd beside it.
class Watchdog {
 public:
  /// `user`: on the bus it is that one, with their groups; "": root, like the story. As that is done by becoming them
  /// for a moment, no other thread may be up to something then.
  explicit Watchdog(Hearing hearing = Hearing::kSignals, std::string user = "");
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// After the bus was restarted, which ends every connection. Signals of the time between are missed. False while
  /// there is no bus.
  bool reconnect();

  Outcome call(const char* member, const std::function<void(bus::Message&)>& append = {});
  Outcome call_at(const std::string& destination, const std::string& path, const char* interface, const char* member,
                  const std::function<void(bus::Message&)>& append = {});
  /// Sends it, and leaves the answer to whoever turns the loop.
  void begin_call(const char* member, const std::function<void(bus::Message&)>& append = {});
  std::size_t unanswered() const { return unanswered_; }

  Outcome register_process(const std::string& id, std::uint32_t pid, const Dict& options = {});
  Outcome register_pidfd(const std::string& id, pid_t pid, const Dict& options = {});
  Outcome unregister(const std::string& id);
  Outcome attach(const std::string& id, std::uint32_t pid);
  Outcome kill(const std::string& id);
  Outcome set_limits(const std::string& id, const Dict& options);
  Outcome extend(const std::string& id, std::uint64_t usec);

  /// The properties of a live analysis.
  std::optional<Dict> find(const std::string& id);
  std::vector<Dict> list();
  Dict manager_properties();
  Dict get_all(const std::string& destination, const std::string& path, const char* interface);
  /// Newest first.
  std::vector<Dict> events(const Dict& filter);
  std::vector<Dict> events_of(const std::string& id, const std::string& kind);

  /// Turns the loop until `done`, or until time is up; false then.
  bool wait_until(const std::function<bool()>& done, Span patience = kPatience);
  /// Lets this much time pass, while signals come in. Only where a story is about nothing happening.
  void let_pass(Span time);
  const std::vector<Signal>& signals() const { return signals_; }
  /// The first one of those that came after `from` others.
  std::optional<Signal> await_signal(const std::string& member, const std::string& id, std::size_t from = 0);
  std::optional<Dict> await_event(const std::string& id, const std::string& kind, Span patience = kPatience);

 private:
  void note(bus::Message& message);
  Result<void> connect();

  Hearing hearing_;
  std::string user_;
  std::unique_ptr<loop::Loop> loop_;
  std::unique_ptr<bus::Connection> connection_;
  std::vector<bus::Slot> slots_;
  std::vector<Signal> signals_;
  std::size_t unanswered_ = 0;
};

}  // namespace aw::stories
