"""Answers for many images: in batches, with those that fail left out and nothing lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from vizcnn.errors import DegenerateResult, NonFiniteResult, ShapeError, UnsuitableNetwork, VizcnnError
from vizcnn.models.batches import answer_each


def answer_but(bad: int, error: VizcnnError) -> list[slice]:
    """The parts that are asked for where an answer for one image raises an error."""
    asked: list[slice] = []

    def answer(part: slice) -> list[int]:
        asked.append(part)
        if part.start <= bad < part.stop:
            raise error
        return [10 * i for i in range(part.start, part.stop)]

    answers = answer_each(7, answer, batch=3)
    assert answers.rows == [10 * i for i in range(7) if i != bad]
    assert answers.images == [i for i in range(7) if i != bad]
    assert answers.refused == {bad: error}
    return asked


@pytest.mark.parametrize("error", [DegenerateResult("flat"), NonFiniteResult("NaN")])
def test_the_others_of_a_batch_are_asked_for_alone(error: VizcnnError) -> None:
    parts = [(part.start, part.stop) for part in answer_but(4, error)]
    assert parts == [(0, 3), (3, 6), (3, 4), (4, 5), (5, 6), (6, 7)]


def test_what_is_wrong_with_the_network_ends_the_call() -> None:
    with pytest.raises(UnsuitableNetwork):
        answer_but(4, UnsuitableNetwork("random"))


def test_an_answer_may_be_a_reason_and_strict_raises_it() -> None:
    def answer(part: slice) -> Sequence[int | VizcnnError]:
        return [DegenerateResult(f"flat {i}") if i in (1, 3) else i for i in range(part.start, part.stop)]

    answers = answer_each(5, answer, batch=5)
    assert answers.images == answers.rows == [0, 2, 4]
    assert {i: str(error) for i, error in answers.refused.items()} == {1: "flat 1", 3: "flat 3"}
    with pytest.raises(DegenerateResult, match="flat 1"):
        answer_each(5, answer, batch=5, strict=True)
    with pytest.raises(DegenerateResult, match="flat 1"):
        answer_each(1, lambda _: [DegenerateResult("flat 1")])


@pytest.mark.parametrize("count", [1, 5])
def test_another_number_of_answers_is_an_error(count: int) -> None:
    with pytest.raises(ShapeError, match=f"an answer for each of 4 images, got {count}"):
        answer_each(4, lambda _: [0] * count, batch=4)


@pytest.mark.parametrize("batch", [1, 6])
def test_ctrl_c_keeps_what_is_done_also_one_by_one(batch: int) -> None:
    def answer(part: slice) -> list[int]:
        if part.stop - part.start > 1:
            raise DegenerateResult("one of them")
        if part.start == 1:
            raise DegenerateResult("this one")
        if part.start == 3:
            raise KeyboardInterrupt
        return [part.start]

    answers = answer_each(6, answer, batch=batch)
    assert answers.partial
    assert answers.images == [0, 2]
    assert [*answers.refused] == [1]


def test_where_memory_ends_smaller_batches_are_asked_for() -> None:
    asked = []

    def answer(part: slice) -> list[int]:
        asked.append(part.stop - part.start)
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [*range(part.start, part.stop)]

    assert answer_each(10, answer, batch=8).rows == [*range(10)]
    assert asked == [8, 4, 2, 2, 2, 2, 2]
