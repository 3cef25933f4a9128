// @ts-check
// The table of all runs: columns, filters, groups, tags, trash, CSV.

import { getJSON, postBinary, postJSON } from "../api.js";
import { heat } from "../colors.js";
import { debounce, duration, fill, h, number, select, signed, toast } from "../dom.js";
import * as state from "../state.js";
import { TabulatorFull as Tabulator } from "../vendor/tabulator.js";

/** @typedef {import("../app.js").Context} Context @typedef {import("../table.js").Row} Row */

const SPARK = { width: 90, height: 20, points: 45 };
const KINDS = [["last", "last"], ["best", "best"], ["min", "min"], ["max", "max"]];

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const { table } = context;
  await table.need(columnKeys().map((key) => key.split("#")[0]).filter((path) => !path.startsWith("@")));
  const holder = h("div", { id: "runs-table" });
  const toolbar = h("div.toolbar");
  root.append(toolbar, holder);
  const sparks = sparkLoader(context);
  /** @type {any} */ let grid = null;
  /** @type {Promise<void>} */ let turn = Promise.resolve();

  /** Keys of the columns shown: from the view, or else the ones that differ between runs. @returns {string[]} */
  function columnKeys() {
    if (state.has("cols")) return state.getList("cols");
    const metric = context.metric();
    const all = [...table.columns.values()].filter((column) => state.get("all") === "1" || column.varies);
    const metrics = all.filter((c) => c.type === "floatSeries" && /^(val|test)\/[^/]+$/.test(c.path) && c.path !== metric);
    const known = (/** @type {string} */ path) => table.rows.reduce((count, row) => count + (row[path] === null || row[path] === undefined ? 0 : 1), 0);
    const parameters = all.filter((c) => c.path.startsWith("parameters/") && c.type !== "floatSeries")
      .map((c) => ({ path: c.path, known: known(c.path) })).sort((a, b) => b.known - a.known); // the sort keeps equal ones in order
    return [
      ...(metric ? ["@spark", `${metric}#best`, metric] : []), ...metrics.slice(0, 6).map((c) => c.path),
      ...parameters.slice(0, 24).map((c) => c.path), "@tags", "@created", "@duration",
    ];
  }

  const rows = () => context.rows();

  function columns() {
    const reference = context.reference();
    const base = table.byId.get(reference);
    /** @type {any[]} */
    const result = [
      {
        field: "@eye", title: "", width: 34, frozen: true, headerSort: false, hozAlign: "center", resizable: false,
        formatter: (/** @type {any} */ cell) => {
          const row = cell.getData();
          const on = state.getList("runs").includes(row.id);
          const look = context.look(row.id);
          return h("button", { className: `dot${on ? " filled" : ""}${look.dash.length ? " dashed" : ""}`, style: { color: look.color },
            role: "checkbox", "aria-checked": String(on), "aria-label": `Compare ${row.name}`, onclick: () => toggle(row.id) });
        },
      },
      {
        field: "name", title: "", titleFormatter: head("Run"), width: 235, frozen: true, headerFilter: "input",
        formatter: (/** @type {any} */ cell) => {
          const row = cell.getData();
          return h("span", {}, h("span", { className: `state ${row.state}`, title: row.state }),
            h("a", { href: state.link({ page: "run", run: row.id }), onclick: (/** @type {MouseEvent} */ e) => {
              if (e.ctrlKey || e.metaKey) return;
              e.preventDefault();
              state.set({ page: "run", run: row.id }, { push: true });
            } }, context.name(row.id)), row.id === reference ? h("span", { title: "Reference" }, " ★") : null);
        },
      },
    ];
    for (const key of columnKeys()) {
      if (key === "@spark") result.push({ field: key, title: "", titleFormatter: head(context.metric().split("/").slice(1).join("/") || context.metric(), "over steps"), width: 108, headerSort: false, formatter: sparks.cell });
      else if (key === "@tags") result.push({ field: "tags", title: "", titleFormatter: head("Tags"), width: 160, headerFilter: "input", headerFilterFunc: tagFilter, sorter: (/** @type {any} */ a, /** @type {any} */ b) => String(a).localeCompare(String(b)), formatter: tagCell });
      else if (key === "@created") result.push({ field: "created", title: "", titleFormatter: head("Started"), width: 120, sorter: "number", formatter: (/** @type {any} */ c) => h("span.muted", { title: new Date(c.getValue()).toLocaleString() }, ago(c.getValue())) });
      else if (key === "@duration") result.push({ field: "duration", title: "", titleFormatter: head("Duration"), width: 90, sorter: "number", hozAlign: "right", formatter: (/** @type {any} */ c) => duration(c.getValue()) });
      else result.push(valueColumn(key, base));
    }
    return result;
  }

  /** @param {string} key a path, or path#best, #min, #max @param {Row | undefined} base */
  function valueColumn(key, base) {
    const [path, kind] = key.split("#");
    const column = table.columns.get(path);
    const series = column?.type === "floatSeries";
    const numeric = series || column?.type === "float" || column?.type === "int";
    const field = kind === "best" ? `${path}#${bestKind(path)}` : key;
    const perClass = series && /\/(IoU|Dice|precision|recall)\//.test(path);
    const parts = path.split("/");
    const short = path.startsWith("parameters/") ? parts.slice(1).join(".").replace(/\._target_$/, "") : perClass ? parts.slice(-2).join(" ") : series ? parts.slice(1).join("/") || path : path;
    return {
      field, title: "", titleFormatter: head(short, series ? `${parts.length > 1 ? `${parts[0]}, ` : ""}${kind || "last"}` : "", path), width: numeric ? (kind === "best" ? 118 : 104) : 150,
      hozAlign: numeric ? "right" : "left", headerFilter: "input", headerFilterFunc: valueFilter,
      headerFilterPlaceholder: numeric ? "> 0.5" : "", sorter: numeric ? numberSorter : "string", headerSortStartingDir: "desc",
      formatter: (/** @type {any} */ cell) => {
        const value = cell.getValue();
        if (value === null || value === undefined) return h("span.muted", {}, "–");
        const text = Array.isArray(value) ? value.join(", ") : typeof value === "boolean" ? (value ? "true" : "false") : numeric ? number(value) : shorten(String(value));
        const node = h("span", { title: String(value) }, text);
        if (perClass && typeof value === "number") {
          const element = cell.getElement();
          element.style.boxShadow = `inset 4px 0 0 ${heat(value)}`;
        }
        if (base && kind === "best" && typeof value === "number" && typeof base[field] === "number" && cell.getData().id !== base.id)
          node.append(h("span", { className: "muted", style: { fontSize: "11px" } }, ` ${signed(value - base[field], 3)}`));
        return node;
      },
    };
  }

  /** @param {string} path */
  const bestKind = (path) => (path === context.metric() ? context.direction() : /loss|error/i.test(path) ? "min" : "max");

  /** @param {string} id */
  function toggle(id) {
    const chosen = state.getList("runs");
    context.select(chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]);
  }

  /** @param {any} cell */
  function tagCell(cell) {
    const row = cell.getData();
    const edit = h("button.link", { title: "Edit tags", "aria-label": `Edit tags of ${row.name}` }, row.tags.length ? "✎" : "+ tag");
    const node = h("span", {}, row.tags.map((/** @type {string} */ tag) => h("span.chip", {}, tag)), edit);
    edit.onclick = () => editTags(row, edit);
    return node;
  }

  /** Opens the editor below its button, but outside of the table: rows may be drawn anew under it. @param {Row} row @param {HTMLElement} below */
  function editTags(row, below) {
    const input = h("input", { type: "text", value: row.tags.join(", "), "aria-label": "Tags, separated by commas" });
    const place = below.getBoundingClientRect();
    const box = h("div.pop.edit", { style: { left: `${Math.max(0, Math.min(place.left, innerWidth - 280))}px`, top: `${Math.min(place.bottom + 2, innerHeight - 80)}px` } },
      h("span.muted", {}, `Tags of ${row.name}`), input);
    let done = false;
    const close = async (/** @type {boolean} */ keep) => {
      if (done) return;
      done = true;
      box.remove();
      const tags = input.value.split(",").map((/** @type {string} */ t) => t.trim()).filter(Boolean);
      if (!keep || String(tags) === String(row.tags)) return;
      try {
        await postJSON("tags", { run: row.id, tags });
        await table.refresh([row.id]);
        await inTurn(redraw);
      } catch (error) {
        toast(/** @type {Error} */ (error).message);
      }
    };
    input.onkeydown = (/** @type {KeyboardEvent} */ e) => { e.stopPropagation(); if (e.key === "Enter") void close(true); if (e.key === "Escape") void close(false); };
    input.onblur = () => close(true);
    root.append(box);
    input.focus();
  }

  // ---------------------------------------------------------------- grid

  /** One change of the table after the other: two at a time would draw the same rows twice, or lose some. @param {() => Promise<void>} change */
  const inTurn = (change) => (turn = turn.catch(() => undefined).then(change));

  function build() {
    const sort = state.get("sort") || (context.metric() ? `${context.metric()}#${context.direction()}` : "created");
    const group = state.get("group");
    const shown = columns();
    grid = new Tabulator(holder, {
      data: rows().map((row) => ({ ...row })), index: "id", columns: shown, height: "100%", layout: "fitColumns", nestedFieldSeparator: false,
      rowHeight: 31, renderVerticalBuffer: 200, movableColumns: true, columnHeaderSortMulti: false, headerFilterLiveFilterDelay: 200,
      initialSort: [{ column: sort.replace(/^-/, ""), dir: state.has("sort") ? (sort.startsWith("-") ? "desc" : "asc") : context.direction() === "min" ? "asc" : "desc" }].filter((s) => shown.some((c) => c.field === s.column)),
      placeholder: h("div", {}, state.get("q") ? "No run passes the filter" : "No runs"),
      ...(group ? { groupBy: (/** @type {any} */ row) => groupValue(row[group]), groupHeader: groupHeader, groupToggleElement: "header" } : {}),
      rowFormatter: (/** @type {any} */ row) => row.getElement().classList.toggle("reference", row.getData().id === context.reference()),
    });
    grid.on("headerClick", () => setTimeout(() => {
      const sorter = grid.getSorters()[0];
      if (sorter) state.set({ sort: (sorter.dir === "desc" ? "-" : "") + sorter.field }, { quiet: true });
    }, 60));
    grid.on("columnMoved", (/** @type {any} */ _, /** @type {any[]} */ moved) => {
      const order = moved.map((column) => column.getField());
      const keys = columnKeys();
      const place = (/** @type {string} */ key) => order.indexOf(key === "@tags" ? "tags" : key === "@created" ? "created" : key === "@duration" ? "duration" : key.endsWith("#best") ? `${key.slice(0, -5)}#${bestKind(key.slice(0, -5))}` : key);
      state.set({ cols: state.asList(keys.sort((a, b) => place(a) - place(b))) }, { quiet: true });
    });
    return new Promise((resolve) => grid.on("tableBuilt", () => resolve(undefined)));
  }

  const groupValue = (/** @type {any} */ value) => (value === null || value === undefined ? "(none)" : Array.isArray(value) ? value.join(", ") : String(value));

  /** @param {any} value @param {number} count @param {any[]} members */
  function groupHeader(value, count, members) {
    const metric = context.metric();
    const values = members.map((row) => table.best(row, metric, context.direction())).filter((v) => typeof v === "number");
    const [mean, deviation] = moments(values);
    return h("span", {}, h("strong", {}, shorten(String(value))), h("span.muted", {}, `  ${count} run${count === 1 ? "" : "s"}`),
      values.length > 0 && h("span", {}, `  ${metric} best ${number(mean)}${values.length > 1 ? ` ± ${number(deviation, 2)}` : ""}`));
  }

  async function redraw() {
    if (!grid) return;
    const left = holder.querySelector(".tabulator-tableholder")?.scrollLeft || 0;
    const top = holder.querySelector(".tabulator-tableholder")?.scrollTop || 0;
    await grid.replaceData(rows().map((row) => ({ ...row })));
    const scroller = holder.querySelector(".tabulator-tableholder");
    if (scroller) (scroller.scrollLeft = left), (scroller.scrollTop = top);
  }

  async function rebuild() {
    if (!grid) return;
    grid.destroy();
    await build();
  }

  // ---------------------------------------------------------------- toolbar

  async function drawToolbar() {
    const trash = state.get("trash") === "1";
    const chosen = state.getList("runs");
    const groups = [...table.columns.values()].filter((c) => c.varies && c.type !== "floatSeries").map((c) => c.path);
    const current = state.get("group");
    if (current && !groups.includes(current)) groups.push(current);
    fill(toolbar,
      columnMenu(),
      h("label.field", {}, h("span", {}, "Group by"), select([["", "nothing"], ["tags", "tags"], ["state", "state"], ...groups.map((path) => /** @type {[string, string]} */ ([path, path.replace(/^parameters\//, "").replaceAll("/", ".")]))], current, (value) => state.set({ group: value }), { id: "group" })),
      h("label.field", {}, h("input", { type: "checkbox", checked: state.get("all") === "1", onchange: (/** @type {any} */ e) => state.set({ all: e.target.checked ? "1" : null }) }), h("span", {}, "also columns that do not vary")),
      viewMenu(),
      h("div.grow"),
      h("button", { disabled: !chosen.length || trash, title: "Move the compared runs to the trash", onclick: () => trashRuns(chosen, true) }, "Trash"),
      h("button", { "aria-pressed": String(trash), id: "show-trash", onclick: () => state.set({ trash: trash ? null : "1" }) }, `Trash can (${table.trashed})`),
      h("button", { id: "csv", onclick: downloadCSV, title: "The rows and columns shown" }, "CSV"));
    root.querySelector(".trash")?.remove();
    holder.style.display = trash ? "none" : "";
    if (trash) {
      const { runs } = await getJSON("trash", { project: table.project });
      root.append(h("div.trash.body", {}, runs.length === 0 ? h("p.muted", {}, "The trash is empty.") :
        h("table.plain", {}, runs.map((/** @type {any} */ run) => h("tr", {}, h("td", {}, run.name || run.sys_id), h("td.muted", {}, run.sys_id),
          h("td.num", {}, h("button.small", { onclick: () => trashRuns([run.id], false) }, "Restore")))))));
    }
  }

  /** @param {string[]} ids @param {boolean} away */
  async function trashRuns(ids, away) {
    await postJSON(away ? "trash" : "restore", { runs: ids });
    if (away) context.select([]);
    await context.reload();
    toast(away ? `${ids.length} run${ids.length === 1 ? "" : "s"} in the trash` : "Restored");
  }

  function columnMenu() {
    const list = h("div", {}, h("p.muted", {}, "Loading…"));
    const search = h("input", { type: "search", placeholder: "Any attribute", "aria-label": "Search attributes", oninput: debounce(200, () => void list_()) });
    const pop = h("div.pop", { hidden: true }, search, list);
    const set = (/** @type {string[]} */ keys) => state.set({ cols: state.asList(keys) });
    const line = (/** @type {string} */ key, /** @type {string} */ label) =>
      h("label", {}, h("input", { type: "checkbox", checked: columnKeys().includes(key), onchange: (/** @type {any} */ e) => set(e.target.checked ? [...columnKeys(), key] : columnKeys().filter((k) => k !== key)) }), label);
    let asked = 0;
    const list_ = async () => {
      const ticket = ++asked;
      const { paths, types } = await getJSON("columns", { project: table.project, search: search.value ? [search.value] : [], limit: 200 });
      if (ticket !== asked) return;
      fill(list, h("button.small", { onclick: () => state.set({ cols: null }) }, "Reset to the columns that vary"),
        ["@spark", "@tags", "@created", "@duration"].map((key) => line(key, key.slice(1))),
        paths.map((/** @type {string} */ path, /** @type {number} */ i) => types[i] === "floatSeries"
          ? h("div", {}, h("label", {}, path), h("span", { style: { paddingLeft: "12px" } }, KINDS.map(([kind, label]) => { const node = line(kind === "last" ? path : `${path}#${kind}`, label); node.style.display = "inline-flex"; return node; })))
          : line(path, path)));
    };
    return menu("Columns", pop, list_);
  }

  function viewMenu() {
    const key = `segtrail-views:${table.project}`;
    /** @type {Record<string, string>} */
    const views = JSON.parse(localStorage.getItem(key) || "{}");
    const input = h("input", { type: "text", placeholder: "Name this view, Enter saves", "aria-label": "Name of the view" });
    const pop = h("div.pop", { hidden: true }, input, Object.keys(views).map((name) =>
      h("div", { style: { display: "flex", gap: "6px" } }, h("a.grow", { href: views[name] }, name),
        h("button.link", { title: "Forget", "aria-label": `Forget ${name}`, onclick: () => { delete views[name]; localStorage.setItem(key, JSON.stringify(views)); void drawToolbar(); } }, "×"))));
    input.onkeydown = (/** @type {KeyboardEvent} */ e) => {
      if (e.key !== "Enter" || !input.value.trim()) return;
      views[input.value.trim()] = location.pathname + location.search;
      localStorage.setItem(key, JSON.stringify(views));
      toast(`View “${input.value.trim()}” saved`);
      void drawToolbar();
    };
    return menu(`Views${Object.keys(views).length ? ` (${Object.keys(views).length})` : ""}`, pop);
  }

  function downloadCSV() {
    const shownColumns = columns().filter((c) => c.field !== "@eye" && c.field !== "@spark");
    const data = grid.getData("active");
    const quote = (/** @type {any} */ value) => {
      let text = value === null || value === undefined ? "" : Array.isArray(value) ? value.join(";") : String(value);
      if (/^[=+@\t\r]|^-[^0-9.]/.test(text)) text = `'${text}`; // a spreadsheet must not run a run's name
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [["id", ...shownColumns.map((c) => c.field)], ...data.map((/** @type {any} */ row) => [row.id, ...shownColumns.map((c) => row[c.field])])];
    const blob = new Blob([lines.map((line) => line.map(quote).join(",")).join("\r\n")], { type: "text/csv" });
    const anchor = h("a", { href: URL.createObjectURL(blob), download: "runs.csv" });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
  }

  await build();
  await drawToolbar();

  return {
    update: (keys) => inTurn(async () => {
      if (!grid) return;
      if (keys.has("cols")) await table.need(columnKeys().map((key) => key.split("#")[0]).filter((path) => !path.startsWith("@")));
      if (["cols", "group", "all", "metric", "dir", "ref"].some((key) => keys.has(key))) await rebuild();
      else if (keys.has("q")) await redraw();
      else if (keys.has("runs")) for (const row of grid.getRows("visible")) row.reformat();
      if (!(keys.has("cols") && keys.size === 1)) await drawToolbar(); // the menu of columns stays open
      if (keys.has("trash") && state.get("trash") !== "1") await redraw(); // it could not measure itself while hidden
    }),
    live: () => inTurn(async () => {
      while (holder.matches(":active")) await new Promise((resolve) => setTimeout(resolve, 50)); // a click needs its button
      if (!grid) return;
      sparks.forget();
      await redraw();
      if (!toolbar.querySelector(".pop:not([hidden])")) await drawToolbar();
    }),
    destroy() {
      grid?.destroy();
      grid = null;
    },
  };
}

/** @param {string} label @param {HTMLElement} pop @param {() => void} [onopen] */
function menu(label, pop, onopen) {
  const button = h("button", { "aria-expanded": "false" }, `${label} ▾`);
  const holder = h("div.menu", {}, button, pop);
  button.onclick = () => {
    pop.hidden = !pop.hidden;
    button.setAttribute("aria-expanded", String(!pop.hidden));
    if (!pop.hidden) {
      onopen?.();
      /** @type {HTMLElement | null} */ (pop.querySelector("input"))?.focus();
      const close = (/** @type {MouseEvent} */ e) => {
        if (holder.contains(/** @type {Node} */ (e.target))) return;
        pop.hidden = true;
        removeEventListener("mousedown", close);
      };
      addEventListener("mousedown", close);
    }
  };
  return holder;
}

/** A column title as text. @param {string} text @param {string} [small] @param {string} [title] */
const head = (text, small = "", title = text) => () => h("span.colhead", { title }, text, h("small", {}, small));

/** @param {string} text */
const shorten = (text) => (/^[\w]+(\.[\w]+){2,}$/.test(text) ? text.split(".").slice(-1)[0] : text.length > 60 ? `${text.slice(0, 57)}…` : text);

/** @param {number} at */
const ago = (at) => (Date.now() - at < 30 * 86400e3 ? `${duration((Date.now() - at) / 1000)} ago` : new Date(at).toLocaleDateString());

/** @param {number[]} values @returns {[number, number]} mean and sample deviation */
export function moments(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return [mean, Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(values.length - 1, 1))];
}

/** Missing values last, whichever way. @param {any} a @param {any} b @param {any} _x @param {any} _y @param {any} _c @param {string} dir */
function numberSorter(a, b, _x, _y, _c, dir) {
  const end = dir === "asc" ? 1 : -1;
  const [no, none] = [typeof a !== "number", typeof b !== "number"];
  return no || none ? (no ? end : 0) - (none ? end : 0) : a - b;
}

/** `> 0.5`, `0.1..0.3`, or part of the text. @param {string} wanted @param {any} value */
export function valueFilter(wanted, value) {
  const test = /^\s*(>=|<=|>|<|=)\s*(-?[\d.eE+-]+)\s*$/.exec(wanted);
  if (test && typeof value === "number") {
    const bound = +test[2];
    return { ">": value > bound, "<": value < bound, ">=": value >= bound, "<=": value <= bound, "=": value === bound }[test[1]];
  }
  const range = /^\s*(-?[\d.eE+-]+)\s*\.\.\s*(-?[\d.eE+-]+)\s*$/.exec(wanted);
  if (range && typeof value === "number") return value >= +range[1] && value <= +range[2];
  return String(value ?? "").toLowerCase().includes(wanted.trim().toLowerCase());
}

/** @param {string} wanted @param {string[]} tags */
const tagFilter = (wanted, tags) => tags.some((tag) => tag.toLowerCase().includes(wanted.toLowerCase()));

/** Small curves of the primary metric, fetched for the rows on screen in one request. @param {Context} context */
function sparkLoader(context) {
  /** @type {Map<string, Float32Array>} */ const known = new Map();
  /** @type {Map<string, HTMLElement>} */ const waiting = new Map();
  const load = debounce(30, async () => {
    const nodes = new Map(waiting);
    waiting.clear();
    const path = context.metric();
    const ids = [...nodes.keys()];
    /** @type {any} */ let reply;
    try {
      reply = await postBinary("series", { runs: ids, path, buckets: SPARK.points, x: "step" });
    } catch {
      return; // the server is away, which the frame says; the cells stay empty
    }
    const n = reply.x.length;
    ids.forEach((id, i) => {
      const line = reply.mean.slice(i * n, (i + 1) * n);
      known.set(`${path} ${id}`, line);
      const node = nodes.get(id);
      if (node) draw(node, line, context.look(id).color);
    });
  });
  return {
    forget: () => known.clear(),
    /** @param {any} cell */
    cell(cell) {
      const id = cell.getData().id;
      const canvas = h("canvas.spark", { width: 2 * SPARK.width, height: 2 * SPARK.height, style: { width: `${SPARK.width}px`, height: `${SPARK.height}px` } });
      const line = known.get(`${context.metric()} ${id}`);
      if (line) draw(canvas, line, context.look(id).color);
      else waiting.set(id, canvas), load();
      return canvas;
    },
  };
}

/** @param {any} canvas @param {Float32Array} line @param {string} color */
function draw(canvas, line, color) {
  const points = [...line].map((y, x) => [x, y]).filter(([, y]) => Number.isFinite(y));
  if (!points.length) return;
  const paint = canvas.getContext("2d");
  const low = Math.min(...points.map((p) => p[1]));
  const high = Math.max(...points.map((p) => p[1]));
  const last = points[points.length - 1][0] || 1;
  paint.strokeStyle = paint.fillStyle = color.startsWith("var") ? getComputedStyle(document.body).getPropertyValue("--muted") : color;
  paint.lineWidth = 2.5;
  paint.lineJoin = "round";
  paint.beginPath();
  for (const [x, y] of points) paint.lineTo(4 + (x / last) * (canvas.width - 8), canvas.height - 5 - ((y - low) / (high - low || 1)) * (canvas.height - 10));
  paint.stroke();
  if (points.length === 1) paint.fillRect(canvas.width / 2 - 2, canvas.height / 2 - 2, 5, 5);
}
