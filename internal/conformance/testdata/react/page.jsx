// What a customer's own page might be: the official hooks list, add, change and remove endpoints. What a
// hook gives, errors included, is shown, so that a test can read it.
import { createRoot } from "react-dom/client";
import { useState } from "react";
import {
  SvixProvider, useEndpoint, useEndpointFunctions, useEndpointHeaders, useEndpointMessageAttempts, useEndpointSecret,
  useEndpointStats, useEndpoints, useEventTypes, useMessages, useNewEndpoint,
} from "svix-react";

const text = (v) => JSON.stringify(v, (_, value) => value instanceof Error ? { name: value.constructor.name, message: value.message, code: value.code, body: value.body } : value);

function Show({ id, of }) {
  if (of.loading) return null;
  return <pre id={id}>{text({ data: of.data, error: of.error })}</pre>;
}

function New({ reload }) {
  const form = useNewEndpoint();
  const [outcome, setOutcome] = useState();
  const create = async () => {
    const { endpoint, error } = await form.createEndpoint();
    setOutcome({ id: endpoint?.id, error });
    reload();
  };
  return (
    <section>
      <input id="new-url" value={form.url.value} onChange={(e) => form.url.setValue(e.target.value)} />
      <input id="new-description" value={form.description.value} onChange={(e) => form.description.setValue(e.target.value)} />
      <button id="create" onClick={create}>Create</button>
      <button id="types" onClick={() => { form.eventTypes.setValue(["invoice.paid"]); form.rateLimitPerSecond.setValue(7); }}>Only invoices</button>
      <pre id="created">{text(outcome)}</pre>
    </section>
  );
}

function Endpoint({ endpoint, reload }) {
  const functions = useEndpointFunctions(endpoint.id);
  const [failed, setFailed] = useState();
  const act = (what) => async () => { try { await what(); reload(); } catch (error) { setFailed(error); } };
  const renamed = () => functions.updateEndpoint({ ...endpoint, description: "changed", disabled: true });
  return (
    <li data-id={endpoint.id} data-description={endpoint.description} data-disabled={String(endpoint.disabled)}
      data-types={text(endpoint.filterTypes)} data-rate={endpoint.rateLimit}>
      {endpoint.url}
      <button className="update" onClick={act(renamed)}>Change</button>
      <button className="spoil" onClick={act(() => functions.updateEndpoint({ url: "nowhere", version: 1 }))}>Spoil</button>
      <button className="delete" onClick={act(functions.deleteEndpoint)}>Delete</button>
      {failed && <pre className="failed">{text(failed)}</pre>}
    </li>
  );
}

function List() {
  const endpoints = useEndpoints({ limit: 2 });
  return (
    <main data-loading={String(endpoints.loading)}>
      <New reload={endpoints.reload} />
      <button id="previous" disabled={!endpoints.hasPrevPage} onClick={endpoints.prevPage}>Previous</button>
      <button id="next" disabled={!endpoints.hasNextPage} onClick={endpoints.nextPage}>Next</button>
      <ul>{endpoints.data?.map((e) => <Endpoint key={e.id} endpoint={e} reload={endpoints.reload} />)}</ul>
      <pre id="list-error">{text(endpoints.error)}</pre>
    </main>
  );
}

function Details({ id }) {
  const headers = useEndpointHeaders(id);
  return (
    <main>
      <Show id="endpoint" of={useEndpoint(id)} />
      <Show id="secret" of={useEndpointSecret(id)} />
      <Show id="stats" of={useEndpointStats(id)} />
      <Show id="attempts" of={useEndpointMessageAttempts(id)} />
      <Show id="messages" of={useMessages()} />
      <Show id="event-types" of={useEventTypes()} />
      <Show id="headers" of={headers} />
      <button id="set-headers" onClick={() => headers.updateEndpointHeaders({ headers: { "x-shop": "1" } })}>Set headers</button>
      <button id="patch-headers" onClick={() => headers.patchEndpointHeaders({ headers: { "x-shop": "2" } })}>Change headers</button>
    </main>
  );
}

const { serverUrl, token, application } = await (await fetch("/setting.json")).json();
const options = { serverUrl };
const endpoint = new URLSearchParams(location.search).get("endpoint");
createRoot(document.getElementById("root")).render(
  <SvixProvider token={token} appId={application} options={options}>
    {endpoint ? <Details id={endpoint} /> : <List />}
  </SvixProvider>,
);
