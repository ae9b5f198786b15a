#!/usr/bin/env bash
# What the bench needs from apt, and the Python that runs its server. Debian 12 or newer, as root; again is quick.
set -euo pipefail
cd "$(dirname "$0")"

packages="umockdev gir1.2-umockdev-1.0 python3-gi python3-venv python3-yaml libusb-1.0-0 dfu-util cpio util-linux tshark"
# shellcheck disable=SC2086
if ! dpkg-query -W -f '${db:Status-Status}\n' $packages 2>/dev/null | awk '$0 != "installed" { bad = 1 } END { exit bad || NR < 10 }'; then
    lock="-o DPkg::Lock::Timeout=300"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $lock $packages >/dev/null
fi

# gi belongs to apt's Python, msgspec is not in Debian.
if ! .venv/bin/python -c 'import gi, msgspec, yaml; gi.require_version("UMockdev", "1.0")' 2>/dev/null; then
    rm -rf .venv
    /usr/bin/python3 -m venv --system-site-packages .venv
    .venv/bin/pip install -q --disable-pip-version-check msgspec
fi
echo "umockdev bench: ready after $SECONDS s"
