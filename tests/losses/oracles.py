"""Losses written straight from their definitions: float64, one-hot, brute force, slow."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

VOID = 255


class Case(NamedTuple):
    """A batch as the definitions see it; all (B, C, H, W) but the last two."""

    logits: Tensor
    p: Tensor
    q: Tensor  # one-hot labels, 0 at void
    m: Tensor  # 1 at valid pixels
    true_log: Tensor  # log p_y: (B, H, W), or (B, C, H, W) if channels are independent
    known: Tensor  # valid, of the same shape


def case(logits: Tensor, target: Tensor) -> Case:
    channels = logits.shape[1]
    if channels == 1 and target.ndim == 3:
        target = target[:, None]
    if target.ndim == 4:
        m = (target != VOID).double()
        q = (target == 1).double()
        p = torch.sigmoid(logits)
        true_log = -torch.log1p(torch.exp(-torch.where(target == 1, logits, -logits)))
        return Case(logits, p, q, m, true_log, m)
    known = (target != VOID).double()
    q = torch.stack([(target == c).double() for c in range(channels)], 1)
    p = torch.softmax(logits, 1)
    true_log = (torch.log_softmax(logits, 1) * q).sum(1)
    return Case(logits, p, q, known[:, None].expand_as(p), true_log, known)


def is_independent(c: Case) -> bool:
    return c.true_log.ndim == 4


def mean_of(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum() if weights.sum() > 0 else values.sum() * 0


# -- per pixel -------------------------------------------------------------------------------------


def cross_entropy(c: Case) -> Tensor:
    return mean_of(-c.true_log, c.known)


def class_of(c: Case) -> Tensor:
    """Index of each pixel's class; 0/1 if independent."""
    return c.q.long() if is_independent(c) else c.q.argmax(1)


def weighted_cross_entropy(c: Case, weights: list[float]) -> Tensor:
    return mean_of(-c.true_log, torch.tensor(weights, dtype=torch.float64)[class_of(c)] * c.known)


def focal(c: Case, gamma: float = 2.0, alpha: list[float] | None = None) -> Tensor:
    true_log = torch.where(c.known > 0, c.true_log, -1.0)  # any number will do at void pixels
    values = -((-torch.expm1(true_log)) ** gamma) * true_log
    if alpha is not None:
        values = values * torch.tensor(alpha, dtype=torch.float64)[class_of(c)]
    return mean_of(values, c.known)


def valid_entropies(c: Case) -> Tensor:
    return -c.true_log[c.known > 0]


def topk(c: Case, k: float = 10.0) -> Tensor:
    values = valid_entropies(c).sort(descending=True).values
    count = max(1, int(len(values) * k / 100))
    return values[:count].sum() / count


def ohem(c: Case, threshold: float = 0.7, min_kept: int = 100_000) -> Tensor:
    values = valid_entropies(c).sort(descending=True).values
    count = max(min(min_kept, len(values)), int(((-values).exp() < threshold).sum()))
    return values[:count].sum() / max(1, count)


def pixel_iou_balanced(c: Case, eta: float = 1.5) -> Tensor:
    intersection = (c.p * c.q * c.m).sum((2, 3))
    iou = intersection / ((c.p + c.q - c.p * c.q) * c.m).sum((2, 3)).clamp(min=1e-300)
    if is_independent(c):
        weights = torch.where(c.q == 1, iou[:, :, None, None], 1)
    else:
        weights = (iou[:, :, None, None] * c.q).sum(1)
    weights = (((1 + weights) / 2) ** eta).detach() * c.known
    values = -c.true_log * c.known
    scale = (values.sum() / (weights * values).sum()).detach()
    return (scale * weights * values).sum() / c.known.sum()


# -- regions ---------------------------------------------------------------------------------------


def per_class(c: Case, per_image: bool) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """(p, q, valid) flattened, for each image (or the batch) and class."""
    images = [slice(b, b + 1) for b in range(len(c.p))] if per_image else [slice(None)]
    return [[tuple(x[i, k].flatten() for x in (c.p, c.q, c.m)) for k in range(c.p.shape[1])] for i in images]


