// SPDX-License-Identifier: Apache-2.0
//
// The ledger with its failpoints compiled in, whatever the build has: each of them in turn goes wrong, by a crash or by
// an error that its system call can give, at a dozen of the times that a short life comes by.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <ostream>
#include <set>

#include "base/failpoint.h"
#include "ledger/ledger.h"
#include "ledger/ledger_reader.h"
#include "ledger/ledger_fixture.h"
#include "testing/records.h"

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using failpoint::Point;
using supervise::EventRecord;
using testing::full_event;
using testing::full_run;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

constexpr int kRuns = 2;
constexpr WallTime kOld(std::chrono::seconds{1'700'000'000});

/// What goes wrong where; 0: a crash.
struct Fault {
  Point* point;
  int error;
  friend void PrintTo(const Fault& fault, std::ostream* out) {
    *out << fault.point->name() << " " << (fault.error == 0 ? "crash" : ::strerrorname_np(fault.error));
  }
};

std::vector<Fault> all_faults() {
  std::vector<Fault> faults;
  for (Point* point : failpoint::points()) {
    if (!std::string_view(point->name()).starts_with("ledger.")) continue;
    faults.push_back({point, 0});
    for (const int error : point->errors()) faults.push_back({point, error});
  }
  return faults;
}

std::string name_of(const ::testing::TestParamInfo<Fault>& fault) {
  std::string name = std::string(fault.param.point->name()) + "_" +
                     (fault.param.error == 0 ? "crash" : ::strerrorname_np(fault.param.error));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '.' || c == '-'; }, '_');
  return name;
}

bool needs_damage(const Point& point) {
  return std::string_view(point.name()) == "ledger.set-aside" ||
         std::string_view(point.name()) == "ledger.was-set-aside";
}

std::string run_id(int run) { return "run-" + std::to_string(run); }

EventRecord event_of(int run, EventKind kind) {
  EventRecord event = full_event(run_id(run) + " " + std::string(to_string(kind)));
  event.run_id = run_id(run);
  event.kind = kind;
  return event;
}

supervise::SeriesRow curve_of(const std::string& run_id) {
  supervise::SeriesRow row;
  row.run_id = run_id;
  row.registered_as = "nightly import";
  row.host = "node1";
  row.samples = {{kOld, kMiB, kMiB, Span(1), 1}};
  row.over = true;
  return row;
}

/// A daemon's ledger: runs come and go one after another, and what is old is pruned. `durable` hears of each event that
/// is on the disk. What was written before is written again, as by a daemon that does not know.
bool live(const LedgerOptions& options, const std::function<void(const std::string&)>& durable) {
  Ledger ledger(options);
  EventRecord old = full_event("old");
  old.occurred_at = kOld;
  old.run_id = "old";
  ledger.write(old);
  if (!becomes_durable(ledger)) return false;
  for (int run = 0; run < kRuns; ++run) {
    const auto write = [&](EventKind kind) {
      const EventRecord event = event_of(run, kind);
      ledger.write(event);
      if (!becomes_durable(ledger)) return false;
      durable(event.event_id);
      return true;
    };
    // Each by itself, so that every life comes by everywhere as often as the one before.
    ledger.begin_run(full_run(run_id(run)));
    if (!becomes_durable(ledger) || !write(EventKind::kRegistered)) return false;
    ledger.change_run(full_run(run_id(run)));
    if (!becomes_durable(ledger) || !write(EventKind::kEnding)) return false;
    ledger.keep_series(curve_of(run_id(run)));
    if (!becomes_durable(ledger)) return false;
    ledger.end_run(run_id(run));
    if (!becomes_durable(ledger) || !write(EventKind::kEnded)) return false;
  }
  ledger.prune({.older_than = kOld + Span(1), .up_to_seq = INT64_MAX});
  LedgerReader reader(options.path);
  const auto is_pruned = [&] {
    const auto events = reader.read_events({.run_id = "old"});
    return events && events->empty();
  };
  return comes_true(ledger, is_pruned) && ledger.lost() == 0;
}

