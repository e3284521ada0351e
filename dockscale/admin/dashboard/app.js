// One app in full: its last hour, its instances, its decisions, what it wrote, and what can be done to it.

import { charts } from "./chart.js";
import { Parts, el, link, painter, say, set } from "./dom.js";
import { Heard } from "./heard.js";
import { logs } from "./logs.js";
import { ask, follow, learn } from "./server.js";
import { ago, badge, meter, number } from "./words.js";

const REFRESH_MS = 10_000; // the history has one point for so long

/** Show an app in `main` until `signal` ends it. `tell` is told of the connection and of the engine. */
export function app(main, id, tell, signal) {
  const path = `/api/apps/${encodeURIComponent(id)}`;
  const heard = new Heard();
  let it = null, history = null, problem = "";
  const title = el("h1", { tabindex: "-1" }, id);
  const state = badge(), load = meter(), hour = charts(signal);
  const facts = el("p", { class: "facts" });
  const urls = el("p", { class: "urls" }), about = el("p", { class: "about" });
  const trouble = el("div", { class: "problem", role: "alert", hidden: true });
  const outcome = el("p", { class: "outcome", role: "status" });
  const body = el("div", { class: "columns" });
  const controls = buttons(path, outcome);
  const members = membersOf(controls.act), decisions = decisionsOf(), written = logs(path, signal), settings = settingsOf();
  body.append(
    el("section", { class: "wide" }, el("h2", {}, "The last hour"), LEGEND(), hour.node),
    el("section", { class: "wide" }, el("h2", {}, "Instances"), members.node),
    el("section", {}, el("h2", {}, "Decisions"), decisions.node),
    el("section", {}, el("h2", {}, "Settings"), settings.node),
    el("section", { class: "wide" }, el("h2", {}, "Logs"), written.node));
  const ofOneThatIs = [body, controls.node, load.node, facts];
  for (const part of ofOneThatIs) set(part, "hidden", true); // until it is known that it is
  main.replaceChildren(
    el("p", { class: "back" }, el("a", { href: "#/" }, "← All apps")),
    el("div", { class: "title" }, title, el("span", { role: "status" }, state.node), load.node), urls, about, facts, trouble, controls.node, outcome, body);

  const paint = painter(() => {
    if (signal.aborted) return;
    const there = it && it.state !== "invalid" && !problem;
    for (const part of ofOneThatIs) set(part, "hidden", !there);
    const wrong = problem ? [problem] : it?.problems ?? [it?.failure, it?.rollout_failure, it?.gauge_failure].filter(Boolean);
    set(trouble, "hidden", !wrong.length);
    say(trouble, wrong.join("\n"));
    if (it) state.show(it.state);
    if (!there) return;
    load.show(it.load);
    say(facts, `${it.instances_by_state.ready} of ${it.bounds[1]} instances ready · ${it.load.requests_per_minute} requests a minute · ` +
      `${it.load.in_flight} in flight · ${it.load.waiting} waiting`);
    members.show(it.instances);
    decisions.show(it.decisions);
    written.among(it.instances.map((each) => each.name));
    controls.show(it);
    if (history) hour.show(history, it.instances_by_state.ready, it.load);
  });

  async function refresh() {
    try {
      it = heard.update(await ask(path));
      problem = "";
    } catch (error) {
      if (error.status !== 404) throw error;
      problem = error.message;
    }
    if (signal.aborted || problem || it.state === "invalid") return paint();
    if (it.decision) learn(it.decision);
    urls.replaceChildren(...it.urls.flatMap((url) => [link(url), " "]));
    say(about, [it.name !== id && it.name, it.spec.description, it.template].filter(Boolean).join(" · "));
    settings.show(it.spec);
    await remember();
  }

  async function remember() {
    const [hour, { dockscale }] = await Promise.all([ask(`${path}/history`), ask("/")]);
    history = hour;
    tell.engine(dockscale.engine_up);
    paint();
  }

  const quietly = (work) => work().catch(() => {}); // the stream tells of a lost connection
  const timer = setInterval(() => document.hidden || problem || it?.state === "invalid" || quietly(remember), REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));

  follow(`${path}/events`, (event, told) => {
    if (event === "open") heard.clear();
    if (event === "open" || event === "gone" || event === "removed") quietly(refresh);
    if (event === "open" || event === "gone") tell.link(true);
    if (event === "lost") tell.link(false);
    if (event === "decision") learn(told);
    heard.note(event, told, it);
    paint();
  }, signal);
  title.focus({ preventScroll: true });
}

