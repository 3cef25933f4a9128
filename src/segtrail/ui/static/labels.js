// @ts-check
// Label maps as arrays of class ids: errors, disagreement, outlines, colors. Pure functions, no page.

/** @typedef {{width: number, height: number, ids: Uint8Array, full: [number, number]}} LabelMap */

export const CORRECT = 0;
export const WRONG = 1;
export const MISSED = 2;
export const IGNORED = 3;

/** RGBA as the 32-bit number that ImageData holds. @param {number} r @param {number} g @param {number} b @param {number} a */
const rgba = (r, g, b, a) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

/**
 * Colors of the 256 ids; ids that are off are clear.
 * @param {number[][]} palette @param {Set<number>} off @param {number} classes ids from here on are void
 */
export function colorTable(palette, off, classes) {
  const table = new Uint32Array(256);
  for (let id = 0; id < Math.min(classes, palette.length); id++) if (!off.has(id)) table[id] = rgba(palette[id][0], palette[id][1], palette[id][2], 255);
  return table;
}

/** Whether the pixel is drawn hatched: void in the target. @param {number} x @param {number} y */
const hatched = (x, y) => ((x + y) >> 1) % 3 === 0;

/**
 * Fills or outlines regions.
 * @param {LabelMap} map @param {Uint32Array} table @param {boolean} contour only the borders between ids
 * @param {Uint8Array | null} target where its id is `ignore`, the picture is hatched @param {number} ignore @param {Uint32Array} out
 */
export function paintLabels(map, table, contour, target, ignore, out) {
  const { width, height, ids } = map;
  const grey = rgba(128, 128, 128, 255);
  if (!contour) {
    for (let i = 0; i < ids.length; i++) out[i] = table[ids[i]];
    if (target) for (let i = 0; i < ids.length; i++) if (target[i] === ignore) out[i] = hatched(i % width, (i / width) | 0) ? grey : 0;
    return;
  }
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      if (target && target[i] === ignore) { out[i] = hatched(x, y) ? grey : 0; continue; }
      const edge = (x + 1 < width && ids[i + 1] !== id) || (y + 1 < height && ids[i + width] !== id) || (x > 0 && ids[i - 1] !== id) || (y > 0 && ids[i - width] !== id);
      out[i] = edge ? table[id] : 0;
    }
}

/**
 * Errors of a prediction. With one class chosen: its true positives green, false positives red, false negatives
 * blue. Otherwise all wrong pixels red, right ones a faint green.
 * @param {LabelMap} map @param {Uint8Array} target @param {number} ignore @param {number} chosen class, or −1 for all
 * @param {Set<number>} off classes that are left out @param {Uint32Array} out
 */
export function paintErrors(map, target, ignore, chosen, off, out) {
  const { width, ids } = map;
  const right = rgba(40, 170, 90, chosen < 0 ? 70 : 200);
  const wrong = rgba(220, 50, 40, 255);
  const missed = rgba(40, 110, 230, 255);
  const grey = rgba(128, 128, 128, 255);
  for (let i = 0; i < ids.length; i++) {
    const truth = target[i];
    const guess = ids[i];
    if (truth === ignore) out[i] = hatched(i % width, (i / width) | 0) ? grey : 0;
    else if (chosen >= 0) out[i] = truth === chosen ? (guess === chosen ? right : missed) : guess === chosen ? wrong : 0;
    else if (off.has(truth) && off.has(guess)) out[i] = 0;
    else out[i] = truth === guess ? right : wrong;
  }
}

/** Pixels where two predictions differ. @param {LabelMap} map @param {Uint8Array} other @param {Uint32Array} out */
export function paintDisagreement(map, other, out) {
  const color = rgba(235, 60, 190, 255);
  for (let i = 0; i < map.ids.length; i++) out[i] = map.ids[i] === other[i] ? 0 : color;
}

/** Pixels of one confusion: the target says `truth`, the prediction `guess`. @param {LabelMap} map @param {Uint8Array} target @param {number} truth @param {number} guess @param {Uint32Array} out */
export function paintConfusion(map, target, truth, guess, out) {
  const color = rgba(255, 200, 0, 255);
  for (let i = 0; i < map.ids.length; i++) out[i] = target[i] === truth && map.ids[i] === guess ? color : 0;
}

/** Ids by the names of another class list; 254 where that lacks the name. @param {LabelMap} map @param {string[]} mine @param {string[]} theirs @returns {LabelMap} */
export function renamed(map, mine, theirs) {
  if (!mine.length || !theirs.length || mine.join("\n") === theirs.join("\n")) return map;
  const table = new Uint8Array(256).fill(254);
  table[255] = 255;
  mine.forEach((name, id) => { if (theirs.includes(name)) table[id] = theirs.indexOf(name); });
  return { ...map, ids: map.ids.map((id) => table[id]) };
}

/** Index of the last step that is not after the wanted one; 0 if all are. @param {number[]} steps rising @param {number} wanted */
export function indexAt(steps, wanted) {
  let found = 0;
  for (let i = 0; i < steps.length; i++) if (steps[i] <= wanted) found = i;
  return found;
}
