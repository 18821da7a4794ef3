#!/bin/sh
# What `make test-all` needs besides Python, from the packages of Debian or Ubuntu. Does nothing where all is there.
set -eu

missing() {
    for program in chromium nginx haproxy varnishd pgbouncer node npm jq curl openssl; do
        PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || echo "$program"
    done
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || echo postgresql
    # The gems of the recipe for Rails.
    for gem in activerecord railties pg jwt puma; do
        ruby -e 'Gem::Specification.find_by_name(ARGV[0])' "$gem" 2>/dev/null || echo "ruby-$gem"
    done
    # Playwright's own node needs it.
    ls /usr/lib*/libatomic.so.1 /usr/lib/*/libatomic.so.1 2>/dev/null | grep -q . || echo libatomic1
}

packages=$(missing | sed 's/^node$/nodejs/; s/^varnishd$/varnish/; s/^ruby-puma$/puma/' | xargs)
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "make test-all needs $packages, and there is no apt-get to install it with." >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "make test-all needs $packages. Install it as root (there is no sudo), then try again." >&2
        exit 1
    fi
    sudo=sudo
fi

# The tests start what they need; the packages' own services would take ports and stay. Debian asks this program.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$sudo rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod +x "$policy"
fi

echo "Installing $packages"
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"
$apt update >/dev/null
# shellcheck disable=SC2086  # a list of words
$apt install --no-install-recommends $packages >/dev/null

packages=$(missing | xargs)
if [ -n "$packages" ]; then
    echo "Still missing after the installation: $packages" >&2
    exit 1
fi
