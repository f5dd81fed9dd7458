import type { Obstacle } from "../logic/plan";
import { visible } from "../logic/text";

/** What would refuse the delete, and how that is resolved. */
export function Obstacles({ obstacles }: { obstacles: readonly Obstacle[] }) {
  if (obstacles.length === 0) return null;
  return (
    <div class="problem" role="alert">
      <p>
        <strong>Something is in the way.</strong> It would be refused as things are:
      </p>
      <ul>
        {obstacles.map(({ reason, about, message, advice }) => (
          <li key={`${reason} ${about} ${message}`}>
            <strong>{reason}</strong> <bdi>{visible(about)}</bdi>: <bdi>{visible(message)}</bdi>
            {advice !== "" && <p>{advice}</p>}
          </li>
        ))}
      </ul>
    </div>
  );
}
