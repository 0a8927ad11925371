// SPDX-License-Identifier: Apache-2.0
#include "systemd/manager.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "base/failpoint.h"
#include "base/utf8.h"

namespace aw::systemd {
namespace {

using bus::Message;
using bus::RemoteError;
using bus::Reply;
using supervise::Done;
using supervise::ScopeOrder;
using supervise::SliceLimits;

constexpr char kBus[] = "org.freedesktop.DBus";
constexpr char kBusPath[] = "/org/freedesktop/DBus";
constexpr char kDestination[] = "org.freedesktop.systemd1";
constexpr char kPath[] = "/org/freedesktop/systemd1";
constexpr char kManager[] = "org.freedesktop.systemd1.Manager";

/// PID 1 may be reloading; longer than any reload seen, and a registration can wait.
constexpr Span kPatience = std::chrono::minutes{2};
/// A unit of the same name that is on its way out is gone after its stop job and one more turn of PID 1's loop.
constexpr int kRetries = 50;
constexpr Span kRetryPause = std::chrono::milliseconds{20};
/// A daemon-reexec takes PID 1 off the bus, and what was asked meanwhile or a moment before goes unanswered, done or
/// not: it is asked again. Less than the 25 s that a caller has patience for by default.
constexpr Span kComesBack = std::chrono::seconds{20};
constexpr Span kLostPause = std::chrono::milliseconds{200};
/// A job that has taken so long may be one whose end was told while PID 1 was off the bus.
constexpr Span kJobPause = std::chrono::seconds{5};
/// A daemon-reload unloads every unit and loads it again.
constexpr Span kReloadPause = std::chrono::seconds{1};

bool is_away(const RemoteError& error) {
  return error.name == bus::kNoReply || error.name == "org.freedesktop.DBus.Error.ServiceUnknown" ||
         error.name == "org.freedesktop.DBus.Error.NameHasNoOwner" ||
         error.name == "org.freedesktop.DBus.Error.LimitsExceeded";  // The bus has too much to do for it.
}

Error failure(const std::string& what, const RemoteError& error) {
  return {std::make_error_code(std::errc::protocol_error), what + ": " + error.message + " (" + error.name + ")"};
}

/// Appends one property, (sv).
template <class T>
void add(Message& m, const char* name, const T& value) {
  m.open('r', "sv").append(name).append_variant(bus::Value{value}).close();
}

void add_limits(Message& m, const SliceLimits& limits) {
  add(m, "MemoryHigh", limits.tripwire.count());
  add(m, "MemoryMax", limits.ceiling.count());
  // With swap a limit is none: anonymous memory above it would go there, and no breach be seen.
  add(m, "MemorySwapMax", std::uint64_t{0});
  add(m, "TasksMax", limits.tasks_max);
  add(m, "CPUQuotaPerSecUSec", to_usec(limits.cpu_quota_per_second));
  add(m, "CPUWeight", limits.cpu_weight.value_or(UINT64_MAX));  // Sent also when it is none, to take back another.
}

void add_scope(Message& m, const ScopeOrder& scope, bool use_pidfds) {
  if (use_pidfds) {
    m.open('r', "sv").append("PIDFDs").open('v', "ah").open('a', "h").append_fd(scope.process->pidfd());
  } else {
    m.open('r', "sv").append("PIDs").open('v', "au").open('a', "u");
    m.append(static_cast<std::uint32_t>(scope.process->key().pid));
  }
  m.close().close().close();
  add(m, "Slice", scope.slice);
  add(m, "Description", unit_description(scope.description));
  add(m, "CollectMode", std::string("inactive-or-failed"));
  // Unset it means `stop`: PID 1 would race our verdict (measured).
  add(m, "OOMPolicy", std::string(scope.kill_whole_on_oom ? "kill" : "continue"));
  if (scope.runtime_max != kForever) add(m, "RuntimeMaxUSec", to_usec(scope.runtime_max));
  add(m, "TimeoutStopUSec", to_usec(scope.stop_timeout));
}

/// a(ssssssouso): what is loaded because somebody has asked for it is inactive, whatever is in its cgroup.
Result<std::set<std::string>> read_units(Message& reply) {
  if (auto entered = reply.enter('a', "(ssssssouso)"); !entered) return std::move(entered).error();
  std::set<std::string> units;
  while (!reply.at_end()) {
    if (auto entered = reply.enter('r', "ssssssouso"); !entered) return std::move(entered).error();
    const auto name = reply.read_string();
    reply.skip("ss");
    const auto state = reply.read_string();
    reply.skip("ssouso");
    if (!name || !state) return invalid("systemd's list of units is none");
    if (*state != "inactive" && *state != "failed") units.insert(*name);
    if (auto left = reply.leave(); !left) return std::move(left).error();
  }
  return units;
}

}  // namespace

std::string unit_description(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const auto character = find_character(text);
    const std::size_t bytes = character ? character->bytes : 1;
    const bool allowed = character && !is_control(character->code);
    line += allowed ? text.substr(0, bytes) : " ";
    text.remove_prefix(bytes);
  }
  // With the spaces: later versions of systemd take those off before they look for the backslash.
  line.erase(line.find_last_not_of("\\ ") + 1);
  return line;
}

