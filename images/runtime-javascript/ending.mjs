// How an instance ends: at once when it is told to, and before it is ready with its program's error as last words.

import { readFileSync } from "node:fs";
import { isMainThread, workerData } from "node:worker_threads";

import { RPC } from "hypha-rpc";

// First of all: a process with number 1 ignores SIGTERM unless it says otherwise.
process.on("SIGTERM", () => process.exit(0));
process.on("uncaughtException", (error) => fail(error));
process.on("unhandledRejection", (error) => fail(error));

const FOLDER = "/app/";
const FRAMES = 4;

// One for all threads of the process: whether a service is registered.
export const ready = workerData?.ready ?? new Int32Array(new SharedArrayBuffer(4));
export const isReady = () => ready[0] === 1;
export const nowReady = () => void (ready[0] = 1);

// Until the instance is ready, an error that nobody has caught ends it; later it is only told.
export function fail(error, ends = !isReady()) {
  const told = describe(error);
  if (!isMainThread) workerData.control.postMessage({ told, ends });
  else {
    console.error(told);
    if (ends) process.exit(1);
  }
}

// An error with the place in the program, and without what is not the program's own.
export function describe(error) {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "PythonError") return error.message;
  const stack = String(error.stack).replaceAll(`file://${FOLDER}`, "").replaceAll(FOLDER, "");
  const own = stack.split("\n").filter((line) => /^ +at /.test(line) && !/node:|\/runtime\/|node_modules|\(<anonymous>\)/.test(line));
  const [, file, number] = stack.match(/^(\S+):(\d+)\n/) ?? own[0]?.match(/([^\s(]+):(\d+):\d+\)?$/) ?? [];
  const place = file ? pointed(file, Number(number)) : {};
  const cause = error.cause instanceof Error ? ` (${error.cause.message || error.cause.code})` : "";
  const frames = own.length > 1 ? own.slice(0, FRAMES) : [];
  return [`${place.at ?? ""}${error.name}: ${error.message}${cause}`, ...(place.text ? [`    ${place.text}`] : []), ...frames].join("\n");
}

function pointed(file, number) {
  try {
    const lines = readFileSync(FOLDER + file, "utf8").trimEnd().split("\n");
    const line = Math.min(number, lines.length); // what is missing at the end is missed after it
    return { at: `${file}:${line}: `, text: lines[line - 1].trim() };
  } catch {
    return { at: `${file}:${number}: ` };
  }
}

// A service that is registered makes an instance ready. The server asks for 'setup' meanwhile, and tells of its error as text.
let registering = 0;
export const isRegistering = () => registering > 0;

const register = RPC.prototype.register_service;
RPC.prototype.register_service = async function (service, ...rest) {
  let failed;
  if (typeof service?.setup === "function") {
    const setup = service.setup.bind(service);
    let called; // once: a client that comes back after its connection broke registers again, and is asked again
    service.setup = (...given) =>
      (called ??= (async () => {
        try {
          return await setup(...given);
        } catch (error) {
          failed = error;
          throw error;
        }
      })());
  }
  registering += 1;
  try {
    const registered = await register.call(this, service, ...rest);
    nowReady();
    return registered;
  } catch (error) {
    throw failed ?? error;
  } finally {
    registering -= 1;
  }
};
