#!/bin/bash
# Takes away what sandboxes' networks need of the machine once nobody needs it: neither a server nor a sandbox's keeper
# of that data folder, however they ended. Each of them holds a shared lock on FOLDER/lock.
#
#   sentinel.sh FOLDER TABLE FORWARDING
#
# TABLE is the machine's nftables table of that folder. FORWARDING names files that all servers of the namespace share:
# those in /proc/sys that were switched on for fumehood alone, and a lock for as long as one of them needs it.
set -u
folder=$1 table=$2 forwarding=$3
exec 8>"$folder/sentinel.lock"
# Another one waits already.
flock --nonblock 8 || exit 0
# Whoever had it last takes the file away: a lock on one that is gone would keep nobody out.
until [ "$forwarding.lock" -ef "/proc/$$/fd/9" ]; do
    exec 9>"$forwarding.lock"
    flock --shared 9
done
echo ready
exec >/dev/null 7>"$folder/lock"
flock 7
nft delete table inet "$table"
if flock --nonblock 9; then
    while read -r file; do
        echo 0 >"$file"
    done <"$forwarding"
    rm -f "$forwarding" "$forwarding.lock"
fi
# Before the first lock, for which the next server waits: its own sentinel must not find this one.
exec 8>&-
