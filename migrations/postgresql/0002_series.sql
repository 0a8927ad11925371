-- SPDX-License-Identifier: Apache-2.0
--
-- The curve of each run: what it had in memory and what it had used, from its first moment to its last, in a bounded
-- number of points; of a live run some minutes behind. roles.sql has to be run again after this file.

-- One array for each column, all of the same length, oldest first. watchdog_samples has them as rows.
CREATE TABLE watchdog_series (
  run_id                     uuid PRIMARY KEY,
  registered_as              text NOT NULL,
  host                       text NOT NULL CHECK (host <> ''),
  uid                        bigint NOT NULL,
  first_at                   timestamptz NOT NULL CHECK (isfinite(first_at)),
  last_at                    timestamptz NOT NULL CHECK (isfinite(last_at)),
  over                       boolean NOT NULL,  -- the run is, and this is all of it
  sampled_at                 timestamptz[] NOT NULL,
  memory_bytes               bigint[] NOT NULL,  -- page cache included
  memory_unreclaimable_bytes bigint[] NOT NULL,  -- what the verdict looks at
  cpu_usec                   bigint[] NOT NULL,  -- used since the run began
  processes                  bigint[] NOT NULL,
  recorded_at                timestamptz NOT NULL DEFAULT now(),  -- here
  CONSTRAINT watchdog_series_columns_match CHECK (
    cardinality(sampled_at) > 0
    AND cardinality(sampled_at) = cardinality(memory_bytes)
    AND cardinality(sampled_at) = cardinality(memory_unreclaimable_bytes)
    AND cardinality(sampled_at) = cardinality(cpu_usec)
    AND cardinality(sampled_at) = cardinality(processes))
);
CREATE INDEX watchdog_series_by_registered_as ON watchdog_series (registered_as, last_at);
CREATE INDEX watchdog_series_by_host ON watchdog_series (host, last_at);

-- A row for each point.
CREATE VIEW watchdog_samples AS
SELECT s.run_id, s.registered_as, s.host, s.uid,
       p.sampled_at, p.memory_bytes, p.memory_unreclaimable_bytes, p.cpu_usec, p.processes
FROM watchdog_series s,
     unnest(s.sampled_at, s.memory_bytes, s.memory_unreclaimable_bytes, s.cpu_usec, s.processes)
       AS p (sampled_at, memory_bytes, memory_unreclaimable_bytes, cpu_usec, processes);

-- How far each host's curves have been brought here; last_seq is of its events.
ALTER TABLE watchdog_shipping
  ADD COLUMN last_change bigint NOT NULL DEFAULT 0 CHECK (last_change >= 0);

INSERT INTO watchdog_migrations (version, name) VALUES (2, '0002_series.sql');
