// @ts-check
// One color a run, the same on every page: ten hues that color-blind people tell apart, solid, then dashed.

export const HUES = [
  "#0077bb", "#ee7733", "#009988", "#cc3311", "#aa4499",
  "#33a6dd", "#999933", "#ee3377", "#4a9e54", "#8866cc",
];

/** FNV-1a. @param {string} text */
function hash(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}

/**
 * A look for each chosen run. A run keeps the look of its own hash unless one chosen before it has that already.
 * @param {string[]} chosen in the order in which they were chosen
 * @returns {Map<string, {color: string, dash: number[]}>}
 */
export function assign(chosen) {
  const taken = new Set();
  const result = new Map();
  for (const id of chosen) {
    let slot = hash(id) % (2 * HUES.length);
    const hueTaken = (/** @type {number} */ s) => taken.has(s) || (taken.size < HUES.length && taken.has((s + HUES.length) % (2 * HUES.length)));
    for (let tries = 0; tries < 2 * HUES.length && hueTaken(slot); tries++) slot = (slot + 7) % (2 * HUES.length);
    taken.add(slot);
    result.set(id, look(slot));
  }
  return result;
}

/** @param {number} slot */
const look = (slot) => ({ color: HUES[slot % HUES.length], dash: slot < HUES.length ? [] : [6, 4] });

/** A color of a scale from 0 (pale) to 1 (dark), readable on both themes. @param {number} t */
export function heat(t) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const x = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(x), stops.length - 2);
  const mix = stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * (x - i)));
  return `rgb(${mix.join(",")})`;
}

/** Blue for a loss, orange for a gain, clear for none. @param {number} t from −1 to 1 */
export function diverging(t) {
  const strength = Math.min(Math.abs(t), 1);
  return t > 0 ? `rgba(0, 140, 110, ${0.75 * strength})` : `rgba(214, 80, 40, ${0.75 * strength})`;
}
