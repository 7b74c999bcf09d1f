#!/usr/bin/env bash
# A PostgreSQL with hot standbys that stream from it, on ports of 127.0.0.1, to try read replicas and to test them:
#
#   scripts/replica.sh start FOLDER [COUNT]   makes and starts them in FOLDER, which must be empty or not there;
#                                             prints `NAME URL` for each: primary, replica-1, ... (COUNT, else 1)
#   scripts/replica.sh kill FOLDER NAME       ends one as a crash would
#   scripts/replica.sh run FOLDER NAME        starts it again
#   scripts/replica.sh stop FOLDER            ends all; FOLDER stays, and may be removed
#
# The database `workflows` has an owner of that name; `postgres` is the superuser. Anybody on this machine gets in.
# Root's own folders are closed to the user that servers run as: as root, take one below /tmp.
set -euo pipefail
. "$(dirname "$0")/lib/postgres.sh"

usage() {
  echo 'usage: scripts/replica.sh start FOLDER [COUNT] | kill FOLDER NAME | run FOLDER NAME | stop FOLDER' >&2
  exit 2
}

[ $# -ge 2 ] || usage
folder=$(realpath --canonicalize-missing "$2")

free_port() { # that nobody listens on just now, out of those that the system gives to nobody by itself
  local port
  while port=$((RANDOM % 12000 + 20000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

run() { # NAME
  as_user "$bin/pg_ctl" start --wait --silent --pgdata "$folder/$1" --log "$folder/$1.log" >&2 || {
    tail -5 "$folder/$1.log" >&2
    return 1
  }
}

end() { # NAME MODE
  [ -f "$folder/$1/postmaster.pid" ] || return 0
  as_user "$bin/pg_ctl" stop --mode="$2" --wait --silent --pgdata "$folder/$1" >&2
}

sql() { # STATEMENT
  psql --no-psqlrc --quiet --command "$1" "postgres://postgres@127.0.0.1:$port/postgres" >&2
}

settle() { # NAME: on a free port. Somebody else may take it before the server does: then on another one
  local attempt
  for attempt in 1 2 3; do
    port=$(free_port)
    as_user sh -c 'cat >>"$0"' "$folder/$1/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
CONF
    run "$1" && break || [ "$attempt" -lt 3 ]
  done
  echo "$1 postgres://workflows@127.0.0.1:$port/workflows"
}

start() { # COUNT
  install_it
  bin=$(programs)
  mkdir -p "$folder"
  if [ -n "$(ls -A "$folder")" ]; then
    echo "$folder is not empty" >&2
    exit 1
  fi
  [ "$(id -u)" -ne 0 ] || chown postgres "$folder"
  as_user test -w "$folder" || {
    echo "the user postgres cannot write to $folder: take one below /tmp" >&2
    exit 1
  }
  cd "$folder"
  as_user "$bin/initdb" --auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync --pgdata "$folder/primary" >/dev/null
  settle primary
  sql 'CREATE ROLE workflows LOGIN'
  sql 'CREATE DATABASE workflows OWNER workflows'
  local source="host=127.0.0.1 port=$port user=postgres" number
  for number in $(seq "$1"); do
    # The slot keeps what a replica has not got, so that one that was away comes back.
    as_user "$bin/pg_basebackup" --dbname "$source" --pgdata "$folder/replica-$number" --wal-method=stream \
      --write-recovery-conf --checkpoint=fast --no-sync --create-slot --slot="replica_$number"
    settle "replica-$number"
  done
}

case $1 in
  start)
    [ $# -le 3 ] || usage
    start "${3:-1}"
    ;;
  kill | run)
    [ $# -eq 3 ] || usage
    bin=$(programs)
    cd "$folder"
    if [ "$1" = run ]; then run "$3"; else end "$3" immediate; fi
    ;;
  stop)
    [ -d "$folder" ] || exit 0
    bin=$(programs)
    cd "$folder"
    for data in "$folder"/*/; do
      end "$(basename "$data")" immediate
    done
    ;;
  *) usage ;;
esac