/// One StartTransientUnit under way. The message is built when it is sent, and again for a retry.
struct Manager::Start {
  ScopeOrder scope;
  std::optional<SliceLimits> slice_limits;  ///< with them the slice is made, too
  Done done;
  int retries = 0;
  bool by_pidfd = false;             ///< the last call named its process so
  std::optional<Instant> sent = {};  ///< the first time
  bool lost = false;                 ///< a call went unanswered, and may have been heard
};

Manager::Manager(bus::Connection& connection, loop::Loop& loop, OnJob on_job, OnUnitRemoved on_unit_removed)
    : connection_(connection), loop_(loop), on_job_(std::move(on_job)), on_unit_removed_(std::move(on_unit_removed)) {}

Manager::~Manager() = default;

const std::string& Manager::parent_slice() const {
  static const std::string kName = kParentSlice;
  return kName;
}

void Manager::request_start(std::function<void(Result<std::string>)> done) {
  // Matches first, then Subscribe, then work: a job that is over before we listen is one we never hear of.
  if (auto listening = listen(); !listening) return done(std::move(listening).error());
  auto call = connection_.new_call(kBus, kBusPath, kBus, "GetNameOwner");
  call.append(kDestination);
  connection_.request(std::move(call), [this, done = std::move(done)](Reply reply) {
    const auto* error = std::get_if<RemoteError>(&reply);
    if (error != nullptr && !is_away(*error)) return done(failure("ask the bus for systemd", *error));
    const auto owner = error != nullptr ? Result<std::string>("") : std::get<Message>(reply).read_string();
    if (!owner) return done(owner.error());
    systemd_ = *owner;  // What the bus tells of a later one comes after this.
    subscribe(done);
  });
}

Result<void> Manager::listen() {
  const std::string of_bus = std::string("type='signal',sender='") + kBus + "',path='" + kBusPath + "',interface='" +
                             kBus + "',member='NameOwnerChanged',arg0='" + kDestination + "'";
  const std::string from = std::string("type='signal',sender='") + kDestination + "',path='" + kPath + "',interface='" +
                           kManager + "',member='";
  auto owner = connection_.match(of_bus, [this](const Message& m) { on_owner_changed(Message::share(m.raw())); });
  auto removed = connection_.match(from + "JobRemoved'", if_systemds(&Manager::on_job_removed));
  auto added = connection_.match(from + "JobNew'", if_systemds(&Manager::on_job_new));
  auto unloaded = connection_.match(from + "UnitRemoved'", if_systemds(&Manager::on_unit_removed));
  auto loaded = connection_.match(from + "UnitNew'", if_systemds(&Manager::on_unit_new));
  matches_.clear();
  for (auto* match : {&owner, &removed, &added, &unloaded, &loaded}) {
    if (!*match) return std::move(*match).error();
    matches_.push_back(std::move(**match));
  }
  return {};
}

bus::OnMessage Manager::if_systemds(void (Manager::*handler)(Message)) {
  return [this, handler](const Message& m) {
    // Of an ordinary user's a forged end of a job would fail a registration, and a forged stop end a run.
    if (!systemd_.empty() && m.sender() == systemd_) (this->*handler)(Message::share(m.raw()));
  };
}

void Manager::on_owner_changed(Message signal) {
  const auto name = signal.read_string();
  const auto before = signal.read_string();
  auto after = signal.read_string();
  if (name && before && after) systemd_ = std::move(*after);  // It was executed anew, and comes back as another.
}

