# Powers this machine off for good when nobody needs it: no agent within $1 s, none that lives for $2 s, after $3 s in any
# case, or when told by $4/end. It forks for nothing but sleep; without even that, it starts anew in place from its text, $0.
# $4/alive belongs to the training's user, who may make anything of it: it is never read, only its time is looked at.
# As a script of that text, it starts once more without the file.
[ ! -f "$0" ] || exec sh -c "$(cat "$0")" "$(cat "$0")" "$@"
boot=$1 grace=$2 life=$3 dir=$4
anew='exec sh -c "$0" "$0" "$boot" "$grace" "$life" "$dir"'
trap "$anew" EXIT
trap '' HUP INT TERM
echo -1000 >/proc/self/oom_score_adj
now() {
	read -r up rest </proc/uptime
	up=${up%.*}
}
off() {
	trap "echo o >/proc/sysrq-trigger; $anew" EXIT
	echo "trainspot: power off: $*" >/dev/console
	systemctl poweroff --force --force &
	sleep 5
	poweroff -f &
	sleep 5
	exit
}
now
export BEGAN="${BEGAN:-$up}"
seen= heard=$up
[ -d "$dir" ] || mkdir -m 1777 "$dir"
: >"$dir/heard"
while :; do
	now
	if [ "$dir/alive" -nt "$dir/heard" ]; then
		seen=1 heard=$up
		: >"$dir/heard"
	fi
	if [ -e "$dir/end" ]; then
		off 'it is no longer needed'
	elif [ $((up - BEGAN)) -ge "$life" ]; then
		off "it has lived for $life s"
	elif [ -z "$seen" ] && [ $((up - BEGAN)) -ge "$boot" ]; then
		off "no agent within $boot s"
	elif [ -n "$seen" ] && [ $((up - heard)) -ge "$grace" ]; then
		off "no sign of the agent for $grace s"
	fi
	sleep 1
done
