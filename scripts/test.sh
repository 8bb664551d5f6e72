#!/bin/bash
# Everything that must hold before a change is merged. Needs Rust, a C compiler, Debian's archive and root.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=${RUST_BACKTRACE:-0} INSTA_UPDATE=${INSTA_UPDATE:-no}
step() { printf '\n== %s\n' "$*"; }

step "Debian packages"
scripts/install-test-deps.sh
step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "tests"
# Some tests run the program as a user would.
cargo build --workspace --locked
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# What passing tests print is only wanted for what they skip.
status=0
cargo test --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log" |
    awk '/^successes:$/ { hidden = 1 } /^(failures:|test result:)/ { hidden = 0 } !hidden' || status=$?
step "skipped: $(grep -c '^skipped: ' "$log" || true)"
grep '^skipped: ' "$log" | sort -u || true
exit "$status"
