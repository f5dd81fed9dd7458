#!/bin/sh
# The power button: no record is in flight any more when the guest goes off.
export PATH=/bin
while read -r writer; do
    kill "$writer"
    while kill -0 "$writer"; do usleep 10000; done
done </writers 2>/dev/null
sync
poweroff -f
