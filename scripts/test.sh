#!/bin/sh
# usage: test.sh [ARGUMENT OF CARGO TEST…]
# Run every test, then say what failed, how many tests could not run on this host, and why. With TRAINSPOT_NO_SKIPS set,
# such a test fails.
set -u

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TRAINSPOT_SKIPS="$folder/skips"
touch "$TRAINSPOT_SKIPS"

# A text that differs from its snapshot fails its test, whatever the environment says, and no file is written for it.
export INSTA_UPDATE=no INSTA_FORCE_PASS=0

# Most tests wait for machines and servers: on two cores all took 2128 s two at a time, and 1490 s four at a time.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(nproc | awk '{ print ($1 < 4) ? 4 : $1 }')}
export RUST_TEST_THREADS

{
	cargo test --workspace --locked --no-fail-fast "$@" 2>&1
	echo $? >"$folder/code"
} | tee "$folder/log"
code=$(cat "$folder/code")

# A failure's own words stand far above the end of a long log, below what its programs said.
if [ "$code" -ne 0 ]; then
	echo "==> failures, and what follows each:"
	grep -a -A 3 "panicked at" "$folder/log" | cut -c 1-400 | head -n 100
fi
echo "==> $(wc -l <"$TRAINSPOT_SKIPS") skipped"
sort "$TRAINSPOT_SKIPS" | uniq -c
exit $code
