from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import vizcnn
from vizcnn.occlusion import spearman
from vizcnn.occlusion.windows import pick_windows, place_windows


def test_rank_correlation_of_known_numbers() -> None:
    a = np.array([1.0, 2, 3, 4])
    assert spearman(a, a**3) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, np.array([1.0, 2, 2, 3])) == pytest.approx(0.9486833)  # ranks 1, 2.5, 2.5, 4
    assert spearman(a, np.ones(4)) == 0
    assert spearman(np.zeros(4), np.ones(4)) == 1


def test_windows_at_shares_of_the_grid() -> None:
    windows = place_windows((30, 50), (10, 10), (10, 10))  # 3 x 5
    assert pick_windows(windows, [(1, 1), (0, 0.5), (0.5, 0.5), (0, 0), (0, 0)]).tolist() == [0, 2, 7, 14]
    assert pick_windows(windows[:1], [(0.3, 0.7), (1, 1)]).tolist() == [0]


CONVOLUTIONS = ("aten::convolution", "mkldnn::_convolution_pointwise")
"""A convolution as networks run it, and with its weights packed."""


class Watching(TorchDispatchMode):
    """Tells a function of every operation on real tensors: its name and its arguments."""

    def __init__(self, told: Callable[[str, Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.told = told

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], Tensor) and not args[0].is_meta:
            self.told(func._schema.name, args)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def subject() -> tuple[vizcnn.Model, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(8 * 24 * 24, 5))
        return vizcnn.Model(network, size=24), torch.rand(1, 3, 24, 24)


def occlusion(**options: Any) -> vizcnn.Occlusion:
    return vizcnn.Occlusion(window=4, stride=4, **options)


def test_the_incremental_batch_halves_until_it_fits(subject: tuple[vizcnn.Model, Tensor]) -> None:
    batches: list[int] = []

    def refuse(name: str, args: Any) -> None:
        if name in CONVOLUTIONS:
            batches.append(len(args[0]))
            if len(args[0]) > 5:
                raise torch.OutOfMemoryError("out of memory on purpose")

    expected = occlusion(engine="plain")(*subject, 1)
    with Watching(refuse):
        found = occlusion(engine="incremental", batch=16)(*subject, 1)
    assert max(batches) > 5
    assert batches[-1] <= 5
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


def test_ctrl_c_keeps_what_waits_for_the_tail(subject: tuple[vizcnn.Model, Tensor]) -> None:
    runs: list[int] = []

    def interrupt(name: str, args: Any) -> None:
        if name not in CONVOLUTIONS:
            return
        runs.append(len(args[0]))
        if len(runs) == 2 * (2 + 1 + 1) + 2 * 2 + 1:  # clean runs, checks, the clean run of the engine, two batches
            raise KeyboardInterrupt

    full = occlusion(engine="plain")(*subject, 1).values
    with Watching(interrupt), pytest.raises(vizcnn.Interrupted) as caught:
        occlusion(engine="incremental", batch=4)(*subject, 1)
    assert isinstance(caught.value.result, vizcnn.Heatmap)
    kept = caught.value.result.values
    done = np.isfinite(kept)
    assert 0 < done.mean() < 1
    np.testing.assert_allclose(kept[done], full[done], atol=1e-6)


def test_the_default_engine_takes_full_runs_where_they_are_faster(subject: tuple[vizcnn.Model, Tensor]) -> None:
    def delay(name: str, _args: Any) -> None:
        if name == "aten::index_select":  # reading crops, which full runs do without
            time.sleep(0.05)

    expected = occlusion(engine="plain")(*subject, 1)
    with Watching(delay):
        chosen = occlusion(batch=4)(*subject, 1)
        forced = occlusion(batch=4, engine="incremental")(*subject, 1)
    assert chosen.provenance.details["engine"] == "plain"
    assert forced.provenance.details["engine"] == "incremental"
    np.testing.assert_allclose(chosen.values, expected.values, atol=1e-6)
    np.testing.assert_allclose(forced.values, expected.values, atol=1e-6)
