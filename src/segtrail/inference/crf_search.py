"""Finds the CRF's parameters for a trained model on validation data.

``python -m segtrail.inference.crf_search last --images 50`` prints what was tried, and the overrides to
use. The search is that of DeepLab's authors made automatic: one parameter after the other is varied
around the best values so far, coarsely and then finely.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from segtrail.inference.crf import DenseCRF
from segtrail.inference.predictor import SemanticPredictor
from segtrail.metrics.confusion import confusion_per_image, iou
from segtrail.training.checkpoint import load_run

START = {"pos_w": 3.0, "pos_xy": 3.0, "bi_w": 4.0, "bi_xy": 50.0, "bi_rgb": 5.0}
FACTORS = (2.0, 1.4)
"""Values are multiplied and divided by the first until nothing gets better, then by the next."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the CRF is tried on.

    Attributes:
        image: (1, 3, H, W) uint8.
        probabilities: (1, K, H, W) float32.
        target: (1, H, W) class ids.
    """

    image: Tensor
    probabilities: Tensor
    target: Tensor


def mean_iou(samples: Sequence[Sample], ignore_index: int, crf: DenseCRF | None = None) -> float:
    """Mean IoU over all samples together, with or without the CRF."""
    total: Tensor | None = None
    for sample in samples:
        probabilities = sample.probabilities
        if crf is not None:
            probabilities = crf(sample.image, probabilities)
        classes = probabilities.shape[1]
        counts = confusion_per_image(probabilities.argmax(1), sample.target, classes, ignore_index)
        total = counts if total is None else total + counts
    assert total is not None
    return iou(total[0]).nanmean().item()


def search(
    score: Callable[[Mapping[str, float]], float],
    start: Mapping[str, float],
    trials: int,
    told: Callable[[Mapping[str, float], float], None] = lambda parameters, value: None,
) -> tuple[dict[str, float], float]:
    """Coordinate ascent on a logarithmic grid.

    Args:
        score: to be maximized, of parameters by name.
        start: where the search begins; all values positive.
        trials: the most evaluations.
        told: called with each evaluation and its score.

    Returns:
        The best parameters and their score.
    """
    tried: dict[tuple[float, ...], float] = {}

    def value_of(parameters: Mapping[str, float]) -> float:
        key = tuple(parameters.values())
        if key not in tried:
            tried[key] = score(parameters)
            told(parameters, tried[key])
        return tried[key]

    best = dict(start)
    highest = value_of(best)
    for factor in FACTORS:
        improved = True
        while improved:
            improved = False
            for name in best:
                for step in (factor, 1 / factor):
                    if len(tried) >= trials:
                        return best, highest
                    changed = best | {name: float(f"{best[name] * step:.3g}")}
                    if value_of(changed) > highest:
                        best, highest, improved = changed, value_of(changed), True
    return best, highest


def main(argv: list[str] | None = None) -> int:
    """Searches on a split of the checkpoint's dataset and prints the overrides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="file, run folder, id of a tracked run, or 'last'")
    parser.add_argument("--split", default="val", help="never the one that results are reported on")
    parser.add_argument("--images", type=int, default=50, help="spread evenly over the split")
    parser.add_argument("--trials", type=int, default=60, help="parameter sets to try at most")
    parser.add_argument("--iterations", type=int, default=5, help="mean-field updates while searching")
    parser.add_argument("--dataset-root", help="where the data is now")
    arguments = parser.parse_args(argv)
    changes = {"dataset.root": arguments.dataset_root} if arguments.dataset_root else {}
    loaded = load_run(arguments.checkpoint, **changes)
    dataset = loaded.experiment.datamodule.dataset(arguments.split)
    predictor = SemanticPredictor(loaded.module.model, loaded.config.num_classes)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, arguments.images).round().astype(int))
    samples = []
    for index in track(chosen.tolist(), "predicting", transient=True):
        sample = dataset[index]
        image = torch.from_numpy(sample.image.transpose(2, 0, 1).copy())[None].to(predictor.device)
        target = torch.from_numpy(sample.mask.astype(np.int64))[None].to(predictor.device)
        samples.append(Sample(image, predictor.probabilities(sample.image)[None], target))

    def score(parameters: Mapping[str, float]) -> float:
        return mean_iou(
            samples, dataset.ignore_index, DenseCRF(arguments.iterations, prune=0.01, **parameters)
        )

    def told(parameters: Mapping[str, float], value: float) -> None:
        print(f"mIoU {value:.4f}  " + "  ".join(f"{name} {number:g}" for name, number in parameters.items()))

    print(f"mIoU {mean_iou(samples, dataset.ignore_index):.4f}  without CRF, on {len(samples)} images")
    best, _ = search(score, START, arguments.trials, told)
    print("postprocess=crf " + " ".join(f"postprocess.{name}={number:g}" for name, number in best.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
