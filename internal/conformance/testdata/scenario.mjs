// Drives the API with an unmodified client, as a sender's backend and as a receiver. What to talk to is
// in the environment; `names` says what this generation of the client calls things. Prints one line per
// step and fails with the first that is not as it should be.
import assert from "node:assert/strict";
import { createServer } from "node:http";

// openapi describes one webhook.
const openapi = JSON.stringify({
  openapi: "3.1.0", info: { title: "t", version: "1" },
  webhooks: { "imported.type": { post: { description: "d", requestBody: { content: { "application/json": { schema: { type: "object" } } } } } } },
});
const { url, token, operations } = JSON.parse(process.env.POSTHASTE_CONFORMANCE);

export async function run(svix, names) {
  const receiver = await listen(svix);
  const state = {
    svix,
    names,
    receiver,
    client: new svix.Svix(token, { serverUrl: url }),
    refused: (call, status) => refused(svix, call, status),
  };
  try {
    for (const [name, needs, step] of steps) {
      if (needs !== "" && !operations.includes(needs)) continue; // not there yet
      try {
        await step(state);
      } catch (e) {
        console.error(`${name}: ${e.stack}\n${JSON.stringify(e.body ?? null)}`);
        process.exitCode = 1;
        return;
      }
      console.log(`ok ${name}`);
    }
  } finally {
    receiver.close();
  }
}

// finished waits until a background task is, and returns it.
async function finished(client, id) {
  let task;
  await until(async () => (task = await client.backgroundTask.get(id)), ({ status }) => status !== "running");
  assert.equal(task.status, "finished", JSON.stringify(task));
  return task;
}

