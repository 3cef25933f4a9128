// @ts-check
// Everything of one run: figures, samples over steps, files, console, checkpoints, how to run it again.

import { fileURL, getJSON } from "../api.js";
import { debounce, duration, fill, h, notice, number, segmented, select, size, toast } from "../dom.js";
import * as state from "../state.js";

/** @typedef {import("../app.js").Context} Context */

const PAGE = 300;
const TEXT = /^(yaml|yml|txt|log|diff|patch|json|csv|md|py|toml|ini|cfg|sh)$/i;

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const toolbar = h("div.toolbar");
  const body = h("div.body");
  root.append(toolbar, body);
  const run = () => (context.table.byId.has(state.get("run")) ? state.get("run") : context.reference() || context.table.rows[0]?.id || "");
  const tab = () => state.get("tab", "overview");

  function drawToolbar() {
    const rows = context.table.rows;
    const row = context.table.byId.get(run());
    fill(toolbar, h("div.runhead", {},
      select(rows.slice(0, 500).map((r) => /** @type {[string, string]} */ ([r.id, r.name])).concat(rows.slice(0, 500).some((r) => r.id === run()) ? [] : [[run(), context.name(run())]]), run(), (value) => state.set({ run: value, at: null }), { id: "run", "aria-label": "Run" }),
      row && h("span", {}, h("span", { className: `state ${row.state}` }), row.state),
      row && h("span.muted", {}, `${row.sys_id} · started ${new Date(row.created).toLocaleString()}${row.duration ? ` · ${duration(row.duration)}` : ""}`),
      row && row.tags.map((tag) => h("span.chip", {}, tag))),
    h("div.grow"),
    segmented([["overview", "Overview"], ["attributes", "All attributes"], ["files", "Files"], ["console", "Console"]], tab(), (value) => state.set({ tab: value === "overview" ? null : value, open: null }), "Part of the run"));
  }

  async function draw() {
    if (!run()) return fill(body, notice("No run is chosen", "Click the name of a run on the left."));
    const before = body.dataset.shown;
    const now = `${run()} ${tab()}`;
    if (before !== now) fill(body, h("p.loading", {}, "Loading…"));
    body.dataset.shown = now;
    /** @type {Record<string, () => Promise<any[]>>} */
    const parts = { overview, attributes, files, console: console_ };
    const nodes = await (parts[tab()] || overview)();
    fill(body, nodes);
  }

  // ---------------------------------------------------------------- parts

  async function overview() {
    const id = run();
    const [{ attributes: all }, { attributes: samples }] = await Promise.all([getJSON("attributes", { run: id, limit: 3000 }), getJSON("attributes", { run: id, search: "/prediction", limit: 200 })]);
    /** @type {Map<string, any>} */ const by = new Map(all.map((/** @type {any} */ a) => [a.path, a]));
    const metrics = all.filter((/** @type {any} */ a) => a.type === "floatSeries" && /^(val|test|train)\/[^/]+$/.test(a.path));
    const parameters = all.filter((/** @type {any} */ a) => a.path.startsWith("parameters/"));
    const value = (/** @type {string} */ path) => by.get(path)?.value;
    return [
      h("div.two", {},
        h("section.card", {}, h("h2", {}, "Metrics"), metrics.length ? h("table.plain", { id: "metrics" }, h("tr", {}, ["", "last", "min", "max", "points"].map((t) => h("th.num", {}, t))),
          metrics.map((/** @type {any} */ m) => h("tr", {}, h("td", {}, h("a", { href: state.link({ page: "charts", find: m.path }), onclick: go({ page: "charts", find: m.path }) }, m.path)), [m.value, m.min, m.max, m.count].map((v) => h("td.num", {}, number(v, 5))))))
          : h("p.muted", {}, "No metric was logged.")),
        h("section.card", {}, h("h2", {}, "Run it again"), ...commands(value, by), checkpoints(by))),
      film(samples),
      h("section.card", {}, h("h2", {}, `Parameters (${parameters.length})`), h("table.plain", { id: "parameters" }, parameters.map((/** @type {any} */ p) => h("tr", {}, h("td.muted", {}, p.path.slice(11).replaceAll("/", ".")), h("td.mono", {}, String(p.value)))))),
    ];
  }

  /** @param {Record<string, any>} patch */
  const go = (patch) => (/** @type {MouseEvent} */ e) => { if (e.ctrlKey || e.metaKey) return; e.preventDefault(); state.set(patch, { push: true }); };

  /** @param {(path: string) => any} value @param {Map<string, any>} by */
  function commands(value, by) {
    const commit = value("environment/git/commit");
    // The interpreter and the script by their names: their folders are another machine's.
    const line = String(value("environment/command_line") || "").replace(/^\S*python[\d.]*(?=\s)/, "python").replace(/^(python\s+)\S*\/(\w+\.py)(?=\s|$)/, "$1$2");
    if (!line) return [h("p.muted", {}, "The run did not log its command line.")];
    const dirty = value("environment/git/dirty");
    const reproduce = [commit && `git checkout ${commit}`, dirty && by.has("environment/git/diff") && "git apply run.diff   # environment/git/diff, under Files", line].filter(Boolean).join("\n");
    const last = value("checkpoints/last/path") || value("checkpoints/best/path");
    return [h("h3", {}, "The same again"), copyable(reproduce, "reproduce"), last && h("h3", { style: { marginTop: "10px" } }, "On from its last checkpoint"), last && copyable(`python train.py resume=${quoted(last)}`, "resume")];
  }

  /** @param {string} text */
  const quoted = (text) => (/^[\w./:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

  /** @param {string} text @param {string} id */
  const copyable = (text, id) => h("div.copyable", {}, h("pre.text", { id }, text), h("button.small", { onclick: async () => { try { await navigator.clipboard.writeText(text); toast("Copied"); } catch { toast("The browser does not let this page copy"); } } }, "Copy"));

  /** @param {Map<string, any>} by */
  function checkpoints(by) {
    const rows = ["best", "last"].filter((which) => by.has(`checkpoints/${which}/path`) || by.has(`checkpoints/${which}/step`));
    return rows.length > 0 && h("table.plain", { id: "checkpoints", style: { marginTop: "12px" } }, h("tr", {}, ["Checkpoint", "step", "score", "file"].map((t) => h("th", {}, t))),
      rows.map((which) => h("tr", {}, h("td", {}, which), ["step", "score", "path"].map((key) => h("td.mono", {}, number(by.get(`checkpoints/${which}/${key}`)?.value, 5))))));
  }

  /** @param {any[]} samples */
  function film(samples) {
    const series = samples.filter((a) => a.type === "imageSeries" && a.path.startsWith("samples/"));
    if (!series.length) return null;
    const wanted = state.get("sample");
    const chosen = series.find((a) => a.path === wanted) || series[0];
    const count = chosen.count;
    const shown = [...new Set(Array.from({ length: Math.min(count, 12) }, (_, i) => Math.round((i * (count - 1)) / Math.max(Math.min(count, 12) - 1, 1))))];
    return h("section.card", {}, h("div", { style: { display: "flex", gap: "12px", marginBottom: "8px" } }, h("h2.grow", {}, "One sample over the steps"),
      select(series.map((a) => /** @type {[string, string]} */ ([a.path, a.path.slice(8, -11)])), chosen.path, (value) => state.set({ sample: value }), { "aria-label": "Sample" })),
    h("div.film", {}, shown.map((index) => h("img", { src: `/ui/image?${new URLSearchParams({ run: run(), path: chosen.path, index: String(index) })}`, alt: `prediction ${index + 1} of ${count}`, title: `${index + 1} of ${count}`, loading: "lazy" }))));
  }

  async function attributes() {
    const search = state.get("find");
    const limit = state.getNumber("n", PAGE);
    const { total, attributes: found } = await getJSON("attributes", { run: run(), search, limit });
    const input = h("input", { id: "find", type: "search", placeholder: "Path contains…", value: search, oninput: debounce(250, () => state.set({ find: input.value, n: null })) });
    return [h("section.card", {}, h("div", { style: { display: "flex", gap: "10px", alignItems: "center", marginBottom: "8px" } }, input, h("span.muted", { id: "count" }, `${total} attributes`)),
      h("table.plain", { id: "attributes" }, found.map((/** @type {any} */ a) => h("tr", {}, h("td.mono", {}, a.path), h("td.muted", {}, a.type), h("td.mono", { style: { overflowWrap: "anywhere" } }, describe(a))))),
      total > found.length && h("button", { style: { marginTop: "8px" }, onclick: () => state.set({ n: limit + 5 * PAGE }) }, `Show more (${total - found.length} left)`))];
  }

  /** @param {any} a */
  function describe(a) {
    if (a.type === "file") return h("a", { href: fileURL(run(), a.path), download: "" }, `${a.ext || "file"}, ${size(a.size)}`);
    if (a.type === "fileSet") return size(a.size || 0);
    if (a.type === "floatSeries") return `${a.count} points, last ${number(a.value, 6)}, min ${number(a.min, 6)}, max ${number(a.max, 6)}`;
    if (a.type === "stringSeries" || a.type === "imageSeries") return `${a.count} entries`;
    if (a.type === "datetime") return new Date(a.value).toLocaleString();
    return Array.isArray(a.value) ? a.value.join(", ") : typeof a.value === "object" ? JSON.stringify(a.value) : String(a.value);
  }

  async function files() {
    const { attributes: all } = await getJSON("attributes", { run: run(), limit: 30000 });
    const found = all.filter((/** @type {any} */ a) => a.type === "file" && !/^(samples|weights|gradients)\//.test(a.path));
    const hidden = all.filter((/** @type {any} */ a) => a.type === "file").length - found.length;
    const chosen = found.find((/** @type {any} */ a) => a.path === state.get("file")) || found.find((/** @type {any} */ a) => a.path === "config/yaml");
    return [h("div", { style: { display: "grid", gridTemplateColumns: "minmax(260px, 380px) 1fr", gap: "16px", alignItems: "start" } },
      h("section.card", {}, h("h2", {}, `Files (${found.length})`), h("table.plain", { id: "files" }, found.map((/** @type {any} */ a) => h("tr", {}, h("td", {}, h("a", { href: state.link({ file: a.path }), onclick: go({ file: a.path }) }, a === chosen ? h("strong", {}, a.path) : a.path)), h("td.num.muted", {}, size(a.size)), h("td", {}, h("a", { href: fileURL(run(), a.path), download: "", title: "Save" }, "↓"))))),
        hidden > 0 && h("p.muted", { style: { margin: "8px 0 0" } }, `and ${hidden} of samples and weights, on their own pages`)),
      h("section.card", {}, chosen ? await preview(chosen) : h("p.muted", {}, "Choose a file to look at.")))];
  }

  /** @param {any} a */
  async function preview(a) {
    const title = h("h2", {}, a.path);
    if (/^(png|jpe?g|gif|webp|bmp)$/i.test(a.ext)) return [title, h("img.preview", { src: `/ui/image?${new URLSearchParams({ run: run(), path: a.path })}`, alt: a.path })];
    // The frame is given an origin of its own and may run nothing: the file is a stranger's page.
    if (/^html?$/i.test(a.ext)) return [title, h("p.muted", {}, "Shown without its scripts. Save it to see it whole."), h("iframe.preview", { sandbox: "", src: fileURL(run(), a.path, { preview: "true" }), title: a.path })];
    if (!TEXT.test(a.ext)) return [title, h("p.muted", {}, "No preview of this kind of file. "), h("a", { href: fileURL(run(), a.path), download: "" }, "Save it")];
    try {
      const { text } = await getJSON("text", { run: run(), path: a.path });
      return [title, h("pre.text", { id: "preview" }, text)];
    } catch (error) {
      return [title, h("p.error", {}, /** @type {Error} */ (error).message)];
    }
  }

  async function console_() {
    const { streams } = await getJSON("console", { run: run() });
    if (!streams.length) return [notice("No console output", "The run did not capture what it printed.")];
    return streams.map((/** @type {any} */ s) => h("section.card", {}, h("h2", {}, s.path), h("pre.text", { "data-stream": s.path }, s.text)));
  }

  drawToolbar();
  await draw();
  return {
    async update(keys) {
      drawToolbar();
      if (["run", "tab", "find", "n", "file", "sample", "ref", "runs"].some((key) => keys.has(key))) {
        const focused = document.activeElement?.id;
        await draw();
        const input = focused === "find" ? /** @type {HTMLInputElement | null} */ (body.querySelector("#find")) : null;
        if (input) input.focus(), input.setSelectionRange(input.value.length, input.value.length);
      }
    },
    async live(ids) {
      if (!ids.includes(run()) || state.get("find")) return;
      const scroll = root.scrollTop;
      drawToolbar();
      await draw();
      root.scrollTop = scroll;
    },
  };
}
