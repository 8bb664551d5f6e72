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
cargo test --workspace --locked
