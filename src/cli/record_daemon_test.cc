// SPDX-License-Identifier: Apache-2.0
//
// The record with a daemon, which does nothing but remember, on a bus of the test's own.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <fstream>
#include <thread>

#include "analysis_watchdog/names.h"
#include "cli/commands.h"
#include "cli/record_source.h"
#include "cli/report.h"
#include "ledger/ledger_file.h"
#include "loop/loop.h"
#include "record/event_dict.h"
#include "testing/private_bus.h"
#include "testing/records.h"

namespace aw::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using supervise::EventRecord;
using ::testing::IsEmpty;

EventRecord end(int number) {
  EventRecord event = testing::full_event("e" + std::to_string(number));
  event.run_id = "run-" + std::to_string(number);
  event.host = this_host();
  event.occurred_at = WallTime(std::chrono::seconds{1'700'000'000 + number});
  return event;
}

/// Remembers the ends from `first` to `last`; "Advance" adds the next one and tells of it. "Asked" says who was the
/// last to ask for them, and how often that was done.
class Daemon {
 public:
  Daemon(int first, int last) : first_(first), last_(last), loop_(loop::Loop::create().value()) {}

  [[noreturn]] void run(int ready) {
    connection_ = bus::Connection::open(bus::BusKind::kUser).value();
    AW_ASSERT(connection_->attach(loop_, [this] { loop_.exit(0); }).has_value());
    served_ = connection_->serve(names::kManagerPath, [this](bus::Message m) { on_call(std::move(m)); }).value();
    connection_->request_name(names::kBusName, [ready](const Result<void>& done) {
      AW_ASSERT(done.has_value());
      (void)!::write(ready, "!", 1);
    });
    ::_exit(loop_.run());
  }

 private:
  void on_call(bus::Message call) {
    auto reply = bus::Connection::new_reply(call);
    if (call.member() == "Advance") {
      ++last_;
      connection_->send(std::move(reply));
      return connection_->send(connection_->new_signal(names::kManagerPath, names::kManagerInterface, "AnalysisEnded"));
    }
    if (call.member() == "Asked") return connection_->send(std::move(reply.append(reader_).append(asked_)));
    reader_ = call.sender();
    ++asked_;
    const bus::Dict filter = call.read_dict().value();
    const std::uint64_t since = number_of(filter, "Since").value_or(0);
    std::vector<bus::Dict> events;
    for (int i = last_; i >= first_; --i) {
      bus::Dict event = record::to_dict(end(i));
      if (number_of(event, "occurred_at").value_or(0) >= since) events.push_back(std::move(event));
    }
    connection_->send(std::move(reply.append(events)));
  }

  int first_, last_;
  std::string reader_;
  std::uint64_t asked_ = 0;
  loop::Loop loop_;
  std::unique_ptr<bus::Connection> connection_;
  bus::Slot served_;
};

class ARecordWithADaemon : public testing::OnAPrivateBus {
 protected:
  ARecordWithADaemon() {
    std::string pattern = (fs::temp_directory_path() / "record-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    std::ofstream(dir_ / "conf") << "[Ledger]\nPath=" << (dir_ / "ledger.db").string() << "\n";
  }
  ~ARecordWithADaemon() override {
    for (const pid_t child : children_) stop(child);
    fs::remove_all(dir_);
  }

  static void stop(pid_t child) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }

  template <class Body>
  pid_t fork_to(Body&& body) {
    const pid_t child = ::fork();
    AW_ASSERT(child >= 0);
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      body();
      ::_exit(0);
    }
    children_.push_back(child);
    return child;
  }

  pid_t start_daemon(int first, int last) {
    std::array<int, 2> ends{};
    AW_ASSERT(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const UniqueFd read(ends[0]);
    UniqueFd write(ends[1]);
    const pid_t daemon = fork_to([&] { Daemon(first, last).run(write.get()); });
    write.reset();
    char c = 0;
    EXPECT_EQ(::read(read.get(), &c, 1), 1);
    return daemon;
  }
  static void advance_daemon() {
    auto connection = bus::Connection::open(bus::BusKind::kUser).value();
    (void)connection->call_blocking(
        connection->new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, "Advance"));
  }

  struct Asked {
    std::string reader;
    std::uint64_t times;
  };
  static Asked asked(bus::Connection& connection) {
    auto reply = connection.call_blocking(
        connection.new_call(names::kBusName, names::kManagerPath, names::kManagerInterface, "Asked"));
    auto& answer = std::get<bus::Message>(reply);
    std::string reader = answer.read_string().value();
    return {std::move(reader), answer.read_u64().value()};
  }

  void write(int first, int last) {
    auto file = ledger::LedgerFile::open(dir_ / "ledger.db", std::nullopt);
    ASSERT_TRUE(file) << file.error().message;
    std::deque<ledger::Entry> entries;
    for (int i = first; i <= last; ++i) entries.emplace_back(end(i));
    ASSERT_TRUE(file->commit(entries));
  }

  std::string numbers(const EventQuery& query = {}) const {
    auto source = RecordSource::open({.bus = bus::BusKind::kUser, .config = dir_ / "conf"});
    if (!source) return source.error().message;
    const auto events = source->read_events(query);
    if (!events) return events.error().message;
    std::string text;
    for (const bus::Dict& event : *events) text += text_of(event, "event_id").back();
    return text;
  }

  void follow(EventOptions options = {}) {
    options.follow = true;
    fork_to([&] {
      AW_ASSERT(::freopen((dir_ / "out").c_str(), "w", stdout) != nullptr);
      ::_exit(events_command({.json = JsonStyle::kShort, .legend = false, .bus = bus::BusKind::kUser}, options,
                             {.config = dir_ / "conf"}));
    });
  }
  /// The numbers that were printed, once there are as many as that.
  std::string followed(std::size_t count) const {
    std::string text;
    for (int i = 0; i < 1000; ++i) {
      text.clear();
      std::ifstream in(dir_ / "out");
      for (std::string line; std::getline(in, line);) text += Json::parse(line).value("event_id", "?").back();
      if (text.size() >= count) break;
      std::this_thread::sleep_for(20ms);
    }
    return text;
  }

  fs::path dir_;
  std::vector<pid_t> children_;
};

TEST_F(ARecordWithADaemon, HasTheLastMomentsFromIt) {
  write(1, 3);
  start_daemon(2, 5);

  EXPECT_EQ(numbers(), "54321");
  EXPECT_EQ(numbers({.limit = 3}), "543");
  EXPECT_EQ(numbers({.until = end(4).occurred_at}), "4321");
}

TEST_F(ARecordWithADaemon, ComesFromItAloneWhereThereIsNoLedger) {
  start_daemon(2, 5);

  EXPECT_EQ(numbers(), "5432");
  auto source = RecordSource::open({.bus = bus::BusKind::kUser, .config = dir_ / "conf"});
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(source->to_json()["kind"], "daemon");
  EXPECT_THAT(source->take_warnings(), IsEmpty());
}

TEST_F(ARecordWithADaemon, IsFollowedByItsSignals) {
  write(1, 3);
  start_daemon(2, 3);
  follow({.limit = 2});
  ASSERT_EQ(followed(2), "23");

  advance_daemon();
  EXPECT_EQ(followed(3), "234");
  advance_daemon();
  EXPECT_EQ(followed(4), "2345");
}

TEST_F(ARecordWithADaemon, IsFollowedByNobodyElsesSignals) {
  start_daemon(2, 3);
  follow();
  ASSERT_EQ(followed(2), "23");
  const auto stranger = bus::Connection::open(bus::BusKind::kUser).value();
  const Asked before = asked(*stranger);

  constexpr std::uint64_t kMany = 200;
  for (std::uint64_t i = 0; i < kMany; ++i) {
    stranger->send_to(stranger->new_signal(names::kManagerPath, names::kManagerInterface, "AnalysisEnded"),
                      before.reader);
  }
  (void)asked(*stranger);  // By now the bus has passed them on.
  advance_daemon();

  EXPECT_EQ(followed(3), "234");
  EXPECT_LT(asked(*stranger).times, before.times + kMany / 4);
}

TEST_F(ARecordWithADaemon, IsFollowedWithoutShowingAnyOfTheOld) {
  start_daemon(2, 3);
  follow({.since = "@1700000004"});
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(followed(0), "");

  advance_daemon();

  EXPECT_EQ(followed(1), "4");
}

TEST_F(ARecordWithADaemon, IsFollowedFromTheLedgerWhenTheDaemonGoes) {
  write(1, 2);
  const pid_t daemon = start_daemon(1, 2);
  follow();
  ASSERT_EQ(followed(2), "12");

  stop(daemon);
  std::erase(children_, daemon);
  write(3, 3);

  EXPECT_EQ(followed(3), "123");
}

}  // namespace
}  // namespace aw::cli
