// @ts-check
// The matrix: rows are fixed samples, columns are runs, one slider sets the step of all.

import { getJSON, postBinary, postJSON } from "../api.js";
import { debounce, fill, h, notice, number, percent, segmented, select, signed } from "../dom.js";
import { colorTable, indexAt, paintConfusion, paintDisagreement, paintErrors, paintLabels, renamed } from "../labels.js";
import { match, paintMasks, STATUS_COLORS } from "../instances.js";
import * as state from "../state.js";

/** @typedef {import("../app.js").Context} Context @typedef {import("../labels.js").LabelMap} LabelMap */
/** @typedef {{iou?: (number | null)[], mean?: number | null, wrong?: number[][], disagreement?: number, missing?: string}} Score */

const LAYERS = [["prediction", "Prediction"], ["truth", "Truth"], ["error", "Error"], ["disagreement", "vs reference"], ["confidence", "Confidence"], ["instances", "Objects"], ["input", "Input"]];
const MODES = [["best", "Best", "The best step of each run"], ["latest", "Latest", "The last step of each run"], ["step", "Step", "The same step"], ["epoch", "Epoch", "The same epoch"]];
const SORTS = [["worst", "worst first"], ["difference", "largest difference"], ["disagreement", "largest disagreement"], ["id", "name"]];
const PAGE_ROWS = 12;

