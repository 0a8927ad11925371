// SPDX-License-Identifier: Apache-2.0
//
// The gateway from outside: each endpoint with good input, with bad input and with the daemon away; who sees what; the
// stream; and readers who mean no good.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>

#include "support/gateway.h"
#include "support/users.h"

namespace aw::stories {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Lt;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kOwner[] = "story-owner";
constexpr char kOther[] = "story-other";
constexpr char kAdmin[] = "story-admin";
constexpr char kViewer[] = "story-viewer";

/// All that is served to be read by a program, and the page.
const std::vector<std::string>& endpoints() {
  static const std::vector<std::string> all{"/api/quests/status", "/api/analyses", "/api/events",
                                            "/metrics",           "/healthz",      "/"};
  return all;
}

/// The one element with this value at that key; null if there is none.
Json find_in(const Json& list, const char* key, const Json& value) {
  if (!list.is_array()) return nullptr;
  for (const Json& one : list) {
    if (at(one, key) == value) return one;
  }
  return nullptr;
}

std::set<std::string> keys_of(const Json& object) {
  std::set<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.insert(key);
  return keys;
}

Json ctl(const Words& words) {
  Words all{"analysisctl", "--json=short"};
  all.insert(all.end(), words.begin(), words.end());
  const auto said = run_command(all);
  EXPECT_EQ(said.status, 0) << said.err;
  return Json::parse(said.out, nullptr, false);
}

std::uint64_t unsigned_of(const Json& object, const char* key) {
  const Json value = at(object, key);
  return value.is_number() ? value.get<std::uint64_t>() : 0;
}

// ---- good input ----

class TheGateway : public WebStory {
 protected:
  void SetUp() override {
    WebStory::SetUp();
    make_user(kAdmin, names::kAdminGroup);
    make_user(kViewer, names::kViewerGroup);
    make_user(kOwner);
    make_user(kOther);
  }
  /// The row of a run as root sees it, which comes within a second.
  Json await_listed(const std::string& id) {
    Json row;
    EXPECT_TRUE(watchdog.wait_until([&] {
      row = find_in(get_as("root", "/api/analyses").json(), "analysis_id", id);
      return row.is_object();
    })) << id
        << " is not listed";
    return row;
  }
  /// A run of `user`'s.
  std::pair<std::string, Child> run_of(const std::string& user, const std::string& name, const Dict& options = {}) {
    const std::string id = new_id(name);
    Child process = spawn_as(user, {workload_program(), "stay"});
    const auto registered = watchdog.register_pidfd(id, process.pid(), options);
    EXPECT_EQ(registered.error, "") << registered.message;
    await_listed(id);
    return {id, std::move(process)};
  }
};

TEST_F(TheGateway, TellsTheStatusThatAnalysisctlTells) {
  const auto run = start(How::kLaunched, new_id("counted"), {}, {"stay"});

  await_listed(run.id);
  const Answer answer = get_as("root", "/api/quests/status");

  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.header("content-type"), HasSubstr("application/json"));
  EXPECT_THAT(keys_of(answer.json()), ElementsAre("watchdog"));
  Json told, by_ctl;
  EXPECT_TRUE(watchdog.wait_until([&] {
    told = at(get_as("root", "/api/quests/status").json(), "watchdog");
    by_ctl = ctl({"status"});
    return at(told, "monitored_count") == at(by_ctl, "monitored_count") &&
           at(told, "grace_count") == at(by_ctl, "grace_count") &&
           at(told, "kills_last_24h") == at(by_ctl, "kills_last_24h");
  })) << told
      << "\n"
      << by_ctl;
  const auto ids_of = [](const Json& events) {
    std::vector<std::string> ids;
    for (const Json& event : events) ids.push_back(word(event, "event_id"));
    return ids;
  };
  EXPECT_EQ(ids_of(at(told, "recent_events")), ids_of(at(by_ctl, "recent_events")));
  EXPECT_GE(unsigned_of(told, "monitored_count"), 2U);
}

TEST_F(TheGateway, AnswersInTheEmptyFormWhenNothingIsMonitored) {
  forget_bystander();
  ASSERT_TRUE(watchdog.wait_until([&] { return watchdog.list().empty(); }));

  Json told;
  ASSERT_TRUE(watchdog.wait_until([&] {
    told = at(get("/api/quests/status").json(), "watchdog");
    return at(told, "monitored_count") == 0;
  })) << told;
  EXPECT_EQ(at(told, "grace_count"), 0);
  EXPECT_TRUE(at(told, "kills_last_24h").is_number_unsigned());
  EXPECT_TRUE(at(told, "recent_events").is_array());
  EXPECT_EQ(get("/api/analyses").json(), Json::array());
}

TEST_F(TheGateway, ShowsWhatRunsAsAnalysisctlLists) {
  const auto run = start(How::kLaunched, new_id("listed"),
                         {memory_limit(100), {"Description", {std::string("a story")}}}, {"hold", "20", path("ready")});
  await_file("ready");

  const Json listed = await_listed(run.id);
  const Json by_ctl = find_in(ctl({"list"}), "analysis_id", run.id);

  ASSERT_TRUE(listed.is_object());
  ASSERT_TRUE(by_ctl.is_object());
  EXPECT_NE(word(listed, "key"), "");
  for (const auto& [key, value] : by_ctl.items()) {
    ASSERT_TRUE(listed.contains(key)) << key;
    // What it uses changes from one look to the next.
    if (key.starts_with("memory_") && !key.ends_with("limit_bytes") && !key.ends_with("headroom_bytes")) continue;
    if (key == "cpu_usec" || key == "process_count") continue;
    EXPECT_EQ(listed.at(key), value) << key;
  }

  const Answer one = get_as("root", "/api/analyses/" + encoded(run.id));
  EXPECT_EQ(one.status, 200);
  EXPECT_EQ(word(one.json(), "description"), "a story");
  EXPECT_EQ(word(one.json(), "state"), "running");
  const Json events = at(one.json(), "events");
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(word(events[0], "kind"), "registered");
}

