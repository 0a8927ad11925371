// SPDX-License-Identifier: Apache-2.0
//
// The event loop: sd-event with owners. Callbacks are noexcept at the trampoline: what escapes one is named on
// stderr and ends the loop with a failure status, because a half-deaf watchdog is worse than a restarted one.
#pragma once

#include <systemd/sd-event.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace aw::loop {

/// Which source goes first when several are ready; the table is in docs/architecture.md.
enum class Priority : std::int64_t {
  kKill = -100,    ///< cgroup events, the timer wheel: nothing delays a kill
  kProcess = -50,  ///< leaders and owners that ended
  kSignal = -10,   ///< our own signals
  kBus = 0,        ///< PID 1 and clients
  kDeferred = 50,  ///< what a wake-up left to do
  kIdle = 100,     ///< the rounds over the runs, and their curves: everything goes before them
};

class Loop;

/// Who sent a signal: a key of the terminal's goes to every process of the foreground group.
enum class SignalOrigin { kTerminal, kProcess };

/// What has happened to a watched directory: something in it, or it is not there any more (or not by that name).
enum class DirectoryChange { kInside, kGone };

/// One source of the loop; dropping it removes it.
class Source {
 public:
  Source() = default;
  Source(Source&&) noexcept = default;
  Source& operator=(Source&&) noexcept = default;
  explicit operator bool() const { return impl_ != nullptr; }
  void reset() { impl_.reset(); }

 private:
  friend class Loop;
  struct Impl;
  struct Delete {
    void operator()(Impl* impl) const noexcept;
  };
  /// `add` gives this Impl a source of sd-event's, and returns what sd-event did.
  template <class Add>
  static Result<Source> make(Impl callbacks, Priority priority, const Add& add);

  std::unique_ptr<Impl, Delete> impl_;
};

class Loop {
 public:
  static Result<Loop> create();
  Loop(Loop&&) noexcept = default;
  Loop& operator=(Loop&&) noexcept = default;

  /// The time of this wake-up.
  Now now() const;

  /// `on_ready` whenever `fd` has one of `events` (EPOLLIN, …). The fd is lent, and outlives the source.
  Result<Source> watch_fd(int fd, std::uint32_t events, Priority priority, const char* description,
                          std::function<void(const Now&)> on_ready);

  /// A timer that is off until set_timer().
  Result<Source> add_timer(Priority priority, const char* description, std::function<void(const Now&)> on_due);
  /// Arms it for `when` (CLOCK_MONOTONIC, accuracy 1 µs), or turns it off with kNever.
  static void set_timer(Source& timer, Instant when);

  /// Called once per wake-up after everything of higher priority, when it was scheduled.
  Result<Source> add_deferred(const char* description, std::function<void(const Now&)> work);
  static void schedule(Source& deferred);

  /// Called after whatever else the loop has handled, while it is on; it is off until set_post().
  Result<Source> add_post(const char* description, std::function<void(const Now&)> work);
  static void set_post(Source& post, bool on);

  /// Blocks the signal for this thread and calls back when it comes.
  Result<Source> watch_signal(int signal, const char* description,
                              std::function<void(const Now&, SignalOrigin)> on_arrival);

  /// The signals of a service: SIGHUP reloads its configuration, SIGTERM and SIGINT stop it. Without an `on_stop` that
  /// is to tell systemd so and to exit() with success.
  Result<std::vector<Source>> watch_service_signals(std::function<void()> on_reload,
                                                    std::function<void(const Now&)> on_stop = {});

  /// Calls back when a file in `directory` is written, made, renamed or removed; merged where it happens often. After
  /// kGone the source is dead.
  Result<Source> watch_directory(const std::string& directory, const char* description,
                                 std::function<void(const Now&, DirectoryChange)> on_change);

  /// Feeds systemd's watchdog from the loop, if it asked for it. True if it did.
  bool enable_watchdog();

  /// Runs until exit(); the status given there. One that is not 0 also when a callback threw.
  int run();
  /// One iteration: waits at most `timeout` for something and handles it.
  Result<void> iterate(Span timeout);
  void exit(int status);

  sd_event* raw() const { return event_.get(); }

 private:
  struct Unref {
    void operator()(sd_event* event) const noexcept { sd_event_unref(event); }
  };
  explicit Loop(sd_event* event) : event_(event) {}
  static Result<Source> turned_off(Result<Source> source);

  std::unique_ptr<sd_event, Unref> event_;
};

}  // namespace aw::loop
