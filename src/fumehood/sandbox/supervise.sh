#!/bin/bash
# Keeps one sandbox: gives it its disk, runs it, and takes away all that is left of it when it has ended, whether or
# not a server still watches. Runs in a mount namespace of its own, so that its mount ends with it however it ends.
#
#   supervise.sh FOLDER ENDED DISK_IMAGE CGROUP MEMORY_BYTES ID RUNSC STATE NETWORK MOUNTS COMMAND [ARGUMENT...]
#
# NETWORK is `none`, or `SIDE,LOCK,MASK`: descriptors of the network namespace that the sandbox is started in and of a
# lock that is held as long as this keeper lives, and whether runsc must not see the folder `net/core` of /proc/sys. This
# keeper runs in the namespace between that one and the machine: what is in either ends with them both.
#
# MOUNTS is `none`, or the folder of the template in which runsc would make the places of the sandbox's own mounts.
#
# FOLDER is the sandbox's own, STATE runsc's, COMMAND what runs it. FOLDER/deadline has the second, counted as
# `date +%s` does, at which a sandbox is killed whose agent has not ended it; when it becomes an earlier one send SIGUSR1.
# ENDED is the file that says how it ended: "status=N", counters of its control groups, a line "log:", the end of what runsc said.
set -u
folder=$1 ended=$2 image=$3 cgroup=$4 memory=$5 id=$6 runsc=$7 state=$8 network=$9
shift 9
mounts=$1
shift
groups=/sys/fs/cgroup
# The status with which the agent ends a sandbox at its deadline.
at_deadline=75

# A line of each counter that says what the sandbox has used, or why it died.
counters() {
    [ -r "$groups/memory/$cgroup/memory.oom_control" ] && cat "$groups/memory/$cgroup/memory.oom_control"
    [ -r "$groups/memory/$cgroup/memory.max_usage_in_bytes" ] &&
        echo "memory_peak_bytes $(<"$groups/memory/$cgroup/memory.max_usage_in_bytes")"
    [ -r "$groups/cpuacct/$cgroup/cpuacct.usage" ] &&
        echo "cpu_nanoseconds $(<"$groups/cpuacct/$cgroup/cpuacct.usage")"
    [ -r "$groups/$cgroup/memory.events" ] && cat "$groups/$cgroup/memory.events"
    [ -r "$groups/$cgroup/memory.peak" ] && echo "memory_peak_bytes $(<"$groups/$cgroup/memory.peak")"
    [ -r "$groups/$cgroup/cpu.stat" ] && grep '^usage_usec ' "$groups/$cgroup/cpu.stat"
}

finish() {
    "$runsc" --root="$state" delete --force "$id" </dev/null >/dev/null 2>>"$folder/runsc.log"
    # Left by a start that was broken off before runsc knew the sandbox.
    rm -f "$state"/*"$id"*
    {
        echo "status=$1"
        counters
        echo "log:"
        tail -c 2000 "$folder/runsc.log"
    } >"$ended.new"
    mv "$ended.new" "$ended"
    # What was not written to the machine's disk yet never is: it could be full.
    find "$folder/disk" -xdev -mindepth 1 -delete 2>/dev/null
    umount -l "$folder/disk" 2>/dev/null
    for controller in "$groups"/*/ "$groups"/; do
        [ -d "$controller$cgroup" ] && rmdir "$controller$cgroup" 2>/dev/null
    done
    rm -rf "$folder"
    exit "$1"
}

make_disk() {
    cp --sparse=always "$image" "$folder/disk.img" 2>>"$folder/runsc.log" || return
    # Not noexec: gVisor maps programs from it, and one that it may not map ends with a segmentation fault.
    mount -o loop,nosuid,nodev "$folder/disk.img" "$folder/disk" 2>>"$folder/runsc.log" || return
    [ "$mounts" = none ] && return
    # Only seen here: the template itself is never written to. A link there could lead anywhere on the machine.
    [ ! -L "$mounts" ] && mount -t tmpfs -o size=1m,mode=755,nosuid,nodev none "$mounts" 2>>"$folder/runsc.log"
}

# runsc takes away groups that it made before anybody could read why the sandbox died, but leaves those that it found.
make_groups() {
    if [ -d "$groups/memory" ]; then
        mkdir -p "$groups/memory/$cgroup" 2>>"$folder/runsc.log" || return
        echo "$memory" >"$groups/memory/$cgroup/memory.limit_in_bytes" || return
        [ ! -d "$groups/cpuacct" ] || mkdir -p "$groups/cpuacct/$cgroup" 2>>"$folder/runsc.log"
    elif [ -e "$groups/cgroup.controllers" ]; then
        mkdir -p "$groups/$cgroup" 2>>"$folder/runsc.log"
    fi
}

# Becomes the sandbox's command, in its network.
command_in_network() {
    local side lock mask
    exec {disk}<&-
    [ "$network" = none ] && exec "$@"
    IFS=, read -r side lock mask <<<"$network"
    exec {lock}<&-
    # shellcheck disable=SC2016 # for the shell in there
    exec nsenter --net="/proc/self/fd/$side" bash -c \
        'side=$1; exec {side}<&-; [ "$2" = no ] || mount -t tmpfs none /proc/sys/net/core || exit 125; shift 2; exec "$@"' \
        bash "$side" "$mask" "$@"
}

# What may outlive this keeper holds nothing of the network.
without_network() {
    local side lock mask
    exec {disk}<&-
    if [ "$network" != none ]; then
        IFS=, read -r side lock mask <<<"$network"
        exec {side}<&- {lock}<&-
        exec unshare --net "$@"
    fi
    exec "$@"
}

echo "$$" >"$folder/keeper.pid"
: >>"$folder/runsc.log"
# Beside the disk: each takes some milliseconds.
make_groups &
groups_made=$!
make_disk || failed=yes
wait "$groups_made" || failed=yes
[ -z "${failed-}" ] || finish 125
# Whoever wants to know what the disk takes of the machine's looks at it through this descriptor.
exec {disk}<"$folder/disk.img"
# The mount keeps the image; without a name nothing of it can be left behind.
rm "$folder/disk.img"

# Its 22nd field, when this process began, tells it from a later one of its number.
read -r -a self </proc/$$/stat
trap 'changed=yes' USR1
command_in_network "$@" <&0 2>>"$folder/runsc.log" &
child=$!
# The sandbox alone holds its pipes: what is left of them is what tells that it has ended.
exec </dev/null >/dev/null
while kill -0 "$child" 2>/dev/null; do
    changed=''
    left=$(($(<"$folder/deadline") - EPOCHSECONDS))
    if [ "$left" -le 0 ]; then
        kill -KILL "$child"
        wait "$child"
        finish "$at_deadline"
    fi
    # A group of its own, so that both its processes can be ended at once. It looks whom it wakes: it may outlive us.
    without_network setsid sh -c 'sleep "$1"; [ "$(cut -d " " -f 22 "/proc/$2/stat")" = "$3" ] && kill -USR1 "$2"' \
        sh "$left" "$$" "${self[21]}" 2>/dev/null &
    timer=$!
    # Not `wait -n` for either, nor `wait` for the timer: bash loses the end of one that ends at the moment of a signal or
    # of an orphan that it reaps, and would wait for ever.
    [ -n "$changed" ] || wait "$child"
    { kill -- "-$timer" || kill "$timer"; } 2>/dev/null
done
wait "$child"
finish "$?"
