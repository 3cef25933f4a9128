// @ts-check
// Many runs as points: parallel coordinates, what matters, slices, best so far, two metrics at once.

import { getJSON } from "../api.js";
import { heat } from "../colors.js";
import { echart } from "../echart.js";
import { field, fill, h, notice, number, select } from "../dom.js";
import * as state from "../state.js";

/** @typedef {import("../app.js").Context} Context @typedef {import("../table.js").Row} Row */

const MAX_AXES = 9;

/**
 * Rows that no other row beats in both values.
 * @param {{x: number, y: number}[]} points @param {boolean} lowX smaller x is better @param {boolean} lowY
 */
export function paretoFront(points, lowX, lowY) {
  const sorted = [...points].sort((a, b) => (lowX ? a.x - b.x : b.x - a.x) || (lowY ? a.y - b.y : b.y - a.y));
  /** @type {{x: number, y: number}[]} */ const front = [];
  for (const point of sorted) {
    const last = front[front.length - 1];
    if (!last || (lowY ? point.y < last.y : point.y > last.y)) front.push(point);
  }
  return front;
}

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const body = h("div.body");
  root.append(body);
  /** @type {any[]} */ let charts = [];

  /** Parameters that vary among the rows. @param {Row[]} rows */
  const varying = (rows) => [...context.table.columns.values()].filter((c) => c.varies && c.path.startsWith("parameters/") && c.type !== "floatSeries" && new Set(rows.map((row) => JSON.stringify(row[c.path]))).size > 1).map((c) => c.path);
  const short = (/** @type {string} */ path) => path.replace(/^parameters\//, "").replaceAll("/", ".").replace(/\._target_$/, "");
  const label = (/** @type {any} */ value) => { const text = String(value); return /^[\w]+(\.[\w]+){2,}$/.test(text) ? text.split(".").pop() || text : text; };
  const isLow = (/** @type {string} */ path) => (path === context.metric() ? context.direction() === "min" : /loss|error|seconds|time|size/i.test(path));

  async function draw() {
    for (const chart of charts) chart.dispose();
    charts = [];
    const metric = context.metric();
    const direction = context.direction();
    const rows = context.rows().filter((row) => typeof context.table.best(row, metric, direction) === "number");
    if (rows.length < 2) return fill(body, notice("A sweep needs runs", "At least two runs with the primary metric; widen the filter, or start one with python train.py -m."));
    const score = (/** @type {Row} */ row) => /** @type {number} */ (context.table.best(row, metric, direction));
    const parameters = varying(rows);
    const { importance } = await getJSON("importance", { project: context.table.project, metric, aggregate: direction });
    const known = importance.filter((/** @type {any} */ item) => parameters.includes(item.path));
    const ordered = [...known.map((/** @type {any} */ item) => item.path), ...parameters.filter((path) => !known.some((/** @type {any} */ item) => item.path === path) && rows.every((row) => row[path] !== null && row[path] !== undefined))];
    const axes = (state.has("axes") ? state.getList("axes") : ordered.slice(0, MAX_AXES - 1)).filter((path) => parameters.includes(path));
    const values = rows.map(score);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const shade = (/** @type {number} */ v) => heat(high > low ? ((direction === "min" ? high - v : v - low) / (high - low)) * 0.9 : 0.5);
    const metrics = context.table.metrics().filter((path) => /^(val|test|train)\//.test(path));
    const other = metrics.includes(state.get("other")) ? state.get("other") : metrics.find((path) => path !== metric && path !== "train/epoch") || metric;
    const slice = parameters.includes(state.get("slice")) ? state.get("slice") : ordered[0];
    const across = parameters.includes(state.get("across")) ? state.get("across") : "";

    const parallel = h("div.echart", { id: "parallel" });
    const bars = h("div.echart", { id: "importance" });
    const sliced = h("div.echart", { id: "slice" });
    const history = h("div.echart", { id: "history" });
    const pareto = h("div.echart", { id: "pareto" });
    const options = (/** @type {string[]} */ paths) => paths.map((path) => /** @type {[string, string]} */ ([path, short(path)]));
    const brushed = h("span.muted", { id: "brushed" }, "Drag along an axis to keep only the runs that pass through.");
    fill(body,
      h("section.card", {}, h("div", { style: { display: "flex", gap: "12px", alignItems: "center" } }, h("h2.grow", {}, `${rows.length} runs: parameters and ${metric}`), brushed), parallel),
      h("div.two", {},
        h("section.card", {}, h("h2", {}, "What matters"), h("p.muted", {}, "Share of the metric's ranks that each parameter explains alone."), known.length ? bars : h("p.muted", {}, "Too few runs, or nothing varies on its own: at least four runs are needed.")),
        h("section.card", {}, h("div", { style: { display: "flex", gap: "6px 12px", flexWrap: "wrap" } }, h("h2.grow", {}, across ? "Contour" : "Slice"), slice && field("of", select(options(parameters), slice, (value) => state.set({ slice: value }), { id: "slice-by" })), slice && field("and", select([["", "–"], ...options(parameters.filter((path) => path !== slice))], across, (value) => state.set({ across: value }), { id: "across" }))), slice ? sliced : h("p.muted", {}, "No parameter varies.")),
        h("section.card", {}, h("h2", {}, "Best so far"), history),
        h("section.card", {}, h("div", { style: { display: "flex", gap: "12px" } }, h("h2.grow", {}, "Two metrics and the Pareto front"), field("with", select(options(metrics), other, (value) => state.set({ other: value }), { id: "other" }))), pareto)));

    const categories = (/** @type {string} */ path) => (rows.every((row) => row[path] === undefined || row[path] === null || typeof row[path] === "number") ? null : [...new Set(rows.map((row) => label(row[path])))].sort());
    const wide = (/** @type {string} */ path) => { const all = rows.map((row) => row[path]).filter((v) => typeof v === "number"); return all.length > 0 && Math.min(...all) > 0 && Math.max(...all) / Math.min(...all) >= 50; };
    const open = (/** @type {any} */ p) => { const id = p.value?.id || p.data?.id; if (id) state.set({ page: "run", run: id }, { push: true }); };

    const chart = await echart(parallel, (theme) => ({
      parallel: { left: 60, right: 70, top: 46, bottom: 24, parallelAxisDefault: { nameTextStyle: { color: theme.text, fontSize: 11 }, nameTruncate: { maxWidth: 130 }, ...theme.axis, nameLocation: "end" } },
      parallelAxis: [...axes.map((path, dim) => {
        const names = categories(path);
        return { dim, name: short(path), ...(names ? { type: "category", data: names } : { type: wide(path) ? "log" : "value", scale: true }) };
      }), { dim: axes.length, name: metric, type: "value", scale: true, inverse: direction === "min" }],
      series: [{ type: "parallel", inactiveOpacity: 0.04, activeOpacity: 0.85, lineStyle: { width: rows.length > 200 ? 1 : 1.8, opacity: rows.length > 200 ? 0.45 : 0.75 }, progressive: 2000,
        data: [...rows].sort((a, b) => (direction === "min" ? score(b) - score(a) : score(a) - score(b))).map((row) => ({ id: row.id, value: [...axes.map((path) => (categories(path) ? label(row[path]) : row[path] ?? "-")), score(row)], lineStyle: { color: shade(score(row)) } })) }],
    }));
    const data = [...rows].sort((a, b) => (direction === "min" ? score(b) - score(a) : score(a) - score(b)));
    chart.on("axisareaselected", () => {
      const inside = chart.getModel().getSeriesByIndex(0).getRawIndicesByActiveState("active");
      fill(brushed, inside.length < rows.length ? h("button.primary", { onclick: () => context.select(inside.map((/** @type {number} */ i) => data[i].id).reverse().slice(0, 20)) }, `Compare the ${Math.min(inside.length, 20)} best of ${inside.length}`) : "Drag along an axis to keep only the runs that pass through.");
    });
    parallel.dataset.lines = String(rows.length);
    charts.push(chart);

    if (known.length) charts.push(await echart(bars, (theme) => {
      const top = known.slice(0, 10).reverse();
      return {
        grid: { left: 150, right: 40, top: 6, bottom: 24 }, xAxis: { type: "value", min: 0, max: 1, ...theme.axis }, tooltip: { renderMode: "richText" },
        yAxis: { type: "category", data: top.map((/** @type {any} */ i) => short(i.path)), ...theme.axis, axisLabel: { color: theme.text, width: 140, overflow: "truncate" } },
        series: [{ type: "bar", barMaxWidth: 18, data: top.map((/** @type {any} */ i) => ({ value: +i.share.toFixed(3), itemStyle: { color: i.sign < 0 ? "#ee7733" : "#009988" } })), label: { show: true, position: "right", color: theme.text, formatter: (/** @type {any} */ p) => `${p.value}${top[p.dataIndex].sign > 0 ? " ↑" : top[p.dataIndex].sign < 0 ? " ↓" : ""}` } }],
      };
    }));
    const tip = { renderMode: "richText", formatter: (/** @type {any} */ p) => (p.data?.name ? `${p.data.name}\n${number(p.value[0])}\n${number(p.value[1])}` : "") };
    const dot = (/** @type {Row} */ row, /** @type {any} */ x, /** @type {any} */ y) => ({ id: row.id, name: row.name, value: [x, y], itemStyle: { color: shade(score(row)) } });
    const axis = (/** @type {any} */ theme, /** @type {string} */ path) => { const names = categories(path); return { ...theme.axis, name: short(path), nameLocation: "middle", nameGap: 26, ...(names ? { type: "category", data: names } : { type: wide(path) ? "log" : "value", scale: true }) }; };
    const at = (/** @type {Row} */ row, /** @type {string} */ path) => (categories(path) ? label(row[path]) : row[path]);
    if (slice) charts.push(await echart(sliced, (theme) => ({
      grid: { left: across ? 90 : 60, right: 20, top: 12, bottom: 44 }, tooltip: tip, xAxis: axis(theme, slice),
      yAxis: across ? { ...axis(theme, across), nameGap: 60 } : { type: "value", scale: true, ...theme.axis },
      series: [...(across ? [cells(rows, slice, across, at, score, shade, categories)] : []), { type: "scatter", symbolSize: across ? 11 : 8, data: rows.map((row) => dot(row, at(row, slice), across ? at(row, across) : score(row))) }],
    })));
    const byTime = [...rows].sort((a, b) => a.created - b.created);
    let best = NaN;
    const line = byTime.map((row, i) => { const v = score(row); best = Number.isNaN(best) || (direction === "min" ? v < best : v > best) ? v : best; return [i + 1, best]; });
    charts.push(await echart(history, (theme) => ({
      grid: { left: 60, right: 20, top: 12, bottom: 44 }, tooltip: tip, xAxis: { type: "value", name: "run, in order of start", nameLocation: "middle", nameGap: 26, minInterval: 1, min: 1, ...theme.axis }, yAxis: { type: "value", scale: true, ...theme.axis },
      series: [{ type: "scatter", symbolSize: 7, data: byTime.map((row, i) => dot(row, i + 1, score(row))) }, { type: "line", step: "end", symbol: "none", data: line, lineStyle: { color: "#0077bb", width: 2 } }],
    })));
    const both = rows.filter((row) => typeof context.table.best(row, other, isLow(other) ? "min" : "max") === "number").map((row) => ({ row, x: score(row), y: /** @type {number} */ (context.table.best(row, other, isLow(other) ? "min" : "max")) }));
    const front = paretoFront(both, direction === "min", isLow(other));
    pareto.dataset.front = String(front.length);
    charts.push(await echart(pareto, (theme) => ({
      grid: { left: 60, right: 20, top: 12, bottom: 44 }, tooltip: tip, xAxis: { type: "value", scale: true, name: `${metric} (${direction === "min" ? "lower" : "higher"} is better)`, nameLocation: "middle", nameGap: 26, ...theme.axis }, yAxis: { type: "value", scale: true, name: "", ...theme.axis },
      series: [{ type: "scatter", symbolSize: 8, data: both.map((p) => dot(p.row, p.x, p.y)) }, { type: "line", symbol: "none", data: front.map((p) => [p.x, p.y]), lineStyle: { color: "#cc3311", width: 2 } }],
    })));
    for (const each of charts) each.on("click", open);
  }

  await draw();
  return {
    async update(keys) {
      if (["q", "metric", "dir", "axes", "slice", "across", "other"].some((key) => keys.has(key))) await draw();
    },
    async live() {
      const scroll = root.scrollTop;
      await draw();
      root.scrollTop = scroll;
    },
    destroy() {
      for (const chart of charts) chart.dispose();
    },
  };
}

/** Mean of the metric in cells of two parameters, as a shaded grid behind the dots. */
function cells(/** @type {Row[]} */ rows, /** @type {string} */ first, /** @type {string} */ second, /** @type {any} */ at, /** @type {any} */ score, /** @type {any} */ shade, /** @type {any} */ categories) {
  const edges = (/** @type {string} */ path) => {
    if (categories(path)) return null;
    const values = [...new Set(rows.map((row) => row[path]).filter((v) => typeof v === "number"))].sort((a, b) => a - b);
    return { low: values[0], high: values[values.length - 1] };
  };
  const [x, y] = [edges(first), edges(second)];
  const bin = (/** @type {any} */ value, /** @type {any} */ edge) => (edge ? Math.min(Math.floor(((value - edge.low) / (edge.high - edge.low || 1)) * 8), 7) : value);
  /** @type {Map<string, Row[]>} */ const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([bin(at(row, first), x), bin(at(row, second), y)]);
    groups.set(key, [...(groups.get(key) || []), row]);
  }
  return {
    type: "custom", silent: true, z: 0, data: [...groups].map(([, members]) => [at(members[0], first), at(members[0], second), members.reduce((sum, row) => sum + score(row), 0) / members.length]),
    renderItem: (/** @type {any} */ _, /** @type {any} */ api) => {
      const [px, py] = api.coord([api.value(0), api.value(1)]);
      return { type: "rect", shape: { x: px - 22, y: py - 16, width: 44, height: 32, r: 5 }, style: { fill: shade(api.value(2)), opacity: 0.35 } };
    },
  };
}