TEST_F(TheGateway, ShowsEventsByEachFilter) {
  const auto run = start(How::kLaunched, new_id("eventful"), {}, {"stay"});
  ASSERT_EQ(watchdog.kill(run.id).error, "");
  const Dict end = await_end(run);
  const std::string id = "id=" + encoded(run.id);
  const auto ask_for = [&](const std::string& query) {
    const Answer answer = get_as("root", "/api/events?" + query);
    EXPECT_EQ(answer.status, 200) << query << ": " << answer.body;
    std::vector<std::string> kinds;
    for (const Json& event : answer.json()) {
      kinds.push_back(word(event, "kind"));
      EXPECT_EQ(word(event, "registered_as"), run.id) << query;
    }
    return kinds;
  };

  EXPECT_THAT(ask_for(id), ElementsAre("ended", "ending", "registered")) << "newest first";
  EXPECT_THAT(ask_for(id + "&limit=1"), ElementsAre("ended"));
  EXPECT_THAT(ask_for(id + "&reason=requested"), ElementsAre("ended", "ending"));
  EXPECT_THAT(ask_for(id + "&reason=oom"), IsEmpty());
  EXPECT_THAT(ask_for(id + "&since=-1h"), SizeIs(3));
  EXPECT_THAT(ask_for(id + "&since=" + encoded("2099-01-01")), IsEmpty());

  const Json ended = get_as("root", "/api/events?" + id + "&limit=1").json().at(0);
  EXPECT_EQ(word(ended, "event_id"), text(end, "event_id"));
  EXPECT_EQ(word(ended, "reason"), "requested");
  EXPECT_EQ(unsigned_of(ended, "duration_usec"), number(end, "duration_usec"));
}

TEST_F(TheGateway, TellsTheStoryOfOneThatHasEnded) {
  const auto run = start(How::kLaunched, new_id("told of"), {memory_limit(32), headroom(64)}, {"leak", "256", "5"});
  const Dict end = await_end(run);
  ASSERT_EQ(text(end, "reason"), "memory");

  const Answer one = get_as("root", "/api/analyses/" + encoded(run.id));
  EXPECT_EQ(one.status, 200) << one.body;
  EXPECT_EQ(word(one.json(), "state"), "ended");
  EXPECT_EQ(word(one.json(), "reason"), "memory");
  EXPECT_EQ(word(one.json(), "run_id"), text(end, "run_id"));
  EXPECT_THAT(at(one.json(), "events"), SizeIs(Ge(3U)));

  const Answer told = get_as("root", "/api/analyses/" + encoded(run.id) + "/explain");
  EXPECT_EQ(told.status, 200) << told.body;
  // analysisctl says besides which record it has that from.
  EXPECT_NE(word(told.json(), "text"), "");
  EXPECT_THAT(run_command({"analysisctl", "--no-pager", "explain", run.id}).out,
              ::testing::StartsWith(word(told.json(), "text")));
}

TEST_F(TheGateway, KeepsTheCurveOfARunThatEndedBeforeTheDaemonWasRestarted) {
  const auto run = start(How::kLaunched, new_id("curve"), {memory_limit(96), headroom(64)}, {"leak", "512", "60"});
  const Dict end = await_end(run);
  const std::string run_id = text(end, "run_id");
  const std::string where = "/api/analyses/" + encoded(run.id) + "/series?run=" + run_id;
  const auto rows_of = [&] { return at(get_as("root", where).json(), "rows"); };
  ASSERT_TRUE(watchdog.wait_until([&] { return rows_of().size() >= 3; })) << get_as("root", where).body;

  stop_daemon();
  start_daemon();

  const Answer answer = get_as("root", where);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json series = answer.json();
  EXPECT_EQ(word(series, "run_id"), run_id);
  EXPECT_EQ(at(series, "columns"),
            Json::array({"at_usec", "memory_bytes", "memory_unreclaimable_bytes", "cpu_usec", "processes"}));
  const Json rows = at(series, "rows");
  ASSERT_THAT(rows, SizeIs(Ge(3U)));
  std::uint64_t highest = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_THAT(rows[i], SizeIs(5));
    if (i > 0) {
      EXPECT_GT(rows[i][0].get<std::uint64_t>(), rows[i - 1][0].get<std::uint64_t>());
      EXPECT_GE(rows[i][3].get<std::uint64_t>(), rows[i - 1][3].get<std::uint64_t>()) << "CPU time only grows";
    }
    highest = std::max(highest, rows[i][2].get<std::uint64_t>());
  }
  EXPECT_GT(highest, 48U << 20U) << "the curve of a leak shows no leak";
  EXPECT_GT(highest, 2 * rows[0][2].get<std::uint64_t>());
}

