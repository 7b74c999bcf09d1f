#!/bin/sh
# Writes the bindings of sdk/wit/activity.wit that are checked in. Run it after a change of the contract.
set -eu
cd "$(dirname "$0")/bindings"
exec cargo run --quiet --target-dir ../../target/bindings
