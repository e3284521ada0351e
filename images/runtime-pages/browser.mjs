// What pages and their workers have of a browser, besides what node has: events, scripts by their addresses, workers.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { SourceTextModule, Script } from "node:vm";
import { Worker as Thread, MessageChannel } from "node:worker_threads";

import { hyphaWebsocketClient } from "hypha-rpc";
import { fail, ready } from "./ending.mjs";
import { known, load, run } from "./modules.mjs";
import { app, env, source } from "./program.mjs";
import { loadPyodide } from "./pyodide.mjs";

const WEB = /^(https?|blob|data):/;

known.push([/\/pyodide\.mjs$/, "/runtime/pyodide.mjs"]);

// Text of a script, where it is in the page: errors tell the page's lines.
export function placed(text, otherwise) {
  const at = source.indexOf(text);
  if (at < 0) return { filename: otherwise, lineOffset: 0 };
  return { filename: app.entry, lineOffset: source.slice(0, at).split("\n").length - 1 };
}

export async function execute(text, type, otherwise) {
  const { filename, lineOffset } = placed(text, otherwise);
  const importModuleDynamically = load;
  if (type !== "module") new Script(text, { filename, lineOffset, importModuleDynamically }).runInThisContext();
  else await run(parsed(text, { identifier: filename, lineOffset, importModuleDynamically }));
}

// A module. Where it cannot be parsed, node says so without a line, which it does say of a function with the same text.
function parsed(text, options) {
  try {
    return new SourceTextModule(text, options);
  } catch (error) {
    const head = "async () => {";
    try {
      new Script(`${head}${text}\n}`, { ...options, filename: options.identifier, columnOffset: -head.length });
    } catch (placed) {
      if (placed.message === error.message) throw placed;
    }
    throw error;
  }
}

// Run classic scripts by their addresses, one after the other, before this returns.
export function importScripts(...addresses) {
  for (const address of addresses) {
    if (/\/pyodide\.js$/.test(address)) continue; // loadPyodide is there
    if (/\/hypha-rpc-websocket(\.min)?\.js$/.test(address)) globalThis.hyphaWebsocketClient = hyphaWebsocketClient;
    else new Script(textNow(address), { filename: address, importModuleDynamically: load }).runInThisContext();
  }
}

const FETCH = `const answer = await fetch(process.argv[1]);
if (!answer.ok) throw new Error(answer.status);
process.stdout.write(await answer.text());`;

function textNow(address) {
  try {
    if (!WEB.test(address)) return readFileSync(own(address), "utf8");
    const node = ["--input-type=module", "-e", FETCH, address];
    return execFileSync(process.execPath, node, { encoding: "utf8", maxBuffer: 2 ** 26, stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Error(`the script ${address} cannot be loaded`, { cause: error.code });
  }
}

async function textOf(address) {
  if (!WEB.test(address)) return readFileSync(own(address), "utf8");
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the script ${address} cannot be loaded: ${answer.status} ${answer.statusText}`);
  return answer.text();
}

// Files of the app stand where the page is.
const own = (address) => new URL(String(address).replace(/^\/+/, ""), "file:///app/");

// Give an object the functions of an event target; returned is what tells it an event, also by its `on…`.
export function eventful(object) {
  const target = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) object[name] = target[name].bind(target);
  return (type, told) => {
    const event = Object.assign(new Event(type), told, { [inspect.custom]: () => told.message ?? told });
    target.dispatchEvent(event);
    return object[`on${type}`]?.call(object, event);
  };
}

class Worker {
  #thread;

  constructor(address, { type = "classic" } = {}) {
    const tell = eventful(this);
    const { port1, port2 } = new MessageChannel();
    this.onmessage = this.onerror = null;
    this.#thread = new Thread(new URL("worker.mjs", import.meta.url), {
      workerData: { control: port2, ready, type },
      transferList: [port2],
    });
    this.#thread.on("message", (data) => tell("message", { data }));
    this.#thread.on("error", (error) => fail(error));
    port1.on("message", ({ told, ends }) => {
      if (ends || !this.onerror) fail(told, ends);
      else tell("error", { message: told });
    });
    textOf(address).then((text) => port1.postMessage(text), fail);
  }

  postMessage(...given) {
    this.#thread.postMessage(...given);
  }

  terminate() {
    this.#thread.terminate();
  }
}

// What the address of a page says to it.
const NAMES = ["server_url", "workspace", "client_id", "app_id", "token"];
const given = NAMES.map((name) => [name, process.env[`HYPHA_${name.toUpperCase()}`]]).filter(([, value]) => value);
const location = new URL(`${process.env.HYPHA_SERVER_URL}/`);
location.search = new URLSearchParams(given);

Object.assign(globalThis, { self: globalThis, env, location, Worker, importScripts, loadPyodide });
