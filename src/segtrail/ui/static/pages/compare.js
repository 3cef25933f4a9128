// @ts-check
// Is the difference more than noise, and where is it: classes, tests, confusion, images.

import { getJSON } from "../api.js";
import { diverging } from "../colors.js";
import { echart } from "../echart.js";
import { field, fill, h, notice, number, pValue, percent, segmented, select, signed } from "../dom.js";
import * as state from "../state.js";

/** @typedef {import("../app.js").Context} Context */

const LEVEL = 0.05;

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const toolbar = h("div.toolbar");
  const body = h("div.body");
  root.append(toolbar, body);
  /** @type {any} */ let data = null;
  /** @type {any} */ let chart = null;

  const split = () => state.get("split", "val");
  const which = () => state.get("which", "best");

  async function load() {
    const runs = context.selected();
    if (!runs.length) return fill(body, notice("No run is chosen", "Click the dots in the list on the left, or “Best 5”."));
    fill(body, h("p.loading", {}, "Resampling…"));
    data = await getJSON("compare", { runs, reference: context.reference(), split: split(), which: which() });
    await draw();
  }

  function drawToolbar() {
    fill(toolbar,
      field("Split", select([["val", "validation"], ["test", "test"]], split(), (value) => state.set({ split: value === "val" ? null : value }), { id: "split" })),
      segmented([["best", "Best epoch"], ["last", "Last epoch"]], which(), (value) => state.set({ which: value === "best" ? null : value }), "Epoch"),
      h("span.muted", {}, "Reference: ", h("strong", {}, context.name(context.reference())), " (choose another by its star)"),
      h("div.grow"),
      h("span.muted", { title: "Bias-corrected bootstrap over images for intervals, paired permutation test over images for p, Holm's correction over the classes of a run" }, "95 % intervals · paired tests over images · Holm over classes"));
  }

  /** @param {any} row */
  function verdict(row) {
    const last = data.classes.length;
    const d = row.difference?.[last];
    if (d === undefined || d === null) return null;
    const p = row.p[last];
    const sure = p !== null && p <= LEVEL;
    const classes = data.classes.filter((/** @type {string} */ _, /** @type {number} */ i) => row.p_holm[i] !== null && row.p_holm[i] <= LEVEL);
    return h("div.verdict", { "data-run": row.run },
      key(row.run), h("strong", {}, context.name(row.run)),
      sure ? (d > 0 ? " is better than " : " is worse than ") : " is not distinguishable from ", h("strong", {}, context.name(context.reference())), ": ",
      h("span", { className: sure ? (d > 0 ? "good sig" : "bad sig") : "" }, `${signed(100 * d)} mIoU`),
      row.low[last] === null ? "" : ` (95 % interval ${signed(100 * row.low[last])} to ${signed(100 * row.high[last])})`, `, p ${pValue(p).startsWith("<") ? "" : "= "}${pValue(p)}, ${row.paired} images`,
      classes.length ? h("span.muted", {}, `. Classes that differ: ${classes.join(", ")}`) : "",
      row.notes?.length ? h("div.muted", {}, row.notes.join("; ")) : null);
  }

  /** @param {string} run */
  const key = (run) => {
    const look = context.look(run);
    return h("span.key", { className: `key${look.dash.length ? " dashed" : ""}`, style: { borderColor: look.color } });
  };

  function table() {
    const reference = context.reference();
    const base = data.runs.find((/** @type {any} */ row) => row.run === reference);
    const counts = data.runs[0];
    const cell = (/** @type {any} */ row, /** @type {number} */ i) => {
      const value = i === data.classes.length ? row.mean : row.iou[i];
      const d = row.difference?.[i];
      const p = i === data.classes.length ? row.p?.[i] : row.p_holm?.[i];
      const sure = p !== null && p !== undefined && p <= LEVEL;
      const has = d !== null && d !== undefined;
      return h("td.num", { style: has ? { background: diverging(Math.max(-1, Math.min(1, d * 8)) * (sure ? 1 : 0.35)) } : {}, title: has ? `95 % interval ${signed(100 * row.low[i])} to ${signed(100 * row.high[i])}; p = ${pValue(row.p[i])}, corrected ${pValue(row.p_holm[i])}` : "" },
        percent(value), has && h("span.delta", { className: `delta${sure ? " sig" : ""}` }, `${signed(100 * d)}${sure ? " *" : ""}`),
        has && h("span.delta.muted", {}, `p ${pValue(p)}`));
    };
    const rows = data.classes.map((/** @type {string} */ name, /** @type {number} */ i) => h("tr", { "data-class": name },
      h("td", {}, h("a", { href: state.link({ page: "samples", sort: `class:${i}` }), title: "Samples, worst of this class first", onclick: go({ page: "samples", sort: `class:${i}` }) }, name)),
      h("td.num.muted", {}, support(counts?.support[i])), data.runs.map((/** @type {any} */ row) => cell(row, i))));
    return h("section.card.scroll", {}, h("h2", {}, "IoU by class, %"),
      h("table.grid", { id: "classes" },
        h("thead", {}, h("tr", {}, h("th", {}, "class"), h("th.num", {}, "pixels"), data.runs.map((/** @type {any} */ row) => h("th", {}, key(row.run), context.name(row.run), row === base ? " ★" : "", h("div.muted", {}, `step ${row.step} · ${row.images} images`))))),
        h("tbody", {}, rows, h("tr.mean", {}, h("td", {}, "mean"), h("td"), data.runs.map((/** @type {any} */ row) => cell(row, data.classes.length))))),
      h("p.muted", { style: { margin: "8px 0 0" } }, "* differs from the reference at the 5 % level (classes: corrected for testing all of them). “n/a”: the class is in neither truth nor prediction."));
  }

  /** @param {number | null | undefined} n */
  const support = (n) => (n === null || n === undefined ? "n/a" : n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e4 ? `${(n / 1e3).toFixed(0)} k` : String(n));

  /** @param {Record<string, any>} patch */
  const go = (patch) => (/** @type {MouseEvent} */ e) => { e.preventDefault(); state.set(patch, { push: true }); };

  async function confusions() {
    const known = data.runs.map((/** @type {any} */ row) => row.run);
    const reference = known.includes(context.reference()) ? context.reference() : known[0];
    const chosen = known.includes(state.get("cm")) ? state.get("cm") : known.find((/** @type {string} */ id) => id !== reference) || reference;
    const ids = [...new Set([reference, chosen])];
    const matrices = await Promise.all(ids.map((run) => getJSON("confusion", { run, split: split(), which: which() })));
    const shares = matrices.map(({ counts }) => counts.map((/** @type {number[]} */ row) => { const sum = row.reduce((a, b) => a + b, 0); return row.map((v) => (sum ? v / sum : null)); }));
    const grid = (/** @type {string} */ title, /** @type {string[]} */ classes, /** @type {(t: number, p: number) => [string, string, string]} */ cell, /** @type {string} */ run) =>
      h("div", {}, h("h3", {}, title), h("div.scroll", {}, h("table.confusion", {},
        h("thead", {}, h("tr", {}, h("th", {}, ""), classes.map((name) => h("th", { title: name }, name)))),
        h("tbody", {}, classes.map((name, t) => h("tr", {}, h("th", { title: name }, name), classes.map((other, p) => {
          const [text, color, title] = cell(t, p);
          return h("td", {}, h("button", { style: { background: color, color: "inherit" }, title, "data-cell": `${name}>${other}`, onclick: go({ page: "samples", layer: "error", ct: t, cp: p, crun: run, at: null, rows: null }) }, text));
        })))))));
    const blocks = ids.map((run, i) => grid(`${context.name(run)}${run === reference ? " ★" : ""}`, matrices[i].classes, (t, p) => {
      const value = shares[i][t][p];
      const text = value === null ? "" : value >= 0.995 ? "100" : (100 * value).toFixed(1);
      return [text, value === null ? "transparent" : t === p ? `rgba(0, 140, 110, ${0.75 * value})` : `rgba(214, 80, 40, ${Math.min(1, Math.sqrt(value)) * 0.8})`, `${matrices[i].counts[t][p]} pixels of ${matrices[i].classes[t]} predicted as ${matrices[i].classes[p]}`];
    }, run));
    const same = ids.length === 2 && matrices[0].classes.join("\n") === matrices[1].classes.join("\n");
    if (same) blocks.push(grid("difference, points", matrices[0].classes, (t, p) => {
      const [a, b] = [shares[1][t][p], shares[0][t][p]];
      if (a === null || b === null) return ["", "transparent", ""];
      const better = t === p ? a - b : b - a;
      return [Math.abs(a - b) < 0.0005 ? "0" : signed(100 * (a - b), 1), diverging(Math.max(-1, Math.min(1, better * 8))), `${signed(100 * (a - b))} points`];
    }, chosen));
    return h("section.card", { id: "confusions" }, h("div", { style: { display: "flex", gap: "12px", alignItems: "center", marginBottom: "8px" } }, h("h2", {}, "Confusion: shares of each true class, %"), h("div.grow"),
      field("Run", select(known.filter((/** @type {string} */ id) => id !== reference).map((/** @type {string} */ id) => /** @type {[string, string]} */ ([id, context.name(id)])), chosen, (value) => state.set({ cm: value }), { id: "cm" }))),
    h("p.muted", {}, "Rows: truth. Columns: prediction. A click on a cell opens the samples behind it."), h("div.confusions", {}, blocks));
  }

  async function scatter() {
    const known = data.runs.map((/** @type {any} */ row) => row.run);
    const reference = context.reference();
    const others = known.filter((/** @type {string} */ id) => id !== reference);
    if (!known.includes(reference) || !others.length) return null;
    const holder = h("div.echart.tall", { id: "scatter", style: { maxWidth: "640px" } });
    const section = h("section.card", {}, h("h2", {}, "Each image: run against reference"), h("p.muted", {}, "Above the line the run is better. A click on a dot opens its sample."), holder);
    const replies = await Promise.all(others.map((/** @type {string} */ run) => getJSON("scatter", { run, reference, split: split(), which: which() })));
    setTimeout(async () => {
      chart?.dispose();
      chart = await echart(holder, (theme) => ({
        grid: { left: 52, right: 20, top: 14, bottom: 44 },
        tooltip: { renderMode: "richText", formatter: (/** @type {any} */ p) => `${p.value[2]}\n${context.name(reference)} ${number(p.value[0], 3)}\n${context.name(p.seriesId)} ${number(p.value[1], 3)}` },
        xAxis: { ...theme.axis, name: "IoU of the reference", nameLocation: "middle", nameGap: 28, min: 0, max: 1 }, yAxis: { ...theme.axis, name: "IoU of the run", nameLocation: "middle", nameGap: 36, min: 0, max: 1 },
        series: [...replies.map((reply, i) => ({ id: others[i], type: "scatter", symbolSize: 8, symbol: context.look(others[i]).dash.length ? "rect" : "circle", itemStyle: { color: context.look(others[i]).color, opacity: 0.75 }, data: reply.images.map((/** @type {string} */ image, /** @type {number} */ k) => [reply.x[k], reply.y[k], image]) })),
          { type: "line", data: [[0, 0], [1, 1]], symbol: "none", silent: true, lineStyle: { color: theme.muted, type: "dashed", width: 1 } }],
      }));
      chart.on("click", (/** @type {any} */ p) => p.value?.[2] && state.set({ page: "samples", open: p.value[2] }, { push: true }));
      holder.dataset.points = String(replies.reduce((sum, reply) => sum + reply.images.length, 0));
    });
    return section;
  }

  async function draw() {
    drawToolbar();
    const missing = data.missing.map((/** @type {any} */ m) => h("p.muted", {}, key(m.run), context.name(m.run), ": ", m.why));
    if (!data.runs.length) return fill(body, notice("No per-image evaluation yet", "train.py logs one at each validation: it is what paired tests need. ", split() === "test" ? "Runs log the test split when they are evaluated on it." : ""), missing);
    const verdicts = data.runs.filter((/** @type {any} */ row) => row.run !== context.reference()).map(verdict).filter(Boolean);
    fill(body, h("section.card", { id: "verdicts" }, h("h2", {}, "Verdict"), verdicts.length ? verdicts : h("p.muted", {}, "Choose at least two runs that were evaluated on the same images."), missing), table(), await confusions(), await scatter());
  }

  drawToolbar();
  await load();
  return {
    async update(keys) {
      if (["runs", "ref", "split", "which"].some((k) => keys.has(k))) await load();
      else if (keys.has("cm")) await draw();
    },
    async live(ids) {
      if (!ids.some((id) => context.selected().includes(id))) return;
      const scroll = root.scrollTop;
      data = await getJSON("compare", { runs: context.selected(), reference: context.reference(), split: split(), which: which() });
      await draw();
      root.scrollTop = scroll;
    },
    destroy() {
      chart?.dispose();
    },
  };
}
