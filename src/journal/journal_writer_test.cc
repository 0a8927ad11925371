// SPDX-License-Identifier: Apache-2.0
#include "journal/journal_writer.h"

#include <gmock/gmock.h>
#include <sys/poll.h>

#include <cerrno>
#include <fstream>
#include <map>
#include <regex>
#include <semaphore>
#include <set>

namespace aw::journal {
namespace {

using supervise::EventRecord;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<EventKind> all_kinds() {
  std::vector<EventKind> kinds;
  for (std::size_t i = 0; i < kEventKindWords.size(); ++i) kinds.push_back(static_cast<EventKind>(i));
  return kinds;
}

EventRecord a_full_record() {
  EventRecord event;
  event.event_id = "e-1";
  event.kind = EventKind::kEnded;
  event.run_id = "r-1";
  event.registered_as = "nightly";
  event.reason = Reason::kMemory;
  event.unit = "analysis-nightly.scope";
  event.pid = 42;
  event.comm = "python3";
  event.uid = 1000;
  event.memory = Bytes(1);
  event.memory_peak = Bytes(2);
  event.memory_limit = Bytes(3);
  event.duration = Span(4);
  event.wall_clock_limit = kForever;
  event.cpu = Span(6);
  event.signal = 15;
  event.escalated = true;
  return event;
}

TEST(JournalFields, AreThoseOfTheContract) {
  const auto fields = journal_fields(a_full_record());

  for (const char* field :
       {"ANALYSIS_ID=nightly", "ANALYSIS_RUN_ID=r-1", "ANALYSIS_UNIT=analysis-nightly.scope", "ANALYSIS_EVENT_ID=e-1",
        "ANALYSIS_EVENT=ended", "ANALYSIS_REASON=memory", "ANALYSIS_PID=42", "ANALYSIS_COMM=python3",
        "ANALYSIS_UID=1000", "ANALYSIS_MEMORY_CURRENT=1", "ANALYSIS_MEMORY_PEAK=2", "ANALYSIS_MEMORY_LIMIT=3",
        "ANALYSIS_DURATION_USEC=4", "ANALYSIS_WALL_CLOCK_LIMIT_USEC=18446744073709551615", "ANALYSIS_CPU_USEC=6",
        "ANALYSIS_SIGNAL=15", "ANALYSIS_ESCALATED=1", "OBJECT_SYSTEMD_UNIT=analysis-nightly.scope"}) {
    EXPECT_THAT(fields, Contains(field));
  }
}

TEST(JournalFields, SayWhyAnEndIsLost) {
  EventRecord event = a_full_record();
  event.reason = Reason::kLost;
  EXPECT_THAT(journal_fields(event), Contains("ANALYSIS_WHY=nobody can know any more"));
  event.details = {{"cause", std::string("its cgroup was gone")}};
  EXPECT_THAT(journal_fields(event), Contains("ANALYSIS_WHY=nobody can know any more: its cgroup was gone"));
}

TEST(JournalFields, LeaveOutWhatIsNotKnown) {
  EventRecord event;
  event.kind = EventKind::kDaemonStarted;
  for (const std::string& field : journal_fields(event)) EXPECT_THAT(field, Not(StartsWith("ANALYSIS_PID")));
}

TEST(JournalFields, KeepAnIdWithAnEqualsSignInItsField) {
  EventRecord event = a_full_record();
  event.registered_as = "x ANALYSIS_REASON=exited";
  const auto fields = journal_fields(event);
  EXPECT_THAT(fields, Contains("ANALYSIS_ID=x ANALYSIS_REASON=exited"));
  EXPECT_THAT(fields, Contains("ANALYSIS_REASON=memory"));
}

TEST(JournalFields, NameAUsersUnitAsOneOfTheirs) {
  EventRecord event = a_full_record();
  event.unit = "analysis-nightly-2.scope";

  const auto fields = journal_fields(event, UnitsOf::kUser);

  EXPECT_THAT(fields, Contains("OBJECT_SYSTEMD_USER_UNIT=analysis-nightly-2.scope"));
  EXPECT_THAT(fields, Contains("OBJECT_SYSTEMD_USER_UNIT=analysis-nightly.scope"));
  for (const std::string& field : journal_fields(event)) {
    EXPECT_THAT(field, Not(StartsWith("OBJECT_SYSTEMD_USER_UNIT=")));
  }
}

TEST(JournalFields, NameTheFirstScopeBesideThePresentOne) {
  const auto objects = [](const std::string& unit) {
    EventRecord event = a_full_record();
    event.unit = unit;
    std::vector<std::string> found;
    for (const std::string& field : journal_fields(event)) {
      if (field.starts_with("OBJECT_SYSTEMD_UNIT=")) found.push_back(field);
    }
    return found;
  };

  EXPECT_THAT(objects("analysis-nightly.scope"), ElementsAre("OBJECT_SYSTEMD_UNIT=analysis-nightly.scope"));
  EXPECT_THAT(objects("analysis-nightly-2.scope"), ElementsAre("OBJECT_SYSTEMD_UNIT=analysis-nightly-2.scope",
                                                               "OBJECT_SYSTEMD_UNIT=analysis-nightly.scope"));
  EXPECT_THAT(objects(""), IsEmpty());
}

constexpr int kPatience = 600'000;  // ms: of the busiest machine

/// A writer to a journal that takes a record when the test lets it.
class AJournalWriter : public ::testing::Test {
 protected:
  bool has_told() {
    pollfd poll{writer_.sent_fd(), POLLIN, 0};
    return ::poll(&poll, 1, 0) > 0;
  }
  /// Waits until so many are with the journal, looking whenever the writer tells that one more is.
  bool settles(std::uint64_t count) {
    while (writer_.settled() < count) {
      pollfd poll{writer_.sent_fd(), POLLIN, 0};
      if (::poll(&poll, 1, kPatience) <= 0) return false;
      writer_.take_sent();
    }
    return true;
  }

