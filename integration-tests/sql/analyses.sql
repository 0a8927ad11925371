-- SPDX-License-Identifier: Apache-2.0
--
-- The table analyses that the migration has made is kept by the shipper, which tells it by its comment.
BEGIN;
SELECT plan(8);

SELECT is(obj_description('analyses'::regclass, 'pg_class'),
          'Kept by the analysis watchdog, which adds each id that is registered.', 'it says whose it is');
SELECT is((SELECT relowner FROM pg_class WHERE oid = 'analyses'::regclass),
          (SELECT relowner FROM pg_class WHERE oid = 'watchdog_migrations'::regclass), 'its owner is that of our tables');
SELECT columns_are('analyses', ARRAY['id', 'created_at']);
SELECT column_privs_are('analyses', 'id', 'watchdog_writer', ARRAY['SELECT', 'INSERT']);
SELECT column_privs_are('analyses', 'created_at', 'watchdog_writer', ARRAY[]::text[]);
SELECT column_privs_are('analyses', 'id', 'watchdog_reader', ARRAY[]::text[]);

SET LOCAL ROLE watchdog_writer;
SELECT lives_ok($$INSERT INTO analyses (id) VALUES ('survey') ON CONFLICT (id) DO NOTHING$$, 'the writer adds an id');
SELECT throws_ok($$DELETE FROM analyses$$, '42501', NULL, 'and never removes one');

SELECT * FROM finish();
ROLLBACK;
