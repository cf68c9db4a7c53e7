// The client before 2.0: older names of fields and methods.
import svix from "svix";
import { run } from "../scenario.mjs";

await run(svix, {
  generation: 1,
  application: "update",
  endpoint: "update",
  eventType: "update",
  headers: "updateHeaders",
  types: "filterTypes",
});
