// @ts-check
// The frame around all pages: top bar, runs rail, live updates, keys.

import { getJSON } from "./api.js";
import { assign } from "./colors.js";
import { debounce, duration, field, fill, h, notice, number, select, toast } from "./dom.js";
import * as state from "./state.js";
import { RunTable } from "./table.js";

/**
 * @typedef {Object} Context what a page gets
 * @property {RunTable} table
 * @property {() => string[]} selected ids of the chosen runs, the reference first
 * @property {() => string} reference id of the run that others are held against
 * @property {() => string} metric path of the primary metric
 * @property {() => "max" | "min"} direction
 * @property {(id: string) => {color: string, dash: number[]}} look
 * @property {(id: string) => string} name
 * @property {() => import("./table.js").Row[]} rows those that pass the filter
 * @property {(ids: string[]) => void} select
 * @property {() => Promise<void>} reload
 * @property {(work: () => void | Promise<void>) => Promise<void>} busy says that the page is not ready until the work is done
 *
 * @typedef {{update?: (keys: Set<string>) => void | Promise<void>, live?: (ids: string[]) => void | Promise<void>,
 *   key?: (event: KeyboardEvent) => boolean, destroy?: () => void}} Page
 */

const PAGES = [
  ["runs", "Runs"], ["charts", "Charts"], ["samples", "Samples"], ["compare", "Compare"],
  ["diff", "Diff"], ["sweep", "Sweep"], ["weights", "Weights"], ["run", "Run"],
];
const LIVE_SECONDS = 2;

const table = new RunTable();
/** @type {string[]} */ let projects = [];
/** @type {import("./table.js").Row[]} */ let shown = [];
let filterError = "";
/** @type {Page} */ let page = {};
/** @type {Map<string, {color: string, dash: number[]}>} */ let looks = new Map();
let lastChange = 0;
/** The runs that were chosen by themselves; a first start reads its folder while the page is open. */
let automatic = "";
let railOpen = localStorage.getItem("segtrail-rail") !== "closed";

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @type {Context} */
const context = {
  table,
  selected() {
    const ids = state.getList("runs").filter((id) => table.byId.has(id));
    const reference = context.reference();
    return reference ? [reference, ...ids.filter((id) => id !== reference)] : ids;
  },
  reference() {
    const id = state.get("ref");
    return table.byId.has(id) ? id : state.getList("runs").find((known) => table.byId.has(known)) || "";
  },
  metric: () => state.get("metric") || table.defaultMetric(),
  direction() {
    const chosen = state.get("dir");
    if (chosen === "min" || chosen === "max") return chosen;
    return /loss|error|hausdorff|distance/i.test(context.metric()) ? "min" : "max";
  },
  look: (id) => looks.get(id) || { color: "var(--muted)", dash: [] },
  name(id) {
    const row = table.byId.get(id);
    if (!row) return id;
    return table.rows.some((other) => other.name === row.name && other.id !== id) ? `${row.name} ${row.sys_id}` : row.name;
  },
  rows: () => shown,
  select(ids) {
    state.set({ runs: state.asList(new Set(ids)), ref: ids.includes(state.get("ref")) ? state.get("ref") : null });
  },
  async reload() {
    await table.load(state.get("project"));
    await applyFilter();
    drawRail();
    await page.live?.([]);
  },
  busy,
};

// ---------------------------------------------------------------- top bar

function drawTop() {
  const current = state.get("page", "runs");
  const metrics = table.metrics();
  const metric = context.metric();
  if (metric && !metrics.includes(metric)) metrics.unshift(metric);
  const search = h("input", {
    id: "search", type: "search", value: state.get("q"), spellcheck: false,
    placeholder: "Filter: mIoU > 0.7 and model = unet", title: "Names, tags, or an expression over columns (key: /)",
    oninput: debounce(200, () => state.set({ q: search.value })),
  });
  fill($("top"),
    h("button.icon", { title: "Show or hide the runs", "aria-label": "Runs rail", onclick: toggleRail }, "☰"),
    h("a.brand", { href: state.link({ page: null }), onclick: go("runs") }, "segtrail"),
    select(projects.map((name) => /** @type {[string, string]} */ ([name, name])), state.get("project"),
      (value) => { location.search = `?project=${encodeURIComponent(value)}`; }, { id: "project", "aria-label": "Project", title: "Project" }),
    h("nav", { "aria-label": "Pages" }, PAGES.map(([key, label], index) =>
      h("a", { href: state.link({ page: key === "runs" ? null : key }), title: `${label} (key: ${index + 1})`, "data-page": key,
        "aria-current": key === current ? "page" : undefined, onclick: go(key) }, label))),
    h("div.grow"), search,
    field("Metric", select(metrics.map((path) => /** @type {[string, string]} */ ([path, path])), metric,
      (value) => state.set({ metric: value, dir: null }), { id: "metric" })),
    h("button", { id: "direction", title: "Which direction is better", onclick: () => state.set({ dir: context.direction() === "max" ? "min" : "max" }) },
      context.direction() === "max" ? "↑ higher" : "↓ lower"),
    h("button", { id: "live", "aria-pressed": String(isLive()), title: "Follow runs while they train", onclick: () => state.set({ live: isLive() ? "off" : null }) },
      h("span.pulse"), h("span", { id: "age" }, "")),
    h("button.icon", { title: "Light or dark", "aria-label": "Theme", onclick: switchTheme }, "◐"),
    h("button", { id: "copy", title: "Copy a link to this view", onclick: copyLink }, "Link"));
  showAge();
}

