// The four public services.

import type { Client, Transport } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import { EventService } from "../gen/livemerge/v1/event_service_pb";
import { InventoryService } from "../gen/livemerge/v1/inventory_service_pb";
import { OperationService } from "../gen/livemerge/v1/operation_service_pb";
import { SnapshotService } from "../gen/livemerge/v1/snapshot_service_pb";

export interface Clients {
  readonly snapshots: Client<typeof SnapshotService>;
  readonly operations: Client<typeof OperationService>;
  readonly inventory: Client<typeof InventoryService>;
  readonly events: Client<typeof EventService>;
}

export function clientsOf(transport: Transport): Clients {
  return {
    snapshots: createClient(SnapshotService, transport),
    operations: createClient(OperationService, transport),
    inventory: createClient(InventoryService, transport),
    events: createClient(EventService, transport),
  };
}
