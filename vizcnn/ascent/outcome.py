"""Outcomes: what an ascent came to, of one batch of pictures or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """The pictures that an optimisation came to.

    indices: the positions of their N objectives among those given, ascending: all of them, unless Ctrl-C came before
        some were begun.
    pictures: (N, C, H, W) in [0, 1].
    scores: float64 (N,), the targets' numbers for them, without transforms and in the network's own precision.
    computed: the same in the precision of the optimisation.
    moved: bool (N,), whether the target ever responded to a change of its picture.
    frames: uint8 (F, N, C, H, W), the way there, from the start to the pictures.
    finished: False after Ctrl-C; the pictures are then as far as they got.
    """

    indices: tuple[int, ...]
    pictures: Tensor
    scores: Tensor
    computed: Tensor
    moved: Tensor
    frames: Tensor
    finished: bool = True


def join_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """One Outcome from those of the batches, in the order of the objectives."""
    indices = [i for each in outcomes for i in each.indices]
    order = torch.tensor(indices).argsort()
    fewest = min(len(each.frames) for each in outcomes)  # after Ctrl-C the last batch has fewer

    def join(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in outcomes])[order]

    return Outcome(
        tuple(sorted(indices)),
        join("pictures"),
        join("scores"),
        join("computed"),
        join("moved"),
        torch.cat([each.frames[len(each.frames) - fewest :] for each in outcomes], 1)[:, order],
        all(each.finished for each in outcomes),
    )
