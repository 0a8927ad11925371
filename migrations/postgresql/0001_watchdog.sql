-- SPDX-License-Identifier: Apache-2.0
--
-- The shared store: what the watchdogs of all hosts have on record. `analysisctl migrate` applies it, or a person:
--   psql --single-transaction -v ON_ERROR_STOP=1 -f 0001_watchdog.sql
-- It makes its tables in the schema that is first on search_path and needs CREATE there, nothing more; where the
-- database has a table analyses, anywhere on search_path, also REFERENCES and SELECT on that.
-- Sizes are bytes, spans microseconds; no limit is NULL.

-- The host application may own this table, with whatever other columns: then it gets no rows from us. One that is made
-- here has a comment that says so, and the shipper adds each id with the first event of its run. The comment goes with
-- the table; a host application that takes the table over is seen by another owner or further columns.
DO $$
BEGIN
  IF to_regclass('analyses') IS NULL THEN
    CREATE TABLE analyses (
      id         text PRIMARY KEY,
      created_at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE analyses IS 'Kept by the analysis watchdog, which adds each id that is registered.';
  END IF;
END
$$;

CREATE TABLE watchdog_migrations (
  version    integer PRIMARY KEY CHECK (version > 0),
  name       text NOT NULL,
  checksum   text,  -- SHA-256 of the file; NULL if a person has applied it
  applied_at timestamptz NOT NULL DEFAULT now()
);

-- What happened, a row for each event, as the ledgers of the hosts have it.
--
-- The writer gives analysis_id as (SELECT id FROM analyses WHERE id = registered_as): NULL if there is none. If it goes
-- between that look and the check of the reference, the statement fails with foreign_key_violation and is sent again;
-- so a deleted analysis never costs an event.
CREATE TABLE watchdog_events (
  event_id              uuid PRIMARY KEY,
  occurred_at           timestamptz NOT NULL CHECK (isfinite(occurred_at)),
  host                  text NOT NULL CHECK (host <> ''),
  boot_id               uuid,
  run_id                uuid,           -- NULL: an event of the daemon itself
  analysis_id           text REFERENCES analyses (id) ON DELETE SET NULL,
  registered_as         text NOT NULL,  -- the id as registered; '' in an event of the daemon itself
  kind                  text NOT NULL CHECK (kind <> ''),
  reason                text,
  unit                  text,
  pid                   integer,
  comm                  text,
  cmdline               text,
  uid                   bigint,
  memory_bytes          bigint,
  memory_peak_bytes     bigint,
  memory_limit_bytes    bigint,
  duration_usec         bigint,
  wall_clock_limit_usec bigint,
  cpu_usec              bigint,
  signal                integer,
  escalated             boolean NOT NULL DEFAULT false,
  exit_code             integer,
  exit_signal           integer,
  leftover_memory_bytes bigint,
  processes             jsonb,
  details               jsonb,
  ledger_seq            bigint,  -- its place in the host's ledger: the order of events of one host and one microsecond
  recorded_at           timestamptz NOT NULL DEFAULT now(),  -- here
  CONSTRAINT watchdog_events_of_a_run CHECK (run_id IS NULL OR registered_as <> ''),
  CONSTRAINT watchdog_events_end_has_a_reason CHECK (kind <> 'ended' OR (run_id IS NOT NULL AND reason IS NOT NULL)),
  CONSTRAINT watchdog_events_processes_is_a_list CHECK (jsonb_typeof(processes) = 'array'),
  CONSTRAINT watchdog_events_details_is_an_object CHECK (jsonb_typeof(details) = 'object')
);

-- Kinds and reasons are no enums and have no list to be checked against: a host with a newer program must not have its
-- events refused by an older schema.

-- A run ends once. Also finds the end of a run.
CREATE UNIQUE INDEX watchdog_events_one_end ON watchdog_events (run_id) WHERE kind = 'ended';

-- Each is read backwards for "newest first".
CREATE INDEX watchdog_events_by_time ON watchdog_events (occurred_at);
CREATE INDEX watchdog_events_by_registered_as ON watchdog_events (registered_as, occurred_at);
CREATE INDEX watchdog_events_by_host ON watchdog_events (host, occurred_at);
CREATE INDEX watchdog_events_by_run ON watchdog_events (run_id, occurred_at) WHERE run_id IS NOT NULL;
CREATE INDEX watchdog_events_by_kind ON watchdog_events (kind, occurred_at);
CREATE INDEX watchdog_events_by_reason ON watchdog_events (reason, occurred_at) WHERE reason IS NOT NULL;
CREATE INDEX watchdog_events_kills ON watchdog_events (occurred_at) INCLUDE (host)
  WHERE kind = 'ended' AND reason <> 'exited';
CREATE INDEX watchdog_events_kills_by_host ON watchdog_events (host, occurred_at)
  WHERE kind = 'ended' AND reason <> 'exited';
-- For ON DELETE SET NULL, which else would read the whole table.
CREATE INDEX watchdog_events_by_analysis ON watchdog_events (analysis_id) WHERE analysis_id IS NOT NULL;

-- The runs that are monitored now: a projection of the events, made by who inserts them, in the same transaction.
CREATE TABLE watchdog_processes (
  run_id                 uuid PRIMARY KEY,
  analysis_id            text REFERENCES analyses (id) ON DELETE SET NULL,
  registered_as          text NOT NULL CHECK (registered_as <> ''),
  host                   text NOT NULL CHECK (host <> ''),
  unit                   text,
  leader_pid             integer,
  uid                    bigint,
  memory_limit_bytes     bigint,
  memory_headroom_bytes  bigint,
  wall_clock_limit_usec  bigint,
  grace_usec             bigint,
  tasks_max              bigint,
  cpu_quota_per_sec_usec bigint,
  cpu_weight             bigint,
  registered_at          timestamptz NOT NULL,
  deadline_at            timestamptz,
  state                  text NOT NULL DEFAULT 'running' CHECK (state <> ''),
  boot_id                uuid,
  comm                   text,
  cmdline                text,
  description            text,
  labels                 jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
  updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX watchdog_processes_by_host ON watchdog_processes (host);
CREATE INDEX watchdog_processes_by_registered_as ON watchdog_processes (registered_as);
CREATE INDEX watchdog_processes_by_analysis ON watchdog_processes (analysis_id) WHERE analysis_id IS NOT NULL;

-- How far each host's ledger has been brought here. Written with the rows themselves, so that it is true after an
-- uncertain commit, a restored backup and a failover to a server that was behind.
CREATE TABLE watchdog_shipping (
  host       text NOT NULL CHECK (host <> ''),
  ledger_id  text NOT NULL CHECK (ledger_id <> ''),
  last_seq   bigint NOT NULL CHECK (last_seq >= 0),
  shipped_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (host, ledger_id)
);

-- Events that this database has refused for their own sake, set aside so that those behind them could pass.
CREATE TABLE watchdog_refused (
  host       text NOT NULL,
  ledger_id  text NOT NULL,
  ledger_seq bigint NOT NULL,
  event_id   text NOT NULL,  -- as it was; it may be what was wrong
  sqlstate   text NOT NULL,
  error      text NOT NULL,
  payload    text NOT NULL,  -- the event in JSON
  refused_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (host, ledger_id, ledger_seq)
);

-- Events that were inserted without an analysis_id because somebody held a lock on the row of their analysis for
-- longer than a shipper waits. Their analysis_id is filled in once the lock is gone.
CREATE TABLE watchdog_unlinked (
  event_id      uuid PRIMARY KEY REFERENCES watchdog_events (event_id) ON DELETE CASCADE,
  host          text NOT NULL,
  registered_as text NOT NULL
);
CREATE INDEX watchdog_unlinked_by_registered_as ON watchdog_unlinked (host, registered_as);

-- The ends that were not `exited`.
CREATE VIEW watchdog_kills AS
SELECT event_id, occurred_at, host, boot_id, run_id, analysis_id, registered_as, kind, reason, unit, pid, comm, cmdline,
       uid, memory_bytes, memory_peak_bytes, memory_limit_bytes, duration_usec, wall_clock_limit_usec, cpu_usec, signal,
       escalated, exit_code, exit_signal, leftover_memory_bytes, processes, details, ledger_seq, recorded_at
FROM watchdog_events
WHERE kind = 'ended' AND reason <> 'exited';

-- A row for each host that has ever been heard of.
CREATE VIEW watchdog_status AS
SELECT host,
       coalesce(monitored_count, 0) AS monitored_count,
       coalesce(grace_count, 0) AS grace_count,
       coalesce(kills_last_24h, 0) AS kills_last_24h,
       shipped_at
FROM (SELECT host, max(shipped_at) AS shipped_at FROM watchdog_shipping GROUP BY host) AS shipping
FULL JOIN (SELECT host,
                  count(*) AS monitored_count,
                  count(*) FILTER (WHERE state IN ('ending', 'unkillable')) AS grace_count
           FROM watchdog_processes
           GROUP BY host) AS processes USING (host)
FULL JOIN (SELECT host, count(*) AS kills_last_24h
           FROM watchdog_kills
           WHERE occurred_at > now() - interval '24 hours'
           GROUP BY host) AS kills USING (host);

INSERT INTO watchdog_migrations (version, name) VALUES (1, '0001_watchdog.sql');
