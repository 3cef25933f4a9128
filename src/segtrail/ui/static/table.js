// @ts-check
// The runs of a project with the values of their columns, shared by the rail and all pages.

import { getJSON } from "./api.js";
import { namesIn, parse, passes, resolve } from "./expression.js";

/**
 * @typedef {{id: string, name: string, sys_id: string, state: string, created: number, duration: number,
 *   tags: string[], trashed: boolean, [path: string]: any}} Row
 * `row[path]` is the value of an atom or the last of a series; `row[path + "#min"]`, `"#max"` its extremes.
 * @typedef {{path: string, type: string, varies: boolean}} Column
 */

export class RunTable {
  constructor() {
    /** @type {Row[]} */ this.rows = [];
    /** @type {Map<string, Row>} */ this.byId = new Map();
    /** @type {Map<string, Column>} */ this.columns = new Map();
    this.version = 0;
    this.project = "";
    this.trashed = 0;
    /** @type {Set<string>} columns asked for by name */ this.extra = new Set();
  }

  /** @param {string} project @param {Iterable<string>} [extra] columns beyond the server's choice */
  async load(project, extra = []) {
    for (const path of extra) this.extra.add(path);
    const reply = await getJSON("runs", { project, columns: [...this.extra] });
    this.project = project;
    this.rows = [];
    this.byId.clear();
    this.columns.clear();
    this.merge(reply);
  }

  /** Reads some runs again, or for the first time. @param {string[]} ids */
  async refresh(ids) {
    this.merge(await getJSON("runs", { project: this.project, columns: [...this.extra], ids }));
  }

  /** Adds columns. @param {string[]} paths */
  async need(paths) {
    const missing = paths.filter((path) => !this.columns.has(path) && !this.extra.has(path));
    if (missing.length) await this.load(this.project, missing);
  }

  /** @param {any} reply */
  merge(reply) {
    this.version = reply.version;
    this.trashed = reply.trashed;
    const rows = reply.runs.map((/** @type {Row} */ run) => ({ ...run }));
    for (const { path, type, varies, value, min, max } of reply.columns) {
      const known = this.columns.get(path);
      this.columns.set(path, { path, type, varies: varies || (known ? known.varies : false) });
      for (let i = 0; i < rows.length; i++) {
        rows[i][path] = value[i];
        if (min) (rows[i][path + "#min"] = min[i]), (rows[i][path + "#max"] = max[i]);
      }
    }
    for (const row of rows) {
      const old = this.byId.get(row.id);
      if (old) Object.assign(old, row);
      else this.rows.push(row), this.byId.set(row.id, row);
    }
  }

  /** @param {string} [suffix] @returns {string[]} paths of the float series */
  metrics(suffix = "") {
    return [...this.columns.values()].filter((c) => c.type === "floatSeries" && c.path.endsWith(suffix)).map((c) => c.path);
  }

  /** The metric that runs are judged by where the view names none. */
  defaultMetric() {
    const metrics = this.metrics();
    for (const wanted of ["val/mIoU", "val/mask_mAP", "val/mDice", "test/mIoU", "val/loss", "train/loss"])
      if (metrics.includes(wanted)) return wanted;
    return metrics.find((path) => path.startsWith("val/")) || metrics[0] || "";
  }

  /** Best value of a series in a run. @param {Row} row @param {string} path @param {string} direction */
  best(row, path, direction) {
    const value = row[path + (direction === "min" ? "#min" : "#max")];
    return value === undefined ? row[path] ?? null : value;
  }

  /** Rows from best to worst; those without the metric last, newest first. @param {Row[]} rows @param {string} path @param {string} direction */
  ranked(rows, path, direction) {
    const sign = direction === "min" ? 1 : -1;
    return [...rows].sort((a, b) => {
      const [x, y] = [this.best(a, path, direction), this.best(b, path, direction)];
      if (x === null || y === null) return (x === null ? 1 : 0) - (y === null ? 1 : 0) || b.created - a.created;
      return sign * (x - y) || b.created - a.created;
    });
  }

  /**
   * Rows that pass a filter; reads columns that it names and the table lacks.
   * @param {string} text @returns {Promise<{rows: Row[], error: string}>}
   */
  async filter(text) {
    const tree = parse(text);
    const names = namesIn(tree);
    const builtin = ["name", "id", "state", "tags", "created", "duration", "sys_id"];
    const unknown = names.filter((name) => !builtin.includes(name) && !resolve(name, [...this.columns.keys()]));
    if (unknown.length) {
      const { paths } = await getJSON("columns", { project: this.project, search: unknown });
      await this.need(unknown.map((name) => resolve(name, paths)).filter((path) => path !== null));
    }
    const paths = [...this.columns.keys()];
    const meaning = new Map(names.map((name) => [name, builtin.includes(name) ? name : resolve(name, paths)]));
    const missing = names.find((name) => meaning.get(name) === null);
    if (missing) return { rows: this.rows, error: `no run has “${missing}”` };
    const rows = this.rows.filter((row) =>
      passes(tree, (name) => row[/** @type {string} */ (meaning.get(name))], `${row.name} ${row.sys_id} ${row.tags.join(" ")} ${row.state}`));
    return { rows, error: "" };
  }
}
