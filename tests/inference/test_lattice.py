"""The lattice against the same filter written out with dictionaries and dense matrices."""

import itertools

import numpy as np
import pytest
import torch

from segtrail.inference.lattice import PermutohedralLattice


def dense_kernel(features: np.ndarray) -> np.ndarray:
    """(N, N) kernel of the permutohedral lattice, by the paper's definitions in float64.

    Vertices are integer vectors of d + 1 entries that sum to zero and are equal modulo d + 1.
    """
    count, dim = features.shape
    size = dim + 1
    basis = np.zeros((size, dim))  # column i: (1, ..., 1, -(i + 1), 0, ...), normalized
    for i in range(dim):
        basis[: i + 1, i], basis[i + 1, i] = 1, -(i + 1)
    basis /= np.linalg.norm(basis, axis=0)
    points = features @ basis.T * size * np.sqrt(2 / 3)

    splat: dict[tuple[int, ...], np.ndarray] = {}
    for n, point in enumerate(points):
        for vertex, weight in enclosing_simplex(point):
            splat.setdefault(vertex, np.zeros(count))[n] = weight
    vertices = list(splat)
    place = {vertex: k for k, vertex in enumerate(vertices)}
    scatter = np.stack([splat[vertex] for vertex in vertices])  # (V, N)
    blurred = scatter
    for axis in range(size):
        blur = np.eye(len(vertices))
        for vertex, k in place.items():
            for sign in (1, -1):
                neighbor = np.array(vertex) - sign
                neighbor[axis] += sign * size
                if tuple(neighbor) in place:
                    blur[k, place[tuple(neighbor)]] = 0.5
        blurred = blur @ blurred
    kernel = scatter.T @ blurred / (1 + 2.0**-dim)
    scale = kernel.sum(1) ** -0.5
    return scale[:, None] * kernel * scale


def enclosing_simplex(point: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Corners around a point with barycentric weights, found by trying all remainder-0 vertices near it."""
    size = len(point)
    for shift in itertools.product((-1, 0, 1), repeat=size):
        zero = (np.round(point / size) + shift).astype(int) * size
        if zero.sum() != 0:
            continue
        offset = point - zero
        order = np.argsort(-offset)
        if offset[order[0]] - offset[order[-1]] > size:
            continue  # the point is in another vertex's neighborhood
        corners, weights = [], []
        for remainder in range(size):
            corner = zero + remainder
            corner[order[size - remainder :]] -= size
            corners.append(tuple(int(x) for x in corner))
        matrix = np.vstack([np.array(corners, float).T, np.ones(size)])
        weights = np.linalg.lstsq(matrix, np.append(point, 1), rcond=None)[0]
        if weights.min() > -1e-9:
            return list(zip(corners, weights, strict=True))
    raise AssertionError("no simplex found")


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_filter_is_the_dense_kernel(dim: int) -> None:
    rng = np.random.default_rng(dim)
    features = rng.normal(0, 1.5, (60, dim)).astype(np.float32)
    values = rng.normal(size=(60, 4)).astype(np.float32)
    found = PermutohedralLattice(torch.from_numpy(features)[None]).filter(torch.from_numpy(values))
    np.testing.assert_allclose(found.numpy(), dense_kernel(features) @ values, atol=2e-5)


def test_batch_entries_do_not_see_each_other() -> None:
    features, values = torch.randn(3, 50, 5), torch.randn(3, 50, 2)
    together = PermutohedralLattice(features).filter(values.flatten(0, 1)).unflatten(0, (3, 50))
    for k in range(3):
        alone = PermutohedralLattice(features[k : k + 1]).filter(values[k])
        torch.testing.assert_close(together[k], alone)


def test_kernel_is_close_to_a_gaussian() -> None:
    axis = torch.arange(0, 12, 0.25)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    impulse = torch.zeros(len(grid), 1)
    middle = len(grid) // 2 + len(axis) // 2
    impulse[middle] = 1
    found = PermutohedralLattice(grid[None]).filter(impulse).squeeze(1)
    expected = torch.exp(-((grid - grid[middle]) ** 2).sum(1) / 2)
    error = (found / found.sum() - expected / expected.sum()).abs().sum()
    assert error < 0.2  # total variation; the paper's blur is a three-tap binomial filter


def test_vertices_beyond_numbering_are_one_line() -> None:
    features = torch.tensor([[[0.0] * 5, [1e5] * 5]])
    with pytest.raises(ValueError, match="more than can be numbered; use larger standard deviations"):
        PermutohedralLattice(features)
