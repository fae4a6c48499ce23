import type { Route } from "../routes";
import { DeadLetters } from "./DeadLetters";
import { Events } from "./Events";
import { Switches } from "./Switches";
import { Turns } from "./Turns";
import { UsagePage } from "./Usage";
import { WorkPage } from "./WorkPage";

/** What runs, for operators; usage for everybody. */
export default function See({ route }: { route: Route }) {
  switch (route.page) {
    case "events":
      return <Events id={route.event} />;
    case "jobs":
      return <WorkPage key="jobs" kind="job" />;
    case "callbacks":
      return <WorkPage key="callbacks" kind="callback" />;
    case "dead-letters":
      return <DeadLetters />;
    case "turns":
      return <Turns />;
    case "switches":
      return <Switches />;
    case "usage":
      return <UsagePage />;
    default:
      return null;
  }
}
