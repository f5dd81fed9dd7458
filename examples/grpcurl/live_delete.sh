#!/usr/bin/env bash
# Takes a snapshot of a machine that runs, deletes it again, and watches both to their ends. Then it
# sends a request with mistakes in it, and shows what a client learns from the refusal.
#
#   live_delete.sh [VM [HOST:PORT]]      default: demo localhost:7420
set -euo pipefail

vm_name=${1:-demo}
server=${2:-localhost:7420}

die() { printf '%s\n' "$*" >&2; exit 1; }
new_id() { cat /proc/sys/kernel/random/uuid; }

# call METHOD FIELD=VALUE... : the answer as JSON.
call() {
    local method=$1 request
    shift
    request=$(jq -cn '[$ARGS.positional[] | capture("^(?<key>[^=]*)=(?<value>.*)$")] | from_entries' --args "$@")
    grpcurl -plaintext -max-time 30 -d "$request" "$server" "livemerge.v1.$method"
}

# Prints each change of an operation until it has ended, and fails unless it has succeeded. A watch needs
# no time limit: a quiet one repeats the operation, and a server that stops ends it.
watch() {
    local state
    grpcurl -plaintext -d "{\"operation_id\":\"$1\"}" "$server" livemerge.v1.OperationService/WatchOperation |
        jq -r --unbuffered '.operation | [
            (.kind + " " + .state | gsub("OPERATION_(KIND|STATE)_"; "")),
            (.waiting | select(.) | "waits: " + .reason),
            (.disks[]? | "\(.disk) \(.phase // "" | ltrimstr("MERGE_PHASE_")) \(.doneBytes // 0) of \(.totalBytes // 0) bytes"),
            (.failure | select(.) | .reason + ": " + .message)
        ] | join(", ")' |
        awk '$0 != last { print; fflush() } { last = $0 }'
    state=$(call OperationService/GetOperation "operation_id=$1" | jq -r .operation.state)
    [ "$state" = OPERATION_STATE_SUCCEEDED ] || die "the operation is $state"
}

vm=$(call InventoryService/ListVms page_size=1000 |
    jq -r --arg name "$vm_name" '.vms[]? | select(.name == $name) | .id')
[ -n "$vm" ] || die "no machine is called $vm_name"

name=grpcurl-$(date +%s%N)
# The request id is what makes a repetition safe: the same one again is answered with the same operation.
created=$(call SnapshotService/CreateSnapshot "request_id=$(new_id)" "vm_id=$vm" "name=$name")
watch "$(jq -r .operation.id <<<"$created")"
printf 'created %s\n' "$name"

snapshot=$(jq -r .operation.snapshotId <<<"$created")
deleted=$(call SnapshotService/DeleteSnapshot "request_id=$(new_id)" "snapshot_id=$snapshot")
watch "$(jq -r .operation.id <<<"$deleted")"
left=$(call SnapshotService/ListSnapshots "vm_id=$vm" page_size=1000)
[ -z "$(jq -r --arg id "$snapshot" '.snapshots[]? | select(.id == $id) | .id' <<<"$left")" ] ||
    die "$name is still listed"
printf 'deleted %s\n' "$name"

echo 'a request with mistakes:'
# The details of an error go to standard error; the exit code is 64 and the code of gRPC.
refused=0
call SnapshotService/DeleteSnapshot request_id=nope 2>&1 || refused=$?
[ "$refused" -eq $((64 + 3)) ] || die "it was not refused as INVALID_ARGUMENT, but ended with $refused"
