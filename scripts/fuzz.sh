#!/bin/sh
# Fuzzes the frontend: scripts/fuzz.sh [SECONDS] [TARGET...]. Needs cargo-fuzz (cargo install cargo-fuzz --locked); without
# it the short run of the test suite is made longer instead. Seeds come from testdata. RUSTC_BOOTSTRAP lets a stable
# toolchain build with coverage and the address sanitizer.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-600}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- parser expansion dockerignore

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed (cargo install cargo-fuzz): running the test suite's fuzzing for longer" >&2
    exec env RBUILD_FUZZ_ITERATIONS=$((seconds * 500)) cargo test -p rbuild-frontend --test fuzz_short
fi

corpus=frontend/fuzz/corpus
mkdir -p "$corpus/parser" "$corpus/expansion" "$corpus/dockerignore"
find testdata -name Dockerfile | while read -r file; do
    name=$(echo "$file" | tr / _)
    cp "$file" "$corpus/parser/$name"
    grep -n '[$"]' "$file" | while IFS=: read -r number line; do
        printf 'A=one two\nPATH=/bin:/usr/bin\nV=foo*bar\n%s' "$line" >"$corpus/expansion/$name.$number"
    done
done
find testdata -name .dockerignore -o -name dockerignore | while read -r file; do
    cp "$file" "$corpus/dockerignore/$(echo "$file" | tr / _)"
done
printf '# all\n*\n!src\n' >"$corpus/dockerignore/exceptions"
printf 'a?c\n[a-c]*\n\\[x\n**/*.go\n' >"$corpus/dockerignore/patterns"

cd frontend
for target; do
    RUSTC_BOOTSTRAP=1 cargo fuzz run "$target" -- -max_total_time="$seconds" -max_len=65536
done