void Manager::subscribe(std::function<void(Result<std::string>)> done) {
  connection_.request(connection_.new_call(kDestination, kPath, kManager, "Subscribe"),
                      [this, done = std::move(done)](Reply reply) {
                        AW_FAILPOINT("systemd.subscribed");
                        const auto* error = std::get_if<RemoteError>(&reply);
                        if (error != nullptr && error->name != "org.freedesktop.systemd1.AlreadySubscribed") {
                          return done(failure("subscribe to systemd's signals", *error));
                        }
                        request_text(kPath, "Manager", "ControlGroup", [done](const Text& path) {
                          if (const auto* refused = std::get_if<RemoteError>(&path)) {
                            return done(failure("ask systemd for its cgroup", *refused));
                          }
                          const auto& text = std::get<std::string>(path);
                          done(text == "/" ? std::string() : text);
                        });
                      });
}

void Manager::request_text(const std::string& path, const char* interface, const char* property,
                           std::function<void(const Text&)> done) {
  auto call = connection_.new_call(kDestination, path.c_str(), "org.freedesktop.DBus.Properties", "Get");
  call.append(std::string("org.freedesktop.systemd1.") + interface).append(property);
  connection_.request(
      std::move(call),
      [property, done = std::move(done)](Reply reply) {
        if (const auto* error = std::get_if<RemoteError>(&reply)) return done(*error);
        const auto value = std::get<Message>(reply).read_variant();
        const auto* text = value ? value->get_if<std::string>() : nullptr;
        done(text == nullptr ? Text(RemoteError{"", std::string(property) + " is no text"}) : Text(*text));
      },
      {.turn = bus::Turn::kEarly});  // What it is asked about may not be there for long.
}

void Manager::on_lost() {
  matches_.clear();
  systemd_.clear();
  early_results_.clear();
  unsent_limits_.clear();
  for (auto& [path, job] : std::exchange(jobs_, {})) {
    job.done(Error{std::make_error_code(std::errc::connection_aborted), "the bus has gone away"}, loop_.now());
  }
}

// ---- starting ----

void Manager::request_place(const ScopeOrder& scope, const SliceLimits& limits, Done done) {
  start_unit(std::make_shared<Start>(Start{scope, limits, std::move(done), 0}));
}

void Manager::request_scope(const ScopeOrder& scope, Done done) {
  start_unit(std::make_shared<Start>(Start{scope, std::nullopt, std::move(done), 0}));
}

void Manager::start_unit(StartPtr start) {
  std::vector<std::string> units{start->scope.scope};
  if (start->slice_limits) units.push_back(start->scope.slice);
  starting_.insert(units.begin(), units.end());
  start->done = [this, units, done = std::move(start->done)](Result<void> started, const Now& now) {
    for (const std::string& unit : units) starting_.erase(unit);
    done(std::move(started), now);
  };
  // The slice of an earlier run of this id may be on its way out.
  if (start->slice_limits && stopping_.contains(start->scope.slice)) {
    after_stop_[start->scope.slice].push_back(std::move(start));
    return;
  }
  send_start(start);
}

void Manager::send_start(const StartPtr& start) {
  if (!start->scope.process->alive()) {
    // Its pid may be another's by now, and PID 1 would move that one.
    const auto code = start->lost ? std::errc::protocol_error : std::errc::no_such_process;
    return start->done(Error{std::make_error_code(code), "the process has ended"}, loop_.now());
  }
  AW_FAILPOINT("systemd.start-unit");
  auto call = connection_.new_call(kDestination, kPath, kManager, "StartTransientUnit");
  call.append(start->scope.scope).append("fail");
  call.open('a', "(sv)");
  start->by_pidfd = use_pidfds_;
  add_scope(call, start->scope, start->by_pidfd);
  call.close();
  call.open('a', "(sa(sv))");
  if (start->slice_limits) {
    call.open('r', "sa(sv)").append(start->scope.slice).open('a', "(sv)");
    add_limits(call, *start->slice_limits);
    add(call, "Description", unit_description(start->scope.description));
    add(call, "CollectMode", std::string("inactive-or-failed"));
    call.close().close();
  }
  call.close();
  const auto before = [this, start] {
    if (!start->sent) start->sent = loop_.now().monotonic;
    return start->scope.process->alive();  // It may have waited for its turn.
  };
  connection_.request(std::move(call), [this, start](Reply reply) { on_start_reply(start, std::move(reply)); },
                      {kPatience, bus::Turn::kEarly, before});
  AW_FAILPOINT("systemd.start-unit-sent");
}

