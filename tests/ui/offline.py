"""Writes runs in the layout of Neptune's offline log, without the client: quick, and broken if wanted.

The records are those that the client writes; the names and file formats are those of segtrail.tracking.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segtrail.tracking import names
from segtrail.tracking.histogram import Histogram, encode_histograms
from segtrail.tracking.label_map import encode_image, encode_label_map
from segtrail.tracking.per_image import PerImage, encode_per_image

CLASSES = ("background", "sky", "road", "car")
PALETTE = np.array([[40, 40, 40], [70, 130, 180], [128, 64, 128], [220, 60, 60]], np.uint8)
IGNORE = 255


class OfflineRun:
    """One run directory below ``<folder>/.neptune/offline``; each call appends one record."""

    def __init__(self, folder: Path, name: str | None = None, created: float = 1_760_000_000.0) -> None:
        identity = uuid.uuid4()
        self.directory = folder / ".neptune/offline" / f"run__{identity}__{4242}__{identity.hex[:8]}"
        self.directory.mkdir(parents=True)
        (self.directory / "upload_path").mkdir()
        self.version, self.time, self.log = 0, created, self.directory / "data-1.log"
        metadata = {
            "mode": "offline",
            "containerId": str(identity),
            "containerType": "run",
            "structureVersion": 3,
            "os": "linux",
            "pythonVersion": "3.11",
            "neptuneClientVersion": "1.14.0",
            "createdAt": datetime.fromtimestamp(created, UTC).isoformat(),
        }
        (self.directory / "metadata.json").write_text(json.dumps(metadata))
        self.log.touch()
        self._file = self.log.open("a")
        if name is not None:
            self.assign("sys/name", name)

    def record(self, kind: str, path: str, **fields: object) -> None:
        self.version += 1
        self.time += 0.01
        record = {"obj": {"type": kind, "path": path.split("/"), **fields}, "version": self.version}
        self._file.write(json.dumps({**record, "at": self.time}) + "\n")

    def assign(self, path: str, value: object) -> None:
        kind = {bool: "Bool", int: "Int", float: "Float", str: "String"}[type(value)]
        self.record(f"Assign{kind}", path, value=value)

    def tags(self, *tags: str) -> None:
        self.record("AddStrings", "sys/tags", values=list(tags))

    def floats(self, path: str, values, steps=None, spacing: float = 1.0) -> None:
        """Points whose times lie `spacing` seconds apart by step."""
        steps = range(len(values)) if steps is None else steps
        points = [
            {"value": float(v), "step": float(s), "ts": self.time + float(s) * spacing / 100}
            for v, s in zip(values, steps, strict=True)
            if np.isfinite(v)
        ]
        for start in range(0, len(points), 100):
            self.record("LogFloats", path, values=points[start : start + 100])
        bad = [
            {"value": str(float(v)), "step": float(s), "ts": self.time}
            for v, s in zip(values, steps, strict=True)
            if not np.isfinite(v)
        ]
        if bad:
            self.record("LogStrings", names.nonfinite(path), values=bad)

    def strings(self, path: str, values: list[str]) -> None:
        points = [{"value": v, "step": float(i), "ts": self.time} for i, v in enumerate(values)]
        self.record("LogStrings", path, values=points)

    def image(self, path: str, data: bytes, step: float) -> None:
        value = {"data": base64.b64encode(data).decode(), "name": None, "description": None}
        self.record("LogImages", path, values=[{"value": value, "step": step, "ts": self.time}])

    def upload(self, path: str, data: bytes, extension: str) -> None:
        name = f"{path.replace('/', '_')}-{self.version}.{extension}"
        (self.directory / "upload_path" / name).write_bytes(data)
        self.record(
            "UploadFile", path, ext=extension, file_path=None, tmp_file_name=name, clean_after_upload=True
        )

    def flush(self) -> None:
        self._file.flush()
        (self.directory / "last_put_version").write_text(str(self.version))

    def close(self) -> None:
        self.flush()
        self._file.close()


def scene(seed: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A small street-like picture and its label map."""
    rng = np.random.default_rng(seed)
    horizon = int(size * rng.uniform(0.35, 0.55))
    label = np.zeros((size, size), np.uint8)
    label[:horizon] = 1
    picture = Image.fromarray(label)
    draw = ImageDraw.Draw(picture)
    left, right = rng.uniform(0.05, 0.35) * size, rng.uniform(0.65, 0.95) * size
    middle = size * rng.uniform(0.4, 0.6)
    draw.polygon([(middle - 3, horizon), (middle + 3, horizon), (right, size), (left, size)], fill=2)
    if seed % 4 != 3:  # a class that some pictures do not have
        x, y, w = rng.uniform(0.2, 0.6) * size, horizon + rng.uniform(0.1, 0.3) * size, size * 0.22
        draw.rounded_rectangle((x, y, x + w, y + w * 0.6), 4, fill=3)
    label = np.array(picture)
    colors = np.array([[110, 130, 80], [150, 180, 215], [120, 120, 125], [150, 70, 60]], np.float64)
    image = colors[label] + rng.normal(0, 9, (size, size, 3)) + np.linspace(20, -20, size)[:, None, None]
    label[:2] = IGNORE
    return np.clip(image, 0, 255).astype(np.uint8), label


