// SPDX-License-Identifier: Apache-2.0
//
// How an event gets its analysis_id. Where 0001_watchdog.sql has made `analyses`, and nobody has taken it over since,
// an id is added with the first event of its run, once: an analysis that is deleted stays deleted until another run is
// registered as it. What prevents that (a privilege, a trigger, a lock) prevents nothing else.
//
// Apart from that the writer may read `analyses`, and nothing else: it is another's table, so no lock is asked for. An
// event is inserted with (SELECT id FROM analyses WHERE id = registered_as), and PostgreSQL's own check of the
// reference decides what happens at that moment:
//
//   no such analysis               NULL
//   deleted between look and check foreign_key_violation: the statement is repeated, and now looks in vain
//   locked: about to be deleted, or SELECT … FOR UPDATE by a queue that holds it as long as the analysis runs
//                                  lock_not_available after lock_timeout: NULL, and a row in watchdog_unlinked, from
//                                  which link_events() fills it in later. While an id is in that table its further
//                                  events go the same way at once, so that no batch waits for the same lock again.
#include "postgres/shipping.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/failpoint.h"
#include "postgres/event_json.h"
#include "postgres/migrate.h"
#include "postgres/projection.h"
#include "postgres/session.h"

namespace aw::postgres {
namespace {

/// Of one statement's parameter: far below what jsonb can hold (256 MiB), far above what 1,000 usual events need.
constexpr std::size_t kLargestStatement = 32U << 20U;
/// How often a statement is repeated because an analysis has been deleted under it.
constexpr unsigned kPatienceWithDeletions = 3;

constexpr char kForeignKeyViolation[] = "23503";
constexpr char kLockNotAvailable[] = "55P03";

/// Columns and types of watchdog_events that come from an event.
constexpr char kColumns[] =
    "event_id, occurred_at, host, boot_id, run_id, registered_as, kind, reason, unit, pid, comm, cmdline, uid, "
    "memory_bytes, memory_peak_bytes, memory_limit_bytes, duration_usec, wall_clock_limit_usec, cpu_usec, signal, "
    "escalated, exit_code, exit_signal, leftover_memory_bytes, processes, details, ledger_seq";
constexpr char kTypedColumns[] =
    "event_id uuid, occurred_at timestamptz, host text, boot_id uuid, run_id uuid, registered_as text, kind text, "
    "reason text, unit text, pid integer, comm text, cmdline text, uid bigint, memory_bytes bigint, "
    "memory_peak_bytes bigint, memory_limit_bytes bigint, duration_usec bigint, wall_clock_limit_usec bigint, "
    "cpu_usec bigint, signal integer, escalated boolean, exit_code integer, exit_signal integer, "
    "leftover_memory_bytes bigint, processes jsonb, details jsonb, ledger_seq bigint";

/// Whether ids are ours to add: the table is the one that our migration has made, with its mark, its owner and its
/// columns.
constexpr char kKeepsAnalyses[] =
    "SELECT EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass('analyses') "
    "AND obj_description(c.oid, 'pg_class') = 'Kept by the analysis watchdog, which adds each id that is registered.' "
    "AND c.relowner = (SELECT relowner FROM pg_class WHERE oid = to_regclass('watchdog_migrations')) "
    "AND has_column_privilege(c.oid, 'id', 'INSERT') "
    "AND ARRAY['created_at', 'id'] = (SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute "
    "WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))";

// Sorted, so that two shippers with new ids in common wait for each other and not both.
constexpr char kAddAnalyses[] =
    "INSERT INTO analyses (id) SELECT DISTINCT s.id FROM jsonb_to_recordset($1::jsonb) AS s (run_id uuid, id text) "
    "WHERE NOT EXISTS (SELECT FROM watchdog_events o WHERE o.run_id = s.run_id) ORDER BY s.id "
    "ON CONFLICT (id) DO NOTHING";

/// How a statement fills analysis_id of `row`.
enum class Linking {
  kLookUp,       ///< from analyses
  kUnlessNoted,  ///< … except where an event of that id waits in watchdog_unlinked; those join it
  kNone,         ///< NULL; all whose analysis is there are noted
};

std::string analysis_of(const std::string& row, Linking linking) {
  if (linking == Linking::kNone) return "NULL";
  std::string sql = "(SELECT a.id FROM analyses a WHERE a.id = " + row + ".registered_as";
  if (linking == Linking::kUnlessNoted) {
    sql += " AND NOT EXISTS (SELECT FROM watchdog_unlinked u WHERE u.host = " + row +
           ".host AND u.registered_as = " + row + ".registered_as)";
  }
  return sql + ")";
}

/// An event on its way: with its JSON, made once.
struct Parcel {
  const OutboxEvent* event;
  std::string json;
};
using Parcels = std::span<const Parcel>;

std::string list_of(Parcels parcels) {
  std::string list = "[";
  for (const Parcel& parcel : parcels) {
    if (list.size() > 1) list += ',';
    list += parcel.json;
  }
  return list + "]";
}

std::string list_of(const std::map<std::string, Json>& rows) {
  std::string list = "[";
  for (const auto& [run_id, row] : rows) {
    if (list.size() > 1) list += ',';
    list += to_text(row);
  }
  return list + "]";
}

bool is_uuid(std::string_view text) {
  constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  return std::ranges::equal(text, kForm, [](char c, char form) {
    return form == '-' ? c == '-' : std::string_view("0123456789abcdefABCDEF").find(c) != std::string_view::npos;
  });
}

/// The runs that begin with these events, as far as they may be right: [{"run_id", "id"}].
Json beginnings_of(Parcels parcels) {
  Json list = Json::array();
  for (const Parcel& parcel : parcels) {
    const supervise::EventRecord& record = parcel.event->record;
    if (record.kind != EventKind::kRegistered && record.kind != EventKind::kAdopted) continue;
    std::string id = without_nul(record.registered_as);
    if (is_uuid(record.run_id) && !id.empty()) list.push_back({{"run_id", record.run_id}, {"id", std::move(id)}});
  }
  return list;
}

std::vector<Parcel> parcels_of(const Batch& batch, std::int64_t cursor) {
  std::vector<Parcel> parcels;
  parcels.reserve(batch.events.size());
  for (const OutboxEvent& event : batch.events) {
    if (event.seq <= cursor) continue;
    Json json = event_to_json(event.record);
    json["ledger_seq"] = event.seq;
    // It is NOT NULL, and an event of the daemon has none.
    json.emplace("registered_as", "");
    parcels.push_back({&event, to_text(json)});
  }
  return parcels;
}

/// The transaction of one batch.
class Shipment {
 public:
  Shipment(Session& session, pqxx::work& transaction, const Batch& batch, Linking linking)
      : session_(session), transaction_(transaction), batch_(batch), usual_linking_(linking) {}

