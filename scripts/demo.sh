#!/bin/sh
# usage: demo.sh [local|aws|detached]
# Train examples/random-forest through the pipe, as a Pipelines step would, against a throw-away Bitbucket on this machine:
# in a process, on the machines of a throw-away EC2 (test/rig), where AWS takes the first two back, or in a process that
# goes on when its step has ended.
# Everything it makes is in one temporary folder, removed at the end; built programs and Python packages stay cached.
set -eu
cd "$(dirname "$0")/.."
cloud=${1:-local}

say() { printf '\n\033[1m==> %s\033[0m\n' "$1"; }

say "Building"
if [ "$cloud" != aws ]; then
    # Without what is only for EC2: the AWS SDK takes longer to build than all the rest.
    cargo build --locked --package trainspot --package fake-bitbucket --bins --no-default-features
else
    # With the tests, although they are not run: their dependencies have more features switched on, and are then built
    # once for `make demo-aws` and `make test`.
    cargo build --locked --workspace --all-targets
fi
programs=$(cd "${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/debug" && pwd)
python=$(scripts/venv.sh example examples/random-forest/requirements.txt)

scene=$(mktemp -d)
server=
rig=
finish() {
    # Both end when their input does.
    exec 3>&- 4>&-
    [ -z "$server" ] || wait "$server" || true
    [ -z "$rig" ] || wait "$rig" || true
    rm -rf "$scene"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Where Bitbucket and the pipe run; with the rig, its network.
inside() { "$@"; }
[ "$cloud" = local ] || . "scripts/demo_$cloud.sh"

say "A throw-away Bitbucket: a repository with some history, the example, and a clone of depth 50 as Pipelines makes it"
git init -q --bare --initial-branch=main "$scene/forest.git"
git clone -q "$scene/forest.git" "$scene/author" 2>/dev/null
author() { git -C "$scene/author" -c user.name=Ada -c user.email=ada@example.com "$@"; }
for number in $(seq 60); do
    author commit -q --allow-empty -m "experiment $number"
done
cp -R examples/random-forest/. "$scene/author"
author add .
author commit -q -m "Add the random forest"
author push -q origin HEAD:main

mkfifo "$scene/stop"
inside "$programs/fake-bitbucket" --repo "$scene/forest.git" --workspace demo --slug forest --clone "$scene/build" \
    <"$scene/stop" >"$scene/addresses" 2>"$scene/server.log" &
server=$!
exec 3>"$scene/stop"
until grep -q FAKE_ACCESS_TOKEN "$scene/addresses"; do
    kill -0 "$server" 2>/dev/null || { cat "$scene/server.log" >&2; exit 1; }
    sleep 0.05
done
git -C "$scene/build" log --oneline -n 3
echo "… $(git -C "$scene/build" rev-list --count HEAD) commits in the clone, $(git -C "$scene/author" rev-list --count HEAD) in the repository"

value() { sed -n "s/^$1=//p" "$scene/addresses"; }
# A token goes to Bitbucket's address or the one that the step names, over plain HTTP only on this machine.
git -C "$scene/build" remote set-url origin "$(value FAKE_GIT_URL)"
mkdir "$scene/tmp"

# Runs the pipe with these variables besides those of every demo.
pipe() (
    cd "$scene/build"
    # Nothing of this shell's environment but what a step has, too.
    inside env -i PATH="$PATH" HOME="$HOME" TMPDIR="$scene/tmp" PIP_DISABLE_PIP_VERSION_CHECK=1 CI=true \
        BITBUCKET_CLONE_DIR="$scene/build" \
        BITBUCKET_BRANCH=main \
        BITBUCKET_COMMIT="$(git rev-parse HEAD)" \
        BITBUCKET_WORKSPACE=demo \
        BITBUCKET_REPO_SLUG=forest \
        BITBUCKET_BUILD_NUMBER=1 \
        BITBUCKET_PIPELINE_UUID='{11111111-1111-1111-1111-111111111111}' \
        BITBUCKET_STEP_UUID='{22222222-2222-2222-2222-222222222222}' \
        BITBUCKET_GIT_HTTP_ORIGIN="$(value FAKE_GIT_URL)" \
        BITBUCKET_API_URL="$(value FAKE_API_URL)" \
        PIPELINES_PROXY="$(value FAKE_PROXY_URL)" \
        BITBUCKET_ACCESS_TOKEN="$(value FAKE_ACCESS_TOKEN)" \
        ACTION=train \
        CLOUD="$cloud" \
        TRAIN_COMMAND='python -m pip install -q -r requirements.txt && python get_data.py && python train.py' \
        OUTPUTS_COUNT=3 \
        OUTPUTS_0=model/random_forest.joblib OUTPUTS_1=model/metrics.json OUTPUTS_2=model/confusion_matrix.png \
        CHECKPOINTS_COUNT=1 CHECKPOINTS_0=checkpoints \
        "$@" "$programs/trainspot"
)

if [ "$cloud" = local ]; then
    say "The pipe"
    pipe TRAIN_ENV_COUNT=1 TRAIN_ENV_0="PATH=$python:$PATH"
    say "The same again, with the model in a DVC remote, here a folder, and its pointer in git"
    pipe TRAIN_ENV_COUNT=1 TRAIN_ENV_0="PATH=$python:$PATH" BITBUCKET_STEP_UUID='{33333333-3333-3333-3333-333333333333}' \
        OUTPUTS_COUNT=2 OUTPUTS_0=model/metrics.json OUTPUTS_1=model/confusion_matrix.png \
        DVC_OUTPUTS=model/random_forest.joblib DVC_REMOTE="$scene/storage" BRANCH=trainspot/with-dvc
    find "$scene/storage" -type f -size +0 -printf '%s bytes: %P\n'
elif [ "$cloud" = aws ]; then
    train_on_aws
else
    train_detached
fi

say "What it pushed"
git -C "$scene/forest.git" branch --list
for branch in $(git -C "$scene/forest.git" for-each-ref --format='%(refname:short)' 'refs/heads/trainspot/'); do
    git -C "$scene/forest.git" log --stat "main..$branch"
done

say "The pull request and its report, as Bitbucket has them"
inside python3 scripts/show_pull_requests.py "$(value FAKE_API_URL)/repositories/demo/forest" "$(value FAKE_ACCESS_TOKEN)"

[ "$cloud" != aws ] || check_aws