TEST_F(TheGateway, SaysHowItIsAndWhatItServes) {
  const Answer health = get("/healthz");
  EXPECT_EQ(health.status, 200);
  const Answer page = get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.header("content-type"), HasSubstr("text/html"));
  EXPECT_THAT(page.body, HasSubstr("id=\"analyses\""));
  // Everything from here, nothing from elsewhere, and nobody frames it.
  const std::string policy = page.header("content-security-policy");
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
  EXPECT_THAT(policy, HasSubstr("frame-ancestors 'none'"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe-eval")));
  EXPECT_THAT(policy, Not(HasSubstr("script-src 'unsafe-inline'")));
  for (const std::string& path : endpoints()) {
    const Answer answer = get(path);
    EXPECT_EQ(answer.status, 200) << path;
    EXPECT_EQ(answer.header("x-content-type-options"), "nosniff") << path;
    EXPECT_EQ(answer.header("access-control-allow-origin"), "") << path << " may be read by other sites' pages";
    const Answer head = ask(kWebUrl + path, {"HEAD", {}, "", "", kPatience});
    EXPECT_EQ(head.status, 200) << path;
    EXPECT_EQ(head.body, "") << path;
  }
  for (const char* asset : {"/assets/dygraph.min.js", "/assets/dygraph.min.css"}) {
    EXPECT_EQ(get(asset).status, 200) << asset;
  }
}

TEST_F(TheGateway, HasMetricsThatPromtoolLikes) {
  const auto run = start(How::kLaunched, new_id("measured"), {memory_limit(32), headroom(64)}, {"leak", "256", "5"});
  await_end(run);

  const Answer metrics = get("/metrics");

  ASSERT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.body, HasSubstr("analysis_watchdog_up 1\n"));
  EXPECT_THAT(metrics.body, Not(HasSubstr(run.id))) << "no series per analysis";
  const auto checked = run_command({"promtool", "check", "metrics"}, metrics.body);
  EXPECT_EQ(checked.status, 0) << checked.out << checked.err;
  EXPECT_EQ(checked.out + checked.err, "");
}

// ---- who sees what ----

TEST_F(TheGateway, ShowsNamelessRowsAndCountsToWhoHasNotSaidWhoTheyAre) {
  const std::string secret = "the-secret-of-" + std::to_string(::getpid());
  const std::string id = new_id("hidden " + secret);
  EventStream stream(std::string(kWebUrl) + "/api/events/stream");
  ASSERT_TRUE(await(stream, "analyses", [](const Json&) { return true; }));
  const std::string marker = path(secret);
  const auto run = start(How::kLaunched, id, {{"Description", {"about " + secret}}}, {"hold", "5", marker},
                         {"--label=what=" + secret});
  ASSERT_TRUE(watchdog.wait_until([&] { return exists(marker); }));
  const std::string run_id = text(watchdog.find(id).value_or(Dict{}), "RunId");
  const Json seen = await_listed(id);
  ASSERT_TRUE(seen.is_object());
  const std::string key = word(seen, "key");
  ASSERT_NE(key, "");
  EXPECT_NE(key, run_id) << "a key is no run id";

  const Json anonymous = find_in(get("/api/analyses").json(), "key", key);
  ASSERT_TRUE(anonymous.is_object()) << "its row is not there";
  EXPECT_EQ(word(anonymous, "state"), "running");
  EXPECT_TRUE(anonymous.contains("memory_limit_bytes"));
  for (const char* hidden : {"analysis_id", "registered_as", "run_id", "unit", "uid", "leader_pid", "owner_pid", "pid",
                             "comm", "cmdline", "description", "labels"}) {
    EXPECT_FALSE(anonymous.contains(hidden)) << hidden;
  }
  EXPECT_GE(unsigned_of(at(get("/api/quests/status").json(), "watchdog"), "monitored_count"), 2U);
  ASSERT_EQ(watchdog.kill(id).error, "");
  await_end(run);
  ASSERT_TRUE(await(stream, "gone", [&](const Json& data) { return word(data, "key") == key; }));

  for (const std::string& path : endpoints()) {
    const Answer answer = get(path);
    EXPECT_THAT(answer.body, Not(HasSubstr(secret))) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr(run_id))) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr(id))) << path;
  }
  for (const ServerEvent& event : stream.read()) {
    EXPECT_THAT(event.data, Not(HasSubstr(secret))) << event.kind;
    EXPECT_THAT(event.data, Not(HasSubstr(run_id))) << event.kind;
  }
  // It is not told either whether there is such an id.
  const Answer known = get("/api/analyses/" + encoded(id));
  const Answer unknown = get("/api/analyses/" + encoded("nobody has this id"));
  EXPECT_THAT(known.status, AnyOf(401, 403, 404));
  EXPECT_EQ(known.status, unknown.status);
  for (const char* more : {"/explain", "/series"}) {
    EXPECT_THAT(get("/api/analyses/" + encoded(id) + more).status, AnyOf(401, 403, 404)) << more;
  }
}