/** @param {string} key */
const go = (key) => (/** @type {MouseEvent} */ event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  state.set({ page: key === "runs" ? null : key }, { push: true });
};

function toggleRail() {
  railOpen = !railOpen;
  localStorage.setItem("segtrail-rail", railOpen ? "open" : "closed");
  document.body.classList.toggle("no-rail", !railOpen);
  dispatchEvent(new Event("resize"));
}

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("segtrail-theme", theme);
  void show();
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    toast("Link copied");
  } catch {
    toast("The browser does not let this page copy; the address bar holds the link");
  }
}

// ---------------------------------------------------------------- runs rail

function drawRail() {
  const chosen = state.getList("runs").filter((id) => table.byId.has(id));
  looks = assign(chosen);
  const reference = context.reference();
  const metric = context.metric();
  const direction = context.direction();
  const isChosen = new Set(chosen);
  const rest = table.ranked(shown.filter((row) => !isChosen.has(row.id)), metric, direction);
  const runPage = state.link({ page: "run", run: null });
  const item = (/** @type {import("./table.js").Row} */ row) => {
    const on = isChosen.has(row.id);
    const look = context.look(row.id);
    return h("li", { className: on ? "on" : "", "data-run": row.id },
      h("button.dot", {
        role: "checkbox", "aria-checked": String(on), "aria-label": `Compare ${row.name}`, title: on ? "Leave out" : "Compare",
        style: { color: look.color }, className: `dot${on ? " filled" : ""}${look.dash.length ? " dashed" : ""}`,
        onclick: () => context.select(on ? chosen.filter((id) => id !== row.id) : [...chosen, row.id]),
      }),
      h("a.name", { href: `${runPage}&run=${encodeURIComponent(row.id)}`, title: `${row.name}\n${row.sys_id} · ${row.state}`,
        onclick: (/** @type {MouseEvent} */ e) => { if (e.ctrlKey || e.metaKey) return; e.preventDefault(); state.set({ page: "run", run: row.id }, { push: true }); } },
        context.name(row.id)),
      row.state === "running" && h("span.running", { title: "Running" }),
      h("span.value", {}, number(table.best(row, metric, direction), 4)),
      h("button.star", { "aria-pressed": String(row.id === reference), title: "Reference run (key: r)", "aria-label": `Reference ${row.name}`,
        onclick: () => state.set({ ref: row.id, runs: state.asList(on ? chosen : [...chosen, row.id]) }) }, row.id === reference ? "★" : "☆"));
  };
  const rows = chosen.map((id) => /** @type {import("./table.js").Row} */ (table.byId.get(id)));
  const scroll = $("rail").querySelector(".list")?.scrollTop || 0;
  fill($("rail"),
    h("div.railhead", {},
      h("strong", {}, `${chosen.length} compared`), h("span.muted", {}, ` of ${shown.length}${shown.length === table.rows.length ? "" : ` (${table.rows.length} in all)`}`),
      h("div.grow"),
      h("button.small", { title: "Choose the best five of the filter", onclick: () => context.select(table.ranked(shown, metric, direction).slice(0, 5).map((row) => row.id)) }, "Best 5"),
      h("button.small", { title: "Choose none", onclick: () => context.select([]) }, "None")),
    filterError && h("p.error", { role: "alert" }, filterError),
    h("ul.list", {}, rows.map(item), rest.length > 0 && chosen.length > 0 && h("li.line"), rest.slice(0, 150).map(item),
      rest.length > 150 && h("li.more", {}, `and ${rest.length - 150} more: narrow the filter`)));
  const list = $("rail").querySelector(".list");
  if (list) list.scrollTop = scroll;
}

async function applyFilter() {
  try {
    const { rows, error } = await table.filter(state.get("q"));
    shown = rows;
    filterError = error;
  } catch (error) {
    shown = table.rows;
    filterError = /** @type {Error} */ (error).message;
  }
}

// ---------------------------------------------------------------- pages

let showing = 0;

const pageKey = () => (PAGES.some(([name]) => name === state.get("page", "runs")) ? state.get("page", "runs") : "runs");

/** @param {string} key */
const pageModule = (key) => import(`./pages/${key}.js`);

