#!/bin/sh
# usage: apt.sh PACKAGE…
# Install these packages of Debian, as root; fails, saying why, where that cannot be. Tests that run at the same time may
# want the same or other packages: they wait for each other here, and for whoever else installs something.
set -eu

[ "$(id -u)" = 0 ] || { echo "error: please install: $* (as root on Debian, this script does it)" >&2; exit 1; }
command -v apt-get >/dev/null 2>&1 || { echo "error: please install: $* (there is no apt-get)" >&2; exit 1; }

exec 9>"${TMPDIR:-/tmp}/trainspot-apt.lock"
flock 9
echo "==> apt-get install $*" >&2
# The lock of the lists, unlike that of the packages, is not waited for by apt itself.
tries=0
until apt-get update -qq >&2; do
    tries=$((tries + 1))
    [ $tries -lt 30 ] || exit 1
    sleep 2
done
# Not the lock's descriptor: a service that a package starts would hold it.
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends -o DPkg::Lock::Timeout=600 "$@" >&2 9>&-
