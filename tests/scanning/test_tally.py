"""Tallies are exact: a naive count in float64 that keeps every activation says the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support_scanning import Labels, assert_exact
from torch import Tensor

from vizcnn.scanning.joined import JoinedTallies
from vizcnn.scanning.statistics import BINS, Rank, compute_bin_edges, compute_statistics, find_bins, make_scratch
from vizcnn.scanning.tally import Tally, merge_tallies, restore_tally, select_best


def counted(
    output: Tensor, cuts: Sequence[int], top: int, rank: Rank = "max", labels: Labels | None = None, first: int = 0
) -> Tally:
    """The tally of activations (N, C, h, w) or (N, C), seen in batches that end at `cuts` and at N."""
    labels = labels or [None] * len(output)
    tallies, scratch = JoinedTallies({"layer": (output.shape[1], output[0, 0].numel())}, top), make_scratch()
    for start, stop in zip([0, *cuts], [*cuts, len(output)], strict=True):
        seen = compute_statistics(output[start:stop], rank, tallies.thresholds()["layer"], scratch)
        tallies.add({"layer": seen}, torch.arange(first + start, first + stop), labels[start:stop])
    return tallies.split()["layer"]


@st.composite
def scanned(draw: Any) -> tuple[Tensor, list[int], list[str | None]]:
    """Activations with many ties, cuts into batches, and labels."""
    n, c = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    places = draw(st.sampled_from([(), (1, 1), (2, 3), (3, 1)]))
    steps = draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.integers(-steps, steps + 1, (n, c, *places)).astype(np.float32) / 4
    cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=5))) if n > 1 else []
    labels = draw(st.lists(st.sampled_from([None, "cat", "dog"]), min_size=n, max_size=n))
    return torch.from_numpy(values), cuts, labels


@settings(max_examples=60, deadline=None)
@given(scanned(), st.integers(1, 6), st.sampled_from(["max", "mean", "sum"]))
def test_any_cut_into_batches_gives_the_exact_answer(
    made: tuple[Tensor, list[int], list[str | None]], top: int, rank: Rank
) -> None:
    output, cuts, labels = made
    assert_exact(counted(output, cuts, top, rank, labels), output, rank, labels)


@settings(max_examples=40, deadline=None)
@given(scanned(), st.integers(1, 6), st.data())
def test_parts_that_are_put_together_equal_one_pass(
    made: tuple[Tensor, list[int], list[str | None]], top: int, data: st.DataObject
) -> None:
    output, cuts, labels = made
    bounds = [0, *cuts, len(output)]
    parts = [counted(output[a:b], [], top, labels=labels[a:b], first=a) for a, b in pairwise(bounds)]
    if data.draw(st.booleans(), "by way of files"):
        parts = [restore_tally(top, t.size, t.arrays(), sorted(t.classes)) for t in parts]
    assert_exact(merge_tallies(parts), output, labels=labels)


def test_of_equal_images_the_first_comes_first_across_batches_and_parts() -> None:
    output = torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, 2.0, 3.0])[:, None]  # (7, 1)
    for tally in (
        counted(output, [], 4),
        counted(output, [2, 4], 4),
        merge_tallies([counted(output[:4], [2], 4), counted(output[4:], [], 4, first=4)]),
    ):
        assert tally.images[:, 0].tolist() == [6, 1, 2, 4]


def test_of_equal_activations_of_an_image_the_first_place_wins() -> None:
    output = torch.zeros(1, 1, 3, 3)
    output[0, 0, 1, 2] = output[0, 0, 2, 0] = 5
    assert counted(output, [], 1).places.tolist() == [[1 * 3 + 2]]


def test_the_place_is_that_of_the_largest_activation_whatever_images_are_ranked_by() -> None:
    output = torch.tensor([[[9.0, -20.0]], [[2.0, 3.0]]])[..., None]  # (2, 1, 2, 1)
    tally = counted(output, [], 2, "mean")
    assert tally.images[:, 0].tolist() == [1, 0]
    assert tally.places[:, 0].tolist() == [1, 0]
    assert tally.values[:, 0].tolist() == [2.5, -5.5]


def test_fewer_images_than_places_on_the_list() -> None:
    output = torch.rand(3, 2, 4, 4)
    tally = counted(output, [1], 9)
    assert tally.values.shape == (3, 2)
    assert_exact(tally, output)


def test_a_dead_channel_is_all_zeros() -> None:
    output = torch.rand(20, 3, 4, 4) + 0.1
    output[:, 1] = 0
    tally = counted(output, [7], 5)
    assert tally.zero_share.tolist() == [0, 1, 0]
    assert tally.images[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert tally.variance[1] == 0
    assert_exact(tally, output)


@pytest.mark.parametrize("value", [0.1, -7.3, 1234.5678, 1e-12])
def test_a_constant_channel_has_no_variance(value: float) -> None:
    tally = counted(torch.full((30, 1, 7, 7), value), [9, 20], 3)
    assert tally.variance.tolist() == [0]
    assert tally.mean.item() == pytest.approx(value)


def test_negative_zero_counts_as_zero_and_ties_with_it() -> None:
    tally = counted(torch.tensor([[-0.0], [0.0], [-1.0]]), [1], 3)
    assert tally.images[:, 0].tolist() == [0, 1, 2]
    assert tally.zero_share.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("rank", ["max", "sum", "mean"])
def test_images_with_nan_or_infinity_are_left_out_and_counted(bad: float, rank: Rank) -> None:
    output = torch.rand(9, 2, 3, 3)
    output[0, 1, 2, 2] = output[4, 0, 0, 0] = output[8] = bad
    labels = list("aababbaba")
    tally = counted(output, [3, 4, 5], 4, rank, labels)
    assert tally.counted.tolist() == [6, 3]
    assert_exact(tally, output, rank, labels)


def test_a_batch_of_nothing_but_nan() -> None:
    output = torch.full((4, 2, 2, 2), torch.nan)
    tally = counted(output, [2], 3)
    assert tally.counted.tolist() == [0, 4]
    assert len(tally.values) == 0
    assert tally.mean.tolist() == tally.variance.tolist() == tally.zero_share.tolist() == [0, 0]


def test_each_value_falls_between_the_edges_of_its_bin() -> None:
    values = torch.cat([10.0 ** torch.linspace(-6, 6, 4001), torch.tensor([0.0, 1.0, 2.0, 1.5, 2**-8, 2**8])])
    values = torch.cat([values, -values])
    low, high = compute_bin_edges()[find_bins(values)], compute_bin_edges()[find_bins(values) + 1]
    assert bool(((low <= values) & (values <= high)).all())
    assert len(compute_bin_edges()) == BINS + 1
    assert bool((compute_bin_edges().diff() > 0).all())


def test_what_is_stored_gives_the_same_tally() -> None:
    output, labels = torch.randn(11, 4, 3, 3), [*"aabbccddab", None]
    tally = counted(output, [5], 3, labels=labels)
    again = restore_tally(3, 9, tally.arrays(), sorted(tally.classes))
    assert_exact(again, output, labels=labels)
    for name, array in tally.arrays().items():
        assert torch.equal(array, again.arrays()[name])


def test_a_deviation_far_below_the_mean_is_still_seen() -> None:
    """Adding up squares loses digits: so much is left of them."""
    output = 10 + 0.1 * torch.randn(200, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    tally = counted(output, list(range(32, 200, 32)), 3)
    assert tally.statistics(0)["sd"] == pytest.approx(float(output.double().std(correction=0)), rel=1e-3)


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few numbers at a time that small layers are looked at in many parts, and the last part is smaller."""
    monkeypatch.setattr("vizcnn.scanning.statistics._CACHED", 100)


