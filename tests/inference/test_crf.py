import shutil
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from benchmarks.crf import (
    DEEPLAB,
    KRAHENBUHL,
    blurred_probabilities,
    install_pydensecrf,
    pydensecrf_marginals,
    satellite_image,
)
from segtrail.inference.crf import DenseCRF

COLORS = np.array([[200, 60, 50], [40, 90, 190], [60, 170, 70]])


def scene(size: int = 24, noise: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three flat regions: (H, W) labels, noisy (H, W, 3) image, (3, H, W) blurred and noisy probabilities."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), int)
    labels[:, size // 2 :] = 1
    labels[size * 5 // 8 :, : size * 3 // 8] = 2
    image = (COLORS[labels] + rng.normal(0, noise, (size, size, 3))).clip(0, 255).astype(np.uint8)
    soft = [cv2.GaussianBlur((labels == k).astype(np.float32), (0, 0), 2.5) for k in range(3)]
    logits = 3 * np.stack(soft) + rng.normal(0, 0.8, (3, size, size))
    probabilities = np.exp(logits) / np.exp(logits).sum(0)
    return labels, image, probabilities.astype(np.float32)


def batch(image: np.ndarray, probabilities: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(probabilities)[None]


def brute_force(
    image: np.ndarray, probabilities: np.ndarray, iterations: int, kernels: dict[str, float]
) -> np.ndarray:
    """Mean field with the exact Gaussian kernels as dense matrices, in float64."""
    classes, height, width = probabilities.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(float)
    colors = image.reshape(-1, 3).astype(float)
    place = np.stack([x, y], 1)
    message = 0.0
    for weight, features in (
        (kernels["pos_w"], place / kernels["pos_xy"]),
        (kernels["bi_w"], np.hstack([place / kernels["bi_xy"], colors / kernels["bi_rgb"]])),
    ):
        kernel = np.exp(-((features[:, None] - features) ** 2).sum(2) / 2)
        scale = kernel.sum(1) ** -0.5
        message = message + weight * scale[:, None] * kernel * scale
    unary = np.log(probabilities.reshape(classes, -1).T.clip(1e-5))
    marginals = np.exp(unary)
    for _ in range(iterations):
        logits = unary + message @ marginals
        marginals = np.exp(logits - logits.max(1, keepdims=True))
        marginals /= marginals.sum(1, keepdims=True)
    return marginals.T.reshape(probabilities.shape)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_brute_force(seed: int) -> None:
    _, image, probabilities = scene(seed=seed)
    found = DenseCRF(10, **KRAHENBUHL)(*batch(image, probabilities))[0].numpy()
    np.testing.assert_allclose(found, brute_force(image, probabilities, 10, KRAHENBUHL), atol=1e-3)


def test_agrees_with_pydensecrf(request: pytest.FixtureRequest) -> None:
    """Builds the C++ implementation from source at the first run, and keeps it in pytest's cache."""
    assert shutil.which("c++") or shutil.which("g++"), "needs a C++ compiler: apt-get install g++"
    peer = install_pydensecrf(request.config.cache.mkdir("pydensecrf2"))
    _, small, three = scene(size=96, noise=25.0)
    large = satellite_image(375, 500)
    for image, probabilities in ((small, three), (large, blurred_probabilities(large, 21))):
        for kernels in (KRAHENBUHL, DEEPLAB):
            expected = pydensecrf_marginals(peer, image, probabilities, 10, kernels)
            found = DenseCRF(10, **kernels)(*batch(image, probabilities))[0].numpy()
            # Rounding, amplified by mean field: what another order of the classes does to the peer itself.
            mirrored = pydensecrf_marginals(peer, image, probabilities[::-1], 10, kernels)[::-1]
            rounding = np.abs(mirrored - expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 + rounding)


def test_moves_borders_to_the_edges_of_the_image() -> None:
    labels, image, probabilities = scene(size=64)
    found = DenseCRF(10, **KRAHENBUHL)(*batch(image, probabilities))[0].numpy()
    before, after = (p.argmax(0) == labels for p in (probabilities, found))
    near_border = cv2.dilate(cv2.Laplacian(labels.astype(np.uint8), cv2.CV_8U), np.ones((7, 7))) > 0
    assert before[near_border].mean() < 0.9
    assert after[near_border].mean() > 0.99


def test_batch_equals_one_by_one() -> None:
    scenes = [scene(seed=seed)[1:] for seed in range(3)]
    images, probabilities = (torch.cat(parts) for parts in zip(*(batch(*s) for s in scenes), strict=True))
    for prune in (0.0, 0.3):
        crf = DenseCRF(5, **KRAHENBUHL, prune=prune)
        together = crf(images, probabilities)
        for k in range(3):
            alone = crf(images[k : k + 1], probabilities[k : k + 1])[0]
            torch.testing.assert_close(together[k], alone, atol=1e-5, rtol=0)


def test_marginals_are_probabilities_at_odd_sizes_and_one_pixel() -> None:
    for height, width in ((1, 1), (7, 13), (1, 9)):
        image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        probabilities = torch.rand(2, 4, height, width).softmax(1)
        found = DenseCRF(3)(image, probabilities)
        assert found.shape == probabilities.shape
        torch.testing.assert_close(found.sum(1), torch.ones(2, height, width))


def test_one_logit_is_two_classes() -> None:
    _, image, probabilities = scene()
    tensor, three = batch(image, probabilities)
    foreground = three[:, 1:2]
    two = torch.cat([1 - foreground, foreground], 1)
    torch.testing.assert_close(DenseCRF(5)(tensor, foreground), DenseCRF(5)(tensor, two)[:, 1:])


def test_pruned_classes_get_zero_and_the_rest_its_own_result() -> None:
    _, image, probabilities = scene()
    rare = np.full((1, 24, 24), 1e-4, np.float32)
    tensor, four = batch(image, np.concatenate([probabilities * (1 - 1e-4), rare]))
    found = DenseCRF(5, prune=1e-3)(tensor, four)
    assert (found[:, 3] == 0).all()
    torch.testing.assert_close(found[:, :3], DenseCRF(5)(tensor, four[:, :3]))
    everything = DenseCRF(5, prune=1.0)(tensor, four)  # the strongest class always stays
    assert everything.isfinite().all()


def test_huge_weights_stay_finite() -> None:
    _, image, probabilities = scene()
    found = DenseCRF(5, pos_w=300, bi_w=500)(*batch(image, probabilities))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 24, 24))


def test_no_kernels_leave_the_probabilities() -> None:
    _, image, probabilities = scene()
    tensor, three = batch(image, probabilities)
    torch.testing.assert_close(DenseCRF(pos_w=0, bi_w=0)(tensor, three), three)


def test_stronger_smoothing_leaves_fewer_borders() -> None:
    _, image, probabilities = scene(noise=40)
    tensor, three = batch(image, probabilities)
    borders = []
    for weight in (0.0, 1.0, 10.0):
        labels = DenseCRF(5, pos_w=weight, pos_xy=2, bi_w=0)(tensor, three).argmax(1)[0]
        borders.append(int((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum()))
    assert all(more > fewer for more, fewer in pairwise(borders))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bi_rgb": 0}, "bi_rgb must be positive, got 0"),
        ({"iterations": -1}, "iterations must be positive, got -1"),
        ({"pos_w": -3}, "pos_w must not be negative, got -3"),
    ],
)
def test_bad_parameters_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseCRF(**arguments)


def test_needs_the_uint8_image() -> None:
    with pytest.raises(ValueError, match=r"needs the uint8 image of shape \(1, 3, 4, 4\), got torch.float32"):
        DenseCRF()(torch.zeros(1, 3, 4, 4), torch.rand(1, 2, 4, 4))


@pytest.mark.gpu
def test_gpu_equals_cpu() -> None:
    _, image, probabilities = scene(size=64, noise=25.0)
    tensor, three = batch(image, probabilities)
    found = DenseCRF(10, **KRAHENBUHL)(tensor.cuda(), three.cuda()).cpu()
    torch.testing.assert_close(found, DenseCRF(10, **KRAHENBUHL)(tensor, three), atol=1e-4, rtol=0)
