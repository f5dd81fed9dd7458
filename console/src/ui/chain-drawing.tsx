// A disk's chain, drawn: base at the left, the layer that the guest writes at the right.

import type { Layer, Scale } from "../logic/chain";
import { MARKS, blocks, chainSentence, dense } from "../logic/chain";
import { bytesOr } from "../logic/bytes";
import { moved } from "../logic/virtual";
import { useId, useRef, useState } from "preact/hooks";
import { visible } from "../logic/text";

const HEIGHT = 44;
/** The base is at the left. */
const ALONG: Readonly<Record<string, string>> = { ArrowRight: "ArrowDown", ArrowLeft: "ArrowUp" };

function classOf(layer: Layer): string {
  const kinds = ["block"];
  if (layer.active) kinds.push("active");
  if (layer.recordless) kinds.push("recordless");
  if (layer.sharedWith.length > 0) kinds.push("shared");
  if (layer.role !== "none") kinds.push(layer.role);
  return kinds.join(" ");
}

function words(layer: Layer): string {
  const parts = [visible(layer.name), bytesOr(layer.allocated, "size not known")];
  if (layer.snapshots.length > 0) parts.push(`snapshot ${layer.snapshots.map((each) => visible(each.name)).join(", ")}`);
  if (layer.active) parts.push("the guest writes it");
  if (layer.sharedWith.length > 0) parts.push("shared");
  if (layer.recordless) parts.push("no snapshot accounts for it");
  if (layer.role === "kept") parts.push("kept: takes the data");
  if (layer.role === "removed") parts.push("removed");
  return parts.join(" · ");
}

/** What stands in a block: as much as has room, which the style sheet sees to. */
function Tag({ layer, index }: { layer: Layer; index: number }) {
  const [snapshot] = layer.snapshots;
  const what = snapshot ? visible(snapshot.name) : layer.active ? "active" : layer.base ? "base" : visible(layer.name);
  return (
    <div class={`tag ${layer.active && layer.role === "none" ? "of-active" : ""}`}>
      <div class="lines">
        <b>{MARKS[layer.role] || index}</b>
        <bdi>
          {MARKS[layer.role]} {what}
        </bdi>
        <small>{bytesOr(layer.allocated, "")}</small>
      </div>
    </div>
  );
}

interface Props {
  readonly disk: string;
  readonly layers: readonly Layer[];
  /** What the whole width stands for, where drawings are compared. */
  readonly scale?: Scale;
  readonly chosen?: string;
  readonly onChoose?: (key: string) => void;
}

/** Widths are hundredths of the drawing, so it fits every screen without being measured. */
export function ChainDrawing({ disk, layers, scale, chosen, onChoose }: Props) {
  const pattern = useId();
  const places = blocks(layers.map((layer) => layer.allocated), scale);
  const own = useRef<SVGSVGElement>(null);
  // One stop for Tab, however many blocks; the arrows lead from one to the next.
  const [at, setAt] = useState(0);
  const stop = Math.min(at, layers.length - 1);
  const pressed = (event: KeyboardEvent) => {
    const layer = layers[stop];
    if ((event.key === "Enter" || event.key === " ") && layer) onChoose?.(layer.key);
    else {
      const next = moved(ALONG[event.key] ?? event.key, stop, layers.length, 10);
      if (next === undefined) return;
      setAt(next);
      own.current?.querySelectorAll<SVGElement>("[role=button]")[next]?.focus();
    }
    event.preventDefault();
  };
  return (
    <svg
      ref={own}
      class={dense(layers.length) ? "chain dense" : "chain"}
      width="100%"
      height={HEIGHT}
      role={onChoose ? "group" : "img"}
      aria-label={chainSentence(disk, layers)}
      onKeyDown={onChoose && pressed}
    >
      <defs>
        <pattern id={pattern} width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
          <rect class="hatch" width="3" height="8" />
        </pattern>
      </defs>
      {layers.map((layer, index) => {
        const place = places[index] ?? { x: 0, width: 0 };
        return (
          <g
            key={layer.key}
            class={layer.key === chosen ? "chosen" : ""}
            {...(onChoose && {
              role: "button",
              tabIndex: index === stop ? 0 : -1,
              "aria-label": words(layer),
              "aria-pressed": layer.key === chosen,
              onFocus: () => setAt(index),
              onClick: () => onChoose(layer.key),
            })}
          >
            <title>{words(layer)}</title>
            <rect class={classOf(layer)} x={`${place.x}%`} y="4" width={`${place.width}%`} height={HEIGHT - 8} rx="3" />
            {layer.sharedWith.length > 0 && (
              <rect x={`${place.x}%`} y="4" width={`${place.width}%`} height={HEIGHT - 8} rx="3" fill={`url(#${pattern})`} pointer-events="none" />
            )}
          </g>
        );
      })}
      {/* Apart from the blocks, whose names say more, and in another order. */}
      {layers.map((layer, index) => {
        const { x, width } = places[index] ?? { x: 0, width: 0 };
        if (width <= 2) return null;
        return (
          <foreignObject key={`tag ${layer.key}`} x={`${x}%`} y="4" width={`${width}%`} height={HEIGHT - 8} pointer-events="none" aria-hidden="true">
            <Tag layer={layer} index={index} />
          </foreignObject>
        );
      })}
    </svg>
  );
}
