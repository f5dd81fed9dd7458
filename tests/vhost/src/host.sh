#!/bin/sh
# What a virtual host does once it has its root file system: what a host's start would, then one
# program, whose output goes to the second serial port and whose end to the third.
exec </dev/null >/dev/ttyS0 2>&1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /run /tmp /dev/shm; do mount -t tmpfs tmpfs $dir; done
mkdir -p /run/lock /run/udev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up 2>/dev/null || busybox ip link set lo up
hostname virtual-host
# Devices have their names and rules as on any host.
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --type=subsystems
udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc
udevadm settle --timeout=20
for port in 1 2; do stty -F /dev/ttyS$port raw -echo; done
(. "${0%/*}/program.sh") >/dev/ttyS1 2>&1
echo "$?" >/dev/ttyS2
sync
# A port gives on what was written when the last one closes it.
sleep 0.1
echo o >/proc/sysrq-trigger
sleep 100
