// Reads one captured request per line of stdin, {"secret", "headers", "body" (base64), "now" (unix
// seconds, optional)}, and prints one line per request: {"ok": true} or {"ok": false, "error": "…"}.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

const realNow = Date.now;

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body, now } = JSON.parse(line);
  // The library reads the clock itself; fixed requests bring the time they were made for.
  Date.now = now === undefined ? realNow : () => now * 1000;
  let answer = { ok: true };
  try {
    // Bodies are any bytes, so the library must not try to parse them.
    new Webhook(secret).verify(Buffer.from(body, "base64"), headers, { jsonParse: false });
  } catch (e) {
    answer = { ok: false, error: e.message || "refused" };
  }
  console.log(JSON.stringify(answer));
}