TEST_F(TheGateway, ShowsPeersOfItsUnixSocketWhatTheyMaySee) {
  const auto [id, process] = run_of(kOwner, "the owner's");
  const std::string one = "/api/analyses/" + encoded(id);
  const std::string run_id = text(watchdog.find(id).value_or(Dict{}), "RunId");

  for (const char* user : {"root", kAdmin, kViewer, kOwner}) {
    EXPECT_TRUE(find_in(get_as(user, "/api/analyses").json(), "analysis_id", id).is_object()) << user;
    EXPECT_EQ(get_as(user, one).status, 200) << user;
    EXPECT_EQ(get_as(user, one + "/explain").status, 200) << user;
    EXPECT_THAT(get_as(user, "/api/events?id=" + encoded(id)).json(), SizeIs(1)) << user;
    EXPECT_EQ(get_as(user, one + "/series?run=" + run_id).status, 200) << user;
  }
  for (const char* user : {kOther, "nobody"}) {
    EXPECT_THAT(get_as(user, "/api/analyses").body, Not(HasSubstr(run_id))) << user;
    EXPECT_TRUE(find_in(get_as(user, "/api/analyses").json(), "analysis_id", id).is_null()) << user;
    for (const std::string& path : {one, one + "/explain", one + "/series?run=" + run_id}) {
      EXPECT_THAT(get_as(user, path).status, AnyOf(403, 404)) << user << " " << path;
    }
    const Answer events = get_as(user, "/api/events?id=" + encoded(id));
    EXPECT_THAT(events.body, Not(HasSubstr(run_id))) << user;
  }
}

TEST_F(TheGateway, ShowsEachListenerOfTheStreamWhatTheyMaySee) {
  const auto listen_as = [](const std::string& user) {
    const As as(user);
    return std::make_unique<EventStream>("http://localhost/api/events/stream",
                                         Ask{"GET", {}, "", kWebUnixSocket, kPatience});
  };
  const auto owner = listen_as(kOwner);
  const auto other = listen_as(kOther);
  for (const auto& stream : {owner.get(), other.get()}) {
    ASSERT_TRUE(await(*stream, "analyses", [](const Json&) { return true; }));
  }

  const auto [id, process] = run_of(kOwner, "heard of by its owner");
  const auto [others, another] = run_of(kOther, "heard of by the other");

  const auto about = [](const std::string& what) {
    return [what](const Json& record) { return word(record, "registered_as") == what; };
  };
  EXPECT_TRUE(await(*owner, "record", about(id)));
  EXPECT_TRUE(await(*other, "record", about(others)));
  for (const ServerEvent& event : owner->read()) EXPECT_THAT(event.data, Not(HasSubstr(others))) << event.kind;
  for (const ServerEvent& event : other->read()) EXPECT_THAT(event.data, Not(HasSubstr(id))) << event.kind;
}

TEST_F(TheGateway, TakesNoTokenButItsOwn) {
  const auto run = start(How::kLaunched, new_id("behind a token"), {}, {"stay"});
  await_listed(run.id);
  const auto shown_to = [&](const std::vector<std::string>& headers) {
    const Answer answer = ask(std::string(kWebUrl) + "/api/analyses", {"GET", headers, "", "", kPatience});
    EXPECT_THAT(answer.status, AnyOf(200, 401, 403, 431));
    return find_in(answer.json(), "analysis_id", run.id).is_object();
  };

  EXPECT_TRUE(shown_to({bearer()}));
  EXPECT_FALSE(shown_to({bearer(std::string(kToken) + "x")}));
  EXPECT_FALSE(shown_to({bearer(std::string(kToken).substr(0, 10))}));
  EXPECT_FALSE(shown_to({"Authorization: Bearer"}));
  EXPECT_FALSE(shown_to({"Authorization: Bearer "}));
  EXPECT_FALSE(shown_to({"Authorization: Basic cm9vdDpyb290"}));
  EXPECT_FALSE(shown_to({bearer(std::string(60000, 'x'))}));
  EXPECT_FALSE(shown_to({"Authorization: " + std::string(kToken)}));
  EXPECT_FALSE(shown_to({}));
}

// ---- the stream ----

TEST_F(TheGateway, TellsOfARunAsItLivesAndDies) {
  EventStream stream(std::string(kWebUrl) + "/api/events/stream", {"GET", {bearer()}, "", "", kPatience});
  ASSERT_TRUE(await(stream, "analyses", [](const Json&) { return true; }));
  EXPECT_EQ(stream.status(), 200);
  const std::size_t before = stream.read().size();
  const std::string id = new_id("streamed");
  const auto record_of = [&](const char* kind) {
    return
        [&id, kind](const Json& record) { return word(record, "registered_as") == id && word(record, "kind") == kind; };
  };

  auto run = start(How::kLaunched, id, {memory_limit(48), headroom(64), grace(20s)},
                   {"leak", "512", "20", path("marker"), "4000"});

  const auto registered = await(stream, "record", record_of("registered"), before);
  ASSERT_TRUE(registered);
  const auto ending = await(stream, "record", record_of("ending"), before);
  ASSERT_TRUE(ending);
  EXPECT_EQ(word(ending->json(), "reason"), "memory");
  const auto shown_ending = await(
      stream, "analyses", [&](const Json& rows) { return word(find_in(rows, "analysis_id", id), "state") == "ending"; },
      before);
  EXPECT_TRUE(shown_ending) << "its row was not seen ending";
  const auto ended = await(stream, "record", record_of("ended"), before);
  ASSERT_TRUE(ended);
  EXPECT_EQ(word(ended->json(), "reason"), "memory");
  const auto gone = await(
      stream, "gone", [&](const Json& data) { return word(data, "run_id") == word(ended->json(), "run_id"); }, before);
  EXPECT_TRUE(gone);
  const auto counted = await(
      stream, "status", [](const Json& status) { return unsigned_of(status, "kills_last_24h") > 0; }, before);
  EXPECT_TRUE(counted);

  // The record of a signal and that of the stream are one, and they came in the order in which things happened.
  const Dict end = await_end(run);
  EXPECT_EQ(ended->id, text(end, "event_id"));
  EXPECT_LE(registered->at, ending->at);
  EXPECT_LE(ending->at, ended->at);
  const auto signal = watchdog.await_signal("AnalysisEnded", id);
  ASSERT_TRUE(signal);
}

