// SPDX-License-Identifier: Apache-2.0
//
// Each request from its target to its answer, and the streams. docs/http-api.md describes what comes out.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "loop/loop.h"
#include "record/metrics.h"
#include "web/assets.h"
#include "web/history.h"
#include "web/live.h"
#include "web/open_metrics.h"
#include "web/route.h"
#include "web/server.h"
#include "web/viewer.h"

namespace aw::web {

class Gateway {
 public:
  /// Streams that are open at a time; the rest of the connections is for who only asks.
  static constexpr std::size_t kMostStreams = 1800;
  /// Of those, of readers whom nobody knows: the others find room, whatever these do.
  static constexpr std::size_t kMostAnonymousStreams = kMostStreams * 2 / 3;
  /// … of one uid that sees its own.
  static constexpr std::size_t kMostStreamsOfOne = 64;
  /// Curves that the daemon is asked for at a time; of one uid that sees its own.
  static constexpr std::size_t kMostSeriesAtOnce = 16;
  static constexpr std::size_t kMostSeriesOfOne = 2;
  /// Records that a stream which comes back is told first.
  static constexpr std::size_t kMostMissed = 500;
  static constexpr std::uint32_t kDefaultEvents = 100;
  static constexpr std::uint32_t kMostEventsAtOnce = 5000;
  static constexpr std::uint32_t kMostEventsForAnybody = 500;  ///< of anonymous readers

  struct Parts {
    loop::Loop& loop;
    Live& live;
    History& history;
    Gatekeeper gatekeeper;
    Assets assets;
    std::vector<std::string> allowed_hosts;
    std::size_t analyses_in_metrics = 0;  ///< of which /metrics has series for who sees them; 0: none
    std::function<ServerCounts()> server_counts = {};
    std::size_t most_anonymous_streams = kMostAnonymousStreams;
    std::size_t most_streams_of_one = kMostStreamsOfOne;
  };

  explicit Gateway(Parts parts) : parts_(std::move(parts)) {}

  Result<void> start();
  void on_request(const std::shared_ptr<Exchange>& exchange);
  /// How many are open.
  std::size_t streams() const { return listeners_.size(); }
  /// What a reload may change. Ends all streams.
  void set_readers(Gatekeeper gatekeeper, std::vector<std::string> allowed_hosts);
  void set_analyses_in_metrics(std::size_t most);

 private:
  using Held = std::shared_ptr<Exchange>;
  struct Listener {
    Held exchange;
    Viewer viewer;
    std::string last_seen = {};  ///< the event that it was told last, here or before it came
    bool begun = false;          ///< has been told all that there is
  };
  /// Texts that are the same for many.
  struct Cached {
    std::uint64_t version = UINT64_MAX;
    std::map<std::pair<Sight, uid_t>, Text> texts;
  };
  /// What was found, and whether it may be all: nothing is missing of it because the ledger can't be read.
  struct Found {
    std::vector<SharedEvent> events;
    bool whole = true;
  };
  using OnEvents = std::function<void(Result<Found>)>;

  void serve(const Held& exchange, const Route& route, const Target& target, const Viewer& viewer);
  void serve_file(const Held& exchange, const std::string& name);
  void serve_login(const Held& exchange);
  void serve_events(const Held& exchange, const Target& target, const Viewer& viewer);
  void serve_kills(const Held& exchange, const Target& target, const Viewer& viewer);
  void serve_analysis(const Held& exchange, const std::string& id, const Viewer& viewer);
  void serve_explanation(const Held& exchange, const std::string& id, const std::string& run, const Viewer& viewer);
  void serve_story(const Held& exchange, const std::string& id, const std::string& run, const Viewer& viewer);
  void serve_story_beside_others(const Held& exchange, const std::string& id, const std::string& run, Found of_run,
                                 const Viewer& viewer);
  void serve_series(const Held& exchange, const std::string& id, const std::string& run, const Viewer& viewer);
  /// Asks the daemon for the curve, if few enough are asked for already.
  void ask_series(const Held& exchange, const std::string& run_id, const Viewer& viewer);
  void serve_metrics(const Held& exchange, const Viewer& viewer);
  void ask_metrics();
  void answer_metrics(const Held& exchange, const Viewer& viewer);
  void serve_stream(const Held& exchange, const Viewer& viewer);
  void begin_stream(const Held& exchange, const Viewer& viewer);

  /// Newest first, from what is remembered and, where that does not reach, from the ledger.
  void find_events(ledger::EventQuery query, const Viewer& viewer, OnEvents done);
  /// The kills among the events that are remembered.
  std::vector<ledger::KillCount> remembered_kills(WallTime since) const;
  Text status_text(const Viewer& viewer);
  Text rows_text(const Viewer& viewer);
  Text cached(Cached& cache, const Viewer& viewer, const std::function<std::string()>& make) const;

  void begin_listening(Listener& listener);
  /// What a stream is told of it: one text for all who see the same of it.
  Text record_letter(const Event& event, const Viewer& viewer);
  void tell(const std::function<Text(Listener&)>& text);
  /// The same to all who see the same; "" is nothing.
  void tell_alike(const std::function<std::string(const Viewer&)>& make);
  void tell_rows(const std::vector<Row>& rows);

  Parts parts_;
  std::map<const Exchange*, Listener> listeners_;
  loop::Source heartbeat_;
  Cached status_, answers_, rows_;
  Cached status_letters_, rows_letters_;                  ///< what streams begin with
  std::map<std::string, std::array<Text, 2>> letters_{};  ///< records, by event id; for anonymous readers second
  std::optional<record::Metrics> metrics_;                ///< as of metrics_at_
  std::vector<bus::Dict> analyses_;                       ///< the same of the runs, where those are wanted
  Instant metrics_at_{};
  unsigned metrics_asked_ = 0;  ///< answers that are waited for
  struct MetricsText {
    Instant at;
    Text text;
  };
  /// By form, whether the daemon is there, and whether analyses have series.
  std::map<std::tuple<MetricsFormat, bool, bool>, MetricsText> metrics_texts_;
  std::vector<std::pair<Held, Viewer>> for_metrics_;
  std::vector<Viewer> series_asked_;  ///< who asked for those that are waited for
};

/// An error as every endpoint words it: {"error": "…"}.
Answer error_answer(unsigned status, const std::string& message);

}  // namespace aw::web