void Manager::on_start_reply(const StartPtr& start, Reply reply) {
  if (AW_FAILPOINT_ERRNO("systemd.start-unit-reply", ETIMEDOUT) != 0) reply = bus::no_reply();
  if (const auto* error = std::get_if<RemoteError>(&reply)) {
    if (error->name == bus::kWithdrawn) return send_start(start);  // Which says that it has ended.
    // What is left of an earlier run's units goes away by itself: try again in a moment.
    const bool exists = error->name == "org.freedesktop.systemd1.UnitExists" ||
                        error->name == "org.freedesktop.systemd1.TransactionIsDestructive";
    if (exists && start->lost && may_still_come(*start)) return ask_about_started(start);
    if (exists && !start->lost && start->retries < kRetries) return retry_later(start, kRetryPause);
    if (is_away(*error) && may_still_come(*start)) {
      start->lost = true;
      return retry_later(start, kLostPause);
    }
    if (start->by_pidfd && error->name == "org.freedesktop.DBus.Error.PropertyReadOnly") {
      use_pidfds_ = false;  // Others may be on their way by pidfd as well, and come here too.
      return send_start(start);
    }
    Error why = failure("StartTransientUnit", *error);
    if (exists && !start->lost) why.code = std::make_error_code(std::errc::file_exists);
    return start->done(std::move(why), loop_.now());
  }
  auto path = std::get<Message>(reply).read_path();
  if (!path) return start->done(std::move(path).error(), loop_.now());
  wait_for_job(*path, start->done);
}

bool Manager::may_still_come(const Start& start) const { return loop_.now().monotonic - *start.sent < kComesBack; }

/// Its units are there: by the call that went unanswered. Whether the process is in them, whoever asked will see.
void Manager::ask_about_started(const StartPtr& start) {
  auto call = connection_.new_call(kDestination, kPath, kManager, "GetUnit");
  call.append(start->scope.scope);
  connection_.request(std::move(call), [this, start](Reply reply) {
    auto* answer = std::get_if<Message>(&reply);
    const auto path = answer == nullptr ? Result<std::string>(invalid("not there yet")) : answer->read_path();
    if (!path) return retry_later(start, kLostPause);
    request_text(*path, "Unit", "ActiveState", [this, start](const Text& state) {
      const auto* text = std::get_if<std::string>(&state);
      if (text == nullptr || *text != "active") return retry_later(start, kLostPause);
      start->done({}, loop_.now());
    });
  });
}

void Manager::retry_later(const StartPtr& start, Span pause) {
  ++start->retries;
  if (later(pause, [this, start] { send_start(start); })) return;
  const auto code = start->lost ? std::errc::protocol_error : std::errc::not_enough_memory;
  start->done(Error{std::make_error_code(code), "no memory for a timer"}, loop_.now());
}

bool Manager::later(Span pause, std::function<void()> work) {
  auto source = std::make_shared<loop::Source>();
  auto timer = loop_.add_timer(loop::Priority::kBus, "another try", [source, work = std::move(work)](const Now&) {
    const auto keep = work;  // The closure goes with its source.
    source->reset();
    keep();
  });
  if (!timer) return false;
  *source = std::move(*timer);
  loop::Loop::set_timer(*source, loop_.now().monotonic + pause);
  return true;
}

// ---- changing and stopping ----

void Manager::request_limits(const std::string& slice, const SliceLimits& limits, Done done) {
  AW_FAILPOINT("systemd.set-limits");
  auto call = connection_.new_call(kDestination, kPath, kManager, "SetUnitProperties");
  call.append(slice).append(true).open('a', "(sv)");
  add_limits(call, limits);
  call.close();
  // A stop overtakes it; limits that come after it would load the slice again, and last until the next run of that id.
  const auto wanted = std::make_shared<bool>(!stopping_.contains(slice));
  unsent_limits_.emplace(slice, wanted);
  const auto before = [this, wanted] {
    std::erase_if(unsent_limits_, [&](const auto& unsent) { return unsent.second == wanted; });
    return *wanted;
  };
  connection_.request(std::move(call),
                      [this, slice, done = std::move(done)](Reply reply) {
                        if (AW_FAILPOINT_ERRNO("systemd.set-limits-reply", ETIMEDOUT) != 0) reply = bus::no_reply();
                        const auto* error = std::get_if<RemoteError>(&reply);
                        done(error == nullptr ? Result<void>() : failure("set the limits of " + slice, *error),
                             loop_.now());
                      },
                      {.timeout = kPatience, .before = before});
}

