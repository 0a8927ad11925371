// SPDX-License-Identifier: Apache-2.0
//
// The gateway before a daemon's real D-Bus objects on a bus of the test's own, asked over real sockets. The runs are of
// the simulated world.
#include "web/gateway.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "analysis_watchdog/names.h"
#include "api/service.h"
#include "ledger/ledger_file.h"
#include "record/event_dict.h"
#include "testing/patience.h"
#include "testing/private_bus.h"
#include "testing/records.h"
#include "testing/world.h"

namespace aw::web {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::World;

const std::string kToken = "a token of tests";
constexpr char kSecret[] = "hush";
/// Whoever comes by the socket sees their own.
const Gatekeeper::Trusted kSeenByTheTokenOnly{kToken, {}, {}};

struct Response {
  int status = 0;
  std::string head;
  std::string body;
  Json json() const {
    Json parsed = Json::parse(body, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << head << body;
    return parsed;
  }
};

Response parse_response(const std::string& text) {
  Response response;
  const std::size_t end = text.find("\r\n\r\n");
  if (!text.starts_with("HTTP/1.1 ") || end == std::string::npos) return response;
  response.status = std::stoi(text.substr(9, 3));
  response.head = text.substr(0, end + 2);
  response.body = text.substr(end + 4);
  return response;
}

class AGateway : public testing::OnAPrivateBus {
 protected:
  AGateway() {
    std::string pattern = (fs::temp_directory_path() / "web-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    fs::create_directory(dir_ / "page");
    std::ofstream(dir_ / "page/index.html") << "<p>the page</p>";
    std::ofstream(dir_ / "page/page.js") << "1;";
    std::ofstream(dir_ / "page/notes.md") << "not for the world";
    std::ofstream(dir_ / "secret.js") << kSecret;
  }
  ~AGateway() override { fs::remove_all(dir_); }

  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    start_daemon();
    start_gateway();
  }
  void TearDown() override {
    server_.reset();
    gateway_.reset();
  }

