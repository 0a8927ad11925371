// SPDX-License-Identifier: Apache-2.0
//
// The D-Bus objects: decode, authorise, ask the supervisor, encode. No decisions. docs/dbus-api.md describes the
// interface; introspection.cc holds it as XML. A unit test compares the page with that, and a story that with what is
// served.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/allowance.h"
#include "api/clients.h"
#include "api/deaf.h"
#include "api/metrics.h"
#include "api/news.h"
#include "api/polkit.h"
#include "api/turns.h"
#include "bus/connection.h"
#include "loop/loop.h"
#include "supervise/event_history.h"
#include "supervise/supervisor.h"

namespace aw::api {

/// How the keeping of records is doing.
struct StoreState {
  bool healthy = true;
  std::uint64_t unshipped = 0;
};

using SeriesDone = std::function<void(Result<std::optional<supervise::SeriesRow>>)>;

class Service {
 public:
  struct Parts {
    bus::Connection& connection;
    loop::Loop& loop;
    supervise::Supervisor& supervisor;
    supervise::Processes& processes;
    const supervise::EventHistory& history;
    std::function<const supervise::Limits&()> defaults;  ///< in force now; a reload may change them
    std::function<StoreState()> store;
    std::function<Vitals()> vitals;
    bool polkit;  ///< there is one to ask: on the system bus
    std::string version;
    /// The curve of a run from the disk, or nothing if there is none; called back from the loop. Without it only live
    /// runs have one.
    std::function<void(const std::string& run_id, SeriesDone done)> find_series = {};
    std::function<void(const std::string& sentence)> warn = [](const std::string&) {};
  };

  Service(Parts parts, Administrators administrators);

  /// Serves the objects, again on a connection that was opened anew. The bus name is taken by whoever starts us, when
  /// all is ready.
  Result<void> start();

  /// Tells those who may see it on the bus of an event, in a moment.
  void on_event(const supervise::EventRecord& event);
  /// What waits to be told is told now: we are about to go.
  void flush() { news_.flush(); }
  /// Every method that is served, as "org.example.Interface.Method".
  static std::vector<std::string> methods();

  /// Something behind the manager's properties has changed: the defaults, the state of the store. Those that differ
  /// from what was announced last are announced, once per wake-up.
  void on_properties_changed();

 private:
  struct Call {
    bus::Message message;
    Client caller;
    Turns::Place place;  ///< of one that is with PID 1

    /// The same call once more, for who answers it later.
    Call share() const { return {bus::Message::share(message.raw()), caller, place}; }
  };
  using Handler = void (Service::*)(Call);
  struct Method {
    const char* interface;
    const char* member;
    const char* signature;
    Pace pace;
    Handler handler;
  };
  static const Method kMethods[];

  void on_stuck();
  void on_clients_known();
  /// Whether whoever calls does not read what they are sent; then that is the answer, if any.
  bool refuse_deaf(const Call& call);
  void on_call(bus::Message message);
  void enqueue(Call call);
  void take_turn();
  void dispatch(Call call);
  const Method* find_method(const bus::Message& message, bool of_manager, std::string& error) const;

  void register_analysis(Call call);
  void register_analysis_by_pidfd(Call call);
  void unregister_analysis(Call call);
  void attach_process(Call call);
  void kill_analysis(Call call);
  void set_limits(Call call);
  void extend_deadline(Call call);
  void get_analysis(Call call);
  void list_analyses(Call call);
  /// What a call that wants all runs has read of them so far.
  struct Survey {
    Call call;
    std::function<void(const Survey&)> answer;
    supervise::RunKey next{};
    std::map<supervise::RunKey, supervise::Usage> read{};
  };
  /// Reads a part of what the caller may see, and the rest in later turns; then answers. A thousand runs are thousands
  /// of files, and nobody's end waits for them.
  void go_on(std::shared_ptr<Survey> survey);
  void answer_from_all(Call call, std::function<void(const Survey&)> answer);
  void list_events(Call call);
  void get_series(Call call);
  void send_series(const Call& call, const std::vector<supervise::Sample>& samples);
  void get_metrics(Call call);
  void introspect(Call call);
  void get_property(Call call);
  void get_all_properties(Call call);
  void set_property(Call call);
  void get_managed_objects(Call call);

  using Opener = std::function<Result<std::unique_ptr<supervise::ProcessHandle>>()>;
  /// `asked`: polkit was, and about this process.
  void do_register(Call call, const std::string& id_text, Opener open, const bus::Dict& options,
                   std::optional<supervise::ProcessKey> asked);
  /// Goes on with `action` if the caller may manage the run of that id, after asking polkit if need be.
  void manage(Call call, const std::string& id_text,
              std::function<void(const AnalysisId&, const supervise::Caller&, const Call&)> action);
  void authorize(Call& call, const char* action, bus::StringMap details, std::function<void(bool)> done);

  void reply(const Call& call);
  void send_error(const bus::Message& call, const std::string& name, const std::string& text);
  void refuse(const Call& call, const Error& error);
  void refuse_unreadable(const Call& call);
  supervise::Done replier(Call call);
  const supervise::Run* find_run_at(const std::string& path) const;
  bus::Dict manager_properties() const;
  /// Each run that the caller may see, with its properties as the next one of `list`.
  void for_each_entry(const Survey& survey, const bus::Message& list,
                      const std::function<void(const supervise::Run&, const bus::Dict&)>& entry) const;
  Result<bus::Dict> properties_of(const Call& call, const std::string& interface) const;
  static void add_interfaces(bus::Message& message, const bus::Dict& properties);

  /// `fill` is called when its turn comes, once for each who hears it.
  void signal_observers(uid_t uid, std::string path, const char* interface, const char* member,
                        std::function<void(bus::Message&)> fill);
  void tell(const supervise::EventRecord& event);
  void tell_untold();
  void announce_object(const supervise::EventRecord& event);
  void announce_counts();

  Parts parts_;
  Clients clients_;
  Polkit polkit_;
  loop::Source turn_;
  Turns turns_;
  Allowance allowance_;
  Deaf deaf_;
  bool was_stuck_ = false;  ///< it is to be found out over whom
  Refusals refusals_;
  News news_;
  Instant last_turn_{};
  bus::Slot served_;
  loop::Source announce_;
  bus::Dict announced_;
  std::deque<supervise::EventRecord> untold_;  ///< as long as it is not known who is on the bus; the newest of them
};

/// The object path of an analysis.
std::string object_path(const AnalysisId& id);

/// Introspection data: of the manager with `children` below it, of the node "analysis", or of an analysis.
std::string introspect_manager(const std::vector<std::string>& children);
std::string introspect_parent(const std::vector<std::string>& children);
std::string introspect_analysis();

}  // namespace aw::api
