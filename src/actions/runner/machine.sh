as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
# A package by its name in Debian's family, and in Red Hat's.
install() {
	if command -v apt-get >/dev/null; then
		as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes "$1"
	elif command -v dnf >/dev/null; then
		as_root dnf install --quiet --assumeyes "$2"
	else
		echo "ERROR $1 is missing, and neither apt-get nor dnf is there to install it" >&2
		exit 1
	fi
}
again() {
	for _ in 1 2 3 4; do
		if "$@"; then return; fi
		sleep 5
	done
	"$@"
}
# The image's own set-up goes first: both may want to install packages, and only one can at a time.
cloud-init status --wait >/dev/null 2>&1 || true