  /// Inserts what can be, sets aside what cannot. Throws for whatever is no fault of an event.
  void bring(Parcels parcels) {
    unsigned deletions = 0;
    for (Linking linking = usual_linking_;;) {
      transaction_.exec("SAVEPOINT attempt");
      try {
        insert(parcels, linking);
        transaction_.exec("RELEASE SAVEPOINT attempt");
        return;
      } catch (const pqxx::sql_error& e) {
        if (!session_.connection.is_open()) throw;
        transaction_.exec("ROLLBACK TO SAVEPOINT attempt");
        if (linking != Linking::kNone && sqlstate_of(e) == kForeignKeyViolation) {
          if (++deletions > kPatienceWithDeletions) linking = Linking::kNone;
        } else if (linking != Linking::kNone && sqlstate_of(e) == kLockNotAvailable) {
          linking = Linking::kNone;
        } else if (parse_sqlstate(sqlstate_of(e)) != Fault::kData) {
          throw;
        } else if (parcels.size() == 1) {
          return set_aside(parcels.front(), sqlstate_of(e), e.what());
        } else {
          break;
        }
      }
    }
    // One of them is bad.
    bring(parcels.first(parcels.size() / 2));
    bring(parcels.subspan(parcels.size() / 2));
  }

  const Shipped& done() const { return done_; }

 private:
  /// All of them, with what they mean for watchdog_processes.
  void insert(Parcels parcels, Linking linking) {
    const std::string list = list_of(parcels);
    const auto inserted =
        execute(transaction_,
                std::string("INSERT INTO watchdog_events (analysis_id, ") + kColumns + ") SELECT " +
                    analysis_of("e", linking) + ", " + kColumns + " FROM jsonb_to_recordset($1::jsonb) AS e (" +
                    kTypedColumns + ") ORDER BY ledger_seq ON CONFLICT (event_id) DO NOTHING RETURNING ledger_seq",
                list);
    std::set<std::int64_t> fresh;
    for (const auto& row : inserted) fresh.insert(row[0].as<std::int64_t>());
    const std::size_t unlinked = linking == Linking::kLookUp ? 0 : note_unlinked(list);
    Projection projection;
    for (const Parcel& parcel : parcels) {
      if (fresh.contains(parcel.event->seq)) projection.apply(parcel.event->record);
    }
    project(projection, linking);
    done_.inserted += fresh.size();
    done_.repeated += parcels.size() - fresh.size();
    done_.unlinked += unlinked;
  }

