#!/bin/sh
# usage: base_root.sh ROOT
# Make the root file system that every machine of the rig starts from: a Debian with systemd, cloud-init and OpenSSH.
# The mirror is the one this host's apt uses.
set -eu

root=$1
suite=bookworm
# cloud-init comes later: debootstrap cannot resolve the virtual package that it depends on.
first=systemd,systemd-sysv,dbus,udev,sudo,python3-minimal,gzip,procps,iproute2,ca-certificates,kmod
later="openssh-server cloud-init cloud-guest-utils python3 less unattended-upgrades"

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" 2>/dev/null | head -n 1)
[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)

inside() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"
}

debootstrap --variant=minbase --include="$first" "$suite" "$root" "$mirror"

# The host's way to its mirror (proxy, certificates) is the only one there may be.
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
cp /etc/hosts "$root/etc/hosts"
mkdir -p "$root/etc/apt/apt.conf.d"
apt-config dump 2>/dev/null | grep -iE '^Acquire::(https?|ftp)::' >"$root/etc/apt/apt.conf.d/00host" || true
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
inside apt-get update -qq
# shellcheck disable=SC2086 # a list of words
inside apt-get install -qq --no-install-recommends $later
inside apt-get clean
# With a DHCP client there, cloud-init waits a minute for an answer that never comes; the package is one it depends on.
rm -rf "$root/var/lib/apt/lists" "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" \
    "$root/usr/sbin/policy-rc.d" "$root/etc/apt/apt.conf.d/00host" "$root/etc/machine-id" "$root/etc/hostname" \
    "$root/sbin/dhclient" "$root/etc/ssh/"ssh_host_*
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"

# What a guest that shares the host's kernel has no use for, or must not do.
inside systemctl mask --quiet getty@tty1 console-getty systemd-udevd systemd-udev-trigger systemd-sysctl \
    systemd-modules-load systemd-random-seed systemd-timesyncd systemd-networkd-wait-online e2scrub_reap \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount 2>/dev/null
# An image is weeks old when a machine boots from it, so the daily update of apt's lists is long due. systemd delays it by a
# random time from the boot on; here by none, as the draw may be. The update holds the lists' lock while it loads what is
# new. There is no mirror to load it from; it takes as long.
mkdir -p "$root/var/lib/systemd/timers" "$root/etc/systemd/system/apt-daily.timer.d" \
    "$root/etc/systemd/system/apt-daily.service.d"
touch -d '20 days ago' "$root/var/lib/systemd/timers/stamp-apt-daily.timer"
printf '[Timer]\nRandomizedDelaySec=0\n' >"$root/etc/systemd/system/apt-daily.timer.d/delay.conf"
# It waits for networkd's word that there is a network, which the rig's guests do not ask for.
printf '[Service]\nExecStartPre=\n' >"$root/etc/systemd/system/apt-daily.service.d/network.conf"
cat >"$root/etc/apt/apt.conf.d/10daily" <<'APT'
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
APT::Update::Pre-Invoke { "if grep -q apt-daily /proc/self/cgroup; then sleep 600; fi"; };
APT
: >"$root/etc/apt/sources.list"
inside systemctl set-default --quiet multi-user.target

# EC2 Instance Connect: as its package does, sshd asks the instance metadata for keys that were sent a moment ago.
cat >"$root/usr/local/bin/instance-connect-keys" <<'PYTHON'
#!/usr/bin/python3
import sys
import urllib.request

BASE = "http://169.254.169.254/latest/"


def ask(path, method="GET", **headers):
    request = urllib.request.Request(BASE + path, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=5).read().decode()


token = ask("api/token", "PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
sys.stdout.write(ask("meta-data/managed-ssh-keys/active-keys/" + sys.argv[1], **{"X-aws-ec2-metadata-token": token}))
PYTHON
chmod 755 "$root/usr/local/bin/instance-connect-keys"
cat >"$root/etc/ssh/sshd_config.d/instance-connect.conf" <<'SSHD'
AuthorizedKeysCommand /usr/local/bin/instance-connect-keys %u
AuthorizedKeysCommandUser nobody
SSHD
[ -x "$root/usr/bin/cloud-init" ] && [ -x "$root/usr/sbin/sshd" ]
