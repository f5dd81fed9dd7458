// The disks of a machine, each with its chain.

import type { GetVolumeChainResponse } from "../gen/livemerge/v1/inventory_service_pb";
import type { Layer } from "../logic/chain";
import type { Resource } from "../state/resource";
import { Badge } from "../ui/badge";
import { ChainDrawing } from "../ui/chain-drawing";
import { Code, Name } from "../ui/text";
import { Empty, Loading } from "../ui/empty";
import { LayerList } from "../ui/layer-list";
import { ReadProblem } from "../ui/read-problem";
import { Time } from "../ui/time";
import { bytes } from "../logic/bytes";
import { count, visible } from "../logic/text";
import { useState } from "preact/hooks";
import type { VolumeChain } from "../gen/livemerge/v1/volume_pb";

interface Props {
  readonly chains: Resource<GetVolumeChainResponse>;
  readonly layers: ReadonlyMap<string, readonly Layer[]>;
  /** How many there will be. */
  readonly disks: number;
}

export function Chains({ chains, layers, disks }: Props) {
  const { data, problem, refresh } = chains;
  return (
    <>
      <h2>Disks</h2>
      <ReadProblem problem={problem} onRetry={refresh} />
      {data === undefined && !problem && <Loading lines={disks} kind="disk" />}
      {data?.chains.map((chain) => <Disk key={chain.disk} chain={chain} layers={layers.get(chain.disk) ?? []} />)}
      {data?.unsupportedDisks.map((disk) => (
        <article key={disk.disk} class="card">
          <div class="line">
            <h3>
              <Code of={disk.disk} />
            </h3>
            <Badge tone="warn">cannot be merged</Badge>
          </div>
          <p>
            It <bdi>{visible(disk.why)}</bdi>. No snapshot of the machine can be taken or deleted while it is so.
          </p>
          {disk.locators.map((locator) => (
            <Code key={locator} of={locator} />
          ))}
        </article>
      ))}
      {data !== undefined && data.chains.length + data.unsupportedDisks.length === 0 && (
        <Empty title="No disk">
          <p>The machine has no disk that could have a snapshot; CD-ROMs and floppies are left out.</p>
        </Empty>
      )}
    </>
  );
}

function Disk({ chain, layers }: { chain: VolumeChain; layers: readonly Layer[] }) {
  const [chosen, choose] = useState("");
  const [opened, open] = useState(false);
  const point = (key: string) => {
    choose(key);
    open(true);
  };
  const taken = layers.reduce((sum, layer) => sum + layer.allocated, 0);
  return (
    <article class="card">
      <div class="line">
        <h3>
          <Code of={chain.disk} />
        </h3>
        <span class="faint">
          {count(layers.length, "layer")}, {bytes(taken)} taken, read <Time at={chain.observedAt} />
        </span>
        {chain.jobRunning && <Badge tone="busy">a block job runs</Badge>}
        {chain.guestDiscards && <Badge tone="calm" title="What the guest discards is given back to the storage.">discards</Badge>}
      </div>
      {chain.libvirtSnapshots.length > 0 && (
        <p class="note">
          libvirt's own snapshots name layers of this chain, so nothing is merged while they are there:{" "}
          {chain.libvirtSnapshots.map((name) => (
            <Name key={name} of={name} />
          ))}
        </p>
      )}
      <div class="ends faint" aria-hidden="true">
        <span>base</span>
        <span>the guest writes here</span>
      </div>
      <ChainDrawing disk={chain.disk} layers={layers} chosen={chosen} onChoose={point} />
      <details open={opened} onToggle={(event) => open(event.currentTarget.open)}>
        <summary>Layers</summary>
        <LayerList layers={layers} chosen={chosen} />
      </details>
    </article>
  );
}
