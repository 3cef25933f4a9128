"""Fully connected CRF: moves the borders of a segmentation to the edges of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segtrail.inference.lattice import PermutohedralLattice


class DenseCRF:
    """Mean-field inference in a fully connected CRF with Gaussian edge potentials.

    Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
    Potentials" (2011), with Potts compatibility and symmetric normalization: every pixel is drawn
    to the classes of its neighbors (smoothness) and of pixels of similar color near and far
    (appearance). The defaults are those of DeepLab v2.

    Args:
        iterations: mean-field updates.
        pos_w: weight of the smoothness kernel, 0 leaves it out.
        pos_xy: its standard deviation in pixels.
        bi_w: weight of the appearance kernel, 0 leaves it out.
        bi_xy: its standard deviation in pixels.
        bi_rgb: its standard deviation in color levels of 0..255.
        prune: classes that reach this probability at no pixel of an image get probability 0 there,
            which saves their time; 0 keeps all.

    Raises:
        ValueError: a weight is negative, or a deviation or the number of iterations not positive.
    """

    def __init__(
        self,
        iterations: int = 10,
        pos_w: float = 3.0,
        pos_xy: float = 1.0,
        bi_w: float = 4.0,
        bi_xy: float = 67.0,
        bi_rgb: float = 3.0,
        prune: float = 0.0,
    ) -> None:
        positive = {"iterations": iterations, "pos_xy": pos_xy, "bi_xy": bi_xy, "bi_rgb": bi_rgb}
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"the CRF's {name} must be positive, got {value}")
        for name, value in {"pos_w": pos_w, "bi_w": bi_w, "prune": prune}.items():
            if value < 0:
                raise ValueError(f"the CRF's {name} must not be negative, got {value}")
        self.iterations = iterations
        self.pos_w, self.pos_xy = pos_w, pos_xy
        self.bi_w, self.bi_xy, self.bi_rgb = bi_w, bi_xy, bi_rgb
        self.prune = prune

    @torch.no_grad()
    def __call__(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """Refines class probabilities.

        Args:
            image: (B, 3, H, W) uint8 RGB, as the camera saw it: neither normalized nor augmented.
            probabilities: (B, C, H, W) float; C = 1 is the probability of class 1 of two.

        Returns:
            (B, C, H, W) float32 marginals.

        Raises:
            ValueError: the image is not uint8, or shapes differ.
        """
        batch, classes, height, width = probabilities.shape
        if image.dtype != torch.uint8 or image.shape != (batch, 3, height, width):
            raise ValueError(
                f"the CRF needs the uint8 image of shape {(batch, 3, height, width)}, "
                f"got {image.dtype} of {tuple(image.shape)}"
            )
        if classes == 1:
            both = torch.cat([1 - probabilities, probabilities], dim=1)
            return self(image, both)[:, 1:]
        # Rows of classes, one a pixel: (B H W, C). Copied once, then changed in place.
        unary = probabilities.permute(0, 2, 3, 1).float().clone(memory_format=torch.contiguous_format)
        unary = unary.view(-1, classes).clamp_(min=1e-5).log_()
        kept = self._kept(probabilities)  # (B, C)
        columns = kept.any(0)
        if not columns.all():
            unary = unary[:, columns]
        if not kept[:, columns].all():  # another image of the batch has the class
            dropped = ~kept[:, columns]
            unary.view(batch, -1, unary.shape[1]).masked_fill_(dropped[:, None], -torch.inf)
        marginals = mean_field(unary, self._kernels(image), self.iterations)
        if not columns.all():
            found, marginals = marginals, marginals.new_zeros(len(marginals), classes)
            marginals[:, columns] = found
        return marginals.view(batch, height, width, classes).permute(0, 3, 1, 2)

    def _kept(self, probabilities: Tensor) -> Tensor:
        """(B, C) which classes of which image take part; the strongest always does."""
        if self.prune == 0:
            return torch.ones(probabilities.shape[:2], dtype=torch.bool, device=probabilities.device)
        peak = probabilities.amax((2, 3))
        return (peak >= self.prune) | (peak == peak.amax(1, keepdim=True))

    def _kernels(self, image: Tensor) -> list[tuple[float, PermutohedralLattice]]:
        batch, _, height, width = image.shape
        y = torch.arange(height, device=image.device, dtype=torch.float32)
        x = torch.arange(width, device=image.device, dtype=torch.float32)
        place = torch.stack(torch.meshgrid(y, x, indexing="ij")).flip(0)  # (2, H, W): x, y
        place = place.expand(batch, -1, -1, -1)
        kernels = []
        if self.pos_w:
            features = place / self.pos_xy
            kernels.append((self.pos_w, PermutohedralLattice(_as_points(features))))
        if self.bi_w:
            features = torch.cat([place / self.bi_xy, image.float() / self.bi_rgb], dim=1)
            kernels.append((self.bi_w, PermutohedralLattice(_as_points(features))))
        return kernels


def mean_field(
    unary: Tensor, kernels: Sequence[tuple[float, PermutohedralLattice]], iterations: int
) -> Tensor:
    """Iterates Q = softmax(unary + sum of weight * kernel(Q)).

    Args:
        unary: (P, C) log-probabilities of the points.
        kernels: weights and lattices over the same points.
        iterations: number of updates.

    Returns:
        (P, C) marginals.
    """
    marginals = torch.empty_like(unary)
    _softmax(unary, out=marginals)
    if not kernels:
        return marginals
    scales = [lattice.scale * weight for weight, lattice in kernels]
    for _ in range(iterations):
        logits = unary
        for scale, (_, lattice) in zip(scales, kernels, strict=True):
            logits = lattice.filter_unscaled(marginals).mul_(scale).add_(logits)
        _softmax(logits, out=marginals)
    return marginals


def _softmax(logits: Tensor, out: Tensor) -> None:
    """Softmax over few columns; torch's own takes up to 10 times as long there on a CPU.

    Rows hold a log-probability of at least 1 / C plus messages, which are positive: no row vanishes.
    """
    total = torch.exp(logits, out=out).mv(out.new_ones(out.shape[1]))
    if total.isinf().any():  # weights near 100 can add up to more than exp takes
        torch.softmax(logits, 1, out=out)
    else:
        out.div_(total[:, None])


def _as_points(features: Tensor) -> Tensor:
    """(B, d, H, W) to (B, H W, d)."""
    return features.flatten(2).transpose(1, 2)
