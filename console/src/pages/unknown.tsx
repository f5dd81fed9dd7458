import { Empty } from "../ui/empty";
import { Link } from "../ui/link";
import { PLACES } from "../logic/route";

export function UnknownPage() {
  return (
    <section>
      <h1>Nothing here</h1>
      <Empty title="There is no such page">
        <p>
          The address names nothing. <Link to={PLACES.vms}>Go to the machines</Link>
        </p>
      </Empty>
    </section>
  );
}
