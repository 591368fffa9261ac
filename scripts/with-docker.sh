#!/bin/sh
# usage: with-docker.sh COMMAND [ARGUMENT…]
# Run the command with a `docker` that works: the engine that answers, or podman's service behind the docker CLI, which
# is started for the command and ended after it. Exits with 77, saying why, where neither can be had.
set -eu

skip() {
    echo "skipped: $1" >&2
    exit 77
}

command -v docker >/dev/null 2>&1 || skip "there is no docker command"
if docker info >/dev/null 2>&1; then
    exec "$@"
fi

if ! command -v podman >/dev/null 2>&1 || ! command -v runc >/dev/null 2>&1; then
    "$(dirname "$0")/apt.sh" buildah podman runc || skip "no Docker engine answers, and podman cannot be installed"
fi

state=$(mktemp -d)
service=
finish() {
    [ -z "$service" ] || { kill "$service" && wait "$service"; } 2>/dev/null || true
    rm -rf "$state"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# runc, because crun refuses hybrid cgroups; explicit limits, because podman's own are above what a container may raise.
cat >"$state/containers.conf" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=2048:2048"]
[engine]
runtime = "runc"
END
export CONTAINERS_CONF="$state/containers.conf"
podman system service -t 0 "unix://$state/podman.sock" >"$state/log" 2>&1 &
service=$!

# The classic builder: podman does not speak BuildKit's protocol.
export DOCKER_HOST="unix://$state/podman.sock" DOCKER_BUILDKIT=0
tries=0
until docker info >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] && kill -0 "$service" 2>/dev/null || { cat "$state/log" >&2; skip "podman's service does not answer"; }
    sleep 0.1
done

status=0
"$@" || status=$?
exit $status