@pytest.mark.usefixtures("small_cache")
@pytest.mark.parametrize("shape", [(7, 5, 3, 11), (1, 3, 1, 1), (5, 3, 13, 9), (2, 70, 2, 2), (6, 4)])
@pytest.mark.parametrize("kind", ["mixed", "relu", "negative", "zero", "one zero"])
def test_layers_are_exact_however_many_parts_they_are_looked_at_in(shape: tuple[int, ...], kind: str) -> None:
    output = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    output = {"mixed": output, "relu": output.relu(), "negative": -output.abs() - 0.1, "zero": output * 0}.get(
        kind, output
    )
    if kind == "one zero":
        output.view(-1)[-1] = 0
    cuts = [2] if len(output) > 2 else []
    assert_exact(counted(output, cuts, 3), output)
    if output.dim() == 4:
        assert_exact(counted(output.to(memory_format=torch.channels_last), cuts, 3), output)
        assert_exact(counted(output.transpose(2, 3)[:, :, ::2], cuts, 3), output.transpose(2, 3)[:, :, ::2])


@pytest.mark.usefixtures("small_cache")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted_as_float32(dtype: torch.dtype) -> None:
    output = torch.randn(5, 4, 3, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    output[3, 1] = torch.inf
    assert_exact(counted(output, [2], 3), output.float())


def test_numbers_whose_squares_are_nothing_are_no_zeros() -> None:
    output = torch.full((2, 3, 2, 2), 1e-30)
    output[:, 1] = 0
    output[0, 2, 1, 1] = 0
    assert counted(output, [], 1).zeros.tolist() == [0, 8, 1]


def test_layers_side_by_side_are_as_each_alone() -> None:
    """Also where an image is left out of one layer only, and a class is in one layer only."""
    made = torch.Generator().manual_seed(3)
    layers = {"a": torch.randn(7, 3, 4, 4, generator=made), "b": torch.randn(7, 5, generator=made).relu()}
    layers["c"] = torch.randn(7, 2, 2, 1, generator=made).round()
    layers["b"][0, 2] = layers["c"][5, 0, 1, 0] = torch.nan
    labels = ["rare", "cat", None, "cat", "dog", "lone", "dog"]
    tallies = JoinedTallies({name: (output.shape[1], output[0, 0].numel()) for name, output in layers.items()}, 4)
    for part in (slice(0, 3), slice(3, 4), slice(4, 7)):
        thresholds = tallies.thresholds()
        seen = {
            name: compute_statistics(output[part], "max", thresholds[name], make_scratch())
            for name, output in layers.items()
        }
        tallies.add(seen, torch.arange(7)[part], labels[part])
    for name, tally in tallies.split().items():
        assert_exact(tally, layers[name], labels=labels)
    assert "rare" not in tallies.split()["b"].classes
    assert "lone" not in tallies.split()["c"].classes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_best_are_those_of_a_stable_sort(candidates: int, top: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pool = np.array([-np.inf, -3e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 2.0, 3e38, np.inf], np.float32)
    values = torch.from_numpy(random.choice(pool, (5, candidates)))
    images = torch.arange(candidates).expand(5, -1)
    order = values.sort(dim=1, descending=True, stable=True).indices[:, :top]
    best = select_best(top, values, images, images * 7)
    assert torch.equal(best[0], values.gather(1, order))
    assert torch.equal(best[1], order)
    assert torch.equal(best[2], order * 7)
