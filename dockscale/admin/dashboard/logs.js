// What an app's instances write.

import { Parts, el, painter, set } from "./dom.js";
import { follow } from "./server.js";

const TAIL = 200; // lines of each instance that are shown at first
const MOST = 1000; // lines that are kept

/** The lines of all instances or of one, as they are written, while somebody can see them. */
export function logs(path, signal) {
  const choice = el("select", { "aria-label": "Whose lines", change: () => restart() });
  const follows = el("input", { type: "checkbox", checked: true, change: () => restart() });
  const lines = el("div", { class: "lines", role: "log", tabindex: "0", "aria-label": "Lines", hidden: true });
  const empty = el("p", { class: "empty" }, "Nothing was written.");
  const node = el("div", {}, el("div", { class: "above" }, choice, el("label", { class: "check" }, follows, " Follow")), lines, empty);
  const options = new Parts(choice, (name) => ({ node: el("option", { value: name }, name || "All instances"), show() {} }));
  let seen = false, stream = new AbortController(), unread = [];

  const eye = new IntersectionObserver(([entry]) => {
    if (seen === entry.isIntersecting) return;
    seen = entry.isIntersecting;
    restart();
  });
  eye.observe(node);
  signal.addEventListener("abort", () => {
    eye.disconnect();
    stream.abort();
  });

  function restart() {
    stream.abort();
    stream = new AbortController();
    if (!seen || !follows.checked || signal.aborted) return;
    const query = new URLSearchParams({ type: "log", tail: TAIL, instance: choice.value });
    follow(`${path}/logs?${query}`, hear, stream.signal);
  }

  function hear(event, told) {
    if (event === "open") {
      unread = [];
      lines.replaceChildren();
    }
    if (event === "line") unread.push(told);
    paint();
  }

  const paint = painter(() => {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    lines.append(...unread.slice(-MOST).map(line));
    unread = [];
    while (lines.childElementCount > MOST) lines.firstChild.remove();
    set(empty, "hidden", lines.childElementCount > 0);
    set(lines, "hidden", !lines.childElementCount);
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  });

  return {
    node,
    among(names) {
      options.show(["", ...names], (name) => name);
      set(lines, "data-one", names.length < 2);
    },
  };
}

const line = ({ instance, content }) => el("div", {}, el("span", { class: "who" }, instance), content);