TEST_F(TheGateway, SaysOnTheStreamWhenTheDaemonGoesAndComes) {
  EventStream stream(std::string(kWebUrl) + "/api/events/stream", {"GET", {bearer()}, "", "", kPatience});
  ASSERT_TRUE(await(stream, "analyses", [](const Json&) { return true; }));
  const auto any = [](const Json&) { return true; };

  stop_daemon();
  ASSERT_TRUE(await(stream, "away", any));
  const std::size_t away = stream.read().size();
  start_daemon();
  ASSERT_TRUE(await(stream, "back", any));
  ASSERT_TRUE(await(stream, "analyses", any, away)) << "all that live, again";
  const auto run = start(How::kLaunched, new_id("after it came back"), {}, {"stay"});
  EXPECT_TRUE(await(
      stream, "record", [&](const Json& r) { return word(r, "registered_as") == run.id; }, away));
}

// ---- the daemon away, the gateway restarted ----

TEST_F(TheGateway, SaysThatTheDaemonIsAwayAndNoStaleNumber) {
  const auto run = start(How::kRegistered, new_id("before it went"), {}, {"stay"});
  EXPECT_GE(unsigned_of(at(get("/api/quests/status").json(), "watchdog"), "monitored_count"), 1U);

  stop_daemon();

  for (const std::string path : {"/api/quests/status", "/api/analyses", "/api/events", "/api/events/stream",
                                 "/api/kills", "/api/viewer", "/healthz"}) {
    EXPECT_EQ(get(path).status, 503) << path;
    EXPECT_EQ(get_as("root", path).status, 503) << path;
  }
  const std::string one = "/api/analyses/" + encoded(run.id);
  for (const std::string& path : {one, one + "/explain", one + "/series", "/api/analysis?id=" + encoded(run.id)}) {
    const Answer answer = get_as("root", path);
    EXPECT_EQ(answer.status, 503) << path;
    EXPECT_NE(word(answer.json(), "error"), "") << path;
  }
  const Json empty = Json::parse(
      R"({"watchdog": {"monitored_count": 0, "grace_count": 0, "kills_last_24h": 0, "recent_events": []}})");
  for (const Answer& answer : {get("/api/quests/status"), get_as("root", "/api/quests/status")}) {
    Json told = answer.json();
    for (const auto& [key, value] : empty.at("watchdog").items()) {
      EXPECT_EQ(at(at(told, "watchdog"), key.c_str()), value) << key;
    }
  }
  const Answer metrics = get("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.body, HasSubstr("analysis_watchdog_up 0\n"));
  EXPECT_THAT(metrics.body, Not(HasSubstr("\nanalysis_watchdog_runs"))) << "a stale number";
  const auto checked = run_command({"promtool", "check", "metrics"}, metrics.body);
  EXPECT_EQ(checked.status, 0) << checked.out << checked.err;
  EXPECT_EQ(get("/").status, 200) << "the page says it, too";
  // Asking has not started it.
  EXPECT_EQ(unit_text(watchdog, kDaemonUnit, "ActiveState"), "inactive");

  start_daemon();
  await_listed(run.id);
  EXPECT_THAT(get("/metrics").body, HasSubstr("analysis_watchdog_up 1\n"));
}

TEST_F(TheGateway, NoticesADaemonThatWasKilledAndTheNextOne) {
  const auto run = start(How::kLaunched, new_id("survives a daemon"), {}, {"stay"});
  EventStream stream(std::string(kWebUrl) + "/api/events/stream", {"GET", {bearer()}, "", "", kPatience});
  ASSERT_TRUE(await(stream, "analyses", [](const Json&) { return true; }));
  forget_bystander();

  const pid_t before = daemon_pid(watchdog);
  ::kill(before, SIGKILL);
  ASSERT_TRUE(watchdog.wait_until([&] {
    const pid_t now = daemon_pid(watchdog);
    return now > 0 && now != before && unit_text(watchdog, kDaemonUnit, "ActiveState") == "active";
  }));

  ASSERT_TRUE(await(stream, "away", [](const Json&) { return true; }));
  ASSERT_TRUE(await(stream, "back", [](const Json&) { return true; }));
  EXPECT_TRUE(watchdog.wait_until(
      [&] { return find_in(get_as("root", "/api/analyses").json(), "analysis_id", run.id).is_object(); }));
}

TEST_F(TheGateway, IsItsOldSelfAfterARestart) {
  const auto run = start(How::kLaunched, new_id("survives a gateway"), {}, {"stay"});
  const std::string key = word(await_listed(run.id), "key");
  EventStream stream(std::string(kWebUrl) + "/api/events/stream");
  ASSERT_TRUE(await(stream, "analyses", [](const Json&) { return true; }));

  restart_gateway();

  ASSERT_TRUE(watchdog.wait_until([&] { return stream.read(), !stream.open(); })) << "the old stream did not end";
  EXPECT_EQ(word(await_listed(run.id), "key"), key) << "it is the same of the same run";
  // Nobody was turned away meanwhile: the socket is systemd's.
  ASSERT_TRUE(systemctl({"stop", kWebService}));
  EXPECT_EQ(get("/api/quests/status").status, 200) << "the next request starts it, and waits until it knows";
  restart_gateway();
}

// ---- bad input ----

TEST_F(TheGateway, RefusesWhatIsNoQuestion) {
  for (const char* query : {"limit=-1", "limit=many", "limit=1.5", "limit=99999999999999999999999", "since=whenever",
                            "reason=boredom", "limit=1&limit=2", "colour=blue"}) {
    const Answer answer = get_as("root", std::string("/api/events?") + query);
    EXPECT_EQ(answer.status, 400) << query << ": " << answer.body.substr(0, 200);
    EXPECT_TRUE(answer.json().is_object()) << query << ": " << answer.body.substr(0, 200);
    EXPECT_NE(word(answer.json(), "error"), "") << query;
  }
  for (const char* path :
       {"/nothing", "/api", "/api/", "/api/nothing", "/api/quests", "/api/analyses/x/y/z", "/assets/",
        "/assets/nothing.js", "/assets/../index.html", "/../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/assets/%00", "/api/analyses/nobody%20has%20this"}) {
    const Answer answer = get_as("root", path);
    EXPECT_THAT(answer.status, AnyOf(400, 404)) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("root:"))) << path;
  }
  // No id: not UTF-8, controls, too long.
  for (const std::string& id : {std::string("%ff"), std::string("a%00b"), std::string("a%0ab"), std::string("%1b[31m"),
                                std::string(256, 'x'), std::string("%"), std::string("%zz")}) {
    EXPECT_THAT(get_as("root", "/api/analyses/" + id).status, AnyOf(400, 404)) << id;
    EXPECT_THAT(get_as("root", "/api/analyses/" + id + "/explain").status, AnyOf(400, 404)) << id;
  }
  const auto run = start(How::kLaunched, new_id("asked for badly"), {}, {"stay"});
  for (const char* query : {"?run=x", "?run=00000000-0000-0000-0000-000000000000", "?run=%00"}) {
    EXPECT_THAT(get_as("root", "/api/analyses/" + encoded(run.id) + "/series" + query).status, AnyOf(400, 404))
        << query;
  }
}

