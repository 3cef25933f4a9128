"""Gaussian filtering of scattered points on the permutohedral lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


class PermutohedralLattice:
    """Gaussian filter over many points in few dimensions, in time linear in their number.

    Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010):
    values are *splatted* on the corners of the simplex around each point, *blurred* along the d + 1
    axes of the lattice, and *sliced* back. The kernel approximates K = exp(-|a - b|² / 2) and is
    normalized symmetrically, D^-1/2 K D^-1/2 with D the row sums of K.

    Points are numbered through the batch, P = B N. One vertex more than the V - 1 occupied ones
    stands for all absent neighbors. Sparse products run as ``embedding_bag``, which is the fastest
    of torch's ways on a CPU and works on a GPU.

    Args:
        features: (B, N, d) float32 positions in units of the kernel's standard deviation. Points
            of different batch entries do not see each other.

    Attributes:
        num_vertices: V.
        scale: (P, 1) float32, D^-1/2.

    Raises:
        ValueError: the standard deviations are so small that vertices cannot be numbered.
    """

    def __init__(self, features: Tensor) -> None:
        batch, count, dim = features.shape
        image = torch.arange(batch, device=features.device).repeat_interleave(count)
        numbers, steps, weights = _simplex_corners(features.reshape(-1, dim), image)
        ordered, order = numbers.reshape(-1).sort()
        occupied, vertex, sizes = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        kind = _index_type(order.numel())
        self.num_vertices = len(occupied) + 1
        corners = torch.empty_like(vertex, dtype=kind).scatter_(0, order, vertex.to(kind))
        self._corners = corners.reshape(-1, dim + 1)  # the vertices around each point
        self._points = order.to(kind).div_(dim + 1, rounding_mode="floor")  # of each splat, by vertex
        self._first_point = F.pad(sizes.cumsum(0), (1, 0)).to(kind)  # of each vertex; the last one has none
        self._neighbors = [axis.to(kind) for axis in _with_neighbors(occupied, steps)]
        self._blur_weights = features.new_tensor([1.0, 0.5, 0.5]).repeat(self.num_vertices, 1)
        self._splat_weights = weights.reshape(-1).index_select(0, order)
        self._slice_weights = weights.div_(1 + 2.0**-dim)  # the gain of d + 1 blurs, as the authors have it
        row_sums = self.filter_unscaled(features.new_ones(batch * count, 1))  # nothing is scaled yet
        scale = row_sums.double().add_(1e-20).rsqrt_()  # rounded late: mean field amplifies what is lost here
        self._splat_weights = (self._splat_weights * scale.squeeze(1).index_select(0, self._points)).float()
        self.scale = scale.float()

    def filter(self, values: Tensor) -> Tensor:
        """Applies the kernel to (P, C) values of the points."""
        return self.filter_unscaled(values).mul_(self.scale)

    def filter_unscaled(self, values: Tensor) -> Tensor:
        """:meth:`filter` but for the last factor, ``scale``: callers that scale anyway save a pass."""
        at_vertices = _weighted_sums(values, self._points, self._splat_weights, self._first_point)
        for neighbors in self._neighbors:
            at_vertices = _weighted_sums(at_vertices, neighbors, self._blur_weights)
        return _weighted_sums(at_vertices, self._corners, self._slice_weights)


def _weighted_sums(rows: Tensor, index: Tensor, weights: Tensor, first: Tensor | None = None) -> Tensor:
    """Rows added up: those that each line of ``index`` names, or each stretch that begins at ``first``."""
    return F.embedding_bag(index, rows, first, mode="sum", per_sample_weights=weights)


def _simplex_corners(features: Tensor, image: Tensor) -> tuple[Tensor, list[int], Tensor]:
    """Corners of the simplex around each point.

    Args:
        features: (P, d) positions.
        image: (P,) int64 batch entry of each point.

    Returns:
        (P, d + 1) numbers of the corners, unique in the lattice; what a step along each of the d + 1
        axes adds to such a number; (P, d + 1) barycentric weights.
    """
    elevated = _elevate(features)  # (d + 1, P) on the plane where coordinates sum to zero
    dim = len(elevated) - 1
    nearest = torch.round(elevated * _float32(1 / (dim + 1)))  # closest remainder-0 vertex, in units of d + 1
    rank = _ranks(elevated - nearest * (dim + 1)) + nearest.sum(0).int()
    wrap = (rank < 0).int() - (rank > dim).int()  # brings a vertex off the plane back to it
    place = (dim - rank - wrap * (dim + 1)).long()  # of each coordinate, from the one farthest above
    nearest += wrap

    distance = (elevated - nearest * (dim + 1)) * _float32(1 / (dim + 1))
    falling = torch.empty_like(distance).scatter_(0, place, distance)
    weights = falling.clone()
    weights[1:] -= falling[:-1]
    weights[0] += 1 - falling[-1]

    first, steps = _number(nearest[:dim].long(), image)
    # Each corner is the one before it, one step back along the axis of the next place.
    advance = first.new_tensor(steps)[:, None].expand_as(place)
    advance = torch.empty_like(advance, memory_format=torch.contiguous_format).scatter_(0, place, advance)
    numbers = [first]
    for row in advance[:dim]:
        numbers.append(numbers[-1] - row)
    return torch.stack(numbers, dim=1), steps, weights.t().contiguous()


def _elevate(features: Tensor) -> Tensor:
    """(P, d) features as (d + 1, P) lattice coordinates; the blur then has standard deviation 1."""
    dim = features.shape[1]
    deviation = _float32(math.sqrt(2 / 3) * (dim + 1))
    total = features.new_zeros(len(features))
    elevated = []
    for axis in range(dim, 0, -1):
        scaled = features[:, axis - 1] * _float32(deviation / math.sqrt(axis * (axis + 1)))
        elevated.append(total - axis * scaled)
        total = total + scaled
    return torch.stack([total, *reversed(elevated)])


def _ranks(offsets: Tensor) -> Tensor:
    """Place of each of the (d + 1, P) offsets in falling order; pairs are compared, which beats sorting."""
    rank = torch.zeros(offsets.shape, dtype=torch.int32, device=offsets.device)
    for i in range(len(offsets)):
        for j in range(i + 1, len(offsets)):
            smaller = offsets[i] < offsets[j]
            rank[i] += smaller
            rank[j] += ~smaller
    return rank


def _number(nearest: Tensor, image: Tensor) -> tuple[Tensor, list[int]]:
    """Numbers the lattice so that a step along an axis adds a constant.

    A vertex x has d free coordinates that are equal modulo d + 1; its integer coordinates are thus
    x_0 and (x_i - x_0) / (d + 1). They are packed into one integer, as small as it can be: the
    numbers are sorted, and 32 bits sort twice as fast.

    Args:
        nearest: (d, P) remainder-0 vertices, in units of d + 1.
        image: (P,) batch entry of each.

    Returns:
        (P,) int32 or int64 numbers, and the step of each of the d + 1 axes.
    """
    dim = len(nearest)
    coordinates = nearest - nearest[0]
    coordinates[0] = nearest[0] * (dim + 1)
    # Corners and their neighbors are up to two steps away, of at most d in x_0 and 1 in the others.
    margin = nearest.new_tensor([2 * dim, *[2] * (dim - 1)])
    low = coordinates.amin(1) - margin
    extent = (coordinates.amax(1) + margin - low + 1).tolist()
    *strides, size = [math.prod(extent[:axis]) for axis in range(dim + 1)]
    size *= int(image.max()) + 1
    if size >= 2**62:
        raise ValueError(
            f"a kernel's lattice spans {'x'.join(map(str, extent))} vertices, more than can be numbered; "
            "use larger standard deviations"
        )
    numbers = image * math.prod(extent)
    for coordinate, lowest, stride in zip(coordinates, low, strides, strict=True):
        numbers += (coordinate - lowest) * stride
    steps = [dim - sum(strides[1:]), *[stride - 1 for stride in strides[1:]], -1]
    return numbers.to(_index_type(size)), steps


def _with_neighbors(occupied: Tensor, steps: Sequence[int]) -> list[Tensor]:
    """For each axis (V, 3): each vertex, the one after it and the one before; V - 1 where there is none.

    Numbers are looked up in a table by their last bits, which takes a fifth of the time of a search;
    only where another number has the slot are they searched.
    """
    count = len(occupied)
    own = torch.arange(count, device=occupied.device)
    mask = (1 << (4 * count).bit_length()) - 1
    table = torch.full((mask + 1,), count, device=occupied.device).scatter_(0, (occupied & mask).long(), own)
    padded = F.pad(occupied, (0, 1), value=-1)  # no vertex has this number
    axes = []
    for step in steps:
        wanted = occupied + step
        after = table.index_select(0, wanted & mask)
        other = ((padded.index_select(0, after) != wanted) & (after < count)).nonzero().squeeze(1)
        searched = wanted.index_select(0, other)
        place = torch.searchsorted(occupied, searched).clamp_(max=count - 1)
        after[other] = place.masked_fill_(occupied.index_select(0, place) != searched, count)
        before = torch.full((count + 1,), count, device=occupied.device).scatter_(0, after, own)[:-1]
        axes.append(F.pad(torch.stack([own, after, before], dim=1), (0, 0, 0, 1), value=count))
    return axes


def _index_type(count: int) -> torch.dtype:
    """The smaller, and so the faster, of the types that hold numbers below ``count``."""
    return torch.int32 if count < 2**31 else torch.int64


def _float32(value: float) -> float:
    """Rounded to single precision first: results then agree to the last bits with C++ implementations."""
    return torch.tensor(value, dtype=torch.float32).item()
