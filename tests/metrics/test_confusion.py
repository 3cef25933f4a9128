import numpy as np
import pytest
import torch

from segtrail.metrics.confusion import SegmentationConfusion, confusion_per_image, dice, iou, pixel_accuracy

IGNORE = 255


def brute_force(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        if t != IGNORE:
            counts[t, p] += 1
    return counts


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, 4, (5, 13, 11), generator=generator)
    target = torch.randint(0, 4, (5, 13, 11), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = IGNORE
    target[3] = IGNORE
    return prediction, target


def test_counts_equal_brute_force(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    prediction, target = maps
    counts = confusion_per_image(prediction, target, 4, IGNORE)
    for image in range(len(target)):
        np.testing.assert_array_equal(
            counts[image], brute_force(prediction[image].numpy(), target[image].numpy(), 4)
        )
    assert counts[3].sum() == 0


def test_negative_ignore_index(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    prediction, target = maps
    negative = torch.where(target == IGNORE, -1, target)
    torch.testing.assert_close(
        confusion_per_image(prediction, negative, 4, -1), confusion_per_image(prediction, target, 4, IGNORE)
    )


def test_scores_by_hand() -> None:
    confusion = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    torch.testing.assert_close(iou(confusion)[:2], torch.tensor([6 / 9, 3 / 6], dtype=torch.float64))
    torch.testing.assert_close(dice(confusion)[:2], torch.tensor([12 / 15, 6 / 9], dtype=torch.float64))
    assert iou(confusion)[2].isnan()
    assert pixel_accuracy(confusion).item() == 9 / 12


def test_result_does_not_depend_on_batches_and_order(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    prediction, target = maps
    whole, parts = SegmentationConfusion(4, IGNORE), SegmentationConfusion(4, IGNORE)
    whole.update(prediction, target, torch.arange(5))
    for chosen in ([4, 1], [0], [3, 2]):
        parts.update(prediction[chosen], target[chosen], torch.tensor(chosen))
    torch.testing.assert_close(whole.compute(), parts.compute())
    for one, other in zip(whole.per_image(), parts.per_image(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_repeated_image_counts_once(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    prediction, target = maps
    metric = SegmentationConfusion(4, IGNORE)
    metric.update(prediction, target, torch.tensor([0, 1, 2, 3, 0]))
    assert metric.compute().sum() == (target[:4] != IGNORE).sum()


def test_nothing_seen_gives_nan_not_an_error() -> None:
    metric = SegmentationConfusion(3, IGNORE)
    assert metric._images()[1].shape == (0, 3, 3)
    assert iou(torch.zeros(3, 3)).isnan().all()
    assert pixel_accuracy(torch.zeros(3, 3)).isnan()


def test_counts_are_exact_beyond_single_precision() -> None:
    confusion = torch.full((2, 2), 2**24 + 1, dtype=torch.int64)
    assert pixel_accuracy(confusion).item() == 0.5
    assert iou(confusion)[0].item() == pytest.approx(1 / 3, abs=1e-15)
