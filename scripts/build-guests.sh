#!/bin/bash
# Builds the Rust activities of activities/ and examples/ to target/guest/*.wasm. Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

rustc=$(scripts/guest-rustc.sh)
shopt -s nullglob
packages=()
for manifest in activities/*/Cargo.toml examples/*/activities/*/Cargo.toml; do
  packages+=(-p "$(sed -n 's/^name = "\(.*\)"$/\1/p' "$manifest" | head -1)")
done
# Panics tell where they are: not in whose home the module was built.
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
# One folder of its own: the compiler differs from that of the host's code.
RUSTC=$rustc cargo build --quiet --locked --profile guest --target wasm32-wasip2 --target-dir target/guest "${packages[@]}"
# Only what changed is copied, so that whoever looks at times rebuilds nothing.
cp --update --preserve=timestamps target/guest/wasm32-wasip2/guest/*.wasm target/guest/
