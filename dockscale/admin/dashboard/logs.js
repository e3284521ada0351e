// What an app's instances wrote last.

import { Parts, el, say, set } from "./dom.js";
import { ask } from "./server.js";

const EVERY_MS = 2000;
const EACH_MS = 500; // between two looks for each instance: each costs dockscale a question to the engine
const TAIL = 200; // lines of each instance

/** The latest lines of all instances or of one, read again and again while somebody can see them. */
export function logs(path, signal) {
  const choice = el("select", { "aria-label": "Whose lines", change: () => read() }, el("option", { value: "" }, "All instances"));
  const follows = el("input", { type: "checkbox", checked: true, change: () => read() });
  const lines = el("div", { class: "lines", role: "log", tabindex: "0", "aria-label": "Lines", hidden: true });
  const empty = el("p", { class: "empty" }, "Nothing was written.");
  const node = el("div", {}, el("div", { class: "above" }, choice, el("label", { class: "check" }, follows, " Follow")), lines, empty);
  const options = new Parts(choice, (name) => ({ node: el("option", { value: name }, name || "All instances"), show() {} }));
  choice.replaceChildren();
  let seen = false, shown = "", members = 0;

  const eye = new IntersectionObserver(([entry]) => {
    seen = entry.isIntersecting;
    if (seen) read();
  });
  eye.observe(node);
  let timer = setTimeout(next, EVERY_MS);
  async function next() {
    if (seen && follows.checked && !document.hidden) await read();
    if (!signal.aborted) timer = setTimeout(next, Math.max(EVERY_MS, EACH_MS * (choice.value ? 1 : members)));
  }
  signal.addEventListener("abort", () => {
    eye.disconnect();
    clearTimeout(timer);
  });

  async function read() {
    const query = new URLSearchParams({ type: "log", tail: TAIL, instance: choice.value });
    const told = await ask(`${path}/logs?${query}`).catch(() => null); // the next look tells
    if (!told || signal.aborted) return;
    const key = JSON.stringify(told.items);
    if (key === shown) return;
    shown = key;
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    const single = new Set(told.items.map((item) => item.instance)).size < 2;
    lines.replaceChildren(...told.items.map((item) => line(item, single)));
    set(empty, "hidden", told.items.length > 0);
    set(lines, "hidden", !told.items.length);
    if (atEnd && follows.checked) lines.scrollTop = lines.scrollHeight;
  }

  return {
    node,
    among(names) {
      members = names.length;
      options.show(["", ...names], (name) => name);
    },
  };
}

function line({ instance, content }, single) {
  return el("div", {}, ...(single ? [] : [el("span", { class: "who" }, instance)]), content);
}
