"""Takes a snapshot of a machine that runs, deletes it again, and watches both to their ends.

Then it sends a request with mistakes in it, and shows what a client learns from the refusal.
Needs the stubs that README.md beside this file makes.
"""

import argparse
import json
import sys
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from livemerge.v1 import inventory_service_pb2 as inventory_pb
from livemerge.v1 import inventory_service_pb2_grpc as inventory_grpc
from livemerge.v1 import merge_pb2, operation_pb2
from livemerge.v1 import operation_service_pb2 as operations_pb
from livemerge.v1 import operation_service_pb2_grpc as operations_grpc
from livemerge.v1 import snapshot_service_pb2 as snapshots_pb
from livemerge.v1 import snapshot_service_pb2_grpc as snapshots_grpc

DEADLINE_SECONDS = 30
# Streams that break one after the other, with nothing heard in between, before it is given up.
BROKEN_STREAMS = 30
# Every change has a request id, so UNAVAILABLE may be repeated as it is: it is done once.
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
ENDED = (
    operation_pb2.OPERATION_STATE_SUCCEEDED,
    operation_pb2.OPERATION_STATE_FAILED,
    operation_pb2.OPERATION_STATE_CANCELLED,
)


class Failed(Exception):
    """An operation ended without success."""


def main():
    arguments = parse()
    options = [("grpc.service_config", json.dumps(RETRIES))]
    with grpc.insecure_channel(arguments.server, options) as channel:
        try:
            run(channel, arguments.vm)
        except grpc.RpcError as error:
            print("refused:", file=sys.stderr)
            show_refusal(error, sys.stderr)
            return 1
        except Failed as failed:
            print(failed, file=sys.stderr)
            return 1
    return 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:7420", help="HOST:PORT or unix:/PATH")
    parser.add_argument("--vm", default="demo", help="the machine's name")
    return parser.parse_args()


def run(channel, name):
    snapshots = snapshots_grpc.SnapshotServiceStub(channel)
    operations = operations_grpc.OperationServiceStub(channel)
    vm_id = find_vm(inventory_grpc.InventoryServiceStub(channel), name)

    create = snapshots_pb.CreateSnapshotRequest(
        request_id=new_id(), vm_id=vm_id, name=f"python-{time.time_ns()}"
    )
    answer = snapshots.CreateSnapshot(create, timeout=DEADLINE_SECONDS)
    snapshot_id = watch(operations, answer.operation).snapshot_id
    print(f"created {create.name}")

    delete = snapshots_pb.DeleteSnapshotRequest(request_id=new_id(), snapshot_id=snapshot_id)
    answer = snapshots.DeleteSnapshot(delete, timeout=DEADLINE_SECONDS)
    watch(operations, answer.operation)
    if snapshot_id in listed(snapshots, vm_id):
        raise Failed(f"{create.name} is still listed")
    print(f"deleted {create.name}")

    print("a request with mistakes:")
    try:
        snapshots.DeleteSnapshot(
            snapshots_pb.DeleteSnapshotRequest(request_id="nope"), timeout=DEADLINE_SECONDS
        )
    except grpc.RpcError as error:
        show_refusal(error, sys.stdout)
    else:
        raise Failed("it was not refused")


def new_id():
    return str(uuid.uuid4())


def find_vm(inventory, name):
    for vm in pages(inventory.ListVms, inventory_pb.ListVmsRequest(), "vms"):
        if vm.name == name:
            return vm.id
    raise Failed(f"no machine is called {name}")


def listed(snapshots, vm_id):
    request = snapshots_pb.ListSnapshotsRequest(vm_id=vm_id)
    return {snapshot.id for snapshot in pages(snapshots.ListSnapshots, request, "snapshots")}


def pages(method, request, field):
    """What a list has, over all of its pages."""
    while True:
        answer = method(request, timeout=DEADLINE_SECONDS)
        yield from getattr(answer, field)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def watch(operations, operation):
    """Prints what is new of an operation until it has ended; returns how it did.

    A stream that breaks, as at a restart of the server, is asked for again: it begins with the
    operation as it stands.
    """
    request = operations_pb.WatchOperationRequest(operation_id=operation.id)
    shown, broken = None, 0
    while operation.state not in ENDED:
        try:
            for answer in operations.WatchOperation(request):
                operation, broken = answer.operation, 0
                line = describe(operation)
                if line != shown:
                    print(line, flush=True)
                shown = line
        except grpc.RpcError as error:
            broken += 1
            if error.code() != grpc.StatusCode.UNAVAILABLE or broken > BROKEN_STREAMS:
                raise
            time.sleep(1)
    if operation.state != operation_pb2.OPERATION_STATE_SUCCEEDED:
        failure = operation.failure
        raise Failed(f"{describe(operation)}: {failure.reason}: {failure.message}")
    return operation


def describe(operation):
    kind = short(operation_pb2.OperationKind, operation.kind)
    parts = [f"{kind} {short(operation_pb2.OperationState, operation.state)}"]
    if operation.HasField("waiting"):
        parts.append(f"waits: {operation.waiting.reason}")
    for disk in operation.disks:
        phase = short(merge_pb2.MergePhase, disk.phase)
        parts.append(f"{disk.disk} {phase} {disk.done_bytes} of {disk.total_bytes} bytes")
    return ", ".join(parts)


def short(enum, value):
    """`RUNNING` of OPERATION_STATE_RUNNING. A newer server may send a value that is not known here."""
    if value not in enum.values():
        return str(value)
    words = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.DESCRIPTOR.name)
    return enum.Name(value).removeprefix(words.removeprefix("_") + "_").lower()


def show_refusal(error, out):
    """Programs branch on the reason; the message is for people."""
    print(f"  code     {error.code().name}", file=out)
    print(f"  message  {error.details()}", file=out)
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            print(f"  reason   {info.reason}", file=out)
        elif detail.Unpack(fields):
            for violation in fields.field_violations:
                print(f"  field    {violation.field}: {violation.description}", file=out)


if __name__ == "__main__":
    sys.exit(main())
