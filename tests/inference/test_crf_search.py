import math

import torch

from segtrail.inference.crf import DenseCRF
from segtrail.inference.crf_search import Sample, mean_iou, search
from tests.inference.test_crf import batch, scene


def test_search_climbs_to_the_peak() -> None:
    peak = {"a": 40.0, "b": 0.5}
    seen = []

    def score(parameters: dict[str, float]) -> float:
        seen.append(tuple(parameters.values()))
        return -sum(math.log(parameters[name] / peak[name]) ** 2 for name in peak)

    best, value = search(score, {"a": 3.0, "b": 3.0}, trials=100)
    assert all(abs(math.log(best[name] / peak[name])) < math.log(1.4) for name in peak)
    assert len(set(seen)) == len(seen)  # nothing is tried twice
    assert value == max(score({"a": a, "b": b}) for a, b in list(seen))


def test_search_keeps_to_its_budget() -> None:
    calls = []
    search(lambda parameters: calls.append(1) or float(len(calls)), {"a": 1.0}, trials=7)
    assert len(calls) == 7


def test_search_finds_a_crf_that_beats_the_net() -> None:
    samples = []
    for seed in range(2):
        labels, image, probabilities = scene(size=40, seed=seed)
        samples.append(Sample(*batch(image, probabilities), torch.from_numpy(labels)[None]))
    plain = mean_iou(samples, 255)
    start = {"pos_w": 1.0, "pos_xy": 1.0, "bi_w": 0.1, "bi_xy": 5.0, "bi_rgb": 2.0}
    _, value = search(lambda p: mean_iou(samples, 255, DenseCRF(3, **p)), start, trials=12)
    assert value > max(plain, mean_iou(samples, 255, DenseCRF(3, **start)))
