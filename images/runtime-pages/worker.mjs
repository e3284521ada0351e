// A worker of a page: a thread of its own that runs one script, and then hears messages.

import { once } from "node:events";
import { parentPort, workerData } from "node:worker_threads";

import { eventful, execute } from "./browser.mjs";
import { fail } from "./ending.mjs";

const { control, type } = workerData;
const tell = eventful(globalThis);

Object.assign(globalThis, {
  onmessage: null,
  postMessage: (...given) => parentPort.postMessage(...given),
  close: () => process.exit(0),
});

const [text] = await once(control, "message");
try {
  await execute(text, type, "worker");
} catch (error) {
  fail(error);
}
parentPort.on("message", (data) => tell("message", { data }));