TEST_F(TheGateway, OnlyReads) {
  const auto run = start(How::kLaunched, new_id("not to be changed"), {}, {"stay"});
  std::vector<std::string> paths = endpoints();
  paths.push_back("/api/analyses/" + encoded(run.id));
  for (const std::string& path : paths) {
    for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "NONSENSE"}) {
      const Answer answer = ask(kWebUrl + path, {method, {"Content-Type: application/json"}, "{}", "", kPatience});
      EXPECT_THAT(answer.status, AnyOf(400, 405, 501)) << method << " " << path;
      EXPECT_THAT(answer.body, Not(HasSubstr("not to be changed")));
    }
  }
  EXPECT_EQ(text(watchdog.find(run.id).value_or(Dict{}), "State"), "running");
}

TEST_F(TheGateway, AnswersToItsOwnNameOnly) {
  const auto status_for = [](const std::string& host) {
    return ask(std::string(kWebUrl) + "/api/analyses", {"GET", {host}, "", "", kPatience}).status;
  };
  // A page of evil.example whose name was made to mean 127.0.0.1 (DNS rebinding).
  for (const char* host : {"Host: evil.example", "Host: evil.example:8787", "Host: 127.0.0.1.evil.example",
                           "Host: localhost.evil.example:8787", "Host: [::1", "Host: a b"}) {
    EXPECT_THAT(status_for(host), AnyOf(400, 403, 421)) << host;
  }
  for (const char* host : {"Host: 127.0.0.1:8787", "Host: localhost:8787"}) EXPECT_EQ(status_for(host), 200) << host;
  const Answer nameless = ask(std::string(kWebUrl) + "/api/analyses", {"GET", {"Host:"}, "", "", kPatience});
  EXPECT_THAT(nameless.status, AnyOf(400, 403, 421));
}

TEST_F(TheGateway, ShowsNothingFurtherOutToWhoIsNotKnown) {
  constexpr char kUrl[] = "http://127.0.0.1:8791";
  const auto run = start(How::kLaunched, new_id("of this host"), {}, {"stay"});
  await_listed(run.id);
  // It has no token, as one that somebody made listen everywhere in a hurry.
  const Child open = spawn_as("root", {"/bin/sh", "-c", "exec analysis-watchdog-web --listen 0.0.0.0:8791"});
  ASSERT_TRUE(watchdog.wait_until([&] { return ask(std::string(kUrl) + "/healthz").status == 200; }));

  for (const std::string path : {"/api/quests/status", "/api/analyses", "/api/events", "/api/events/stream",
                                 "/api/kills", "/api/viewer", "/metrics"}) {
    const Answer answer = ask(kUrl + path);
    EXPECT_EQ(answer.status, 401) << path;
    EXPECT_THAT(answer.body, HasSubstr("token")) << path;
  }
  for (const std::string path : {"/", "/login"}) EXPECT_EQ(ask(kUrl + path).status, 200) << path;
  EXPECT_EQ(get("/api/analyses").status, 200) << "the one that listens at 127.0.0.1";
}

struct Garbage {
  const char* name;
  std::string bytes;
};

