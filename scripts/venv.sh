#!/bin/sh
# usage: venv.sh NAME REQUIREMENTS
# Make build/venv-NAME-HASH with these Python packages, once per content of REQUIREMENTS, and print its bin folder.
set -eu

name=$1
requirements=$2
root=$(cd "$(dirname "$0")/.." && pwd)
hash=$({ python3 --version; cat "$requirements"; } | sha256sum | cut -c1-12)
venv=$root/build/venv-$name-$hash

# Debian splits `venv` off into a package of its own; where that cannot be installed, `virtualenv` does the same.
create() {
    python3 -m venv "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    if "$root/scripts/apt.sh" python3-venv; then
        python3 -m venv "$venv" && return
        rm -rf "$venv"
    fi
    if ! python3 -m virtualenv --version >/dev/null 2>&1; then
        python3 -m pip install -q --target "$root/build/virtualenv" virtualenv
        export PYTHONPATH="$root/build/virtualenv"
    fi
    python3 -m virtualenv -q "$venv"
}

mkdir -p "$root/build"
# Tests run at the same time and may want the same one.
exec 9>"$root/build/venv.lock"
flock 9
if [ ! -e "$venv/ready" ]; then
    echo "==> Python packages of $requirements → ${venv#"$root"/}" >&2
    rm -rf "$venv"
    create || { echo "error: no Python venv: install python3-venv (or python3-pip)" >&2; exit 1; }
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$requirements" >&2
    touch "$venv/ready"
fi
echo "$venv/bin"
