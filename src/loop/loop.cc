// SPDX-License-Identifier: Apache-2.0
#include "loop/loop.h"

#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

namespace aw::loop {

struct Source::Impl {
  sd_event_source* source = nullptr;
  const char* description = "";
  std::function<void(const Now&)> callback = {};
  std::function<void(const Now&, SignalOrigin)> on_signal = {};     ///< of a signal source, instead
  std::function<void(const Now&, DirectoryChange)> on_change = {};  ///< of a watched directory, instead
};

template <class Add>
Result<Source> Source::make(Impl callbacks, Priority priority, const Add& add) {
  Source source;
  source.impl_.reset(new Impl(std::move(callbacks)));
  Impl* impl = source.impl_.get();
  int r = add(&impl->source, impl);
  if (r >= 0) r = sd_event_source_set_priority(impl->source, static_cast<std::int64_t>(priority));
  if (r < 0) return errno_error(impl->description, -r);
  (void)sd_event_source_set_description(impl->source, impl->description);  // Only for messages.
  return source;
}

void Source::Delete::operator()(Impl* impl) const noexcept {
  sd_event_source_disable_unref(impl->source);
  delete impl;
}

namespace {

Now read_now(sd_event* event) {
  std::uint64_t monotonic = 0;
  std::uint64_t real = 0;
  sd_event_now(event, CLOCK_MONOTONIC, &monotonic);
  sd_event_now(event, CLOCK_REALTIME, &real);
  return {Instant(Span(static_cast<Span::rep>(monotonic))), WallTime(Span(static_cast<Span::rep>(real)))};
}

int dispatch(sd_event_source* source, const std::function<void(const Now&)>& callback,
             const char* description) noexcept {
  sd_event* event = sd_event_source_get_event(source);
  try {
    // A callback may drop its own source; sd-event keeps the source alive until we return, but not our copy.
    const auto keep = callback;
    keep(read_now(event));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s; leaving the loop\n", description, e.what());
    sd_event_exit(event, 1);
  }
  return 0;
}

template <class Impl>
int on_io(sd_event_source* source, int, std::uint32_t, void* data) noexcept {
  auto* impl = static_cast<Impl*>(data);
  return dispatch(source, impl->callback, impl->description);
}
template <class Impl>
int on_time(sd_event_source* source, std::uint64_t, void* data) noexcept {
  auto* impl = static_cast<Impl*>(data);
  return dispatch(source, impl->callback, impl->description);
}
template <class Impl>
int on_defer(sd_event_source* source, void* data) noexcept {
  auto* impl = static_cast<Impl*>(data);
  return dispatch(source, impl->callback, impl->description);
}
template <class Impl>
int on_inotify(sd_event_source* source, const inotify_event* event, void* data) noexcept {
  auto* impl = static_cast<Impl*>(data);
  constexpr std::uint32_t kGone = IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT;
  const auto change = (event->mask & kGone) != 0 ? DirectoryChange::kGone : DirectoryChange::kInside;
  const auto callback = [keep = impl->on_change, change](const Now& now) { keep(now, change); };
  return dispatch(source, callback, impl->description);
}
template <class Impl>
int on_signal(sd_event_source* source, const signalfd_siginfo* info, void* data) noexcept {
  auto* impl = static_cast<Impl*>(data);
  const auto origin = info->ssi_code == SI_KERNEL ? SignalOrigin::kTerminal : SignalOrigin::kProcess;
  const auto callback = [keep = impl->on_signal, origin](const Now& now) { keep(now, origin); };
  return dispatch(source, callback, impl->description);
}

}  // namespace

Result<Source> Loop::turned_off(Result<Source> source) {
  if (source) (void)sd_event_source_set_enabled(source->impl_->source, SD_EVENT_OFF);  // Cannot fail for a live source.
  return source;
}

Result<Loop> Loop::create() {
  sd_event* event = nullptr;
  if (const int r = sd_event_new(&event); r < 0) return errno_error("event loop", -r);
  return Loop(event);
}

Now Loop::now() const { return read_now(event_.get()); }

Result<Source> Loop::watch_fd(int fd, std::uint32_t events, Priority priority, const char* description,
                              std::function<void(const Now&)> on_ready) {
  return Source::make({.description = description, .callback = std::move(on_ready)}, priority,
                      [&](sd_event_source** source, Source::Impl* impl) {
                        return sd_event_add_io(event_.get(), source, fd, events, &on_io<Source::Impl>, impl);
                      });
}

Result<Source> Loop::add_timer(Priority priority, const char* description, std::function<void(const Now&)> on_due) {
  return turned_off(Source::make({.description = description, .callback = std::move(on_due)}, priority,
                                 [&](sd_event_source** source, Source::Impl* impl) {
                                   return sd_event_add_time(event_.get(), source, CLOCK_MONOTONIC, UINT64_MAX, 1,
                                                            &on_time<Source::Impl>, impl);
                                 }));
}

void Loop::set_timer(Source& timer, Instant when) {
  sd_event_source* source = timer.impl_->source;
  if (when == kNever) {
    (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return;
  }
  const auto usec = when.time_since_epoch().count();
  (void)sd_event_source_set_time(source, usec < 0 ? 0 : static_cast<std::uint64_t>(usec));
  (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

Result<Source> Loop::add_deferred(const char* description, std::function<void(const Now&)> work) {
  return turned_off(Source::make({.description = description, .callback = std::move(work)}, Priority::kDeferred,
                                 [&](sd_event_source** source, Source::Impl* impl) {
                                   return sd_event_add_defer(event_.get(), source, &on_defer<Source::Impl>, impl);
                                 }));
}

void Loop::schedule(Source& deferred) { (void)sd_event_source_set_enabled(deferred.impl_->source, SD_EVENT_ONESHOT); }

Result<Source> Loop::add_post(const char* description, std::function<void(const Now&)> work) {
  return turned_off(Source::make({.description = description, .callback = std::move(work)}, Priority::kDeferred,
                                 [&](sd_event_source** source, Source::Impl* impl) {
                                   return sd_event_add_post(event_.get(), source, &on_defer<Source::Impl>, impl);
                                 }));
}

void Loop::set_post(Source& post, bool on) {
  (void)sd_event_source_set_enabled(post.impl_->source, on ? SD_EVENT_ON : SD_EVENT_OFF);
}

Result<Source> Loop::watch_signal(int signal, const char* description,
                                  std::function<void(const Now&, SignalOrigin)> on_arrival) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal);
  if (sigprocmask(SIG_BLOCK, &mask, nullptr) < 0) return errno_error("block signal");
  return Source::make({.description = description, .on_signal = std::move(on_arrival)}, Priority::kSignal,
                      [&](sd_event_source** source, Source::Impl* impl) {
                        return sd_event_add_signal(event_.get(), source, signal, &on_signal<Source::Impl>, impl);
                      });
}

Result<std::vector<Source>> Loop::watch_service_signals(std::function<void()> on_reload,
                                                        std::function<void(const Now&)> on_stop) {
  if (!on_stop) {
    on_stop = [event = event_.get()](const Now&) {
      (void)sd_notify(0, "STOPPING=1");
      (void)sd_event_exit(event, EXIT_SUCCESS);
    };
  }
  std::vector<Source> sources;
  for (const int signal : {SIGTERM, SIGINT}) {
    auto source = watch_signal(signal, "stop", [on_stop](const Now& now, SignalOrigin) { on_stop(now); });
    if (!source) return std::move(source).error();
    sources.push_back(std::move(*source));
  }
  auto hangup =
      watch_signal(SIGHUP, "reload", [on_reload = std::move(on_reload)](const Now&, SignalOrigin) { on_reload(); });
  if (!hangup) return std::move(hangup).error();
  sources.push_back(std::move(*hangup));
  return sources;
}

Result<Source> Loop::watch_directory(const std::string& directory, const char* description,
                                     std::function<void(const Now&, DirectoryChange)> on_change) {
  constexpr std::uint32_t kMask =
      IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
  auto watched = Source::make({.description = description, .on_change = std::move(on_change)}, Priority::kDeferred,
                              [&](sd_event_source** source, Source::Impl* impl) {
                                return sd_event_add_inotify(event_.get(), source, directory.c_str(), kMask,
                                                            &on_inotify<Source::Impl>, impl);
                              });
  if (!watched) return std::move(watched).error().within(directory);
  return watched;
}

bool Loop::enable_watchdog() { return sd_event_set_watchdog(event_.get(), 1) > 0; }

int Loop::run() {
  const int status = sd_event_loop(event_.get());
  return status < 0 ? 1 : status;
}

Result<void> Loop::iterate(Span timeout) {
  const auto usec = timeout == kForever ? UINT64_MAX : static_cast<std::uint64_t>(timeout.count());
  if (const int r = sd_event_run(event_.get(), usec); r < 0) return errno_error("event loop", -r);
  return {};
}

void Loop::exit(int status) { (void)sd_event_exit(event_.get(), status); }

}  // namespace aw::loop