  /// With the bus name, and whatever runs.
  void start_daemon() {
    connection_ = bus::Connection::open(bus::BusKind::kUser).value();
    ASSERT_TRUE(connection_->attach(loop_, [] {}));
    service_ = std::make_unique<api::Service>(
        api::Service::Parts{*connection_, loop_, world_.supervisor, world_.processes, history_,
                            [this]() -> const supervise::Limits& { return defaults_; },
                            [this] {
                              ++looks_;
                              return api::StoreState{};
                            },
                            [] { return api::Vitals{}; }, false, "1"},
        api::Administrators{{::getuid()}, {}, {}});
    ASSERT_TRUE(service_->start());
    take_name(*connection_);
  }
  void take_name(bus::Connection& connection) {
    bool taken = false;
    connection.request_name(names::kBusName, [&](const Result<void>& done) { taken = done.has_value(); });
    wait_for([&] { return taken; });
  }
  void stop_daemon() {
    service_.reset();
    connection_.reset();
  }
  void start_gateway(ServerLimits limits = {}, Gatekeeper::Trusted trusted = {kToken, {::getuid()}, {}}) {
    TearDown();
    live_ = std::make_unique<Live>(loop_, bus::BusKind::kUser, patience_);
    ledger_history_ = std::make_unique<History>(loop_, dir_ / "ledger.db", patience_);
    ASSERT_TRUE(ledger_history_->start());
    gateway_ = std::make_unique<Gateway>(Gateway::Parts{loop_,
                                                        *live_,
                                                        *ledger_history_,
                                                        Gatekeeper(std::move(trusted)),
                                                        Assets::read({dir_ / "page", dir_}).value(),
                                                        {"batch1"},
                                                        analyses_in_metrics_,
                                                        [this] { return server_->counts(); },
                                                        most_anonymous_streams_,
                                                        most_streams_of_one_});
    ASSERT_TRUE(gateway_->start());
    std::vector<UniqueFd> sockets;
    sockets.push_back(open_listener(listen_at_).value());
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ASSERT_EQ(::getsockname(sockets[0].get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = address.sin_port;
    sockets.push_back(open_listener(dir_ / "http").value());
    auto server = Server::start(loop_, std::move(sockets), limits,
                                [this](const std::shared_ptr<Exchange>& exchange) { gateway_->on_request(exchange); });
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
  }

  void wait_for(const std::function<bool()>& what) {
    ASSERT_TRUE(testing::comes_true(what, [this] {
      ASSERT_TRUE(loop_.iterate(20ms));
      world_.deliver();
      tell_news();
    }));
  }
  /// As the daemon's wiring does it.
  void tell_news() {
    auto& records = world_.recorder.records;
    for (; told_ < records.size(); ++told_) {
      // The world's clock is none that anybody asks the time of.
      records[told_].occurred_at = loop_.now().real - set_back_;
      history_.add(records[told_]);
      if (service_) service_->on_event(records[told_]);
    }
  }

  pid_t register_run(const std::string& id, supervise::Limits limits = {}) {
    const pid_t pid = world_.spawn(world_.user_shell);
    world_.register_run(id, pid, std::move(limits));
    tell_news();
    return pid;
  }
  void end_run(pid_t pid) {
    world_.exit(pid);
    world_.advance(5s);
    tell_news();
  }

  // ---- a client ----

  enum class Way { kTcp, kUnix };
  UniqueFd connect(Way way = Way::kTcp) const {
    UniqueFd socket(::socket(way == Way::kTcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int connected = 0;
    if (way == Way::kTcp) {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = port_;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      connected = ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
    } else {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::strcpy(address.sun_path, (dir_ / "http").c_str());
      connected = ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
    }
    EXPECT_TRUE(connected == 0 || errno == EINPROGRESS) << std::strerror(errno);
    return socket;
  }
  void write_to(const UniqueFd& socket, std::string_view text) {
    wait_for([&] {
      const ssize_t wrote = ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (wrote > 0) text.remove_prefix(static_cast<std::size_t>(wrote));
      return text.empty() || (wrote < 0 && errno != EAGAIN && errno != ENOTCONN);
    });
  }
  /// What has come by now; false when the other end is closed.
  static bool read_from(const UniqueFd& socket, std::string& text) {
    for (char buffer[65536];;) {
      const ssize_t got = ::recv(socket.get(), buffer, sizeof(buffer), 0);
      if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
      if (got == 0) return false;
      if (got < 0) return errno == EAGAIN || errno == ENOTCONN;
    }
  }
  /// Until the gateway closes the connection.
  std::string exchange(std::string_view request, Way way = Way::kTcp) {
    const UniqueFd socket = connect(way);
    write_to(socket, request);
    std::string text;
    wait_for([&] { return !read_from(socket, text); });
    return text;
  }
  Response ask(const std::string& target, const std::string& headers = "", Way way = Way::kTcp,
               const std::string& method = "GET", const std::string& body = "") {
    return parse_response(exchange(
        method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + "\r\n" + body,
        way));
  }
  Response ask_known(const std::string& target) { return ask(target, "Authorization: Bearer " + kToken + "\r\n"); }

  /// A stream that is read along.
  struct Stream {
    UniqueFd socket;
    std::string text;
    std::size_t from = 0;  ///< what is before that was seen
  };
  Stream open_stream(const std::string& headers = "", Way way = Way::kTcp) {
    Stream stream{connect(way), {}, 0};
    write_to(stream.socket, "GET /api/events/stream HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n");
    return stream;
  }
  /// Waits for an event of that kind whose data has `part` in it, after those that were seen; its data.
  std::string await(Stream& stream, const std::string& event, const std::string& part = "") {
    std::string data;
    wait_for([&] {
      EXPECT_TRUE(read_from(stream.socket, stream.text)) << "the stream was closed";
      for (;;) {
        const std::string head = "event: " + event + "\ndata: ";
        const std::size_t at = stream.text.find(head, stream.from);
        const std::size_t end = at == std::string::npos ? at : stream.text.find("\n\n", at);
        if (end == std::string::npos) return false;
        data = stream.text.substr(at + head.size(), end - at - head.size());
        if (data.find(part) != std::string::npos) {
          stream.from = end;
          return true;
        }
        stream.from = end;
      }
    });
    EXPECT_FALSE(data.empty()) << "no " << event << " with " << part << " in " << stream.text;
    return data;
  }
  /// Of two streams the one that nobody reads is closed, and only that.
  void expect_cut_off_beside(const Stream& sleeper, Stream& reader) {
    wait_for([&] { return gateway_->streams() == 1; });
    std::string text;
    wait_for([&] { return !read_from(sleeper.socket, text); });
    EXPECT_TRUE(read_from(reader.socket, reader.text));
  }

  World world_;
  supervise::EventHistory history_;
  supervise::Limits defaults_;
  fs::path dir_;
  loop::Loop loop_ = loop::Loop::create().value();
  std::unique_ptr<bus::Connection> connection_;
  std::unique_ptr<api::Service> service_;
  std::unique_ptr<Live> live_;
  std::unique_ptr<History> ledger_history_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<Server> server_;
  std::string listen_at_ = "127.0.0.1:0";
  std::size_t analyses_in_metrics_ = 0;
  std::size_t most_anonymous_streams_ = Gateway::kMostAnonymousStreams;
  std::size_t most_streams_of_one_ = Gateway::kMostStreamsOfOne;
  in_port_t port_ = 0;
  std::size_t told_ = 0;
  Span set_back_{};       ///< the wall clock of the daemon
  Span patience_ = 1min;  ///< with a daemon that shares a busy machine with us
  unsigned looks_ = 0;    ///< of the daemon at its own properties
};

// ---- what is there ----

TEST_F(AGateway, GivesTheStatusOfTheContract) {
  register_run("one");
  register_run("two");

  const Response response = ask("/api/quests/status");

  EXPECT_EQ(response.status, 200);
  ASSERT_TRUE(response.json().contains("watchdog"));
  const Json status = response.json()["watchdog"];
  EXPECT_EQ(status["monitored_count"], 2);
  EXPECT_EQ(status["grace_count"], 0);
  EXPECT_EQ(status["kills_last_24h"], 0);
  EXPECT_EQ(status["recent_events"].size(), 2U);
  EXPECT_EQ(status["available"], true);
}

TEST_F(AGateway, ShowsEverybodyThatSomethingRunsAndNobodyWithoutTheTokenWhat) {
  supervise::Limits limits;
  limits.description = kSecret;
  limits.labels = {{kSecret, kSecret}};
  register_run(kSecret, limits);

  for (const char* target : {"/api/quests/status", "/api/analyses", "/api/events", "/metrics"}) {
    const Response anonymous = ask(target);
    EXPECT_EQ(anonymous.status, 200) << target;
    EXPECT_THAT(anonymous.body, Not(HasSubstr(kSecret))) << target;
  }
  EXPECT_EQ(ask("/api/analyses").json().size(), 1U);
  EXPECT_EQ(ask("/api/events").json().size(), 1U);
  EXPECT_EQ(ask("/api/analyses").json()[0]["state"], "running");
  for (const char* target : {"/api/quests/status", "/api/analyses", "/api/events", "/api/analyses/hush"}) {
    EXPECT_THAT(ask_known(target).body, HasSubstr(kSecret)) << target;
  }
  // Neither is it told whether there is one.
  for (const char* target : {"/api/analyses/hush", "/api/analyses/none", "/api/analyses/hush/explain",
                             "/api/analyses/hush/series", "/api/events?id=hush", "/api/events?id=none"}) {
    EXPECT_EQ(ask(target).status, 401) << target;
  }
  EXPECT_EQ(ask("/api/analyses").json()[0]["key"], ask_known("/api/analyses").json()[0]["key"]);
}

TEST_F(AGateway, ShowsOverItsSocketWhatThePeerMaySee) {
  register_run(kSecret);  // Of another uid.
  EXPECT_THAT(ask("/api/analyses", "", Way::kUnix).body, HasSubstr(kSecret));

  start_gateway({}, kSeenByTheTokenOnly);

  EXPECT_EQ(ask("/api/analyses", "", Way::kUnix).body, "[]");
  EXPECT_EQ(ask("/api/events", "", Way::kUnix).body, "[]");
  EXPECT_EQ(ask("/api/analyses/hush", "", Way::kUnix).status, 404);
  EXPECT_EQ(ask("/api/analyses/hush/explain", "", Way::kUnix).status, 404);
  EXPECT_EQ(ask("/api/analyses/hush/series", "", Way::kUnix).status, 404);
  EXPECT_EQ(ask("/api/quests/status", "", Way::kUnix).json()["watchdog"]["monitored_count"], 1);
  EXPECT_EQ(ask("/api/viewer", "", Way::kUnix).json()["uid"], ::getuid());
}

TEST_F(AGateway, ShowsAnAnalysisWhileItLivesAndWhenItHasEnded) {
  const pid_t pid = register_run("a/b c");
  const Json live = ask_known("/api/analyses/a%2Fb%20c").json();
  EXPECT_EQ(live["analysis_id"], "a/b c");
  EXPECT_EQ(live["state"], "running");
  EXPECT_EQ(live["events"].size(), 1U);

  end_run(pid);

  wait_for([&] { return ask_known("/api/analyses").body == "[]"; });
  const Json ended = ask_known("/api/analyses/a%2Fb%20c").json();
  EXPECT_EQ(ended["state"], "ended");
  EXPECT_EQ(ended["reason"], "exited");
  EXPECT_EQ(ended["registered_as"], "a/b c");
  EXPECT_GE(ended["events"].size(), 2U);
  EXPECT_EQ(ended["events"][0]["kind"], "ended");
  EXPECT_THAT(ask_known("/api/analyses/a%2Fb%20c/explain").json()["text"].get<std::string>(), HasSubstr("a/b c"));
  EXPECT_EQ(ask_known("/api/analyses/never").status, 404);
}

TEST_F(AGateway, TakesAnIdAsAParameterTooAndAnswersTheSame) {
  for (const std::string id : {".", "..", "a/b c"}) {
    const pid_t pid = register_run(id);
    const std::string by_path = id == "a/b c" ? "a%2Fb%20c" : id;
    const std::string by_parameter = id == "a/b c" ? "a%2Fb+c" : id;
    wait_for([&] { return ask_known("/api/analysis?id=" + by_parameter).json()["analysis_id"] == id; });
    EXPECT_EQ(ask_known("/api/analysis?id=" + by_parameter).json()["key"],
              ask_known("/api/analyses/" + by_path).json()["key"]);
    EXPECT_EQ(ask_known("/api/analysis/series?id=" + by_parameter).body,
              ask_known("/api/analyses/" + by_path + "/series").body);
    const std::string run = ask_known("/api/analysis?id=" + by_parameter).json()["run_id"];
    end_run(pid);
    wait_for([&] { return ask_known("/api/analysis?id=" + by_parameter).json()["state"] == "ended"; });
    for (const std::string& query : {std::string(), "&run=" + run}) {
      const Response told = ask_known("/api/analysis/explain?id=" + by_parameter + query);
      EXPECT_EQ(told.status, 200) << told.body;
      EXPECT_EQ(told.body, ask_known("/api/analyses/" + by_path + "/explain").body);
    }
  }
  EXPECT_EQ(ask_known("/api/analysis").status, 400);
  EXPECT_EQ(ask_known("/api/analysis?id=").status, 400);
  EXPECT_EQ(ask_known("/api/analysis?id=..&run=x").status, 400);
  EXPECT_EQ(ask_known("/api/analysis/series?id=none").status, 404);
  for (const char* target : {"/api/analysis", "/api/analysis?id=..", "/api/analysis/explain?id=none"}) {
    EXPECT_EQ(ask(target).status, 401) << target;
  }
}

TEST_F(AGateway, FindsWhatTheDaemonHasForgottenInTheLedger) {
  std::deque<ledger::Entry> entries;
  for (int i = 0; i < 20; ++i) {
    auto event = testing::full_event("old-" + std::to_string(i));
    event.occurred_at = WallTime(std::chrono::seconds{1'700'000'000 + i});
    event.registered_as = "long ago";
    entries.emplace_back(event);
  }
  auto file = ledger::LedgerFile::open(dir_ / "ledger.db", std::nullopt);
  ASSERT_TRUE(file && file->commit(entries));
  register_run("now");

  const Json all = ask_known("/api/events").json();
  ASSERT_EQ(all.size(), 21U);
  EXPECT_EQ(all[0]["registered_as"], "now");
  EXPECT_EQ(all[1]["event_id"], "old-19");
  EXPECT_EQ(ask_known("/api/events?limit=3").json().size(), 3U);
  EXPECT_EQ(ask_known("/api/events?id=long+ago&kind=ended&reason=memory").json().size(), 20U);
  EXPECT_EQ(ask_known("/api/events?until=2023-11-14T22:13:24Z").json().size(), 5U);
  EXPECT_EQ(ask_known("/api/events?since=-1min").json().size(), 1U);
  EXPECT_EQ(ask_known("/api/analyses/long%20ago").json()["state"], "ended");
  EXPECT_EQ(ask_known("/api/analyses/long%20ago/explain").status, 200);
  EXPECT_THAT(ask("/api/events").body, Not(HasSubstr("long ago")));
}

TEST_F(AGateway, ExplainsAnOldRunOfAnIdThatIsUsedOften) {
  std::deque<ledger::Entry> entries;
  for (int i = 0; i < 5200; ++i) {
    auto event = testing::full_event("event-" + std::to_string(i));
    event.occurred_at = WallTime(std::chrono::seconds{1'700'000'000 + i});
    event.registered_as = "often";
    event.run_id = "run-" + std::to_string(i / 2);
    event.kind = i % 2 == 0 ? EventKind::kEnding : EventKind::kEnded;
    entries.emplace_back(event);
  }
  auto file = ledger::LedgerFile::open(dir_ / "ledger.db", std::nullopt);
  ASSERT_TRUE(file && file->commit(entries));

  const Response old = ask_known("/api/analyses/often/explain?run=run-7");

  EXPECT_EQ(old.status, 200) << old.body;
  EXPECT_EQ(ask_known("/api/analyses/often/explain?run=run-2599").status, 200);
  EXPECT_EQ(ask_known("/api/analyses/often/explain?run=run-2600").status, 404);
}

TEST_F(AGateway, CountsKillsOfTheLedgerForEverybodyAndNamesNone) {
  std::deque<ledger::Entry> entries;
  for (int i = 0; i < 3; ++i) {
    auto event = testing::full_event("old-" + std::to_string(i));
    event.occurred_at = WallTime(std::chrono::seconds{1'700'000'100 + i});
    event.kind = EventKind::kEnded;
    event.reason = i == 2 ? Reason::kExited : Reason::kMemory;
    entries.emplace_back(event);
  }
  auto file = ledger::LedgerFile::open(dir_ / "ledger.db", std::nullopt);
  ASSERT_TRUE(file && file->commit(entries));

  const Json kills = ask("/api/kills?since=2023-11-14T00:00:00Z").json();

  EXPECT_EQ(kills["counts"], Json::array({{{"at", "2023-11-14T22:15:00Z"}, {"reason", "memory"}, {"count", 2}}}));
  EXPECT_EQ(kills["since"], "2023-11-14T00:00:00.000000Z");
  EXPECT_EQ(ask("/api/kills").json()["counts"], Json::array()) << "a week, unless told";
  EXPECT_EQ(ask("/api/kills?since=whenever").status, 400);
  EXPECT_EQ(ask("/api/kills?id=a").status, 400);
  stop_daemon();
  wait_for([&] { return ask("/api/kills").status == 503; });
}

TEST_F(AGateway, CountsTheKillsThatAreRememberedWhereItMayNotReadTheLedger) {
  const pid_t pid = register_run("a");
  end_run(pid);
  register_run("b");
  ASSERT_TRUE(world_.supervisor.end(World::id("b"), world_.caller(), world_.now()));
  world_.advance(60s);
  tell_news();

  wait_for([&] { return ask("/api/kills").json()["counts"].size() == 1; });

  const Json counts = ask("/api/kills").json()["counts"];
  EXPECT_EQ(counts[0]["reason"], "requested");
  EXPECT_EQ(counts[0]["count"], 1);
  EXPECT_THAT(counts[0]["at"].get<std::string>(), ::testing::MatchesRegex("....-..-..T..:(00|15|30|45):00Z"));
}

TEST_F(AGateway, AsksTheDaemonOnceASecondHoweverManyAskIt) {
  for (int i = 0; i < 100; ++i) register_run("run " + std::to_string(i));
  ASSERT_EQ(ask("/api/quests/status").status, 200);
  constexpr std::size_t kRequests = 2000;
  std::string requests;
  for (std::size_t i = 0; i < kRequests; ++i) requests += "GET /api/quests/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const unsigned before = looks_;
  const Instant begin = loop_.now().monotonic;
  const UniqueFd socket = connect();
  std::string text;
  std::size_t answers = 0;
  std::size_t from = 0;
  std::string_view unsent = requests;

  wait_for([&] {
    const ssize_t wrote = ::send(socket.get(), unsent.data(), unsent.size(), MSG_NOSIGNAL);
    if (wrote > 0) unsent.remove_prefix(static_cast<std::size_t>(wrote));
    EXPECT_TRUE(read_from(socket, text));
    for (std::size_t at; (at = text.find("HTTP/1.1 200 OK", from)) != std::string::npos; from = at + 1) ++answers;
    return answers == kRequests;
  });

  const Span took = loop_.now().monotonic - begin;
  std::printf("%zu answers in %lld ms\n", answers, static_cast<long long>(took / 1ms));
  EXPECT_LE(looks_ - before, 2 + static_cast<unsigned>(took / 1s));
}

TEST_F(AGateway, ShowsThePageAndNothingThatIsNotOfIt) {
  const Response page = ask("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.body, "<p>the page</p>");
  EXPECT_THAT(page.head, AllOf(HasSubstr("Content-Type: text/html"), HasSubstr("default-src 'none'")));
  EXPECT_THAT(ask("/assets/page.js").head, HasSubstr("text/javascript"));
  for (const char* target : {"/assets/notes.md", "/assets/../secret.js", "/assets/..%2Fsecret.js", "/assets/secret.js",
                             "/secret.js", "/assets/", "/assets/."}) {
    EXPECT_EQ(ask(target).status, 404) << target;
  }
}

// ---- the daemon comes and goes ----

TEST_F(AGateway, SaysThatTheDaemonIsAwayAndNoNumber) {
  register_run("one");
  EXPECT_EQ(ask("/healthz").status, 200);

  stop_daemon();

  wait_for([&] { return !live_->is_there(); });
  const Response status = ask("/api/quests/status");
  EXPECT_EQ(status.status, 503);
  EXPECT_EQ(status.body, R"({"watchdog":{"monitored_count":0,"grace_count":0,"kills_last_24h":0,"recent_events":[]}})");
  for (const char* target :
       {"/healthz", "/api/analyses", "/api/events", "/api/events/stream", "/api/kills", "/api/viewer",
        "/api/analyses/one", "/api/analyses/one/series", "/api/analyses/one/explain", "/api/analysis?id=one"}) {
    EXPECT_EQ(ask_known(target).status, 503) << target;
    EXPECT_TRUE(ask_known(target).json().contains("error")) << target;
  }
  const Response metrics = ask("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.body, HasSubstr("up 0\n"));

  start_daemon();

  wait_for([&] { return live_->is_there(); });
  EXPECT_EQ(ask("/api/quests/status").json()["watchdog"]["monitored_count"], 1);
  EXPECT_THAT(ask("/metrics").body, HasSubstr("up 1\n"));
}

// ---- metrics ----

TEST_F(AGateway, GivesTheDaemonsMetricsAndItsOwn) {
  register_run("one");
  (void)ask("/nothing/of/ours");
  auto stream = open_stream();
  await(stream, "status");

  const Response metrics = ask("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");

  EXPECT_THAT(metrics.head, HasSubstr("application/openmetrics-text; version=1.0.0"));
  for (const char* line :
       {"analysis_watchdog_up 1\n", "analysis_watchdog_runs{state=\"running\"} 1\n",
        "analysis_watchdog_registrations_total 1\n", "analysis_watchdog_web_answers_total{code=\"404\"} 1\n",
        "analysis_watchdog_web_streams 1\n", "\n# EOF\n"}) {
    EXPECT_THAT(metrics.body, HasSubstr(line));
  }
}

TEST_F(AGateway, GivesMetricsInTheFormThatIsAskedFor) {
  const Response older = ask("/metrics");
  EXPECT_THAT(older.head, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(older.body, Not(HasSubstr("# EOF")));
  EXPECT_THAT(ask("/metrics", "Accept: application/openmetrics-text\r\n").body, HasSubstr("# EOF"));
}

TEST_F(AGateway, HasSeriesOfEachAnalysisOnlyWhereThatIsWantedAndForWhoSeesThem) {
  register_run(kSecret);
  const auto series = [](const Response& response) {
    return response.body.find("analysis_watchdog_analysis_processes{id=\"hush\"} 1\n") != std::string::npos;
  };
  EXPECT_FALSE(series(ask_known("/metrics")));

  analyses_in_metrics_ = 10;
  start_gateway();

  EXPECT_TRUE(series(ask_known("/metrics"))) << ask_known("/metrics").body;
  EXPECT_THAT(ask("/metrics").body, Not(HasSubstr(kSecret)));
  EXPECT_THAT(ask_known("/metrics").body, HasSubstr("analysis_watchdog_analyses_without_series 0\n"));
}

TEST_F(AGateway, TakesADaemonThatDoesNotAnswerForAway) {
  patience_ = 1s;
  start_gateway();
  ASSERT_EQ(ask("/healthz").status, 200);
  stop_daemon();
  auto silent = bus::Connection::open(bus::BusKind::kUser).value();
  ASSERT_TRUE(silent->attach(loop_, [] {}));
  const auto served = silent->serve(names::kManagerPath, [](const bus::Message&) {}).value();
  take_name(*silent);

  EXPECT_EQ(ask("/api/quests/status").status, 503);
  EXPECT_EQ(ask("/api/analyses").status, 503);
}

TEST_F(AGateway, AnswersWhereSomethingIsAlwaysOnItsWayFromASlowDaemon) {
  stop_daemon();
  auto slow = bus::Connection::open(bus::BusKind::kUser).value();
  ASSERT_TRUE(slow->attach(loop_, [] {}));
  const auto answer = [&](const bus::Message& call) {
    bus::Message reply = bus::Connection::new_reply(call);
    if (call.member() == "GetAll")
      reply.append(bus::Dict{});
    else
      reply.append(std::vector<bus::Dict>{});
    slow->send(std::move(reply));
  };
  // Then it answers a question about its counts when the next one about events comes, and the other way round.
  bool is_slow = false;
  std::string held_member;
  std::optional<bus::Message> held;
  int crossings = 0;
  const auto served = slow->serve(names::kManagerPath, [&](const bus::Message& call) {
    const std::string member = call.member();
    if (!is_slow || (member != "GetAll" && member != "ListEvents")) return answer(call);
    ASSERT_NE(member, held_member);
    if (held) answer(*held);
    held = bus::Message::share(call.raw());
    held_member = member;
    ++crossings;
  });
  ASSERT_TRUE(served);
  take_name(*slow);
  Stream stream = open_stream();  // Who listens has both asked for all the time.
  await(stream, "analyses");
  is_slow = true;

  for (int i = 0; i < 3; ++i) {
    wait_for([&, before = crossings] { return crossings >= before + 2; });
    EXPECT_EQ(ask("/api/quests/status").status, 200);
  }
}

/// Which takes 5 ms for an event, and does not answer a question about more than a hundred.
class AGatewayOfASlowDaemon : public AGateway {
 protected:
  static constexpr std::uint32_t kMost = 100;

  void SetUp() override {
    testing::OnAPrivateBus::SetUp();
    if (IsSkipped()) return;
    slow_ = bus::Connection::open(bus::BusKind::kUser).value();
    ASSERT_TRUE(slow_->attach(loop_, [] {}));
    auto served = slow_->serve(names::kManagerPath, [this](const bus::Message& call) {
      bus::Message question = bus::Message::share(call.raw());
      bus::Message reply = bus::Connection::new_reply(call);
      if (call.member() == "GetAll") {
        reply.append(bus::Dict{});
      } else if (call.member() == "ListEvents") {
        const auto filter = question.read_dict().value();
        const auto limit = *bus::find(filter, "Limit")->get_if<std::uint32_t>();
        asked_.push_back(limit);
        if (limit > kMost) return;
        const auto end = happened_.rbegin() + std::min<std::ptrdiff_t>(limit, std::ssize(happened_));
        reply.append(std::vector<bus::Dict>(happened_.rbegin(), end));
        late_ = std::move(reply);
        return loop::Loop::set_timer(answer_, add_span(loop_.now().monotonic, limit * 5ms));
      } else {
        reply.append(std::vector<bus::Dict>{});
      }
      slow_->send(std::move(reply));
    });
    ASSERT_TRUE(served);
    served_ = std::move(*served);
    auto answer = loop_.add_timer(loop::Priority::kBus, "a slow answer",
                                  [this](const Now&) { slow_->send(std::move(*std::exchange(late_, std::nullopt))); });
    ASSERT_TRUE(answer);
    answer_ = std::move(*answer);
    take_name(*slow_);
    happen(500);
    patience_ = 500ms;
    start_gateway();
    wait_for([&] { return live_->is_there(); });
  }
  void happen(int count) {
    for (; count > 0; --count) {
      const std::uint64_t number = happened_.size();
      happened_.push_back({{"event_id", {std::to_string(number)}}, {"occurred_at", {1'000'000 + number}}});
    }
  }
  /// The numbers of the events that are known, which are to be the newest without a gap.
  void expect_newest(std::size_t count) {
    ASSERT_EQ(live_->events().size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(live_->events()[i]->event_id, std::to_string(happened_.size() - 1 - i));
    }
  }

  std::unique_ptr<bus::Connection> slow_;
  bus::Slot served_;
  loop::Source answer_;
  std::optional<bus::Message> late_;
  std::vector<bus::Dict> happened_;  ///< oldest first
  std::vector<std::uint32_t> asked_;
};

TEST_F(AGatewayOfASlowDaemon, AsksForFewerEventsUntilItAnswers) {
  EXPECT_EQ(ask("/healthz").status, 200);
  EXPECT_THAT(asked_, ElementsAre(1000, 250, 62));
  expect_newest(62);
}

TEST_F(AGatewayOfASlowDaemon, LeavesWhatWasBeforeToTheLedgerRatherThanAGap) {
  happen(3);
  Stream stream = open_stream();  // Who listens has it asked for news.
  wait_for([&] { return live_->events().size() == 65; });
  expect_newest(65);

  happen(200);

  wait_for([&] { return live_->events().front()->event_id == "702"; });
  expect_newest(62);
}

TEST_F(AGateway, FindsTheBusAgainWhenThatWasRestarted) {
  ASSERT_EQ(ask("/healthz").status, 200);
  stop_daemon();

  restart_bus();

  EXPECT_EQ(ask("/api/quests/status").status, 503);
  start_daemon();
  wait_for([&] { return live_->is_there(); });
  EXPECT_EQ(ask("/healthz").status, 200);
}

// ---- streams ----

TEST_F(AGateway, TellsAStreamOfEachRunFromItsBeginningToItsEnd) {
  register_run("before");
  Stream stream = open_stream("Authorization: Bearer " + kToken + "\r\n");
  EXPECT_EQ(Json::parse(await(stream, "status"))["monitored_count"], 1);
  EXPECT_THAT(await(stream, "analyses"), HasSubstr("\"before\""));

  const pid_t pid = register_run("after");

  const Json row = Json::parse(await(stream, "analyses", "\"after\""));
  end_run(pid);
  const std::size_t before_the_end = stream.from;
  const Json gone = Json::parse(await(stream, "gone"));
  stream.from = before_the_end;  // The record may come first.
  await(stream, "record", "\"kind\":\"ended\"");
  EXPECT_EQ(gone["key"], row.back()["key"]);
  EXPECT_EQ(gone["run_id"], row.back()["run_id"]);
  EXPECT_THAT(stream.text, HasSubstr("Content-Type: text/event-stream"));
}

TEST_F(AGateway, TellsAStreamAtOnceThatARunIsEnding) {
  world_.process(register_run("slow")).on_term = testing::OnTerm::kIgnores;
  Stream stream = open_stream("Authorization: Bearer " + kToken + "\r\n");
  await(stream, "analyses");

  ASSERT_TRUE(world_.supervisor.end(World::id("slow"), world_.caller(0), world_.now()));
  tell_news();

  EXPECT_EQ(Json::parse(await(stream, "analyses", "\"ending\""))[0]["registered_as"], "slow");
}

TEST_F(AGateway, TellsAStreamOfWhatHappenedAfterTheClockWasSetBack) {
  register_run("before");
  Stream stream = open_stream("Authorization: Bearer " + kToken + "\r\n");
  await(stream, "analyses", "\"before\"");

  set_back_ = 1h;
  register_run("after");

  await(stream, "record", "\"after\"");
  const Json events = ask_known("/api/events").json();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1]["registered_as"], "after") << "newest first, by what the clock said";
}

TEST_F(AGateway, TellsAStreamOfEachOfManyEventsAtOnceInTheirOrder) {
  Stream stream = open_stream("Authorization: Bearer " + kToken + "\r\n");
  await(stream, "analyses");
  register_run("first");
  await(stream, "record", "\"first\"");

  for (int i = 0; i < 200; ++i) end_run(register_run("run " + std::to_string(i)));

  wait_for([&] { return live_->events().size() == 401; });
  EXPECT_THAT(await(stream, "record"), HasSubstr("\"run 0\""));
  await(stream, "record", "\"run 199\"");
}

TEST_F(AGateway, TellsAnAnonymousStreamNoNames) {
  Stream stream = open_stream();
  await(stream, "analyses");

  end_run(register_run(kSecret));

  await(stream, "record", "ended");
  await(stream, "status");
  EXPECT_THAT(stream.text, Not(HasSubstr(kSecret)));
}

TEST_F(AGateway, TellsAStreamThatTheDaemonHasGoneAndIsBack) {
  register_run("one");
  Stream stream = open_stream();
  await(stream, "analyses");

  stop_daemon();
  await(stream, "away");
  start_daemon();

  await(stream, "back");
  EXPECT_EQ(Json::parse(await(stream, "status"))["monitored_count"], 1);
  EXPECT_EQ(Json::parse(await(stream, "analyses")).size(), 1U);
}

TEST_F(AGateway, TellsAStreamThatComesBackWhatItHasMissed) {
  register_run("one");
  const std::string seen = ask_known("/api/events").json()[0]["event_id"];
  register_run("two");
  register_run("three");

  Stream stream = open_stream("Authorization: Bearer " + kToken + "\r\nLast-Event-ID: " + seen + "\r\n");

  await(stream, "record", "\"two\"");
  await(stream, "record", "\"three\"");
  await(stream, "analyses");
  EXPECT_THAT(stream.text.substr(0, stream.text.find("event: status")), Not(HasSubstr("\"one\"")));
}

TEST_F(AGateway, BeginsAStreamHoweverMuchItBeginsWith) {
  ServerLimits limits;
  limits.unsent = 600'000;  // Some letters of the status, which are 100 kB each with such events; not all runs.
  start_gateway(limits);
  supervise::Limits heavy;
  for (int i = 0; i < 10; ++i) heavy.labels[std::to_string(i)] = std::string(1000, 'v');
  for (int i = 0; i < 80; ++i) register_run("run " + std::to_string(i), heavy);
  // All that is to be told of them has been told.
  wait_for([&] { return ask_known("/api/analyses").json().size() == 80; });
  // The daemon is only asked while somebody listens. Whoever comes first may be told of all twice, and be cut: it comes
  // again, until somebody has listened for a while.
  const std::string known = "Authorization: Bearer " + kToken + "\r\n";
  Stream first = open_stream(known);
  wait_for([&, quiet = loop_.now().monotonic + 4s]() mutable {
    if (!read_from(first.socket, first.text)) {
      first = open_stream(known);
      quiet = loop_.now().monotonic + 4s;
    }
    return loop_.now().monotonic >= quiet && first.text.find("event: analyses") != std::string::npos;
  });

  Stream stream = open_stream(known);

  EXPECT_GT(await(stream, "analyses").size(), 80 * 10 * 1000U);
  // It is a stream like any other from there on.
  register_run("after");
  await(stream, "analyses", "\"after\"");
}

TEST_F(AGateway, TellsAStreamThatComesBackAfterALongTimeTheNewestThatItHasMissed) {
  register_run("seen");
  const std::string seen = ask_known("/api/events").json()[0]["event_id"];
  const std::size_t runs = Gateway::kMostMissed / 2 + 10;  // Each of which comes and goes.
  for (std::size_t i = 0; i < runs; ++i) {
    end_run(register_run("run " + std::to_string(i)));
  }
  wait_for([&] { return live_->events().size() == 2 * runs + 1; });
  const Json newest = ask_known("/api/events?limit=" + std::to_string(Gateway::kMostMissed)).json();

  Stream stream = open_stream("Authorization: Bearer " + kToken + "\r\nLast-Event-ID: " + seen + "\r\n");

  EXPECT_EQ(Json::parse(await(stream, "record")), newest.back());
  await(stream, "analyses");
  std::size_t told = 0;
  for (std::size_t at = 0; (at = stream.text.find("event: record\n", at)) != std::string::npos; ++at) ++told;
  EXPECT_EQ(told, Gateway::kMostMissed);
}

TEST_F(AGateway, CutsOffAStreamThatIsNotRead) {
  ServerLimits limits;
  limits.unsent = 1 << 20;
  start_gateway(limits);
  supervise::Limits heavy;
  heavy.description = std::string(1024, 'd');
  for (int i = 0; i < 8; ++i) heavy.labels[std::to_string(i)] = std::string(1000, 'v');
  // Over the unix socket, where the kernel takes a few hundred KiB and not some megabytes.
  Stream reader = open_stream("", Way::kUnix);
  const Stream sleeper = open_stream("", Way::kUnix);
  await(reader, "analyses");
  wait_for([&] { return gateway_->streams() == 2; });

  for (int i = 0; i < 30 && gateway_->streams() == 2; ++i) {
    for (int j = 0; j < 20; ++j) register_run("run " + std::to_string(i * 20 + j), heavy);
    await(reader, "analyses", "\"run " + std::to_string(i * 20 + 19) + "\"");
  }

  expect_cut_off_beside(sleeper, reader);
}

TEST_F(AGateway, HoldsATextThatManyStreamsWaitForOnce) {
  supervise::Limits heavy;
  for (int i = 0; i < 10; ++i) heavy.labels[std::to_string(i)] = std::string(1000, 'v');
  for (int i = 0; i < 200; ++i) register_run("run " + std::to_string(i), heavy);
  wait_for([&] { return ask_known("/api/analyses").json().size() == 200; });
  const std::size_t rows = ask_known("/api/analyses").body.size();
  ASSERT_GT(rows, 200 * 10'000U);

  // Over the unix socket, where the kernel takes a few hundred KiB and not some megabytes.
  std::vector<Stream> sleepers;
  for (int i = 0; i < 30; ++i) sleepers.push_back(open_stream("", Way::kUnix));
  wait_for([&] { return gateway_->streams() == 30 && server_->counts().stream_bytes > rows; });

  // The list at the beginning, and once or twice what was new since.
  EXPECT_LT(server_->counts().stream_bytes, 6 * rows);
}

TEST_F(AGateway, CutsOffTheSlowestStreamWhenAllTogetherLeaveTooMuch) {
  ServerLimits limits;
  limits.unsent = 1 << 30;
  limits.all_streams = 2 << 20;
  start_gateway(limits);
  supervise::Limits heavy;
  for (int i = 0; i < 8; ++i) heavy.labels[std::to_string(i)] = std::string(1000, 'v');
  Stream reader = open_stream("", Way::kUnix);
  const Stream sleeper = open_stream("", Way::kUnix);
  await(reader, "analyses");
  wait_for([&] { return gateway_->streams() == 2; });

  for (int i = 0; i < 30 && gateway_->streams() == 2; ++i) {
    for (int j = 0; j < 15; ++j) register_run("run " + std::to_string(i * 15 + j), heavy);
    await(reader, "analyses");
  }

  expect_cut_off_beside(sleeper, reader);
  EXPECT_LE(server_->counts().stream_bytes, limits.all_streams);
}

TEST_F(AGateway, KeepsStreamsFreeForThoseWhoAreKnown) {
  most_anonymous_streams_ = 2;
  start_gateway();
  Stream first = open_stream();
  Stream second = open_stream();
  await(first, "analyses");
  await(second, "analyses");

  const Response third = ask("/api/events/stream");
  EXPECT_EQ(third.status, 503);
  EXPECT_THAT(third.head, HasSubstr("Retry-After: "));
  Stream known = open_stream("Authorization: Bearer " + kToken + "\r\n");
  await(known, "analyses");
  Stream own = open_stream("", Way::kUnix);
  await(own, "analyses");
}

TEST_F(AGateway, KeepsStreamsFreeForOtherUsers) {
  most_streams_of_one_ = 2;
  start_gateway({}, kSeenByTheTokenOnly);
  Stream first = open_stream("", Way::kUnix);
  Stream second = open_stream("", Way::kUnix);
  await(first, "analyses");
  await(second, "analyses");

  const Response third = ask("/api/events/stream", "", Way::kUnix);
  EXPECT_EQ(third.status, 503);
  EXPECT_THAT(third.body, HasSubstr("2 streams of this user are open already"));
  Stream known = open_stream("Authorization: Bearer " + kToken + "\r\n", Way::kUnix);
  await(known, "analyses");
  Stream anonymous = open_stream();
  await(anonymous, "analyses");
}

TEST_F(AGateway, KeepsConnectionsFreeForOtherUsers) {
  ServerLimits limits;
  limits.connections_of_one = 3;
  start_gateway(limits);
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(connect(Way::kUnix));
  wait_for([&] { return server_->counts().connections == 3; });

  const Response fourth = ask("/healthz", "", Way::kUnix);
  EXPECT_EQ(fourth.status, 503);
  EXPECT_THAT(fourth.json()["error"].get<std::string>(), HasSubstr("too many connections"));
  EXPECT_EQ(ask("/healthz").status, 200) << "nobody is known there";
  idle.pop_back();
  wait_for([&] { return server_->counts().connections == 2; });
  EXPECT_EQ(ask("/healthz", "", Way::kUnix).status, 200);
}

TEST_F(AGateway, AsksForFewCurvesAtATime) {
  register_run("one");
  ASSERT_EQ(ask_known("/api/analyses/one").status, 200);
  constexpr int kAtOnce = 60;
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < kAtOnce; ++i) {
    sockets.push_back(connect(Way::kUnix));
    write_to(sockets.back(), "GET /api/analyses/one/series HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  }

  int refused = 0;
  for (const UniqueFd& socket : sockets) {
    std::string text;
    wait_for([&] { return !read_from(socket, text); });
    const Response response = parse_response(text);
    if (response.body.find("too many curves") == std::string::npos) continue;
    ++refused;
    EXPECT_EQ(response.status, 503);
    EXPECT_THAT(response.head, HasSubstr("Retry-After: "));
  }
  EXPECT_GT(refused, 0);
  EXPECT_LE(refused, kAtOnce - static_cast<int>(Gateway::kMostSeriesAtOnce));
  EXPECT_THAT(ask_known("/api/analyses/one/series").body, Not(HasSubstr("too many curves")));
}

TEST_F(AGateway, SaysThatMoreIsOnRecordThanCanBeRead) {
  register_run("one");
  const std::string said = "Analysis-Watchdog-Incomplete: ";
  for (const char* target : {"/api/events", "/api/kills", "/api/events?kind=ended"}) {
    EXPECT_THAT(ask_known(target).head, HasSubstr(said)) << target;
  }
  EXPECT_THAT(ask_known("/api/analyses/one").head, HasSubstr(said));
  EXPECT_THAT(ask_known("/api/events?limit=1").head, Not(HasSubstr(said))) << "that is all that was asked for";
}

TEST_F(AGateway, TakesAnEmptyParameterForNone) {
  EXPECT_EQ(ask_known("/api/events?since=&until=&id=&run=&reason=&kind=&limit=").status, 200);
}

TEST_F(AGateway, KeepsRoomForAnswersToThoseWhoAreKnown) {
  std::ofstream(dir_ / "page/large.js") << std::string(6 << 20, ' ');
  ServerLimits limits;
  limits.all_bodies = 8 << 20;
  start_gateway(limits);
  const UniqueFd slow = connect(Way::kUnix);
  write_to(slow, "GET /assets/large.js HTTP/1.1\r\nHost: localhost\r\n\r\n");
  wait_for([&] { return server_->counts().body_bytes > limits.all_bodies / 2; });

  const Response anonymous = ask("/api/events");
  EXPECT_EQ(anonymous.status, 503);
  EXPECT_THAT(anonymous.head, HasSubstr("Retry-After: "));
  EXPECT_EQ(ask_known("/api/events").status, 200);
  EXPECT_EQ(ask("/api/quests/status").status, 200) << "of which there is one for all";
}

TEST_F(AGateway, KeepsNoConnectionThatIsDoneWithWhereThereAreMany) {
  ServerLimits limits;
  limits.connections = 9;
  start_gateway(limits);
  const std::string request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
  std::vector<UniqueFd> idle;
  std::string text;
  idle.push_back(connect());
  write_to(idle.back(), request);
  wait_for([&] { return read_from(idle.back(), text) && text.find("\r\n\r\n{") != std::string::npos; });
  EXPECT_THAT(text, Not(HasSubstr("Connection: close")));
  for (int i = 0; i < 6; ++i) idle.push_back(connect());
  wait_for([&] { return server_->counts().connections == 7; });

  EXPECT_THAT(exchange(request), HasSubstr("Connection: close"));
  EXPECT_THAT(exchange(request), HasSubstr(" 200 OK"));
}

TEST_F(AGateway, HoldsHundredsOfIdleStreamsAndAnswersBesideThem) {
  std::vector<Stream> streams;
  for (int i = 0; i < 300; ++i) streams.push_back(open_stream());
  for (Stream& stream : streams) await(stream, "analyses");

  register_run("one");

  for (Stream& stream : streams) await(stream, "record");
  EXPECT_EQ(ask("/api/quests/status").json()["watchdog"]["monitored_count"], 1);
}

// ---- who may call, and how ----

TEST_F(AGateway, AnswersNobodyWhoCallsItByAnothersName) {
  const auto ask_at = [&](const std::string& host) {
    return parse_response(exchange("GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: " + host + "\r\n\r\n")).status;
  };
  EXPECT_EQ(ask_at("localhost:8787"), 200);
  EXPECT_EQ(ask_at("127.0.0.1"), 200);
  EXPECT_EQ(ask_at("[::1]:8787"), 200);
  EXPECT_EQ(ask_at("BATCH1:8787"), 200);
  EXPECT_EQ(ask_at("evil.example"), 421);
  EXPECT_EQ(ask_at("localhost.evil.example:8787"), 421);
  EXPECT_EQ(ask_at("a b"), 400);
  EXPECT_EQ(ask_at("localhost\r\nHost: evil.example"), 400) << "two at once";
  EXPECT_THAT(exchange("GET /healthz HTTP/1.0\r\n\r\n"), HasSubstr(" 400 ")) << "who says no name at all";
}

TEST_F(AGateway, RefusesAWrongTokenAndLogsInWithTheRightOne) {
  EXPECT_EQ(ask("/api/analyses", "Authorization: Bearer wrong\r\n").status, 401);
  const auto log_in = [&](const std::string& token, const std::string& more = "") {
    const std::string body = "token=" + token;
    return ask("/login",
               "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: " + std::to_string(body.size()) +
                   "\r\n" + more,
               Way::kTcp, "POST", body);
  };
  EXPECT_EQ(log_in("wrong").status, 401);
  EXPECT_EQ(log_in("a+token+of+tests", "Sec-Fetch-Site: cross-site\r\n").status, 403);

  const Response in = log_in("a+token+of+tests", "Sec-Fetch-Site: same-origin\r\n");

  EXPECT_EQ(in.status, 303);
  const std::size_t at = in.head.find("Set-Cookie: ");
  ASSERT_NE(at, std::string::npos) << in.head;
  const std::string cookie = in.head.substr(at + 12, in.head.find(';', at) - at - 12);
  EXPECT_THAT(in.head.substr(at), AllOf(HasSubstr("HttpOnly"), HasSubstr("SameSite=Strict")));
  EXPECT_THAT(cookie, Not(HasSubstr("token")));
  EXPECT_EQ(ask("/api/viewer", "Cookie: " + cookie + "\r\n").json()["sight"], "all");
  EXPECT_EQ(ask("/api/viewer", "Cookie: " + cookie + "x\r\n").json()["sight"], "anonymous");
  const Response out = ask("/logout", "Content-Length: 0\r\nCookie: " + cookie + "\r\n", Way::kTcp, "POST");
  EXPECT_THAT(out.head, HasSubstr("Max-Age=0"));
}

TEST_F(AGateway, ShowsNothingFurtherOutToWhoIsNotKnown) {
  register_run("one");
  listen_at_ = "0.0.0.0:0";
  start_gateway();

  for (const char* target : {"/api/quests/status", "/api/analyses", "/api/events", "/api/events/stream", "/api/kills",
                             "/api/viewer", "/api/analyses/one", "/metrics"}) {
    const Response response = ask(target);
    EXPECT_EQ(response.status, 401) << target;
    EXPECT_THAT(response.body, HasSubstr("/login")) << target;
  }
  for (const char* target : {"/", "/assets/page.js", "/login", "/healthz"})
    EXPECT_EQ(ask(target).status, 200) << target;
  for (const char* target : {"/api/quests/status", "/api/analyses", "/metrics"}) {
    EXPECT_EQ(ask_known(target).status, 200) << target;
  }
  EXPECT_EQ(ask("/api/analyses", "", Way::kUnix).status, 200);

  start_gateway({}, {"", {}, {}});
  EXPECT_EQ(ask("/api/quests/status").status, 401);
  EXPECT_THAT(ask("/api/quests/status").body, HasSubstr("give it one"));
}

TEST(AListeningSocket, IsFurtherOutUnlessItIsOfThisHostAlone) {
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    const auto socket = open_listener(address);
    if (!socket) continue;  // There may be no IPv6.
    EXPECT_TRUE(listens_further_out(socket->get())) << address;
  }
  for (const char* address : {"127.0.0.1:0", "127.8.9.10:0", "[::1]:0", "[::ffff:127.0.0.1]:0"}) {
    const auto socket = open_listener(address);
    if (!socket) continue;
    EXPECT_FALSE(listens_further_out(socket->get())) << address;
  }
}

TEST_F(AGateway, EndsStreamsWhenItsReadersChange) {
  register_run(kSecret);
  const std::string authorized = "Authorization: Bearer " + kToken + "\r\n";
  Stream known = open_stream(authorized);
  Stream anonymous = open_stream();
  await(known, "analyses");
  await(anonymous, "analyses");

  gateway_->set_readers(Gatekeeper({"another token of tests", {}, {}}), {});

  wait_for([&] { return !read_from(known.socket, known.text); });
  wait_for([&] { return !read_from(anonymous.socket, anonymous.text); });
  wait_for([&] { return gateway_->streams() == 0; });
  EXPECT_EQ(ask("/api/events/stream", authorized).status, 401);
  Stream again = open_stream();
  EXPECT_THAT(await(again, "analyses"), Not(HasSubstr(kSecret)));
}

TEST_F(AGateway, IsOnlyRead) {
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    const Response response = ask("/api/analyses", "Content-Length: 0\r\n", Way::kTcp, method);
    EXPECT_EQ(response.status, 405) << method;
    EXPECT_THAT(response.head, HasSubstr("Allow: GET, HEAD"));
  }
  const Response head = ask("/api/quests/status", "", Way::kTcp, "HEAD");
  EXPECT_EQ(head.status, 200);
  EXPECT_THAT(head.body, IsEmpty());
  EXPECT_EQ(ask("/api/events/stream", "", Way::kTcp, "HEAD").status, 200);
}

TEST_F(AGateway, SaysWhatIsWrongWithARequestAndWhatWouldBeTaken) {
  const std::vector<std::pair<std::string, std::string>> bad{{"/api/events?limit=-1", "0 to 5000"},
                                                             {"/api/events?limit=5001", "0 to 5000"},
                                                             {"/api/events?limit=ten", "0 to 5000"},
                                                             {"/api/events?since=soon", "since: "},
                                                             {"/api/events?kind=killed", "escalated"},
                                                             {"/api/events?reason=bad", "wall-clock"},
                                                             {"/api/events?id=%01", "id: "},
                                                             {"/api/events?run=x", "together with id"},
                                                             {"/api/events?colour=red", "since, until"},
                                                             {"/api/events?limit=1&limit=2", "twice"},
                                                             {"/api/quests/status?x=1", "there are none"},
                                                             {"/api/analyses/a%00b", "%00"},
                                                             {"/api/analyses/%ff", "UTF-8"},
                                                             {"/api/analyses/%7f", ""},
                                                             {"/api/analyses/%zz", "hexadecimal"},
                                                             {"/api/analyses/" + std::string(256, 'a'), "255"}};
  for (const auto& [target, words] : bad) {
    const Response response = ask_known(target);
    EXPECT_EQ(response.status, 400) << target;
    EXPECT_THAT(response.json().value("error", ""), HasSubstr(words)) << target;
  }
  EXPECT_EQ(ask("/nothing").status, 404);
  EXPECT_THAT(ask("/nothing").body, HasSubstr("analysis-watchdog-web(8)"));
  EXPECT_THAT(ask("/api/events?limit=501").json().value("error", ""), HasSubstr("500 at most"));
  EXPECT_EQ(ask("/api/events?limit=501").status, 400);
  EXPECT_EQ(ask("/api/events?limit=500").status, 200);
  EXPECT_EQ(ask_known("/api/events?limit=501").status, 200);
}

TEST_F(AGateway, TakesNoHugeRequests) {
  EXPECT_EQ(ask("/" + std::string(100'000, 'a')).status, 414);
  EXPECT_EQ(ask("/healthz", "X: " + std::string(100'000, 'a') + "\r\n").status, 431);
  EXPECT_EQ(ask("/login", "Content-Length: 1000000\r\n", Way::kTcp, "POST").status, 413);
  EXPECT_EQ(ask("/login", "Transfer-Encoding: chunked\r\n", Way::kTcp, "POST",
                "2000\r\n" + std::string(0x2000, 'a') + "\r\n0\r\n\r\n")
                .status,
            413);
  for (const char* nonsense :
       {"\r\n\r\n\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"}) {
    const UniqueFd socket = connect();
    write_to(socket, nonsense);
  }
  EXPECT_EQ(ask("/healthz").status, 200);
}

TEST_F(AGateway, CutsOffHalfARequestHoweverSlowlyItGoesOn) {
  ServerLimits limits;
  limits.request_time = 1s;
  start_gateway(limits);
  const UniqueFd socket = connect();
  write_to(socket, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ");
  std::string text;
  wait_for([&] {
    (void)::send(socket.get(), "a", 1, MSG_NOSIGNAL);
    return !read_from(socket, text);
  });
}

}  // namespace
}  // namespace aw::web
