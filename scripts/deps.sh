#!/bin/sh
# Make sure that what a build needs beside Rust is there: a C compiler (libgit2 and zstd are C), make, git, Python 3.
# As root on a Debian-like system, what is missing is installed; otherwise it is named.
set -eu

missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need cc "gcc libc6-dev"
need make make
need git git
need python3 python3

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # a list of words
    "$(dirname "$0")/apt.sh" $missing
fi

PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v cargo >/dev/null 2>&1; then
    echo "error: cargo is missing: install Rust from https://rustup.rs, or put cargo on PATH" >&2
    exit 1
fi
# A minimal rustup profile comes without these two.
for tool in clippy fmt; do
    if ! cargo $tool --version >/dev/null 2>&1; then
        echo "==> rustup component add clippy rustfmt" >&2
        rustup component add clippy rustfmt >&2
    fi
done