  std::size_t note_unlinked(const std::string& list) {
    return static_cast<std::size_t>(
        execute(transaction_,
                "INSERT INTO watchdog_unlinked (event_id, host, registered_as) "
                "SELECT e.event_id, e.host, e.registered_as FROM watchdog_events e "
                "WHERE e.event_id IN (SELECT (j->>'event_id')::uuid FROM jsonb_array_elements($1::jsonb) j) "
                "AND e.analysis_id IS NULL AND EXISTS (SELECT FROM analyses a WHERE a.id = e.registered_as) "
                "ON CONFLICT (event_id) DO NOTHING",
                list)
            .affected_rows());
  }

  void project(const Projection& projection, Linking linking) {
    if (!projection.rows.empty()) {
      // Not a run that is over: a row that comes after its end would stay for ever.
      execute(transaction_,
              "INSERT INTO watchdog_processes (run_id, analysis_id, registered_as, host, unit, leader_pid, uid, "
              "memory_limit_bytes, memory_headroom_bytes, wall_clock_limit_usec, grace_usec, tasks_max, "
              "cpu_quota_per_sec_usec, cpu_weight, registered_at, deadline_at, state, boot_id, comm, cmdline, "
              "description, labels) "
              "SELECT run_id, " +
                  analysis_of("n", linking) +
                  ", registered_as, host, unit, leader_pid, uid, "
                  "memory_limit_bytes, memory_headroom_bytes, wall_clock_limit_usec, grace_usec, tasks_max, "
                  "cpu_quota_per_sec_usec, cpu_weight, registered_at, deadline_at, state, boot_id, comm, cmdline, "
                  "description, coalesce(labels, '{}') "
                  "FROM jsonb_populate_recordset(NULL::watchdog_processes, $1::jsonb) AS n "
                  "WHERE NOT EXISTS (SELECT FROM watchdog_events o WHERE o.run_id = n.run_id "
                  "AND o.kind IN ('ended', 'unregistered')) "
                  "ON CONFLICT (run_id) DO NOTHING",
              list_of(projection.rows));
    }
    if (!projection.changes.empty()) {
      Json changes = Json::object();
      for (const auto& [run_id, columns] : projection.changes) changes[run_id] = columns;
      execute(transaction_,
              "UPDATE watchdog_processes p SET unit = n.unit, memory_limit_bytes = n.memory_limit_bytes, "
              "memory_headroom_bytes = n.memory_headroom_bytes, wall_clock_limit_usec = n.wall_clock_limit_usec, "
              "grace_usec = n.grace_usec, tasks_max = n.tasks_max, cpu_quota_per_sec_usec = n.cpu_quota_per_sec_usec, "
              "cpu_weight = n.cpu_weight, deadline_at = n.deadline_at, state = n.state, description = n.description, "
              "labels = n.labels, updated_at = now() "
              "FROM (SELECT n.* FROM jsonb_each($1::jsonb) AS change JOIN watchdog_processes q "
              "ON q.run_id = change.key::uuid CROSS JOIN LATERAL jsonb_populate_record(q, change.value) AS n) AS n "
              "WHERE p.run_id = n.run_id",
              to_text(changes));
    }
    for (const auto& [host, boot_id] : projection.boots) {
      execute(transaction_, "DELETE FROM watchdog_processes WHERE host = $1 AND boot_id <> $2", host, boot_id);
    }
    if (!projection.gone.empty()) {
      execute(transaction_,
              "DELETE FROM watchdog_processes WHERE run_id IN "
              "(SELECT v::uuid FROM jsonb_array_elements_text($1::jsonb) v)",
              to_text(Json(projection.gone)));
    }
  }

