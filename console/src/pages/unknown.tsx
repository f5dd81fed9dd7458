import { Empty } from "../ui/empty";
import { Link } from "../ui/link";
import { PLACES } from "../logic/route";

export function UnknownPage() {
  return (
    <Empty title="There is no such page">
      <p>
        The address names nothing here. <Link to={PLACES.vms}>Go to the machines</Link>
      </p>
    </Empty>
  );
}
