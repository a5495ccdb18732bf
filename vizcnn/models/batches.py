"""Batches: how many images to run at once, fewer of them where memory runs out, and what becomes of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from vizcnn.errors import (
    DegenerateResult,
    Interrupted,
    NonFiniteResult,
    NotInImage,
    ShapeError,
    UnsuitableNetwork,
    VizcnnError,
)
from vizcnn.models.failing import is_out_of_memory

# Photographs of 224 px at once. What layers give of more than 4 outgrows a processor's cache, and its memory goes back
# to the system after each use. Where only a part runs for each, 4 are slower than 12.
_ON_PROCESSOR, _ELSEWHERE, _IN_PART = 4, 12, 12

R = TypeVar("R")


def default_batch(size: tuple[int, int], device: torch.device) -> int:
    """How many images to run at once on a device, for inputs of this height and width."""
    photographs = _ON_PROCESSOR if device.type == "cpu" else _ELSEWHERE
    return max(photographs, photographs * 224 * 224 // (size[0] * size[1]))


def default_part_batch(size: tuple[int, int], device: torch.device) -> int:
    """The same where what runs for each image is a part of the network, or of its maps."""
    return max(_IN_PART, default_batch(size, device))


def run_batches(count: int, batch: int, run: Callable[[slice], R]) -> Iterator[tuple[slice, R]]:
    """What `run` gives for part after part of `count` images, each of `batch` images at most.

    When memory runs out, the same part is run again with half as many images, and so are those after it."""
    start = 0
    while start < count:
        part = slice(start, min(count, start + batch))
        try:
            outcome = run(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or part.stop - part.start == 1:
                raise
            batch = (part.stop - part.start) // 2
            continue
        yield part, outcome
        start = part.stop


@dataclass(frozen=True)
class Answers(Generic[R]):
    """What was made of each of several images.

    rows: what was made, of the images that are left. images: which these are, by number, in order. refused: by the
        number of an image that is left out, the reason. partial: Ctrl-C came before all were done.
    """

    rows: list[R]
    images: list[int]
    refused: dict[int, VizcnnError] = field(default_factory=dict)
    partial: bool = False


def answer_each(
    count: int, answer: Callable[[slice], Sequence[R | VizcnnError]], *, batch: int = 1, strict: bool = False
) -> Answers[R]:
    """What `answer` makes of each of `count` images, in batches that are halved when memory runs out.

    answer: makes something of each image of a part. An image that it cannot answer for is refused, and the others are
        kept: it gives the reason in its place, or raises DegenerateResult, NonFiniteResult or NotInImage, and is then
        asked for each image of the part alone. All other errors end the call, and so does UnsuitableNetwork. What it
        has of a single image when Ctrl-C comes, it can raise in Interrupted.
    strict: an image that is refused ends the call too.

    After Ctrl-C the images that are done are kept. Where none is left, raises the first reason, or KeyboardInterrupt.
    """
    made: dict[int, R] = {}
    refused: dict[int, VizcnnError] = {}
    partial = False

    def ask(part: slice) -> None:
        try:
            answers = [*answer(part)]
        except UnsuitableNetwork:
            raise
        except (DegenerateResult, NonFiniteResult, NotInImage) as error:
            if strict:
                raise
            if part.stop - part.start > 1:
                for i in range(part.start, part.stop):
                    ask(slice(i, i + 1))
                return
            answers = [error]
        if len(answers) != part.stop - part.start:
            raise ShapeError(f"there must be an answer for each of {part.stop - part.start} images, got {len(answers)}")
        for i, one in enumerate(answers, part.start):
            if not isinstance(one, VizcnnError):
                made[i] = one
            elif strict:
                raise one
            else:
                refused[i] = one

    try:
        for _ in run_batches(count, batch, ask):
            pass
    except KeyboardInterrupt as stop:
        partial = True
        if isinstance(stop, Interrupted):
            made[len(made) + len(refused)] = stop.result
    if count and not made:
        raise KeyboardInterrupt if partial else next(iter(refused.values()))
    return Answers([*made.values()], [*made], refused, partial)