  void set_aside(const Parcel& parcel, const std::string& sqlstate, const std::string& why) {
    const Json json = Json::parse(parcel.json);
    execute(transaction_,
            "INSERT INTO watchdog_refused (host, ledger_id, ledger_seq, event_id, sqlstate, error, payload) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT (host, ledger_id, ledger_seq) DO UPDATE SET event_id = excluded.event_id, "
            "sqlstate = excluded.sqlstate, error = excluded.error, payload = excluded.payload, refused_at = now()",
            batch_.host, batch_.ledger_id, parcel.event->seq, json.value("event_id", std::string()), sqlstate, why,
            parcel.json);
    // Its run is over all the same.
    const EventKind kind = parcel.event->record.kind;
    if (kind == EventKind::kEnded || kind == EventKind::kUnregistered) {
      execute(transaction_, "DELETE FROM watchdog_processes WHERE run_id::text = lower($1)",
              json.value("run_id", std::string()));
    }
    ++done_.refused;
  }

  Session& session_;
  pqxx::work& transaction_;
  const Batch& batch_;
  Linking usual_linking_;
  Shipped done_;
};

/// Best effort: without its analysis an event is as good as with it.
void add_analyses(Session& session, pqxx::work& transaction, Parcels parcels) {
  const Json beginnings = beginnings_of(parcels);
  if (beginnings.empty()) return;
  transaction.exec("SAVEPOINT analyses");
  try {
    if (execute(transaction, kKeepsAnalyses)[0][0].as<bool>()) {
      execute(transaction, kAddAnalyses, to_text(beginnings));
    }
    transaction.exec("RELEASE SAVEPOINT analyses");
  } catch (const pqxx::sql_error&) {
    if (!session.connection.is_open()) throw;
    transaction.exec("ROLLBACK TO SAVEPOINT analyses");
  }
}

/// An Error if this program must not write to that schema.
std::optional<Error> check_version(int version) {
  if (version == kSchemaVersion) return std::nullopt;
  const std::string what =
      "the schema has version " + std::to_string(version) + ", this program needs " + std::to_string(kSchemaVersion);
  if (version < kSchemaVersion) return fail(Fault::kNoSchema, what + "; analysisctl migrate brings it there");
  return fail(Fault::kNewerSchema, what + "; update the program");
}

TimeLimits usual_limits(const Session& session) {
  return {session.target.statement_timeout, session.target.lock_timeout};
}

constexpr Span kShortLock = std::chrono::milliseconds{100};

/// Events of one id. False: it is locked still.
bool link_id(Session& session, const std::string& host, const std::string& id, Linked& done) {
  try {
    pqxx::work transaction(session.connection);
    set_up(transaction, session.target, {session.target.statement_timeout, kShortLock});
    const auto linked = execute(transaction,
                                "WITH noted AS (DELETE FROM watchdog_unlinked WHERE host = $1 AND registered_as = $2 "
                                "RETURNING event_id) "
                                "UPDATE watchdog_events e SET analysis_id = a.id FROM noted, analyses a "
                                "WHERE e.event_id = noted.event_id AND a.id = e.registered_as",
                                host, id);
    execute(transaction,
            "UPDATE watchdog_processes p SET analysis_id = a.id FROM analyses a "
            "WHERE p.host = $1 AND p.registered_as = $2 AND p.analysis_id IS NULL AND a.id = p.registered_as",
            host, id);
    if (AW_FAILPOINT_ERRNO("postgres.commit-links", ECONNRESET) != 0) lose_the_answer(session);
    transaction.commit();
    AW_FAILPOINT("postgres.links-committed");
    done.linked += static_cast<std::size_t>(linked.affected_rows());
    return true;
  } catch (const pqxx::sql_error& e) {
    // Deleted this very moment: the next call finds it gone.
    if (sqlstate_of(e) == kLockNotAvailable || sqlstate_of(e) == kForeignKeyViolation) return false;
    throw;
  }
}

}  // namespace

Result<std::int64_t> read_cursor(Connection& connection, const std::string& host, const std::string& ledger_id) {
  auto version = read_schema_version(connection);
  if (!version) return std::move(version).error();
  if (auto wrong = check_version(*version)) return std::move(*wrong);
  return guarded(connection, "read how far has been shipped", [&](Session& session) -> Result<std::int64_t> {
    pqxx::work look(session.connection);
    set_up(look, session.target, usual_limits(session));
    const auto row =
        execute(look, "SELECT last_seq FROM watchdog_shipping WHERE host = $1 AND ledger_id = $2", host, ledger_id);
    return row.empty() ? std::int64_t{0} : row[0][0].as<std::int64_t>();
  });
}

Result<Shipped> insert_events(Connection& connection, const Batch& batch) {
  return guarded(connection, "ship events", [&](Session& session) -> Result<Shipped> {
    pqxx::work transaction(session.connection);
    set_up(transaction, session.target, usual_limits(session));
    // Also takes the row, so that two shippers of one ledger take turns.
    const auto state = execute(transaction,
                               "INSERT INTO watchdog_shipping (host, ledger_id, last_seq) VALUES ($1, $2, 0) "
                               "ON CONFLICT (host, ledger_id) DO UPDATE SET shipped_at = now() "
                               "RETURNING last_seq, (SELECT coalesce(max(version), 0) FROM watchdog_migrations), "
                               "EXISTS (SELECT FROM watchdog_unlinked u WHERE u.host = $1)",
                               batch.host, batch.ledger_id);
    Shipped before;
    before.cursor = state[0][0].as<std::int64_t>();
    if (auto wrong = check_version(state[0][1].as<int>())) return std::move(*wrong).within("ship events");
    if (before.cursor < batch.after) {
      before.outcome = Shipped::Outcome::kRewound;
      return before;
    }

    const std::vector<Parcel> parcels = parcels_of(batch, before.cursor);
    add_analyses(session, transaction, parcels);
    AW_FAILPOINT("postgres.batch-begun");
    Shipment shipment(session, transaction, batch, state[0][2].as<bool>() ? Linking::kUnlessNoted : Linking::kLookUp);
    for (std::size_t first = 0; first < parcels.size();) {
      std::size_t count = 0;
      for (std::size_t bytes = 0; first + count < parcels.size(); ++count) {
        bytes += parcels[first + count].json.size();
        if (count > 0 && bytes > kLargestStatement) break;
      }
      shipment.bring(Parcels(parcels).subspan(first, count));
      first += count;
    }

    Shipped done = shipment.done();
    done.repeated += batch.events.size() - parcels.size();
    done.cursor = parcels.empty() ? before.cursor : parcels.back().event->seq;
    execute(transaction, "UPDATE watchdog_shipping SET last_seq = $3 WHERE host = $1 AND ledger_id = $2", batch.host,
            batch.ledger_id, done.cursor);
    if (AW_FAILPOINT_ERRNO("postgres.commit-events", ECONNRESET) != 0) lose_the_answer(session);
    transaction.commit();
    AW_FAILPOINT("postgres.events-committed");
    return done;
  });
}

Result<std::vector<Refusal>> read_refusals(Connection& connection, const std::string& host,
                                           const std::string& ledger_id, std::int64_t after, std::size_t limit) {
  return guarded(connection, "read what was refused", [&](Session& session) -> Result<std::vector<Refusal>> {
    pqxx::work look(session.connection);
    set_up(look, session.target, usual_limits(session));
    std::vector<Refusal> refusals;
    for (const auto& row : execute(look,
                                   "SELECT ledger_seq, event_id, error FROM watchdog_refused WHERE host = $1 "
                                   "AND ledger_id = $2 AND ledger_seq > $3 ORDER BY ledger_seq LIMIT $4",
                                   host, ledger_id, after, limit)) {
      refusals.push_back({row[0].as<std::int64_t>(), row[1].as<std::string>(), row[2].as<std::string>()});
    }
    return refusals;
  });
}

Result<void> reset_cursor(Connection& connection, const std::string& host, const std::string& ledger_id) {
  return guarded(connection, "begin shipping anew", [&](Session& session) -> Result<void> {
    pqxx::work transaction(session.connection);
    set_up(transaction, session.target, usual_limits(session));
    execute(transaction,
            "UPDATE watchdog_shipping SET last_seq = 0, last_change = 0 WHERE host = $1 AND ledger_id = $2", host,
            ledger_id);
    if (AW_FAILPOINT_ERRNO("postgres.commit-reset", ECONNRESET) != 0) lose_the_answer(session);
    transaction.commit();
    AW_FAILPOINT("postgres.reset-committed");
    return {};
  });
}

Result<Linked> link_events(Connection& connection, const std::string& host) {
  return guarded(connection, "link events to their analyses", [&](Session& session) -> Result<Linked> {
    std::vector<std::string> ids;
    {
      pqxx::work look(session.connection);
      set_up(look, session.target, usual_limits(session));
      for (const auto& row :
           execute(look, "SELECT DISTINCT registered_as FROM watchdog_unlinked WHERE host = $1", host)) {
        ids.push_back(row[0].as<std::string>());
      }
    }
    Linked done;
    for (const std::string& id : ids) {
      if (!link_id(session, host, id, done)) ++done.waiting;
    }
    return done;
  });
}

}  // namespace aw::postgres
