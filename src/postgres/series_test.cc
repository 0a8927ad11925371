// SPDX-License-Identifier: Apache-2.0
#include "postgres/series.h"

#include "postgres/database_fixture.h"

namespace aw::postgres {
namespace {

using supervise::Sample;
using supervise::SeriesRow;

constexpr char kRun[] = "7d3c1a52-0d3a-4f3a-8a57-3c2f0d1f5a01";
constexpr WallTime kBegin{std::chrono::seconds{1'790'000'000}};

Sample sample(int second, std::uint64_t mib = 100) {
  return {kBegin + std::chrono::seconds{second}, Bytes((mib + 20) * kMiB.count()), Bytes(mib * kMiB.count()),
          std::chrono::seconds{second / 2}, 3};
}

OutboxSeries series_of(std::vector<Sample> samples, const std::string& run_id = kRun) {
  OutboxSeries series;
  series.row.run_id = run_id;
  series.row.registered_as = "nightly import";
  series.row.host = "node1";
  series.row.uid = 1000;
  series.row.samples = std::move(samples);
  return series;
}

class SharedCurves : public AMigratedDatabase {
 protected:
  ShippedSeries insert(const std::vector<OutboxSeries>& series, std::int64_t up_to) {
    auto connection = open();
    const auto shipped = insert_series(connection, {"node1", "ledger", up_to, series});
    EXPECT_TRUE(shipped) << shipped.error().message;
    return shipped.value_or({});
  }
};

TEST_F(SharedCurves, HaveARowForEachPointInTheirView) {
  EXPECT_EQ(insert({series_of({sample(0), sample(2, 300)})}, 7).stored, 1U);

  EXPECT_EQ(value("SELECT count(*), min(memory_bytes), max(memory_unreclaimable_bytes), max(cpu_usec), max(processes), "
                  "extract(epoch FROM max(sampled_at))::bigint FROM watchdog_samples WHERE host = 'node1'"),
            "2|125829120|314572800|1000000|3|1790000002");
  EXPECT_EQ(value("SELECT registered_as, uid, over FROM watchdog_series"), "nightly import|1000|f");
  auto connection = open();
  EXPECT_EQ(read_series_cursor(connection, "node1", "ledger").value_or(-1), 7);
  EXPECT_EQ(read_series_cursor(connection, "node1", "another").value_or(-1), 0);
}

TEST_F(SharedCurves, AreReplacedByWhatGoesOnAndNotByWhatIsOlder) {
  insert({series_of({sample(0), sample(2)})}, 1);
  insert({series_of({sample(0), sample(2), sample(4)})}, 2);
  insert({series_of({sample(0), sample(2)})}, 1);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_samples"), "3");
}

TEST_F(SharedCurves, AreTheSameWhenTheyAreSentAgain) {
  insert({series_of({sample(0), sample(2)})}, 1);
  insert({series_of({sample(0), sample(2)})}, 1);

  EXPECT_EQ(value("SELECT count(*) FROM watchdog_series"), "1");
  EXPECT_EQ(value("SELECT count(*) FROM watchdog_samples"), "2");
}

TEST_F(SharedCurves, LetTheOthersPassWhereOneIsRefused) {
  const auto shipped = insert({series_of({sample(0)}, "no uuid"), series_of({sample(0)})}, 9);

  EXPECT_EQ(shipped.refused, 1U);
  EXPECT_EQ(shipped.stored, 1U);
  EXPECT_THAT(shipped.error, ::testing::HasSubstr("uuid"));
  EXPECT_EQ(value("SELECT last_change FROM watchdog_shipping"), "9");
}

TEST_F(SharedCurves, TakeTheLargestNumbersAndTextsWithNul) {
  OutboxSeries series = series_of({{kBegin, Bytes(INT64_MAX), Bytes(INT64_MAX), Span::max() - Span(1), UINT32_MAX}});
  series.row.registered_as = std::string("a\0b", 3);

  EXPECT_EQ(insert({series}, 1).stored, 1U);

  EXPECT_EQ(value("SELECT memory_bytes[1], processes[1] FROM watchdog_series"), "9223372036854775807|4294967295");
}

}  // namespace
}  // namespace aw::postgres
