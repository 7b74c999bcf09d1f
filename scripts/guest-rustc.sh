#!/bin/bash
# Finds or makes a rustc that compiles for wasm32-wasip2.
# Prints its path on standard output, and on standard error which way it took:
#   1. the target is installed already,
#   2. `rustup target add`,
#   3. Debian's packages, from which std is built once into a cache folder (about a minute).
# The binary runs this very script for `cascade activity build`.
# Environment: RUSTC (the compiler to try first), XDG_CACHE_HOME.
set -euo pipefail

TARGET=wasm32-wasip2
RUSTC=${RUSTC:-rustc}
CACHE=${XDG_CACHE_HOME:-${HOME:?HOME says where the cache goes}/.cache}/cascade/wasm-rust

say() { echo "guest toolchain: $*" >&2; }

# Whether a compiler has std for the target.
has_std() {
  local libs
  libs=$("$1" --print target-libdir --target "$TARGET" 2>/dev/null) && compgen -G "$libs/libstd-*.rlib" >/dev/null
}

# What the cache was made from: std of one compiler is of no use to another.
fingerprint() { /usr/bin/rustc -vV && "$RUSTC" --print sysroot; }

cached() {
  [ -f "$CACHE/made-from" ] && [ -x /usr/bin/rustc ] && has_std "$CACHE/bin/rustc" &&
    [ "$(fingerprint)" = "$(cat "$CACHE/made-from")" ]
}

install_packages() {
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  say "installing Debian's rustc-web, rust-web-src and wasi-libc"
  "${root[@]}" apt-get update -qq >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends rustc-web rust-web-src wasi-libc >&2
}

# Makes $1, a sysroot with Debian's compiler for the host and its std for the target.
build_std() {
  local prefix=$1 host tools work libs
  host=$("$RUSTC" -vV | sed -n 's/^host: //p')
  # Debian's compiler has no wasm-component-ld; that of the installed one serves.
  tools=$("$RUSTC" --print sysroot)/lib/rustlib/$host/bin
  [ -x "$tools/wasm-component-ld" ] || { say "$tools has no wasm-component-ld"; return 1; }

  mkdir -p "$prefix/bin" "$prefix/lib/rustlib/$host"
  ln -sfn "/usr/lib/rustlib/$host/lib" "$prefix/lib/rustlib/$host/lib"
  ln -sfn "$tools" "$prefix/lib/rustlib/$host/bin"
  # The prefix is built elsewhere and moved, so the wrapper finds itself.
  cat >"$prefix/bin/rustc" <<'WRAPPER'
#!/bin/sh
exec /usr/bin/rustc --sysroot "$(dirname "$(dirname "$(readlink -f "$0")")")" "$@"
WRAPPER
  chmod +x "$prefix/bin/rustc"

  work=$prefix/seed
  mkdir -p "$work/src"
  echo '#![no_std]' >"$work/src/lib.rs"
  printf '[package]\nname="sysroot-seed"\nversion="0.0.0"\nedition="2021"\n[profile.release]\npanic="abort"\n[workspace]\n' \
    >"$work/Cargo.toml"
  # -Zbuild-std is unstable, hence RUSTC_BOOTSTRAP; the flags are those of rustc's own build of std.
  # Without the bitcode in it, std could not take part in an activity's link-time optimisation.
  (cd "$work" && env -u CARGO_ENCODED_RUSTFLAGS RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
    RUSTFLAGS="-Cembed-bitcode=yes -Zforce-unstable-if-unmarked" \
    cargo build -q --release -Zbuild-std=std,panic_abort --target "$TARGET" --target-dir "$work/target" >&2)
  libs=$prefix/lib/rustlib/$TARGET/lib
  mkdir -p "$libs/self-contained"
  find "$work/target/$TARGET/release" -name '*.rlib' ! -name 'libsysroot_seed*' -exec cp -t "$libs" {} +
  cp -t "$libs/self-contained" /usr/lib/wasm32-wasi/{crt1-command.o,crt1-reactor.o,libc.a}
  rm -rf "$work"
  fingerprint >"$prefix/made-from"
}

from_packages() {
  command -v apt-get >/dev/null || return 1
  mkdir -p "$(dirname "$CACHE")"
  # Two builds at once would install the packages twice.
  exec 9>"$CACHE.lock"
  flock 9
  cached && return
  if [ ! -x /usr/bin/rustc ] || [ ! -e /usr/lib/rustlib/src/rust/library ] || [ ! -e /usr/lib/wasm32-wasi/libc.a ]; then
    install_packages || return 1
  fi
  say "building std for $TARGET from Debian's sources, once"
  rm -rf "$CACHE.new"
  build_std "$CACHE.new" || return 1
  rm -rf "$CACHE"
  mv "$CACHE.new" "$CACHE"
}

if has_std "$RUSTC"; then
  say "$TARGET is installed"
  command -v "$RUSTC"
elif cached; then
  say "built from Debian's packages, in $CACHE"
  echo "$CACHE/bin/rustc"
elif [ "$RUSTC" = rustc ] && command -v rustup >/dev/null && rustup target add "$TARGET" >&2 && has_std rustc; then
  say "rustup target add $TARGET"
  command -v rustc
elif from_packages; then
  say "built from Debian's packages, in $CACHE"
  echo "$CACHE/bin/rustc"
else
  say "no way to compile for $TARGET: run 'rustup target add $TARGET' where the network allows it, or install Debian's packages rustc-web, rust-web-src and wasi-libc"
  exit 1
fi
