// What programs import: files of theirs, packages of the image, and modules from the web.

import { createRequire } from "node:module";
import { SourceTextModule, SyntheticModule } from "node:vm";

const HERE = "file:///app/";
const require = createRequire(HERE);

// Modules of the image that are known by addresses elsewhere.
export const known = [[/\/hypha-rpc-websocket(\.min)?\.mjs$/, "hypha-rpc"]];
const fetched = new Map();

const address = (specifier, importer) => {
  const [, own] = known.find(([pattern]) => pattern.test(specifier)) ?? [, specifier];
  if (/^[a-z]+:/.test(own)) return own;
  if (/^\.{0,2}\//.test(own)) return new URL(own, /^https?:/.test(importer) ? importer : HERE).href;
  return resolved(own);
};

function resolved(name) {
  try {
    const found = require.resolve(name);
    return found.startsWith("/") ? `file://${found}` : found;
  } catch (error) {
    throw new Error(`there is no module '${name}': give its whole address`, { cause: error.code });
  }
}

async function fromWeb(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} cannot be imported: ${answer.status} ${answer.statusText}`);
  return new SourceTextModule(await answer.text(), { identifier: url, importModuleDynamically: load });
}

// The module that another one imports; one from the web is fetched once.
async function linked(specifier, { identifier }) {
  const url = address(specifier, identifier);
  if (/^https?:/.test(url)) {
    if (!fetched.has(url)) fetched.set(url, fromWeb(url));
    return fetched.get(url);
  }
  const members = await import(url);
  return new SyntheticModule(Object.keys(members), function () {
    for (const name in members) this.setExport(name, members[name]);
  });
}

// Link and run a module of a program's own or from the web.
export async function run(module) {
  if (module.status === "unlinked") await module.link(linked);
  await module.evaluate();
  return module;
}

// import() in programs.
export async function load(specifier, importer) {
  const url = address(specifier, importer.identifier);
  return /^https?:/.test(url) ? run(await linked(url, importer)) : import(url);
}
