// SPDX-License-Identifier: Apache-2.0
#include "api/service.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "analysis_watchdog/names.h"
#include "api/encode.h"
#include "api/options.h"
#include "bus/weight.h"
#include "record/event_dict.h"
#include "supervise/refusal.h"

namespace aw::api {
namespace {

using bus::Dict;
using bus::Message;
using bus::ObjectPath;
using bus::RemoteError;
using bus::Reply;
using bus::Value;
using supervise::Caller;
using supervise::Refusal;
using supervise::Run;

constexpr char kIntrospectable[] = "org.freedesktop.DBus.Introspectable";
constexpr char kProperties[] = "org.freedesktop.DBus.Properties";
constexpr char kObjectManager[] = "org.freedesktop.DBus.ObjectManager";
constexpr char kUnknownMethod[] = "org.freedesktop.DBus.Error.UnknownMethod";
constexpr char kUnknownObject[] = "org.freedesktop.DBus.Error.UnknownObject";
constexpr char kUnknownInterface[] = "org.freedesktop.DBus.Error.UnknownInterface";
constexpr char kUnknownProperty[] = "org.freedesktop.DBus.Error.UnknownProperty";
constexpr char kPropertyReadOnly[] = "org.freedesktop.DBus.Error.PropertyReadOnly";
constexpr char kInvalidArgs[] = "org.freedesktop.DBus.Error.InvalidArgs";
constexpr char kFailed[] = "org.freedesktop.DBus.Error.Failed";
constexpr char kLimitsExceeded[] = "org.freedesktop.DBus.Error.LimitsExceeded";

/// The arguments of a call: three times what the largest options have. What waits for its turn is kept in memory.
constexpr std::size_t kMostArguments = 64UL << 10U;
/// As long as calls come in they are taken off the bus first, because the one that matters may be behind a thousand
/// others; but a turn is taken in between at least so often.
constexpr Span kLongestPause = std::chrono::milliseconds{20};

constexpr std::uint32_t kMaxEvents = 10000;
constexpr std::uint32_t kDefaultEvents = 1000;
/// Beyond this a list of events ends: 1000 with 4 KiB each, which is what the tools ask for at once. What a reader does
/// not read the bus keeps, at our expense.
constexpr std::size_t kFullEvents = 4UL << 20U;
/// Beyond this runs are listed without their texts: 4000 of those have about 10 MiB. dbus-daemon disconnects whoever
/// sends more than 32 MiB over the system bus, and without the bus we are nothing, so Connection::send() refuses what
/// comes near it in any case.
constexpr std::size_t kFullReply = 16UL << 20U;
/// Runs whose files are read in one turn of the loop.
constexpr unsigned kReadPerTurn = 32;

const char* error_name(const Error& error) {
  if (error.code.category() != supervise::refusal_category()) return kFailed;
  switch (static_cast<Refusal>(error.code.value())) {
    case Refusal::kInvalidId:
      return names::error::kInvalidId;
    case Refusal::kInvalidOption:
      return names::error::kInvalidOption;
    case Refusal::kAlreadyRegistered:
      return names::error::kAlreadyRegistered;
    case Refusal::kNoSuchAnalysis:
      return names::error::kNoSuchAnalysis;
    case Refusal::kNoSuchProcess:
      return names::error::kNoSuchProcess;
    case Refusal::kProcessAlreadyRegistered:
      return names::error::kProcessAlreadyRegistered;
    case Refusal::kProtectedProcess:
      return names::error::kProtectedProcess;
    case Refusal::kLimitTooHigh:
      return names::error::kLimitTooHigh;
    case Refusal::kRecordUnavailable:
      return names::error::kRecordUnavailable;
    case Refusal::kTooManyAnalyses:
      return names::error::kTooManyAnalyses;
    case Refusal::kScopeFailed:
      return names::error::kScopeFailed;
    case Refusal::kAccessDenied:
      return names::error::kAccessDenied;
  }
  return kFailed;
}

bool is(const Error& error, Refusal refusal) {
  return error.code == std::error_code(static_cast<int>(refusal), supervise::refusal_category());
}

Result<AnalysisId> parse_id(const std::string& text) {
  auto id = AnalysisId::parse(text);
  if (!id) return supervise::refuse(Refusal::kInvalidId, id.error().message);
  return id;
}

Result<supervise::EventFilter> parse_filter(const Dict& options) {
  supervise::EventFilter filter;
  filter.limit = kDefaultEvents;
  const auto refused = [](const std::string& what) { return supervise::refuse(Refusal::kInvalidOption, what); };
  for (const auto& [name, value] : options) {
    const auto* text = value.get_if<std::string>();
    if (name == "Since" && value.get_if<std::uint64_t>() != nullptr) {
      filter.since = WallTime(from_usec(*value.get_if<std::uint64_t>()));
    } else if (name == "Limit" && value.get_if<std::uint32_t>() != nullptr) {
      filter.limit = std::min(*value.get_if<std::uint32_t>(), kMaxEvents);
    } else if (name == "AnalysisId" && text != nullptr) {
      filter.analysis_id = *text;
    } else if (name == "Reason" && text != nullptr) {
      filter.reason = parse_word<Reason>(kReasonWords, *text);
      if (!filter.reason) return refused("Reason: \"" + *text + "\" is none; see docs/dbus-api.md");
    } else if (name == "Kind" && text != nullptr) {
      filter.kind = parse_word<EventKind>(kEventKindWords, *text);
      if (!filter.kind) return refused("Kind: \"" + *text + "\" is none; see docs/dbus-api.md");
    } else {
      return refused(name + " of type " + bus::signature_of(value) +
                     " is no filter; there are Since t, Limit u, AnalysisId s, Reason s, Kind s");
    }
  }
  return filter;
}

/// Of a descriptor that somebody else keeps.
Result<std::unique_ptr<supervise::ProcessHandle>> adopt_pidfd(supervise::Processes& processes, int pidfd) {
  const int own = ::fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return errno_error("hold the pidfd");
  return processes.adopt(own);
}

/// What is put on record of a run that goes on, each time.
bool makes_event(std::string_view member) {
  return member == "AttachProcess" || member == "SetLimits" || member == "ExtendDeadline" || member == "Set";
}

}  // namespace

std::string object_path(const AnalysisId& id) {
  return std::string(names::kAnalysisPathPrefix) + "/" + escape_for_path(id.text());
}

const Service::Method Service::kMethods[] = {
    {names::kManagerInterface, "RegisterAnalysis", "sua{sv}", Pace::kSlow, &Service::register_analysis},
    {names::kManagerInterface, "RegisterAnalysisByPidfd", "sha{sv}", Pace::kSlow, &Service::register_analysis_by_pidfd},
    {names::kManagerInterface, "UnregisterAnalysis", "s", Pace::kSlow, &Service::unregister_analysis},
    {names::kManagerInterface, "AttachProcess", "su", Pace::kSlow, &Service::attach_process},
    {names::kManagerInterface, "KillAnalysis", "s", Pace::kQuick, &Service::kill_analysis},
    {names::kManagerInterface, "SetLimits", "sa{sv}", Pace::kSlow, &Service::set_limits},
    {names::kManagerInterface, "ExtendDeadline", "st", Pace::kSlow, &Service::extend_deadline},
    {names::kManagerInterface, "GetAnalysis", "s", Pace::kQuick, &Service::get_analysis},
    {names::kManagerInterface, "ListAnalyses", "", Pace::kQuick, &Service::list_analyses},
    {names::kManagerInterface, "ListEvents", "a{sv}", Pace::kQuick, &Service::list_events},
    {names::kManagerInterface, "GetSeries", "s", Pace::kSlow, &Service::get_series},
    {names::kManagerInterface, "GetMetrics", "", Pace::kQuick, &Service::get_metrics},
    {kIntrospectable, "Introspect", "", Pace::kQuick, &Service::introspect},
    {kProperties, "Get", "ss", Pace::kQuick, &Service::get_property},
    {kProperties, "GetAll", "s", Pace::kQuick, &Service::get_all_properties},
    {kProperties, "Set", "ssv", Pace::kSlow, &Service::set_property},
    {kObjectManager, "GetManagedObjects", "", Pace::kQuick, &Service::get_managed_objects},
};

std::vector<std::string> Service::methods() {
  std::vector<std::string> names;
  for (const Method& method : kMethods) names.push_back(std::string(method.interface) + "." + method.member);
  return names;
}

Service::Service(Parts parts, Administrators administrators)
    : parts_(std::move(parts)),
      clients_(parts_.connection, std::move(administrators)),
      polkit_(parts_.connection),
      turns_([this] {
        if (turn_) loop::Loop::schedule(turn_);
      }),
      news_([this](uid_t uid) { return clients_.observers_of(uid, deaf_.uids(parts_.loop.now().monotonic)); }) {
  parts_.connection.on_stuck([this] { on_stuck(); });
}

Result<void> Service::start() {
  clients_.on_ready([this] { on_clients_known(); });
  clients_.on_gone([this](const std::string& client) {
    turns_.drop(client);
    polkit_.on_client_gone(client);
  });
  polkit_.clear();
  turns_.clear();  // Of a bus that has gone.
  news_.clear();
  auto turn = parts_.loop.add_deferred("next call, next news", [this](const Now&) { take_turn(); });
  if (!turn) return std::move(turn).error();
  turn_ = std::move(*turn);
  if (auto started = clients_.start(); !started) return started;
  auto served =
      parts_.connection.serve(names::kManagerPath, [this](const Message& m) { on_call(Message::share(m.raw())); });
  if (!served) return std::move(served).error();
  served_ = std::move(*served);
  auto announce = parts_.loop.add_deferred("announce counts", [this](const Now&) { announce_counts(); });
  if (!announce) return std::move(announce).error();
  announce_ = std::move(*announce);
  announced_ = manager_properties();
  return {};
}

// ---- who does not read ----

void Service::on_stuck() {
  was_stuck_ = true;
  parts_.warn("the bus has not taken anything for seconds; connecting anew");
}

void Service::on_clients_known() {
  tell_untold();
  if (!std::exchange(was_stuck_, false)) return;
  // Of whom the bus waited for: what they had not read then they have not read now.
  clients_.request_unread([this](const Clients::Unread& unread) {
    for (const auto& [uid, bytes] : unread) {
      if (bytes <= Deaf::kMostUnread) continue;
      deaf_.add(uid, parts_.loop.now().monotonic);
      parts_.warn("uid " + std::to_string(uid) + " does not read " + std::to_string(bytes >> 20U) +
                  " MiB that wait for it on the bus; it is refused for a minute, administrators excepted");
    }
  });
}

bool Service::refuse_deaf(const Call& call) {
  const uid_t uid = call.caller.uid;
  if (call.caller.administrator || uid == 0 || !deaf_.contains(uid, parts_.loop.now().monotonic)) return false;
  if (deaf_.take_refusal(uid)) {
    send_error(call.message, kLimitsExceeded,
               "uid " + std::to_string(uid) + " does not read what it is sent; try again in a minute");
  }
  return true;
}

// ---- calls ----

void Service::on_call(Message message) {
  const auto shared = std::make_shared<Message>(std::move(message));
  const bus::Weight weight = bus::weigh(*shared, kMostArguments);
  if (weight == bus::Weight::kTooMuch) {
    return send_error(*shared, kLimitsExceeded,
                      "the arguments of " + shared->member() + " have more than " +
                          std::to_string(kMostArguments >> 10U) + " KiB; no call needs as much");
  }
  clients_.request(shared->sender(), [this, shared, weight](const std::optional<Client>& caller) {
    if (!caller) {
      return send_error(*shared, names::error::kAccessDenied,
                        "the bus does not say who you are, or you call too often to be told apart");
    }
    Call call{Message::share(shared->raw()), *caller, {}};
    if (refuse_deaf(call)) return;
    // Nobody knows how large the rest of it is, so it is not kept; its first argument is what it fails over.
    if (weight == bus::Weight::kUnreadable) return dispatch(std::move(call));
    enqueue(std::move(call));
  });
}

void Service::enqueue(Call call) {
  const std::string member = call.message.member();
  const auto* method = std::find_if(std::begin(kMethods), std::end(kMethods),
                                    [&](const Method& known) { return member == known.member; });
  const Pace pace = method == std::end(kMethods) ? Pace::kQuick : method->pace;
  if (makes_event(member) && !call.caller.administrator && call.caller.uid != 0) {
    if (const auto wait = allowance_.take(call.caller.uid, parts_.loop.now().monotonic)) {
      return send_error(call.message, kLimitsExceeded,
                        "uid " + std::to_string(call.caller.uid) + " changes its analyses more than " +
                            std::to_string(std::chrono::seconds{1} / Allowance::kEach) + " times a second, after " +
                            std::to_string(Allowance::kBurst) + " at once; try again in " +
                            std::to_string(std::chrono::ceil<std::chrono::milliseconds>(*wait).count()) + " ms");
    }
  }
  const auto& bounds = call.caller.administrator ? Turns::kOfAdministrator : Turns::kOfUser;
  const auto shared = std::make_shared<Call>(std::move(call));
  const bool waits =
      turns_.add(shared->caller.uid, bounds, shared->message.sender(), pace, [this, shared](Turns::Place place) {
        shared->place = std::move(place);
        dispatch(std::move(*shared));
      });
  if (!waits) {
    return send_error(shared->message, kLimitsExceeded,
                      "uid " + std::to_string(shared->caller.uid) + " has " + std::to_string(bounds.waiting) +
                          " calls waiting for their turn; wait for the answers to some of them");
  }
  if (parts_.loop.now().monotonic - last_turn_ > kLongestPause) return take_turn();
  loop::Loop::schedule(turn_);
}

void Service::take_turn() {
  last_turn_ = parts_.loop.now().monotonic;
  // What waits here is bounded; what waits to be written would not be.
  const auto room = [this] { return !parts_.connection.is_behind(); };
  if (room()) (void)turns_.take();  // One: what is due, and what else comes in, goes first again after it.
  if (room()) (void)news_.take();
  if (!turns_.ready() && news_.empty()) return;
  if (room()) return loop::Loop::schedule(turn_);
  parts_.connection.request_room([this] { loop::Loop::schedule(turn_); });
}

const Service::Method* Service::find_method(const Message& message, bool of_manager, std::string& error) const {
  const std::string interface = message.interface();
  const std::string member = message.member();
  bool interface_known = false;
  for (const Method& method : kMethods) {
    const bool managers = method.interface == std::string_view(names::kManagerInterface) ||
                          method.interface == std::string_view(kObjectManager);
    if (managers && !of_manager) continue;
    if (!interface.empty() && interface != method.interface) continue;
    interface_known = true;
    if (member == method.member) return &method;
  }
  error = interface_known ? kUnknownMethod : kUnknownInterface;
  return nullptr;
}

void Service::dispatch(Call call) {
  const std::string path = call.message.path();
  const bool of_manager = path == names::kManagerPath;
  const Run* run = find_run_at(path);
  const bool visible = run != nullptr && Clients::may_see(call.caller, run->uid);
  if (!of_manager && !visible && path != names::kAnalysisPathPrefix) {
    return send_error(call.message, kUnknownObject, "no object " + path);
  }
  std::string error;
  const Method* method = find_method(call.message, of_manager, error);
  if (method == nullptr) {
    return send_error(
        call.message, error,
        "no method " + call.message.member() + " on interface " + call.message.interface() + " of " + path);
  }
  if (call.message.signature() != method->signature) {
    return send_error(
        call.message, kInvalidArgs,
        std::string(method->member) + " takes \"" + method->signature + "\", not \"" + call.message.signature() + "\"");
  }
  (this->*method->handler)(std::move(call));
}

void Service::reply(const Call& call) { parts_.connection.send(bus::Connection::new_reply(call.message)); }

void Service::send_error(const Message& call, const std::string& name, const std::string& text) {
  ++refusals_[last_word(name)];  // Names are ours: there is a handful of them.
  parts_.connection.send_error(call, name, text);
}

void Service::refuse(const Call& call, const Error& error) {
  send_error(call.message, error_name(error), error.message);
}

void Service::refuse_unreadable(const Call& call) {
  send_error(call.message, kInvalidArgs,
             "an argument of " + call.message.member() +
                 " cannot be read; text is UTF-8 without noncharacters (U+FFFE and the like)");
}

supervise::Done Service::replier(Call call) {
  const auto shared = std::make_shared<Call>(std::move(call));
  return [this, shared](Result<void> result, const Now&) {
    if (!result) return refuse(*shared, result.error());
    reply(*shared);
  };
}

void Service::authorize(Call& call, const char* action, bus::StringMap details, std::function<void(bool)> done) {
  if (!parts_.polkit) return done(false);
  call.place.reset();  // A person may have to find their password; PID 1 has nothing to do meanwhile.
  const bool interactive = sd_bus_message_get_allow_interactive_authorization(call.message.raw()) > 0;
  polkit_.ask({call.message.sender(), call.caller.uid, action, std::move(details), interactive}, std::move(done));
}

void Service::do_register(Call call, const std::string& id_text, Opener open, const Dict& options,
                          std::optional<supervise::ProcessKey> asked) {
  auto id = parse_id(id_text);
  if (!id) return refuse(call, id.error());
  auto limits = apply_options(parts_.supervisor.allowed_defaults(parts_.defaults(), call.caller), options);
  if (!limits) return refuse(call, limits.error());
  auto process = open();
  if (!process) return refuse(call, process.error());
  const supervise::ProcessKey key = (*process)->key();
  if (asked && *asked != key) {  // What was said yes to is that one, and not who has its pid now.
    return refuse(call, supervise::refuse(Refusal::kNoSuchProcess, "process " + std::to_string(asked->pid) +
                                                                       " ended while polkit was asked about it"));
  }
  const auto shared = std::make_shared<Call>(std::move(call));
  supervise::Registration registration{*id, std::move(*process), std::move(*limits), shared->caller};
  parts_.supervisor.request_register(
      std::move(registration), parts_.loop.now(),
      [this, shared, id = *id, id_text, open, options, asked, key](const Result<supervise::RunKey>& done, const Now&) {
        if (!done && !asked && is(done.error(), Refusal::kAccessDenied)) {
          // Whoever polkit lets may register what is not theirs; looked at anew after the answer.
          bus::StringMap details{{"analysis", id_text}, {"pid", std::to_string(key.pid)}};
          return authorize(*shared, names::kPolkitRegister, std::move(details),
                           [=, this, why = done.error()](bool allowed) {
                             if (!allowed) return refuse(*shared, why);
                             Call again = shared->share();
                             again.caller.administrator = true;
                             do_register(std::move(again), id_text, open, options, key);
                           });
        }
        if (!done) return refuse(*shared, done.error());
        auto message = bus::Connection::new_reply(shared->message);
        message.append(ObjectPath{object_path(id)});
        parts_.connection.send(std::move(message));
      });
}

void Service::register_analysis(Call call) {
  const auto id = call.message.read_string();
  const auto pid = call.message.read_u32();
  const auto options = call.message.read_dict();
  if (!id || !pid) return refuse_unreadable(call);
  if (!options) return refuse(call, supervise::refuse(Refusal::kInvalidOption, options.error().message));
  const auto number = static_cast<pid_t>(std::min<std::uint32_t>(*pid, INT32_MAX));
  do_register(
      std::move(call), *id, [this, number] { return parts_.processes.open(number); }, *options, std::nullopt);
}

void Service::register_analysis_by_pidfd(Call call) {
  const auto id = call.message.read_string();
  auto fd = call.message.read_fd();
  const auto options = call.message.read_dict();
  if (!fd && fd.error().code == std::errc::too_many_files_open) return refuse(call, fd.error());
  if (!id || !fd) return refuse_unreadable(call);
  if (!options) return refuse(call, supervise::refuse(Refusal::kInvalidOption, options.error().message));
  const auto held = std::make_shared<UniqueFd>(std::move(*fd));
  do_register(
      std::move(call), *id, [this, held] { return adopt_pidfd(parts_.processes, held->get()); }, *options,
      std::nullopt);
}

void Service::manage(Call call, const std::string& id_text,
                     std::function<void(const AnalysisId&, const Caller&, const Call&)> action) {
  auto id = parse_id(id_text);
  if (!id) return refuse(call, id.error());
  const Run* run = parts_.supervisor.find(*id);
  if (run == nullptr) {
    return refuse(call, supervise::refuse(Refusal::kNoSuchAnalysis, "no analysis \"" + id_text + "\" is running"));
  }
  if (Clients::may_manage(call.caller, run->uid)) return action(*id, call.caller, call);
  const auto shared = std::make_shared<Call>(std::move(call));
  authorize(
      *shared, names::kPolkitManage, {{"analysis", id_text}},
      [this, shared, id = *id, key = run->key, action = std::move(action)](bool allowed) {
        if (!allowed) {
          return refuse(*shared,
                        supervise::refuse(Refusal::kAccessDenied,
                                          "the analysis \"" + id.text() +
                                              "\" is not yours; its owner, root and the group analysis-admin may"));
        }
        // What was said yes to is that run, and not another one of the same id.
        const Run* now = parts_.supervisor.find(id);
        if (now == nullptr || now->key != key) {
          return refuse(*shared, supervise::refuse(Refusal::kNoSuchAnalysis,
                                                   "the analysis \"" + id.text() + "\" ended while polkit was asked"));
        }
        Caller administrator = shared->caller;
        administrator.administrator = true;
        action(id, administrator, *shared);
      });
}

void Service::unregister_analysis(Call call) {
  const auto id = call.message.read_string();
  if (!id) return refuse_unreadable(call);
  manage(std::move(call), *id, [this](const AnalysisId& which, const Caller& caller, const Call& of) {
    parts_.supervisor.request_unregister(which, caller, parts_.loop.now(), replier(of.share()));
  });
}

void Service::attach_process(Call call) {
  const auto id = call.message.read_string();
  const auto pid = call.message.read_u32();
  if (!id || !pid) return refuse_unreadable(call);
  // Held from here on: whoever has its pid when polkit has answered is not meant.
  const auto process = std::make_shared<Result<std::unique_ptr<supervise::ProcessHandle>>>(
      parts_.processes.open(static_cast<pid_t>(std::min<std::uint32_t>(*pid, INT32_MAX))));
  manage(std::move(call), *id, [this, process](const AnalysisId& which, const Caller&, const Call& of) {
    if (!*process) return refuse(of, process->error());
    // As whoever calls: polkit's yes is about the run, and makes nobody else's process theirs.
    parts_.supervisor.request_attach(which, std::move(**process), of.caller, parts_.loop.now(), replier(of.share()));
  });
}

void Service::kill_analysis(Call call) {
  const auto id = call.message.read_string();
  if (!id) return refuse_unreadable(call);
  manage(std::move(call), *id, [this](const AnalysisId& which, const Caller& caller, const Call& of) {
    const auto done = parts_.supervisor.end(which, caller, parts_.loop.now());
    if (!done) return refuse(of, done.error());
    reply(of);
  });
}

void Service::set_limits(Call call) {
  const auto id = call.message.read_string();
  const auto options = call.message.read_dict();
  if (!id) return refuse_unreadable(call);
  if (!options) return refuse(call, supervise::refuse(Refusal::kInvalidOption, options.error().message));
  manage(
      std::move(call), *id, [this, options = *options](const AnalysisId& which, const Caller& caller, const Call& of) {
        const Run* run = parts_.supervisor.find(which);  // Again: polkit may have taken its time.
        auto limits = run == nullptr
                          ? Result<supervise::Limits>(supervise::refuse(Refusal::kNoSuchAnalysis, "it ended meanwhile"))
                          : apply_options(run->limits, options);
        if (!limits) return refuse(of, limits.error());
        parts_.supervisor.request_set_limits(which, *limits, caller, parts_.loop.now(), replier(of.share()));
      });
}

void Service::extend_deadline(Call call) {
  const auto id = call.message.read_string();
  const auto usec = call.message.read_u64();
  if (!id || !usec) return refuse_unreadable(call);
  manage(std::move(call), *id,
         [this, by = from_usec(*usec)](const AnalysisId& which, const Caller& caller, const Call& of) {
           parts_.supervisor.request_extend(which, by, caller, parts_.loop.now(), replier(of.share()));
         });
}

void Service::get_analysis(Call call) {
  const auto id = call.message.read_string();
  if (!id) return refuse_unreadable(call);
  const auto answer = [this](const AnalysisId& which, const Caller&, const Call& of) {
    auto message = bus::Connection::new_reply(of.message);
    message.append(ObjectPath{object_path(which)});
    parts_.connection.send(std::move(message));
  };
  const auto which = AnalysisId::parse(*id);
  const Run* run = which ? parts_.supervisor.find(*which) : nullptr;
  if (run != nullptr && Clients::may_see(call.caller, run->uid)) return answer(*which, call.caller, call);
  manage(std::move(call), *id, answer);
}

void Service::answer_from_all(Call call, std::function<void(const Survey&)> answer) {
  go_on(std::make_shared<Survey>(Survey{std::move(call), std::move(answer)}));
}

void Service::go_on(std::shared_ptr<Survey> survey) {
  const auto& runs = parts_.supervisor.runs();
  auto at = runs.lower_bound(survey->next);
  for (unsigned left = kReadPerTurn; at != runs.end() && left > 0; ++at) {
    if (!Clients::may_see(survey->call.caller, at->second->uid)) continue;
    survey->read.emplace(at->first, parts_.supervisor.read_usage(*at->second));
    --left;
  }
  if (at == runs.end()) return survey->answer(*survey);
  survey->next = at->first;
  const Call& call = survey->call;
  turns_.go_on(call.caller.uid, call.message.sender(), [this, survey](Turns::Place) { go_on(survey); });
  loop::Loop::schedule(turn_);
}

/// All of them in one turn, because of the signals: what has ended since it was read is not told of once more.
void Service::for_each_entry(const Survey& survey, const Message& list,
                             const std::function<void(const Run&, const Dict&)>& entry) const {
  for (const auto& [key, run] : parts_.supervisor.runs()) {
    if (!Clients::may_see(survey.call.caller, run->uid)) continue;
    const auto read = survey.read.find(key);
    Dict properties = to_dict(*run, read == survey.read.end() ? parts_.supervisor.read_usage(*run) : read->second);
    if (list.size() > kFullReply) {
      std::erase_if(properties, [](const auto& p) { return p.first == "Description" || p.first == "Labels"; });
    }
    entry(*run, properties);
  }
}

void Service::list_analyses(Call call) {
  answer_from_all(std::move(call), [this](const Survey& survey) {
    auto message = bus::Connection::new_reply(survey.call.message);
    message.open('a', "a{sv}");
    for_each_entry(survey, message, [&](const Run&, const Dict& properties) { message.append(properties); });
    message.close();
    parts_.connection.send(std::move(message));
  });
}

void Service::list_events(Call call) {
  const auto options = call.message.read_dict();
  auto filter =
      options ? parse_filter(*options)
              : Result<supervise::EventFilter>(supervise::refuse(Refusal::kInvalidOption, options.error().message));
  if (!filter) return refuse(call, filter.error());
  filter->visible = [&call](const std::optional<std::uint32_t>& uid) {
    // Events of the daemon itself are nobody's secret.
    return uid ? Clients::may_see(call.caller, *uid) : true;
  };
  auto message = bus::Connection::new_reply(call.message);
  message.open('a', "a{sv}");
  parts_.history.visit(*filter, [&message](const supervise::EventRecord& event) {
    message.append(record::to_dict(event));
    return message.size() <= kFullEvents;  // Newest first: what is left out is the oldest.
  });
  message.close();
  parts_.connection.send(std::move(message));
}

void Service::get_series(Call call) {
  const auto run_id = call.message.read_string();
  if (!run_id) return refuse_unreadable(call);
  const auto unknown = supervise::refuse(Refusal::kNoSuchAnalysis, "no run \"" + *run_id + "\" is known");
  const Run* run = parts_.supervisor.find_by_run_id(*run_id);
  if (run != nullptr) {
    if (!Clients::may_see(call.caller, run->uid)) return refuse(call, unknown);
    const supervise::Series* series = parts_.supervisor.sampler().find(run->key);
    // The daemon before us may have kept its beginning.
    const bool all = !parts_.supervisor.sampler().continues(run->key);
    if (all || !parts_.find_series) {
      return send_series(call, series == nullptr ? std::vector<supervise::Sample>() : series->samples());
    }
  }
  if (!parts_.find_series) return refuse(call, unknown);
  const auto shared = std::make_shared<Call>(std::move(call));
  parts_.find_series(
      *run_id, [this, shared, unknown, run_id = *run_id](const Result<std::optional<supervise::SeriesRow>>& found) {
        const std::optional<supervise::SeriesRow> none;
        const auto& kept = found ? *found : none;
        const Run* live = parts_.supervisor.find_by_run_id(run_id);  // It may have ended meanwhile.
        if (live != nullptr && !Clients::may_see(shared->caller, live->uid)) return refuse(*shared, unknown);
        if (kept && !Clients::may_see(shared->caller, kept->uid)) return refuse(*shared, unknown);
        if (live == nullptr && !found) return refuse(*shared, found.error());
        if (live == nullptr && !kept) return refuse(*shared, unknown);
        const supervise::Series* series = live == nullptr ? nullptr : parts_.supervisor.sampler().find(live->key);
        if (series == nullptr) return send_series(*shared, kept ? kept->samples : std::vector<supervise::Sample>());
        supervise::Series joined = *series;
        if (kept && parts_.supervisor.sampler().continues(live->key)) joined.prepend(kept->samples);
        send_series(*shared, joined.samples());
      });
}

void Service::send_series(const Call& call, const std::vector<supervise::Sample>& samples) {
  auto message = bus::Connection::new_reply(call.message);
  message.open('a', "(ttttt)");
  for (const supervise::Sample& sample : samples) {
    message.open('r', "ttttt")
        .append(to_usec(sample.at.time_since_epoch()))
        .append(std::uint64_t{sample.memory.count()})
        .append(std::uint64_t{sample.unreclaimable.count()})
        .append(to_usec(sample.cpu))
        .append(std::uint64_t{sample.processes})
        .close();
  }
  message.close();
  parts_.connection.send(std::move(message));
}

void Service::get_metrics(Call call) {
  auto message = bus::Connection::new_reply(call.message);
  record::append(message, collect_metrics(parts_.supervisor, refusals_, parts_.vitals(),
                                          parts_.history.kills_last_24h(parts_.loop.now().real), turns_.waiting(),
                                          parts_.version));
  parts_.connection.send(std::move(message));
}

// ---- objects and properties ----

const Run* Service::find_run_at(const std::string& path) const {
  const std::string prefix = std::string(names::kAnalysisPathPrefix) + "/";
  if (!path.starts_with(prefix)) return nullptr;
  const auto text = unescape_from_path(path.substr(prefix.size()));
  if (!text) return nullptr;
  const auto id = AnalysisId::parse(*text);
  return id && object_path(*id) == path ? parts_.supervisor.find(*id) : nullptr;
}

Dict Service::manager_properties() const {
  const auto store = parts_.store();
  Dict dict{{"Version", {parts_.version}},
            {"MonitoredCount", {parts_.supervisor.monitored()}},
            {"EndingCount", {parts_.supervisor.ending()}},
            {"KillsLast24h", {parts_.history.kills_last_24h(parts_.loop.now().real)}},
            {"StoreHealthy", {store.healthy}},
            {"UnshippedEvents", {store.unshipped}}};
  for (auto& [name, value] : to_options(parts_.defaults())) {
    if (name != "Description" && name != "Labels") dict.emplace_back("Default" + name, std::move(value));
  }
  return dict;
}

Result<Dict> Service::properties_of(const Call& call, const std::string& interface) const {
  const std::string path = call.message.path();
  if (path == names::kManagerPath) {
    if (interface.empty() || interface == names::kManagerInterface) return manager_properties();
  } else if (const Run* run = find_run_at(path)) {
    if (interface.empty() || interface == names::kAnalysisInterface) {
      return to_dict(*run, parts_.supervisor.read_usage(*run));
    }
  }
  if (interface == kIntrospectable || interface == kProperties || interface == kObjectManager ||
      interface == "org.freedesktop.DBus.Peer") {
    return Dict{};
  }
  return invalid("no interface " + interface + " on " + path);
}

void Service::get_property(Call call) {
  const auto interface = call.message.read_string();
  const auto name = call.message.read_string();
  if (!interface || !name) return refuse_unreadable(call);
  const auto properties = properties_of(call, *interface);
  if (!properties) {
    return send_error(call.message, kUnknownInterface, properties.error().message);
  }
  const Value* value = bus::find(*properties, *name);
  if (value == nullptr) {
    return send_error(call.message, kUnknownProperty, "no property " + *name + " on " + *interface);
  }
  auto message = bus::Connection::new_reply(call.message);
  message.append_variant(*value);
  parts_.connection.send(std::move(message));
}

void Service::get_all_properties(Call call) {
  const auto interface = call.message.read_string();
  if (!interface) return refuse_unreadable(call);
  const auto properties = properties_of(call, *interface);
  if (!properties) {
    return send_error(call.message, kUnknownInterface, properties.error().message);
  }
  auto message = bus::Connection::new_reply(call.message);
  message.append(*properties);
  parts_.connection.send(std::move(message));
}

void Service::set_property(Call call) {
  const auto interface = call.message.read_string();
  const auto name = call.message.read_string();
  if (!interface || !name) return refuse_unreadable(call);
  const auto value = call.message.read_variant();
  const auto properties = properties_of(call, *interface);
  if (!properties) {
    return send_error(call.message, kUnknownInterface, properties.error().message);
  }
  if (bus::find(*properties, *name) == nullptr) {
    return send_error(call.message, kUnknownProperty, "no property " + *name + " on " + *interface);
  }
  const auto& options = option_specs();
  const bool writable = std::any_of(options.begin(), options.end(), [&](const auto& o) { return *name == o.name; });
  const Run* run = find_run_at(call.message.path());
  if (run == nullptr || !writable) {
    return send_error(call.message, kPropertyReadOnly, *name + " is read-only");
  }
  if (!value) return refuse(call, supervise::refuse(Refusal::kInvalidOption, *name + ": " + value.error().message));
  // Who may see it may not therefore change it.
  manage(std::move(call), run->id.text(),
         [this, option = Dict{{*name, *value}}](const AnalysisId& which, const Caller& caller, const Call& of) {
           const Run* now = parts_.supervisor.find(which);  // Again: polkit may have taken its time.
           auto limits =
               now == nullptr
                   ? Result<supervise::Limits>(supervise::refuse(Refusal::kNoSuchAnalysis, "it ended meanwhile"))
                   : apply_options(now->limits, option);
           if (!limits) return refuse(of, limits.error());
           parts_.supervisor.request_set_limits(which, *limits, caller, parts_.loop.now(), replier(of.share()));
         });
}

void Service::introspect(Call call) {
  std::vector<std::string> children;
  for (const auto& [key, run] : parts_.supervisor.runs()) {
    if (Clients::may_see(call.caller, run->uid)) children.push_back(escape_for_path(run->id.text()));
  }
  const std::string path = call.message.path();
  auto message = bus::Connection::new_reply(call.message);
  if (path == names::kManagerPath) {
    message.append(introspect_manager({"analysis"}));
  } else {
    message.append(path == names::kAnalysisPathPrefix ? introspect_parent(children) : introspect_analysis());
  }
  parts_.connection.send(std::move(message));
}

void Service::add_interfaces(Message& message, const Dict& properties) {
  message.open('a', "{sa{sv}}").open('e', "sa{sv}").append(names::kAnalysisInterface).append(properties);
  message.close().close();
}

void Service::get_managed_objects(Call call) {
  answer_from_all(std::move(call), [this](const Survey& survey) {
    auto message = bus::Connection::new_reply(survey.call.message);
    message.open('a', "{oa{sa{sv}}}");
    for_each_entry(survey, message, [&](const Run& run, const Dict& properties) {
      message.open('e', "oa{sa{sv}}").append(ObjectPath{object_path(run.id)});
      add_interfaces(message, properties);
      message.close();
    });
    message.close();
    parts_.connection.send(std::move(message));
  });
}

// ---- signals ----

void Service::signal_observers(uid_t uid, std::string path, const char* interface, const char* member,
                               std::function<void(Message&)> fill) {
  news_.add(uid,
            [this, path = std::move(path), interface, member, fill = std::move(fill)](const std::string& observer) {
              auto message = parts_.connection.new_signal(path.c_str(), interface, member);
              fill(message);
              parts_.connection.send_to(std::move(message), observer);
            });
  if (turn_) loop::Loop::schedule(turn_);
}

void Service::on_event(const supervise::EventRecord& event) {
  constexpr std::size_t kMostUntold = 10'000;
  on_properties_changed();
  if (event.registered_as.empty() || !event.uid) return;
  if (clients_.ready() && untold_.empty()) return tell(event);
  // We have just come to this bus: what is done at the start would be told to nobody.
  if (untold_.size() == kMostUntold) untold_.pop_front();
  untold_.push_back(event);
}

void Service::tell_untold() {
  for (const auto& event : std::exchange(untold_, {})) tell(event);
}

void Service::tell(const supervise::EventRecord& event) {
  const auto signal = [&](const char* member, std::function<void(Message&)> fill) {
    signal_observers(*event.uid, names::kManagerPath, names::kManagerInterface, member, std::move(fill));
  };
  const std::string id = event.registered_as;
  const std::string reason = event.reason ? std::string(to_string(*event.reason)) : "";
  switch (event.kind) {
    case EventKind::kRegistered:
    case EventKind::kAdopted:
      announce_object(event);
      return signal("AnalysisRegistered",
                    [id](Message& m) { m.append(id).append(ObjectPath{object_path(AnalysisId::parse(id).value())}); });
    case EventKind::kEnding: {
      announce_object(event);
      const Run* run = parts_.supervisor.find(AnalysisId::parse(event.registered_as).value());
      const std::uint64_t grace = run == nullptr ? 0 : to_usec(run->limits.grace);
      return signal("AnalysisEnding", [=](Message& m) { m.append(id).append(reason).append(grace); });
    }
    case EventKind::kEnded: {
      announce_object(event);
      const Dict record = record::to_dict(event);
      return signal("AnalysisEnded", [=](Message& m) { m.append(id).append(reason).append(record); });
    }
    case EventKind::kOrphanFound:
      return signal("OrphanFound", [id, pid = event.pid.value_or(0), comm = event.comm](Message& m) {
        m.append(id).append(static_cast<std::uint32_t>(pid)).append(comm);
      });
    case EventKind::kUnregistered:
    case EventKind::kUnkillable:
    case EventKind::kLimitsChanged:
    case EventKind::kLimitsRestored:
    case EventKind::kExtended:
    case EventKind::kEscalated:  // A kernel's kill of one scope of several makes it `ending` without an ending event.
      return announce_object(event);
    case EventKind::kEscaped:
    case EventKind::kUnreaped:
    case EventKind::kDaemonStarted:
    case EventKind::kDaemonStopped:
      return;
  }
}

void Service::announce_object(const supervise::EventRecord& event) {
  const auto parsed = AnalysisId::parse(event.registered_as);
  if (!parsed) return;  // What a damaged ledger has told has no object.
  const AnalysisId& id = *parsed;
  const std::string path = object_path(id);
  if (event.kind == EventKind::kEnded || event.kind == EventKind::kUnregistered) {
    return signal_observers(*event.uid, names::kManagerPath, kObjectManager, "InterfacesRemoved", [path](Message& m) {
      m.append(ObjectPath{path}).append(std::vector<std::string>{names::kAnalysisInterface});
    });
  }
  const Run* run = parts_.supervisor.find(id);
  if (run == nullptr) return;
  if (event.kind == EventKind::kRegistered || event.kind == EventKind::kAdopted) {
    const Dict properties = to_dict(*run, parts_.supervisor.read_usage(*run));
    return signal_observers(*event.uid, names::kManagerPath, kObjectManager, "InterfacesAdded",
                            [path, properties](Message& m) {
                              m.append(ObjectPath{path});
                              add_interfaces(m, properties);
                            });
  }
  Dict changed = to_options(run->limits);
  changed.emplace_back("State", Value{std::string(to_string(run->state()))});
  signal_observers(*event.uid, path, kProperties, "PropertiesChanged", [changed](Message& m) {
    m.append(names::kAnalysisInterface).append(changed).append(std::vector<std::string>{});
  });
}

void Service::on_properties_changed() {
  if (announce_) loop::Loop::schedule(announce_);  // Nobody can be told before start().
}

void Service::announce_counts() {
  // Counts name nobody, so they are for everybody.
  const Dict now = manager_properties();
  Dict changed;
  for (const auto& [name, value] : now) {
    const Value* before = bus::find(announced_, name);
    if (before == nullptr || *before != value) changed.emplace_back(name, value);
  }
  announced_ = now;
  if (changed.empty()) return;
  auto message = parts_.connection.new_signal(names::kManagerPath, kProperties, "PropertiesChanged");
  message.append(names::kManagerInterface).append(changed).append(std::vector<std::string>{});
  parts_.connection.send(std::move(message));
}

}  // namespace aw::api
