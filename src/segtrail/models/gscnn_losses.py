"""The losses that Gated-SCNN adds to the semantic one.

Source: Takikawa et al., Gated-SCNN: Gated Shape CNNs for Semantic Segmentation, ICCV 2019, section 3.2.
Written from the paper. All compute in float32, whatever the autocast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# strengths below this are no boundary; a step between two classes, smoothed, is about 0.3
_NEGLIGIBLE = 1e-3


def edge_loss(logits: Tensor, edges: Tensor, void: int = 255) -> Tensor:
    """Binary cross-entropy on edge logits; edges and the rest of the batch weigh the same.

    Shape:
        logits (B, 1, H, W); edges (B, H, W) of 0, 1 and ``void``.
    """
    valid = edges != void
    target = ((edges == 1) & valid).float()
    count = valid.sum().clamp(min=1)
    share = target.sum() / count  # of edges
    weight = torch.where(target > 0, 1 - share, share) * valid
    loss = F.binary_cross_entropy_with_logits(logits[:, 0].float(), target, weight, reduction="sum")
    return loss / count


def edge_attention_loss(
    logits: Tensor, target: Tensor, edge_logits: Tensor, ignore_index: int, threshold: float
) -> Tensor:
    """Cross-entropy where the predicted edge probability exceeds ``threshold``; 0 where it nowhere does.

    Shape:
        logits (B, C, H, W); target (B, H, W) int64; edge_logits (B, 1, H, W).
    """
    logits = _at_least_two_classes(logits)
    # a probability over the threshold is a logit over its log-odds
    at_edge = edge_logits.detach()[:, 0] > math.log(threshold / (1 - threshold))
    kept = torch.where(at_edge & (target != ignore_index), target, -1)
    return F.cross_entropy(logits, kept, ignore_index=-1, reduction="sum") / (kept >= 0).sum().clamp(min=1)


def dual_task_loss(
    logits: Tensor, target: Tensor, ignore_index: int, temperature: float = 1.0, sigma: float = 1.0
) -> Tensor:
    """Distance between the boundaries of the predicted and of the true label map.

    The prediction is a differentiable sample (Gumbel softmax). The mean distance is taken over the
    predicted boundary and over the true one, half each.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) int64.
        ignore_index: void; blanked in both maps.
        temperature: of the Gumbel softmax.
        sigma: of the Gaussian filter, in pixels.
    """
    logits = _at_least_two_classes(logits)
    valid = target != ignore_index
    truth = F.one_hot(torch.where(valid, target, 0), logits.shape[1]).movedim(-1, 1).float() * valid[:, None]
    sample = F.gumbel_softmax(logits, tau=temperature, dim=1) * valid[:, None]
    predicted, true = boundary_strength(sample, sigma), boundary_strength(truth, sigma)
    distance = (predicted - true).abs()
    halves = [
        (distance * mask).sum() / mask.sum().clamp(min=1)
        for mask in (predicted.detach() > _NEGLIGIBLE, true > _NEGLIGIBLE)
    ]
    return (halves[0] + halves[1]) / 2


def boundary_strength(probabilities: Tensor, sigma: float) -> Tensor:
    r""":math:`\frac{1}{\sqrt 2} |\nabla (G * p)|`, the norm going over classes and directions.

    Shape:
        (B, C, H, W) -> (B, H, W).
    """
    radius = max(1, math.ceil(3 * sigma))
    steps = torch.arange(-radius, radius + 1, device=probabilities.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    # the gradient of the smoothed map is the map under the gradient of the filter
    slope = F.pad(kernel, (2, 0)) - F.pad(kernel, (0, 2))
    slope, kernel = slope / 2, F.pad(kernel, (1, 1))
    radius += 1
    with torch.autocast(probabilities.device.type, enabled=False):
        maps = F.pad(
            probabilities.float().flatten(0, 1)[:, None], (radius, radius, radius, radius), mode="replicate"
        )
        vertical = F.conv2d(F.conv2d(maps, slope.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
        horizontal = F.conv2d(F.conv2d(maps, kernel.view(1, 1, -1, 1)), slope.view(1, 1, 1, -1))
        squares = (vertical.square() + horizontal.square()).view_as(probabilities).sum(1)
        return (squares / 2 + 1e-12).sqrt()  # the small number keeps the slope finite where it is flat


def _at_least_two_classes(logits: Tensor) -> Tensor:
    logits = logits.float()
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
