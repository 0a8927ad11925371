// SPDX-License-Identifier: Apache-2.0
#include "postgres/series.h"

#include "base/failpoint.h"
#include "postgres/event_json.h"
#include "postgres/fault.h"
#include "postgres/session.h"

namespace aw::postgres {
namespace {

using supervise::Sample;

constexpr char kUpsert[] =
    "INSERT INTO watchdog_series (run_id, registered_as, host, uid, first_at, last_at, over, sampled_at, memory_bytes, "
    "memory_unreclaimable_bytes, cpu_usec, processes) "
    "VALUES ($1::uuid, $2, $3, $4, $5::timestamptz, $6::timestamptz, $7, $8::timestamptz[], $9::bigint[], "
    "$10::bigint[], $11::bigint[], $12::bigint[]) "
    "ON CONFLICT (run_id) DO UPDATE SET registered_as = excluded.registered_as, host = excluded.host, "
    "uid = excluded.uid, first_at = excluded.first_at, last_at = excluded.last_at, over = excluded.over, "
    "sampled_at = excluded.sampled_at, memory_bytes = excluded.memory_bytes, "
    "memory_unreclaimable_bytes = excluded.memory_unreclaimable_bytes, cpu_usec = excluded.cpu_usec, "
    "processes = excluded.processes, recorded_at = now() "
    "WHERE watchdog_series.last_at <= excluded.last_at";

/// "{1,2,3}": nothing that stands in one needs quotes.
template <class Text>
std::string array_of(const std::vector<Sample>& samples, Text&& text) {
  std::string array = "{";
  for (const Sample& sample : samples) {
    if (array.size() > 1) array += ',';
    array += text(sample);
  }
  return array + "}";
}

void store(pqxx::work& transaction, const supervise::SeriesRow& row) {
  const auto& samples = row.samples;
  execute(transaction, kUpsert, row.run_id, without_nul(row.registered_as), without_nul(row.host),
          static_cast<std::int64_t>(row.uid), format_iso8601(samples.front().at), format_iso8601(samples.back().at),
          row.over, array_of(samples, [](const Sample& s) { return format_iso8601(s.at); }),
          array_of(samples, [](const Sample& s) { return std::to_string(s.memory.count()); }),
          array_of(samples, [](const Sample& s) { return std::to_string(s.unreclaimable.count()); }),
          array_of(samples, [](const Sample& s) { return std::to_string(to_usec(s.cpu)); }),
          array_of(samples, [](const Sample& s) { return std::to_string(s.processes); }));
}

TimeLimits usual_limits(const Session& session) {
  return {session.target.statement_timeout, session.target.lock_timeout};
}

}  // namespace

Result<std::int64_t> read_series_cursor(Connection& connection, const std::string& host, const std::string& ledger_id) {
  return guarded(connection, "read how far curves have been shipped", [&](Session& session) -> Result<std::int64_t> {
    pqxx::work look(session.connection);
    set_up(look, session.target, usual_limits(session));
    const auto row =
        execute(look, "SELECT last_change FROM watchdog_shipping WHERE host = $1 AND ledger_id = $2", host, ledger_id);
    return row.empty() ? std::int64_t{0} : row[0][0].as<std::int64_t>();
  });
}

Result<ShippedSeries> insert_series(Connection& connection, const SeriesBatch& batch) {
  return guarded(connection, "ship curves", [&](Session& session) -> Result<ShippedSeries> {
    pqxx::work transaction(session.connection);
    set_up(transaction, session.target, usual_limits(session));
    // First, so that two shippers of one ledger take turns.
    execute(transaction,
            "INSERT INTO watchdog_shipping (host, ledger_id, last_seq, last_change) VALUES ($1, $2, 0, $3) "
            "ON CONFLICT (host, ledger_id) DO UPDATE SET last_change = excluded.last_change, shipped_at = now()",
            batch.host, batch.ledger_id, batch.up_to);
    ShippedSeries done;
    for (const OutboxSeries& series : batch.series) {
      if (series.row.samples.empty()) continue;
      transaction.exec("SAVEPOINT attempt");
      try {
        store(transaction, series.row);
        transaction.exec("RELEASE SAVEPOINT attempt");
        ++done.stored;
      } catch (const pqxx::sql_error& e) {
        if (!session.connection.is_open() || parse_sqlstate(sqlstate_of(e)) != Fault::kData) throw;
        transaction.exec("ROLLBACK TO SAVEPOINT attempt");
        ++done.refused;
        done.error = e.what();
      }
    }
    if (AW_FAILPOINT_ERRNO("postgres.commit-series", ECONNRESET) != 0) lose_the_answer(session);
    transaction.commit();
    AW_FAILPOINT("postgres.series-committed");
    return done;
  });
}

}  // namespace aw::postgres
