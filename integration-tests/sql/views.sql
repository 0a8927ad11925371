-- SPDX-License-Identifier: Apache-2.0
BEGIN;
SELECT plan(4);

SELECT is_empty('SELECT * FROM watchdog_status', 'no host, no row');

INSERT INTO watchdog_shipping VALUES ('idle', 'ledger', 5), ('busy', 'ledger', 5), ('busy', 'older-ledger', 9);
INSERT INTO watchdog_processes (run_id, registered_as, host, registered_at, state)
SELECT ('a0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'survey', 'busy', now(), state
FROM (VALUES (1, 'running'), (2, 'ending'), (3, 'unkillable'), (4, 'placing')) AS run (n, state);
INSERT INTO watchdog_events (event_id, occurred_at, host, run_id, registered_as, kind, reason)
SELECT ('e0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, now() - age,
       host, ('a0000000-0000-4000-8000-' || lpad((10 + n)::text, 12, '0'))::uuid, 'survey', kind, reason
FROM (VALUES (1, interval '1 hour', 'busy', 'ended', 'memory'),
             (2, interval '23 hours', 'busy', 'ended', 'lost'),
             (3, interval '25 hours', 'busy', 'ended', 'oom'),
             (4, interval '1 hour', 'busy', 'ended', 'exited'),
             (5, interval '1 hour', 'busy', 'ending', 'memory'),
             (6, interval '1 hour', 'never-shipped', 'ended', 'wall-clock')) AS event (n, age, host, kind, reason);

SELECT results_eq(
  'SELECT host, monitored_count, grace_count, kills_last_24h FROM watchdog_status ORDER BY host',
  $$VALUES ('busy', 4::bigint, 2::bigint, 2::bigint), ('idle', 0, 0, 0), ('never-shipped', 0, 0, 1)$$,
  'a row for each host');
SELECT results_eq('SELECT reason FROM watchdog_kills ORDER BY occurred_at DESC, reason',
  ARRAY['memory', 'wall-clock', 'lost', 'oom'], 'kills are the ends that were not `exited`');

SET LOCAL ROLE watchdog_reader;
SELECT is((SELECT sum(kills_last_24h) FROM watchdog_status), 3::numeric, 'a reader may see it');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
