#!/bin/sh
# What a virtual host does once it has its root file system: what a host's start would, then one
# program, whose output and whose end go to files of the real host's: through a serial port each, or to
# those beside this script, where the kernel can write them.
console=/dev/ttyS0 output=/dev/ttyS1 code=/dev/ttyS2
if mount -t hostfs -o "sync,${0%/*}" files /mnt 2>/dev/null; then
    console=/mnt/console output=/mnt/output code=/mnt/code
fi
exec </dev/null >$console 2>&1
echo started
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /run /tmp /dev/shm; do mount -t tmpfs tmpfs $dir; done
mkdir -p /run/lock /run/udev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up 2>/dev/null || busybox ip link set lo up
hostname virtual-host
# Disks have the same names everywhere.
for disk in a b c d; do
    [ ! -b /dev/ubd$disk ] || ln -s ubd$disk /dev/vd$disk
done
# Devices have their names and rules as on any host.
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --type=subsystems
udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc
udevadm settle --timeout=20
for port in $output $code; do [ ! -c $port ] || stty -F $port raw -echo; done
(. "${0%/*}/program.sh") >$output 2>&1
echo "$?" >$code
sync
# A port gives on what was written when the last one closes it.
sleep 0.1
busybox poweroff -f
