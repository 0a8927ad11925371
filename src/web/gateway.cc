// SPDX-License-Identifier: Apache-2.0
#include "web/gateway.h"

#include <algorithm>
#include <array>
#include <set>

#include "analysis_watchdog/names.h"
#include "base/analysis_id.h"
#include "base/numbers.h"
#include "cli/explain.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/when.h"
#include "record/event_dict.h"
#include "web/open_metrics.h"

namespace aw::web {
namespace {

using bus::Message;
using bus::RemoteError;
using cli::printable;

constexpr std::size_t kRecentEvents = 10;
constexpr std::size_t kEventsOfAnAnalysis = 100;
constexpr std::size_t kEventsOfAStory = 5000;
constexpr std::size_t kEndsBesideAStory = 1000;
constexpr Span kKillsUnlessTold = std::chrono::hours{7 * 24};
constexpr Span kHeartbeat = std::chrono::seconds{15};
constexpr Span kFreshMetrics = std::chrono::seconds{1};

constexpr char kAwayText[] =
    "analysis-watchdogd does not answer, so nothing is known of what runs now; see: systemctl status "
    "analysis-watchdogd";

constexpr char kLoginPage[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Analysis watchdog</title>\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n<main><h1>Analysis watchdog</h1>\n"
    "<form method=\"post\" action=\"/login\"><label>Token <input type=\"password\" name=\"token\" required "
    "autocomplete=\"current-password\"></label> <button>Log in</button></form></main></html>\n";

std::string json_text(const Json& json) { return cli::to_text(json, cli::JsonStyle::kShort); }

Answer json_answer(Text body) { return {200, "application/json", std::move(body), {}}; }
Answer json_answer(std::string body) { return json_answer(make_text(std::move(body))); }
Answer away_answer() { return error_answer(503, kAwayText); }
Answer unauthorized(const std::string& message) {
  Answer answer = error_answer(401, message);
  answer.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"analysis-watchdog\"");
  return answer;
}

/// What names nobody can't be asked for by a name: whether it is there would be told.
Answer names_needed() {
  return unauthorized(
      "who asks for an analysis by its id must be known: send \"Authorization: Bearer TOKEN\", log in at /login, or "
      "use the unix socket");
}

std::string sse(std::string_view event, std::string_view data, std::string_view id = "") {
  std::string text;
  if (!id.empty()) text += "id: " + std::string(id) + "\n";
  text += "event: " + std::string(event) + "\ndata: " + std::string(data) + "\n\n";
  return text;
}

template <class Enum, std::size_t N>
Result<Enum> parse_known(const char* name, const std::array<std::string_view, N>& words, const std::string& word) {
  if (const auto known = parse_word<Enum>(words, word)) return *known;
  std::string all;
  for (const std::string_view known : words) all += (all.empty() ? "" : ", ") + std::string(known);
  return invalid(std::string(name) + ": \"" + printable(word) + "\" is none; there are " + all);
}

Result<ledger::EventQuery> parse_query(const Target& target, WallTime now) {
  ledger::EventQuery query;
  query.limit = Gateway::kDefaultEvents;
  for (const auto& [name, value] : target.query) {
    if (value.empty()) continue;  // A form sends its empty fields, too.
    if (name == "since" || name == "until") {
      const auto when = cli::parse_when(value, now);
      if (!when) return Error(when.error()).within(name);
      (name == "since" ? query.since : query.until) = *when;
    } else if (name == "id") {
      const auto id = AnalysisId::parse(value);
      if (!id) return Error(id.error()).within("id");
      query.analysis_id = value;
    } else if (name == "run") {
      query.run_id = value;
    } else if (name == "reason") {
      const auto reason = parse_known<Reason>("reason", kReasonWords, value);
      if (!reason) return Error(reason.error());
      query.reason = *reason;
    } else if (name == "kind") {
      const auto kind = parse_known<EventKind>("kind", kEventKindWords, value);
      if (!kind) return Error(kind.error());
      query.kind = *kind;
    } else if (name == "limit") {
      const auto limit = parse_number<std::uint32_t>(value);
      if (!limit || *limit > Gateway::kMostEventsAtOnce) {
        return invalid("limit: \"" + printable(value) + "\" is not a number from 0 to " +
                       std::to_string(Gateway::kMostEventsAtOnce));
      }
      query.limit = *limit;
    }
  }
  if (query.run_id && !query.analysis_id) return invalid("run: it is asked for together with id");
  return query;
}

bool is_wanted(const Event& event, const ledger::EventQuery& query) {
  if (query.since && event.occurred_at < to_usec(query.since->time_since_epoch())) return false;
  if (query.until && event.occurred_at > to_usec(query.until->time_since_epoch())) return false;
  if (query.analysis_id && event.analysis_id != *query.analysis_id) return false;
  if (query.run_id && event.run_id != *query.run_id) return false;
  if (query.reason && cli::text_of(event.record, "reason") != to_string(*query.reason)) return false;
  if (query.kind && cli::text_of(event.record, "kind") != to_string(*query.kind)) return false;
  return !query.uid || event.uid.value_or(*query.uid) == *query.uid;
}

std::vector<SharedEvent> merge(std::vector<SharedEvent> newer, std::vector<SharedEvent> older, std::size_t limit) {
  std::set<std::string_view> known;
  for (const SharedEvent& event : newer) known.insert(event->event_id);
  for (SharedEvent& event : older) {
    if (known.insert(event->event_id).second) newer.push_back(std::move(event));
  }
  std::stable_sort(newer.begin(), newer.end(),
                   [](const SharedEvent& a, const SharedEvent& b) { return a->occurred_at > b->occurred_at; });
  if (newer.size() > limit) newer.erase(newer.begin() + static_cast<std::ptrdiff_t>(limit), newer.end());
  return newer;
}

std::string events_text(const std::vector<SharedEvent>& events, const Viewer& viewer) {
  std::vector<const std::string*> texts;
  texts.reserve(events.size());
  for (const SharedEvent& event : events) texts.push_back(&event->text(viewer));
  return join_array(texts);
}

unsigned status_of(const Error& error) {
  const bool passes = error.code == std::errc::timed_out || error.code == std::errc::device_or_resource_busy ||
                      error.code == std::errc::not_connected;
  return passes ? 503 : 500;
}

Answer failure_answer(const Error& error) {
  Answer answer = error_answer(status_of(error), error.message);
  if (answer.status == 503 && error.code != std::errc::not_connected) answer.headers.emplace_back("Retry-After", "2");
  return answer;
}

/// How much of the room for answers may be taken already, in quarters, for one to this reader.
unsigned room_for(const Viewer& viewer) {
  return viewer.sight == Sight::kAll ? 4 : viewer.sight == Sight::kOwn ? 3 : 2;
}

/// Of an answer that would be longer if the ledger could be read.
void say_whole(Answer& answer, bool whole) {
  if (!whole) answer.headers.emplace_back("Analysis-Watchdog-Incomplete", "the ledger can't be read");
}

std::string kind_of(const Event& event) { return cli::text_of(event.record, "kind"); }

}  // namespace

Answer error_answer(unsigned status, const std::string& message) {
  return {status, "application/json", make_text(json_text({{"error", message}})), {}};
}

Result<void> Gateway::start() {
  auto heartbeat = parts_.loop.add_timer(loop::Priority::kBus, "heartbeat", [this](const Now& now) {
    const Text text = make_text(": still here\n\n");
    tell([&](const Listener&) { return text; });
    loop::Loop::set_timer(heartbeat_, add_span(now.monotonic, kHeartbeat));
  });
  if (!heartbeat) return std::move(heartbeat).error();
  heartbeat_ = std::move(*heartbeat);
  LiveEvents events;
  events.on_away = [this] {
    const Text text = make_text(sse("away", "{}"));
    tell([&](const Listener&) { return text; });
    for (auto& [exchange, listener] : listeners_) listener.begun = false;
  };
  events.on_back = [this] {
    const Text text = make_text(sse("back", "{}"));
    tell([&](const Listener&) { return text; });
    for (auto& [exchange, listener] : listeners_) begin_listening(listener);
  };
  events.on_status = [this] {
    tell_alike([this](const Viewer& viewer) { return sse("status", *status_text(viewer)); });
  };
  events.on_event = [this](const Event& event) {
    tell([&](Listener& listener) {
      if (!listener.begun || !is_shown(listener.viewer, event.uid)) return Text();
      listener.last_seen = event.event_id;
      return record_letter(event, listener.viewer);
    });
  };
  events.on_rows = [this](const std::vector<Row>& rows) { tell_rows(rows); };
  events.on_gone = [this](const Row& row) {
    const Text full = make_text(sse("gone", json_text({{"run_id", row.run_id}, {"key", row.key}})));
    const Text anonymous = make_text(sse("gone", json_text({{"key", row.key}})));
    tell([&](const Listener& listener) {
      if (!listener.begun || !is_shown(listener.viewer, row.uid)) return Text();
      return listener.viewer.sight == Sight::kAnonymous ? anonymous : full;
    });
  };
  return parts_.live.start(std::move(events));
}

void Gateway::set_readers(Gatekeeper gatekeeper, std::vector<std::string> allowed_hosts) {
  parts_.gatekeeper = std::move(gatekeeper);
  parts_.allowed_hosts = std::move(allowed_hosts);
  // Who was known may be so no more. Streams are opened again by who reads them, with the right that they have now.
  for (const auto& [of, listener] : listeners_) listener.exchange->end_stream();
}

// ---- requests ----

void Gateway::on_request(const Held& exchange) {
  const Request& request = exchange->request();
  const auto host = parse_host(request.host);
  if (!host) return exchange->answer(error_answer(400, "the Host header is missing, or names no host"));
  if (!is_our_host(*host, parts_.allowed_hosts)) {
    return exchange->answer(
        error_answer(421, "the Host header says \"" + printable(*host) +
                              "\"; localhost, 127.0.0.1 and [::1] are answered, and what AllowedHosts= in [Web] of "
                              "analysis-watchdog.conf(5) names"));
  }
  const auto target = parse_target(request.target);
  if (!target) return exchange->answer(error_answer(400, target.error().message));
  const auto route = find_route(*target);
  if (!route)
    return exchange->answer(error_answer(404, "there is nothing here; analysis-watchdog-web(8) says what there is"));
  if (!is_allowed(route->endpoint, request.method)) {
    const std::string allowed(allowed_methods(route->endpoint));
    Answer answer = error_answer(405, printable(request.method) + " is not done here; " + allowed + " are");
    answer.headers.emplace_back("Allow", allowed);
    return exchange->answer(std::move(answer));
  }
  if (const auto checked = check_parameters(*route, *target); !checked) {
    return exchange->answer(error_answer(400, Error(checked.error()).message));
  }
  if (route->endpoint == Endpoint::kFile) return serve_file(exchange, route->name);
  if (route->endpoint == Endpoint::kLogin || route->endpoint == Endpoint::kLogout) return serve_login(exchange);
  const auto viewer = parts_.gatekeeper.judge(request.peer, request.authorization, request.cookie);
  if (!viewer) return exchange->answer(unauthorized(viewer.error().message));
  // Health is no news, and is asked for by who can't log in.
  if (request.further_out && viewer->sight == Sight::kAnonymous && route->endpoint != Endpoint::kHealth) {
    return exchange->answer(unauthorized(
        parts_.gatekeeper.has_token()
            ? "this gateway listens further out than this host, so it answers only who is known: send \"Authorization: "
              "Bearer TOKEN\", or log in at /login"
            : "this gateway listens further out than this host, so it answers only who is known, and it has no token "
              "to "
              "be known by: give it one (analysis-watchdog-web(8)), or let it listen at 127.0.0.1"));
  }
  if (!route->name.empty() || route->by_parameter) {
    if (viewer->sight == Sight::kAnonymous) return exchange->answer(names_needed());
    if (const auto id = AnalysisId::parse(route->name); !id) {
      return exchange->answer(error_answer(400, Error(id.error()).message));
    }
  }
  serve(exchange, *route, *target, *viewer);
}

void Gateway::serve(const Held& exchange, const Route& route, const Target& target, const Viewer& viewer) {
  switch (route.endpoint) {
    case Endpoint::kStatus:
      return parts_.live.when_status([this, exchange, viewer] {
        Answer answer =
            json_answer(cached(answers_, viewer, [&] { return "{\"watchdog\":" + *status_text(viewer) + "}"; }));
        if (!parts_.live.is_there()) answer.status = 503;
        exchange->answer(std::move(answer));
      });
    case Endpoint::kAnalyses:
      return parts_.live.when_rows([this, exchange, viewer] {
        exchange->answer(parts_.live.is_there() ? json_answer(rows_text(viewer)) : away_answer());
      });
    case Endpoint::kAnalysis:
      return serve_analysis(exchange, route.name, viewer);
    case Endpoint::kExplain:
      return serve_explanation(exchange, route.name, parameter(target, "run"), viewer);
    case Endpoint::kSeries:
      return serve_series(exchange, route.name, parameter(target, "run"), viewer);
    case Endpoint::kEvents:
      return serve_events(exchange, target, viewer);
    case Endpoint::kKills:
      return serve_kills(exchange, target, viewer);
    case Endpoint::kStream:
      return serve_stream(exchange, viewer);
    case Endpoint::kViewer:
      return parts_.live.when_status([this, exchange, viewer] {
        if (!parts_.live.is_there()) return exchange->answer(away_answer());
        Json json{{"sight", viewer.sight == Sight::kAll   ? "all"
                            : viewer.sight == Sight::kOwn ? "own"
                                                          : "anonymous"},
                  {"login", parts_.gatekeeper.has_token()}};
        if (viewer.sight == Sight::kOwn) json["uid"] = viewer.uid;
        exchange->answer(json_answer(json_text(json)));
      });
    case Endpoint::kMetrics:
      return serve_metrics(exchange, viewer);
    case Endpoint::kHealth:
      return parts_.live.when_status([this, exchange] {
        exchange->answer(parts_.live.is_there() ? json_answer(R"({"status":"ok"})") : away_answer());
      });
    case Endpoint::kLogin:
    case Endpoint::kLogout:
    case Endpoint::kFile:
      return;
  }
}

void Gateway::serve_file(const Held& exchange, const std::string& name) {
  const Asset* asset = parts_.assets.find(name);
  if (asset == nullptr) return exchange->answer(error_answer(404, "there is no such file"));
  exchange->answer({200, asset->type, asset->content, {{"Cache-Control", "no-cache"}}});
}

void Gateway::serve_login(const Held& exchange) {
  const Request& request = exchange->request();
  const auto target = parse_target(request.target);
  const bool login = target && find_route(*target)->endpoint == Endpoint::kLogin;
  const std::string attributes = "; Path=/; HttpOnly; SameSite=Strict";
  if (request.method != "POST") {
    const Asset* page = parts_.assets.find("login.html");
    return exchange->answer({200,
                             "text/html; charset=utf-8",
                             page == nullptr ? make_text(kLoginPage) : page->content,
                             {{"Cache-Control", "no-cache"}}});
  }
  // SameSite keeps the cookie from other sites; this keeps them from giving a browser one, or taking it away.
  if (!request.fetch_site.empty() && request.fetch_site != "same-origin" && request.fetch_site != "none") {
    return exchange->answer(error_answer(403, "a form of another site does not log in here"));
  }
  if (!login) {
    return exchange->answer(
        {303,
         "",
         make_text(""),
         {{"Location", "/"}, {"Set-Cookie", std::string(kSessionCookie) + "=" + attributes + "; Max-Age=0"}}});
  }
  if (!request.content_type.starts_with("application/x-www-form-urlencoded")) {
    return exchange->answer(error_answer(415, "a login is a form: application/x-www-form-urlencoded with token="));
  }
  const auto token = find_form_value(request.body, "token");
  if (!token || !parts_.gatekeeper.is_token(*token)) {
    return exchange->answer(unauthorized(parts_.gatekeeper.has_token()
                                             ? "the token is not the right one"
                                             : "this gateway has no token; TokenFile= in [Web] of "
                                               "analysis-watchdog.conf(5)"));
  }
  exchange->answer({303,
                    "",
                    make_text(""),
                    {{"Location", "/"},
                     {"Set-Cookie", std::string(kSessionCookie) + "=" + parts_.gatekeeper.session() + attributes +
                                        "; Max-Age=2592000"}}});
}

// ---- texts ----

Text Gateway::cached(Cached& cache, const Viewer& viewer, const std::function<std::string()>& make) const {
  constexpr std::size_t kMost = 64;  // There may be as many viewers as the host has uids.
  if (std::exchange(cache.version, parts_.live.version()) != parts_.live.version() || cache.texts.size() > kMost) {
    cache.texts.clear();
  }
  Text& text = cache.texts[{viewer.sight, viewer.uid}];
  if (!text) text = make_text(make());
  return text;
}

Text Gateway::status_text(const Viewer& viewer) {
  return cached(status_, viewer, [&] {
    if (!parts_.live.is_there()) return status_json(nullptr, {});
    std::vector<const std::string*> recent;
    for (const SharedEvent& event : parts_.live.events()) {
      if (recent.size() == kRecentEvents) break;
      if (is_shown(viewer, event->uid)) recent.push_back(&event->text(viewer));
    }
    return status_json(&parts_.live.counts(), recent);
  });
}

Text Gateway::rows_text(const Viewer& viewer) {
  return cached(rows_, viewer, [&] {
    std::vector<const std::string*> texts;
    for (const auto& [run_id, row] : parts_.live.rows()) {
      if (is_shown(viewer, row.uid)) texts.push_back(&row.text(viewer));
    }
    return join_array(texts);
  });
}

// ---- events ----

void Gateway::find_events(ledger::EventQuery query, const Viewer& viewer, OnEvents done) {
  if (viewer.sight == Sight::kOwn) query.uid = viewer.uid;
  parts_.live.when_events([this, viewer, query = std::move(query), done = std::move(done)]() mutable {
    if (!parts_.live.is_there()) {
      return done(Error{std::make_error_code(std::errc::not_connected), kAwayText});
    }
    std::vector<SharedEvent> remembered;
    for (const SharedEvent& event : parts_.live.events()) {
      if (remembered.size() >= query.limit) break;
      if (is_wanted(*event, query)) remembered.push_back(event);
    }
    const bool all = query.since && parts_.live.has_all_since(to_usec(query.since->time_since_epoch()));
    if (all || remembered.size() >= query.limit) return done(Found{std::move(remembered)});
    const std::size_t limit = query.limit;
    parts_.history.request(viewer, std::move(query),
                           [remembered = std::move(remembered), limit, done = std::move(done)](History::Events stored) {
                             if (stored) return done(Found{merge(remembered, *std::move(stored), limit)});
                             // Without a ledger that can be read there is what the daemon remembers.
                             if (status_of(stored.error()) == 503) return done(std::move(stored).error());
                             done(Found{remembered, false});
                           });
  });
}

void Gateway::serve_events(const Held& exchange, const Target& target, const Viewer& viewer) {
  auto query = parse_query(target, parts_.loop.now().real);
  if (!query) return exchange->answer(error_answer(400, query.error().message));
  if (query->analysis_id && viewer.sight == Sight::kAnonymous) return exchange->answer(names_needed());
  if (query->limit > kMostEventsForAnybody && viewer.sight == Sight::kAnonymous) {
    return exchange->answer(
        error_answer(400, "limit: who is not known is told " + std::to_string(kMostEventsForAnybody) +
                              " at most; send \"Authorization: Bearer TOKEN\", log in at /login, or "
                              "use the unix socket"));
  }
  find_events(*std::move(query), viewer, [exchange, viewer](Result<Found> found) {
    if (!found) return exchange->answer(failure_answer(found.error()));
    Answer answer = json_answer(events_text(found->events, viewer));
    answer.room = room_for(viewer);
    say_whole(answer, found->whole);
    exchange->answer(std::move(answer));
  });
}

std::vector<ledger::KillCount> Gateway::remembered_kills(WallTime since) const {
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts;
  for (const SharedEvent& event : parts_.live.events()) {
    const std::string reason = cli::text_of(event->record, "reason");
    if (event->occurred_at < to_usec(since.time_since_epoch())) break;
    if (kind_of(*event) != to_string(EventKind::kEnded) || reason.empty()) continue;
    if (reason == to_string(Reason::kExited)) continue;
    constexpr std::uint64_t kQuarter = 900'000'000;
    const WallTime quarter(from_usec(event->occurred_at / kQuarter * kQuarter));
    ++counts[{format_iso8601(quarter).substr(0, std::size("2026-11-03T14:15:00") - 1) + "Z", reason}];
  }
  std::vector<ledger::KillCount> kills;
  kills.reserve(counts.size());
  for (const auto& [of, count] : counts) kills.push_back({of.first, of.second, count});
  return kills;
}

void Gateway::serve_kills(const Held& exchange, const Target& target, const Viewer& viewer) {
  const WallTime now = parts_.loop.now().real;
  const std::string text = parameter(target, "since");
  const auto since = text.empty() ? Result<WallTime>(now - kKillsUnlessTold) : cli::parse_when(text, now);
  if (!since) return exchange->answer(error_answer(400, Error(since.error()).within("since").message));
  // Numbers that name nobody: everybody may see them.
  parts_.live.when_status([this, exchange, viewer, since = *since, now] {
    if (!parts_.live.is_there()) return exchange->answer(away_answer());
    parts_.history.request_kills(viewer, since, [this, exchange, since, now](History::Kills stored) {
      if (!stored && status_of(stored.error()) == 503) {
        return exchange->answer(failure_answer(stored.error()));
      }
      // Without a ledger that can be read there is what the daemon remembers.
      const auto kills = stored ? *stored : remembered_kills(since);
      Json counts = Json::array();
      for (const ledger::KillCount& kill : kills) {
        counts.push_back({{"at", kill.at}, {"reason", kill.reason}, {"count", kill.count}});
      }
      Answer answer = json_answer(
          json_text({{"since", format_iso8601(since)}, {"as_of", format_iso8601(now)}, {"counts", std::move(counts)}}));
      say_whole(answer, stored.has_value());
      exchange->answer(std::move(answer));
    });
  });
}

void Gateway::serve_analysis(const Held& exchange, const std::string& id, const Viewer& viewer) {
  parts_.live.when_rows([this, exchange, id, viewer] {
    if (!parts_.live.is_there()) return exchange->answer(away_answer());
    find_events(
        {.analysis_id = id, .limit = kEventsOfAnAnalysis}, viewer, [this, exchange, id, viewer](Result<Found> found) {
          if (!found) return exchange->answer(failure_answer(found.error()));
          const auto& events = found->events;
          std::string object;
          const Row* row = parts_.live.find_row(id);
          if (row != nullptr && viewer.may_see(row->uid)) {
            object = row->full;
          } else if (!events.empty()) {
            const auto last = std::find_if(events.begin(), events.end(), [](const SharedEvent& event) {
              const std::string kind = kind_of(*event);
              return kind == to_string(EventKind::kEnded) || kind == to_string(EventKind::kUnregistered);
            });
            const Event& event = last == events.end() ? *events.front() : **last;
            const bool unregistered = kind_of(event) == to_string(EventKind::kUnregistered);
            object =
                std::string("{\"state\":\"") + (unregistered ? "unregistered" : "ended") + "\"," + event.full.substr(1);
          } else {
            return exchange->answer(error_answer(404, "no analysis \"" + printable(id) + "\" is running or on record"));
          }
          object.pop_back();
          Answer answer = json_answer(object + ",\"events\":" + events_text(events, viewer) + "}");
          answer.room = room_for(viewer);
          say_whole(answer, found->whole);
          exchange->answer(std::move(answer));
        });
  });
}

void Gateway::serve_explanation(const Held& exchange, const std::string& id, const std::string& run,
                                const Viewer& viewer) {
  if (!run.empty()) return serve_story(exchange, id, run, viewer);
  find_events({.analysis_id = id, .limit = kEventsOfAnAnalysis}, viewer,
              [this, exchange, id, viewer](Result<Found> found) {
                if (!found) return exchange->answer(failure_answer(found.error()));
                for (const SharedEvent& event : found->events) {
                  const std::string last = cli::text_of(event->record, "run_id");
                  if (!last.empty()) return serve_story(exchange, id, last, viewer);
                }
                exchange->answer(error_answer(404, "no run of \"" + printable(id) + "\" is on record"));
              });
}

void Gateway::serve_story(const Held& exchange, const std::string& id, const std::string& run, const Viewer& viewer) {
  // All of that run, however many came after it; and what became of the others, which tells how far off a limit is.
  find_events({.analysis_id = id, .run_id = run, .limit = kEventsOfAStory}, viewer,
              [this, exchange, id, run, viewer](Result<Found> found) {
                if (!found) return exchange->answer(failure_answer(found.error()));
                if (found->events.empty()) {
                  return exchange->answer(error_answer(404, "no such run of \"" + printable(id) + "\" is on record"));
                }
                serve_story_beside_others(exchange, id, run, *std::move(found), viewer);
              });
}

void Gateway::serve_story_beside_others(const Held& exchange, const std::string& id, const std::string& run,
                                        Found of_run, const Viewer& viewer) {
  find_events({.analysis_id = id, .kind = EventKind::kEnded, .limit = kEndsBesideAStory}, viewer,
              [exchange, run, of_run = std::move(of_run)](Result<Found> found) {
                if (!found) return exchange->answer(failure_answer(found.error()));
                std::vector<bus::Dict> records;
                for (const SharedEvent& event : merge(of_run.events, std::move(found->events), SIZE_MAX)) {
                  records.push_back(event->record);
                }
                const auto story = cli::find_story(records, run);
                Answer answer = json_answer(json_text({{"text", cli::explain_text(*story)}}));
                say_whole(answer, of_run.whole && found->whole);
                exchange->answer(std::move(answer));
              });
}

void Gateway::ask_series(const Held& exchange, const std::string& run_id, const Viewer& viewer) {
  const bool own = viewer.sight == Sight::kOwn;
  const auto of_them = std::count(series_asked_.begin(), series_asked_.end(), viewer);
  if (series_asked_.size() >= kMostSeriesAtOnce || (own && of_them >= static_cast<std::ptrdiff_t>(kMostSeriesOfOne))) {
    Answer answer = error_answer(503, "too many curves are being read; try again in a second");
    answer.headers.emplace_back("Retry-After", "1");
    return exchange->answer(std::move(answer));
  }
  series_asked_.push_back(viewer);
  parts_.live.request(
      "GetSeries", [&](Message& m) { m.append(run_id); },
      [this, exchange, run_id, viewer](bus::Reply reply) {
        series_asked_.erase(std::find(series_asked_.begin(), series_asked_.end(), viewer));
        if (const auto* error = std::get_if<RemoteError>(&reply)) {
          const bool none = error->name == names::error::kNoSuchAnalysis;
          const bool unknown = error->name == "org.freedesktop.DBus.Error.UnknownMethod";
          return exchange->answer(error_answer(none ? 404 : unknown ? 501 : 503, error->message));
        }
        auto& message = std::get<Message>(reply);
        std::string rows = "[";
        if (!message.enter('a', "(ttttt)")) return exchange->answer(error_answer(502, "GetSeries gave no series"));
        while (!message.at_end()) {
          if (!message.enter('r', "ttttt")) return exchange->answer(error_answer(502, "GetSeries gave no series"));
          rows += rows.size() > 1 ? ",[" : "[";
          for (int i = 0; i < 5; ++i) {
            const auto number = message.read_u64();
            rows += (i > 0 ? "," : "") + (number && *number != UINT64_MAX ? std::to_string(*number) : "null");
          }
          rows += "]";
          if (!message.leave()) break;
        }
        exchange->answer(json_answer(
            "{\"run_id\":" + json_text(run_id) +
            R"(,"columns":["at_usec","memory_bytes","memory_unreclaimable_bytes","cpu_usec","processes"],"rows":)" +
            rows + "]}"));
      });
}

void Gateway::serve_series(const Held& exchange, const std::string& id, const std::string& run, const Viewer& viewer) {
  parts_.live.when_rows([this, exchange, id, run, viewer] {
    if (!parts_.live.is_there()) return exchange->answer(away_answer());
    const Row* row = parts_.live.find_row(id);
    if (row != nullptr && viewer.may_see(row->uid) && (run.empty() || run == row->run_id)) {
      return ask_series(exchange, row->run_id, viewer);
    }
    ledger::EventQuery query{.analysis_id = id, .limit = 1};
    if (!run.empty()) query.run_id = run;
    find_events(std::move(query), viewer, [this, exchange, id, viewer](Result<Found> found) {
      if (!found) return exchange->answer(failure_answer(found.error()));
      if (found->events.empty()) {
        return exchange->answer(error_answer(404, "no such run of \"" + printable(id) + "\" is on record"));
      }
      ask_series(exchange, found->events.front()->run_id, viewer);
    });
  });
}

// ---- metrics ----

void Gateway::serve_metrics(const Held& exchange, const Viewer& viewer) {
  parts_.live.when_status([this, exchange, viewer] {
    const bool fresh = metrics_ && parts_.loop.now().monotonic < add_span(metrics_at_, kFreshMetrics);
    if (!parts_.live.is_there() || fresh) return answer_metrics(exchange, viewer);
    for_metrics_.emplace_back(exchange, viewer);
    if (metrics_asked_ == 0) ask_metrics();
  });
}

/// Of the daemon, once for all scrapers.
void Gateway::ask_metrics() {
  metrics_.reset();
  analyses_.clear();
  const auto ask = [this](const char* member, std::function<void(Message&)> take) {
    ++metrics_asked_;
    parts_.live.request(
        member, [](Message&) {},
        [this, take = std::move(take)](bus::Reply reply) {
          if (auto* message = std::get_if<Message>(&reply)) take(*message);
          if (--metrics_asked_ > 0) return;
          metrics_at_ = parts_.loop.now().monotonic;
          for (const auto& [exchange, viewer] : std::exchange(for_metrics_, {})) answer_metrics(exchange, viewer);
        });
  };
  ask("GetMetrics", [this](Message& message) {
    if (auto metrics = record::read_metrics(message)) metrics_ = *std::move(metrics);
  });
  if (parts_.analyses_in_metrics == 0) return;
  ask("ListAnalyses", [this](Message& message) {
    if (auto analyses = message.read_dicts()) analyses_ = *std::move(analyses);
  });
}

void Gateway::answer_metrics(const Held& exchange, const Viewer& viewer) {
  const MetricsFormat format = format_for(exchange->request().accept);
  const bool there = parts_.live.is_there() && metrics_;  // What it did not answer, it is away for.
  // Who sees some of them would take the rest for absent.
  const bool series = viewer.sight == Sight::kAll && parts_.analyses_in_metrics > 0;
  const Instant now = parts_.loop.now().monotonic;
  MetricsText& known = metrics_texts_[{format, there, series}];
  if (!known.text || known.at < metrics_at_ || now >= add_span(known.at, kFreshMetrics)) {
    MetricsPage page;
    if (there) page.daemon = metrics_;
    if (series) page.analyses = analyses_;
    page.most_analyses = parts_.analyses_in_metrics;
    const ServerCounts counts = parts_.server_counts ? parts_.server_counts() : ServerCounts{};
    page.gateway = gateway_metrics({counts.answers, counts.connections, listeners_.size()});
    known = {now, make_text(to_text(page, format))};
  }
  exchange->answer({200, content_type(format), known.text, {{"Vary", "Accept"}}});
}

void Gateway::set_analyses_in_metrics(std::size_t most) {
  parts_.analyses_in_metrics = most;
  if (metrics_asked_ == 0) metrics_.reset();
  metrics_texts_.clear();
}

// ---- streams ----

void Gateway::serve_stream(const Held& exchange, const Viewer& viewer) {
  parts_.live.when_rows([this, exchange, viewer] {
    if (!exchange->is_open()) return;
    if (!parts_.live.is_there()) return exchange->answer(away_answer());
    begin_stream(exchange, viewer);
  });
}

void Gateway::begin_stream(const Held& exchange, const Viewer& viewer) {
  Answer head{200, "text/event-stream", nullptr, {{"X-Accel-Buffering", "no"}}};
  if (exchange->request().method == "HEAD") return exchange->answer(std::move(head));
  const auto alike = static_cast<std::size_t>(
      std::count_if(listeners_.begin(), listeners_.end(), [&](const auto& of) { return of.second.viewer == viewer; }));
  const std::size_t most = viewer.sight == Sight::kAll   ? kMostStreams
                           : viewer.sight == Sight::kOwn ? parts_.most_streams_of_one
                                                         : parts_.most_anonymous_streams;
  if (alike >= most || listeners_.size() >= kMostStreams) {
    const char* whose = alike < most || viewer.sight == Sight::kAll ? ""
                        : viewer.sight == Sight::kOwn               ? " of this user"
                                                                    : " of readers who are not known";
    Answer answer = error_answer(
        503, std::to_string(alike < most ? listeners_.size() : alike) + " streams" + whose + " are open already");
    answer.headers.emplace_back("Retry-After", "10");
    return exchange->answer(std::move(answer));
  }
  exchange->begin_stream(std::move(head), [this, of = exchange.get()] {
    listeners_.erase(of);
    if (listeners_.empty()) {
      parts_.live.listen(false);
      loop::Loop::set_timer(heartbeat_, kNever);
    }
  });
  if (listeners_.empty()) {
    loop::Loop::set_timer(heartbeat_, add_span(parts_.loop.now().monotonic, kHeartbeat));
  }
  Listener& listener = listeners_[exchange.get()];
  listener = {exchange, viewer, exchange->request().last_event_id, false};
  exchange->send(make_text("retry: 2000\n\n"));
  begin_listening(listener);
  parts_.live.listen(true);
}

void Gateway::begin_listening(Listener& listener) {
  listener.begun = true;
  // What was missed since the last one that it has seen, if that is remembered.
  const auto& events = parts_.live.events();
  const auto seen = std::find_if(events.begin(), events.end(),
                                 [&](const SharedEvent& event) { return event->event_id == listener.last_seen; });
  std::vector<Text> texts;
  if (seen != events.end()) {
    for (auto event = events.begin(); event != seen && texts.size() < kMostMissed; ++event) {
      if (is_shown(listener.viewer, (*event)->uid)) texts.push_back(record_letter(**event, listener.viewer));
    }
    std::reverse(texts.begin(), texts.end());
  }
  if (!events.empty()) listener.last_seen = events.front()->event_id;
  const Viewer& viewer = listener.viewer;
  texts.push_back(cached(status_letters_, viewer, [&] { return sse("status", *status_text(viewer)); }));
  texts.push_back(cached(rows_letters_, viewer, [&] { return sse("analyses", *rows_text(viewer)); }));
  listener.exchange->send_beginning(texts);
}

Text Gateway::record_letter(const Event& event, const Viewer& viewer) {
  if (letters_.size() > 2 * kMostMissed) letters_.clear();
  Text& text = letters_[event.event_id][viewer.sight == Sight::kAnonymous ? 1 : 0];
  if (!text) text = make_text(sse("record", event.text(viewer), event.event_id));
  return text;
}

void Gateway::tell(const std::function<Text(Listener&)>& text) {
  // Sending to one may end it.
  std::vector<std::pair<Held, Text>> letters;
  for (auto& [exchange, listener] : listeners_) {
    if (Text one = text(listener)) letters.emplace_back(listener.exchange, std::move(one));
  }
  for (auto& [exchange, one] : letters) exchange->send(std::move(one));
}

void Gateway::tell_alike(const std::function<std::string(const Viewer&)>& make) {
  std::map<std::pair<Sight, uid_t>, Text> texts;
  tell([&](const Listener& listener) {
    if (!listener.begun) return Text();
    const auto [text, fresh] = texts.try_emplace({listener.viewer.sight, listener.viewer.uid});
    if (fresh) text->second = make_text(make(listener.viewer));
    return text->second;
  });
}

void Gateway::tell_rows(const std::vector<Row>& rows) {
  tell_alike([&](const Viewer& viewer) {
    std::vector<const std::string*> shown;
    for (const Row& row : rows) {
      if (is_shown(viewer, row.uid)) shown.push_back(&row.text(viewer));
    }
    return shown.empty() ? std::string() : sse("analyses", join_array(shown));
  });
}

}  // namespace aw::web