const LEGEND = () => el("p", { class: "legend" },
  el("span", { class: "key load" }, "requests a minute per instance"), el("span", { class: "key up" }, "goes up above"),
  el("span", { class: "key down" }, "goes down below"), el("span", { class: "key ready" }, "ready instances"));

/** What can be done to an app. `act(verb, what)` does it and says what came of it. */
function buttons(path, outcome) {
  const wish = el("input", { type: "number", min: "0", value: "1", "aria-label": "Instances", required: true });
  let touched = false;
  wish.addEventListener("input", () => (touched = true));

  async function act(verb, said, query = "") {
    set(outcome, "data-kind", "busy");
    say(outcome, `${said} …`);
    try {
      const told = await ask(`${path}/${verb}${query}`, "POST");
      set(outcome, "data-kind", "done");
      say(outcome, `${said}: ${verb === "scale" ? told.decision.explanation : "done."}`);
    } catch (error) {
      set(outcome, "data-kind", "problem");
      say(outcome, `${said}: ${[error.message, ...(error.problems ?? [])].join("\n")}`);
    }
  }
  const button = (verb, title, said) => el("button", { type: "button", click: () => act(verb, said) }, title);
  const scale = el("form", { class: "scale", novalidate: true, submit: (event) => {
    event.preventDefault();
    touched = false;
    act("scale", `Scaling to ${wish.value}`, `?instances=${encodeURIComponent(wish.value)}`);
  } }, el("button", {}, "Scale to"), wish);
  const wake = button("wake", "Wake", "Waking");
  return {
    act,
    node: el("div", { class: "buttons", role: "group", "aria-label": "What can be done" },
      wake, button("sleep", "Sleep", "Putting to sleep"), button("restart", "Restart", "Restarting"), scale),
    show(it) {
      set(wake, "class", it.instances_by_state.ready ? null : "main");
      set(wish, "max", it.bounds[1]);
      if (!touched && document.activeElement !== wish) wish.value = String(it.instances_by_state.ready + it.instances_by_state.starting);
    },
  };
}

function membersOf(act) {
  const body = el("tbody");
  const empty = el("p", { class: "empty" }, "None runs. The next request, or Wake, starts one.");
  const head = [["Name", ""], ["State", ""], ["In flight", "number"], ["Requests a minute", "number"], ["Age", "number"], ["", ""]];
  const table = el("table", { class: "members" }, el("thead", {}, el("tr", {}, ...head.map(([name, kind]) => el("th", { scope: "col", class: kind }, name)))), body);
  const rows = new Parts(body, ({ name }) => {
    const state = badge(), age = ago("");
    const flight = el("td", { class: "number", "data-what": "in flight" });
    const rate = el("td", { class: "number", "data-what": "a minute" });
    const why = el("span", { class: "why" });
    const drain = el("button", { type: "button", "aria-label": `Drain ${name}`,
      click: () => act("drain", `Draining ${name}`, `?instance=${encodeURIComponent(name)}`) }, "Drain");
    return {
      node: el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, state.node, " ", why), flight, rate,
        el("td", { class: "number", "data-what": "for" }, age.node), el("td", { class: "act" }, drain)),
      show(each) {
        state.show(each.state);
        say(why, each.why);
        say(flight, String(each.in_flight));
        say(rate, number(each.requests_per_minute));
        age.show(each.started_at);
        set(drain, "disabled", each.state === "draining");
      },
    };
  });
  return {
    node: el("div", {}, table, empty),
    show(instances) {
      set(empty, "hidden", instances.length > 0);
      set(table, "hidden", !instances.length);
      rows.show(instances, (each) => each.name);
    },
  };
}

function decisionsOf() {
  const node = el("ol", { class: "decisions", tabindex: "0", "aria-label": "Decisions, the newest first" });
  const parts = new Parts(node, (decision) => {
    const when = ago();
    const changes = decision.instances !== decision.before;
    when.show(decision.at);
    return {
      node: el("li", { "data-changes": changes },
        el("span", { class: "step" }, changes ? `${decision.before} → ${decision.instances}` : `${decision.instances}`),
        el("span", { class: "reason" }, decision.reason), when.node, el("p", {}, decision.explanation)),
      show() {},
    };
  });
  return { node, show: (decisions) => parts.show(decisions, (decision) => decision.at) };
}

function settingsOf() {
  const node = el("dl", { class: "settings", tabindex: "0", "aria-label": "Settings" });
  return {
    node,
    show(spec) {
      node.replaceChildren(...flat(spec).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    },
  };
}

function flat(value, name = "") {
  if (value === null || value === "") return [];
  if (typeof value !== "object" || Array.isArray(value)) return [[name, typeof value === "string" ? value : JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key));
}
