#!/bin/bash
# Installs the Debian packages that the tests, the example and the benches call.
# Quick when everything is there; needs root otherwise.
set -euo pipefail

packages=(
    mmdebstrap      # Debian base image for the example and the tests
    busybox-static  # busybox base image
    skopeo umoci crun # other tools must accept our images
    docker-registry apache2-utils # a real registry with TLS and basic auth (htpasswd)
    bzip2 xz-utils zstd # archives that ADD unpacks
    git openssh-client # git contexts, keys for RUN --mount=type=ssh
    strace          # system calls that fail
    ca-certificates
)
# buildah is only compared with: `--with-benches` installs it too.
if [[ ${1:-} == --with-benches ]]; then
    packages+=(buildah)
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $state == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ((EUID != 0)); then
    echo "missing packages: ${missing[*]}; run this as root: $0" >&2
    exit 4
fi

export DEBIAN_FRONTEND=noninteractive
# docker-registry's package would start a service; nothing here wants it running.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
echo "installed: ${missing[*]}"
