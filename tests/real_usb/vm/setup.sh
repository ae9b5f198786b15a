#!/usr/bin/env bash
# The virtual machine's kernel and the tools that run in it, from nothing, on Debian 12, as root.
# A second run finds everything there and does nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${ESP_DFU_VM_CACHE:-$HOME/.cache/esp-dfu-ext}
kernel=$cache/linux

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

install udev usbutils dfu-util libusb-1.0-0 cpio mount util-linux procps iproute2 openssh-server openssh-client rsync usbip
if [ -x "$kernel" ] && cmp -s "$here/kernel.config" "$cache/kernel.config"; then
    echo "The kernel is there: $kernel ($SECONDS s)"
    exit
fi

install linux-source-6.1 gcc make flex bison bc xz-utils libc6-dev
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xf /usr/src/linux-source-6.1.tar.xz -C "$work" --strip-components=1
build() { make -s -C "$work" ARCH=um "$@"; }
build KCONFIG_ALLCONFIG="$here/kernel.config" allnoconfig
grep '^CONFIG.*=[^n]' "$here/kernel.config" | while read -r option; do
    grep -qx "$option" "$work/.config" || { echo "$option is not possible" >&2; exit 1; }
done
build -j"$(($(nproc) + 1))" linux
cp "$work/linux" "$kernel"
cp "$here/kernel.config" "$cache/kernel.config"
echo "Built $kernel in $SECONDS s"
