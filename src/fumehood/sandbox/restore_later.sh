#!/bin/bash
# Makes a sandbox, and gives it its state once there is one: the folder of the checkpoint is told through the named pipe
# FOLDER/image. An empty line there, or none, ends this, and with it what was made.
#
#   restore_later.sh FOLDER ID RUNSC [FLAG...]
set -u
folder=$1 id=$2
shift 2
"$@" create --bundle "$folder" "$id" || exit
IFS= read -r image <"$folder/image" || exit 125
[ -n "$image" ] || exit 125
exec "$@" restore --image-path "$image" --bundle "$folder" "$id"
