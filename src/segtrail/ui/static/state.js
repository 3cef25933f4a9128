// @ts-check
// The view is the URL: every control writes here and every page reads from here.

const parameters = new URLSearchParams(location.search);
/** @type {Set<(keys: Set<string>) => void>} */
const listeners = new Set();

/** @param {string} key @param {string} [fallback] */
export const get = (key, fallback = "") => parameters.get(key) ?? fallback;

/** @param {string} key @param {number} fallback */
export const getNumber = (key, fallback) => {
  const text = parameters.get(key);
  return text === null || text === "" || Number.isNaN(+text) ? fallback : +text;
};

/** @param {string} key @returns {string[]} */
export const getList = (key) => (parameters.get(key) ? get(key).split(",").map(decodeURIComponent) : []);

/** @param {string} key */
export const has = (key) => parameters.has(key);

/** @param {Iterable<any>} items */
export const asList = (items) => [...items].map((item) => encodeURIComponent(item)).join(",");

/**
 * Changes some keys; null or "" removes one. Listeners hear of the keys that changed.
 * @param {Record<string, string | number | null>} patch
 * @param {{push?: boolean, quiet?: boolean}} [how] push: a new entry of the history
 */
export function set(patch, how = {}) {
  const changed = new Set();
  for (const [key, value] of Object.entries(patch)) {
    const text = value === null ? "" : String(value);
    if (get(key) === text && (text !== "" || !parameters.has(key))) continue;
    if (text === "") parameters.delete(key);
    else parameters.set(key, text);
    changed.add(key);
  }
  if (!changed.size) return;
  const url = `${location.pathname}?${parameters}`;
  if (how.push) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  if (!how.quiet) for (const listener of listeners) listener(changed);
}

/** A link to this view with some keys changed. @param {Record<string, string | number | null>} patch */
export function link(patch) {
  const copy = new URLSearchParams(parameters);
  for (const [key, value] of Object.entries(patch)) {
    if (value === null || value === "") copy.delete(key);
    else copy.set(key, String(value));
  }
  return `${location.pathname}?${copy}`;
}

/** @param {(keys: Set<string>) => void} listener */
export const subscribe = (listener) => listeners.add(listener);

addEventListener("popstate", () => {
  const before = new Set(parameters.keys());
  for (const key of before) parameters.delete(key);
  for (const [key, value] of new URLSearchParams(location.search)) parameters.set(key, value), before.add(key);
  for (const listener of listeners) listener(before);
});
