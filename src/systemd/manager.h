// SPDX-License-Identifier: Apache-2.0
//
// Conversations with PID 1 (or the user's manager). Everything is asynchronous: PID 1 may be deaf for half a minute
// during a daemon-reload (measured: 27 s with 2,000 scopes), and nobody waits for it on the kill path.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "bus/connection.h"
#include "loop/loop.h"
#include "supervise/ports.h"

namespace aw::systemd {

/// The slice that holds the runs' slices.
inline constexpr char kParentSlice[] = "analysis.slice";

/// `text` as the Description of a unit. systemd writes it into a unit file with nothing but its specifiers escaped, so
/// control characters become spaces, and backslashes at the end, which would swallow the next line, go.
std::string unit_description(std::string_view text);

class Manager final : public supervise::Placer {
 public:
  /// `connection` and `loop` outlive us. `on_job` is told of jobs of our units that somebody else asked for.
  using OnJob = std::function<void(const std::string& unit, supervise::ManagerJob job, const Now&)>;
  /// Told of a unit of ours that systemd has unloaded, and has not loaded again a second later (as it does with all of
  /// them at a daemon-reload).
  using OnUnitRemoved = std::function<void(const std::string& unit, const Now&)>;
  Manager(bus::Connection& connection, loop::Loop& loop, OnJob on_job, OnUnitRemoved on_unit_removed = nullptr);
  ~Manager() override;

  /// Subscribes, and asks where the manager's cgroup is ("" for the root, or the user manager's path). To be called
  /// again whenever the connection was opened anew.
  void request_start(std::function<void(Result<std::string>)> done);
  /// The bus has gone: how the jobs ended that were waited for, nobody will ever tell.
  void on_lost();

  void request_place(const supervise::ScopeOrder& scope, const supervise::SliceLimits& limits,
                     supervise::Done done) override;
  void request_scope(const supervise::ScopeOrder& scope, supervise::Done done) override;
  void request_limits(const std::string& slice, const supervise::SliceLimits& limits, supervise::Done done) override;
  void request_remove(const std::string& slice, supervise::Done done) override;
  void request_stop(const std::string& unit, supervise::Done done) override;
  void request_settled(supervise::Done done) override;
  void request_units(Units done) override;
  const std::string& parent_slice() const override;

 private:
  struct Start;
  using StartPtr = std::shared_ptr<Start>;

  using Text = std::variant<std::string, bus::RemoteError>;
  /// Asks for a property that is a text, of any object; `interface` without "org.freedesktop.systemd1.".
  void request_text(const std::string& path, const char* interface, const char* property,
                    std::function<void(const Text&)> done);
  Result<void> listen();
  /// A handler of signals that somebody else may send in systemd's name.
  bus::OnMessage if_systemds(void (Manager::*handler)(bus::Message));
  void subscribe(std::function<void(Result<std::string>)> done);
  void on_owner_changed(bus::Message signal);
  void start_unit(StartPtr start);
  void send_start(const StartPtr& start);
  void on_start_reply(const StartPtr& start, bus::Reply reply);
  void retry_later(const StartPtr& start, Span pause);
  bool may_still_come(const Start& start) const;
  void ask_about_started(const StartPtr& start);
  void request_job(const char* method, const std::string& unit, Instant give_up, supervise::Done done);
  void ask_for_units(Instant give_up, Units done);
  /// False where there is no memory for a timer.
  bool later(Span pause, std::function<void()> work);
  void on_job_removed(bus::Message signal);
  void on_job_new(bus::Message signal);
  void on_job_type(const std::string& unit, const Text& type);
  void on_unit_removed(bus::Message signal);
  void on_unit_new(bus::Message signal);
  void ask_about_removed();
  /// Finishes `done` when the job has, at once if it was faster than the reply that named it.
  void wait_for_job(const std::string& job, supervise::Done done);
  void finish_waiting(const std::string& job, const std::string& result);
  void ask_about_jobs();

  bus::Connection& connection_;
  loop::Loop& loop_;
  OnJob on_job_;
  OnUnitRemoved on_unit_removed_;
  std::vector<bus::Slot> matches_;
  std::string systemd_;  ///< its unique name on the bus; "" while it has none
  struct Job {
    supervise::Done done;
    Instant since;
    bool asked_about = false;
  };
  std::unordered_map<std::string, Job> jobs_;                   ///< by job path
  loop::Source ask_about_jobs_;                                 ///< when it is asked whether they are there still
  unsigned jobs_asked_about_ = 0;                               ///< jobs of others whose type is not known yet
  bool use_pidfds_ = true;                                      ///< systemd before 254 knows only pids
  std::unordered_map<std::string, std::string> early_results_;  ///< of jobs whose reply we have not read yet
  std::set<std::string> starting_;                              ///< units that we asked to be started
  std::set<std::string> stopping_;                              ///< … and to be stopped
  /// Limits that wait for their turn, by slice: false there when the slice was asked to be stopped since.
  std::multimap<std::string, std::shared_ptr<bool>> unsent_limits_;
  std::set<std::string> removed_;                            ///< units that it has unloaded a moment ago
  loop::Source ask_about_removed_;                           ///< … and when it is asked whether that was all
  std::map<std::string, std::vector<StartPtr>> after_stop_;  ///< waits for the old unit of that name to go
};

}  // namespace aw::systemd
