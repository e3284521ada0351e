// The npm client of RPC as a program, for tests. It prints one JSON line for each step: {step, value} or {step, error}.
//
//   node client.mjs CONFIG visit SERVICE STEP…    call the service; its functions are those of images/rpc/worker.py
//   node client.mjs CONFIG serve                  register the service 'js', then stay until standard input ends
//
// CONFIG is what connectToServer gets, as JSON: server_url, workspace, token, client_id.

import { hyphaWebsocketClient } from "hypha-rpc";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // node has had one of its own only since version 22

const tell = (line) =>
  console.info(
    JSON.stringify(line, (_, value) => (value instanceof Uint8Array ? { bytes: value.length } : value)),
  );

const listed = async (generator) => {
  const items = [];
  for await (const item of generator) items.push(item);
  return items;
};

// What can be done with images/rpc/worker.py's service.
const STEPS = {
  who: (service) => service.who(),
  echo: (service) => service.echo({ text: "ü", number: 1.5, nothing: null, list: [1, true, "x"], data: new Uint8Array(3) }),
  add: (service) => service.add(2, 3),
  slow: (service) => service.slow("late", 0.1),
  call: (service) => service.call((number) => number * 10, 3),
  call_later: (service) => service.call(async (number) => number * 10, 3),
  fail: (service) => service.fail("as asked"),
  count: async (service) => listed(await service.count(4)),
  acount: async (service) => listed(await service.acount(4, 0.01)),
  size: (service) => service.size(new Uint8Array(1_000_000)),
  big: (service) => service.big(1_000_000),
  counter: async (service) => {
    const counter = await service.make_counter();
    return [await counter.inc(), await counter.inc(4), await counter.get()];
  },
};

// What others can do with this program.
const SERVICE = {
  id: "js",
  config: { visibility: "public" },
  who: () => ({ runtime: "node" }),
  echo: (value) => value,
  add: (a, b) => a + b,
  fail: (text) => {
    throw new Error(text);
  },
  call: async (callback, n) => {
    const results = [];
    for (let number = 0; number < n; number++) results.push(await callback(number));
    return results;
  },
  count: async function* (n) {
    for (let number = 0; number < n; number++) yield number;
  },
  big: (n) => new Uint8Array(n),
  size: (data) => data.length,
};

// Does one step and tells it. A failed one is undefined.
const step = async (name, act, shown = (value) => value ?? null) => {
  try {
    const value = await act();
    tell({ step: name, value: shown(value) });
    return value;
  } catch (error) {
    tell({ step: name, error: String(error?.message ?? error) });
  }
};
const needed = (value) => value ?? process.exit(1);

const [config, verb, wanted, ...steps] = process.argv.slice(2);
const server = needed(
  await step(
    "connect",
    () => hyphaWebsocketClient.connectToServer({ logger: null, ...JSON.parse(config) }),
    ({ config: { workspace, client_id } }) => ({ workspace, client_id }),
  ),
);
if (verb === "visit") {
  const shown = (service) => ({ id: service.id, names: Object.keys(service) });
  const service = needed(await step("get_service", () => server.getService(wanted), shown));
  for (const name of steps) await step(name, () => STEPS[name](service));
} else {
  needed(await step("register", () => server.registerService(SERVICE), ({ id }) => ({ id })));
  for await (const _ of process.stdin);
}
await server.disconnect();
process.exit(); // its timers would keep node alive
