// The client since 2.0.
import * as svix from "svix";
import { run } from "../scenario.mjs";

await run(svix, {
  generation: 2,
  application: "upsert",
  endpoint: "upsert",
  eventType: "upsert",
  headers: "setHeaders",
  types: "eventTypes",
});
