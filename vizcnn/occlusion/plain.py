"""The plain engine: one full run of the network per window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import NonFiniteResult
from vizcnn.models.failing import is_out_of_memory
from vizcnn.occlusion.windows import Ints, Windows, occluded
from vizcnn.probing.subject import Subject

Numbers = npt.NDArray[np.float64]
Scored = Iterator[tuple[Ints, Numbers]]
"""Batch after batch: the places of some windows among all, and the targets' numbers (B, T) under these."""


def plain(subject: Subject, i: int, cover: Tensor, windows: Windows, places: Ints, batch: int) -> Scored:
    """Run the network on image i, covered at some of the windows. The batch shrinks when memory runs out.

    Raises NonFiniteResult."""
    start = 0
    while start < len(places):
        chosen = places[start : start + batch]
        try:
            numbers = _numbers(subject, i, cover, windows[chosen])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(chosen) == 1:
                raise
            batch = len(chosen) // 2
            continue
        yield chosen, numbers
        start += len(chosen)


@torch.no_grad()
def _numbers(subject: Subject, i: int, cover: Tensor, windows: Windows) -> Numbers:
    numbers = subject.model_scores(occluded(subject.inputs[i], cover, windows), i)  # (B, T)
    if not numbers.isfinite().all():
        raise NonFiniteResult("the score of a covered image is NaN or infinite. Try another fill")
    return as_numbers(numbers)


def as_numbers(numbers: Tensor) -> Numbers:
    return np.asarray(numbers.double().cpu().numpy())
