-- SPDX-License-Identifier: Apache-2.0
BEGIN;
SELECT plan(9);

SELECT col_is_pk('watchdog_series', 'run_id');
SELECT table_privs_are('watchdog_series', 'watchdog_writer', ARRAY['SELECT', 'INSERT', 'UPDATE']);
SELECT table_privs_are('watchdog_series', 'watchdog_reader', ARRAY['SELECT']);
SELECT table_privs_are('watchdog_samples', 'watchdog_reader', ARRAY['SELECT']);

SET LOCAL ROLE watchdog_writer;
SELECT lives_ok($$INSERT INTO watchdog_series (run_id, registered_as, host, uid, first_at, last_at, over, sampled_at,
    memory_bytes, memory_unreclaimable_bytes, cpu_usec, processes)
  VALUES ('a0000000-0000-4000-8000-000000000001', 'survey', 'node1', 1000, '2026-11-03T14:00:00Z', '2026-11-03T14:00:02Z',
    true, '{2026-11-03T14:00:00Z,2026-11-03T14:00:02Z}', '{10,20}', '{5,15}', '{0,1000}', '{1,2}')$$,
  'the writer adds a curve');
SELECT throws_ok($$INSERT INTO watchdog_series (run_id, registered_as, host, uid, first_at, last_at, over, sampled_at,
    memory_bytes, memory_unreclaimable_bytes, cpu_usec, processes)
  VALUES ('a0000000-0000-4000-8000-000000000002', 'survey', 'node1', 1000, now(), now(), true, ARRAY[now()], '{10,20}',
    '{5}', '{0}', '{1}')$$, '23514', NULL, 'its columns are of one length');
SELECT throws_ok($$DELETE FROM watchdog_series$$, '42501', NULL, 'the writer deletes none');
RESET ROLE;

SET LOCAL ROLE watchdog_reader;
SELECT results_eq(
  'SELECT sampled_at, memory_bytes, memory_unreclaimable_bytes, cpu_usec, processes FROM watchdog_samples ORDER BY 1',
  $$VALUES ('2026-11-03T14:00:00Z'::timestamptz, 10::bigint, 5::bigint, 0::bigint, 1::bigint),
           ('2026-11-03T14:00:02Z', 20, 15, 1000, 2)$$,
  'a reader has a row for each point');
RESET ROLE;
SELECT is((SELECT name FROM watchdog_migrations WHERE version = 2), '0002_series.sql', 'the migration is on record');

SELECT * FROM finish();
ROLLBACK;
