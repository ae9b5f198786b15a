#!/usr/bin/env bash
# The virtual machine's kernel and the tools that run in it, from nothing, on Debian 12, as root.
#
#   setup.sh          install the packages and, unless the cache has a kernel made by this recipe, build it
#   setup.sh --path   print where the kernel of this recipe is, or will be
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=linux-source-6.1
# The recipe is this script, the configuration and the patches: after a change of any, the kernel has another name.
recipe=$(cat "$0" "$here/kernel.config" "$here"/patches/*.patch | sha256sum | cut -c1-16)
cache=${ESP_DFU_VM_CACHE:-$HOME/.cache/esp-dfu-ext}
kernel=$cache/linux-$recipe

if [ "${1:-}" = --path ]; then
    echo "$kernel"
    exit
fi

install() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    fi
}

if [ "$(uname -m)" != x86_64 ]; then
    echo "User-Mode Linux needs an x86-64 processor; this one is $(uname -m)." >&2
    exit 1
fi
install udev usbutils dfu-util libusb-1.0-0 cpio mount util-linux procps iproute2 openssh-server openssh-client rsync usbip
if [ -x "$kernel" ]; then
    echo "The kernel is there: $kernel ($SECONDS s)"
    exit
fi

install "$source" gcc make flex bison bc patch xz-utils libc6-dev
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xf "/usr/src/$source.tar.xz" -C "$work" --strip-components=1
for change in "$here"/patches/*.patch; do
    patch -d "$work" -p1 --fuzz=0 --forward < "$change"
done
build() { make -s -C "$work" ARCH=um "$@"; }
build KCONFIG_ALLCONFIG="$here/kernel.config" allnoconfig
grep '^CONFIG.*=[^n]' "$here/kernel.config" | while read -r option; do
    grep -qx "$option" "$work/.config" || { echo "$option is not possible" >&2; exit 1; }
done
build -j"$(($(nproc) + 1))" linux
# Renamed, because another checkout may build the same one, or may be running it.
cp "$work/linux" "$kernel.$$"
mv "$kernel.$$" "$kernel"
echo "Built $kernel in $SECONDS s"
