#!/bin/sh
# The statements of the specification that no test names: prints their numbers (`A-071`), and exits 1 when there are any.
#
#   scripts/coverage.sh [SECTION...]      sections as in the file, `A B E`; default A
#
# The specification is $RBUILD_FEATURES, else ../shared/features.md. A test names a statement with its full number in a
# comment or a name. Tests are files below tests/ and testdata/, src files named tests*.rs or conformance.rs, and the
# `#[cfg(test)]` modules of other files.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
features=${RBUILD_FEATURES:-../shared/features.md}
if [ ! -r "$features" ]; then
    echo "skipped: coverage: no specification at $features"
    exit 0
fi
[ $# -gt 0 ] || set -- A

# Every number in a test, one a line.
named() {
    find . \( -name target -o -name .git \) -prune -o -type f \
        \( -path '*/tests/*' -o -path '*/testdata/*' -o -path '*/src/*tests*.rs' -o -name conformance.rs \) \
        -exec cat {} +
    # A module in a file: from its attribute to the brace in the first column.
    find . \( -name target -o -name .git -o -name tests \) -prune -o -type f -path '*/src/*.rs' -exec awk '
        FNR == 1 { armed = inside = 0 }
        /^#\[cfg\(test\)\]/ { armed = 1; next }
        armed && /^mod [a-z_]+ \{/ { inside = 1 }
        { armed = 0 }
        inside
        /^}/ { inside = 0 }
    ' {} +
}

scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
named | tr -c 'A-Z0-9-' '\n' | grep -E '^[A-Z]-[0-9]{3}$' | sort -u >"$scratch"
status=0
for section in "$@"; do
    all=$(sed -nE "s/^- \*\*($section-[0-9]{3})\*\*.*/\1/p" "$features" | sort -u)
    if [ -z "$all" ]; then
        echo "coverage: $features has no section $section" >&2
        exit 2
    fi
    missing=$(printf '%s\n' "$all" | comm -23 - "$scratch")
    total=$(printf '%s\n' "$all" | wc -l)
    absent=$(printf '%s' "$missing" | grep -c . || true)
    [ -z "$missing" ] || { printf '%s\n' "$missing"; status=1; }
    echo "section $section: $((total - absent)) of $total statements are named by a test" >&2
done
exit "$status"
