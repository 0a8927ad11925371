-- SPDX-License-Identifier: Apache-2.0
--
-- The ledger of one host: what happened (watchdog_events), what is monitored now (watchdog_processes), and the views
-- on both. Times are ISO 8601 in UTC with microseconds ("2026-11-03T14:05:09.123456Z"), so that they sort as text;
-- sizes are bytes, spans microseconds. No limit is NULL.

CREATE TABLE watchdog_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at TEXT NOT NULL
) STRICT;

-- Which ledger this is, among all that this host and others ever had: a number of an event (seq) means something in one
-- ledger only.
CREATE TABLE watchdog_ledger (
  id TEXT PRIMARY KEY NOT NULL,
  begun_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO watchdog_ledger (id, begun_at)
VALUES (lower(hex(randomblob(16))), strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'));

-- Who keeps the list of analyses: 'watchdog', which then adds each id that is registered, or 'host', an application
-- that had such a table before us and gets no rows from us.
CREATE TABLE watchdog_owner (
  of TEXT PRIMARY KEY,
  owner TEXT NOT NULL CHECK (owner IN ('watchdog', 'host'))
) STRICT, WITHOUT ROWID;

INSERT INTO watchdog_owner (of, owner)
SELECT 'analyses', iif(EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'analyses'), 'host', 'watchdog');

CREATE TABLE IF NOT EXISTS analyses (
  id TEXT PRIMARY KEY NOT NULL,
  created_at TEXT NOT NULL
);

CREATE TABLE watchdog_processes (
  run_id TEXT PRIMARY KEY NOT NULL,
  analysis_id TEXT REFERENCES analyses (id) ON DELETE SET NULL,
  registered_as TEXT NOT NULL,
  host TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  unit TEXT NOT NULL,
  leader_pid INTEGER NOT NULL,
  leader_start_time INTEGER NOT NULL, -- in clock ticks since boot, as in /proc/PID/stat: tells pids apart
  owner_pid INTEGER,                  -- NULL: it has none
  owner_start_time INTEGER,
  uid INTEGER NOT NULL,
  memory_limit_bytes INTEGER,
  memory_headroom_bytes INTEGER, -- as in force
  memory_headroom_auto INTEGER NOT NULL CHECK (memory_headroom_auto IN (0, 1)), -- 1: follows the limit
  wall_clock_limit_usec INTEGER,
  grace_usec INTEGER,
  tasks_max INTEGER,
  cpu_quota_per_sec_usec INTEGER,
  cpu_weight INTEGER, -- NULL: the kernel's default
  orphan_policy TEXT NOT NULL CHECK (orphan_policy IN ('kill', 'report')),
  owner_policy TEXT NOT NULL CHECK (owner_policy IN ('kill', 'ignore')),
  description TEXT NOT NULL,
  labels TEXT NOT NULL,                -- a JSON object of strings
  registered_at TEXT NOT NULL,
  deadline_at TEXT,                    -- NULL: none
  registered_at_usec INTEGER NOT NULL, -- the same two on CLOCK_MONOTONIC of this boot, which decides
  deadline_usec INTEGER,
  state TEXT NOT NULL CHECK (state IN ('placing', 'running', 'ending', 'unkillable'))
) STRICT;

CREATE INDEX watchdog_processes_by_analysis ON watchdog_processes (analysis_id);

-- seq counts up and is never used twice: who follows the outbox asks for what is above the last one it has.
CREATE TABLE watchdog_events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL UNIQUE,
  occurred_at TEXT NOT NULL,
  host TEXT,
  boot_id TEXT,
  run_id TEXT, -- NULL: an event of the daemon's own
  analysis_id TEXT REFERENCES analyses (id) ON DELETE SET NULL,
  registered_as TEXT NOT NULL, -- the id as it was registered; '' for an event of the daemon's own
  kind TEXT NOT NULL,
  reason TEXT,
  unit TEXT,
  pid INTEGER,
  comm TEXT,
  cmdline TEXT,
  uid INTEGER,
  memory_bytes INTEGER,
  memory_peak_bytes INTEGER,
  memory_limit_bytes INTEGER,
  duration_usec INTEGER,
  wall_clock_limit_usec INTEGER,
  cpu_usec INTEGER,
  signal INTEGER,
  escalated INTEGER NOT NULL CHECK (escalated IN (0, 1)),
  exit_code INTEGER,
  exit_signal INTEGER,
  leftover_memory_bytes INTEGER,
  processes TEXT, -- a JSON array of {pid, ppid, comm, rss, cmdline, cpu_usec}, largest first
  details TEXT    -- a JSON object
) STRICT;

-- seq stands behind the last column of each, so that "newest first" needs no sorting.
CREATE INDEX watchdog_events_by_time ON watchdog_events (occurred_at);
CREATE INDEX watchdog_events_by_name ON watchdog_events (registered_as, occurred_at);
CREATE INDEX watchdog_events_by_kind ON watchdog_events (kind, occurred_at);
CREATE INDEX watchdog_events_by_reason ON watchdog_events (reason, occurred_at) WHERE reason IS NOT NULL;
-- For ON DELETE SET NULL, which otherwise reads the whole table.
CREATE INDEX watchdog_events_by_analysis ON watchdog_events (analysis_id) WHERE analysis_id IS NOT NULL;

-- The ends that were not a run's own.
CREATE VIEW watchdog_kills AS
SELECT event_id, occurred_at, host, boot_id, run_id, analysis_id, registered_as, kind, reason, unit, pid, comm, cmdline,
       uid, memory_bytes, memory_peak_bytes, memory_limit_bytes, duration_usec, wall_clock_limit_usec, cpu_usec, signal,
       escalated, exit_code, exit_signal, leftover_memory_bytes, processes, details
FROM watchdog_events
WHERE kind = 'ended' AND reason IS NOT 'exited';

-- One row per host: of those that monitor something, were started once, or wrote the newest event.
CREATE VIEW watchdog_status AS
SELECT hosts.host,
       (SELECT count(*) FROM watchdog_processes p WHERE p.host = hosts.host) AS monitored_count,
       (SELECT count(*) FROM watchdog_processes p WHERE p.host = hosts.host AND p.state IN ('ending', 'unkillable'))
         AS grace_count,
       (SELECT count(*) FROM watchdog_kills k
         WHERE k.host = hosts.host AND k.occurred_at >= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day'))
         AS kills_last_24h
FROM (SELECT host FROM watchdog_processes
      UNION SELECT host FROM watchdog_events WHERE kind = 'daemon-started' AND host IS NOT NULL
      UNION SELECT host FROM (SELECT host FROM watchdog_events WHERE host IS NOT NULL ORDER BY seq DESC LIMIT 1))
  AS hosts;
