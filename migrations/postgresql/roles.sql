-- SPDX-License-Identifier: Apache-2.0
--
-- What the two roles may, for whoever may grant it: the owner of the tables, after `analysisctl migrate`, and again
-- after each later migration. Plain GRANTs, no superuser. Roles are made by who may make roles:
--   CREATE ROLE watchdog_writer LOGIN;  CREATE ROLE watchdog_reader LOGIN;
--   psql -v ON_ERROR_STOP=1 -v writer=watchdog_writer -v reader=watchdog_reader -v schema=public -f roles.sql
-- The grants on a table analyses that a host application owns are its owner's to give; see the last lines.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL search_path TO :"schema";

GRANT USAGE ON SCHEMA :"schema" TO :"writer", :"reader";

-- The shipper inserts; it never changes or deletes an event. UPDATE of analysis_id fills in what a lock prevented.
GRANT SELECT, INSERT, UPDATE (analysis_id) ON watchdog_events TO :"writer";
GRANT SELECT, INSERT, UPDATE, DELETE ON watchdog_processes TO :"writer";
GRANT SELECT, INSERT, UPDATE ON watchdog_series TO :"writer";
GRANT SELECT, INSERT, UPDATE ON watchdog_shipping, watchdog_refused TO :"writer";
GRANT SELECT, INSERT, DELETE ON watchdog_unlinked TO :"writer";
GRANT SELECT ON watchdog_migrations TO :"writer";

GRANT SELECT ON watchdog_events, watchdog_processes, watchdog_kills, watchdog_status, watchdog_series,
  watchdog_samples, watchdog_shipping,
  watchdog_refused, watchdog_unlinked, watchdog_migrations TO :"reader";

COMMIT;

-- The writer looks an analysis up, and adds it where the table is ours. If analyses is another's and in another schema, its owner says instead:
--   GRANT USAGE ON SCHEMA app TO watchdog_writer;  GRANT SELECT (id) ON app.analyses TO watchdog_writer;
-- and, for the role that migrates, before it does:
--   GRANT USAGE ON SCHEMA app TO migrator;  GRANT SELECT, REFERENCES ON app.analyses TO migrator;
SELECT count(*) > 0 AS ours FROM pg_class
WHERE oid = to_regclass(format('%I.analyses', :'schema')) AND pg_has_role(relowner, 'USAGE') \gset
\if :ours
GRANT SELECT (id) ON :"schema".analyses TO :"writer";
-- 0001_watchdog.sql gives the table this comment where it makes it.
SELECT obj_description(to_regclass(format('%I.analyses', :'schema')), 'pg_class')
  IS NOT DISTINCT FROM 'Kept by the analysis watchdog, which adds each id that is registered.' AS kept \gset
\if :kept
GRANT INSERT (id) ON :"schema".analyses TO :"writer";
\endif
\endif