void Manager::request_remove(const std::string& slice, Done done) {
  stopping_.insert(slice);
  const auto [first, last] = unsent_limits_.equal_range(slice);
  for (auto unsent = first; unsent != last; ++unsent) *unsent->second = false;
  request_job("StopUnit", slice, loop_.now().monotonic + kComesBack,
              [this, slice, done = std::move(done)](Result<void> stopped, const Now& now) {
                stopping_.erase(slice);
                done(std::move(stopped), now);
                if (auto waiting = after_stop_.extract(slice)) {
                  for (const StartPtr& start : waiting.mapped()) send_start(start);
                }
              });
}

void Manager::request_stop(const std::string& unit, Done done) {
  stopping_.insert(unit);
  request_job("StopUnit", unit, loop_.now().monotonic + kComesBack,
              [this, unit, done = std::move(done)](Result<void> stopped, const Now& now) {
                stopping_.erase(unit);
                done(std::move(stopped), now);
              });
}

void Manager::request_job(const char* method, const std::string& unit, Instant give_up, Done done) {
  AW_FAILPOINT("systemd.stop-unit");
  auto call = connection_.new_call(kDestination, kPath, kManager, method);
  call.append(unit).append("replace");
  connection_.request(std::move(call),
                      [this, method, unit, give_up, done = std::move(done)](Reply reply) {
                        if (AW_FAILPOINT_ERRNO("systemd.stop-unit-reply", ETIMEDOUT) != 0) reply = bus::no_reply();
                        if (const auto* error = std::get_if<RemoteError>(&reply)) {
                          const auto again = [this, method, unit, give_up, done] {
                            request_job(method, unit, give_up, done);
                          };
                          if (is_away(*error) && loop_.now().monotonic < give_up && later(kLostPause, again)) return;
                          const bool gone = error->name == "org.freedesktop.systemd1.NoSuchUnit";
                          return done(gone ? Result<void>() : failure("stop " + unit, *error), loop_.now());
                        }
                        auto path = std::get<Message>(reply).read_path();
                        if (!path) return done(std::move(path).error(), loop_.now());
                        wait_for_job(*path, done);
                      },
                      {.timeout = kPatience, .turn = bus::Turn::kEarly});
}

// ---- what systemd tells ----

void Manager::on_job_removed(Message signal) {
  // u id, o job, s unit, s result
  auto id = signal.read_u32();
  auto job = signal.read_path();
  auto unit = signal.read_string();
  auto result = signal.read_string();
  if (!id || !job || !unit || !result) return;
  if (!jobs_.contains(*job)) {
    // PID 1 answers a call before its job runs, so this is somebody else's job - or ours, if that ever changes.
    if (unit->starts_with("analysis-")) {
      if (early_results_.size() > 1024) early_results_.clear();
      early_results_[*job] = *result;
    }
    return;
  }
  finish_waiting(*job, *result);
}

void Manager::wait_for_job(const std::string& job, Done done) {
  jobs_.emplace(job, Job{std::move(done), loop_.now().monotonic});
  if (jobs_.size() == 1) ask_about_jobs();
  if (const auto early = early_results_.find(job); early != early_results_.end()) {
    const std::string result = early->second;
    finish_waiting(job, result);
  }
}

void Manager::finish_waiting(const std::string& job, const std::string& result) {
  AW_FAILPOINT("systemd.job-removed");
  auto waiting = jobs_.extract(job);
  early_results_.erase(job);
  if (!waiting) return;
  if (result == "done") return waiting.mapped().done({}, loop_.now());
  waiting.mapped().done(
      Error{std::make_error_code(std::errc::operation_canceled), "systemd's job ended as \"" + result + "\""},
      loop_.now());
}

void Manager::ask_about_jobs() {
  const Instant now = loop_.now().monotonic;
  for (auto& [path, job] : jobs_) {
    if (job.asked_about || now - job.since < kJobPause) continue;
    job.asked_about = true;
    request_text(path, "Job", "State", [this, path = path](const Text& state) {
      const auto* error = std::get_if<RemoteError>(&state);
      if (const auto it = jobs_.find(path); it != jobs_.end()) it->second.asked_about = false;
      // Over, and how, nobody tells any more: whoever asked for it looks at what has become of it.
      if (error != nullptr && error->name == "org.freedesktop.DBus.Error.UnknownObject") finish_waiting(path, "done");
    });
  }
  if (jobs_.empty()) return;
  if (!ask_about_jobs_) {
    auto timer = loop_.add_timer(loop::Priority::kBus, "jobs of systemd", [this](const Now&) { ask_about_jobs(); });
    if (!timer) return;  // Asked with the next job, then.
    ask_about_jobs_ = std::move(*timer);
  }
  loop::Loop::set_timer(ask_about_jobs_, now + kJobPause);
}

