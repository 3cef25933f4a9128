// @ts-check
// What differs between runs: configuration, environment, packages, code.

import { getJSON } from "../api.js";
import { debounce, fill, h, notice, number } from "../dom.js";
import * as state from "../state.js";

/** @typedef {import("../app.js").Context} Context */

const MAX_ROWS = 800;
const SECTIONS = [["parameters/", "Configuration"], ["packages/", "Packages"], ["environment/", "Environment"], ["", "Other"]];

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const toolbar = h("div.toolbar");
  const body = h("div.body.diff");
  root.append(toolbar, body);
  /** @type {any} */ let data = null;
  /** @type {string[]} */ let runs = [];

  async function load() {
    runs = context.selected();
    if (!runs.length) return fill(body, notice("No run is chosen", "Click the dots in the list on the left, or “Best 5”."));
    data = await getJSON("diff", { runs, reference: context.reference() });
    draw();
    await texts();
  }

  function drawToolbar() {
    const all = state.get("same") === "1";
    fill(toolbar,
      h("label.field", {}, h("input", { id: "same", type: "checkbox", checked: !all, onchange: (/** @type {any} */ e) => state.set({ same: e.target.checked ? null : "1" }) }), h("span", {}, "Differences only")),
      h("input", { type: "search", placeholder: "Name or value contains…", value: state.get("find"), "aria-label": "Search", oninput: debounce(200, (/** @type {any} */ e) => state.set({ find: e.target.value })) }),
      h("span.muted", {}, "Shaded: differs from the reference ", h("strong", {}, context.name(context.reference()))));
  }

  const show = (/** @type {any} */ value) => (value === null || value === undefined ? "–" : Array.isArray(value) ? value.join(", ") : typeof value === "number" ? number(value, 7) : String(value));

  function draw() {
    const all = state.get("same") === "1";
    const find = state.get("find").toLowerCase();
    const place = runs.indexOf(context.reference());
    const rows = data.rows.filter((/** @type {any} */ row) => (all || row.differs) && (!find || row.path.toLowerCase().includes(find) || row.values.some((/** @type {any} */ v) => show(v).toLowerCase().includes(find))));
    const left = rows.length - MAX_ROWS;
    rows.length = Math.min(rows.length, MAX_ROWS);
    const head = h("tr", {}, h("th", {}, ""), runs.map((id) => h("th", {}, h("span.key", { className: `key${context.look(id).dash.length ? " dashed" : ""}`, style: { borderColor: context.look(id).color } }), context.name(id), id === context.reference() ? " ★" : "")));
    const taken = new Set();
    const sections = SECTIONS.flatMap(([prefix, title]) => {
      const members = rows.filter((/** @type {any} */ row) => !taken.has(row) && row.path.startsWith(prefix));
      for (const row of members) taken.add(row);
      if (!members.length) return [];
      let group = "";
      return [h("tr.group", {}, h("th", { colSpan: runs.length + 1 }, title)), members.map((/** @type {any} */ row) => {
        const name = row.path.slice(prefix.length);
        const [first, ...rest] = name.split("/");
        const repeated = rest.length && first === group;
        group = first;
        return h("tr", { "data-path": row.path }, h("td", { title: row.path }, repeated ? h("span.muted", {}, `${first}.`) : rest.length ? `${first}.` : "", rest.length ? rest.join(".") : first),
          row.values.map((/** @type {any} */ value) => {
            const same = JSON.stringify(value) === JSON.stringify(row.values[place]);
            const number_ = typeof value === "number" && typeof row.values[place] === "number" && !same && row.values[place] !== 0;
            return h("td", { className: `${same ? "" : "changed"}${value === null ? " absent" : ""}` }, show(value), number_ && h("span.muted", {}, `  ×${number(value / row.values[place], 3)}`));
          }));
      })];
    });
    fill(body, data.warnings.map((/** @type {any} */ w) => h("div.warning", { role: "alert" }, h("strong", {}, context.name(w.run)), " is not compared fairly: ", w.reasons.join("; "), ".")),
      h("section.card.scroll", {}, sections.length ? h("table.plain", { id: "differences" }, h("thead", {}, head), h("tbody", {}, sections))
        : h("p.muted", {}, find ? "Nothing matches the search." : runs.length < 2 ? "Choose a second run to compare with." : "These runs have the same configuration, packages and environment.")),
      left > 0 && h("p.muted", {}, `and ${left} more: narrow the search above`),
      h("div", { id: "texts", className: "two" }));
  }

  async function texts() {
    const holder = body.querySelector("#texts");
    if (!holder) return;
    const reference = context.reference();
    const others = runs.filter((id) => id !== reference);
    const blocks = await Promise.all(data.texts.filter((/** @type {any} */ t) => t.differs).flatMap((/** @type {any} */ text) => others.map(async (run) => {
      const { lines } = await getJSON("textdiff", { run, reference, path: text.path });
      if (!lines.length) return null;
      return h("section.card", {}, h("h3", {}, text.path, ": ", context.name(reference), " → ", context.name(run)), h("pre.text", { "data-path": text.path }, lines.slice(0, 2000).map((/** @type {string} */ line) => h("div", { className: line.startsWith("@@") ? "hunk" : line[0] === "+" ? "add" : line[0] === "-" ? "del" : "" }, line))));
    })));
    fill(holder, blocks);
  }

  drawToolbar();
  await load();
  return {
    async update(keys) {
      drawToolbar();
      if (keys.has("runs") || keys.has("ref")) await load();
      else if (keys.has("same") || keys.has("find")) { draw(); await texts(); }
    },
  };
}