/** The body says which page is ready only while nothing that changes the page is under way. */
let underway = 0;

/** @param {() => void | Promise<void>} work */
async function busy(work) {
  underway++;
  document.body.dataset.ready = "";
  try {
    await work();
  } finally {
    if (!--underway) document.body.dataset.ready = pageKey();
  }
}

const show = () => busy(async () => {
  const ticket = ++showing;
  page.destroy?.();
  page = {};
  const key = pageKey();
  drawTop();
  const root = $("page");
  root.className = `page-${key}`;
  document.title = `${PAGES.find(([name]) => name === key)?.[1]} · ${state.get("project") || "segtrail"}`;
  if (!table.rows.length && !table.trashed) {
    fill(root, notice("No runs yet", "Train one with ", h("code", {}, "python train.py"),
      ", or start ", h("code", {}, "segtrail ui DIR"), " with a folder that holds ", h("code", {}, ".neptune"),
      ". Runs appear here by themselves."));
    return;
  }
  try {
    const module = await pageModule(key);
    if (ticket !== showing) return;
    fill(root);
    page = await module.mount(root, context);
  } catch (error) {
    if (ticket === showing) fill(root, notice("This page could not be shown", /** @type {Error} */ (error).message));
    console.warn(error);
  }
});

state.subscribe(async (keys) => {
  if (keys.has("project")) return location.reload();
  if (keys.has("q")) await applyFilter();
  if (["q", "runs", "ref", "metric", "dir"].some((key) => keys.has(key))) drawRail();
  if (keys.has("page")) return show();
  if (["metric", "dir", "live", "runs", "ref"].some((key) => keys.has(key))) drawTop();
  else for (const node of $("top").querySelectorAll("nav a"))
    /** @type {HTMLAnchorElement} */ (node).href = state.link({ page: node.getAttribute("data-page") === "runs" ? null : node.getAttribute("data-page") });
  try {
    await busy(() => page.update?.(keys));
  } catch (error) {
    toast(/** @type {Error} */ (error).message);
  }
});

/** Chooses the best five runs, quietly. */
function chooseBest() {
  const best = table.ranked(table.rows, context.metric(), context.direction()).slice(0, 5);
  automatic = state.asList(best.map((row) => row.id));
  state.set({ runs: automatic }, { quiet: true });
}

// ---------------------------------------------------------------- live

const isLive = () => state.get("live") !== "off";

function showAge() {
  const age = $("age");
  if (age) age.textContent = !isLive() ? "paused" : lastChange ? `${duration((Date.now() - lastChange) / 1000)} ago` : "live";
}

async function poll() {
  showAge();
  if (isLive() && !document.hidden && document.body.dataset.ready) {
    try {
      const { version, runs, changed } = await getJSON("changes", { since: table.version, project: state.get("project") });
      document.body.classList.remove("offline");
      if (changed) lastChange = changed;
      if (runs.length && !table.rows.length) await begin();
      else if (runs.length) {
        await table.refresh(runs);
        const more = automatic && state.get("runs") === automatic && automatic.split(",").length < 5;
        if (more) chooseBest();
        await applyFilter();
        drawRail();
        if (more) drawTop();
        await page.live?.(more ? [...runs, ...state.getList("runs")] : runs);
      }
      table.version = version;
    } catch (error) {
      document.body.classList.add("offline");
      $("age").textContent = "server away";
    }
  }
  setTimeout(poll, LIVE_SECONDS * 1000);
}

// ---------------------------------------------------------------- keys

addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") target.blur();
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !(target instanceof HTMLInputElement && target.type === "range")) return;
  if (page.key?.(event)) return event.preventDefault();
  if (event.key >= "1" && event.key <= String(PAGES.length)) state.set({ page: PAGES[+event.key - 1][0] === "runs" ? null : PAGES[+event.key - 1][0] }, { push: true });
  else if (event.key === "/") $("search").focus(), event.preventDefault();
  else if (event.key === "r") {
    const ids = context.selected();
    const next = ids[1];
    if (next) state.set({ ref: next });
  } else if (event.key === "b") toggleRail();
});

// ---------------------------------------------------------------- start

async function begin() {
  ({ projects } = await getJSON("projects"));
  if (!projects.includes(state.get("project"))) state.set({ project: projects[0] || null }, { quiet: true });
  await table.load(state.get("project"));
  if (!state.has("runs") && table.rows.length) chooseBest();
  await applyFilter();
  drawRail();
  await show();
}

document.body.classList.toggle("no-rail", !railOpen);
pageModule(pageKey()).catch(() => undefined); // read while the server gathers the runs; show() says what failed
try {
  await begin();
} catch (error) {
  fill($("page"), notice("The server does not answer", /** @type {Error} */ (error).message, " Reload when it is back."));
  document.body.dataset.ready = "error";
}
setTimeout(poll, LIVE_SECONDS * 1000);