void Manager::on_job_new(Message signal) {
  AW_FAILPOINT("systemd.job-new");
  // u id, o job, s unit
  auto id = signal.read_u32();
  auto job = signal.read_path();
  auto unit = signal.read_string();
  if (!id || !job || !unit || !unit->starts_with("analysis-")) return;
  if (stopping_.contains(*unit) || starting_.contains(*unit)) return;
  ++jobs_asked_about_;
  request_text(*job, "Job", "JobType", [this, unit = *unit](const Text& type) {
    --jobs_asked_about_;
    on_job_type(unit, type);
  });
}

void Manager::on_job_type(const std::string& unit, const Text& type) {
  if (stopping_.contains(unit)) return;  // The one we have asked for since.
  supervise::ManagerJob job = supervise::ManagerJob::kOver;
  if (const auto* text = std::get_if<std::string>(&type)) {
    if (*text != "stop") return;  // Starting what runs changes nothing.
    job = supervise::ManagerJob::kStop;
  }
  on_job_(unit, job, loop_.now());
}

void Manager::on_unit_removed(Message signal) {
  // s id, o unit
  auto unit = signal.read_string();
  if (!unit || !unit->starts_with("analysis-") || stopping_.contains(*unit) || !on_unit_removed_) return;
  removed_.insert(*unit);
  if (!ask_about_removed_) {
    auto timer = loop_.add_timer(loop::Priority::kBus, "units that systemd unloaded",
                                 [this](const Now&) { ask_about_removed(); });
    if (!timer) return removed_.clear();  // Without memory for a timer: the slice's limits are still looked at.
    ask_about_removed_ = std::move(*timer);
  }
  loop::Loop::set_timer(ask_about_removed_, loop_.now().monotonic + kReloadPause);
}

void Manager::on_unit_new(Message signal) {
  if (auto unit = signal.read_string()) removed_.erase(*unit);
}

void Manager::ask_about_removed() {
  for (const std::string& unit : std::exchange(removed_, {})) {
    if (stopping_.contains(unit) || starting_.contains(unit)) continue;
    auto call = connection_.new_call(kDestination, kPath, kManager, "GetUnit");  // Loads nothing, unlike LoadUnit.
    call.append(unit);
    connection_.request(std::move(call), [this, unit](const Reply& reply) {
      const auto* error = std::get_if<RemoteError>(&reply);
      if (error != nullptr && error->name == "org.freedesktop.systemd1.NoSuchUnit") on_unit_removed_(unit, loop_.now());
    });
  }
}

void Manager::request_units(Units done) { ask_for_units(loop_.now().monotonic + kComesBack, std::move(done)); }

void Manager::ask_for_units(Instant give_up, Units done) {
  auto call = connection_.new_call(kDestination, kPath, kManager, "ListUnitsByPatterns");  // Of those that are loaded.
  call.append(std::vector<std::string>()).append(std::vector<std::string>{"analysis-*"});
  connection_.request(
      std::move(call),
      [this, give_up, done = std::move(done)](Reply reply) {
        if (const auto* error = std::get_if<RemoteError>(&reply)) {
          const auto again = [this, give_up, done] { ask_for_units(give_up, done); };
          if (is_away(*error) && loop_.now().monotonic < give_up && later(kLostPause, again)) return;
          return done(failure("ask systemd for its units", *error), loop_.now());
        }
        done(read_units(std::get<Message>(reply)), loop_.now());
      },
      kPatience);
}

void Manager::request_settled(Done done) {
  connection_.request(connection_.new_call(kDestination, kPath, "org.freedesktop.DBus.Peer", "Ping"),
                      [this, done = std::move(done)](const Reply& reply) {
                        // What it has told may be on its way still.
                        if (const auto* error = std::get_if<RemoteError>(&reply))
                          return done(failure("Ping", *error), loop_.now());
                        // What was told meanwhile may have raised a question: its answer comes before the next one's.
                        if (jobs_asked_about_ > 0) return request_settled(done);
                        done({}, loop_.now());
                      },
                      {.turn = bus::Turn::kEarly});
}

}  // namespace aw::systemd