const std::vector<Garbage>& garbage() {
  static const std::string host = "Host: 127.0.0.1:8787\r\n";
  static const std::vector<Garbage> all{
      {"nothing but line ends", "\r\n\r\n\r\n\r\n"},
      {"a TLS greeting", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(512, '\x42')},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
      {"no version", "GET /api/analyses\r\n\r\n"},
      {"no path", "GET\r\n" + host + "\r\n"},
      {"a version of tomorrow", "GET /api/analyses HTTP/9.9\r\n" + host + "\r\n"},
      {"no host", "GET /api/analyses HTTP/1.1\r\n\r\n"},
      {"two hosts", "GET /api/analyses HTTP/1.1\r\n" + host + "Host: evil.example\r\n\r\n"},
      {"another's URL", "GET http://evil.example/api/analyses HTTP/1.1\r\nHost: evil.example\r\n\r\n"},
      {"a NUL in the path", std::string("GET /api/ana\0lyses HTTP/1.1\r\n", 29) + host + "\r\n"},
      {"a NUL in a header",
       "GET /api/analyses HTTP/1.1\r\nX: a" + std::string(1, '\0') + "b\r\nHost: evil.example\r\n\r\n"},
      {"a header that is none", "GET /api/analyses HTTP/1.1\r\nHost: evil.example\r\nthis is no header\r\n\r\n"},
      {"a huge URL", "GET /" + std::string(1U << 20U, 'a') + " HTTP/1.1\r\n" + host + "\r\n"},
      {"a huge header", "GET / HTTP/1.1\r\n" + host + "X: " + std::string(4U << 20U, 'a') + "\r\n\r\n"},
      {"very many headers",
       [] {
         std::string text = "GET / HTTP/1.1\r\nHost: evil.example\r\n";
         for (int i = 0; i < 50000; ++i) text += "X-" + std::to_string(i) + ": y\r\n";
         return text + "\r\n";
       }()},
      {"a huge body",
       "POST /api/analyses HTTP/1.1\r\n" + host + "Content-Length: 8388608\r\n\r\n" + std::string(8U << 20U, 'a')},
      {"a body without end",
       "POST /api/analyses HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\nabc"},
      {"a negative body", "POST /api/analyses HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n"},
      {"a bad chunk", "POST /api/analyses HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"},
      {"a huge chunk",
       "POST /api/analyses HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc\r\n"},
      {"two lengths", "POST /api/analyses HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 40\r\n\r\n"},
      {"a folded header", "GET /api/analyses HTTP/1.1\r\nHost:\r\n evil.example\r\n\r\n"},
      {"nothing but bytes",
       [] {
         std::string text;
         for (int i = 0; i < 100000; ++i) text.push_back(static_cast<char>(i * 131 % 251));
         return text + "\r\n\r\n";
       }()},
  };
  return all;
}

TEST_F(TheGateway, SurvivesWhatIsNoHttp) {
  const auto run = start(How::kLaunched, new_id("not for these"), {}, {"stay"});
  const std::string run_id = text(watchdog.find(run.id).value_or(Dict{}), "RunId");
  for (const Garbage& one : garbage()) {
    SCOPED_TRACE(one.name);
    Wire wire(kWebPort);
    ASSERT_TRUE(wire.connected());
    (void)wire.send(one.bytes);  // It may have heard enough before the end.
    // Half of them are a beginning of something: who waits for its rest must not wait for ever.
    const std::string said = wire.read_to_end(2s);
    if (!said.empty()) {
      EXPECT_THAT(said, ::testing::StartsWith("HTTP/1."));
      EXPECT_THAT(said.substr(0, 12), AnyOf(HasSubstr(" 4"), HasSubstr(" 5")));
    }
    EXPECT_THAT(said, Not(HasSubstr(run_id)));
    EXPECT_EQ(get("/healthz").status, 200);
  }
  EXPECT_EQ(find_journal_records("COREDUMP_UNIT", kWebService).size(), 0U);
}

// ---- slow and many readers ----

