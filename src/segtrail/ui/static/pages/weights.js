// @ts-check
// Histograms of weights or gradients: an overview of layers by steps, and ridgelines of one layer.

import { getJSON } from "../api.js";
import { heat } from "../colors.js";
import { debounce, fill, h, notice, number, segmented, svg } from "../dom.js";
import * as state from "../state.js";

/** @typedef {import("../app.js").Context} Context */

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const toolbar = h("div.toolbar");
  const body = h("div.body");
  root.append(toolbar, body);
  /** @type {any} */ let data = null;
  const space = () => state.get("space", "weights");

  function drawToolbar() {
    fill(toolbar, segmented([["weights", "Weights"], ["gradients", "Gradients"]], space(), (value) => state.set({ space: value === "weights" ? null : value, layer: null }), "What"),
      h("input", { id: "find", type: "search", placeholder: "Layer contains…", value: state.get("find"), "aria-label": "Search layers", oninput: debounce(200, (/** @type {any} */ e) => state.set({ find: e.target.value })) }),
      h("label.field", {}, h("input", { id: "flagged", type: "checkbox", checked: state.get("flagged") === "1", onchange: (/** @type {any} */ e) => state.set({ flagged: e.target.checked ? "1" : null }) }), h("span", {}, "Flagged layers only")),
      h("span.muted", {}, "Overview of ", h("strong", {}, context.name(context.reference())), "; ridgelines of all compared runs"));
  }

  async function load() {
    const reference = context.reference();
    if (!reference) return fill(body, notice("No run is chosen", "Click the dots in the list on the left, or “Best 5”."));
    data = await getJSON("weights", { run: reference, namespace: space() });
    await draw();
  }

  async function draw() {
    if (!data) return;
    if (!data.layers.length) return fill(body, notice(`No histograms of ${space()}`, space() === "weights" ? "Runs log them with callbacks.weight_histograms." : "They are off by default: callbacks.weight_histograms.gradients=true logs them."));
    const find = state.get("find").toLowerCase();
    const rows = data.layers.map((/** @type {string} */ layer, /** @type {number} */ i) => ({ layer, values: data.deviation[i], flag: data.flags[layer] })).filter((/** @type {any} */ r) => r.layer.toLowerCase().includes(find) && (state.get("flagged") !== "1" || r.flag));
    const flagged = Object.entries(data.flags);
    const shared = data.layers.length > 1 ? (data.layers.reduce((/** @type {string} */ a, /** @type {string} */ b) => { while (a && !b.startsWith(a)) a = a.slice(0, a.lastIndexOf(".", a.length - 2) + 1); return a; }, data.layers[0].slice(0, data.layers[0].lastIndexOf(".") + 1))).length : 0;
    const layer = data.layers.includes(state.get("layer")) ? state.get("layer") : flagged[0]?.[0] || data.layers[0];
    const cells = (/** @type {any} */ row) => {
      const known = row.values.filter((/** @type {any} */ v) => v !== null);
      const [low, high] = [Math.min(...known), Math.max(...known)];
      return row.values.map((/** @type {number | null} */ v, /** @type {number} */ i) => h("td", {}, h("button", { tabIndex: -1, style: { background: v === null ? "transparent" : heat(high > low ? (v - low) / (high - low) : 0.5) }, title: `${row.layer}\nstep ${data.steps[i]}: deviation ${number(v)}`, onclick: () => state.set({ layer: row.layer }) })));
    };
    const ridges = h("section.card", { id: "ridges" }, h("p.loading", {}, "…"));
    fill(body,
      flagged.length > 0 && h("div.warning", { id: "flags" }, h("strong", {}, `${flagged.length} layer${flagged.length === 1 ? "" : "s"} look wrong: `), flagged.slice(0, 12).map(([name, why], i) => [i ? ", " : "", h("a", { href: state.link({ layer: name }), onclick: (/** @type {MouseEvent} */ e) => { e.preventDefault(); state.set({ layer: name }); } }, name), ` (${why})`])),
      data.missing > 0 && h("div.warning", {}, `${data.missing} histogram file${data.missing === 1 ? " is" : "s are"} missing from the store or damaged.`),
      h("div", { style: { display: "grid", gridTemplateColumns: "minmax(400px, 1fr) minmax(420px, 1.7fr)", gap: "16px", alignItems: "start" } },
        h("section.card.scroll", { style: { maxHeight: "78vh" } }, h("h2", {}, "Deviation by layer and step"), h("p.muted", {}, "Each row on its own scale, dark low, bright high."),
          h("table.overview", {}, rows.map((/** @type {any} */ row) => h("tr", { className: row.layer === layer ? "chosen" : "", "data-layer": row.layer }, h("th", {}, h("button.link", { onclick: () => state.set({ layer: row.layer }), style: { color: "inherit" }, title: row.layer }, row.layer.slice(shared)), row.flag ? h("span.bad", {}, ` ${row.flag}`) : ""), cells(row), h("td", { style: { paddingLeft: "8px" } }, number(row.values[row.values.length - 1], 3)))))),
        ridges));
    await drawRidges(ridges, layer);
  }

  /** @param {HTMLElement} holder @param {string} layer */
  async function drawRidges(holder, layer) {
    const runs = context.selected();
    const reply = await getJSON("ridgelines", { runs, layer, namespace: space() });
    const { edges } = reply;
    const [width, gap, lift] = [300, 24, 76];
    const X = (/** @type {number} */ i) => (i / (edges.length - 1)) * width;
    fill(holder, h("h2", {}, layer), h("p.muted", {}, `All on the same ${edges.length - 1} bins from ${number(edges[0], 3)} to ${number(edges[edges.length - 1], 3)}; the last step in front.`), h("div.ridges", {}, runs.map((run) => {
      const { steps, rows } = reply.runs[run];
      const color = context.look(run).color;
      const name = h("h3", {}, h("span.key", { className: `key${context.look(run).dash.length ? " dashed" : ""}`, style: { borderColor: color } }), context.name(run));
      if (!rows.length) return h("div", {}, name, h("p.muted", {}, "did not log this layer"));
      const height = gap * (rows.length - 1) + lift + 34;
      const top = Math.max(...rows.flat());
      const zero = edges[0] < 0 && edges[edges.length - 1] > 0 ? ((0 - edges[0]) / (edges[edges.length - 1] - edges[0])) * width : null;
      const picture = svg("svg", { viewBox: `0 0 ${width + 46} ${height}`, width: "100%", role: "img", "aria-label": `${layer} of ${context.name(run)} over ${rows.length} steps` });
      if (zero !== null) picture.append(svg("line", { x1: zero, x2: zero, y1: 0, y2: height - 18, stroke: "var(--line-strong)", "stroke-dasharray": "3 3" }));
      rows.forEach((/** @type {number[]} */ row, /** @type {number} */ i) => {
        const y = lift + gap * i;
        const line = row.map((v, k) => `${X(k + 0.5).toFixed(1)},${(y - (v / top) * lift).toFixed(1)}`);
        picture.append(svg("path", { d: `M${X(0.5)},${y} L${line.join(" L")} L${X(row.length - 0.5)},${y}Z`, fill: color, "fill-opacity": 0.25 + 0.5 * (i / Math.max(rows.length - 1, 1)), stroke: "var(--panel)", "stroke-width": 1 }));
        const label = svg("text", { x: width + 4, y, fill: "var(--muted)", "font-size": 9 });
        label.textContent = rows.length <= 12 || i % 2 === 0 ? String(steps[i]) : "";
        picture.append(label);
      });
      for (const [at, value] of [[0, edges[0]], [width / 2, (edges[0] + edges[edges.length - 1]) / 2], [width, edges[edges.length - 1]]]) {
        const label = svg("text", { x: at, y: height - 4, fill: "var(--muted)", "font-size": 10, "text-anchor": at === 0 ? "start" : at === width ? "end" : "middle" });
        label.textContent = number(value, 3);
        picture.append(label);
      }
      return h("div", { "data-ridge": run }, name, picture);
    })));
  }

  drawToolbar();
  await load();
  return {
    async update(keys) {
      if (!keys.has("find")) drawToolbar();
      if (keys.has("runs") || keys.has("ref") || keys.has("space")) await load();
      else if (["layer", "find", "flagged"].some((key) => keys.has(key))) await draw();
    },
    async live(ids) {
      if (!ids.some((id) => context.selected().includes(id))) return;
      const scroll = root.scrollTop;
      await load();
      root.scrollTop = scroll;
    },
  };
}
