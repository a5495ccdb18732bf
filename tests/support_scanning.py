"""What tests of scans share: a naive count in float64, small networks and data sets, options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from support import small_cnn
from torch import Tensor
from torch.utils.data import Dataset

from vizcnn.models.model import Model
from vizcnn.scanning.statistics import compute_bin_edges
from vizcnn.scanning.tally import Tally

Labels = Sequence[str | None]

QUIET: Any = {"progress": False, "loaders": 0}
OPTIONS: dict[str, Any] = {"batch": 4, "shard_size": 8, "top": 3, "threads": 1}
SHARDED: dict[str, Any] = {**QUIET, **OPTIONS}


class Tensors(Dataset[tuple[Tensor, int]]):
    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels, self.classes = inputs, labels, ["cat", "dog", "owl"]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.inputs[i], int(self.labels[i])


def model_of(seed: int = 0, **settings: Any) -> Model:
    network = small_cnn()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.nn.init.normal_(network[0].bias)  # type: ignore[arg-type]
    return Model(network, size=settings.pop("size", 16), name="net", **settings)


def pictures(count: int = 40) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def shards_of(index: Path) -> dict[str, int]:
    """The shards that are done, with the times when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in index.glob("shard-*.safetensors")}


def best_of(output: Tensor, top: int, rank: str) -> list[list[tuple[float, int, int]]]:
    """For each channel its best images as value, number and place, by sorting them all."""
    maps = output.double().flatten(2) if output.dim() > 2 else output.double()[:, :, None]
    good = [i for i in range(len(maps)) if maps[i].isfinite().all()]
    score = {"max": maps.amax(2), "sum": maps.sum(2), "mean": maps.mean(2)}[rank]
    found = []
    for c in range(output.shape[1]):
        order = sorted(good, key=lambda i: (-float(score[i, c]), i))[:top]
        found.append([(float(score[i, c]), i, maps[i, c].tolist().index(float(maps[i, c].max()))) for i in order])
    return found


def assert_exact(tally: Tally, output: Tensor, rank: str = "max", labels: Labels | None = None) -> None:
    """Compare with all activations (N, C, ...), kept in float64."""
    expected = best_of(output, tally.top, rank)
    for c, best in enumerate(expected):
        assert tally.images[:, c].tolist() == [i for _, i, _ in best]
        assert tally.places[:, c].tolist() == [place for _, _, place in best]
        np.testing.assert_allclose(tally.values[:, c], [value for value, _, _ in best], rtol=1e-6, atol=1e-6)
    maps = output.double().flatten(2) if output.dim() > 2 else output.double()[:, :, None]
    good = maps.isfinite().all(2).all(1)
    values = maps[good].transpose(0, 1).flatten(1).numpy()  # (C, N * places)
    assert tally.counted.tolist() == [int(good.sum()), int((~good).sum())]
    largest = np.abs(values).max(initial=1)
    np.testing.assert_allclose(tally.mean, values.mean(1), atol=1e-6 * largest)
    np.testing.assert_allclose(tally.variance, values.var(1), atol=1e-5 * largest**2)
    np.testing.assert_array_equal(tally.lowest, values.min(1))
    np.testing.assert_array_equal(tally.highest, values.max(1))
    np.testing.assert_allclose(tally.zero_share, (values == 0).mean(1), atol=1e-12)
    if rank == "max":
        for c, scores in enumerate(maps[good].amax(2).T.numpy()):
            np.testing.assert_array_equal(tally.histogram[c], histogram_of(scores))
    assert_class_means(tally, maps, good, labels or [])


def histogram_of(scores: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Bins below zero mirror those above."""
    above, below = (
        np.histogram(part, compute_bin_edges().double())[0] for part in (scores[scores >= 0], -scores[scores < 0])
    )
    together: npt.NDArray[Any] = above + below[::-1]
    return together


def assert_class_means(tally: Tally, maps: Tensor, good: Tensor, labels: Labels) -> None:
    kept = [i for i in range(len(maps)) if good[i]]
    names = sorted({name for i in kept if labels and (name := labels[i]) is not None})
    assert list(tally.class_means()) == names
    for name in names:
        members = [i for i in kept if labels[i] == name]
        np.testing.assert_allclose(tally.class_means()[name], maps[members].mean((0, 2)), rtol=1e-5, atol=1e-5)
