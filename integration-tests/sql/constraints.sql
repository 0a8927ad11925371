-- SPDX-License-Identifier: Apache-2.0
BEGIN;
SELECT plan(14);

INSERT INTO analyses VALUES ('survey');
PREPARE event AS
  INSERT INTO watchdog_events (event_id, occurred_at, host, run_id, analysis_id, registered_as, kind, reason, details)
  VALUES ($1, now(), $2, $3, $4, $5, $6, $7, $8);

SELECT lives_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000001', 'node', 'a0000000-0000-4000-8000-000000000001',
  'survey', 'survey', 'ended', 'memory', '{}')$$, 'an end');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000001', 'node', NULL, NULL, '', 'daemon-started', NULL,
  NULL)$$, '23505', NULL, 'an event is on record once');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000002', 'node', 'a0000000-0000-4000-8000-000000000001',
  'survey', 'survey', 'ended', 'oom', '{}')$$, '23505', NULL, 'a run ends once');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000003', 'node', 'a0000000-0000-4000-8000-000000000002',
  NULL, 'survey', 'ended', NULL, '{}')$$, '23514', NULL, 'an end has a reason');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000004', 'node', 'a0000000-0000-4000-8000-000000000002',
  'unknown', 'unknown', 'ending', 'memory', '{}')$$, '23503', NULL, 'analysis_id is that of an analysis');
SELECT lives_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000005', 'node', 'a0000000-0000-4000-8000-000000000002',
  NULL, 'unknown', 'ending', 'memory', '{}')$$, 'or NULL');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000006', 'node', NULL, NULL, NULL, 'daemon-started', NULL,
  NULL)$$, '23502', NULL, 'registered_as is there');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000007', 'node', 'a0000000-0000-4000-8000-000000000003',
  NULL, '', 'registered', NULL, NULL)$$, '23514', NULL, 'and says what the run was registered as');
SELECT lives_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000008', 'node', NULL, NULL, '', 'daemon-started', NULL,
  NULL)$$, 'an event of the daemon has no run');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-000000000009', '', NULL, NULL, '', 'daemon-started', NULL,
  NULL)$$, '23514', NULL, 'but a host');
SELECT throws_ok($$EXECUTE event('e0000000-0000-4000-8000-00000000000a', 'node', NULL, NULL, '', 'daemon-started', NULL,
  '[1]')$$, '23514', NULL, 'details are an object');
SELECT throws_ok($$INSERT INTO watchdog_events (event_id, occurred_at, host, registered_as, kind)
  VALUES ('e0000000-0000-4000-8000-00000000000b', 'infinity', 'node', '', 'daemon-started')$$, '23514', NULL,
  'an event has happened at some time');

DELETE FROM analyses;
SELECT results_eq($$SELECT analysis_id, registered_as FROM watchdog_events WHERE kind = 'ended'$$,
  $$VALUES (NULL::text, 'survey')$$, 'an event outlives its analysis');

INSERT INTO watchdog_unlinked VALUES ('e0000000-0000-4000-8000-000000000001', 'node', 'survey');
DELETE FROM watchdog_events;
SELECT is_empty('SELECT * FROM watchdog_unlinked', 'what is pruned waits for nothing');

SELECT * FROM finish();
ROLLBACK;
