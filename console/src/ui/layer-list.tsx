// The same chain in words, a row a layer.

import type { Layer } from "../logic/chain";
import { Badge } from "./badge";
import { Code, Name } from "./text";
import { bytesOr } from "../logic/bytes";
import { formatWord } from "../logic/words";

export function LayerList({ layers, chosen }: { layers: readonly Layer[]; chosen?: string }) {
  return (
    <ol class="layers" start={0}>
      {layers.map((layer) => (
        <li key={layer.key} class={layer.key === chosen ? "chosen" : ""}>
          <div class="line">
            <Code of={layer.name} title={layer.locator} />
            <Flags layer={layer} />
          </div>
          <div class="faint line">
            <span>{layer.format ? formatWord(layer.format) : ""}</span>
            <span>
              {bytesOr(layer.allocated, "size not known")} of {bytesOr(layer.virtual, "a size not known")}
            </span>
            {layer.snapshots.map((snapshot) => (
              <span key={snapshot.id}>
                holds <Name of={snapshot.name} />
              </span>
            ))}
          </div>
          {layer.sharedWith.length > 0 && (
            <p class="faint">
              Never written or removed, because it is what others are built on: {layer.sharedWith.map((other) => <Code key={other} of={other} />)}
            </p>
          )}
          {layer.bitmaps.length > 0 && <p class="faint">Keeps dirty bitmaps for backups: {layer.bitmaps.map((name) => <Code key={name} of={name} />)}</p>}
        </li>
      ))}
    </ol>
  );
}

function Flags({ layer }: { layer: Layer }) {
  return (
    <>
      {layer.role === "kept" && <Badge tone="good">kept: takes the data</Badge>}
      {layer.role === "removed" && <Badge tone="bad">removed</Badge>}
      {layer.active && <Badge tone="busy">active: the guest writes it</Badge>}
      {layer.base && !layer.active && <Badge tone="calm">base</Badge>}
      {layer.sharedWith.length > 0 && <Badge tone="warn">shared</Badge>}
      {layer.recordless && (
        <Badge tone="warn" title="Somebody else's snapshot may have left it. The consistency page says more.">
          no record
        </Badge>
      )}
      {layer.encrypted && <Badge tone="warn">encrypted</Badge>}
    </>
  );
}
