#!/bin/sh
# Keeps one sandbox: gives it its disk, runs it, and takes away all that is left of it when it has ended, whether or
# not a server still watches. Runs in a mount namespace of its own, so that its mount ends with it however it ends.
#
#   supervise.sh FOLDER ENDED DISK_IMAGE LIFE_SECONDS CGROUP ID RUNSC STATE COMMAND [ARGUMENT...]
#
# FOLDER is the sandbox's own, STATE runsc's, COMMAND what runs it. ENDED is the file that says how it ended:
# "status=N", the counters of its memory controller, a line "log:", and the end of what runsc said.
set -u
folder=$1 ended=$2 image=$3 life=$4 cgroup=$5 id=$6 runsc=$7 state=$8
shift 8
# The status with which the agent ends a sandbox at its deadline.
at_deadline=75
# How much longer than it should a sandbox may live whose agent does not end it.
grace=30

finish() {
    "$runsc" --root="$state" delete --force "$id" </dev/null >/dev/null 2>>"$folder/runsc.log"
    {
        echo "status=$1"
        for counters in "/sys/fs/cgroup/memory/$cgroup/memory.oom_control" "/sys/fs/cgroup/$cgroup/memory.events"; do
            [ -r "$counters" ] && cat "$counters"
        done
        echo "log:"
        tail -c 2000 "$folder/runsc.log"
    } >"$ended.new"
    mv "$ended.new" "$ended"
    umount -l "$folder/disk" 2>/dev/null
    for controller in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
        [ -d "$controller$cgroup" ] && rmdir "$controller$cgroup" 2>/dev/null
    done
    rm -rf "$folder"
    exit "$1"
}

: >>"$folder/runsc.log"
cp --sparse=always "$image" "$folder/disk.img" 2>>"$folder/runsc.log" || finish 125
mount -o loop,nosuid,nodev,noexec "$folder/disk.img" "$folder/disk" 2>>"$folder/runsc.log" || finish 125
# The mount keeps the image; without a name nothing of it can be left behind.
rm "$folder/disk.img"

started=$(date +%s)
timeout --signal=KILL "$((life + grace))" "$@" 2>>"$folder/runsc.log"
status=$?
[ "$(($(date +%s) - started))" -ge "$((life + grace))" ] && status=$at_deadline
finish "$status"
