#!/bin/sh
# The guest's first process: loads the drivers and starts one writer for each virtio disk.
# The kernel's command line says what they write (lm.slots, lm.fill, lm.background, lm.rate).
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/null >/dev/ttyS0 2>&1
while read -r module; do insmod "/modules/$module.ko"; done </modules/order

slots=1024 fill=0 background=0 rate=0
for word in $(cat /proc/cmdline); do
    case $word in
    lm.slots=*) slots=${word#*=} ;;
    lm.fill=*) fill=${word#*=} ;;
    lm.background=*) background=${word#*=} ;;
    lm.rate=*) rate=${word#*=} ;;
    esac
done

# A press of the power button ends the guest (etc/acpi/PWRF/00000080).
acpid -d >/dev/null &
for disk in /dev/vd?; do
    guest-writer "${disk#/dev/}" "$slots" "$fill" "$background" "$rate" &
    echo $! >>/writers
done
echo BOOTED
while :; do sleep 3600; done
