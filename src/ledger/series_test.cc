// SPDX-License-Identifier: Apache-2.0
//
// Curves in the ledger: written by its thread, read again, and gone when their time has come.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "ledger/ledger.h"
#include "ledger/ledger_reader.h"
#include "ledger/ledger_fixture.h"
#include "ledger/migrations.h"
#include "ledger/prune.h"
#include "ledger/series_reader.h"
#include "testing/patience.h"
#include "testing/records.h"

namespace aw::ledger {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using supervise::Sample;
using supervise::SeriesRow;
using ::testing::ElementsAre;
using testing::full_event;
using testing::full_run;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr WallTime kBegin{std::chrono::seconds{1'790'000'000}};

Sample sample(int minute, std::uint64_t mib = 100) {
  return {kBegin + minute * 1min, Bytes((mib + 20) * kMiB.count()), Bytes(mib * kMiB.count()), minute * 30s, 3};
}

SeriesRow series_of(const std::string& run_id, std::vector<Sample> samples) {
  SeriesRow row;
  row.run_id = run_id;
  row.registered_as = "nightly import";
  row.host = "node1";
  row.uid = 1000;
  row.samples = std::move(samples);
  row.over = true;
  return row;
}

class ALedgerOfCurves : public ::testing::Test {
 protected:
  ALedgerOfCurves() {
    std::string pattern = (fs::temp_directory_path() / "ledger-series-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    options_.path = dir_ / "ledger.db";
    options_.retry = 20ms;
  }
  ~ALedgerOfCurves() override { fs::remove_all(dir_); }

  std::vector<Sample> samples_of(const std::string& run_id) const {
    const auto found = LedgerReader(options_.path).read_series(run_id);
    EXPECT_TRUE(found) << found.error().message;
    return found && *found ? (*found)->samples : std::vector<Sample>();
  }
  std::int64_t number(const char* sql) const {
    auto own = Database::open(options_.path, Database::Access::kReadWrite, 10'000);
    return own.value().read_number(sql).value_or(-1);
  }
  void write(const SeriesRow& row) const {
    Ledger ledger(options_);
    ledger.keep_series(row);
    EXPECT_TRUE(becomes_durable(ledger));
  }

  fs::path dir_;
  LedgerOptions options_;
};

TEST_F(ALedgerOfCurves, GivesBackWhatWasKept) {
  write(series_of("run-1", {sample(0), sample(1, 300)}));

  const auto found = LedgerReader(options_.path).read_series("run-1");

  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->registered_as, "nightly import");
  EXPECT_EQ((*found)->host, "node1");
  EXPECT_EQ((*found)->uid, 1000U);
  EXPECT_TRUE((*found)->over);
  EXPECT_THAT((*found)->samples, ElementsAre(sample(0), sample(1, 300)));
  EXPECT_THAT(samples_of("run-2"), IsEmpty());
}

TEST_F(ALedgerOfCurves, HasTheLastOfEachRunOnceAndUnderANewNumber) {
  Ledger ledger(options_);
  ledger.keep_series(series_of("run-1", {sample(0)}));
  ledger.keep_series(series_of("run-2", {sample(0)}));
  ledger.keep_series(series_of("run-1", {sample(0), sample(1)}));
  ASSERT_TRUE(becomes_durable(ledger));

  LedgerReader reader(options_.path);
  const auto all = reader.read_series_after(0, 10);
  const auto later = reader.read_series_after(2, 10);

  ASSERT_TRUE(all && later);
  ASSERT_THAT(all->series, SizeIs(2));
  EXPECT_EQ(all->series[0].row.run_id, "run-2");
  EXPECT_EQ(all->series[1].row.run_id, "run-1");
  EXPECT_THAT(all->series[1].row.samples, SizeIs(2));
  EXPECT_EQ(all->highest, 3);
  ASSERT_THAT(later->series, SizeIs(1));
  EXPECT_EQ(later->up_to, 3);
}

TEST_F(ALedgerOfCurves, NeverGivesANumberTwiceEvenIfTheHighestIsGone) {
  write(series_of("run-1", {sample(0)}));
  ASSERT_EQ(prune(options_.path, {.older_than = kBegin + 24h}).value_or(-1), 0);
  write(series_of("run-2", {sample(0)}));

  const auto all = LedgerReader(options_.path).read_series_after(0, 10);

  ASSERT_TRUE(all);
  ASSERT_THAT(all->series, SizeIs(1));
  EXPECT_EQ(all->series.front().change, 2);
}

TEST_F(ALedgerOfCurves, PutsWhatADaemonBeforeHadKeptInFrontOnceHoweverOftenItIsWritten) {
  write(series_of("run-1", {sample(0), sample(1), sample(2)}));
  SeriesRow rest = series_of("run-1", {sample(2), sample(3)});
  rest.continues = true;

  write(rest);
  write(rest);

  EXPECT_THAT(samples_of("run-1"), ElementsAre(sample(0), sample(1), sample(2), sample(3)));
}

TEST_F(ALedgerOfCurves, KeepsTheBoundOfACurveThatContinues) {
  std::vector<Sample> before;
  std::vector<Sample> after;
  for (int i = 0; i < 32; ++i) before.push_back(sample(i, i == 7 ? 900 : 100));
  for (int i = 32; i < 64; ++i) after.push_back(sample(i));
  write(series_of("run-1", before));
  SeriesRow rest = series_of("run-1", after);
  rest.continues = true;
  rest.most = 32;

  write(rest);

  const auto joined = samples_of("run-1");
  EXPECT_LE(joined.size(), 32U);
  EXPECT_EQ(joined.front(), sample(0));
  EXPECT_EQ(joined.back(), sample(63));
  EXPECT_TRUE(std::any_of(joined.begin(), joined.end(),
                          [](const Sample& s) { return s.unreclaimable == Bytes(900 * kMiB.count()); }));
}

TEST_F(ALedgerOfCurves, WithADamagedOneGoesOnWithTheOthers) {
  write(series_of("run-1", {sample(0)}));
  write(series_of("run-2", {sample(0)}));
  number("UPDATE watchdog_series SET samples = x'0102ff' WHERE run_id = 'run-1'");

  const auto all = LedgerReader(options_.path).read_series_after(0, 10);
  SeriesRow rest = series_of("run-1", {sample(3)});
  rest.continues = true;

  ASSERT_TRUE(all);
  EXPECT_THAT(all->series, SizeIs(1));
  EXPECT_EQ(all->up_to, 2);
  EXPECT_THAT(samples_of("run-1"), IsEmpty());
  write(rest);
  EXPECT_THAT(samples_of("run-1"), ElementsAre(sample(3)));
}

TEST_F(ALedgerOfCurves, LosesThemWithTheEventsOfTheirTimeButNotThoseOfLiveRuns) {
  {
    Ledger ledger(options_);
    ledger.begin_run(full_run("live"));
    ledger.keep_series(series_of("live", {sample(0)}));
    ledger.keep_series(series_of("old", {sample(0), sample(5)}));
    ledger.keep_series(series_of("new", {sample(0), sample(100)}));
    ASSERT_TRUE(becomes_durable(ledger));
  }

  ASSERT_TRUE(prune(options_.path, {.older_than = kBegin + 50min}));

  EXPECT_THAT(samples_of("old"), IsEmpty());
  EXPECT_THAT(samples_of("new"), SizeIs(2));
  EXPECT_THAT(samples_of("live"), SizeIs(1));
}

TEST_F(ALedgerOfCurves, KeepsWhatTheSharedStoreMayNotHaveYet) {
  {
    Ledger ledger(options_);
    ledger.write(full_event("e-1"));
    ledger.keep_series(series_of("shipped", {sample(0)}));
    ledger.write(full_event("e-2"));
    ledger.keep_series(series_of("unshipped", {sample(0)}));
    ASSERT_TRUE(becomes_durable(ledger));
  }

  ASSERT_TRUE(prune(options_.path, {.older_than = kBegin + 24h, .up_to_seq = 1}));

  EXPECT_THAT(samples_of("shipped"), IsEmpty());
  EXPECT_THAT(samples_of("unshipped"), SizeIs(1));
}

TEST_F(ALedgerOfCurves, LosesTheOldestWithTheirEventsWhenTheFileIsFull) {
  options_.most_pages = 2000;
  std::vector<Sample> many;
  for (int i = 0; i < 512; ++i) many.push_back(sample(i, static_cast<std::uint64_t>(i * 7919 % 1000)));
  {
    Ledger ledger(options_);
    for (int i = 0; i < 1500; ++i) {  // Twice what there is room for.
      auto event = full_event("e-" + std::to_string(i));
      event.run_id = "run-" + std::to_string(i);
      ledger.write(event);
      ledger.keep_series(series_of(event.run_id, many));
      if (i % 100 != 99) continue;
      ASSERT_TRUE(becomes_durable(ledger)) << ledger.problem();
    }
    ASSERT_TRUE(becomes_durable(ledger)) << ledger.problem();
  }

  EXPECT_THAT(samples_of("run-0"), IsEmpty());
  EXPECT_THAT(samples_of("run-1499"), SizeIs(512));
  EXPECT_EQ(number("SELECT count(*) FROM watchdog_series s WHERE event_seq < (SELECT min(seq) FROM watchdog_events)"),
            0);
}

TEST_F(ALedgerOfCurves, LeavesThemOutWhileTooMuchWaitsAndEventsStillHaveRoom) {
  options_.path = dir_ / "not-a-directory" / "ledger.db";
  std::ofstream(dir_ / "not-a-directory") << "a file";
  options_.capacity = 100;
  Ledger ledger(options_);
  ASSERT_TRUE(ledger.wait_until_opened(testing::kPatience));
  SeriesRow checkpoint = series_of("run", {sample(0)});
  checkpoint.over = false;

  for (int i = 0; i < 200; ++i) ledger.keep_series(checkpoint);
  EXPECT_EQ(ledger.waiting(), 50U);
  EXPECT_EQ(ledger.lost(), 0U);  // They come again.
  ledger.keep_series(series_of("run", {sample(0)}));
  EXPECT_EQ(ledger.lost(), 1U);
  for (int i = 0; i < 40; ++i) ledger.write(full_event("e-" + std::to_string(i)));
  EXPECT_EQ(ledger.waiting(), 90U);
}

TEST_F(ALedgerOfCurves, ThatIsOlderThanCurvesHasNone) {
  const Migration first = migrations().front();
  {
    ASSERT_TRUE(create_file(options_.path));
    auto database = Database::open(options_.path, Database::Access::kReadWrite, 1000);
    ASSERT_TRUE(database && migrate(*database, std::span(&first, 1)));
  }

  EXPECT_THAT(samples_of("run"), IsEmpty());
  const auto all = LedgerReader(options_.path).read_series_after(0, 10);
  ASSERT_TRUE(all);
  EXPECT_THAT(all->series, IsEmpty());
}

// ---- beside the loop ----

bool answers(SeriesReader& reader, const bool& done) {
  return testing::comes_true([&] { return done; },
                             [&] {
                               pollfd poll{reader.done_fd(), POLLIN, 0};
                               (void)::poll(&poll, 1, 100);
                               reader.take_done();
                             });
}

TEST_F(ALedgerOfCurves, IsReadByAThreadThatAnswersWhereItIsTaken) {
  write(series_of("run-1", {sample(0)}));
  SeriesReader reader(options_.path);
  bool done = false;
  std::vector<Sample> found;

  ASSERT_TRUE(reader.request("run-1", [&, asker = std::this_thread::get_id()](const auto& series) {
    EXPECT_EQ(std::this_thread::get_id(), asker);
    ASSERT_TRUE(series && *series);
    found = (*series)->samples;
    done = true;
  }));

  EXPECT_TRUE(answers(reader, done));
  EXPECT_THAT(found, ElementsAre(sample(0)));
}

TEST_F(ALedgerOfCurves, ThatIsNotThereIsAnErrorForWhoReadsIt) {
  SeriesReader reader(dir_ / "nothing.db");
  bool done = false;

  ASSERT_TRUE(reader.request("run-1", [&](const auto& series) {
    EXPECT_FALSE(series);
    done = true;
  }));

  EXPECT_TRUE(answers(reader, done));
}

TEST_F(ALedgerOfCurves, HasABoundForThoseWhoWait) {
  SeriesReader reader(options_.path);
  for (std::size_t i = 0; i < SeriesReader::kMostWaiting; ++i) ASSERT_TRUE(reader.request("run", [](const auto&) {}));

  EXPECT_FALSE(reader.request("run", [](const auto&) {}));
}

}  // namespace
}  // namespace aw::ledger
