// @ts-check
// Objects with run-length encoded masks: decoding, matching between two runs, painting. No page.

/**
 * @typedef {{size: [number, number], counts: string}} Rle height and width; COCO's compressed counts
 * @typedef {{category_id: number, bbox: [number, number, number, number], score?: number, segmentation: Rle, mask?: Uint8Array, area?: number}} Found
 * @typedef {{size: [number, number], classes: {id: number, name: string, color: number[]}[], objects: Found[]}} Detections
 * @typedef {"kept" | "relabelled" | "gained" | "lost"} Status
 */

/** @type {Record<Status, [number, number, number]>} */
export const STATUS_COLORS = { kept: [40, 170, 90], relabelled: [240, 150, 30], gained: [40, 120, 235], lost: [220, 50, 40] };

/**
 * Pixels of a mask, row by row. COCO stores the runs column by column, each as 5-bit groups that from the third
 * on are differences to the run before the last.
 * @param {Rle} rle @returns {Uint8Array}
 */
export function decodeRle({ size: [height, width], counts }) {
  /** @type {number[]} */ const runs = [];
  for (let i = 0; i < counts.length; ) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const code = counts.charCodeAt(i++) - 48;
      value |= (code & 31) << shift;
      more = (code & 32) !== 0;
      shift += 5;
      if (!more && (code & 16) !== 0) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  const mask = new Uint8Array(height * width);
  let place = 0;
  runs.forEach((length, i) => {
    if (i % 2) for (let k = place; k < place + length; k++) mask[(k % height) * width + Math.floor(k / height)] = 1;
    place += length;
  });
  return mask;
}

/** The mask of an object, decoded once. @param {Found} object */
export function maskOf(object) {
  if (!object.mask) {
    object.mask = decodeRle(object.segmentation);
    object.area = object.mask.reduce((sum, v) => sum + v, 0);
  }
  return object.mask;
}

/** @param {Found} a @param {Found} b */
export function maskIou(a, b) {
  const [ax, ay, aw, ah] = a.bbox;
  const [bx, by, bw, bh] = b.bbox;
  if (Math.min(ax + aw, bx + bw) <= Math.max(ax, bx) || Math.min(ay + ah, by + bh) <= Math.max(ay, by)) return 0;
  const [first, second] = [maskOf(a), maskOf(b)];
  let both = 0;
  for (let i = 0; i < first.length; i++) both += first[i] & second[i];
  return both / ((a.area || 0) + (b.area || 0) - both || 1);
}

/**
 * What became of the reference's objects in a run: each is matched with the one that overlaps it most, the
 * largest overlap first, at least `least`.
 * @param {Found[]} found @param {Found[]} reference @param {number} least
 * @returns {{object: Found, status: Status}[]} lost ones are the reference's
 */
export function match(found, reference, least = 0.5) {
  const pairs = found.flatMap((object, i) => reference.map((other, k) => ({ i, k, iou: maskIou(object, other) })))
    .filter((pair) => pair.iou >= least).sort((a, b) => b.iou - a.iou);
  const mine = new Map();
  const taken = new Set();
  for (const { i, k } of pairs) if (!mine.has(i) && !taken.has(k)) mine.set(i, k), taken.add(k);
  return [
    ...found.map((object, i) => ({ object, status: /** @type {Status} */ (!mine.has(i) ? "gained" : reference[mine.get(i)].category_id === object.category_id ? "kept" : "relabelled") })),
    ...reference.filter((_, k) => !taken.has(k)).map((object) => ({ object, status: /** @type {Status} */ ("lost") })),
  ];
}

/** Fills the masks of objects, later ones on top. @param {{object: Found, color: number[]}[]} items @param {Uint32Array} out */
export function paintMasks(items, out) {
  for (const { object, color } of items) {
    const value = ((255 << 24) | (color[2] << 16) | (color[1] << 8) | color[0]) >>> 0;
    const mask = maskOf(object);
    for (let i = 0; i < mask.length; i++) if (mask[i]) out[i] = value;
  }
}
