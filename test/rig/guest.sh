#!/bin/sh
# usage: guest.sh ROOT CONSOLE INIT [HOST_DIR:GUEST_DIR…]
# The first process of a guest, in namespaces of its own (mount, pid, uts, ipc, cgroup; the network is made before):
# mounts what a machine has, makes ROOT the root and becomes INIT (`systemd` or `sh`).
set -eu

root=$1 console=$2 init=$3
shift 3

# A bind mount that cannot be written to.
bind_read_only() {
    mount --bind "$1" "$2"
    mount -o remount,ro,bind "$2"
}

mount -t proc proc "$root/proc"
# These two act on the host's kernel: SysRq would power off the host itself.
[ ! -e "$root/proc/sysrq-trigger" ] || mount --bind /dev/null "$root/proc/sysrq-trigger"
bind_read_only "$root/proc/sys" "$root/proc/sys"

# The real /sys, and beside it what tells cloud-init that this is EC2.
mount -t sysfs sysfs "$root/mnt"
mount -t tmpfs -o mode=755 tmpfs "$root/sys"
for entry in "$root"/mnt/*; do
    name=${entry##*/}
    [ "$name" != hypervisor ] || continue
    mkdir "$root/sys/$name"
    bind_read_only "$entry" "$root/sys/$name"
done
mkdir "$root/sys/hypervisor"
echo ec2e1916-9099-7caf-fd21-012345abcdef >"$root/sys/hypervisor/uuid"
echo xen >"$root/sys/hypervisor/type"
umount -l "$root/mnt"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%%:*}" "$root/dev/${number#*:}"
done
: >"$root/dev/console"
mount --bind "$console" "$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"

for pair in "$@"; do
    mkdir -p "$root/${pair#*:}"
    bind_read_only "${pair%%:*}" "$root/${pair#*:}"
done

hostname "$(cat "$root/etc/hostname")"
cd "$root"
pivot_root . mnt
exec </dev/console >/dev/console 2>&1
# `container` is how systemd and cloud-init know that devices and sysctls are not theirs.
exec env -i container=rig TERM=linux PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot . /bin/sh -c 'umount -l /mnt; case $1 in systemd) exec /sbin/init ;; *) exec /bin/sh /etc/rig-init ;; esac' - "$init"
