// The last hour of an app: its load against its thresholds, and below it how many instances were ready.

import { el, set } from "./dom.js";
import { number } from "./words.js";

const HOUR_S = 3600;
const HEIGHTS = { load: 190, ready: 105 };

/** Two charts with one time axis. `show(history, load)` draws them, with `load` as their last point. */
export function charts(signal) {
  const boxes = [el("div", { role: "img", class: "chart" }), el("div", { role: "img", class: "chart" })];
  const node = el("div", { class: "charts" }, ...boxes);
  let plots = null, columns = null;

  const build = () => {
    plots?.forEach((plot) => plot.destroy());
    const width = node.clientWidth;
    plots = [
      new uPlot(options("load", width, loadSeries()), columns.load, boxes[0]),
      new uPlot(options("ready", width, readySeries()), columns.ready, boxes[1]),
    ];
  };
  const sizes = new ResizeObserver(() =>
    plots?.forEach((plot) => plot.width !== node.clientWidth && plot.setSize({ width: node.clientWidth, height: plot.height })));
  sizes.observe(node);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => columns && build(), { signal });
  signal.addEventListener("abort", () => {
    sizes.disconnect();
    plots?.forEach((plot) => plot.destroy());
    plots = null;
  });

  return {
    node,
    show(history, ready, load) {
      if (signal.aborted || !node.clientWidth) return;
      const at = [...history.at, history.now];
      const level = (value) => at.map(() => value);
      columns = {
        load: [at, [...history.per_instance, load.per_instance], level(load.scale_up_above), level(load.scale_down_below)],
        ready: [at, [...history.ready, ready]],
      };
      if (plots) plots.forEach((plot, number) => plot.setData(Object.values(columns)[number]));
      else build();
      set(boxes[0], "aria-label", `Load over the last hour: now ${number(load.per_instance)} requests a minute per instance, ` +
        `at most ${number(Math.max(...columns.load[1]))}. Goes up above ${number(load.scale_up_above)}, down below ${number(load.scale_down_below)}.`);
      set(boxes[1], "aria-label", `Ready instances over the last hour: now ${ready}, at most ${Math.max(...columns.ready[1])}.`);
    },
  };
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function loadSeries() {
  return [
    { label: "load", stroke: colour("accent"), width: 2, fill: colour("accent-soft"), spanGaps: false },
    { label: "goes up above", stroke: colour("up"), width: 1, dash: [6, 4], points: { show: false } },
    { label: "goes down below", stroke: colour("down"), width: 1, dash: [2, 4], points: { show: false } },
  ];
}

function readySeries() {
  return [{ label: "ready", stroke: colour("text"), width: 2, fill: colour("line"), paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }];
}

function options(kind, width, series) {
  const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const whole = kind === "ready" ? { incrs: [1, 2, 5, 10, 20, 50, 100] } : {};
  return {
    width,
    height: HEIGHTS[kind],
    series: [{}, ...series],
    legend: { show: false },
    cursor: { sync: { key: "hour" }, drag: { x: false, y: false } },
    scales: {
      x: { range: (_, __, newest) => [newest - HOUR_S, newest] },
      y: { range: (_, __, most) => [0, kind === "ready" ? Math.max(2, most + 1) : Math.max(1, most * 1.15)] },
    },
    axes: [{ ...axis, size: 30, values: (_, times) => times.map(clock) }, { ...axis, ...whole, size: 44 }],
  };
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
