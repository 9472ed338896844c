#!/bin/sh
# Keeps one sandbox: gives it its disk, runs it, and takes away all that is left of it when it has ended, whether or
# not a server still watches. Runs in a mount namespace of its own, so that its mount ends with it however it ends.
#
#   supervise.sh FOLDER ENDED DISK_IMAGE BACKSTOP_SECONDS CGROUP ID RUNSC [FLAG...] -- SUBCOMMAND [FLAG...]
#
# FOLDER is the sandbox's own; ENDED the file that says how it ended: exit status, then lines of the memory controller.
set -u
folder=$1 ended=$2 image=$3 backstop=$4 cgroup=$5 id=$6
shift 6

runsc() {
    "$@" 2>>"$folder/runsc.log" </dev/null >/dev/null
}

flags=""
while [ "$1" != "--" ]; do
    flags="$flags $1"
    shift
done
shift

finish() {
    # shellcheck disable=SC2086 # flags are words without spaces
    runsc $flags delete --force "$id"
    {
        echo "status=$1"
        for file in "/sys/fs/cgroup/memory/$cgroup/memory.oom_control" "/sys/fs/cgroup/$cgroup/memory.events"; do
            [ -r "$file" ] && cat "$file"
        done
    } >"$ended.new"
    mv "$ended.new" "$ended"
    umount -l "$folder/disk" 2>/dev/null
    for controller in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
        [ -d "$controller$cgroup" ] && rmdir "$controller$cgroup" 2>/dev/null
    done
    rm -rf "$folder"
}

cp --sparse=always "$image" "$folder/disk.img" &&
    mount -o loop,nosuid,nodev,noexec "$folder/disk.img" "$folder/disk" || {
    finish 125
    exit 125
}
# The mount keeps the image; without a name nothing of it can be left behind.
rm "$folder/disk.img"
: >"$folder/disk-ready"

# The agent ends the sandbox at its deadline; this is for one that does not get to.
# shellcheck disable=SC2086
timeout --signal=KILL "$backstop" $flags "$@" "$id" 2>>"$folder/runsc.log"
status=$?
finish "$status"
exit "$status"
