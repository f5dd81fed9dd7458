#!/bin/busybox sh
# A virtual host's first process: loads the drivers, puts what is written over the real host's root
# file system, which stays as it is, and goes on there with the script that the kernel's command line
# names.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
while read -r module; do $bb insmod "/modules/$module.ko" || echo "no module $module"; done </modules/order

# A kernel that is a program reads its host's files itself; an emulated one is served them.
$bb mount -t hostfs -o ro,/ root /lower 2>/dev/null || $bb mount -t virtiofs -o ro root /lower ||
    $bb poweroff -f
$bb mount -t tmpfs -o mode=0755 changes /changes
$bb mkdir /changes/upper /changes/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/changes/upper,workdir=/changes/work root /root ||
    $bb poweroff -f
for dir in dev proc sys; do $bb mount --move "/$dir" "/root/$dir"; done
for word in $($bb cat /root/proc/cmdline); do
    case $word in host.script=*) script=${word#*=} ;; esac
done
exec $bb switch_root /root /bin/sh "$script"