// A receiver that keeps what arrives. `fail` makes it refuse the next so many requests.
async function listen(svix) {
  const arrived = [];
  const waiting = [];
  let failures = 0;
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const got = { path: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() };
    const failing = failures > 0;
    if (failing) failures--;
    response.writeHead(failing ? 500 : 200, { "content-type": "text/plain" });
    response.end(failing ? "not now" : "taken");
    arrived.push(got);
    for (const wake of waiting.splice(0)) wake();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const of = (id, path) => arrived.filter((r) => r.headers["webhook-id"] === id && r.path === path);
  return {
    at: (path) => `http://127.0.0.1:${server.address().port}${path}`,
    fail: (n) => (failures = n),
    // Waits until a message has come `count` times to a path.
    async wait(id, path, count = 1) {
      while (of(id, path).length < count) await new Promise((wake) => waiting.push(wake));
      return of(id, path)[count - 1];
    },
    verify: (secret, { headers, body }) => new svix.Webhook(secret).verify(body, headers),
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

// Calls and wants the client's own error, with a body that it has parsed.
async function refused(svix, call, status) {
  let error;
  try {
    await call();
  } catch (e) {
    error = e;
  }
  assert.ok(error instanceof svix.ApiException, `want an ApiException, got ${error}`);
  assert.equal(error.code, status, JSON.stringify(error.body));
  assert.equal(typeof error.body, "object");
  if (Array.isArray(error.body.detail)) {
    for (const { loc, msg, type } of error.body.detail) {
      assert.ok(loc.every((part) => typeof part === "string") && msg !== "" && type !== "");
    }
  } else {
    assert.equal(typeof error.body.code, "string");
    assert.equal(typeof error.body.detail, "string");
  }
  return error.body;
}

// Asks again until the answer is as wanted; the test's own time limit ends a wait for ever.
async function until(ask, wanted) {
  for (;;) {
    const got = await ask();
    if (wanted(got)) return got;
    await new Promise((next) => setTimeout(next, 20));
  }
}

// Walks a list to its end and back again, and wants the same items both ways.
async function walk(list, key, least) {
  const there = [];
  let page = await list({ limit: 2 });
  for (;;) {
    assert.ok(page.data.length <= 2);
    there.push(...page.data.map((item) => item[key]));
    if (page.done) break;
    page = await list({ limit: 2, iterator: page.iterator });
  }
  assert.ok(there.length >= least, `only ${there.length} items`);
  assert.equal(new Set(there).size, there.length);
  const back = page.data.map((item) => item[key]);
  do {
    page = await list({ limit: 2, iterator: page.prevIterator });
    back.unshift(...page.data.map((item) => item[key]));
  } while (!page.done);
  assert.deepEqual(back, there);
}

const app = "customer-1"; // the uid of the application that all steps share
const endpoint = "main"; // and of its endpoint

// What is done, in this order. The second column names an operation without which a step is left out.
const steps = [
  ["health", "", async ({ client }) => {
    await client.health.get();
  }],

  ["create an application", "", async ({ client, refused }) => {
    const made = await client.application.create({ name: "Acme", uid: app, metadata: { plan: "pro" }, throttleRate: 100 });
    assert.match(made.id, /^app_[0-9A-Za-z]{27}$/);
    assert.deepEqual([made.name, made.uid, made.metadata, made.throttleRate], ["Acme", app, { plan: "pro" }, 100]);
    assert.ok(made.createdAt instanceof Date && !Number.isNaN(made.createdAt.getTime()));
    const got = await client.application.get(app);
    assert.equal(got.id, made.id);
    const existing = await client.application.getOrCreate({ name: "Another name", uid: app });
    assert.deepEqual([existing.id, existing.name], [made.id, "Acme"]);
    assert.equal((await refused(() => client.application.create({ name: "Acme", uid: app }), 409)).code, "conflict");
  }],

  ["replace and change an application", "", async ({ client, names, refused }) => {
    const replaced = await client.application[names.application](app, { name: "Acme GmbH", uid: app });
    assert.deepEqual([replaced.name, replaced.metadata, replaced.throttleRate ?? null], ["Acme GmbH", {}, null]);
    const { id } = replaced;
    await client.application.patch(id, { metadata: { a: "b" }, throttleRate: 7 });
    let got = await client.application.patch(id, { name: "Acme" });
    assert.deepEqual([got.uid, got.name, got.metadata, got.throttleRate], [app, "Acme", { a: "b" }, 7]);
    got = await client.application.patch(id, { uid: null, throttleRate: null });
    assert.deepEqual([got.uid ?? null, got.throttleRate ?? null], [null, null]);
    await refused(() => client.application.get(app), 404);
    assert.deepEqual((await refused(() => client.application.patch(id, { name: null }), 422)).detail[0].loc, ["body", "name"]);
    got = await client.application.patch(id, { uid: app });
    assert.equal(got.uid, app);
  }],

  ["list applications both ways", "", async ({ client }) => {
    for (let i = 0; i < 4; i++) await client.application.create({ name: `List ${i}` });
    await walk((o) => client.application.list(o), "id", 5);
    await walk((o) => client.application.list({ ...o, order: "descending" }), "id", 5);
    const gone = await client.application.create({ name: "Gone" });
    await client.application.delete(gone.id);
    assert.ok((await client.application.list({ limit: 250 })).data.every(({ id }) => id !== gone.id));
  }],

  ["event types", "", async ({ client, names, refused }) => {
    const schemas = { 1: { type: "object", properties: { n: { type: "integer" } } } };
    for (const name of ["invoice.paid", "invoice.void", "user.created"]) {
      const made = await client.eventType.create({ name, description: "d", schemas, featureFlags: ["beta"], groupName: "g" });
      assert.deepEqual([made.name, made.deprecated, made.archived, made.featureFlags], [name, false, false, ["beta"]]);
    }
    assert.equal((await refused(() => client.eventType.create({ name: "invoice.paid", description: "d" }), 409)).code, "event_type_exists");
    await walk((o) => client.eventType.list(o), "name", 3);
    assert.deepEqual((await client.eventType.list({ withContent: true })).data[0].schemas, schemas);
    assert.equal((await client.eventType.list()).data[0].schemas ?? null, null);
    let got = await client.eventType.patch("invoice.paid", { schemas: null, featureFlags: null, groupName: null, description: "paid" });
    assert.deepEqual([got.schemas ?? null, got.featureFlags ?? null, got.groupName ?? null, got.description], [null, null, null, "paid"]);
    got = await client.eventType[names.eventType]("invoice.paid", { description: "replaced", deprecated: true });
    assert.deepEqual([got.name, got.description, got.deprecated], ["invoice.paid", "replaced", true]);
    await client.eventType.delete("invoice.void");
    assert.equal((await client.eventType.get("invoice.void")).archived, true);
    assert.ok((await client.eventType.list()).data.every(({ name }) => name !== "invoice.void"));
    assert.ok((await client.eventType.list({ includeArchived: true })).data.some(({ name }) => name === "invoice.void"));
    assert.equal((await client.eventType.create({ name: "invoice.void", description: "back" })).archived, false);
    await client.eventType.delete("invoice.void", { expunge: true });
    assert.equal((await refused(() => client.eventType.get("invoice.void"), 404)).code, "not_found");
    const imported = await client.eventType.importOpenapi({ specRaw: openapi });
    assert.deepEqual(imported.data.modified, ["imported.type"]);
    await client.eventType.delete("imported.type", { expunge: true });
  }],

  ["endpoints", "", async ({ client, names, receiver, refused }) => {
    const made = await client.endpoint.create(app, {
      url: receiver.at("/main"), uid: endpoint, description: "d", [names.types]: ["invoice.paid"], channels: ["eu", "us"],
      metadata: { a: "b" }, throttleRate: 50,
    });
    assert.match(made.id, /^ep_[0-9A-Za-z]{27}$/);
    assert.deepEqual([made.url, made.disabled, made[names.types], made.metadata, made.throttleRate],
      [receiver.at("/main"), false, ["invoice.paid"], { a: "b" }, 50]);
    assert.deepEqual([...made.channels].sort(), ["eu", "us"]);
    if (names.generation === 1) assert.equal(made.version, 1);
    assert.equal((await client.endpoint.get(app, endpoint)).id, made.id);
    const patched = await client.endpoint.patch(app, made.id, { [names.types]: null, channels: null, throttleRate: null, uid: null });
    assert.deepEqual([patched[names.types] ?? null, patched.channels ?? null, patched.throttleRate ?? null, patched.uid ?? null], [null, null, null, null]);
    assert.equal(patched.description, "d");
    const replaced = await client.endpoint[names.endpoint](app, made.id, { url: receiver.at("/main"), uid: endpoint, [names.types]: ["invoice.paid"] });
    assert.deepEqual([replaced.id, replaced.description, replaced.metadata, replaced[names.types]], [made.id, "", {}, ["invoice.paid"]]);
    for (let i = 0; i < 4; i++) await client.endpoint.create(app, { url: receiver.at(`/${i}`), disabled: true });
    await walk((o) => client.endpoint.list(app, o), "id", 5);
    await walk((o) => client.endpoint.list(app, { ...o, order: "ascending" }), "id", 5);
    const gone = await client.endpoint.create(app, { url: receiver.at("/gone") });
    await client.endpoint.delete(app, gone.id);
    await refused(() => client.endpoint.get(app, gone.id), 404);
    const wrong = await refused(() => client.endpoint.create(app, { url: "ftp://example.com" }), 422);
    assert.deepEqual(wrong.detail[0].loc, ["body", "url"]);
    assert.deepEqual((await refused(() => client.endpoint.create(app, { url: receiver.at("/x"), channels: ["a b"] }), 422)).detail[0].loc,
      ["body", "channels", "[0]"]);
  }],

  ["headers of an endpoint", "", async ({ client, names, refused }) => {
    await client.endpoint[names.headers](app, endpoint, { headers: { "X-One": "1", "X-Two": "2", Authorization: "Bearer secret" } });
    let got = await client.endpoint.getHeaders(app, endpoint);
    assert.deepEqual([got.headers, got.sensitive], [{ "X-One": "1", "X-Two": "2" }, ["Authorization"]]);
    await client.endpoint.patchHeaders(app, endpoint, { headers: { "X-One": null, "X-Three": "3" }, deleteHeaders: ["X-Two"] });
    got = await client.endpoint.getHeaders(app, endpoint);
    assert.deepEqual([got.headers, got.sensitive], [{ "X-Three": "3" }, ["Authorization"]]);
    await refused(() => client.endpoint.patchHeaders(app, endpoint, { headers: { "Content-Length": "1" } }), 422);
  }],

  ["send, receive and verify through a rotation", "", async (s) => {
    const { client, receiver } = s;
    const before = (await client.endpoint.getSecret(app, endpoint)).key;
    const first = await client.message.create(app, { eventType: "invoice.paid", payload: { n: 1, text: "Zoë 🚀" }, eventId: "first", tags: ["t/1"], channels: ["eu"] });
    assert.match(first.id, /^msg_[0-9A-Za-z]{27}$/);
    assert.deepEqual([first.eventType, first.eventId, first.channels, first.tags], ["invoice.paid", "first", ["eu"], ["t/1"]]);
    assert.ok(first.timestamp instanceof Date);
    let got = await receiver.wait(first.id, "/main");
    receiver.verify(before, got);
    assert.deepEqual(JSON.parse(got.body), { n: 1, text: "Zoë 🚀" });
    assert.deepEqual([got.headers["x-three"], got.headers.authorization], ["3", "Bearer secret"]);
    assert.throws(() => receiver.verify(before, { ...got, body: got.body.replace("1", "2") }), s.svix.WebhookVerificationError);

    await client.endpoint.rotateSecret(app, endpoint, {});
    const after = (await client.endpoint.getSecret(app, endpoint)).key;
    assert.notEqual(after, before);
    const second = await client.message.create(app, { eventType: "invoice.paid", payload: { n: 2 } });
    got = await receiver.wait(second.id, "/main");
    receiver.verify(before, got);
    receiver.verify(after, got);

    const own = "whsec_" + Buffer.alloc(24, "x").toString("base64");
    await client.endpoint.rotateSecret(app, endpoint, { key: own });
    assert.equal((await client.endpoint.getSecret(app, endpoint)).key, own);
  }],

  ["messages", "", async ({ client, refused }) => {
    assert.equal((await refused(() => client.message.create(app, { eventType: "invoice.paid", payload: {}, eventId: "first" }), 409)).code, "conflict");
    const shown = await client.message.create(app, { eventType: "user.created", payload: { shown: true } }, { withContent: true });
    assert.deepEqual(shown.payload, { shown: true });
    const hidden = await client.message.create(app, { eventType: "user.created", payload: { shown: true } }, { withContent: false });
    assert.deepEqual(hidden.payload, {});
    assert.deepEqual((await client.message.get(app, "first", { withContent: true })).payload, { n: 1, text: "Zoë 🚀" });
    assert.deepEqual((await client.message.get(app, "first", { withContent: false })).payload, {});
    for (let i = 0; i < 3; i++) await client.message.create(app, { eventType: "user.created", payload: { i }, payloadRetentionPeriod: 5 });
    await walk((o) => client.message.list(app, o), "id", 5);
    const only = async (o) => (await client.message.list(app, o)).data.map(({ eventId }) => eventId ?? null);
    assert.deepEqual(await only({ tag: "t/1" }), ["first"]);
    assert.deepEqual(await only({ channel: "eu", eventTypes: ["invoice.paid", "other.type"] }), ["first"]);
    assert.deepEqual(await only({ before: new Date(Date.now() - 3600e3) }), []);
    assert.ok((await only({ after: new Date(Date.now() - 3600e3) })).length >= 5);
    const inline = await client.message.create("customer-2", {
      eventType: "user.created", payload: {}, application: { name: "Made on the way", uid: "customer-2" },
    });
    assert.equal((await client.message.get("customer-2", inline.id)).id, inline.id);
  }],

  ["attempts", "", async ({ client, receiver }) => {
    receiver.fail(1);
    const { id } = await client.message.create(app, { eventType: "invoice.paid", payload: { n: 3 }, tags: ["t/2"] });
    await receiver.wait(id, "/main", 2);
    const { data } = await until(() => client.messageAttempt.listByMsg(app, id, { withContent: true }), (page) => page.data.length === 2);
    const [last, first] = data;
    assert.deepEqual([first.status, first.statusText, first.responseStatusCode, first.response], [2, "fail", 500, "not now"]);
    assert.deepEqual([last.status, last.statusText, last.responseStatusCode, last.response], [0, "success", 200, "taken"]);
    assert.deepEqual([last.msgId, last.triggerType, last.url], [id, 0, receiver.at("/main")]);
    assert.ok(last.timestamp instanceof Date && last.timestamp >= first.timestamp);
    assert.equal((await client.messageAttempt.get(app, id, first.id)).id, first.id);
    const ids = async (o) => (await client.messageAttempt.listByMsg(app, id, o)).data.map((a) => a.id);
    assert.deepEqual(await ids({ status: 2 }), [first.id]);
    assert.deepEqual(await ids({ statusCodeClass: 200 }), [last.id]);
    assert.deepEqual(await ids({ endpointId: endpoint, eventTypes: ["invoice.paid"] }), [last.id, first.id]);
    const tagged = await client.messageAttempt.listByEndpoint(app, endpoint, { tag: "t/2", withMsg: true, withContent: true });
    assert.deepEqual(tagged.data.map((a) => [a.id, a.msg.payload]), [[last.id, { n: 3 }], [first.id, { n: 3 }]]);
    await walk((o) => client.messageAttempt.listByEndpoint(app, endpoint, o), "id", 4);
    await walk((o) => client.messageAttempt.listByMsg(app, id, o), "id", 2);
  }],

  ["repeating with a key does nothing twice", "", async ({ client, receiver, refused }) => {
    const twice = async (make) => {
      const [one, two] = [await make(), await make()];
      assert.equal(two.id ?? two.name, one.id ?? one.name);
      return one;
    };
    await twice(() => client.application.create({ name: "Once" }, { idempotencyKey: "k-app" }));
    await twice(() => client.endpoint.create(app, { url: receiver.at("/once"), disabled: true }, { idempotencyKey: "k-ep" }));
    await twice(() => client.eventType.create({ name: "once.only", description: "d" }, { idempotencyKey: "k-type" }));
    const made = await twice(() => client.message.create(app, { eventType: "once.only", payload: {}, tags: ["once"] }, { idempotencyKey: "k-msg" }));
    assert.deepEqual((await client.message.list(app, { tag: "once" })).data.map(({ id }) => id), [made.id]);
    const reused = await refused(() => client.message.create(app, { eventType: "other", payload: {} }, { idempotencyKey: "k-msg" }), 422);
    assert.equal(reused.code, "idempotency_key_reused");
  }],

  // The front answers with 500 once, either before the request reaches the server or after: the client
  // sees neither, and asks again with its own key.
  ["retries make one message", "", async ({ client }) => {
    for (const when of ["before", "after"]) {
      assert.equal((await fetch(`${url}/fault/${when}`, { method: "POST" })).status, 204);
      const { id } = await client.message.create(app, { eventType: "user.created", payload: {}, tags: [`fault-${when}`] });
      const found = await client.message.list(app, { tag: `fault-${when}` });
      assert.deepEqual(found.data.map((m) => m.id), [id]);
    }
  }],

  ["errors are the client's own", "", async ({ client, svix, refused }) => {
    const stranger = new svix.Svix("phk_wrong", { serverUrl: url });
    assert.equal((await refused(() => stranger.application.list(), 401)).code, "authentication_failed");
    assert.equal((await refused(() => client.application.get("nobody"), 404)).code, "not_found");
    assert.equal((await refused(() => client.message.get(app, "nothing"), 404)).code, "not_found");
    assert.equal((await refused(() => client.message.create("nobody", { eventType: "e", payload: {} }), 404)).detail, "Application not found");
    assert.equal((await refused(() => client.application.list({ limit: "many" }), 400)).code, "generic_error");
    assert.deepEqual((await refused(() => client.application.list({ limit: 251 }), 422)).detail[0].loc, ["query", "limit"]);
    await refused(() => client.application.list({ iterator: "ep_1" }), 422);
    assert.deepEqual((await refused(() => client.message.create(app, { eventType: "a b", payload: {} }), 422)).detail[0].loc, ["body", "eventType"]);
    assert.deepEqual((await refused(() => client.message.create(app, { eventType: "e", payload: [] }), 422)).detail[0].loc, ["body", "payload"]);
    const large = { text: "x".repeat(1 << 20) };
    assert.equal((await refused(() => client.message.create(app, { eventType: "e", payload: large }), 413)).code, "payload_too_large");
    const huge = { text: "x".repeat(2 << 20) };
    assert.equal((await refused(() => client.message.create(app, { eventType: "e", payload: huge }), 413)).code, "payload_too_large");
    await refused(() => client.connector.list(), 404); // of the hosted service alone
  }],

  ["attempted messages", "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/msg", async ({ client }) => {
    const { data } = await client.messageAttempt.listAttemptedMessages(app, endpoint, { tag: "t/2", withContent: true });
    assert.deepEqual(data.map((m) => [m.status, m.statusText, m.payload]), [[0, "success", { n: 3 }]]);
    await walk((o) => client.messageAttempt.listAttemptedMessages(app, endpoint, o), "id", 3);
  }],

  ["attempted destinations", "GET /api/v1/app/{app_id}/msg/{msg_id}/endpoint", async ({ client, receiver }) => {
    const { data } = await client.messageAttempt.listAttemptedDestinations(app, "first");
    assert.deepEqual(data.map((e) => [e.uid, e.url, e.status, e.statusText]), [[endpoint, receiver.at("/main"), 0, "success"]]);
  }],

  ["resend", "POST /api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend", async ({ client, receiver }) => {
    const { id } = await client.message.get(app, "first");
    await client.messageAttempt.resend(app, "first", endpoint);
    await receiver.wait(id, "/main", 2);
    await until(() => client.messageAttempt.listByMsg(app, "first"), ({ data }) => data.length === 2 && data[0].triggerType === 1);
  }],

  ["recover", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/recover", async ({ client }) => {
    const task = await client.endpoint.recover(app, endpoint, { since: new Date(Date.now() - 3600e3) });
    assert.match(task.id, /^qtask_[0-9A-Za-z]{27}$/);
    assert.equal(task.task, "endpoint.recover");
  }],

  ["statistics", "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/stats", async ({ client }) => {
    const stats = await client.endpoint.getStats(app, endpoint);
    assert.ok(stats.success >= 3 && stats.fail >= 1, JSON.stringify(stats));
    await client.endpoint.getStats(app, endpoint, { since: new Date(Date.now() - 3600e3), until: new Date() });
  }],

  ["example", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example", async ({ client, receiver }) => {
    const { id } = await client.endpoint.sendExample(app, endpoint, { eventType: "svix.ping" });
    assert.deepEqual(JSON.parse((await receiver.wait(id, "/main")).body), { success: true });
  }],

  ["erase an answer", "DELETE /api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content", async ({ client }) => {
    const [attempt] = (await client.messageAttempt.listByMsg(app, "first", { withContent: true })).data;
    assert.equal(attempt.response, "taken");
    await client.messageAttempt.expungeContent(app, "first", attempt.id);
    assert.equal((await client.messageAttempt.get(app, "first", attempt.id)).response, "EXPUNGED");
  }],

  ["erase a payload", "DELETE /api/v1/app/{app_id}/msg/{msg_id}/content", async ({ client }) => {
    await client.message.expungeContent(app, "first");
    await client.message.expungeContent(app, "first");
    assert.deepEqual((await client.message.get(app, "first", { withContent: true })).payload, { expired: true });
  }],

  ["replay what was missed", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing", async ({ client, receiver }) => {
    const { id } = await client.message.create(app, { eventType: "late.type", payload: { n: 1 } });
    const late = await client.endpoint.create(app, { url: receiver.at("/late"), uid: "late-hook" });
    const task = await client.endpoint.replayMissing(app, "late-hook", { since: new Date(Date.now() - 3600e3) });
    assert.equal(task.task, "endpoint.replay");
    await receiver.wait(id, "/late");
    assert.equal((await finished(client, task.id)).data.endpointId, late.id);
  }],

  ["replay what a filter selects", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay", async ({ client, refused }) => {
    const since = new Date(Date.now() - 3600e3);
    const task = await client.endpoint.bulkReplay(app, "late-hook", { since, eventTypes: ["late.type"], status: 0, statusCodeClass: 200 });
    assert.equal(task.task, "endpoint.bulk-replay");
    await finished(client, task.id);
    const later = { since: new Date(Date.now() + 3600e3) };
    assert.deepEqual((await refused(() => client.endpoint.bulkReplay(app, "late-hook", later), 422)).detail[0].loc, ["body", "since"]);
  }],

  ["background tasks", "GET /api/v1/background-task", async ({ client, refused }) => {
    const { data } = await client.backgroundTask.list({ task: "endpoint.bulk-replay" });
    assert.deepEqual(data.map((t) => [t.task, t.status]), [["endpoint.bulk-replay", "finished"]]);
    await refused(() => client.backgroundTask.get("qtask_000000000000000000000000000"), 404);
    await walk((o) => client.backgroundTask.list(o), "id", 3);
  }],

  ["ask before sending", "POST /api/v1/app/{app_id}/msg/precheck/active", async ({ client }) => {
    assert.deepEqual(await client.message.precheck(app, { eventType: "any.type" }), { active: true });
    await client.endpoint.delete(app, "late-hook");
    assert.deepEqual(await client.message.precheck(app, { eventType: "any.type", channels: ["a"] }), { active: false });
  }],

  ["erase some payloads", "POST /api/v1/app/{app_id}/msg/bulk-expunge", async ({ client }) => {
    if (!client.message.bulkExpungeContent) return; // younger than this client
    const { id } = await client.message.create(app, { eventType: "e", payload: { n: 1 } });
    const { results } = await client.message.bulkExpungeContent(app, { ids: [id, "nothing"] });
    assert.deepEqual(results, { [id]: "expunged", nothing: "not-found" });
    assert.deepEqual((await client.message.get(app, id, { withContent: true })).payload, { expired: true });
  }],

  ["erase all payloads", "POST /api/v1/app/{app_id}/msg/expunge-all-contents", async ({ client }) => {
    const task = await client.message.expungeAllContents(app);
    assert.equal(task.task, "application.purge_content");
    await finished(client, task.id);
    const { data } = await client.message.list(app, { withContent: true });
    for (const m of data) assert.deepEqual(m.payload, { expired: true });
  }],

  ["a customer's own access", "POST /api/v1/auth/app-portal-access/{app_id}", async ({ client, svix, refused }) => {
    const access = await client.authentication.appPortalAccess(app, {});
    assert.ok(access.token !== "" && new URL(access.url).hash.startsWith("#key="));
    const customer = new svix.Svix(access.token, { serverUrl: url });
    assert.ok((await customer.endpoint.list(app)).data.length > 0);
    await refused(() => customer.application.list(), 403);
    await refused(() => customer.endpoint.list("customer-2"), 404);
    if (operations.includes("POST /api/v1/auth/logout")) {
      await customer.authentication.logout();
      await until(() => customer.endpoint.list(app).then(() => 200, (e) => e.code), (code) => code === 401);
    }
  }],

  ["end every customer's access", "POST /api/v1/auth/app/{app_id}/expire-all", async ({ client, svix }) => {
    const access = await client.authentication.appPortalAccess(app, {});
    const customer = new svix.Svix(access.token, { serverUrl: url });
    await customer.endpoint.list(app);
    await client.authentication.expireAll(app, {});
    await until(() => customer.endpoint.list(app).then(() => 200, (e) => e.code), (code) => code === 401);
  }],

  ["delete an application", "", async ({ client, refused }) => {
    await client.application.delete(app);
    await refused(() => client.application.get(app), 404);
    await refused(() => client.message.create(app, { eventType: "e", payload: {} }), 404);
  }],
];
