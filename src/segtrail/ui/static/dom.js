// @ts-check
// Elements and numbers. Nothing here (or anywhere in the UI) parses text as HTML.

/**
 * Makes an element: h("button.primary", {onclick}, "text", child).
 * @param {string} spec tag and classes, "div.card.wide"
 * @param {Record<string, any>} [props] properties; "data-…", "aria-…" and role become attributes
 * @param {...any} children nodes, or anything that is shown as text; null and false are left out
 * @returns {any}
 */
export function h(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key === "style") Object.assign(node.style, value);
    else if (key.includes("-") || key === "role" || key === "for" || key === "list") node.setAttribute(key, value);
    else /** @type {any} */ (node)[key] = value;
  }
  append(node, children);
  return node;
}

/** @param {Element} node @param {any[]} children */
export function append(node, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** @param {Element} node @param {...any} children */
export function fill(node, ...children) {
  node.textContent = "";
  append(node, children);
}

/** An <svg> element from attributes. @param {string} tag @param {Record<string, any>} attributes @param {...Node} children @returns {any} */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

/** A number in few characters. @param {any} value @param {number} [digits] significant digits */
export function number(value, digits = 4) {
  if (value === null || value === undefined || value === "") return "";
  if (typeof value !== "number") return String(value);
  if (Number.isNaN(value)) return "n/a";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(Math.min(digits - 1, 2)).replace("e+", "e");
  if (Number.isInteger(value)) return String(value);
  return String(+value.toPrecision(digits)).replace("-", "−");
}

/** A difference with its sign. @param {number | null | undefined} value @param {number} [decimals] */
export function signed(value, decimals = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "n/a";
  return (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(decimals);
}

/** @param {number | null | undefined} value a share of one @param {number} [decimals] */
export const percent = (value, decimals = 1) =>
  value === null || value === undefined || Number.isNaN(value) ? "n/a" : (100 * value).toFixed(decimals);

/** @param {number | null | undefined} p */
export const pValue = (p) => (p === null || p === undefined ? "n/a" : p < 0.001 ? "< 0.001" : p.toFixed(3));

/** @param {number} seconds */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) (bytes /= 1000), unit++;
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** A labeled control. @param {string} label @param {any} control */
export const field = (label, control) => h("label.field", {}, h("span", {}, label), control);

/**
 * A <select>. @param {[string, string][]} options value and label @param {string} value
 * @param {(value: string) => void} onchange @param {Record<string, any>} [props]
 */
export function select(options, value, onchange, props = {}) {
  const node = h("select", { ...props, onchange: () => onchange(node.value) },
    options.map(([key, label]) => h("option", { value: key }, label)));
  node.value = value;
  return node;
}

/**
 * Buttons of which one is down. @param {[string, string, string?][]} options value, label, title
 * @param {string} value @param {(value: string) => void} onchange @param {string} label for screen readers
 */
export const segmented = (options, value, onchange, label) =>
  h("div.segmented", { role: "group", "aria-label": label },
    options.map(([key, text, title]) =>
      h("button", { type: "button", title: title || "", "aria-pressed": String(key === value), "data-value": key,
        onclick: () => onchange(key) }, text)));

/** What a page shows in place of content. @param {string} title @param {...any} what to do about it */
export const notice = (title, ...what) => h("div.notice", {}, h("h2", {}, title), h("p", {}, ...what));

/** @param {string} text */
export function toast(text) {
  const node = /** @type {HTMLElement} */ (document.getElementById("toast"));
  node.textContent = text;
  node.classList.add("shown");
  setTimeout(() => node.classList.remove("shown"), 3500);
}

/** Runs the last of a burst of calls. @param {number} wait ms @param {(...args: any[]) => void} call */
export function debounce(wait, call) {
  let timer = 0;
  return (/** @type {any[]} */ ...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...args), wait);
  };
}
