-- SPDX-License-Identifier: Apache-2.0
BEGIN;
SELECT plan(19);

SELECT tables_are('public', ARRAY['analyses', 'watchdog_events', 'watchdog_migrations', 'watchdog_processes',
                                  'watchdog_refused', 'watchdog_series', 'watchdog_shipping', 'watchdog_unlinked']);
SELECT views_are('public', ARRAY['watchdog_kills', 'watchdog_samples', 'watchdog_status']);

-- The contract's columns, in its order, and ours behind them.
SELECT is(
  (SELECT string_agg(column_name || ' ' || udt_name, ', ' ORDER BY ordinal_position)
   FROM information_schema.columns WHERE table_name = 'watchdog_events'),
  'event_id uuid, occurred_at timestamptz, host text, boot_id uuid, run_id uuid, analysis_id text, registered_as text, '
  'kind text, reason text, unit text, pid int4, comm text, cmdline text, uid int8, memory_bytes int8, '
  'memory_peak_bytes int8, memory_limit_bytes int8, duration_usec int8, wall_clock_limit_usec int8, cpu_usec int8, '
  'signal int4, escalated bool, exit_code int4, exit_signal int4, leftover_memory_bytes int8, processes jsonb, '
  'details jsonb, ledger_seq int8, recorded_at timestamptz',
  'columns of watchdog_events');
SELECT is(
  (SELECT string_agg(column_name || ' ' || udt_name, ', ' ORDER BY ordinal_position)
   FROM information_schema.columns WHERE table_name = 'watchdog_kills'),
  (SELECT string_agg(column_name || ' ' || udt_name, ', ' ORDER BY ordinal_position)
   FROM information_schema.columns WHERE table_name = 'watchdog_events'),
  'watchdog_kills has those of watchdog_events');
SELECT is(
  (SELECT string_agg(column_name, ', ' ORDER BY ordinal_position)
   FROM information_schema.columns WHERE table_name = 'watchdog_processes' AND ordinal_position <= 17),
  'run_id, analysis_id, registered_as, host, unit, leader_pid, uid, memory_limit_bytes, memory_headroom_bytes, '
  'wall_clock_limit_usec, grace_usec, tasks_max, cpu_quota_per_sec_usec, cpu_weight, registered_at, deadline_at, state',
  'columns of watchdog_processes');
SELECT columns_are('watchdog_status', ARRAY['host', 'monitored_count', 'grace_count', 'kills_last_24h', 'shipped_at']);

SELECT col_is_pk('watchdog_events', 'event_id');
SELECT col_is_pk('watchdog_processes', 'run_id');
SELECT col_is_pk('watchdog_shipping', ARRAY['host', 'ledger_id']);
SELECT col_is_pk('watchdog_refused', ARRAY['host', 'ledger_id', 'ledger_seq']);
SELECT fk_ok('watchdog_events', 'analysis_id', 'analyses', 'id');
SELECT fk_ok('watchdog_processes', 'analysis_id', 'analyses', 'id');
SELECT is(
  (SELECT array_agg(DISTINCT confdeltype::text) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'analyses'::regclass),
  ARRAY['n'], 'both are ON DELETE SET NULL');
SELECT col_is_null('watchdog_events', 'analysis_id', 'analysis_id may be NULL');
SELECT col_not_null('watchdog_events', 'registered_as', 'registered_as may not');
SELECT is((SELECT name FROM watchdog_migrations WHERE version = 1), '0001_watchdog.sql', 'the migration is on record');

-- What the roles may.
SELECT table_privs_are('watchdog_events', 'watchdog_writer', ARRAY['SELECT', 'INSERT']);
SELECT table_privs_are('watchdog_events', 'watchdog_reader', ARRAY['SELECT']);
SELECT table_privs_are('analyses', 'watchdog_reader', ARRAY[]::text[]);

SELECT * FROM finish();
ROLLBACK;
