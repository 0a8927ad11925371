# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A private PostgreSQL server for what is sourced into: in a temporary directory, on a unix socket only. Sets PGHOST,
# PGUSER and PGDATABASE for the programs of PostgreSQL, and `programs`, where they are.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
migrations=$here/../../migrations/postgresql

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# PostgreSQL refuses to run as root.
unprivileged() {
  if ((EUID == 0)); then runuser -u nobody -- "$@"; else "$@"; fi
}

# start_server SETTING…: "name=value" each.
start_server() {
  local setting settings=()
  programs=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  [[ -x $programs/initdb ]] || die "no PostgreSQL server is installed (package postgresql)"
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/aw-sql.XXXXXX")
  if ((EUID == 0)); then chown nobody "$scratch"; fi
  trap stop_server EXIT
  cd /
  unprivileged "$programs/initdb" -D "$scratch/data" --no-sync -A trust -U tester -E UTF8 --locale=C.UTF-8 \
    >"$scratch.log" 2>&1 || die "initdb: $(cat "$scratch.log")"
  for setting in listen_addresses= "unix_socket_directories=$scratch" "$@"; do settings+=(-c "$setting"); done
  unprivileged "$programs/pg_ctl" -D "$scratch/data" -l "$scratch/log" -w -o "${settings[*]}" start \
    >"$scratch.log" 2>&1 || die "pg_ctl: $(cat "$scratch.log" "$scratch/log")"
  export PGHOST=$scratch PGUSER=tester PGDATABASE=postgres PGOPTIONS='--client-min-messages=warning'
}

stop_server() {
  unprivileged "$programs/pg_ctl" -D "$scratch/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$scratch" "$scratch.log"
}

# sql: statements on stdin or as arguments of psql, stopping at the first error.
sql() { "$programs/psql" -X -q -v ON_ERROR_STOP=1 "$@"; }

migrate() {
  local file
  for file in "$migrations"/[0-9]*.sql; do sql --single-transaction -f "$file"; done
}