class ALedgerFailing : public ::testing::TestWithParam<Fault> {
 protected:
  ALedgerFailing() {
    std::string pattern = (fs::temp_directory_path() / "ledger-failpoint-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
  }
  ~ALedgerFailing() override {
    EXPECT_TRUE(failpoint::arm(""));
    fs::remove_all(dir_);
  }

  /// Of a ledger of its own; a damaged one, where the point is only for those.
  LedgerOptions options(const std::string& name) const {
    LedgerOptions options;
    options.path = dir_ / name / "ledger.db";
    options.retry = 5ms;
    if (needs_damage(*GetParam().point)) {
      EXPECT_TRUE(live(options, [](const std::string&) {}));
      fs::remove(options.path.string() + "-wal");
      const auto size = fs::file_size(options.path);
      std::fstream file(options.path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(4096);
      for (auto at = std::uintmax_t{4096}; at < size; ++at) file.put(static_cast<char>(at * 7));
    }
    return options;
  }

  /// How often the point is come by.
  std::uint64_t count_hits() const {
    const LedgerOptions own = options("counted");
    const std::uint64_t before = GetParam().point->hits();
    std::uint64_t hits = 0;
    EXPECT_TRUE(live(own, [&](const std::string&) { hits = GetParam().point->hits() - before; }));
    // After the last event it comes by as often as the test looks whether the old one is gone; but some only then.
    return hits > 0 ? hits : GetParam().point->hits() - before;
  }

  void arm(std::uint64_t hit) const {
    const char* act = GetParam().error == 0 ? "crash" : ::strerrorname_np(GetParam().error);
    const auto armed = failpoint::arm(std::string(GetParam().point->name()) + "=" + act + "@" +
                                      std::to_string(GetParam().point->hits() + hit));
    ASSERT_TRUE(armed) << armed.error().message;
  }

  /// Lives until it dies of what is armed; the events that it knew to be durable then.
  static std::set<std::string> die(const LedgerOptions& options) {
    int told[2];
    EXPECT_EQ(::pipe(told), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      (void)live(options, [&](const std::string& id) { (void)!::write(told[1], (id + "\n").data(), id.size() + 1); });
      ::_exit(0);
    }
    ::close(told[1]);
    std::string text;
    char part[4096];
    for (ssize_t got = 0; (got = ::read(told[0], part, sizeof part)) > 0;)
      text.append(part, static_cast<std::size_t>(got));
    ::close(told[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "it has not come to that";
    std::set<std::string> ids;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) ids.insert(line);
    return ids;
  }

  static std::multiset<std::string> events_in(const LedgerOptions& options) {
    LedgerReader reader(options.path);
    const auto events = reader.read_events({.limit = 1'000});
    std::multiset<std::string> ids;
    if (events) {
      for (const EventRecord& event : *events) ids.insert(event.event_id);
    }
    ids.erase("old");
    return ids;
  }

  static void expect_whole(const LedgerOptions& options) {
    std::multiset<std::string> all;
    for (int run = 0; run < kRuns; ++run) {
      for (const EventKind kind : {EventKind::kRegistered, EventKind::kEnding, EventKind::kEnded}) {
        all.insert(event_of(run, kind).event_id);
      }
    }
    EXPECT_EQ(events_in(options), all);
    LedgerReader reader(options.path);
    const auto runs = reader.read_runs();
    ASSERT_TRUE(runs) << runs.error().message;
    EXPECT_THAT(*runs, IsEmpty());
    const auto sound = look_for_damage(options.path);
    EXPECT_TRUE(sound) << sound.error().message;
  }

 private:
  fs::path dir_;
};

INSTANTIATE_TEST_SUITE_P(, ALedgerFailing, ::testing::ValuesIn(all_faults()), name_of);

TEST_P(ALedgerFailing, HasEverythingOnce) {
  const std::uint64_t hits = count_hits();
  ASSERT_GT(hits, 0U) << "no life comes by there";

  // How often it comes by at the very end of a life is a matter of chance.
  const std::uint64_t surely = std::max<std::uint64_t>(1, hits * 3 / 4);
  for (std::uint64_t hit = 1; hit <= surely; hit += std::max<std::uint64_t>(1, surely / 12)) {
    SCOPED_TRACE("hit " + std::to_string(hit) + " of " + std::to_string(hits));
    const LedgerOptions own = options(std::to_string(hit));
    arm(hit);
    if (GetParam().error == 0) {
      const auto durable = die(own);
      ASSERT_TRUE(failpoint::arm(""));
      const auto kept = events_in(own);
      EXPECT_THAT(kept, IsSupersetOf(durable)) << "what was durable is gone";
    }
    EXPECT_TRUE(live(own, [](const std::string&) {}));
    ASSERT_TRUE(failpoint::arm(""));
    expect_whole(own);
  }
}

}  // namespace
}  // namespace aw::ledger
