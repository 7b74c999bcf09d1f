#!/usr/bin/env bash
# Mutation testing of the machine: makes every mutant that `cargo mutants` knows of its files,
# and says which no test of cdl notices. About an hour on one core; docs/mutants.md has the
# last result, and explains those that are left. Exit code 1 if one is left that is not there.
#
#     scripts/mutants.sh [--missed] [NAME-PART..]
#
# `--missed` judges those again that were missed the last time; words judge those with one of
# them in their names (`machine/join.rs`).
set -euo pipefail
cd "$(dirname "$0")/.."

# Pinned: another version makes other mutants.
VERSION=27.1.0

out=${CARGO_TARGET_DIR:-$PWD/target}/mutants
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
tool=$tools/bin/cargo-mutants
mkdir -p "$out"
if [ ! -x "$tool" ] || [ "$("$tool" mutants --version)" != "cargo-mutants $VERSION" ]; then
    cargo install --locked --debug --version "$VERSION" --root "$tools" cargo-mutants
fi
"$tool" mutants --list --json --package cascade-cdl \
    --file cdl/src/machine.rs --file 'cdl/src/machine/**/*.rs' \
    --file cdl/src/execution.rs --file cdl/src/inbox.rs --file cdl/src/event.rs >"$out/list.json"
CARGO_TARGET_DIR=$out/tool cargo build --quiet --release --locked --manifest-path scripts/mutants/Cargo.toml
exec "$out/tool/release/mutants" "$out/list.json" "$out" "$@"
