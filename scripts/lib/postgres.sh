# What scripts that start a PostgreSQL share; to be sourced.

programs() { # where initdb is, newest first; Debian keeps it out of the path
  ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 | grep . && return
  dirname "$(command -v initdb)" 2>/dev/null
}

# The server refuses to run as root.
as_user() {
  if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

install_it() {
  programs >/dev/null && command -v psql >/dev/null && return
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo -n)
  if ! command -v apt-get >/dev/null; then
    echo 'no PostgreSQL: install one, or set CASCADE_TEST_POSTGRES=postgres://USER@HOST/DATABASE' >&2
    return 1
  fi
  "${root[@]}" apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends postgresql >&2 || {
    echo 'PostgreSQL could not be installed: do it, or set CASCADE_TEST_POSTGRES=postgres://USER@HOST/DATABASE' >&2
    return 1
  }
}
