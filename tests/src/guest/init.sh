#!/bin/sh
# The guest's first process: loads the drivers and starts one writer for each virtio disk.
# The kernel's command line says what they write (lm.slots, lm.fill, lm.background, lm.rate), which
# disk has a file system (lm.files), whether the first two get pairs (lm.pairs), and what the guest's agent is like (lm.agent).
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/null >/dev/ttyS0 2>&1
while read -r module; do insmod "/modules/$module.ko"; done </modules/order

slots=1024 fill=0 background=0 rate=0 files= agent= pairs=
for word in $(cat /proc/cmdline); do
    case $word in
    lm.slots=*) slots=${word#*=} ;;
    lm.fill=*) fill=${word#*=} ;;
    lm.background=*) background=${word#*=} ;;
    lm.rate=*) rate=${word#*=} ;;
    lm.files=*) files=${word#*=} ;;
    lm.agent=*) agent=${word#*=} ;;
    lm.pairs=*) pairs=${word#*=} ;;
    esac
done

# A press of the power button ends the guest (etc/acpi/PWRF/00000080).
acpid -d >/dev/null &
# libvirt takes an agent for connected when something has opened the port.
case $agent in
answers)
    qemu-ga -d -m virtio-serial -p /dev/vport*p1 -t /run -f /run/qemu-ga.pid
    while [ ! -e /run/qemu-ga.pid ]; do usleep 10000; done
    ;;
silent) for port in /dev/vport*p1; do sleep 1000000 <"$port" & done ;;
esac
for disk in /dev/vd?; do
    name=${disk#/dev/}
    if [ "$name" = "$files" ]; then
        mount -t ext4 "$disk" /files
        [ -e /files/records ] || dd if=/dev/zero of=/files/records bs=4096 "count=$slots" 2>/dev/null
        name=$name=/files/records
    fi
    guest-writer "$name" "$slots" "$fill" "$background" "$rate" &
    echo $! >>/writers
done
if [ -n "$pairs" ]; then
    guest-writer --pairs vda vdb &
    echo $! >>/writers
fi
echo BOOTED
while :; do sleep 3600; done
