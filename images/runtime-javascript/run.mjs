// Runs a program in JavaScript: the body of an async function that has a connected `api`.

import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";
import { promisify } from "node:util";
import { Script } from "node:vm";

import { describe, fail, isReady, isRegistering } from "./ending.mjs";
import { load } from "./modules.mjs";
import { connectToServer } from "hypha-rpc";

if (process.argv[2] === "--compile") process.exit(0); // all modules are loaded, and so in node's cache

const { app, env, source } = await import("./program.mjs");

const HEAD = "(async (api, env) => {";
const CHECK_MS = 200;

// What the client has to tell: errors in the program's functions, with their places in it. Others are told by `fail`.
const logger = {
  debug() {},
  info() {},
  log() {},
  warn: (...told) => /^Unhandled/.test(told[0]) || console.warn(...told),
  error: (...told) => isReady() && console.error(...told.map(describe)),
};

const program = compiled();
const api = await quietly(connected);
if (app.type === "functions") api.export = exportFunctions;
globalThis.self = globalThis;
globalThis.api = api;
globalThis.env = env;

const before = pendingCalls();
let over = false;
program(api, env).then(() => (over = true), fail);
process.on("beforeExit", nothingLeft);

function compiled() {
  try {
    return new Script(`${HEAD}${source}\n})`, {
      filename: app.entry,
      columnOffset: -HEAD.length,
      importModuleDynamically: load,
    }).runInThisContext();
  } catch (error) {
    fail(error);
  }
}

async function connected() {
  try {
    return await connectToServer({ name: app.name, logger });
  } catch (error) {
    fail(`no connection to dockscale at ${env.HYPHA_SERVER_URL}: ${error.message}`);
  }
}

// Connect so that the connection alone does not keep node from noticing that a program has nothing left to do.
async function quietly(connect) {
  const own = new AsyncLocalStorage();
  const sockets = [];
  let connecting = true;
  const ours = () => own.getStore() === true;
  // When it has connected, the client rests for 100 ms that whoever waits for the instance would wait, too.
  const soon = (ms) => (connecting && ms === 100 ? 1 : ms);
  subscribe("net.client.socket", ({ socket }) => ours() && sockets.push(socket));
  for (const name of ["setTimeout", "setInterval"]) {
    const start = globalThis[name];
    globalThis[name] = (does, ms, ...given) => (ours() ? start(does, soon(ms), ...given).unref() : start(does, ms, ...given));
    globalThis[name][promisify.custom] = start[promisify.custom];
  }
  const api = await own.run(true, connect);
  connecting = false;
  for (const socket of sockets) socket.unref();
  return api;
}

// Node has nothing to do any more but to listen to the connection.
function nothingLeft() {
  if (isReady()) setInterval(() => {}, 2 ** 30);
  else if (isRegistering() || pendingCalls() > before) setTimeout(() => {}, CHECK_MS);
  else if (over) fail(`${app.entry} ended without exporting anything: call api.export({...})`);
  else fail(`${app.entry} waits for what can never come, and has exported nothing: call api.export({...})`);
}

// Calls that are not answered yet: the client keeps a session for each.
function pendingCalls() {
  return Object.keys(api.rpc._object_store).length;
}

function exportFunctions(functions) {
  const config = { visibility: "public", ...functions.config };
  return api.registerService(Object.assign(functions, { id: "default", type: "functions", config }), { overwrite: true });
}
