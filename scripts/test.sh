#!/bin/sh
# usage: test.sh [ARGUMENT OF CARGO TEST…]
# Run every test, then say how many could not run on this host, and why. With TRAINSPOT_NO_SKIPS set, such a test fails.
set -u

TRAINSPOT_SKIPS=$(mktemp)
export TRAINSPOT_SKIPS
trap 'rm -f "$TRAINSPOT_SKIPS"' EXIT

# Most tests wait for machines and servers: on two cores all took 2128 s two at a time, and 1490 s four at a time.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(nproc | awk '{ print ($1 < 4) ? 4 : $1 }')}
export RUST_TEST_THREADS

cargo test --workspace --locked --no-fail-fast "$@"
code=$?

echo "==> $(wc -l <"$TRAINSPOT_SKIPS") skipped"
sort "$TRAINSPOT_SKIPS" | uniq -c
exit $code
