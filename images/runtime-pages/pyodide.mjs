// CPython in the place of Pyodide: a child process that is told what to run, one line of JSON each.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

import { fail, nowReady } from "./ending.mjs";

const PROGRAM = ["-Iu", "/runtime/python/host.py"];
const CHANNEL = 3;

class PythonError extends Error {
  name = "PythonError";
}

class Python {
  #asked = new Map();
  #known = {};
  #last = 0;
  #process = spawn("python3", PROGRAM, { stdio: ["ignore", "inherit", "inherit", "pipe"] });
  #channel = this.#process.stdio[CHANNEL];

  globals = { get: (name) => this.#known[name] };

  constructor() {
    createInterface({ input: this.#channel }).on("line", (line) => this.#hear(JSON.parse(line)));
    this.#channel.on("error", () => {}); // that it has ended is told below
    this.#process.on("exit", (code, signal) => fail(`Python ended by itself (${signal ?? `exit code ${code}`})`, true));
  }

  loadPackage(names) {
    return this.#ask({ install: [names].flat() });
  }

  runPython(code) {
    return this.#ask({ code });
  }

  runPythonAsync(code) {
    return this.#ask({ code });
  }

  #ask(what) {
    const id = (this.#last += 1);
    this.#channel.write(`${JSON.stringify({ id, ...what })}\n`);
    return new Promise((...settle) => this.#asked.set(id, settle));
  }

  #hear({ id, value, error, globals, ready, uncaught }) {
    if (ready) return nowReady();
    if (uncaught) return fail(uncaught);
    const [resolve, reject] = this.#asked.get(id);
    this.#asked.delete(id);
    this.#known = globals;
    if (error) reject(new PythonError(error));
    else resolve(value);
  }
}

let python;

export async function loadPyodide() {
  return (python ??= new Python());
}
