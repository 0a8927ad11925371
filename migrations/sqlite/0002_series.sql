-- SPDX-License-Identifier: Apache-2.0
--
-- The curve of each run: what it had in memory and what it had used, from its first moment to its last, in a bounded
-- number of points. Of a live run it is some minutes behind.

-- A row that is changed is written anew, with a number above all that were ever given: who keeps a copy asks for what is
-- above the last one it has.
CREATE TABLE watchdog_series (
  change INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL UNIQUE,
  registered_as TEXT NOT NULL,
  host TEXT NOT NULL,
  uid INTEGER NOT NULL,
  first_at TEXT NOT NULL, -- of the first sample
  last_at TEXT NOT NULL,  -- of the last one
  points INTEGER NOT NULL,
  samples BLOB NOT NULL, -- as supervise/series.h has it; GetSeries on the bus shows them
  over INTEGER NOT NULL CHECK (over IN (0, 1)), -- 1: the run is, and this is all of it
  event_seq INTEGER NOT NULL -- the newest event when it was written: it goes with that
) STRICT;

CREATE INDEX watchdog_series_by_last ON watchdog_series (last_at);
CREATE INDEX watchdog_series_by_event ON watchdog_series (event_seq);
