'use strict';
// Takes a snapshot of a machine that runs, deletes it again, and watches both to their ends. Then it
// sends a request with mistakes in it, and shows what a client learns from the refusal.

const { randomUUID } = require('node:crypto');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const googleProtos = require('google-proto-files');

const DEADLINE_MS = 30_000;
// Streams that break one after the other, with nothing heard in between, before it is given up.
const BROKEN_STREAMS = 30;
// Every change has a request id, so UNAVAILABLE may be repeated as it is: it is done once.
const RETRIES = {
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: '0.2s',
        maxBackoff: '5s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
};
const ENDED = ['SUCCEEDED', 'FAILED', 'CANCELLED'].map((state) => `OPERATION_STATE_${state}`);

const definitions = protoLoader.loadSync(
  [
    'livemerge/v1/inventory_service.proto',
    'livemerge/v1/operation_service.proto',
    'livemerge/v1/snapshot_service.proto',
    'google/rpc/error_details.proto',
    'google/rpc/status.proto',
  ],
  {
    includeDirs: [
      path.join(__dirname, '../../proto'),
      path.dirname(googleProtos.getProtoPath()),
    ],
    // A JavaScript number does not hold every count of bytes; documents call enum values by name.
    longs: String,
    enums: String,
    defaults: true,
  },
);
const { v1 } = grpc.loadPackageDefinition(definitions).livemerge;

/** An operation that ended without success. */
class Failed extends Error {}

async function main() {
  const { values } = parseArgs({
    options: {
      // HOST:PORT or unix:/PATH
      server: { type: 'string', default: 'localhost:7420' },
      vm: { type: 'string', default: 'demo' },
    },
  });
  const connect = (Service) =>
    new Service(values.server, grpc.credentials.createInsecure(), {
      'grpc.service_config': JSON.stringify(RETRIES),
    });
  const clients = {
    inventory: connect(v1.InventoryService),
    operations: connect(v1.OperationService),
    snapshots: connect(v1.SnapshotService),
  };
  try {
    await run(clients, values.vm);
  } finally {
    Object.values(clients).forEach((client) => client.close());
  }
}

async function run({ inventory, operations, snapshots }, vmName) {
  const vmId = await findVm(inventory, vmName);

  const name = `node-${process.hrtime.bigint()}`;
  const create = { requestId: randomUUID(), vmId, name };
  const created = await call(snapshots, 'CreateSnapshot', create);
  const { snapshotId } = await watch(operations, created.operation);
  console.log(`created ${name}`);

  const remove = { requestId: randomUUID(), snapshotId };
  const deleted = await call(snapshots, 'DeleteSnapshot', remove);
  await watch(operations, deleted.operation);
  const left = await list(snapshots, 'ListSnapshots', { vmId }, 'snapshots');
  if (left.some((snapshot) => snapshot.id === snapshotId)) {
    throw new Failed(`${name} is still listed`);
  }
  console.log(`deleted ${name}`);

  console.log('a request with mistakes:');
  const refusal = await call(snapshots, 'DeleteSnapshot', { requestId: 'nope' }).then(
    () => {
      throw new Failed('it was not refused');
    },
    (error) => error,
  );
  showRefusal(refusal, console.log);
}

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + DEADLINE_MS };
    client[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

/** What a list has, over all of its pages. */
async function list(client, method, request, field) {
  const all = [];
  let pageToken = '';
  do {
    const page = await call(client, method, { ...request, pageToken });
    all.push(...page[field]);
    pageToken = page.nextPageToken;
  } while (pageToken);
  return all;
}

async function findVm(inventory, name) {
  const vms = await list(inventory, 'ListVms', {}, 'vms');
  const vm = vms.find((vm) => vm.name === name);
  if (!vm) throw new Failed(`no machine is called ${name}`);
  return vm.id;
}

/**
 * Prints what is new of an operation until it has ended; returns how it did. A stream that breaks, as at
 * a restart of the server, is asked for again: it begins with the operation as it stands.
 */
async function watch(operations, operation) {
  let shown;
  let broken = 0;
  while (!ENDED.includes(operation.state)) {
    try {
      for await (const answer of operations.WatchOperation({ operationId: operation.id })) {
        operation = answer.operation;
        broken = 0;
        const line = describe(operation);
        if (line !== shown) console.log(line);
        shown = line;
      }
    } catch (error) {
      broken += 1;
      if (error.code !== grpc.status.UNAVAILABLE || broken > BROKEN_STREAMS) throw error;
      await sleep(1000);
    }
  }
  if (operation.state !== 'OPERATION_STATE_SUCCEEDED') {
    const { reason, message } = operation.failure ?? {};
    throw new Failed(`${describe(operation)}: ${reason}: ${message}`);
  }
  return operation;
}

function describe(operation) {
  const kind = short(operation.kind, 'OPERATION_KIND_');
  const parts = [`${kind} ${short(operation.state, 'OPERATION_STATE_')}`];
  if (operation.waiting) parts.push(`waits: ${operation.waiting.reason}`);
  for (const disk of operation.disks) {
    const phase = short(disk.phase, 'MERGE_PHASE_');
    parts.push(`${disk.disk} ${phase} ${disk.doneBytes} of ${disk.totalBytes} bytes`);
  }
  return parts.join(', ');
}

/** A newer server may send a value that is not known here: then it is a number. */
function short(value, prefix) {
  return String(value).replace(prefix, '').toLowerCase();
}

/** Programs branch on the reason; the message is for people. */
function showRefusal(error, print) {
  print(`  code     ${grpc.status[error.code]}`);
  print(`  message  ${error.details}`);
  for (const { type, value } of details(error)) {
    if (type === 'google.rpc.ErrorInfo') print(`  reason   ${value.reason}`);
    if (type === 'google.rpc.BadRequest') {
      for (const { field, description } of value.fieldViolations) {
        print(`  field    ${field}: ${description}`);
      }
    }
  }
}

/** What an error says beside its code and text, as far as the types are known here. */
function details(error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  if (!bytes) return [];
  const status = definitions['google.rpc.Status'].deserialize(bytes);
  return status.details.flatMap((any) => {
    const type = any.type_url.split('/').pop();
    const definition = definitions[type];
    return definition ? [{ type, value: definition.deserialize(any.value) }] : [];
  });
}

main().catch((error) => {
  if (error.metadata) {
    console.error('refused:');
    showRefusal(error, console.error);
  } else {
    console.error(error instanceof Failed ? error.message : error);
  }
  process.exitCode = 1;
});
