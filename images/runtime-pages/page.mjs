// Runs a page: its scripts, as a browser would run them.

import { fail, isReady } from "./ending.mjs";
import "./pyodide.mjs";

if (process.argv[2] === "--compile") process.exit(0); // the modules that take long are in node's cache

const { eventful, execute, importScripts } = await import("./browser.mjs");
const { app, source } = await import("./program.mjs");

const SCRIPTS = /<!--[\s\S]*?-->|<script\b([^>]*)>([\s\S]*?)<\/script\s*>/gi;
const RUNS = ["", "text/javascript", "application/javascript", "module"];

const attribute = (text, name) => {
  const found = text.match(new RegExp(`(?:^|\\s)${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)'|([^\\s>]+))`, "i"));
  return found ? (found[1] ?? found[2] ?? found[3]) : "";
};

// An element: it can be looked at and changed, and nobody sees it.
class Element {
  constructor(tagName = "", text = "") {
    eventful(this);
    Object.assign(this, { tagName, textContent: text, innerHTML: text, innerText: text, text, style: {}, dataset: {}, children: [] });
    this.classList = { add() {}, remove() {}, toggle() {} };
  }
  append(...children) {
    this.children.push(...children);
  }
  appendChild(child) {
    this.children.push(child);
    return child;
  }
  setAttribute(name, value) {
    this[name] = value;
  }
  getAttribute(name) {
    return this[name] ?? null;
  }
  remove() {}
}

const scripts = [...source.matchAll(SCRIPTS)]
  .filter(([, attributes]) => attributes !== undefined)
  .map(([, attributes, text]) =>
    Object.assign(new Element("SCRIPT", text), {
      id: attribute(attributes, "id"),
      src: attribute(attributes, "src"),
      type: attribute(attributes, "type").toLowerCase(),
    }),
  );
const elements = new Map(scripts.map((script) => [`#${script.id}`, script]));

function querySelector(selector) {
  const name = String(selector).replace(/^script(?=#)/i, "");
  if (!elements.has(name)) elements.set(name, /^script$/i.test(name) ? scripts[0] : new Element(name));
  return elements.get(name);
}

const document = {
  querySelector,
  querySelectorAll: (selector) => (/^script$/i.test(selector) ? scripts : [querySelector(selector)]),
  getElementById: (id) => querySelector(`#${id}`),
  createElement: (name) => new Element(name.toUpperCase()),
  readyState: "complete",
  body: querySelector("body"),
  head: querySelector("head"),
  scripts,
  location,
};

const tell = eventful(globalThis);
eventful(document);
Object.assign(globalThis, { window: globalThis, document });

process.on("beforeExit", () => {
  if (isReady()) setInterval(() => {}, 2 ** 30);
  else fail(`${app.entry} ended without registering a service`);
});

// Modules wait until the page is read, so they come last.
const running = scripts.filter(({ type }) => RUNS.includes(type));
const isModule = ({ type }) => type === "module";
for (const script of [...running.filter((each) => !isModule(each)), ...running.filter(isModule)]) {
  try {
    if (script.src && isModule(script)) await execute(`import ${JSON.stringify(script.src)}`, "module", app.entry);
    else if (script.src) importScripts(script.src);
    else await execute(script.text, script.type, app.entry);
  } catch (error) {
    fail(error);
  }
}
document.dispatchEvent(new Event("DOMContentLoaded"));
tell("load", {});
