#!/bin/sh
# The guest's first process: loads the drivers and starts one writer for each virtio disk.
# The machine's configuration says what they write (slots, fill, background, rate), which disk has a
# file system (files), whether the first two get pairs (pairs), and what the guest's agent is like (agent).
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/null >/dev/ttyS0 2>&1
load() { while read -r module; do insmod "/modules/$module.ko"; done <"/modules/$1"; }
load machine

# What it is to do stands in a file of the machine's, which is read anew when its driver is loaded anew.
# A guest that is to be saved is told to hold; the one that is made of it finds its work instead. It may
# have been saved between the two, and reads as much of its work as the other had: so work has an end.
config=/sys/firmware/qemu_fw_cfg/by_name/opt/livemerge.work/raw
work='' held=''
while insmod /modules/qemu_fw_cfg.ko; do
    read -r work <"$config"
    case $work in
    *' end') break ;;
    hold) [ -n "$held" ] || echo HOLDS; held=yes ;;
    esac
    rmmod qemu_fw_cfg
    usleep 50000
done
load disks

slots=1024 fill=0 background=0 rate=0 files= agent= pairs=
for word in $work; do
    case $word in
    slots=*) slots=${word#*=} ;;
    fill=*) fill=${word#*=} ;;
    background=*) background=${word#*=} ;;
    rate=*) rate=${word#*=} ;;
    files=*) files=${word#*=} ;;
    agent=*) agent=${word#*=} ;;
    pairs=*) pairs=${word#*=} ;;
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
