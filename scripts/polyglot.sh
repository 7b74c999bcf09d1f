#!/bin/bash
# Builds the activities of examples/polyglot to target/guest/polyglot/*.wasm, with compilers from npm and PyPI.
# Prints one line for each: `built NAME`, `fresh NAME`, `skipped NAME: why` or `failed NAME`.
# Ends with 0 unless one failed; a registry that cannot be reached is no failure.
set -uo pipefail
cd "$(dirname "$0")/.."

SOURCES=$PWD/examples/polyglot
WIT=$PWD/sdk/wit/activity.wit
OUT=$PWD/target/guest/polyglot
TOOLS=$OUT/tools
mkdir -p "$TOOLS"
failures=0

skip() { echo "skipped $1: $2"; }
fail() { echo "failed $1, see $OUT/$1.log"; tail -20 "$OUT/$1.log" >&2; failures=1; }

# Whether the component is younger than all that it is made of.
fresh() { # name source-folder
  [ -f "$OUT/$1.wasm" ] && [ -z "$(find "$SOURCES/$2" "$WIT" "$0" -newer "$OUT/$1.wasm" -print -quit)" ]
}

# Runs a build and says what came of it. It writes a file beside and moves it:
# half a component is never taken for one.
build() { # name command...
  local name=$1
  shift
  if "$@" >"$OUT/$name.log" 2>&1 && mv "$OUT/$name.new.wasm" "$OUT/$name.wasm"; then
    echo "built $name"
  else
    fail "$name"
  fi
}

# A Python environment with the packages, or a reason why there is none.
python_tools() { # name package...
  local name=$1 env=$TOOLS/python
  shift
  command -v python3 >/dev/null || { skip "$name" "python3 is not installed"; return 1; }
  [ -x "$env/bin/pip" ] || python3 -m venv "$env" >"$OUT/$name.log" 2>&1 || { skip "$name" "python3 has no venv"; return 1; }
  "$env/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 "$@" >"$OUT/$name.log" 2>&1 && return
  if "$env/bin/pip" index versions pip --retries 1 --timeout 20 >/dev/null 2>&1; then
    fail "$name"
  else
    skip "$name" "the registry of Python packages cannot be reached"
  fi
  return 1
}

node_tools() { # name
  command -v npm >/dev/null || { skip "$1" "npm is not installed"; return 1; }
  cp "$SOURCES"/javascript/* "$TOOLS/javascript/"
  # No package needs its install script here.
  npm --prefix "$TOOLS/javascript" install --ignore-scripts --no-audit --no-fund --silent >"$OUT/$1.log" 2>&1 && return
  if npm ping --fetch-retries 1 --fetch-timeout 20000 >/dev/null 2>&1; then
    fail "$1"
  else
    skip "$1" "the registry of npm packages cannot be reached"
  fi
  return 1
}

c() {
  fresh fingerprint_c c && { echo "fresh fingerprint_c"; return; }
  python_tools fingerprint_c ziglang==0.17.1 || return
  cd "$SOURCES/c" || return
  # A core module; Cascade makes a component of it when it is uploaded.
  build fingerprint_c "$TOOLS/python/bin/python" -m ziglang cc -target wasm32-wasi -Os -mexec-model=reactor -Wl,-z,stack-size=65536 \
    fingerprint.c bindings/activity.c bindings/activity_component_type.o -o "$OUT/fingerprint_c.new.wasm"
}

javascript() {
  fresh slug_js javascript && { echo "fresh slug_js"; return; }
  mkdir -p "$TOOLS/javascript"
  node_tools slug_js || return
  build slug_js node "$TOOLS/javascript/build.mjs" "$WIT" "$OUT/slug_js.new.wasm"
}

python() {
  fresh statistics_py python && { echo "fresh statistics_py"; return; }
  python_tools statistics_py componentize-py==0.25.1 || return
  cd "$SOURCES/python" || return
  PYTHONDONTWRITEBYTECODE=1 build statistics_py "$TOOLS/python/bin/componentize-py" -d "$WIT" -w pure-activity \
    componentize --stub-wasi app -o "$OUT/statistics_py.new.wasm"
}

root=$PWD
for language in c javascript python; do
  cd "$root" && "$language"
done
exit "$failures"
