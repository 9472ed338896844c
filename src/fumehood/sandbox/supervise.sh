#!/bin/sh
# Keeps one sandbox: gives it its disk, runs it, and takes away all that is left of it when it has ended, whether or
# not a server still watches. Runs in a mount namespace of its own, so that its mount ends with it however it ends.
#
#   supervise.sh FOLDER ENDED DISK_IMAGE LIFE_SECONDS CGROUP MEMORY_BYTES ID RUNSC STATE COMMAND [ARGUMENT...]
#
# FOLDER is the sandbox's own, STATE runsc's, COMMAND what runs it. ENDED is the file that says how it ended:
# "status=N", the counters of its memory controller, a line "log:", and the end of what runsc said.
set -u
folder=$1 ended=$2 image=$3 life=$4 cgroup=$5 memory=$6 id=$7 runsc=$8 state=$9
shift 9
# The status with which the agent ends a sandbox at its deadline.
at_deadline=75
# How much longer than it should a sandbox may live whose agent does not end it.
grace=30

finish() {
    "$runsc" --root="$state" delete --force "$id" </dev/null >/dev/null 2>>"$folder/runsc.log"
    # Left by a start that was broken off before runsc knew the sandbox.
    rm -f "$state"/*"$id"*
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

echo "$$" >"$folder/keeper.pid"
: >>"$folder/runsc.log"
cp --sparse=always "$image" "$folder/disk.img" 2>>"$folder/runsc.log" || finish 125
mount -o loop,nosuid,nodev,noexec "$folder/disk.img" "$folder/disk" 2>>"$folder/runsc.log" || finish 125
# The mount keeps the image; without a name nothing of it can be left behind.
rm "$folder/disk.img"

# runsc takes away the group that it made before anybody could read why the sandbox died, but leaves one that it found.
if [ -d /sys/fs/cgroup/memory ]; then
    mkdir -p "/sys/fs/cgroup/memory/$cgroup" 2>>"$folder/runsc.log" || finish 125
    echo "$memory" >"/sys/fs/cgroup/memory/$cgroup/memory.limit_in_bytes" || finish 125
fi

started=$(date +%s)
timeout --signal=KILL "$((life + grace))" "$@" 2>>"$folder/runsc.log"
status=$?
[ "$(($(date +%s) - started))" -ge "$((life + grace))" ] && status=$at_deadline
finish "$status"