def region(c: Case, value, per_image: bool = False, absent: str = "skip", weights=None) -> Tensor:
    """Mean over images of the means over classes of ``value(p, q)`` on valid pixels."""
    means = []
    for classes in per_class(c, per_image):
        terms, total = [], []
        for k, (p, q, m) in enumerate(classes):
            p, q = p[m > 0], q[m > 0]
            if len(p) == 0 or (absent == "skip" and q.sum() == 0):
                continue
            weight = 1.0 if weights is None else weights[k]
            terms.append(weight * value(p, q))
            total.append(weight)
        if terms:
            means.append(torch.stack(terms).sum() / sum(total))
    return torch.stack(means).mean() if means else c.logits.sum() * 0


def dice(c: Case, smooth: float = 0.0, squared: bool = False, **options) -> Tensor:
    def value(p: Tensor, q: Tensor) -> Tensor:
        size = (p**2 + q).sum() if squared else (p + q).sum()
        return 1 - (2 * (p * q).sum() + smooth) / (size + smooth)

    return region(c, value, **options)


def log_cosh_dice(c: Case) -> Tensor:
    return region(c, lambda p, q: torch.log(torch.cosh(1 - 2 * (p * q).sum() / (p + q).sum())))


def tversky(c: Case, alpha=0.3, beta=0.7, gamma=1.0, smooth=0.0, **options) -> Tensor:
    def value(p: Tensor, q: Tensor) -> Tensor:
        tp, fp, fn = (p * q).sum(), (p * (1 - q)).sum(), ((1 - p) * q).sum()
        return (1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ** gamma

    return region(c, value, **options)


def jaccard(c: Case, **options) -> Tensor:
    return tversky(c, 1.0, 1.0, **options)


def sensitivity_specificity(c: Case, r: float = 0.05, **options) -> Tensor:
    def value(p: Tensor, q: Tensor) -> Tensor:
        own = ((1 - p) ** 2 * q).sum() / max(1.0, float(q.sum()))
        others = (p**2 * (1 - q)).sum() / max(1.0, float((1 - q).sum()))
        return r * own + (1 - r) * others

    return region(c, value, absent="count", **options)


def generalized_dice(c: Case, per_image: bool = False, absent: str = "skip") -> Tensor:
    losses = []
    for classes in per_class(c, per_image):
        sizes = [float((q * m).sum()) for _, q, m in classes]
        smallest = min((s for s in sizes if s > 0), default=None)
        if smallest is None:
            continue
        overlap = total = torch.zeros((), dtype=torch.float64)
        for (p, q, m), size in zip(classes, sizes, strict=True):
            if size == 0 and absent == "skip":
                continue
            weight = 1 / (size or smallest) ** 2
            overlap = overlap + weight * (p * q * m).sum()
            total = total + weight * ((p + q) * m).sum()
        losses.append(1 - 2 * overlap / total)
    return torch.stack(losses).mean() if losses else c.logits.sum() * 0


def mcc(c: Case) -> Tensor:
    def value(p: Tensor, q: Tensor) -> Tensor:
        tp, fp = (p * q).sum(), (p * (1 - q)).sum()
        fn, tn = ((1 - p) * q).sum(), ((1 - p) * (1 - q)).sum()
        return 1 - (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)).sqrt()

    return region(c, value)


# -- Lovász ----------------------------------------------------------------------------------------


def lovasz_extension(errors: Tensor, foreground: Tensor) -> Tensor:
    """Equation (8) of Berman et al. (2018): increments of the Jaccard loss of growing sets of mistakes."""
    order = sorted(range(len(errors)), key=lambda i: -float(errors[i]))
    truth = {i for i in range(len(errors)) if foreground[i] > 0}
    wrong: set[int] = set()
    before, total = 0.0, errors.sum() * 0
    for i in order:
        wrong.add(i)
        after = len(wrong) / len(truth | wrong)
        total = total + errors[i] * (after - before)
        before = after
    return total


