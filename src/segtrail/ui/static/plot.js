// @ts-check
// Line charts on uPlot: mean lines, min–max bands, markers; cursors that move together, zoom by dragging.

import { h, number } from "./dom.js";
import uPlot from "./vendor/uplot.js";

/**
 * @typedef {Object} Line
 * @property {string} id @property {string} label @property {string} color @property {number[]} dash
 * @property {ArrayLike<number>} mean @property {ArrayLike<number>} [low] @property {ArrayLike<number>} [high]
 * @property {{x: number, y: number}} [best] @property {[number, string][]} [bad] points that are not finite
 *
 * @typedef {Object} Options
 * @property {"step" | "epoch" | "time" | "relative"} x @property {boolean} log @property {boolean} band
 * @property {[number, number] | null} range of x
 * @property {(range: [number, number] | null) => void} onzoom @property {(id: string) => void} [onpick]
 */

const css = (/** @type {string} */ name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Exponential moving average without the bias of its start. @param {ArrayLike<number>} values @param {number} weight from 0 to 1 */
export function smooth(values, weight) {
  const result = new Float32Array(values.length);
  let last = 0;
  let total = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (Number.isNaN(value)) { result[i] = NaN; continue; }
    last = last * weight + (1 - weight) * value;
    total = total * weight + (1 - weight);
    result[i] = last / total;
  }
  return result;
}

/** @param {ArrayLike<number>} values NaN becomes null, which uPlot leaves out */
const holes = (values) => Array.from(values, (v) => (Number.isNaN(v) ? null : v));