def predict(label: np.ndarray, quality: float, seed: int) -> np.ndarray:
    """The truth with blocks moved and mislabeled; less of it the better the quality (0 to 1)."""
    rng = np.random.default_rng(seed)
    result = np.where(label == IGNORE, 1, label).astype(np.uint8)
    shift = round((1 - quality) * 12)
    if shift:
        result = np.roll(result, (rng.integers(-shift, shift + 1), rng.integers(-shift, shift + 1)), (0, 1))
    for _ in range(int((1 - quality) * 10)):
        y, x = rng.integers(0, len(label), 2)
        r = int(rng.integers(3, 10))
        result[max(y - r, 0) : y + r, max(x - r, 0) : x + r] = rng.integers(0, len(CLASSES))
    return result


def confusion(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    valid = target != IGNORE
    flat = target[valid].astype(np.int64) * classes + prediction[valid]
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def training_run(
    folder: Path,
    name: str,
    *,
    quality: float = 0.8,
    seed: int = 0,
    epochs: int = 4,
    steps_per_epoch: int = 50,
    samples: int = 6,
    model: str = "deeplab",
    loss: str = "lovasz",
    learning_rate: float = 0.001,
    classes: tuple[str, ...] = CLASSES,
    created: float = 1_760_000_000.0,
    tags: tuple[str, ...] = (),
) -> OfflineRun:
    """A complete run of a small segmentation training with all the names a run has."""
    rng = np.random.default_rng(seed)
    run = OfflineRun(folder, name, created)
    if tags:
        run.tags(*tags)
    config = {
        "seed": seed,
        "model": {"_target_": f"segtrail.models.{model}", "width": 64},
        "loss": {"_target_": f"segtrail.losses.{loss}"},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": learning_rate},
        "dataset": {"_target_": "segtrail.data.datasets.shapes", "size": 96},
    }
    yaml = "".join(
        f"{key}: {value}\n"
        if not isinstance(value, dict)
        else f"{key}:\n" + "".join(f"  {k}: {v}\n" for k, v in value.items())
        for key, value in config.items()
    )
    run.upload(names.CONFIG, yaml.encode(), "yaml")
    for group, value in config.items():
        for key, item in value.items() if isinstance(value, dict) else [("", value)]:
            run.assign(names.parameter(group, key), item)
    run.assign("parameters/ignore_index", IGNORE)
    run.assign(names.COMMAND_LINE, f"python train.py model={model} loss={loss} seed={seed}")
    run.assign(names.GIT_COMMIT, "0123456789abcdef0123456789abcdef01234567")
    run.assign(names.GIT_DIRTY, True)
    run.upload(names.GIT_DIFF, f"--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-old\n+new {loss}\n".encode(), "diff")
    run.upload(names.PACKAGES, f"numpy==2.4.6\ntorch==2.{11 + seed % 2}\n".encode(), "txt")
    run.assign("environment/hardware/cpu", "test processor")
    run.strings("monitoring/stdout", [f"epoch {e}\n" for e in range(epochs)])

    total = epochs * steps_per_epoch
    steps = np.arange(total)
    curve = 0.2 + 1.5 * (1.05 - quality) * np.exp(-steps / (0.4 * total)) + rng.normal(0, 0.02, total)
    run.floats(names.TRAIN_LOSS, curve, steps)
    run.floats(names.train_loss_part(loss), curve * 0.8, steps)
    run.floats(names.TRAIN_LR, learning_rate * (1 - steps / total) ** 0.9, steps)
    run.floats(names.TRAIN_EPOCH, steps // steps_per_epoch, steps)

    scenes = [scene(index) for index in range(samples)]
    for index, (image, label) in enumerate(scenes):
        run.upload(names.sample_image(f"street_{index:02d}"), encode_image(image), "png")
        run.upload(
            names.sample_target(f"street_{index:02d}"), encode_label_map(label, PALETTE, IGNORE), "png"
        )
    results = {}
    for epoch in range(epochs):
        step = (epoch + 1) * steps_per_epoch - 1
        reached = quality * (1 - 0.6 * np.exp(-1.5 * (epoch + 1) / epochs * 2))
        counts = []
        for index, (_, label) in enumerate(scenes):
            prediction = predict(label, reached, seed * 1000 + index * 10 + epoch)
            counts.append(confusion(label, prediction, len(CLASSES)))
            run.image(
                names.sample_prediction(f"street_{index:02d}"),
                encode_label_map(prediction, PALETTE, IGNORE),
                step,
            )
            confidence = np.clip(reached * 255 + rng.normal(0, 10, label.shape), 0, 255).astype(np.uint8)
            run.image(names.sample_confidence(f"street_{index:02d}"), encode_image(confidence), step)
        pooled = np.sum(counts, axis=0)
        iou = np.diag(pooled) / (pooled.sum(0) + pooled.sum(1) - np.diag(pooled))
        run.floats(names.metric("val", "mIoU"), [iou.mean()], [step])
        run.floats(names.metric("val", "loss"), [1 - iou.mean()], [step])
        for class_name, value in zip(classes, iou, strict=False):
            run.floats(names.class_metric("val", "IoU", class_name), [value], [step])
        results["last"] = PerImage(
            tuple(f"street_{i:02d}" for i in range(samples)), np.array(counts), classes, step, epoch
        )
        layers = {}
        for depth, layer in enumerate(("encoder.conv1", "encoder.conv2", "decoder.conv", "head")):
            scale = 0.05 * (depth + 1) * (1 + 0.2 * epoch)
            values = rng.normal(0, scale, 400) * (0 if layer == "decoder.conv" and loss == "dice" else 1)
            counts_, edges = np.histogram(values, 64)
            layers[f"{layer}.weight"] = Histogram(counts_, float(edges[0]), float(edges[-1]))
        run.upload(names.histograms(step), encode_histograms(layers), "npz")
    results["best"] = results["last"]
    run.upload(names.per_image("val"), encode_per_image(results), "npz")
    run.assign(names.checkpoint("best", "path"), "outputs/checkpoints/best.ckpt")
    run.assign(names.checkpoint("best", "score"), float(quality))
    run.assign(names.checkpoint("best", "step"), total - 1)
    run.flush()
    return run


def compressed_rle(mask: np.ndarray) -> dict[str, object]:
    """COCO's compressed run lengths of an (H, W) mask."""
    flat = mask.astype(np.int64).ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    text = ""
    for index, value in enumerate(runs):
        rest, more = value - (runs[index - 2] if index > 2 else 0), True
        while more:
            code = rest & 31
            rest >>= 5
            more = rest != -1 if code & 16 else rest != 0
            text += chr((code | 32 if more else code) + 48)
    return {"size": list(mask.shape), "counts": text}


def log_objects(
    run: OfflineRun, path: str, size: int, boxes: list[tuple[int, int, int, int, int, float]]
) -> None:
    """Logs elliptic objects, each given by x, y, width, height, class and score."""
    rows, columns = np.mgrid[:size, :size]
    found = []
    for x, y, width, height, label, score in boxes:
        u, v = (columns - x) / width - 0.5, (rows - y) / height - 0.5
        found.append(
            {
                "category_id": label,
                "bbox": [x, y, width, height],
                "score": score,
                "segmentation": compressed_rle(u**2 + v**2 <= 0.25),
            }
        )
    content = {"size": [size, size], "step": 0, "classes": [], "objects": found}
    run.upload(path, json.dumps(content).encode(), "json")