/** @param {HTMLElement} root @param {Context} context @returns {Promise<import("../app.js").Page>} */
export async function mount(root, context) {
  const toolbar = h("div.toolbar");
  const legend = h("div.toolbar.legend", { style: { position: "static" } });
  const matrix = h("div.matrix");
  const dialog = h("dialog", { "aria-label": "Sample" });
  root.append(toolbar, legend, matrix, dialog);

  /** @type {any} */ let overview = { runs: {}, samples: [], classes: [], palette: [] };
  /** @type {string[]} */ let order = [];
  /** @type {Map<string, LabelMap | {missing: string}>} */ const maps = new Map();
  /** @type {Map<string, ImageBitmap | null>} */ const bitmaps = new Map();
  /** @type {Map<string, import("../instances.js").Detections | null>} */ const objects = new Map();
  /** @type {Map<string, Score>} */ const scores = new Map();
  /** @type {Cell[]} */ let cells = [];
  let blinking = false;
  let hover = { sample: "", x: 0, y: 0 };
  const view = { zoom: state.getNumber("z", 1), x: state.getNumber("vx", 0.5), y: state.getNumber("vy", 0.5) };

  // ---------------------------------------------------------------- what is shown

  const columns = () => context.selected().filter((id) => overview.runs[id]);
  const layer = () => state.get("layer", "prediction");
  const mode = () => state.get("mode", "best");
  const off = () => new Set(state.getList("off").map(Number));
  const focus = () => state.getNumber("focus", -1);
  const classes = () => overview.runs[context.reference()]?.classes?.length ? overview.runs[context.reference()].classes : overview.classes;
  const className = (/** @type {number} */ id) => (id === overview.ignore_index ? "void" : id === 254 ? "other class" : classes()[id] ?? `class ${id}`);
  const stepsOf = (/** @type {string} */ run, /** @type {string} */ sample) => overview.runs[run]?.samples[sample]?.steps || [];

  /** Values of the slider: all steps, or all epochs, that any chosen run has. @returns {number[]} */
  function stops() {
    const values = columns().flatMap((run) => overview.runs[run].epochs.map((/** @type {number[]} */ pair) => (mode() === "epoch" ? pair[1] : pair[0])));
    return [...new Set(values)].sort((a, b) => a - b);
  }

  /** The step of a run that the view asks for. @param {string} run @param {number} at */
  function wantedStep(run, at) {
    const entry = overview.runs[run];
    if (mode() === "latest") return Infinity;
    if (mode() === "best") return entry.best === null ? Infinity : entry.best;
    if (mode() === "step") return at;
    const pairs = entry.epochs.filter((/** @type {number[]} */ pair) => pair[1] <= at);
    return pairs.length ? pairs[pairs.length - 1][0] : -1;
  }

  const at = () => state.getNumber("at", stops()[stops().length - 1] ?? 0);

  /** Index of the image to show. @param {string} run @param {string} sample @param {number} [position] */
  const indexOf = (run, sample, position = at()) => indexAt(stepsOf(run, sample), wantedStep(run, position));

  const scoreKey = (/** @type {string} */ run, /** @type {string} */ sample) => `${context.reference()}|${run}|${sample}|${indexOf(run, sample)}`;

  async function loadScores() {
    const reference = context.reference();
    const wanted = columns().flatMap((run) => overview.samples.filter((/** @type {string} */ sample) => stepsOf(run, sample).length && !scores.has(scoreKey(run, sample))).map((/** @type {string} */ sample) => ({ run, sample, index: indexOf(run, sample) })));
    if (!wanted.length) return;
    const samples = new Set(wanted.map((cell) => cell.sample));
    for (const sample of samples) if (!wanted.some((c) => c.run === reference && c.sample === sample) && stepsOf(reference, sample).length) wanted.push({ run: reference, sample, index: indexOf(reference, sample) });
    const reply = await postJSON("scores", { cells: wanted, reference, ignore_index: overview.ignore_index });
    wanted.forEach((cell, i) => scores.set(`${reference}|${cell.run}|${cell.sample}|${cell.index}`, reply.scores[i]));
  }

  /** The figure of a cell: mean IoU, or the IoU of the class in view. @param {string} run @param {string} sample @returns {number | null} */
  function figure(run, sample) {
    const score = scores.get(scoreKey(run, sample));
    if (!score || score.missing) return null;
    const chosen = sortClass() >= 0 ? sortClass() : layer() === "error" ? focus() : -1;
    if (chosen < 0) return score.mean ?? null;
    const mine = overview.runs[run].classes.length ? overview.runs[run].classes.indexOf(className(chosen)) : chosen;
    return score.iou?.[mine] ?? null;
  }

  const sortClass = () => (state.get("sort").startsWith("class:") ? +state.get("sort").slice(6) : -1);
  const confused = () => (state.has("ct") && state.has("cp") ? { truth: state.getNumber("ct", 0), guess: state.getNumber("cp", 0), run: state.get("crun") || columns()[0] } : null);

  function arrange() {
    const sort = state.get("sort", "worst");
    const runs = columns();
    const reference = context.reference();
    const others = runs.filter((run) => run !== reference);
    const wrong = confused();
    /** Larger comes first. @type {(sample: string) => number} */
    let weight = () => 0;
    if (wrong) weight = (sample) => scores.get(scoreKey(wrong.run, sample))?.wrong?.find((w) => w[0] === wrong.truth && w[1] === wrong.guess)?.[2] ?? 0;
    else if (sort === "difference") weight = (sample) => Math.max(-1, ...others.map((run) => Math.abs((figure(run, sample) ?? NaN) - (figure(reference, sample) ?? NaN))).filter((v) => !Number.isNaN(v)));
    else if (sort === "disagreement") weight = (sample) => Math.max(-1, ...others.map((run) => scores.get(scoreKey(run, sample))?.disagreement ?? -1));
    else if (sort !== "id") weight = (sample) => -Math.min(2, ...runs.slice(0, 1).map((run) => figure(run, sample) ?? 2));
    const weights = new Map(overview.samples.map((/** @type {string} */ sample) => [sample, weight(sample)]));
    order = [...overview.samples].sort((a, b) => (weights.get(b) ?? 0) - (weights.get(a) ?? 0) || (a < b ? -1 : 1));
    if (wrong) order = order.filter((sample) => weight(sample) > 0);
  }

  // ---------------------------------------------------------------- reading images

  const targetSize = () => (view.zoom > 1.5 ? 0 : 512);
  const mapKey = (/** @type {string} */ run, /** @type {string} */ path, /** @type {number | null} */ index) => `${run}|${path}|${index}|${targetSize()}`;
  /** @param {string} run @param {string} path @param {number | null} index @returns {LabelMap | null} */
  const mapOf = (run, path, index) => {
    const found = maps.get(mapKey(run, path, index)) || maps.get(`${run}|${path}|${index}|512`);
    return found && !("missing" in found) ? found : null;
  };

  /** Reads label maps that are not here yet, in one request. @param {[string, string, number | null][]} wanted */
  async function loadMaps(wanted) {
    const missing = wanted.filter(([run, path, index]) => !maps.has(mapKey(run, path, index)));
    if (!missing.length) return;
    const size = targetSize();
    const reply = await postBinary("labels", { cells: missing, size });
    reply.cells.forEach((/** @type {any} */ cell, /** @type {number} */ i) => {
      const [run, path, index] = missing[i];
      maps.set(`${run}|${path}|${index}|${size}`, cell.missing ? cell : { width: cell.width, height: cell.height, full: cell.full, ids: reply.pixels.subarray(cell.offset, cell.offset + cell.width * cell.height) });
    });
    if (maps.size > 6000) for (const key of [...maps.keys()].slice(0, 2000)) maps.delete(key);
  }

  /** @param {string} url */
  async function loadBitmap(url) {
    if (bitmaps.has(url)) return;
    bitmaps.set(url, null);
    try {
      const reply = await fetch(url);
      if (reply.ok) bitmaps.set(url, await createImageBitmap(await reply.blob()));
    } catch {
      // A picture that cannot be decoded stays blank; the cell says so.
    }
  }

  const holder = (/** @type {string} */ sample, /** @type {string} */ part) => columns().find((run) => overview.runs[run].samples[sample]?.[part]);
  const imageURL = (/** @type {string} */ sample) => {
    const run = holder(sample, "image");
    return run ? `/ui/image?${new URLSearchParams({ run, path: `samples/${sample}/image`, size: "1024" })}` : "";
  };
  const confidenceURL = (/** @type {string} */ run, /** @type {string} */ sample) => {
    const steps = overview.runs[run].samples[sample]?.confidence;
    if (!steps?.length) return "";
    return `/ui/image?${new URLSearchParams({ run, path: `samples/${sample}/confidence`, index: String(indexAt(steps, wantedStep(run, at()))), size: "1024" })}`;
  };
  const targetOf = (/** @type {string} */ run, /** @type {string} */ sample) => (overview.runs[run]?.samples[sample]?.target ? run : holder(sample, "target"));

  /** All label maps that some rows need. @param {string[]} samples @param {number} [position] @returns {[string, string, number | null][]} */
  function needed(samples, position = at()) {
    /** @type {[string, string, number | null][]} */ const wanted = [];
    for (const sample of samples) {
      for (const run of columns()) {
        if (stepsOf(run, sample).length) wanted.push([run, `samples/${sample}/prediction`, indexOf(run, sample, position)]);
        const owner = targetOf(run, sample);
        if (owner) wanted.push([owner, `samples/${sample}/target`, null]);
      }
    }
    return [...new Map(wanted.map((w) => [w.join("|"), w])).values()];
  }

  // ---------------------------------------------------------------- objects

  const hasObjects = () => columns().some((run) => Object.values(overview.runs[run].samples).some((/** @type {any} */ item) => item.detections));
  const least = () => state.getNumber("score", 0.5);

  /** Key of the detections file of a cell: of a run at the step in view, or of the truth. @param {string} run @param {string} sample */
  function objectsKey(run, sample) {
    if (!run) {
      const owner = holder(sample, "objects");
      return owner ? `${owner}|samples/${sample}/objects` : "";
    }
    const steps = overview.runs[run]?.samples[sample]?.detections;
    return steps?.length ? `${run}|samples/${sample}/detections/${steps[indexAt(steps, wantedStep(run, at()))]}` : "";
  }

  async function loadObjects() {
    const wanted = [...shownRows(), ...(state.get("open") ? [state.get("open")] : [])].flatMap((sample) => ["", ...columns()].map((run) => objectsKey(run, sample)));
    await Promise.all([...new Set(wanted)].filter((key) => key && !objects.has(key)).map(async (key) => {
      const [run, path] = key.split("|");
      objects.set(key, null);
      try {
        objects.set(key, JSON.parse((await getJSON("text", { run, path })).text));
      } catch {
        // A file that is missing or damaged shows as a cell without objects.
      }
    }));
  }

  /** Objects of a cell that pass the threshold and whose class is on. @param {string} run @param {string} sample */
  function objectsOf(run, sample) {
    const found = objects.get(objectsKey(run, sample));
    const hidden = off();
    return found ? found.objects.filter((object) => (object.score ?? 1) >= least() && !hidden.has(object.category_id)) : [];
  }

  /** Objects with what became of them against the reference. @param {string} run @param {string} sample */
  function matched(run, sample) {
    const reference = context.reference();
    const mine = objectsOf(run, sample);
    if (!run || run === reference || blinking) return (blinking && run ? objectsOf(reference, sample) : mine).map((object) => ({ object, status: "" }));
    return match(mine, objectsOf(reference, sample));
  }

  /** Boxes, masks and names on a canvas. @param {any} paint @param {any} overlay canvas @param {string} run @param {string} sample @param {number} width @param {number} height @param {number} opacity */
  function drawObjects(paint, overlay, run, sample, width, height, opacity) {
    const file = objects.get(objectsKey(run, sample)) || objects.get(objectsKey(context.reference(), sample));
    if (!file) return;
    const [rows, cols] = file.size;
    const items = matched(run, sample).map((item) => ({ ...item, color: item.status ? STATUS_COLORS[/** @type {import("../instances.js").Status} */ (item.status)] : overview.palette[item.object.category_id] || [200, 200, 0] }));
    (overlay.width = cols), (overlay.height = rows);
    const surface = overlay.getContext("2d");
    const image = surface.createImageData(cols, rows);
    paintMasks(items.filter((item) => item.status !== "lost"), new Uint32Array(image.data.buffer));
    surface.putImageData(image, 0, 0);
    paint.globalAlpha = opacity * 0.7;
    if (state.get("contour") !== "1") paint.drawImage(overlay, 0, 0, width, height);
    paint.globalAlpha = 1;
    paint.font = `${11 / view.zoom * (devicePixelRatio || 1)}px system-ui, sans-serif`;
    for (const { object, status, color } of items) {
      const [x, y, w, h_] = object.bbox.map((v, i) => v * (i % 2 ? height / rows : width / cols));
      paint.strokeStyle = paint.fillStyle = `rgb(${color.join(",")})`;
      paint.lineWidth = 2 / view.zoom;
      paint.setLineDash(status === "lost" ? [6 / view.zoom, 4 / view.zoom] : []);
      paint.strokeRect(x, y, w, h_);
      const text = `${className(object.category_id)}${object.score === undefined ? "" : ` ${Math.round(100 * object.score)}`}`;
      const tall = 13 / view.zoom * (devicePixelRatio || 1);
      paint.fillRect(x, Math.max(y - tall, 0), paint.measureText(text).width + 6 / view.zoom, tall);
      paint.fillStyle = "#fff";
      paint.fillText(text, x + 3 / view.zoom, Math.max(y - tall, 0) + tall * 0.78);
    }
    paint.setLineDash([]);
  }

  // ---------------------------------------------------------------- cells

  class Cell {
    /** @param {string} sample @param {string} run "" for the column of input and truth @param {number} width css pixels */
    constructor(sample, run, width) {
      this.sample = sample;
      this.run = run;
      this.width = width;
      this.canvas = h("canvas", { "aria-label": `${sample}, ${run ? context.name(run) : "truth"}` });
      this.at = h("span.at");
      this.score = h("span.score");
      this.node = h("div.cell", { "data-sample": sample, "data-run": run || "truth" }, this.canvas, h("div.under", {}, this.score, this.at));
      this.paint = document.createElement("canvas");
      this.painted = "";
      this.listen();
    }

    /** The label map under the cursor: of this run (in the names of the reference), or the truth. @returns {LabelMap | null} */
    shownMap() {
      const run = this.run && blinking ? context.reference() : this.run;
      return run ? this.prediction(run) : this.target(context.reference());
    }

    /** @param {string} run @returns {LabelMap | null} */
    prediction(run) {
      const map = stepsOf(run, this.sample).length ? mapOf(run, `samples/${this.sample}/prediction`, indexOf(run, this.sample)) : null;
      return map && renamed(map, overview.runs[run].classes, classes());
    }

    /** @param {string} run @returns {LabelMap | null} */
    target(run) {
      const owner = targetOf(run, this.sample);
      const map = owner ? mapOf(owner, `samples/${this.sample}/target`, null) : null;
      return map && owner ? renamed(map, overview.runs[owner].classes, classes()) : null;
    }

    /** Paints the overlay of a run into this.paint. @param {string} run "" for the truth @param {string} kind layer */
    overlay(run, kind) {
      const map = run ? this.prediction(run) : this.target(context.reference());
      const target = this.target(run || context.reference());
      if (kind === "input" || kind === "confidence") return false;
      const shown = kind === "truth" || !run ? this.target(context.reference()) : map;
      if (!shown) return false;
      const key = [run, kind, targetSize(), shown.width, run ? indexOf(run, this.sample) : "", context.reference(), kind === "disagreement" ? indexOf(context.reference(), this.sample) : "", state.get("contour"), state.get("off"), focus(), state.get("ct"), state.get("cp")].join("|");
      if (this.painted === key) return true;
      if (this.paint.width !== shown.width || this.paint.height !== shown.height) (this.paint.width = shown.width), (this.paint.height = shown.height);
      const paint = /** @type {CanvasRenderingContext2D} */ (this.paint.getContext("2d"));
      const image = paint.createImageData(shown.width, shown.height);
      const out = new Uint32Array(image.data.buffer);
      const sameSize = target && target.ids.length === shown.ids.length;
      const wrong = confused();
      if (wrong && run && kind === "error" && sameSize) paintConfusion(shown, target.ids, wrong.truth, wrong.guess, out);
      else if (kind === "error" && run && sameSize) paintErrors(shown, target.ids, overview.ignore_index, focus(), off(), out);
      else if (kind === "disagreement" && run) {
        const other = this.prediction(context.reference());
        if (other && other.ids.length === shown.ids.length) paintDisagreement(shown, other.ids, out);
      } else paintLabels(shown, colorTable(overview.palette, off(), Math.max(classes().length, classes().length ? 0 : 255)), state.get("contour") === "1", sameSize ? target.ids : null, overview.ignore_index, out);
      paint.putImageData(image, 0, 0);
      this.painted = key;
      return true;
    }

    draw() {
      const target = this.target(this.run || context.reference());
      const base = bitmaps.get(imageURL(this.sample));
      const map = this.run ? this.prediction(this.run) : target;
      const size = map || target || (base ? { width: base.width, height: base.height } : null);
      const ratio = size ? size.height / size.width : 0.66;
      const dpr = Math.min(devicePixelRatio || 1, 2);
      const [width, height] = [Math.round(this.width * dpr), Math.round(this.width * ratio * dpr)];
      if (this.canvas.width !== width || this.canvas.height !== height) (this.canvas.width = width), (this.canvas.height = height);
      const paint = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
      paint.setTransform(1, 0, 0, 1, 0, 0);
      paint.clearRect(0, 0, width, height);
      const [zoom, left, top] = [view.zoom, view.x * view.zoom * width - width / 2, view.y * view.zoom * height - height / 2];
      paint.setTransform(zoom, 0, 0, zoom, -left, -top);
      paint.imageSmoothingEnabled = zoom < 3;
      const kind = this.run ? layer() : layer() === "input" ? "input" : "truth";
      if (base) paint.drawImage(base, 0, 0, width, height);
      const swipe = state.has("swipe") && this.run ? state.getNumber("swipe", 0.5) : null;
      const opacity = state.getNumber("op", kind === "error" || kind === "disagreement" ? 0.85 : 0.6);
      const show = (/** @type {string} */ run, /** @type {number} */ from, /** @type {number} */ to) => {
        paint.save();
        paint.beginPath();
        paint.rect((left + from * width) / zoom, top / zoom, ((to - from) * width) / zoom, height / zoom);
        paint.clip();
        if (kind === "confidence" && run) {
          const grey = bitmaps.get(confidenceURL(run, this.sample));
          if (grey) paint.drawImage(grey, 0, 0, width, height);
        } else if (layer() === "instances") {
          this.painted = "";
          drawObjects(paint, this.paint, run, this.sample, width, height, opacity);
        } else if (this.overlay(run, kind)) {
          paint.globalAlpha = opacity;
          paint.imageSmoothingEnabled = false;
          paint.drawImage(this.paint, 0, 0, width, height);
        }
        paint.restore();
      };
      const reference = context.reference();
      const shown = this.run && blinking ? reference : this.run;
      if (swipe === null || !this.run) show(shown, 0, 1);
      else {
        show(shown, 0, swipe);
        show(reference, swipe, 1);
        paint.setTransform(1, 0, 0, 1, 0, 0);
        paint.fillStyle = "#fff";
        paint.fillRect(swipe * width - 1, 0, 2, height);
      }
      this.caption(Boolean(map));
    }

    /** @param {boolean} there */
    caption(there) {
      this.node.querySelector(".missing")?.remove();
      if (!this.run) {
        if (!there) this.node.append(h("div.missing", {}, "no target was logged"));
        return;
      }
      const steps = stepsOf(this.run, this.sample);
      if (!there) {
        const known = maps.get(mapKey(this.run, `samples/${this.sample}/prediction`, indexOf(this.run, this.sample)));
        this.node.append(h("div.missing", {}, known && "missing" in known ? known.missing : steps.length ? "…" : "this run logged no prediction of this sample"));
      }
      const value = figure(this.run, this.sample);
      const reference = context.reference();
      const base = figure(reference, this.sample);
      const difference = value !== null && base !== null && this.run !== reference ? value - base : null;
      fill(this.score, there ? h("span", { title: "IoU of this image in percent" }, percent(value)) : "",
        difference !== null && h("span", { className: difference >= 0 ? "good" : "bad", title: "Difference to the reference" }, ` ${signed(100 * difference, 1)}`));
      if (layer() === "instances" && !this.at.dataset.cursor) {
        const counts = new Map();
        const items = matched(this.run, this.sample);
        for (const { status } of items) counts.set(status, (counts.get(status) || 0) + 1);
        this.at.textContent = counts.size === 0 || counts.has("") ? `${items.length} objects` : [...counts].map(([status, n]) => `${n} ${status}`).join(", ");
      } else if (!this.at.dataset.cursor) this.at.textContent = there ? `step ${number(steps[indexOf(this.run, this.sample)], 7)}` : "";
    }

    listen() {
      const place = (/** @type {MouseEvent} */ e) => {
        const box = this.canvas.getBoundingClientRect();
        const [u, v] = [(e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height];
        return { u, v, x: view.x + (u - 0.5) / view.zoom, y: view.y + (v - 0.5) / view.zoom };
      };
      /** @type {{x: number, y: number, moved: boolean} | null} */ let drag = null;
      this.canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ e) => {
        drag = { x: e.clientX, y: e.clientY, moved: false };
        if (view.zoom > 1) this.canvas.setPointerCapture(e.pointerId);
      });
      this.canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ e) => {
        const p = place(e);
        if (drag && Math.hypot(e.clientX - drag.x, e.clientY - drag.y) > 3) drag.moved = true;
        if (drag?.moved && view.zoom > 1 && e.buttons) {
          moveView(view.zoom, view.x - e.movementX / (this.canvas.clientWidth * view.zoom), view.y - e.movementY / (this.canvas.clientHeight * view.zoom));
          return;
        }
        if (state.has("swipe") && this.run) state.set({ swipe: +p.u.toFixed(3) }, { quiet: true }), drawAll();
        point(this.sample, p.x, p.y);
      });
      this.canvas.addEventListener("pointerup", () => {
        if (drag && !drag.moved) state.set({ open: this.sample });
        drag = null;
      });
      this.canvas.addEventListener("pointerleave", () => point("", 0, 0));
      this.canvas.addEventListener("wheel", (/** @type {WheelEvent} */ e) => {
        if (!e.ctrlKey && !e.metaKey && !e.shiftKey) return;
        e.preventDefault();
        const p = place(e);
        const zoom = Math.min(Math.max(view.zoom * Math.exp(-(e.deltaY || e.deltaX) / 300), 1), 32);
        moveView(zoom, p.x - (p.u - 0.5) / zoom, p.y - (p.v - 0.5) / zoom);
      }, { passive: false });
    }
  }

  /** Says in all cells of a row which class is under the cursor. @param {string} sample @param {number} x share of the width @param {number} y */
  function point(sample, x, y) {
    const before = hover.sample;
    hover = { sample, x, y };
    for (const cell of cells) {
      if (cell.sample !== sample && cell.sample !== before) continue;
      const map = cell.sample === sample ? cell.shownMap() : null;
      cell.at.dataset.cursor = map ? "1" : "";
      if (!map) { if (cell.run) cell.caption(Boolean(cell.prediction(cell.run))); else cell.at.textContent = ""; continue; }
      const id = map.ids[Math.min(Math.floor(y * map.height), map.height - 1) * map.width + Math.min(Math.floor(x * map.width), map.width - 1)];
      fill(cell.at, h("span.swatch", { style: { background: `rgb(${(overview.palette[id] || [128, 128, 128]).join(",")})` } }), className(id));
    }
  }

  const saveView = debounce(200, () => state.set({ z: view.zoom === 1 ? null : +view.zoom.toFixed(3), vx: view.zoom === 1 ? null : +view.x.toFixed(4), vy: view.zoom === 1 ? null : +view.y.toFixed(4) }, { quiet: true }));

  /** @param {number} zoom @param {number} x @param {number} y */
  function moveView(zoom, x, y) {
    const half = 0.5 / zoom;
    const sharper = view.zoom <= 1.5 && zoom > 1.5;
    Object.assign(view, { zoom, x: Math.min(Math.max(x, half), 1 - half), y: Math.min(Math.max(y, half), 1 - half) });
    saveView();
    drawAll();
    if (sharper) void loadMaps(needed(shownRows())).then(drawAll);
    const reset = /** @type {HTMLButtonElement | null} */ (toolbar.querySelector("#unzoom"));
    if (reset) reset.disabled = zoom === 1;
  }

  function drawAll() {
    for (const cell of cells) cell.draw();
  }

  // ---------------------------------------------------------------- layout

  const shownRows = () => order.slice(0, state.getNumber("rows", PAGE_ROWS));

  function layout() {
    const runs = columns();
    const space = Math.max((root.clientWidth || 1100) - 130 - 40, 300);
    const width = Math.floor(Math.min(Math.max(space / (runs.length + 1) - 8, 150), 340));
    matrix.style.gridTemplateColumns = `110px repeat(${runs.length + 1}, ${width}px)`;
    root.style.setProperty("--toolbar", `${toolbar.offsetHeight}px`);
    cells = [];
    const reference = context.reference();
    const head = (/** @type {any[]} */ ...content) => h("div.head", {}, ...content);
    const nodes = [head(), head(h("div.title", {}, "Input and truth")),
      ...runs.map((run) => {
        const look = context.look(run);
        const values = order.map((sample) => figure(run, sample)).filter((v) => v !== null);
        const mean = values.reduce((a, b) => a + b, 0) / (values.length || 1);
        return head(h("div.title", { title: context.name(run) }, h("span.dot.filled", { className: `dot filled${look.dash.length ? " dashed" : ""}`, style: { color: look.color, width: "11px", height: "11px" } }), context.name(run), run === reference ? " ★" : ""),
          h("div.muted", {}, values.length ? `mean of ${values.length} images ${percent(mean)}` : ""));
      })];
    for (const sample of shownRows()) {
      nodes.push(h("div.rowname", {}, sample, confused() && h("span.muted", {}, `${scores.get(scoreKey(confused()?.run || "", sample))?.wrong?.find((w) => w[0] === confused()?.truth && w[1] === confused()?.guess)?.[2] ?? 0} pixels`)));
      for (const run of ["", ...runs]) {
        const cell = new Cell(sample, run, width);
        cells.push(cell);
        nodes.push(cell.node);
      }
    }
    const left = order.length - shownRows().length;
    fill(matrix, nodes, left > 0 && h("button", { id: "more", style: { gridColumn: "1 / -1", justifySelf: "center" }, onclick: () => state.set({ rows: state.getNumber("rows", PAGE_ROWS) + PAGE_ROWS }) }, `Show ${Math.min(left, PAGE_ROWS)} more of ${left}`));
    if (!order.length) fill(matrix, notice(confused() ? "No logged sample shows this confusion" : "No samples were logged", confused() ? "The samples are a part of the validation set; the confusion may lie in other images." : "Runs of train.py log them at each validation; see the callbacks group."));
  }

  function drawToolbar() {
    const values = stops();
    const place = Math.max(0, values.findIndex((v) => v >= at()));
    const free = mode() === "step" || mode() === "epoch";
    const label = h("span.num", { id: "at", style: { minWidth: "74px", textAlign: "left" } }, free ? `${mode()} ${number(values[place], 7)}` : mode() === "best" ? "best of each" : "last of each");
    const slider = h("input", {
      id: "slider", type: "range", min: "0", max: String(Math.max(values.length - 1, 0)), value: String(free ? place : values.length - 1), "aria-label": "Step",
      style: { width: "170px" },
      oninput: async () => {
        const started = performance.now();
        const patch = { at: values[+slider.value], mode: free ? mode() : "step" };
        state.set(patch, { quiet: true });
        label.textContent = `${mode()} ${number(values[+slider.value], 7)}`;
        await loadMaps(needed(shownRows()));
        if (layer() === "confidence" || layer() === "instances") await loadPictures();
        for (const cell of cells) if (cell.run) cell.draw();
        root.dataset.drawn = String(performance.now() - started);
        prefetch(+slider.value);
      },
      onchange: () => context.busy(async () => {
        await refresh();
        drawToolbar();
      }),
    });
    const wrong = confused();
    const playing = h("button", { title: "Play through the steps", id: "play", onclick: () => play(slider) }, "▶");
    const names = classes();
    fill(toolbar,
      segmented(/** @type {any} */ (MODES), mode(), (value) => state.set({ mode: value === "best" ? null : value, at: null }), "Which step"),
      playing, slider, label,
      segmented(/** @type {any} */ (LAYERS.filter(([key]) => key !== "instances" || hasObjects())), layer(), (value) => state.set({ layer: value === "prediction" ? null : value, op: null }), "Layer"),
      h("label.field", {}, h("span", {}, "Opacity"), h("input", { id: "opacity", type: "range", min: "0", max: "1", step: "0.05", style: { width: "80px" }, value: state.get("op", layer() === "error" || layer() === "disagreement" ? "0.85" : "0.6"), oninput: (/** @type {any} */ e) => { state.set({ op: e.target.value }, { quiet: true }); drawAll(); } })),
      h("button", { "aria-pressed": String(state.get("contour") === "1"), id: "contour", title: "Outlines in place of filled regions", onclick: () => state.set({ contour: state.get("contour") === "1" ? null : "1" }) }, "Contour"),
      h("button", { "aria-pressed": String(state.has("swipe")), id: "swipe", title: "The run left of the line, the reference right of it", onclick: () => state.set({ swipe: state.has("swipe") ? null : 0.5 }) }, "Swipe"),
      h("button", { id: "blink", title: "Hold to see the reference in all columns (key: space)", "aria-pressed": String(blinking), onpointerdown: () => blink(true), onpointerup: () => blink(false), onpointerleave: () => blink(false) }, "Blink"),
      layer() === "instances" && h("label.field", {}, h("span", {}, `Score from ${least().toFixed(2)}`), h("input", { id: "score", type: "range", min: "0", max: "1", step: "0.05", value: String(least()), style: { width: "90px" },
        oninput: (/** @type {any} */ e) => { state.set({ score: e.target.value }, { quiet: true }); e.target.previousSibling.textContent = `Score from ${least().toFixed(2)}`; drawAll(); } })),
      layer() === "error" && select([["-1", "all classes"], ...names.map((/** @type {string} */ name, /** @type {number} */ id) => /** @type {[string, string]} */ ([String(id), name]))], String(focus()), (value) => state.set({ focus: value === "-1" ? null : value }), { id: "focus", title: "Errors of one class: green hit, red false, blue missed" }),
      h("div.grow"),
      wrong ? h("button", { id: "unconfuse", onclick: () => state.set({ ct: null, cp: null, crun: null }) }, `${className(wrong.truth)} taken for ${className(wrong.guess)} by ${context.name(wrong.run)} ×`)
        : h("label.field", {}, h("span", {}, "Sort"), select([.../** @type {[string, string][]} */ (SORTS), ...names.map((/** @type {string} */ name, /** @type {number} */ id) => /** @type {[string, string]} */ ([`class:${id}`, `worst ${name}`]))], state.get("sort", "worst"), (value) => state.set({ sort: value === "worst" ? null : value }), { id: "sort" })),
      h("button", { id: "unzoom", disabled: view.zoom === 1, title: "Ctrl or Shift and wheel zooms, dragging moves", onclick: () => moveView(1, 0.5, 0.5) }, "1:1"));
    drawLegend();
  }

  function drawLegend() {
    const hidden = off();
    const names = classes();
    if (layer() === "error" && !confused())
      return fill(legend, (focus() < 0 ? [["40,170,90", "right"], ["220,50,40", "wrong"]] : [["40,170,90", "true positive"], ["220,50,40", "false positive"], ["40,110,230", "false negative"]]).map(([color, text]) => h("span", {}, h("span.swatch", { style: { background: `rgb(${color})` } }), text)), h("span.muted", {}, "hatched: void, not evaluated"));
    const statuses = layer() === "instances" && Object.entries(STATUS_COLORS).map(([status, color]) => h("span", {}, h("span.swatch", { style: { background: `rgb(${color.join(",")})` } }), status));
    if (layer() === "disagreement") return fill(legend, h("span", {}, h("span.swatch", { style: { background: "rgb(235,60,190)" } }), "another class than the reference"));
    fill(legend, statuses && [h("span.muted", {}, "against the reference:"), statuses], names.map((/** @type {string} */ name, /** @type {number} */ id) => h("label", { className: hidden.has(id) ? "off" : "", title: "Click hides or shows the class" },
      h("input", { type: "checkbox", checked: !hidden.has(id), "data-class": String(id), onchange: () => { hidden.has(id) ? hidden.delete(id) : hidden.add(id); state.set({ off: state.asList(hidden) }); } }),
      h("span.swatch", { style: { background: `rgb(${overview.palette[id].join(",")})` } }), name)),
    names.length > 3 && h("button.link", { onclick: () => state.set({ off: hidden.size ? null : state.asList(names.map((/** @type {any} */ _, /** @type {number} */ id) => id)) }) }, hidden.size ? "show all" : "hide all"));
  }

  /** @param {boolean} on */
  function blink(on) {
    if (blinking === on) return;
    blinking = on;
    toolbar.querySelector("#blink")?.setAttribute("aria-pressed", String(on));
    drawAll();
  }

  let playTimer = 0;
  /** @param {HTMLInputElement} slider */
  function play(slider) {
    if (playTimer) { clearInterval(playTimer); playTimer = 0; return; }
    if (+slider.value >= +slider.max) slider.value = "0";
    playTimer = setInterval(() => {
      const current = /** @type {HTMLInputElement} */ (toolbar.querySelector("#slider"));
      if (!current || +current.value >= +current.max) { clearInterval(playTimer); playTimer = 0; current?.dispatchEvent(new Event("change")); return; }
      current.value = String(+current.value + 1);
      current.dispatchEvent(new Event("input"));
    }, 600);
  }

  /** Reads the steps beside the one on screen. @param {number} place */
  const prefetch = debounce(150, (place) => {
    const values = stops();
    const near = [place + 1, place - 1, place + 2].filter((i) => i >= 0 && i < values.length);
    loadMaps(near.flatMap((i) => needed(shownRows(), values[i]))).catch(() => {}); // it is asked for again when it is needed
  });

  async function loadPictures() {
    if (layer() === "instances") await loadObjects();
    const urls = shownRows().flatMap((sample) => [imageURL(sample), ...(layer() === "confidence" ? columns().map((run) => confidenceURL(run, sample)) : [])]).filter(Boolean);
    await Promise.all(urls.map(loadBitmap));
  }

  /** Everything again from what is known: order, cells, images. */
  async function refresh() {
    await loadScores();
    arrange();
    layout();
    await Promise.all([loadMaps(needed(shownRows())), loadPictures()]);
    drawAll();
    await openSample();
  }

  // ---------------------------------------------------------------- one sample, large

  async function openSample() {
    const sample = state.get("open");
    if (!sample || !overview.samples.includes(sample)) { if (dialog.open) dialog.close(); return; }
    await Promise.all([loadMaps(needed([sample])), loadBitmap(imageURL(sample))]);
    const runs = columns();
    const width = Math.min(560, Math.floor((Math.min(innerWidth * 0.96, 1200) - 60) / Math.min(runs.length + 1, 3)));
    const large = ["", ...runs].map((run) => new Cell(sample, run, width));
    cells = [...cells.filter((cell) => cell.node.isConnected && !dialog.contains(cell.node)), ...large];
    const names = classes();
    const row = (/** @type {string} */ title, /** @type {(run: string) => any} */ value) => h("tr", {}, h("td", {}, title), runs.map((run) => h("td.num", {}, value(run))));
    fill(dialog, h("div", { style: { display: "flex", gap: "8px", marginBottom: "10px" } }, h("h2.grow", {}, sample), h("button", { onclick: () => step(-1), title: "k" }, "‹"), h("button", { onclick: () => step(1), title: "j" }, "›"), h("button", { id: "close", onclick: () => state.set({ open: null }) }, "Close")),
      h("div.lightbox", { style: { gridAutoFlow: "row", gridTemplateColumns: `repeat(${Math.min(runs.length + 1, 3)}, minmax(0, 1fr))` } }, large.map((cell) => h("div", {}, h("strong", {}, cell.run ? context.name(cell.run) : "Truth"), cell.node))),
      h("table.plain", { style: { marginTop: "12px" } }, h("tr", {}, h("th", {}, "IoU in this image, %"), runs.map((run) => h("th.num", {}, context.name(run)))),
        row("mean of the classes present", (run) => percent(scores.get(scoreKey(run, sample))?.mean)),
        names.map((/** @type {string} */ name, /** @type {number} */ id) => row(name, (run) => percent(scores.get(scoreKey(run, sample))?.iou?.[overview.runs[run].classes.length ? overview.runs[run].classes.indexOf(name) : id])))));
    if (!dialog.open) dialog.showModal();
    for (const cell of large) cell.draw();
  }
  dialog.addEventListener("close", () => { if (state.get("open")) state.set({ open: null }); });

  /** @param {number} by */
  function step(by) {
    const place = order.indexOf(state.get("open"));
    const next = order[Math.min(Math.max(place + by, 0), order.length - 1)];
    if (next) state.set({ open: next });
  }

  async function readOverview() {
    const runs = context.selected();
    if (!runs.length) return fill(matrix, notice("No run is chosen", "Click the dots in the list on the left, or “Best 5”."));
    overview = await getJSON("samples", { runs });
  }

  await readOverview();
  if (context.selected().length) {
    drawToolbar();
    await refresh();
    prefetch(stops().length - 1);
  }
  const onresize = debounce(150, () => { layout(); drawAll(); });
  addEventListener("resize", onresize);

  return {
    async update(keys) {
      if (keys.has("runs") || keys.has("ref")) {
        await readOverview();
        if (!context.selected().length) return;
      }
      if (keys.has("z") || keys.has("vx")) Object.assign(view, { zoom: state.getNumber("z", 1), x: state.getNumber("vx", 0.5), y: state.getNumber("vy", 0.5) });
      drawToolbar();
      if (["runs", "ref", "mode", "at", "sort", "rows", "ct", "cp", "crun", "focus"].some((key) => keys.has(key))) await refresh();
      else if (keys.has("open") && keys.size === 1) await openSample();
      else {
        await loadPictures();
        drawAll();
      }
    },
    async live(ids) {
      if (ids.length && !ids.some((id) => context.selected().includes(id))) return;
      const scroll = root.scrollTop;
      await readOverview();
      drawToolbar();
      await refresh();
      root.scrollTop = scroll;
    },
    key(event) {
      const slider = /** @type {HTMLInputElement | null} */ (toolbar.querySelector("#slider"));
      if (event.key === " ") { blink(!blinking); return true; }
      if (event.key === "j" || event.key === "k") {
        if (state.get("open")) step(event.key === "j" ? 1 : -1);
        else root.scrollBy({ top: (event.key === "j" ? 1 : -1) * ((cells[0]?.node.offsetHeight || 200) + 8) });
        return true;
      }
      if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && slider && document.activeElement !== slider) {
        slider.value = String(+slider.value + (event.key === "ArrowRight" ? 1 : -1));
        slider.dispatchEvent(new Event("input"));
        slider.dispatchEvent(new Event("change"));
        return true;
      }
      return false;
    },
    destroy() {
      clearInterval(playTimer);
      removeEventListener("resize", onresize);
      if (dialog.open) dialog.close();
    },
  };
}
