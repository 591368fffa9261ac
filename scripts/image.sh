#!/bin/sh
# usage: image.sh [BINARY] [TAG]
# Build the pipe's image around a binary of this machine (default: a release build), where no registry is reachable.
# It is the last stage of the Dockerfile, with a folder in the place of the stage that compiles.
set -eu
cd "$(dirname "$0")/.."

binary=${1:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
tag=${2:-trainspot/trainspot:$version}
if [ -z "$binary" ]; then
    cargo build --release --locked --bin trainspot
    binary=${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release/trainspot
fi

mkdir -p build
context=$(mktemp -d build/image.XXXXXX)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/files/etc/ssl/certs" "$context/files/tmp"
chmod 1777 "$context/files/tmp"
cp "$binary" "$context/files/trainspot"
cp pipe.yml README.md LICENSE "$context/files/"
cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$context/files/etc/ssl/certs/ca-certificates.crt"
sed -n "/^FROM scratch/,\$p" Dockerfile | sed "s|^COPY --from=build /image /|COPY files /|" >"$context/Dockerfile"

scripts/with-docker.sh docker build --tag "$tag" "$context"
echo "==> image $tag"
