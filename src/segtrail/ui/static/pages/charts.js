// @ts-check
// Curves of the chosen runs: one card a metric, in sections by prefix, all on the same x.

import { getJSON, postBinary } from "../api.js";
import { debounce, field, fill, h, notice, number, segmented, select } from "../dom.js";
import { lineChart, smooth } from "../plot.js";
import * as state from "../state.js";
import { moments } from "./runs.js";

/** @typedef {import("../app.js").Context} Context @typedef {import("../plot.js").Line} Line */

const POINTS_PER_PIXEL = 1;
const FOLDED = /^(monitoring|environment|train\/lr$|train\/images_per_second$|train\/epoch$)/;

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const toolbar = h("div.toolbar");
  const body = h("div.body");
  root.append(toolbar, body);
  /** @type {Map<string, Card>} */ const cards = new Map();
  /** @type {string[]} */ let paths = [];
  let groups = [""];

  const x = () => /** @type {any} */ (state.get("x", "step"));
  /** @returns {[number, number] | null} */
  const range = () => (state.has("x0") && state.has("x1") ? [state.getNumber("x0", 0), state.getNumber("x1", 1)] : null);
  const zoom = (/** @type {[number, number] | null} */ to) => state.set({ x0: to && +to[0].toPrecision(8), x1: to && +to[1].toPrecision(8) });

  async function listPaths() {
    const reply = await getJSON("columns", { project: context.table.project, type: "floatSeries", limit: 2000 });
    paths = reply.paths;
    groups = ["", ...[...context.table.columns.values()].filter((c) => c.varies && c.type !== "floatSeries").map((c) => c.path)];
  }

  function drawToolbar() {
    const zoomed = range();
    fill(toolbar,
      h("label.field", {}, h("span", {}, "Charts"), h("input", { id: "find", type: "search", placeholder: "name contains…", value: state.get("find"), oninput: debounce(200, (/** @type {any} */ e) => state.set({ find: e.target.value })) })),
      segmented([["step", "Step"], ["epoch", "Epoch"], ["time", "Time"], ["relative", "Relative"]], x(), (value) => state.set({ x: value === "step" ? null : value, x0: null, x1: null }), "x axis"),
      field("Smoothing", h("input", { id: "smooth", type: "range", min: "0", max: "0.99", step: "0.01", value: state.get("smooth", "0"), style: { width: "110px" }, oninput: (/** @type {any} */ e) => state.set({ smooth: +e.target.value || null }) })),
      h("span.muted.num", { style: { width: "28px" } }, state.get("smooth", "0")),
      h("label.field", {}, h("input", { id: "log", type: "checkbox", checked: state.get("log") === "1", onchange: (/** @type {any} */ e) => state.set({ log: e.target.checked ? "1" : null }) }), h("span", {}, "Log y")),
      h("label.field", { title: "Shade from the lowest to the highest point of each bucket" }, h("input", { id: "band", type: "checkbox", checked: state.get("band") !== "0", onchange: (/** @type {any} */ e) => state.set({ band: e.target.checked ? null : "0" }) }), h("span", {}, "Min–max")),
      field("Group", select(groups.map((path) => /** @type {[string, string]} */ ([path, path ? path.replace(/^parameters\//, "").replaceAll("/", ".") : "none"])), state.get("cgroup"), (value) => state.set({ cgroup: value }), { id: "cgroup", title: "Mean of the runs with the same value, with one deviation as a band" })),
      h("div.grow"),
      zoomed && h("button", { id: "unzoom", onclick: () => zoom(null) }, `Zoom ${number(zoomed[0], 4)} – ${number(zoomed[1], 4)} ×`));
  }

  function layout() {
    const find = state.get("find").toLowerCase();
    const metric = context.metric();
    const shown = paths.filter((path) => path.toLowerCase().includes(find));
    /** @type {Map<string, string[]>} */ const sections = new Map();
    const order = (/** @type {string} */ path) => (path.startsWith("val/") ? 0 : path.startsWith("test/") ? 1 : path.startsWith("train/") ? 2 : 3);
    const first = (/** @type {string} */ path) => (path === metric ? 0 : 1);
    for (const path of [...shown].sort((a, b) => first(a) - first(b) || order(a) - order(b) || a.split("/").length - b.split("/").length || (a < b ? -1 : 1))) {
      const parts = path.split("/");
      const name = FOLDED.test(path) ? "System and schedule" : parts.length > 2 ? parts.slice(0, 2).join("/") : parts.slice(0, -1).join("/") || "other";
      sections.set(name, [...(sections.get(name) || []), path]);
    }
    for (const card of cards.values()) card.destroy();
    cards.clear();
    if (!context.selected().length) return fill(body, notice("No run is chosen", "Click the dots in the list on the left, or “Best 5”."));
    if (!shown.length) return fill(body, notice(paths.length ? "No chart has that name" : "No metric was logged yet", paths.length ? "Clear the search above." : "Curves appear here with the first logged value."));
    const system = sections.get("System and schedule");
    sections.delete("System and schedule");
    if (system) sections.set("System and schedule", system);
    let index = 0;
    fill(body, [...sections].map(([name, members]) => {
      const grid = h("div.charts");
      const open = find !== "" || (name !== "System and schedule" && index++ < 4);
      const section = h("details.section", { open }, h("summary", {}, name, h("span.muted", {}, `  ${members.length}`)), grid);
      const add = () => {
        if (grid.childElementCount) return;
        for (const path of members) {
          const card = new Card(path, context, { x, range, zoom });
          cards.set(path, card);
          grid.append(card.node);
          card.watch();
        }
      };
      if (open) add();
      section.addEventListener("toggle", () => section.open && add());
      return section;
    }));
  }

  await listPaths();
  drawToolbar();
  layout();
  await Promise.all([...cards.values()].slice(0, 4).map((card) => card.load()));

  const onresize = debounce(150, () => { for (const card of cards.values()) card.resize(); });
  addEventListener("resize", onresize);
  return {
    async update(keys) {
      drawToolbar();
      if (keys.has("find") || (keys.has("metric") && !keys.has("runs"))) layout();
      const rebuilt = ["x", "log", "band", "cgroup", "runs", "ref", "find", "metric"].some((key) => keys.has(key));
      if (keys.has("runs") && (!body.querySelector(".chart") || !context.selected().length)) layout();
      const active = [...cards.values()].filter((card) => card.visible);
      if (["x", "x0", "x1", "runs", "ref", "cgroup", "find", "metric"].some((key) => keys.has(key))) {
        for (const card of cards.values()) card.stale = true;
        await Promise.all(active.map((card) => card.load(rebuilt)));
      } else if (keys.has("smooth") || rebuilt) for (const card of active) card.draw(rebuilt);
    },
    async live(ids) {
      const known = paths.length;
      if (!ids.length || ids.some((id) => context.selected().includes(id))) {
        await listPaths();
        if (paths.length !== known) return layout();
        for (const card of cards.values()) card.stale = true;
        await Promise.all([...cards.values()].filter((card) => card.visible).map((card) => card.load()));
      }
    },
    destroy() {
      removeEventListener("resize", onresize);
      for (const card of cards.values()) card.destroy();
    },
  };
}

class Card {
  /** @param {string} path @param {Context} context @param {{x: () => any, range: () => [number, number] | null, zoom: (to: [number, number] | null) => void}} view */
  constructor(path, context, view) {
    this.path = path;
    this.context = context;
    this.view = view;
    this.plot = h("div.plot", {}, h("p.loading", {}, "…"));
    this.info = h("span.muted");
    this.node = h("section.card.chart", { "data-path": path, "aria-label": path }, h("header", {}, h("h3", { title: path }, path), h("div.grow"), this.info), this.plot);
    /** @type {any} */ this.chart = null;
    /** @type {any} */ this.data = null;
    this.shape = "";
    this.visible = false;
    this.stale = true;
    this.outdated = false; // the chart itself, until it is drawn anew
    this.request = new AbortController();
  }

  watch() {
    this.observer = new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible && this.stale) void this.load(true);
    }, { rootMargin: "150px" });
    this.observer.observe(this.node);
  }

  /** Reads the curves in the range on screen. @param {boolean} [rebuild] */
  async load(rebuild = false) {
    this.request.abort();
    const { signal } = (this.request = new AbortController());
    this.stale = false;
    this.visible = true;
    this.outdated ||= rebuild;
    const range = this.view.range();
    const ids = this.context.selected();
    try {
      const data = await postBinary("series", {
        runs: ids, path: this.path, buckets: Math.round(POINTS_PER_PIXEL * Math.max(this.plot.clientWidth - 60, 200)),
        x: this.view.x(), start: range && range[0], stop: range && range[1],
      }, signal);
      this.data = { ...data, ids };
      this.draw(this.outdated);
      this.outdated = false;
    } catch (error) {
      if (signal.aborted) return; // a later request draws
      this.chart?.destroy();
      this.chart = null;
      fill(this.plot, h("p.loading", {}, /** @type {Error} */ (error).message));
    }
  }

  /** @returns {Line[]} */
  lines() {
    const { ids, x, mean, low, high, nonfinite } = this.data;
    const weight = state.getNumber("smooth", 0);
    const n = x.length;
    const metric = this.context.metric();
    const sign = this.context.direction() === "min" ? -1 : 1;
    /** @type {Line[]} */
    const lines = [];
    ids.forEach((/** @type {string} */ id, /** @type {number} */ i) => {
      const part = (/** @type {Float32Array} */ all) => all && all.subarray(i * n, (i + 1) * n);
      const raw = part(mean);
      const bad = nonfinite[id] || [];
      if (!bad.length && !raw.some((v) => !Number.isNaN(v))) return;
      /** @type {Line} */
      const line = { id, label: this.context.name(id), ...this.context.look(id), mean: weight ? smooth(raw, weight) : raw, low: part(low), high: part(high), bad };
      if (this.path === metric) {
        const edge = (sign > 0 ? part(high) : part(low)) || raw;
        let best = -1;
        for (let k = 0; k < n; k++) if (!Number.isNaN(edge[k]) && (best < 0 || sign * (edge[k] - edge[best]) > 0)) best = k;
        if (best >= 0) line.best = { x: x[best], y: edge[best] };
      }
      lines.push(line);
    });
    return lines;
  }

  /** Lines of groups: mean of their runs, one deviation up and down. @param {Line[]} lines @param {string} path @returns {Line[]} */
  grouped(lines, path) {
    /** @type {Map<string, Line[]>} */ const groups = new Map();
    for (const line of lines) {
      const value = String(this.context.table.byId.get(line.id)?.[path] ?? "(none)");
      groups.set(value, [...(groups.get(value) || []), line]);
    }
    return [...groups].map(([value, members]) => {
      const n = members[0].mean.length;
      const mean = new Float32Array(n).fill(NaN);
      const low = new Float32Array(n).fill(NaN);
      const high = new Float32Array(n).fill(NaN);
      for (let k = 0; k < n; k++) {
        const values = members.map((line) => line.mean[k]).filter((v) => !Number.isNaN(v));
        if (!values.length) continue;
        const [center, deviation] = moments(values);
        mean[k] = center;
        low[k] = center - (values.length > 1 ? deviation : 0);
        high[k] = center + (values.length > 1 ? deviation : 0);
      }
      return { id: members[0].id, label: `${value} (${members.length})`, color: members[0].color, dash: members[0].dash, mean, low, high };
    });
  }

  /** @param {boolean} rebuild */
  draw(rebuild) {
    if (!this.data) return;
    const group = state.get("cgroup");
    const lines = group ? this.grouped(this.lines(), group) : this.lines();
    const bad = lines.reduce((count, line) => count + (line.bad ? line.bad.length : 0), 0);
    this.info.textContent = bad ? `${bad} NaN or infinite` : "";
    this.info.className = bad ? "bad" : "muted";
    this.node.dataset.lines = String(lines.length);
    const range = this.view.range();
    const shape = lines.map((line) => line.id).join();
    if (!this.chart || rebuild || shape !== this.shape) {
      this.chart?.destroy();
      this.chart = null;
      fill(this.plot);
      this.shape = shape;
      if (!lines.length) return fill(this.plot, h("p.loading", {}, range ? "no points in this range" : "none of the chosen runs logged this"));
      this.chart = lineChart(this.plot, this.data.x, lines, { x: this.view.x(), log: state.get("log") === "1", band: state.get("band") !== "0" || group !== "", range, onzoom: this.view.zoom });
    } else this.chart.setData(this.data.x, lines, range);
    this.node.dataset.drawn = `${this.view.x()} ${range ? range.join("–") : "all"}`;
  }

  resize() {
    this.chart?.resize();
  }

  destroy() {
    this.observer?.disconnect();
    this.request.abort();
    this.chart?.destroy();
    this.chart = null;
  }
}
