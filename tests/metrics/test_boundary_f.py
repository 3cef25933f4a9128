import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from segtrail.metrics.boundary import BoundaryF, boundaries, dilate


def blobs(seed: int, classes: int = 4, size: tuple[int, int] = (41, 57)) -> torch.Tensor:
    coarse = torch.rand(1, classes, 6, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").argmax(1)


def by_loops(prediction: np.ndarray, target: np.ndarray, k: int, tolerance: int) -> float:
    """The F-score of one class by distance transforms, pixel by pixel."""

    def edge(labels: np.ndarray) -> np.ndarray:
        inside, found = labels == k, np.zeros(labels.shape, bool)
        for y, x in np.ndindex(*labels.shape):
            for dy, dx in ((1, 0), (0, 1), (1, 1)):
                v, u = y + dy, x + dx
                if v < labels.shape[0] and u < labels.shape[1] and 255 not in (target[y, x], target[v, u]):
                    found[y, x] |= inside[y, x] != inside[v, u]
        return found

    p, t = edge(prediction), edge(target)
    near_p, near_t = (distance_transform_edt(~m) <= tolerance for m in (p, t))
    precision, recall = (p & near_t).sum() / p.sum(), (t & near_p).sum() / t.sum()
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("tolerance", [1, 3, 5])
def test_equals_distance_transforms(tolerance: int) -> None:
    prediction, target = blobs(0), blobs(1)
    target[:, 10:20, 5:30] = 255
    metric = BoundaryF(4, 255, tolerance)
    metric.update(prediction, target)
    expected = [by_loops(prediction[0].numpy(), target[0].numpy(), k, tolerance) for k in range(4)]
    assert metric.compute().tolist() == pytest.approx(expected, abs=1e-12)


def test_is_one_for_equal_maps_and_falls_with_a_shift() -> None:
    target = blobs(2)
    scores = []
    for shift in (0, 2, 4, 8):
        metric = BoundaryF(4, 255, tolerance=2)
        metric.update(target.roll(shift, -1), target)
        scores.append(metric.compute().mean().item())
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.8


def test_batches_and_halves_give_the_same() -> None:
    predictions = torch.cat([blobs(s) for s in range(4)])
    targets = torch.cat([blobs(s + 10) for s in range(4)])
    whole, halves = BoundaryF(4, 255), BoundaryF(4, 255)
    whole.update(predictions, targets)
    halves.update(predictions[:1], targets[:1])
    halves.update(predictions[1:], targets[1:])
    assert torch.equal(whole.compute(), halves.compute())


def test_edge_cases() -> None:
    flat = torch.zeros(1, 9, 9, dtype=torch.int64)
    metric = BoundaryF(2, 255)
    metric.update(flat, flat)
    assert metric.compute().isnan().all()  # no boundary anywhere
    metric.update(flat, torch.full_like(flat, 255))
    assert metric.compute().isnan().all()  # all void
    half = flat.clone()
    half[:, :, 4:] = 1
    metric.update(half, flat)
    assert metric.compute().tolist() == [0, 0]  # boundaries where there are none


def test_disk_and_border() -> None:
    point = torch.zeros(1, 1, 11, 11, dtype=torch.bool)
    point[0, 0, 5, 5] = True
    y, x = np.mgrid[-5:6, -5:6]
    assert np.array_equal(dilate(point, 3)[0, 0].numpy(), y**2 + x**2 <= 9)
    ring = boundaries(torch.zeros(1, 5, 5, dtype=torch.int64), torch.zeros(1, 5, 5, dtype=torch.bool), 1)
    assert not ring.any()
