"""Small sets of cells: found, cut to what is needed, and not claimed where there are none."""

from __future__ import annotations

import numpy as np

from vizcnn.explaining.changes import Effort, Gains, Sets, find_set, find_smallest

EFFORT = Effort(steps=6, candidates=5)
RNG = np.random.default_rng(0)


def need(*wanted: int, at_least: int) -> object:
    """A judge above 0 for sets that hold at least so many of these cells; nearer with each of them."""

    def judge(sets: Sets) -> Gains:
        return np.asarray(sets[:, list(wanted)].sum(1) - at_least + 0.5, np.float64)

    return judge


def test_a_set_is_found_though_the_hints_mislead() -> None:
    hints = RNG.random(36)
    hints[[3, 7]] = -1
    found = find_set(need(3, 7, 30, at_least=2), hints, EFFORT)  # type: ignore[arg-type]
    assert found is not None
    assert found.sum() == 2
    assert found[[3, 7, 30]].sum() == 2


def test_no_cell_of_a_set_can_be_left_out() -> None:
    weights = RNG.random(36)

    def judge(sets: Sets) -> Gains:
        return np.asarray(sets @ weights - 0.6 * weights.sum())

    found = find_set(judge, RNG.random(36), EFFORT)
    assert found is not None
    assert judge(found[None])[0] > 0
    for cell in np.flatnonzero(found):
        fewer = found.copy()
        fewer[cell] = False
        assert judge(fewer[None])[0] <= 0


def test_more_effort_finds_no_larger_set() -> None:
    def judge(sets: Sets) -> Gains:
        """Two cells do, which none of the first steps of the long way takes: others lead it on."""
        lure = 0.4 * sets[:, 10:15].sum(1) - 1.9
        return np.asarray(np.maximum(np.where(sets[:, :2].all(1), 1.0, -2.0), lure))

    hints = np.zeros(36)
    hints[:2] = 1
    long, short = Effort(steps=12, candidates=36), Effort(steps=8, candidates=2)
    sizes = [found.sum() for each in (long, short) if (found := find_set(judge, hints, each)) is not None]
    assert sizes == [5, 2]
    found = find_smallest(judge, hints, (long, short))
    assert found is not None
    assert np.flatnonzero(found).tolist() == [0, 1]
    assert find_smallest(lambda sets: -np.ones(len(sets)), hints, (long, short)) is None


def test_there_is_no_set_where_all_cells_do_not_do_and_an_empty_one_where_none_are_needed() -> None:
    hints = RNG.random(36)
    assert find_set(lambda sets: -np.ones(len(sets)), hints, EFFORT) is None
    found = find_set(lambda sets: np.ones(len(sets)), hints, EFFORT)
    assert found is not None
    assert not found.any()
