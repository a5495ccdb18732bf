"""Changes: small sets of cells whose covering changes the answer, or that alone keep it. Every step is a real run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.evaluation.coverings import Coverings, choose_grid, make_cover
from vizcnn.explaining.question import Question, name_answer
from vizcnn.inputs.photo import select_channels
from vizcnn.models.functions import OUTPUT
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.scoring import Indices, score_batches
from vizcnn.models.targets import target
from vizcnn.results import Change

Sets = npt.NDArray[np.bool_]
Gains = npt.NDArray[np.float64]
Judge = Callable[[Sets], Gains]
"""From sets of cells (B, n) to how far each reaches what is sought, (B,): it does above 0."""


@dataclass(frozen=True)
class Effort:
    """How long a set is grown: in each of so many `steps` so many `candidates` are tried."""

    steps: int
    candidates: int

    @property
    def runs(self) -> int:
        """About how many runs both searches take."""
        return 2 * (self.steps * self.candidates // 2 + 12)


def find_changes(
    question: Question, coverings: Coverings, efforts: Sequence[Effort]
) -> tuple[Change | None, Change | None]:
    """The smallest set found whose covering changes what the network says, and the smallest that alone keeps it.

    None where none was found. Both are found greedily: cells are added as long as they bring the answer nearer to the
    border, then those that are not needed are taken out again; so none of what is left can be left out. Of several
    efforts that with the smallest set counts: a longer one may take a worse way. What is reported was seen in a run of
    its own."""
    top = question.best[0].number
    hints = coverings.drops[: coverings.alone, 0] - coverings.drops[: coverings.alone, 1]
    hints = hints if top == question.asked.number else -hints  # else the rival is what the network says
    margins = _make_margins(question, top)
    flip = find_smallest(lambda sets: -margins(sets), hints, efforts)
    keep = find_smallest(lambda sets: margins(~sets), hints, efforts)
    return (
        None if flip is None else _confirm(question, flip, lambda number: number != top),
        None if keep is None else _confirm(question, ~keep, lambda number: number == top),
    )


def find_smallest(judge: Judge, hints: Gains, efforts: Sequence[Effort]) -> npt.NDArray[np.bool_] | None:
    """The smallest of the sets that these efforts find, as of `find_set`; the first of several."""
    found = [one for effort in efforts if (one := find_set(judge, hints, effort)) is not None]
    return min(found, key=np.count_nonzero, default=None)


def find_set(judge: Judge, hints: Gains, effort: Effort) -> npt.NDArray[np.bool_] | None:
    """A small set of cells, bool (n,), that the judge puts above 0 and no cell of which can be left out; None where
    none was found.

    hints: float64 (n,), about what each cell brings."""
    chosen, gained = np.zeros(len(hints), bool), float(judge(np.zeros((1, len(hints)), bool))[0])
    hints = hints.copy()
    for _ in range(min(effort.steps, len(hints))):
        if gained > 0:
            break
        free = np.flatnonzero(~chosen)
        tried = free[np.argsort(-hints[free], kind="stable")][: effort.candidates]
        sets = np.repeat(chosen[None], len(tried), 0)
        sets[np.arange(len(tried)), tried] = True
        gains = judge(sets)
        hints[tried] = gains - gained
        best = int(gains.argmax())
        chosen, gained = sets[best], float(gains[best])
    if gained <= 0:
        longer = _extend(judge, chosen, hints)
        if longer is None:
            return None
        chosen = longer
    return _prune(judge, chosen)


def _extend(judge: Judge, chosen: Sets, hints: Gains) -> Sets | None:
    """The set with as many of the other cells, in the order of their hints, as it takes; None where all do not do."""
    free = np.flatnonzero(~chosen)
    if not len(free):
        return None
    order = free[np.argsort(-hints[free], kind="stable")]
    sets = np.repeat(chosen[None], len(order), 0)
    for i in range(len(order)):
        sets[i, order[: i + 1]] = True
    reached = np.flatnonzero(judge(sets) > 0)
    return sets[reached[0]] if len(reached) else None


def _prune(judge: Judge, chosen: Sets) -> Sets:
    """The set without the cells that are not needed, one after the other."""
    while (cells := np.flatnonzero(chosen)).size:
        sets = np.repeat(chosen[None], len(cells), 0)
        sets[np.arange(len(cells)), cells] = False
        gains = judge(sets)
        free = cells[np.argsort(-gains, kind="stable")][: int((gains > 0).sum())]
        if not len(free):
            break
        chosen = sets[int(gains.argmax())]
        for cell in free[1:]:
            fewer = chosen.copy()
            fewer[cell] = False
            if judge(fewer[None])[0] > 0:
                chosen = fewer
    return chosen


def _make_margins(question: Question, top: int) -> Judge:
    """From sets of cells that are covered to how far the output of a class lies above all others."""
    subject, grid = question.subject, choose_grid(question.image)
    cover = make_cover(question.model, question.image)

    def lead(output: Tensor) -> Tensor:
        others = output.clone()
        others[:, top] = -torch.inf
        return output[:, top] - others.amax(1)  # (B,)

    asked = [target(lead)]

    def measure(sets: Sets) -> Gains:
        found = np.empty(len(sets))

        def alter(indices: Indices) -> Tensor:
            return cover(sets[indices].reshape(-1, *grid))  # (B, C, H, W)

        for indices, scores in score_batches(
            question.model, alter, np.arange(len(sets)), asked, layout=subject.layout, shown=subject.progress
        ):
            found[indices] = scores[:, 0]
        return found

    return measure


@torch.no_grad()
def _confirm(question: Question, covered: Sets, expected: Callable[[int], bool]) -> Change | None:
    """What the network says with these cells covered, in a run of that alone; None where it is not as expected, which
    rounding may do at the very border."""
    cells = covered.reshape(choose_grid(question.image))
    image = make_cover(question.model, question.image)(cells[None])  # (1, C, H, W)
    output = read_activations(question.model, image, [OUTPUT])[OUTPUT][0].float().cpu()  # (K,)
    number = int(output.argmax())
    if not expected(number):
        return None
    shown = image[0].permute(1, 2, 0).float().cpu().numpy()  # (H, W, C)
    pixels = select_channels(shown, question.model.input.display)
    return Change(cells, name_answer(question.subject, output, number), pixels.astype(np.float32))
