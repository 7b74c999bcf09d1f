#!/usr/bin/env bash
# Says where a PostgreSQL for the tests is: `scripts/postgres.sh` prints its URL. That is the one that
# CASCADE_TEST_POSTGRES names, or the one at 127.0.0.1, or a new one in target/postgres (for root in /tmp), installed
# first if need be. `scripts/postgres.sh stop` ends that one. All that is said goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/postgres.sh

DEFAULT=postgres://127.0.0.1/test
PORT=55432
data=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/postgres")
# Root's own folders are closed to the user that the server runs as.
[ "$(id -u)" -ne 0 ] || data=${TMPDIR:-/tmp}/cascade-test-postgres
own=postgres://cascade@127.0.0.1:$PORT/postgres

answers() { # URL
  command -v psql >/dev/null && PGCONNECT_TIMEOUT=5 psql --no-psqlrc -qtc 'SELECT 1' "$1" >/dev/null 2>&1
}

start_it() {
  local bin
  bin=$(programs)
  mkdir -p "$data"
  [ "$(id -u)" -ne 0 ] || chown postgres "$data"
  cd "$data"
  [ -f "$data/PG_VERSION" ] ||
    as_user "$bin/initdb" --auth=trust --username=cascade --encoding=UTF8 --locale=C --pgdata "$data" >&2
  as_user "$bin/pg_ctl" start --wait --silent --pgdata "$data" --log "$data/log" \
    --options "-c listen_addresses=127.0.0.1 -c port=$PORT -c unix_socket_directories=" >&2
}

case ${1:-} in
  stop)
    [ -f "$data/postmaster.pid" ] || exit 0
    as_user "$(programs)/pg_ctl" stop --mode=fast --wait --silent --pgdata "$data" >&2
    ;;
  '')
    if [ -n "${CASCADE_TEST_POSTGRES:-}" ]; then
      install_it
      answers "$CASCADE_TEST_POSTGRES" || {
        echo 'nothing answers where CASCADE_TEST_POSTGRES says: start it, or unset the variable' >&2
        exit 1
      }
      echo "$CASCADE_TEST_POSTGRES"
      exit
    fi
    for url in "$DEFAULT" "$own"; do
      if answers "$url"; then
        echo "$url"
        exit
      fi
    done
    install_it
    start_it
    answers "$own" || {
      echo "the PostgreSQL in $data does not answer, see $data/log" >&2
      exit 1
    }
    echo "$own"
    ;;
  *)
    echo 'usage: scripts/postgres.sh [stop]' >&2
    exit 2
    ;;
esac
