#!/bin/sh
# Installs the packages of Debian or Ubuntu that are named. Never asks for a password.
set -eu

packages="$*"

if ! command -v apt-get >/dev/null; then
    echo "needs $packages, and there is no apt-get to install it with" >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "needs $packages; install it as root, then try again" >&2
        exit 1
    fi
    sudo="sudo -n"
fi

# The peers are started when they are measured; the package's own service would take a port and stay. Debian asks this
# program.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$sudo rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod +x "$policy"
fi

apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"
$apt update >/dev/null
# shellcheck disable=SC2086  # a list of words
$apt install --no-install-recommends $packages >/dev/null
