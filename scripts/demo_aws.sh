# Read by demo.sh: a throw-away EC2, on whose machines the example is trained.

say "A throw-away EC2, whose machines boot as real hosts in a network of their own"
rig_python=$(scripts/venv.sh rig test/rig/requirements.txt)
# Machines have no way out, so Python and the example's packages are there already, read-only.
set --
home=$("$python/python" -c 'import sys; print(sys.base_prefix)')
packages=$("$python/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ "$home" = /usr ]; then
    machine_path=/usr/bin # its own Python is this one, on a Debian like theirs
    "$rig_python/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        { echo "error: the machines have Python 3.11, and this one another; use a Python that is not in /usr" >&2; exit 1; }
else
    machine_path=/opt/python/bin
    set -- --bind "$home:/opt/python"
fi
mkfifo "$scene/stop-rig"
"$rig_python/python" test/rig/rig.py --ready "$scene/rig.json" --end-with-stdin --bind "$packages:/opt/packages" "$@" <"$scene/stop-rig" &
rig=$!
exec 4>"$scene/stop-rig"
until [ -e "$scene/rig.json" ]; do
    kill -0 "$rig" 2>/dev/null || {
        rig=
        echo "error: the rig needs root and Linux namespaces; see test/rig/README.md" >&2
        exit 1
    }
    sleep 0.1
done
fact() { "$rig_python/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$scene/rig.json" "$1"; }
network=$(fact pid)
inside() { nsenter -t "$network" -n "$@"; }
inside "$rig_python/python" scripts/demo_aws.py open "$scene/rig.json"

pipe_on_aws() {
    "$rig_python/python" scripts/demo_aws.py variables "$scene/rig.json" >"$scene/variables"
    # One variable a line, none with a space in it.
    # shellcheck disable=SC2046
    pipe $(cat "$scene/variables") INSTANCE_TYPE_COUNT=2 INSTANCE_TYPE_0=m5.large INSTANCE_TYPE_1=c5.large \
        CHECKPOINT_INTERVAL=1s MAX_RUNTIME=10m \
        TRAIN_ENV_COUNT=3 TRAIN_ENV_0="PATH=$machine_path:/usr/bin:/bin" TRAIN_ENV_1=PYTHONPATH=/opt/packages \
        TRAIN_ENV_2=LD_LIBRARY_PATH=/opt/python/lib "$@"
}

train_on_aws() {
    say "The plan: DRY_RUN rents nothing"
    pipe_on_aws DRY_RUN=true
    say "The pipe. AWS takes the first two machines back while they train"
    mkfifo "$scene/log"
    inside "$rig_python/python" scripts/demo_aws.py interrupt "$scene/rig.json" <"$scene/log" &
    watcher=$!
    status=0
    pipe_on_aws >"$scene/log" 2>&1 || status=$?
    wait "$watcher"
    [ "$status" = 0 ] || exit "$status"
}

check_aws() {
    say "The model, and that of a training that nobody interrupted"
    cp -R examples/random-forest "$scene/plain"
    (cd "$scene/plain" && "$python/python" get_data.py >/dev/null && "$python/python" train.py >/dev/null)
    interrupted=$(git -C "$scene/forest.git" show "$branch:model/random_forest.joblib" | sha256sum)
    plain=$(sha256sum <"$scene/plain/model/random_forest.joblib")
    printf '%s\n%s\n' "$interrupted" "$plain"
    [ "$interrupted" = "$plain" ] || { echo "error: they differ" >&2; exit 1; }
    say "What is left at AWS, of every type"
    inside "$rig_python/python" scripts/demo_aws.py leftovers "$scene/rig.json"
}
