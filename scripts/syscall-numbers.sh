#!/bin/bash
# Writes crates/runtime/src/seccomp/numbers.rs: the number of every system call on the ABIs that the filter of RUN steps knows,
# from the kernel headers as the crate linux-raw-sys has translated them. To be run when that crate knows a newer Linux and the
# profile names one of its calls.
set -euo pipefail
cd "$(dirname "$0")/.."

crate=$(dirname "$(cargo metadata --format-version 1 --locked |
    grep -o '"manifest_path":"[^"]*/linux-raw-sys-[^"]*/Cargo.toml"' | head -n 1 | cut -d '"' -f 4)")
out=crates/runtime/src/seccomp/numbers.rs

# "name number" of one ABI; x32 without the bit that marks it.
numbers() {
    sed -nE "s/^pub const (__NR|__ARM_NR)_([a-z0-9_]+): u32 = ([0-9]+);.*/\\2 \\3/p" "$crate/src/$1/general.rs" |
        awk '$2 >= 1073741824 { $2 -= 1073741824 } { print }' |
        grep -vE '^(usr26|usr32|get_tls|syscalls) ' | LC_ALL=C sort
}
version=$(sed -nE 's/^pub const LINUX_VERSION_CODE: u32 = ([0-9]+);/\1/p' "$crate/src/x86_64/general.rs")

{
    cat <<HEAD
//! Numbers of system calls, as of Linux $((version >> 16)).$((version >> 8 & 255)). Written by \`scripts/syscall-numbers.sh\`.

/// Name, and numbers on x86_64, x32 (without its bit), i386, aarch64 and arm; -1 where there is none. Sorted by name.
#[rustfmt::skip]
pub(super) static NUMBERS: &[(&str, [i32; 5])] = &[
HEAD
    for abi in x86_64 x32 x86 aarch64 arm; do
        numbers "$abi" | sed "s/\$/ $abi/"
    done | awk '
        BEGIN { column["x86_64"] = 1; column["x32"] = 2; column["x86"] = 3; column["aarch64"] = 4; column["arm"] = 5 }
        { number[$1, column[$3]] = $2; names[$1] }
        END {
            for (name in names) {
                line = "    (\"" name "\", ["
                for (i = 1; i <= 5; i++)
                    line = line (i > 1 ? ", " : "") ((name, i) in number ? number[name, i] : -1)
                print line "]),"
            }
        }' | LC_ALL=C sort -t '"' -k 2,2
    echo '];'
} >"$out"