/** @param {string} color a hex color @param {number} alpha */
function fade(color, alpha) {
  const value = parseInt(color.slice(1), 16);
  return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${alpha})`;
}

/** @param {number} ms */
const span = (ms) => (ms < 120e3 ? `${+(ms / 1e3).toPrecision(3)}s` : ms < 7200e3 ? `${+(ms / 60e3).toPrecision(3)}m` : `${+(ms / 3600e3).toPrecision(3)}h`);

/**
 * @param {HTMLElement} root @param {ArrayLike<number>} x @param {Line[]} lines @param {Options} options
 * @returns {{setData: (x: ArrayLike<number>, lines: Line[], range: [number, number] | null) => void, highlight: (id: string) => void, resize: () => void, destroy: () => void}}
 */
export function lineChart(root, x, lines, options) {
  const tip = h("div.tip", { hidden: true });
  let current = lines;
  let highlighted = "";
  const banded = options.band && lines.some((line) => line.low);

  /** @param {ArrayLike<number>} positions @param {Line[]} now @returns {any} */
  const data = (positions, now) => [
    options.x === "time" ? Array.from(positions, (v) => v / 1000) : Array.from(positions),
    ...now.flatMap((line) => [holes(line.mean), ...(banded ? [holes(line.high || line.mean), holes(line.low || line.mean)] : [])]),
  ];
  const stride = banded ? 3 : 1;
  const toX = (/** @type {number} */ v) => (options.x === "time" ? v / 1000 : v);

  const series = lines.flatMap((line) => {
    const sparse = (/** @type {any} */ u, /** @type {number} */ i) => u.data[i].filter((/** @type {any} */ v) => v !== null).length < 60;
    const mean = { label: line.label, stroke: () => (highlighted && highlighted !== line.id ? fade(line.color, 0.2) : line.color), width: 1.6, dash: line.dash, spanGaps: true, points: { show: sparse, size: 4, fill: line.color } };
    const edge = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };
    return banded ? [mean, edge, edge] : [mean];
  });
  const bands = banded ? lines.map((line, i) => ({ series: [1 + stride * i + 1, 1 + stride * i + 2], fill: fade(line.color, 0.13) })) : [];

  /** Best points and points that are not finite. @param {any} u */
  function markers(u) {
    const paint = u.ctx;
    const { left, top, width, height } = u.bbox;
    paint.save();
    paint.beginPath();
    paint.rect(left - 8, top - 8, width + 16, height + 16);
    paint.clip();
    const bad = css("--bad");
    for (const line of current) {
      if (line.best) {
        const px = u.valToPos(toX(line.best.x), "x", true);
        const py = u.valToPos(line.best.y, "y", true);
        paint.beginPath();
        paint.moveTo(px, py - 7); paint.lineTo(px + 6, py); paint.lineTo(px, py + 7); paint.lineTo(px - 6, py); paint.closePath();
        paint.fillStyle = line.color;
        paint.strokeStyle = css("--panel");
        paint.lineWidth = 2;
        paint.fill();
        paint.stroke();
      }
      for (const [at, kind] of line.bad || []) {
        const px = u.valToPos(toX(at), "x", true);
        const py = kind === "-inf" ? top + height - 8 : top + 8;
        paint.strokeStyle = kind === "nan" ? bad : line.color;
        paint.lineWidth = 2;
        paint.beginPath();
        if (kind === "nan") { paint.moveTo(px - 5, py - 5); paint.lineTo(px + 5, py + 5); paint.moveTo(px + 5, py - 5); paint.lineTo(px - 5, py + 5); }
        else { const d = kind === "-inf" ? 5 : -5; paint.moveTo(px - 5, py - d); paint.lineTo(px, py + d); paint.lineTo(px + 5, py - d); }
        paint.stroke();
      }
    }
    paint.restore();
  }

  /** @param {any} u */
  function cursor(u) {
    const { left, top, idx } = u.cursor;
    if (left < 0 || idx === null || idx === undefined) { tip.hidden = true; return; }
    const found = current.map((line, i) => {
      let at = idx;
      const column = u.data[1 + stride * i];
      for (let d = 0; column[at] === null && d < column.length; d++) at = column[idx - d] !== null && column[idx - d] !== undefined ? idx - d : column[idx + d] !== null && column[idx + d] !== undefined ? idx + d : at;
      return { line, value: column[at], x: u.data[0][at] };
    }).filter((f) => f.value !== null && f.value !== undefined).sort((a, b) => b.value - a.value);
    if (!found.length) { tip.hidden = true; return; }
    const y = u.posToVal(top, "y");
    const near = found.reduce((best, f) => (Math.abs(f.value - y) < Math.abs(best.value - y) ? f : best));
    tip.hidden = !u.isHovered;
    tip.textContent = "";
    const at = u.data[0][idx];
    tip.append(h("strong", {}, options.x === "time" ? new Date(at * 1000).toLocaleString() : options.x === "relative" ? span(at) : `${options.x} ${number(at, 6)}`));
    for (const f of found.slice(0, 14))
      tip.append(h("div", { className: f === near ? "near" : "" }, h("span.key", { style: { borderColor: f.line.color }, className: `key${f.line.dash.length ? " dashed" : ""}` }), h("span", {}, f.line.label), h("span", {}, number(f.value, 5))));
    if (found.length > 14) tip.append(h("div.muted", {}, `and ${found.length - 14} more`));
    const right = left > u.over.clientWidth / 2;
    tip.style.left = right ? "" : `${left + u.over.offsetLeft + 14}px`;
    tip.style.right = right ? `${root.clientWidth - left - u.over.offsetLeft + 14}px` : "";
    tip.style.top = "6px";
  }

  const axis = { stroke: () => css("--muted"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { stroke: () => css("--line"), width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
  const limits = () => (options.range ? [toX(options.range[0]), toX(options.range[1])] : null);
  const plot = new uPlot(/** @type {any} */ ({
    width: Math.max(root.clientWidth, 100), height: Math.max(root.clientHeight, 100), legend: { show: false }, padding: [10, 12, 0, 0],
    cursor: { sync: { key: `x-${options.x}`, scales: ["x", null] }, drag: { x: true, y: false, setScale: false }, points: { size: 6 }, focus: { prox: 30 }, dataIdx: (/** @type {any} */ u, /** @type {number} */ s, /** @type {number} */ i) => i },
    scales: {
      x: { time: options.x === "time", range: (/** @type {any} */ u, /** @type {number} */ a, /** @type {number} */ b) => limits() || (a === b ? [a - 1, b + 1] : [a, b]) },
      y: { distr: options.log ? 3 : 1 },
    },
    axes: [
      { ...axis, size: 28, values: options.x === "relative" ? (/** @type {any} */ u, /** @type {number[]} */ v) => v.map(span) : options.x === "time" ? undefined : (/** @type {any} */ u, /** @type {number[]} */ v) => v.map((n) => (n >= 1e4 ? `${+(n / 1e3).toPrecision(4)}k` : String(+n.toPrecision(6)))) },
      { ...axis, size: 52, values: (/** @type {any} */ u, /** @type {(number | null)[]} */ v) => v.map((n) => (n === null ? "" : number(n, 4))) },
    ],
    series: [{}, ...series], bands,
    hooks: {
      draw: [markers], setCursor: [cursor],
      setSelect: [(/** @type {any} */ u) => {
        if (u.select.width < 4) return;
        const a = u.posToVal(u.select.left, "x");
        const b = u.posToVal(u.select.left + u.select.width, "x");
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        const scale = options.x === "time" ? 1000 : 1;
        options.onzoom([a * scale, b * scale]);
      }],
    },
  }), data(x, lines), root);
  const state = /** @type {any} */ (plot);
  state.over.addEventListener("dblclick", () => options.onzoom(null));
  state.over.addEventListener("mouseenter", () => { state.isHovered = true; });
  state.over.addEventListener("mouseleave", () => { state.isHovered = false; tip.hidden = true; });
  root.append(tip);

  return {
    setData(positions, now, range) {
      current = now;
      options.range = range;
      plot.setData(data(positions, now), true);
    },
    highlight(id) {
      highlighted = id;
      plot.redraw(false);
    },
    resize() {
      plot.setSize({ width: Math.max(root.clientWidth, 100), height: Math.max(root.clientHeight, 100) });
    },
    destroy() {
      plot.destroy();
    },
  };
}
