# Read by demo.sh: a detached run, whose store is a folder.

# Runs the pipe of pipeline $1, with these variables besides.
detached() {
    number=$1
    shift
    pipe CLOUD=local DETACH=true STORE="$scene/store" CHECKPOINT_INTERVAL=1s BITBUCKET_BUILD_NUMBER="$number" \
        BITBUCKET_PIPELINE_UUID="{11111111-1111-1111-1111-00000000000$number}" \
        BITBUCKET_STEP_UUID="{22222222-2222-2222-2222-00000000000$number}" \
        TRAIN_ENV_COUNT=1 TRAIN_ENV_0="PATH=$python:$PATH" "$@"
}

# Waits until the store has a file like this.
until_stored() {
    until find "$scene/store" -path "*/machine/$1" | grep -q .; do
        sleep 0.1
    done
}

train_detached() {
    say "Pipeline 1: the step ends when the training has begun"
    detached 1 >"$scene/first.log" 2>&1 || { cat "$scene/first.log" >&2; exit 1; }
    cat "$scene/first.log"
    run=$(sed -n 's/.*the run is \([0-9a-f]*\).*/\1/p' "$scene/first.log")

    say "The machine dies, once a checkpoint is in the store"
    until_stored '1-*/checkpoints/*.json'
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "agent supervise --home $scene/tmp/"; then
            kill -KILL "${process#/proc/}"
            echo "killed the machine's supervisor, process ${process#/proc/}"
        fi
    done

    say "Pipeline 2 comes back: another machine goes on from that checkpoint"
    detached 2 RUN="$run"

    say "How it stands"
    detached 2 ACTION=status RUN="$run"

    say "Pipeline 3 comes back when the training is over"
    until_stored '2-*/exit.json'
    detached 3 RUN="$run"
    echo "What stays in the store:"
    (cd "$scene/store" && find v1 -type f | sort)
}
