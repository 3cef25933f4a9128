"""Mask AP against pycocotools on the same predictions, and over processes."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segtrail.data.detections import Rle, encode
from segtrail.metrics.mask_ap import MaskAP

NAMES = ("background", "a", "b", "never")
STATS = ("mAP", "AP50", "AP75", "mAP_small", "mAP_medium", "mAP_large")
STATS += ("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")


def entry(mask: np.ndarray, label: int, **extra: Any) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {"category_id": label, "bbox": [float(v) for v in box], "segmentation": encode(mask), **extra}


def blob(generator: np.random.Generator, size: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    height, width = generator.integers(1, generator.choice([6, 40, 180]), 2)
    top, left = generator.integers(0, size - 8, 2)
    mask[top : top + height, left : left + width] = True
    mask[top, left] = True
    return mask


def images(seed: int, count: int, size: int = 200) -> dict[str, tuple[list[Any], list[Any]]]:
    """Truth with crowds and images without objects; predictions with ties, false ones and too many."""
    generator = np.random.default_rng(seed)
    made = {}
    for index in range(count):
        found, truth = [], []
        for _ in range(generator.integers(0, 8)):
            mask, label = blob(generator, size), int(generator.integers(1, 3))
            crowd = int(generator.random() < 0.15)
            truth.append(entry(mask, label, iscrowd=crowd, area=float(mask.sum())))
            for _ in range(generator.integers(0, 3)):
                moved = np.roll(mask, generator.integers(-2, 3, 2), (0, 1))
                score = float(np.round(generator.random(), 1))
                found.append(entry(moved, label if generator.random() < 0.85 else 2, score=score))
        extra = 120 if index == 0 else generator.integers(0, 3)
        for _ in range(extra):
            score = float(np.round(generator.random(), 1))
            found.append(entry(blob(generator, size), int(generator.integers(1, 3)), score=score))
        made[f"image-{index:02d}"] = (sorted(found, key=lambda item: -item["score"]), truth)
    return made


def reference(made: dict[str, tuple[list[Any], list[Any]]], kind: str, size: int = 200) -> np.ndarray:
    def numbered(items: list[Any], number: int) -> list[Any]:
        return [
            {**item, "image_id": number, "segmentation": as_bytes(item["segmentation"])} for item in items
        ]

    def as_bytes(rle: Rle) -> Rle:
        return {"size": rle["size"], "counts": rle["counts"].encode()}

    truth = COCO()
    annotations = [item for n, (_, items) in enumerate(made.values(), 1) for item in numbered(items, n)]
    truth.dataset = {
        "images": [{"id": n, "height": size, "width": size} for n in range(1, len(made) + 1)],
        "annotations": [{**item, "id": index} for index, item in enumerate(annotations, 1)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(NAMES)],
    }
    found = [item for n, (items, _) in enumerate(made.values(), 1) for item in numbered(items, n)]
    other = "segmentation" if kind == "bbox" else "bbox"  # a results file holds one of them
    found = [{key: value for key, value in item.items() if key != other} for item in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_pycocotools(kind: str, seed: int) -> None:
    made = images(seed, 12)
    metric = MaskAP(NAMES, kind)
    for image_id, (found, truth) in made.items():
        metric.update(image_id, (200, 200), found, truth)
    figures = metric.compute()
    np.testing.assert_allclose([figures[name] for name in STATS], reference(made, kind), rtol=0, atol=1e-9)
    assert {"AP/a", "AP/b"} < set(figures)
    assert not {"AP/never", "AP/background"} & set(figures)
    np.testing.assert_allclose((figures["AP/a"] + figures["AP/b"]) / 2, figures["mAP"], atol=1e-12)


def test_perfect_none_and_empty() -> None:
    mask = np.zeros((50, 50), bool)
    mask[10:30, 10:30] = True
    truth = [entry(mask, 1, iscrowd=0, area=400.0)]
    metric = MaskAP(NAMES)
    assert metric.compute() == {}
    metric.update("empty", (50, 50), [entry(mask, 1, score=0.1)], [])
    assert metric.compute() == {}  # nothing to find: undefined, and so left out
    metric.update("one", (50, 50), [], truth)
    assert metric.compute()["mAP"] == 0
    metric.update("one", (50, 50), [entry(mask, 1, score=0.9)], truth)
    assert metric.compute()["mAP"] == pytest.approx(1, abs=1e-12)
    assert "mAP_large" not in metric.compute()
    metric.reset()
    assert metric.compute() == {}
    with pytest.raises(ValueError, match="segm"):
        MaskAP(NAMES, "keypoints")


def test_a_thousand_objects_in_an_image() -> None:
    masks = [np.zeros((64, 64), bool) for _ in range(1000)]
    for index, mask in enumerate(masks):
        mask[index // 32 * 2, index % 32 * 2] = True
    metric = MaskAP(NAMES)
    metric.update(
        "crowded",
        (64, 64),
        [entry(mask, 1, score=1 - index / 1000) for index, mask in enumerate(masks)],
        [entry(mask, 1, iscrowd=0, area=1.0) for mask in masks],
    )
    assert metric.compute()["AR_100"] == pytest.approx(0.1)  # 100 of them may be found


def _rank(rank: int, rendezvous: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    made = images(0, 6)
    metric = MaskAP(NAMES)
    for index, (image_id, (found, truth)) in enumerate(made.items()):
        if index % 2 == rank or index == 0:  # the first one on both, as samplers that pad do
            metric.update(image_id, (200, 200), found, truth)
    metric.gather()
    single = MaskAP(NAMES)
    for image_id, (found, truth) in made.items():
        single.update(image_id, (200, 200), found, truth)
    assert metric.compute() == single.compute()
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path / "rendezvous"),), nprocs=2)
