# Starts the guard, whose text is $0, with these arguments: as a unit of its own, or detached where that cannot be. Within
# cloud-init's unit the guard, which heeds no SIGTERM, would keep the system from going down for as long as EC2 waits.
# Without the usual dependencies, the unit starts before the rest of the system; with Restart, only its stop ends it.
read -r up rest </proc/uptime
export BEGAN="${up%.*}"
# The text goes by a file: systemd cannot read again what it has written of a command with dollars, quotes or lines. When it
# is reloaded, as by each package that brings a unit, it would forget how the guard ends.
file=/run/trainspot-guard
unit() {
	printf '%s\n' "$0" >"$file" &&
		timeout 20 systemd-run --quiet --collect --unit=trainspot-guard --setenv="BEGAN=$BEGAN" \
			-p DefaultDependencies=no -p Conflicts=shutdown.target -p Before=shutdown.target -p KillSignal=SIGKILL \
			-p Restart=always -p RestartSec=1 -p StartLimitIntervalSec=0 -p OOMScoreAdjust=-1000 \
			sh "$file" "$@"
}
# Waited for: a reload meanwhile would break the call.
unit "$@" </dev/null >/dev/null 2>&1 || { sh -c "$0" "$0" "$@" </dev/null >/dev/null 2>&1 & }
