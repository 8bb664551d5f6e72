#!/bin/bash
# Builds a two-stage C program on a Debian base made on the spot, lists the image and runs it.
# Needs Rust, a C compiler, Debian's archive and root; no image registry. Everything stays below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

example=target/example
step "Debian packages"
scripts/install-test-deps.sh
step "cargo build --release"
cargo build --release --locked --bin rbuild
export RBUILD=$PWD/target/release/rbuild
# The store of this example; without it rbuild would use /var/lib/rbuild.
export RBUILD_ROOT=$PWD/$example/store

step "base images out of Debian packages (the first time takes about a minute)"
scripts/make-base.sh target/testbases busybox
scripts/make-base.sh target/testbases debian

step "rbuild -t hello-c:1.0 testdata/example/hello-c"
"$RBUILD" -t hello-c:1.0 \
    --build-context debian=oci-layout://target/testbases/debian \
    --build-context busybox=oci-layout://target/testbases/busybox \
    testdata/example/hello-c

step "rbuild images"
"$RBUILD" images

step "the image, run"
bundle=$(mktemp -d "$PWD/$example/run.XXXXXX")
trap 'rm -rf "$bundle"' EXIT
run_with_crun() {
    umoci unpack --image "$RBUILD_ROOT:docker.io/library/hello-c:1.0" "$bundle/unpacked" >/dev/null 2>&1 || return 125
    # There is no terminal here.
    sed -i 's/"terminal": *true/"terminal": false/' "$bundle/unpacked/config.json"
    # crun refuses a machine with cgroup v1 and v2 side by side; it sees none here.
    unshare --mount bash -c '
        umount -R /sys/fs/cgroup 2>/dev/null; mount -t tmpfs none /sys/fs/cgroup
        exec crun --root "$1/crun" --cgroup-manager=disabled run --bundle "$1/unpacked" "$2"
    ' - "$bundle" "hello-c-$$" </dev/null
}
run_with_chroot() {
    "$RBUILD" --progress=quiet -o "type=local,dest=$bundle/rootfs" \
        --build-context debian=oci-layout://target/testbases/debian \
        --build-context busybox=oci-layout://target/testbases/busybox \
        testdata/example/hello-c
    chroot --userspec=65534:65534 "$bundle/rootfs" /usr/bin/hello world
}
if command -v umoci >/dev/null && command -v crun >/dev/null && run_with_crun; then
    echo "(umoci unpack, crun run)"
else
    run_with_chroot
    echo "(unpacked with -o type=local, run in a chroot)"
fi