  std::counting_semaphore<> may_send_{0};
  int answer_ = 0;
  JournalWriter writer_{[this](const iovec*, int) {
    may_send_.acquire();
    return answer_;
  }};
};

TEST_F(AJournalWriter, SaysHowManyAreWithTheJournal) {
  EXPECT_FALSE(has_told());
  writer_.write(a_full_record());
  writer_.write(a_full_record());
  EXPECT_EQ(writer_.accepted(), 2U);
  EXPECT_EQ(writer_.waiting(), 2U);  // The one that is being sent, too.
  EXPECT_EQ(writer_.settled(), 0U);
  EXPECT_FALSE(has_told());

  may_send_.release();
  ASSERT_TRUE(settles(1));
  EXPECT_EQ(writer_.waiting(), 1U);

  may_send_.release();
  ASSERT_TRUE(settles(2));
  EXPECT_EQ(writer_.waiting(), 0U);
  EXPECT_TRUE(writer_.healthy());
}

TEST_F(AJournalWriter, SaysSoAlsoOfARecordThatWasRefused) {
  answer_ = -EINVAL;
  writer_.write(a_full_record());
  may_send_.release();

  EXPECT_TRUE(settles(1));
  EXPECT_EQ(writer_.waiting(), 0U);
  EXPECT_FALSE(writer_.healthy());
}

TEST(MessageIds, DifferFromKindToKind) {
  std::set<std::string> ids;
  for (const EventKind kind : all_kinds()) ids.insert(message_id(kind));
  EXPECT_EQ(ids.size(), kEventKindWords.size());
}

// ---- what is said ----

std::string field(const EventRecord& event, const std::string& name) {
  for (const std::string& field : journal_fields(event)) {
    if (field.starts_with(name + "=")) return field.substr(name.size() + 1);
  }
  return "";
}

EventRecord an_end(Reason reason, supervise::Details details = {}) {
  EventRecord event = a_full_record();
  event.reason = reason;
  event.memory = Bytes(1'200 * kMiB.count());
  event.memory_peak = Bytes(1'300 * kMiB.count());
  event.memory_limit = kGiB;
  event.duration = Span(192'345'678);
  event.wall_clock_limit = std::chrono::minutes{30};
  event.cpu = Span(61'000'123);
  event.details = std::move(details);
  event.details.emplace_back("memory_headroom_bytes", Bytes(128 * kMiB.count()).count());
  event.details.emplace_back("grace_usec", std::uint64_t{10'000'000});
  return event;
}

TEST(TheMessageOfAnEnd, IsOneSentenceWithItsFigures) {
  EXPECT_EQ(field(an_end(Reason::kMemory, {{"sigterm_sufficed", true}}), "MESSAGE"),
            "nightly: ended (memory): it used 1.1G that cannot be reclaimed; its own limit is 1G; SIGTERM was enough; "
            "ran 3min 12s, 1min 1s of CPU time, 1.2G of memory at most (page cache included)");
}

TEST(TheMessageOfAnEnd, SaysWhoseLimitItWas) {
  const auto why = [](Reason reason, supervise::Details details = {}) {
    return field(an_end(reason, std::move(details)), "ANALYSIS_WHY");
  };

  EXPECT_EQ(why(Reason::kWallClock), "its own wall-clock limit of 30min passed");
  EXPECT_EQ(why(Reason::kMemory, {{"cause", std::string("stalled: nothing but …")}}),
            "it did nothing but stall for memory at its own limit of 1G");
  EXPECT_EQ(
      why(Reason::kOom),
      "it went past its own limit of 1G to its ceiling of 1.1G before it could be told, and the kernel killed it");
  EXPECT_EQ(why(Reason::kExternal, {{"limit_of", std::string("host")}, {"cause", std::string("the host …")}}),
            "the host …");
  EXPECT_EQ(why(Reason::kExternal, {{"limit_of", std::string("none")}}),
            "somebody killed it, and it was not the watchdog");
  EXPECT_EQ(why(Reason::kRequested, {{"cause", std::string("asked by uid 7 (sh, process 8)")}}),
            "asked by uid 7 (sh, process 8)");
}

TEST(JournalFields, SayWhoAsked) {
  const EventRecord event = an_end(Reason::kRequested, {{"requested_by_uid", std::uint64_t{1000}},
                                                        {"requested_by_pid", std::uint64_t{77}},
                                                        {"requested_by_comm", std::string("analysisctl")},
                                                        {"limit_of", std::string("none")}});

  EXPECT_EQ(field(event, "ANALYSIS_REQUESTED_BY_UID"), "1000");
  EXPECT_EQ(field(event, "ANALYSIS_REQUESTED_BY_PID"), "77");
  EXPECT_EQ(field(event, "ANALYSIS_REQUESTED_BY_COMM"), "analysisctl");
  EXPECT_EQ(field(event, "ANALYSIS_LIMIT_OF"), "none");
}

TEST(TheMessageOfRestoredLimits, SaysWhatWasThereAndWhatIs) {
  EventRecord event = a_full_record();
  event.kind = EventKind::kLimitsRestored;
  event.details = {{"memory.max_before", std::string("max")},
                   {"memory.max", std::string("1207959552")},
                   {"pids.max_before", std::string("7")},
                   {"pids.max", std::string("100")}};
  EXPECT_EQ(field(event, "MESSAGE"),
            "nightly: limits that somebody else had changed are restored: memory.max was max and is 1207959552, "
            "pids.max was 7 and is 100");
}

// ---- the catalog ----

/// The entries, by message id.
std::map<std::string, std::string> catalog() {
  std::ifstream file(std::string(AW_SOURCE_DIR) + "/units/analysis-watchdog.catalog");
  std::map<std::string, std::string> entries;
  std::string id;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("-- ")) id = line.substr(3);
    entries[id] += line + "\n";
  }
  return entries;
}

TEST(Catalog, HasAnEntryForEachKind) {
  for (const EventKind kind : all_kinds()) {
    EXPECT_TRUE(catalog().contains(std::string(message_id(kind)).substr(11))) << to_string(kind);
  }
}

TEST(Catalog, NamesOnlyFieldsThatEveryRecordOfItsKindHas) {
  const std::regex field_name("@([A-Z_]+)@");
  for (const EventKind kind : all_kinds()) {
    EventRecord event = an_end(Reason::kExited, {{"limit_of", std::string("none")}});
    event.kind = kind;
    const std::string text = catalog()[std::string(message_id(kind)).substr(11)];
    for (std::sregex_iterator at(text.begin(), text.end(), field_name); at != std::sregex_iterator(); ++at) {
      EXPECT_NE(field(event, (*at)[1]), "") << to_string(kind) << ": " << (*at)[1];
    }
  }
}

}  // namespace
}  // namespace aw::journal
