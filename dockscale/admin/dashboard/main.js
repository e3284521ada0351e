// Which page is shown, and how the connection is.

import { app } from "./app.js";
import { say, set } from "./dom.js";
import { loginBy } from "./server.js";
import { overview } from "./overview.js";
import { tick } from "./words.js";

const main = document.getElementById("main");
const state = document.getElementById("link");
const engine = document.getElementById("engine");
let page = new AbortController();

const tell = {
  link(up) {
    set(state, "data-up", String(up));
    say(state, up ? "● Live" : "○ No answer from dockscale, trying again …");
    set(document.body, "data-stale", !up);
  },
  engine(up) {
    set(engine, "hidden", up);
    say(engine, up ? "" : "▲ The engine is away: traffic goes on, scaling waits");
  },
};

function open() {
  page.abort();
  page = new AbortController();
  const [, kind, part = ""] = location.hash.split("/");
  const id = kind === "app" ? decoded(part) : "";
  document.title = id ? `${id} · dockscale` : "dockscale";
  if (id) app(main, id, tell, page.signal);
  else overview(main, tell, page.signal);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // written by hand, and no app's
  }
}

let asking = null;
loginBy((problem) => {
  asking ??= askForToken(problem).finally(() => (asking = null));
  return asking;
});

function askForToken(problem) {
  const dialog = document.getElementById("login");
  const form = dialog.querySelector("form");
  say(dialog.querySelector(".problem"), problem);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", function closed() {
      const token = form.elements.token.value;
      if (!token) return dialog.showModal(); // Escape closes it, but there is nothing behind it
      dialog.removeEventListener("close", closed);
      form.reset();
      resolve(token);
    });
  });
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after # says which page it is
  main.focus();
});
addEventListener("hashchange", () => {
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
  open();
});
setInterval(() => document.hidden || tick(), 1000);
open();
