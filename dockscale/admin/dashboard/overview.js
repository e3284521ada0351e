// All apps at a glance.

import { Parts, el, link, painter, say, set } from "./dom.js";
import { Heard } from "./heard.js";
import { ask, follow, learn } from "./server.js";
import { ago, badge, meter } from "./words.js";

const REFRESH_MS = 15_000; // refused apps and changed labels are no events

/** Show all apps in `main` until `signal` ends it. `tell` is told of the connection and of the engine. */
export function overview(main, tell, signal) {
  const apps = new Map(), heard = new Heard();
  let wanted = "";
  const totals = el("p", { class: "totals" });
  const filter = el("input", { type: "search", placeholder: "Find an app", "aria-label": "Find an app", input: () => {
    wanted = filter.value.trim().toLowerCase();
    paint();
  } });
  const body = el("tbody");
  const table = el("table", { class: "apps" },
    el("caption", { class: "unseen" }, "Apps"),
    el("thead", {}, el("tr", {}, ...COLUMNS.map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))), body);
  const refusals = el("ul", { class: "refused" });
  const refused = el("section", { hidden: true }, el("h2", {}, "Refused"), refusals);
  const empty = el("p", { class: "empty", hidden: true });
  main.replaceChildren(
    el("h1", { class: "unseen" }, "Apps"), el("div", { class: "above" }, totals, filter), table, empty, refused);

  const rows = new Parts(body, row);
  const reasons = new Parts(refusals, refusal);

  const paint = painter(() => {
    if (signal.aborted) return;
    const all = [...apps.values()];
    const found = all.filter((app) => `${app.app_id} ${app.name ?? ""}`.toLowerCase().includes(wanted));
    const valid = found.filter((app) => app.state !== "invalid");
    rows.show(valid, (app) => app.app_id);
    reasons.show(found.filter((app) => app.state === "invalid"), (app) => `${app.app_id} ${app.template}`);
    set(table, "hidden", !valid.length);
    set(refused, "hidden", !refusals.childElementCount);
    set(empty, "hidden", found.length > 0);
    say(empty, all.length ? "No app is called so." : "There is no app yet. Label a container or an image with dockscale.enable=true.");
    say(totals, summary(all.filter((app) => app.state !== "invalid")));
  });

  async function refresh() {
    const [list, { dockscale }] = await Promise.all([ask("/api/apps"), ask("/")]);
    if (signal.aborted) return;
    apps.clear();
    for (const app of list) {
      apps.set(app.state === "invalid" ? `invalid ${app.template}` : app.app_id, heard.update(app));
      if (app.decision) learn(app.decision);
    }
    tell.engine(dockscale.engine_up);
    paint();
  }

  const again = () => refresh().catch(() => {}); // the stream tells of a lost connection
  const timer = setInterval(() => document.hidden || again(), REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));

  follow("/api/events", (event, told) => {
    if (event === "open") heard.clear();
    const isNew = event === "state" && apps.size && !apps.has(told.app_id);
    if (event === "open" || event === "removed" || isNew) again();
    if (event === "open") tell.link(true);
    if (event === "lost" || event === "gone") tell.link(false);
    if (event === "decision") learn(told);
    heard.note(event, told, apps.get(told?.app_id));
    paint();
  }, signal);
}

const COLUMNS = [
  ["App", ""], ["State", ""], ["Load / target", ""], ["Ready / max", "number"], ["In flight", "number"], ["Waiting", "number"],
  ["Last decision", ""],
];

function summary(apps) {
  const sum = (read) => apps.reduce((total, app) => total + read(app), 0);
  const ready = sum((app) => app.instances_by_state.ready);
  const awake = apps.filter((app) => app.state !== "asleep").length;
  return `${count(apps.length, "app")}, ${awake} awake · ${count(ready, "instance")} ready · ` +
    `${sum((app) => app.load.in_flight)} in flight · ${sum((app) => app.load.waiting)} waiting`;
}

const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function row(app) {
  const name = el("a", { href: `#/app/${encodeURIComponent(app.app_id)}`, class: "name" });
  const url = el("span", { class: "url" });
  const state = badge(), load = meter(), when = ago();
  const cells = ["ready", "in flight", "waiting"].map((what) => el("td", { class: `number ${what}`, "data-what": what }));
  const why = el("span", { class: "why" });
  const node = el("tr", {},
    el("th", { scope: "row" }, name, url), el("td", { class: "state" }, state.node), el("td", { class: "load" }, load.node),
    ...cells, el("td", { class: "decision" }, why, " ", when.node));
  let shown = null;
  return {
    node,
    show(it) {
      say(name, it.app_id);
      set(name, "title", it.name);
      if (shown !== it.urls[0]) url.replaceChildren(link((shown = it.urls[0]) ?? ""));
      state.show(it.state);
      load.show(it.load);
      say(cells[0], `${it.instances_by_state.ready} / ${it.bounds[1]}`);
      say(cells[1], String(it.load.in_flight));
      say(cells[2], String(it.load.waiting));
      set(cells[2], "data-some", it.load.waiting > 0);
      say(why, it.failure || it.decision?.explanation || "");
      set(why, "title", it.decision?.explanation);
      when.show(it.decision?.at);
    },
  };
}

function refusal(app) {
  const state = badge();
  state.show("invalid");
  const problems = el("ul");
  const name = el("a", { href: `#/app/${encodeURIComponent(app.app_id)}`, class: "name" }, app.app_id);
  return {
    node: el("li", {}, name, " ", state.node, el("span", { class: "template" }, app.template), problems),
    show(it) {
      const told = it.problems.join("\n");
      if (problems.dataset.told === told) return;
      problems.dataset.told = told;
      problems.replaceChildren(...it.problems.map((problem) => el("li", {}, problem)));
    },
  };
}
