// SPDX-License-Identifier: Apache-2.0
//
// What lives now, as the daemon tells it: counts, the last events and the live runs. Kept here, so that a thousand
// readers cost the daemon as much as one. Signals tell what comes, changes its state and goes; what is used meanwhile
// is asked for while somebody looks, and confirmed with the daemon before it is shown after a while. A number is never
// older than kFresh, and there is none while the daemon is away or does not answer.
//
//             name has an owner                 first answers are there
//   kAway ────────────────────────▶ kLoading ───────────────────────────▶ kThere
//     ▲                                │  an answer fails or is late         │
//     └────────────────────────────────┴────────────────────────────────────┘  (tried again while the name has an
//     owner)
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "bus/connection.h"
#include "loop/loop.h"
#include "web/rows.h"

namespace aw::web {

/// What those who listen are told. Unset ones are not called.
struct LiveEvents {
  std::function<void()> on_away;
  std::function<void()> on_back;
  std::function<void()> on_status;                       ///< counts or events have changed
  std::function<void(const Event&)> on_event;            ///< oldest first
  std::function<void(const std::vector<Row>&)> on_rows;  ///< those that are new or have changed
  std::function<void(const Row&)> on_gone;
};

class Live {
 public:
  /// Counts and runs that were confirmed no longer ago than this are shown without asking.
  static constexpr Span kFresh = std::chrono::seconds{1};
  /// The daemon answers within this time, or it is away.
  static constexpr Span kPatience = std::chrono::seconds{5};
  /// As many events are remembered; what is older is in the ledger.
  static constexpr std::uint32_t kMostEvents = 5000;

  Live(loop::Loop& loop, bus::BusKind kind, Span patience = kPatience);
  ~Live();
  Live(const Live&) = delete;
  Live& operator=(const Live&) = delete;

  Result<void> start(LiveEvents events);

  /// Calls back when status() is fresh, or it is known that the daemon is away: at once where it can.
  void when_status(std::function<void()> then);
  /// The same of events(): all that the daemon has told of by now.
  void when_events(std::function<void()> then);
  /// The same of rows().
  void when_rows(std::function<void()> then);
  /// While somebody listens, on_rows and on_status come by themselves.
  void listen(bool somebody);

  bool is_there() const { return state_ == State::kThere; }
  const bus::Dict& counts() const { return counts_; }
  const std::deque<SharedEvent>& events() const { return events_; }  ///< newest first, by their time
  /// Whether every event from that moment on is among them.
  bool has_all_since(std::uint64_t usec) const;
  const std::map<std::string, Row>& rows() const { return rows_; }  ///< by run id
  const Row* find_row(const std::string& analysis_id) const;
  /// Changes with what the others return.
  std::uint64_t version() const { return version_; }

  /// Another method of the manager's.
  void request(const char* member, const std::function<void(bus::Message&)>& fill, bus::OnReply done);

 private:
  enum class State { kAway, kLoading, kThere };
  using Waiting = std::vector<std::function<void()>>;
  /// For what was asked for when they came, and not for what others ask for later: where the daemon takes its time,
  /// something is on its way at any moment.
  struct WaitsForStatus {
    std::uint64_t statuses, events;  ///< how many answers there are to have been
    std::function<void()> then;
  };

  void connect();
  Result<void> subscribe();
  void on_owner(const std::string& owner);
  void on_signal(bus::Message signal);
  void on_tick();
  void arm();
  void load();
  void forget();
  void give_up();
  void when_known(bool events_due, std::function<void()> then);
  void fail(const bus::RemoteError& error);
  void settle();
  bus::Message new_call(const char* interface, const char* member);
  void ask_status();
  void ask_events();
  void ask_rows();
  void on_counts(bus::Dict counts);
  void on_events(std::vector<bus::Dict> newest_first);
  void take_rows(std::vector<bus::Dict> runs);
  void add_row(bus::Message signal);
  void put_row(Row row);
  void tell_news();
  void change_row(const std::string& path, const bus::Dict& changed);
  void remove_row(const std::string& path);
  const Row* find_row_at(const std::string& path) const;
  static void wake(Waiting& waiting);
  void wake_for_status();

  loop::Loop& loop_;
  const Span patience_;
  std::unique_ptr<bus::Connection> connection_;
  LiveEvents told_;
  bus::Slot owner_changed_;
  bus::Slot signals_;
  loop::Source tick_;
  loop::Source reconnect_;

  State state_ = State::kLoading;
  std::string owner_;        ///< the daemon's unique name; empty: there is none
  std::uint64_t epoch_ = 0;  ///< answers to questions of an earlier one say nothing any more
  bool somebody_ = false;
  std::uint64_t version_ = 0;

  bus::Dict counts_;
  std::deque<SharedEvent> events_;
  std::set<std::string> event_ids_;
  std::deque<std::string> event_order_;         ///< the same, as they came
  std::uint32_t next_events_ = 0;               ///< so many are asked for next, but
  std::uint32_t events_at_most_ = kMostEvents;  ///< as many as the daemon has told in time
  std::map<std::string, Row> rows_;
  std::map<std::string, std::string> run_of_id_;
  std::set<std::string> news_;  ///< run ids of rows that are new or changed, and not told yet
  Instant news_at_{};

  bool counts_loaded_ = false, events_loaded_ = false, rows_loaded_ = false;
  bool status_asked_ = false, events_asked_ = false, rows_asked_ = false;
  bool events_dirty_ = false, status_dirty_ = false;
  Instant status_at_{}, events_at_{}, rows_at_{};  ///< when what is shown was asked for
  Instant retry_at_ = kNever;
  Span rows_pause_{};  ///< so that a long list does not keep the daemon busy
  std::uint64_t status_answers_ = 0, events_answers_ = 0;
  std::vector<WaitsForStatus> for_status_;
  Waiting for_rows_;
};

}  // namespace aw::web
