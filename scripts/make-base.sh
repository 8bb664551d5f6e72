#!/bin/bash
# Makes a base image out of Debian packages, as an OCI layout directory, without a registry.
#
#   scripts/make-base.sh DIR [busybox|debian]
#
# The layout is DIR/<kind>; it is made again only when rbuild is newer than it. What costs time (mmdebstrap's
# archive) is kept in DIR. RBUILD names the rbuild to use; the default is the newest below target/.
# RBUILD_DEBIAN_MIRROR and RBUILD_DEBIAN_SUITE override what apt is configured to use.
set -euo pipefail

dir=${1:?usage: make-base.sh DIR [busybox|debian]}
kind=${2:-busybox}
here=$(cd "$(dirname "$0")/.." && pwd)

find_rbuild() {
    local newest=
    for candidate in "$here"/target/{release,debug}/rbuild; do
        [[ -x $candidate && (-z $newest || $candidate -nt $newest) ]] && newest=$candidate
    done
    echo "$newest"
}
rbuild=${RBUILD:-$(find_rbuild)}
if [[ ! -x $rbuild ]]; then
    echo "there is no rbuild: run \`cargo build\` first, or set RBUILD" >&2
    exit 2
fi

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
layout=$dir/$kind
# Tests of several processes ask for the same base at once.
exec 9>"$dir/.$kind.lock"
flock 9
if [[ -e $layout/index.json && $layout/index.json -nt $rbuild && $layout/index.json -nt $0 ]]; then
    exit 0
fi

scratch=$(mktemp -d "$dir/.tmp.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export SOURCE_DATE_EPOCH=1700000000

# The Debian mirror and release that this machine's apt uses.
debian_source() {
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 ~ /debian/ && $1 !~ /security/ && $2 !~ /(-updates|-security|-backports)$/ { print; exit }'
}

make_busybox() {
    local root=$scratch/root applet
    mkdir -p "$root"/{bin,etc,proc,sys,dev,root,home,usr/bin,var,tmp}
    chmod 1777 "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$SOURCE_DATE_EPOCH \
        -C "$root" -cf "$scratch/base.tar" .
    rm -rf "$root"
}

make_debian() {
    local kept=$dir/debian.tar mirror suite
    if [[ ! -e $kept || $0 -nt $kept ]]; then
        read -r mirror suite <<<"$(debian_source) "
        mirror=${RBUILD_DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}
        suite=${RBUILD_DEBIAN_SUITE:-${suite:-bookworm}}
        local options=(--quiet --variant=apt --components=main)
        # A proxy that this machine's apt uses is used inside too, and stays in the base for RUN steps.
        while read -r line; do
            options+=(--aptopt="$line")
        done < <(apt-config dump 2>/dev/null | grep -i '^Acquire::https\?::.*Proxy' || true)
        options+=(--aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"')
        for path in /usr/share/{doc,man,locale,info,lintian}; do
            options+=(--dpkgopt="path-exclude=$path/*")
        done
        # Downloaded lists and caches are not part of the image.
        options+=(--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/log/*.log')
        mmdebstrap "${options[@]}" "$suite" "$scratch/debian.tar" "$mirror" </dev/null
        mv "$scratch/debian.tar" "$kept"
    fi
    ln "$kept" "$scratch/base.tar"
}

"make_$kind"
mkdir "$scratch/context"
mv "$scratch/base.tar" "$scratch/context/"
cat >"$scratch/context/Dockerfile" <<'END'
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/sh"]
END
"$rbuild" --root "$scratch/store" build --progress=quiet -o "type=oci,dest=$scratch/layout,tar=false" "$scratch/context"
rm -rf "$layout"
mv "$scratch/layout" "$layout"
# Newer than rbuild, whatever times the layout's files were given.
touch "$layout/index.json"
