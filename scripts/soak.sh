#!/bin/bash
# The long form of the tests of the cache: random edits, kills, crowds. Prints counts and seeds; needs root, about ten minutes.
#   scripts/soak.sh [EDITS [KILLS [ROUNDS]]]      SEED=N repeats a run
set -euo pipefail
cd "$(dirname "$0")/.."
edits=${1:-600} kills=${2:-320} rounds=${3:-100} seed=${SEED:-$(date +%s)}
cargo build --release --locked -p rbuild
export RBUILD_TEST_BINARY=$PWD/target/release/rbuild
export RBUILD_STALE_SEED=$seed RBUILD_STALE_EDITS=$edits
export RBUILD_SOAK_SEED=$seed RBUILD_SOAK_KILLS=$kills RBUILD_SOAK_ROUNDS=$rounds
echo "seed $seed: $edits edits, $kills kills, $rounds rounds of 32 builds"
# One after the other: kills are spread over the time that a build takes when little else runs.
cargo test --locked -p rbuild --test stale --test soak --no-fail-fast -- --test-threads=1 --show-output