struct Descriptors {
  Descriptors() {
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
};

std::uint64_t rss_kib(pid_t pid) {
  const std::string status = read_file("/proc/" + std::to_string(pid) + "/status");
  const std::size_t at = status.find("VmRSS:");
  return at == std::string::npos ? 0 : std::stoul(status.substr(at + 6));
}

TEST_F(TheGateway, IsHeldUpByNoSlowWriter) {
  const Descriptors many;
  std::vector<std::unique_ptr<Wire>> slow;
  for (int i = 0; i < 200; ++i) {
    slow.push_back(std::make_unique<Wire>(kWebPort));
    if (slow.back()->connected()) (void)slow.back()->send("GET /api/analyses HTTP/1.1\r\nX-Slow: ");
  }

  // They go on with a letter now and then, as long as they are let; whoever asks properly is answered all the while.
  std::size_t ended = 0;
  EXPECT_TRUE(watchdog.wait_until(
      [&] {
        ended = 0;
        for (const auto& wire : slow) {
          if (!wire->connected() || wire->closed()) {
            ++ended;
          } else {
            (void)wire->send("x");
          }
        }
        EXPECT_EQ(get("/api/quests/status").status, 200);
        watchdog.let_pass(500ms);
        return ended == slow.size();
      },
      kPatience))
      << ended << " of " << slow.size() << " were ended";
}

TEST_F(TheGateway, IsHeldUpByNoSlowReader) {
  const Descriptors many;
  std::vector<std::unique_ptr<Wire>> slow;
  for (int i = 0; i < 50; ++i) {
    slow.push_back(std::make_unique<Wire>(kWebPort));
    ASSERT_TRUE(slow.back()->connected());
    ASSERT_TRUE(
        slow.back()->send("GET /api/events/stream HTTP/1.1\r\nHost: 127.0.0.1:8787\r\n" + bearer() + "\r\n\r\n"));
    // Large answers asked for one behind another, of which none is read.
    Wire* greedy = slow.emplace_back(std::make_unique<Wire>(kWebPort)).get();
    for (int j = 0; j < 20; ++j)
      (void)greedy->send("GET /assets/dygraph.min.js HTTP/1.1\r\nHost: 127.0.0.1:8787\r\n\r\n");
  }
  const pid_t gateway = gateway_pid(watchdog);
  const std::uint64_t before = rss_kib(gateway);

  for (int i = 0; i < 20; ++i) {
    const auto run =
        start(How::kRegistered, new_id("told to nobody"), {{"Description", {std::string(1000, 'd')}}}, {"live", "1"});
    await_end(run);
    EXPECT_EQ(get("/api/quests/status").status, 200);
  }

  std::cout << "gateway: " << before << " KiB, " << rss_kib(gateway) << " KiB with 50 who don't read\n";
  EXPECT_LT(rss_kib(gateway), before + (64U << 10U));
}

TEST_F(TheGateway, CarriesAThousandIdleStreams) {
  const Descriptors many;
  constexpr std::size_t kStreams = 1000;
  const pid_t gateway = gateway_pid(watchdog);
  const std::uint64_t before = rss_kib(gateway);
  std::vector<std::unique_ptr<Wire>> streams;
  std::vector<std::string> heard(kStreams);
  for (std::size_t i = 0; i < kStreams; ++i) {
    streams.push_back(std::make_unique<Wire>(kWebPort));
    ASSERT_TRUE(streams.back()->connected()) << i;
    ASSERT_TRUE(streams.back()->send("GET /api/events/stream HTTP/1.1\r\nHost: 127.0.0.1:8787\r\n\r\n")) << i;
  }
  const auto all_heard = [&](const std::string& words) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < kStreams; ++i) {
      heard[i] += streams[i]->read_some();
      count += heard[i].find(words) != std::string::npos ? 1 : 0;
    }
    return count;
  };
  std::size_t count = 0;
  ASSERT_TRUE(watchdog.wait_until([&] { return (count = all_heard("event: analyses")) == kStreams; }))
      << count << " of " << kStreams << " streams began";
  std::cout << "gateway: " << before << " KiB, " << rss_kib(gateway) << " KiB with " << kStreams << " streams\n";

  EXPECT_EQ(get("/api/quests/status").status, 200);
  heard.assign(kStreams, "");
  const auto run = start(How::kLaunched, new_id("told to a thousand"), {}, {"stay"});
  EXPECT_TRUE(watchdog.wait_until([&] { return (count = all_heard("event: ")) == kStreams; }))
      << count << " of " << kStreams << " were told";
  EXPECT_EQ(get("/healthz").status, 200);

  // They all go at once, and what they held is given back.
  streams.clear();
  const auto descriptors = [&] {
    return std::distance(std::filesystem::directory_iterator("/proc/" + std::to_string(gateway) + "/fd"), {});
  };
  EXPECT_TRUE(watchdog.wait_until([&] { return descriptors() < 200; })) << descriptors() << " descriptors are left";
}

// ---- hostile text ----

TEST_F(TheGateway, ShowsHostileTextAsText) {
  const std::string id =
      own("</script><img src=x onerror=alert(1)> \"}{'\\,= \\n evil_total{a=\"b\"} 1 %00 \xe2\x80\xae " +
          std::to_string(::getpid()));
  const std::string escapes =
      "\x1b]0;owned\x07\x1b[31m\xc2\x9b"
      "31m</script>\nevent: forged\ndata: {}\n\n";
  EventStream stream(std::string(kWebUrl) + "/api/events/stream", {"GET", {bearer()}, "", "", kPatience});
  ASSERT_TRUE(await(stream, "analyses", [](const Json&) { return true; }));
  const auto run = start_program(How::kLaunched, id, {{"Description", {std::string("<b>bold</b> & \xe2\x80\xae")}}},
                                 {"/bin/sh", "-c", "exec sleep 3600 # \"$0\"", escapes});

  const Json row = await_listed(id);
  EXPECT_EQ(word(row, "description"), "<b>bold</b> & \xe2\x80\xae");
  EXPECT_EQ(word(get_as("root", "/api/analyses/" + encoded(id)).json(), "analysis_id"), id);
  ASSERT_EQ(watchdog.kill(id).error, "");
  await_end(run);
  EXPECT_TRUE(await(stream, "record",
                    [&](const Json& r) { return word(r, "registered_as") == id && word(r, "kind") == "ended"; }));

  for (const ServerEvent& event : stream.read()) {
    EXPECT_NE(event.kind, "forged");
    EXPECT_FALSE(event.json().is_discarded()) << event.kind << ": " << event.data;
  }
  for (const std::string path : {"/api/events?limit=20", "/api/analyses", "/api/quests/status"}) {
    const Answer answer = get_as("root", path);
    EXPECT_FALSE(answer.json().is_discarded()) << path;
    for (const char c : answer.body) EXPECT_FALSE(static_cast<unsigned char>(c) < ' ' && c != '\n') << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("\xc2\x9b"))) << path << ": a control that terminals obey";
    EXPECT_THAT(answer.body, Not(HasSubstr("\xe2\x80\xae"))) << path << ": it turns the direction of writing";
  }
  const auto metrics = get("/metrics").body;
  EXPECT_THAT(metrics, Not(HasSubstr("evil_total")));
  EXPECT_EQ(run_command({"promtool", "check", "metrics"}, metrics).status, 0);
}

}  // namespace
}  // namespace aw::stories
