// How states, times and numbers are told.

import { el, say, set } from "./dom.js";
import { now } from "./server.js";

const SIGNS = {
  ready: "●", starting: "◐", asleep: "○", failing: "▲", invalid: "✕", draining: "◔", standby: "❚❚",
};

/** A state as a sign and a word: its colour says nothing that these do not. */
export function badge() {
  const sign = el("span", { "aria-hidden": "true" });
  const word = el("span");
  const node = el("span", { class: "badge" }, sign, word);
  return {
    node,
    show(state) {
      set(node, "data-state", state);
      say(sign, SIGNS[state] ?? "•");
      say(word, state);
    },
  };
}

/** A time as how long ago it was; `tick` keeps it so. */
export function ago(suffix = " ago") {
  const node = el("time", { "data-suffix": suffix });
  return {
    node,
    show(at) {
      set(node, "datetime", at);
      set(node, "title", at && new Date(at).toLocaleString());
      retell(node);
    },
  };
}

/** Bring all times up to date. */
export function tick() {
  for (const node of document.querySelectorAll("time[data-suffix]")) retell(node);
}

function retell(node) {
  const at = node.getAttribute("datetime");
  say(node, at ? duration((now() - Date.parse(at)) / 1000) + node.dataset.suffix : "");
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

export function number(value) {
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

/** Load against its two thresholds, as a bar with two marks and in numbers. */
export function meter() {
  const fill = el("span", { class: "fill" });
  const marks = ["down", "up"].map((way) => el("span", { class: `mark ${way}` }));
  const bar = el("span", { class: "bar", role: "meter", "aria-valuemin": "0", "aria-label": "load" }, fill, ...marks);
  const text = el("span", { class: "figure" });
  return {
    node: el("span", { class: "meter" }, bar, text),
    show(load) {
      const { per_instance: is, scale_up_above: up, scale_down_below: down } = load;
      const most = up * 1.3;
      const side = is > up ? "above" : is < down ? "below" : "between";
      const share = (value) => `${Math.min(100, (100 * value) / most)}%`;
      fill.style.width = share(is);
      marks[0].style.left = share(down);
      marks[1].style.left = share(up);
      set(bar, "data-side", side);
      set(bar, "aria-valuemax", Math.max(most, is));
      set(bar, "aria-valuenow", is);
      const bounds = { above: number(up), below: number(down), between: `${number(down)} and ${number(up)}` };
      const told = `${number(is)} a minute per instance, ${side} ${bounds[side]}`;
      set(bar, "aria-valuetext", told);
      set(bar, "title", told);
      say(text, `${number(is)}${side === "above" ? " ▲" : ""} / ${number(load.target)}`);
    },
  };
}
