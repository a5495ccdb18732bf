"""Embedding: feature vectors laid out in a plane, and how often a vector's neighbours are of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from vizcnn.errors import DegenerateResult, ParameterError
from vizcnn.process import ignore_warnings

Method = Literal["pca", "tsne", "umap"]
Floats = npt.NDArray[np.float64]

NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
PAPERS = {
    "pca": "Pearson 1901, On lines and planes of closest fit to systems of points in space",
    "tsne": "van der Maaten & Hinton 2008, Visualizing data using t-SNE, JMLR 9",
    "umap": "McInnes, Healy & Melville 2018, arXiv:1802.03426",
}
_LIBRARIES = {"tsne": ("sklearn", "scikit-learn", "embed"), "umap": ("umap", "umap-learn", "umap")}
_FEWEST = 4  # points that t-SNE and UMAP can lay out
_BLOCK = 2**24  # distances in memory at a time


def require_library(method: Method) -> None:
    """Raise ParameterError if the library of a method is not installed."""
    module, package, extra = _LIBRARIES.get(method, ("numpy", "", ""))
    if find_spec(module) is None:
        raise ParameterError(
            f"method {method!r} needs {package}, which is not installed. pip install 'vizcnn[{extra}]', or use 'pca'"
        )


def choose_perplexity(method: Method, count: int, perplexity: float | None) -> float:
    """The perplexity for `count` points: the one given, or else 30, less for few points. Raises ParameterError."""
    if method != "pca" and count < _FEWEST:
        raise ParameterError(f"{NAMES[method]} needs at least {_FEWEST} images, got {count}. Use method 'pca'")
    if perplexity is not None and perplexity >= count:
        raise ParameterError(f"perplexity must be less than the number of images ({count}), got {perplexity:g}")
    return min(30.0, (count - 1) / 3) if perplexity is None else perplexity


def embed_with_pca(vectors: npt.NDArray[np.float32]) -> tuple[Floats, tuple[float, float]]:
    """PCA's coordinates (N, 2) on the two axes of largest variance, and each axis's share of the variance.

    An axis points to the side of its farthest image, the first of equally far ones. Raises DegenerateResult if all
    vectors are the same."""
    centred = vectors - vectors.mean(0, dtype=np.float64)  # (N, F)
    if len(centred) > 1 and np.abs(centred).max() <= 1e-6 * np.abs(vectors).max():
        raise DegenerateResult(
            f"all {len(vectors)} images have the same features, so there is nothing to lay out: the layer does not "
            "tell these images apart, or they are one image. Choose another layer, or other images"
        )
    n, f = centred.shape
    across = centred @ centred.T if n <= f else centred.T @ centred
    variances, vectors_of = np.linalg.eigh(across)  # ascending
    best, axes = variances[:-3:-1].clip(0), vectors_of[:, :-3:-1]
    points = axes * np.sqrt(best) if n <= f else centred @ axes  # (N, 1 or 2)
    sizes = np.abs(points)
    farthest = (sizes >= sizes.max(0) * (1 - 1e-9)).argmax(0)  # the first of equally far ones
    points = points * np.where(points[farthest, range(points.shape[1])] < 0, -1.0, 1.0)
    total = max(float(np.trace(across)), np.finfo(float).tiny)
    first, second = (*(best / total).tolist(), 0.0)[:2]
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), (first, second)


def embed_with_tsne(vectors: npt.NDArray[np.float32], perplexity: float, seed: int) -> Floats:
    """t-SNE's coordinates (N, 2), from scikit-learn."""
    from sklearn.manifold import TSNE

    start = "pca" if min(vectors.shape) > 1 else "random"
    made = TSNE(perplexity=perplexity, init=start, random_state=seed % 2**32).fit_transform(vectors)
    return np.asarray(made, np.float64)


def embed_with_umap(vectors: npt.NDArray[np.float32], seed: int) -> Floats:
    """UMAP's coordinates (N, 2), from umap-learn with its own settings."""
    with ignore_warnings():  # of other libraries' coming versions
        from umap import UMAP

        near = min(15, len(vectors) - 1)
        start = "spectral" if len(vectors) > 15 else "random"
        made: Any = UMAP(n_neighbors=near, init=start, random_state=seed % 2**32, n_jobs=1).fit_transform(vectors)
    return np.asarray(made, np.float64)


@dataclass(frozen=True)
class Neighbours:
    """The accuracy of nearest neighbours: how often the images nearest to an image, without itself, vote for its class.

    count: the number of neighbours that vote; of classes with equally many votes the first in order wins.
    images, classes: the numbers of images whose class is known, and of these classes.
    features, plane: the accuracy with distances between feature vectors, and between points in the plane, in [0, 1].
    largest: the accuracy of always answering with the most frequent class.
    """

    count: int
    images: int
    classes: int
    features: float
    plane: float
    largest: float


def measure_neighbours(
    vectors: npt.NDArray[Any], points: Floats, labels: Sequence[str | None], count: int
) -> Neighbours | None:
    """The leave-one-out accuracy of the `count` nearest neighbours; None if fewer than two classes are known."""
    known = np.array([i for i, label in enumerate(labels) if label is not None], np.int64)
    names, classes = np.unique([str(labels[i]) for i in known], return_inverse=True)
    if len(names) < 2:
        return None
    count = min(count, len(known) - 1)
    features, plane = (compute_knn_accuracy(each[known], classes, count) for each in (vectors, points))
    return Neighbours(count, len(known), len(names), features, plane, float(np.bincount(classes).max() / len(known)))


def compute_knn_accuracy(vectors: npt.NDArray[Any], classes: npt.NDArray[np.int64], count: int) -> float:
    """The share of vectors (N, F) whose `count` nearest others, by euclidean distance, vote for their class (N,)."""
    every, kinds = torch.from_numpy(vectors).double(), torch.from_numpy(classes)
    right, step = 0, max(1, _BLOCK // len(every))
    for start in range(0, len(every), step):
        numbers = torch.arange(start, min(start + step, len(every)))
        apart = torch.cdist(every[numbers], every)  # (n, N)
        apart[torch.arange(len(numbers)), numbers] = torch.inf
        near = apart.topk(count, largest=False).indices  # (n, count)
        votes = torch.zeros(len(numbers), int(kinds.max()) + 1, dtype=torch.int64)
        votes.scatter_add_(1, kinds[near], torch.ones_like(near))
        right += int((votes.argmax(1) == kinds[numbers]).sum())
    return right / len(every)
