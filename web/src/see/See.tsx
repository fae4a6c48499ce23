import type { Route } from "../routes";
import { Audit } from "./Audit";
import { DeadLetters } from "./DeadLetters";
import { Errors } from "./Errors";
import { Events } from "./Events";
import { Grants } from "./Grants";
import { Keys } from "./Keys";
import { Latency } from "./Latency";
import { Providers } from "./Providers";
import { Queues } from "./Queues";
import { Switches } from "./Switches";
import { System } from "./System";
import { Turns } from "./Turns";
import { UsagePage } from "./Usage";
import { WorkPage } from "./WorkPage";

/** What runs, for operators; usage for everybody. */
export default function See({ route }: { route: Route }) {
  switch (route.page) {
    case "events":
      return <Events id={route.id} />;
    case "jobs":
      return <WorkPage key="jobs" kind="job" />;
    case "callbacks":
      return <WorkPage key="callbacks" kind="callback" />;
    case "dead-letters":
      return <DeadLetters />;
    case "turns":
      return <Turns />;
    case "queues":
      return <Queues />;
    case "latency":
      return <Latency />;
    case "errors":
      return <Errors />;
    case "providers":
      return <Providers />;
    case "switches":
      return <Switches />;
    case "system":
      return <System />;
    case "keys":
      return <Keys />;
    case "grants":
      return <Grants />;
    case "audit":
      return <Audit />;
    case "usage":
      return <UsagePage />;
    case "talk":
      return null;
  }
}
