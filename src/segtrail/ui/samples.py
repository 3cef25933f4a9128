"""Fixed validation samples over runs and steps: what there is, the label maps, and how good each one is."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from segtrail.compare.evaluation import class_names_of, evaluations
from segtrail.compare.statistics import Overlap
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names
from segtrail.tracking.label_map import decode_label_map, decode_palette

_CACHE_BYTES = 256 << 20
Cell = tuple[str, str, int | None]
"""Run, path, and the index in an image series (None: a file)."""


class LabelMaps:
    """Reads label maps and the confusion of pairs of them; keeps those that were read last."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._maps: OrderedDict[str, np.ndarray] = OrderedDict()
        self._counts: OrderedDict[tuple[str, str, int], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def blob(self, cell: Cell) -> str:
        """Key of the image's content.

        Raises:
            NotFoundError: the run has no such image.
        """
        run, path, index = cell
        if index is None:
            return str(self.store.attribute(run, path, "file").value["blob"])
        page = self.store.series_page(run, path, "imageSeries", index, 1)
        if not page["values"]:
            raise NotFoundError(f"{path} has no image {index}")
        return str(page["values"][0]["blob"])

    def read(self, key: str) -> np.ndarray:
        """(H, W) uint8 ids of a blob.

        Raises:
            NotFoundError: the blob is missing.
            ValueError: it is no label map.
        """
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        try:
            with self.store.open_blob(key) as stream:
                data = stream.read()
        except (OSError, KeyError):
            raise NotFoundError("the image's file is missing from the store") from None
        label_map = decode_label_map(data)
        with self._lock:
            self._maps[key] = label_map
            self._bytes += label_map.nbytes
            while self._bytes > _CACHE_BYTES and len(self._maps) > 1:
                self._bytes -= self._maps.popitem(last=False)[1].nbytes
        return label_map

    def confusion(self, target: str, prediction: str, classes: int, ignore_index: int) -> np.ndarray:
        """(C, C) int64 counts of two label maps, rows by the target; ids that are no class are left out."""
        key = (target, prediction, classes)
        with self._lock:
            if key in self._counts:
                return self._counts[key]
        truth, guess = self.read(target), self.read(prediction)
        if truth.shape != guess.shape:
            raise ValueError(f"the prediction is {guess.shape} and the target {truth.shape} pixels")
        valid = (truth < classes) & (truth != ignore_index) & (guess < classes)
        flat = truth[valid].astype(np.int64) * classes + guess[valid]
        counts = np.bincount(flat, minlength=classes**2).reshape(classes, classes)
        with self._lock:
            self._counts[key] = counts
            while len(self._counts) > 20_000:
                self._counts.popitem(last=False)
        return counts


def overview(store: Store, runs: Sequence[str]) -> dict[str, Any]:
    """Everything that the samples page needs to lay out its matrix.

    Returns:
        ``samples``: ids; ``runs``: for each run the steps of each sample's predictions, the epoch of each
        step, the step of its best checkpoint, class names, and which samples have image, target,
        confidence, objects of the truth, and the steps of detections; ``classes``: names for the legend;
        ``palette``; ``ignore_index``.
    """
    result: dict[str, Any] = {"runs": {}, "samples": [], "classes": [], "ignore_index": 255}
    seen: dict[str, None] = {}
    palette = None
    for run in runs:
        found = store.attributes(run, "samples/")
        entry: dict[str, Any] = {"samples": {}, "classes": class_names_of(store, run), "best": None}
        for path, attribute in found.items():
            sample, _, part = path.removeprefix("samples/").rpartition("/")
            if not sample:
                continue
            if sample.endswith("/detections") and part.isdigit():
                item = entry["samples"].setdefault(sample.removesuffix("/detections"), {})
                item.setdefault("detections", []).append(int(part))
                item["detections"].sort()
                continue
            item = entry["samples"].setdefault(sample, {})
            if part == "prediction" and attribute.type == "imageSeries":
                steps = [step for _, step, _, _, _ in store.image_series(run, path)]
                item["steps"] = steps
            elif part == "confidence" and attribute.type == "imageSeries":
                item["confidence"] = [step for _, step, _, _, _ in store.image_series(run, path)]
            elif part in ("image", "target", "objects") and attribute.type == "file":
                item[part] = True
                if part == "target" and palette is None:
                    palette = _palette(store, attribute.value["blob"])
        seen.update(dict.fromkeys(entry["samples"]))
        steps = sorted({step for item in entry["samples"].values() for step in item.get("steps", ())})
        entry["epochs"] = _epochs(store, run, steps)
        entry["best"] = _best_step(store, run)
        result["runs"][run] = entry
    result["samples"] = sorted(seen)
    result["ignore_index"] = _ignore_index(store, runs)
    class_names: list[str] = max((entry["classes"] for entry in result["runs"].values()), key=len, default=[])
    if palette is None:
        palette = np.array([[(37 * i) % 200, (91 * i) % 200, (151 * i) % 200] for i in range(256)], np.uint8)
    result["palette"] = palette.tolist()
    result["classes"] = class_names
    return result


def scores(
    store: Store, maps: LabelMaps, cells: Sequence[dict[str, Any]], reference: str, ignore_index: int
) -> list[dict[str, Any]]:
    """How each prediction compares with its target and with the reference's prediction.

    Args:
        store: the run store.
        maps: where label maps come from.
        cells: each with ``run``, ``sample`` and ``index``.
        reference: the run that others are held against.
        ignore_index: id in targets that is not evaluated.

    Returns:
        For each cell ``iou`` (of each class, None where the class is in neither), ``mean`` over the present
        classes, ``wrong`` (counts of confused pairs as [target, prediction, pixels]), ``disagreement`` (the
        share of pixels where the reference predicts another class), or ``missing``: why there is none.
    """
    guesses: dict[tuple[str, str], str] = {}
    results: list[dict[str, Any]] = []
    class_names = {run: class_names_of(store, run) for run in {cell["run"] for cell in cells}}
    for cell in cells:
        run, sample, index = cell["run"], cell["sample"], cell["index"]
        try:
            guess = maps.blob((run, names.sample_prediction(sample), index))
            guesses[run, sample] = guess
            truth = maps.blob((run, names.sample_target(sample), None))
            classes = len(class_names[run]) or int(max(maps.read(guess).max(), 1)) + 1
            counts = maps.confusion(truth, guess, classes, ignore_index)
        except (NotFoundError, ValueError) as error:
            results.append({"missing": str(error)})
            continue
        row = Overlap.from_counts(counts[None]).image_scores()[0]
        values = [None if np.isnan(value) else round(float(value), 6) for value in row]
        wrong = [[int(t), int(p), int(counts[t, p])] for t, p in np.argwhere(counts) if t != p]
        results.append({"iou": values[:-1], "mean": values[-1], "wrong": wrong})
    for cell, result in zip(cells, results, strict=True):
        other = guesses.get((reference, cell["sample"]))
        mine = guesses.get((cell["run"], cell["sample"]))
        if other and mine and "mean" in result:
            first, second = maps.read(mine), maps.read(other)
            names_of = class_names.get(cell["run"], []), class_names.get(reference, [])
            if first.shape == second.shape:
                result["disagreement"] = float((_by_name(first, *names_of) != second).mean())
    return results


def images(maps: LabelMaps, cells: Sequence[Cell], size: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Label maps for the browser: what each is, and all their pixels one after the other.

    Maps that are larger than `size` on their long side are thinned by taking every n-th pixel.
    """
    headers: list[dict[str, Any]] = []
    parts: list[np.ndarray] = []
    offset = 0
    for cell in cells:
        try:
            label_map = maps.read(maps.blob(cell))
        except (NotFoundError, ValueError, OSError) as error:
            headers.append({"missing": str(error)})
            continue
        height, width = label_map.shape
        stride = max(1, -(-max(height, width) // size)) if size else 1
        small = np.ascontiguousarray(label_map[stride // 2 :: stride, stride // 2 :: stride])
        shape = {"width": small.shape[1], "height": small.shape[0]}
        headers.append({**shape, "full": [width, height], "offset": offset})
        parts.append(small.ravel())
        offset += small.size
    return headers, np.concatenate(parts) if parts else np.empty(0, np.uint8)


def _by_name(label_map: np.ndarray, mine: list[str], others: list[str]) -> np.ndarray:
    """Ids of another run's class list; 254 where it lacks the class."""
    if mine == others or not mine or not others:
        return label_map
    table = np.full(256, 254, np.uint8)
    table[255] = 255
    for index, name in enumerate(mine):
        if name in others:
            table[index] = others.index(name)
    return table[label_map]


def _palette(store: Store, blob: str) -> np.ndarray | None:
    try:
        with store.open_blob(blob) as stream:
            return decode_palette(stream.read())
    except (OSError, KeyError, ValueError):
        return None


def _epochs(store: Store, run: str, steps: list[float]) -> list[list[float]]:
    """Pairs of step and epoch."""
    try:
        known, epochs, _ = store.series(run, names.TRAIN_EPOCH)
    except NotFoundError:
        known, epochs = np.empty(0), np.empty(0)
    if not len(known):
        return [[step, float(index)] for index, step in enumerate(steps)]
    places = np.clip(np.searchsorted(known, steps, side="right") - 1, 0, len(known) - 1)
    return [[step, float(epochs[place])] for step, place in zip(steps, places, strict=True)]


def _best_step(store: Store, run: str) -> float | None:
    try:
        return float(store.attribute(run, names.checkpoint("best", "step")).value)
    except (NotFoundError, TypeError, ValueError):
        best = evaluations(store, run, "val").get("best")
        return float(best.step) if best else None


def _ignore_index(store: Store, runs: Sequence[str]) -> int:
    for run in runs:
        for path in ("parameters/ignore_index", "parameters/dataset/ignore_index"):
            try:
                return int(store.attribute(run, path).value)
            except (NotFoundError, TypeError, ValueError):
                continue
    return 255


def thumbnail(data: bytes, size: int) -> bytes | None:
    """A JPEG of an image no larger than `size`, or None where it is small already."""
    image = Image.open(io.BytesIO(data))
    if max(image.size) <= size:
        return None
    small = image.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