def lovasz(c: Case, per_image: bool = False, absent: str = "skip") -> Tensor:
    return region(c, lambda p, q: lovasz_extension((q - p).abs(), q), per_image=per_image, absent=absent)


def lovasz_hinge(c: Case, per_image: bool = True, absent: str = "count") -> Tensor:
    def value(x: Tensor, q: Tensor) -> Tensor:
        return lovasz_extension((1 - x * (2 * q - 1)).relu(), q)

    margins = c.logits
    if not is_independent(c):
        classes = range(c.logits.shape[1])
        others = [torch.stack([c.logits[:, j] for j in classes if j != k], 1).amax(1) for k in classes]
        margins = c.logits - torch.stack(others, 1)
    return region(c._replace(p=margins), value, per_image=per_image, absent=absent)


# -- distances -------------------------------------------------------------------------------------


def nearest(sources: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the nearest true one, inf if there is none."""
    height, width = sources.shape
    result = np.full(sources.shape, np.inf)
    for y, x in itertools.product(range(height), range(width)):
        for v, u in zip(*np.nonzero(sources), strict=True):
            result[y, x] = min(result[y, x], np.hypot(y - v, x - u))
    return result


def contour(inside: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from outside to the region and from inside to its outside; 0 if either side is empty."""
    inside, outside = inside & known, ~inside & known
    if not inside.any() or not outside.any():
        return np.zeros(known.shape), np.zeros(known.shape)
    return np.where(outside, nearest(inside), 0), np.where(inside, nearest(outside), 0)


def planes(c: Case):
    for b, k in itertools.product(range(c.p.shape[0]), range(c.p.shape[1])):
        yield b, k, c.q[b, k].bool().numpy(), c.m[b, k].bool().numpy()


def boundary(c: Case) -> Tensor:
    phi = torch.zeros_like(c.p)
    for b, k, inside, known in planes(c):
        out, into = contour(inside, known)
        phi[b, k] = torch.from_numpy(out - np.where(into > 0, into - 1, 0))
    return (c.p * phi).sum() / c.m.sum().clamp(min=1)


def hausdorff(c: Case, alpha: float = 2.0) -> Tensor:
    weight = torch.zeros_like(c.p)
    for b, k, inside, known in planes(c):
        predicted = (c.p[b, k] > 0.5).detach().numpy()
        for shape in (inside, predicted):
            weight[b, k] += torch.from_numpy(sum(contour(shape, known)) ** alpha)
    return ((c.p - c.q) ** 2 * weight * c.m).sum() / c.m.sum().clamp(min=1)


def hausdorff_er(c: Case, alpha: float = 2.0, erosions: int = 10) -> Tensor:
    total = c.p.sum() * 0
    for b, k in itertools.product(range(c.p.shape[0]), range(c.p.shape[1])):
        error = (c.p[b, k] - c.q[b, k]) ** 2 * c.m[b, k]
        for step in range(1, erosions + 1):
            padded = torch.nn.functional.pad(error, (1, 1, 1, 1))
            around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
            error = (0.2 * (around + error) - 0.5).relu()
            if error.max() > error.min():
                error = (error - error.min()) / (error.max() - error.min())
            total = total + step**alpha * error.sum()
    return total / c.m.sum().clamp(min=1)


def distance_cross_entropy(c: Case) -> Tensor:
    penalty = torch.zeros_like(c.known)
    for b in range(len(c.p)):
        for k in range(c.p.shape[1]):
            inside, known = c.q[b, k].bool().numpy(), c.m[b, k].bool().numpy()
            sides = (inside, ~inside) if is_independent(c) else (inside,)
            for side in sides:
                depth = contour(side, known)[1]
                if depth.max() > 0:
                    phi = torch.from_numpy(np.where(side & known, 1 - depth / depth.max(), 0))
                    penalty[(b, k) if is_independent(c) else b] += phi
    return mean_of((1 + penalty) * -c.true_log, c.known)
