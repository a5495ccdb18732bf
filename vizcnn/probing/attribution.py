"""What the probes that attribute a target to pixels share: one map per image and target, checked and described."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.errors import DegenerateResult, NonFiniteResult, NotDifferentiable, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.models.determinism import target_scores
from vizcnn.models.targets import Target
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Mark, Provenance


@dataclass(frozen=True)
class Map:
    """One map (H, W), the box to point at in input px, and the end of the sentence that describes it."""

    values: Tensor
    box: Box | None
    finding: str


def score(subject: Subject, images: Tensor, target: Target, source: str = "the pixels") -> Tensor:
    """The target's number for images (B, C, H, W), as a differentiable (B,). Raises NotDifferentiable, naming the
    source that it should depend on."""
    numbers = target_scores(subject.model, images, [target])[:, 0]  # (B,)
    if not numbers.requires_grad:
        raise NotDifferentiable(
            f"target {target} has no gradient with respect to {source}: it does not depend on it, or the network or "
            "the target function detaches it (argmax, .item(), no_grad, rounding). Use occlusion, or another target"
        )
    return numbers


def each_map(subject: Subject, label: str, compute: Callable[[Tensor, Target], Map]) -> tuple[list[list[Map]], bool]:
    """compute(image (1, C, H, W), target) for every image and target, and whether Ctrl-C ended it early.

    Gradients are on whatever the caller's mode. An image whose maps were not all made is dropped.
    """
    done: list[list[Map]] = []
    total = sum(len(row) for row in subject.targets)
    try:
        with progress.bar(total, label, "map", shown=subject.progress) as bar:
            for i, targets in enumerate(subject.targets):
                row = []
                for target in targets:
                    row.append(_one(subject, i, target, compute))
                    bar.update(1)
                done.append(row)
    except KeyboardInterrupt:
        if not done:
            raise
        return done, True
    return done, False


def _one(subject: Subject, i: int, target: Target, compute: Callable[[Tensor, Target], Map]) -> Map:
    with torch.inference_mode(False), torch.enable_grad():
        found = compute(subject.inputs[i].clone()[None], target)
    if not found.values.isfinite().all():
        raise NonFiniteResult(f"the map of {target} for {subject.photos[i].name} holds NaN or infinity")
    if not found.values.any():
        raise DegenerateResult(
            f"the map of {target} for {subject.photos[i].name} is zero everywhere: by this method nothing speaks for "
            "it. A dead or saturated unit, or no positive evidence; try another method or the signed map"
        )
    return found


def heatmap(
    subject: Subject,
    rows: list[list[Map]],
    provenance: Callable[[Subject], Provenance],
    *,
    meaning: Callable[[str], str],
    signed: bool,
    partial: bool,
    percentile: float = 100.0,
) -> Heatmap:
    """Put the maps of `each_map` into a result; `meaning` tells what the numbers are from the target's quantity."""
    subject = subject.first(len(rows))
    values = np.stack([[one.values.detach().float().cpu().numpy() for one in row] for row in rows])  # (N, T, H, W)
    return Heatmap(
        provenance=provenance(subject),
        values=values,
        scores=subject.scores.astype(np.float32),
        meanings=tuple(meaning(subject.quantity(t)) for t in range(values.shape[1])),
        photos=subject.photos,
        seen=subject.seen,
        predictions=subject.predictions(),
        marks=tuple(tuple(_mark(subject, i, one) for one in row) for i, row in enumerate(rows)),
        findings=tuple(tuple(_sentence(subject, i, t, one) for t, one in enumerate(row)) for i, row in enumerate(rows)),
        partial=partial,
        signed=signed,
        percentile=percentile,
    )


def _mark(subject: Subject, i: int, one: Map) -> Mark | None:
    return Mark(subject.in_photo(i, one.box), "marked: where it is strongest") if one.box else None


def _sentence(subject: Subject, i: int, t: int, one: Map) -> str:
    number = float(subject.scores[i, t])
    where = f" in the {subject.place(i, subject.in_photo(i, one.box))}" if one.box else ""
    what = f"{subject.quantity(t).split(' of ')[0]}{subject.about(i, t)}"
    return f"{subject.said(i)}{one.finding}{where}; {what} {number:.3g}"


def warn_of_softmax(subject: Subject) -> None:
    """A saturated softmax or sigmoid has hardly any gradient, and in a softmax is every other class's evidence: say so
    once."""
    kinds = {subject.quantity(t) for t in range(len(subject.targets[0]))}
    if subject.head in ("softmax", "sigmoid") and "probability" in kinds:
        linear = [n for n, m in subject.model.layers().items() if isinstance(m, torch.nn.Linear)]
        remedy = f" Explain the logit instead, for example the target '{linear[-1]}:CLASS'." if linear else ""
        others = ", and evidence against other classes counts as evidence for this one" * (subject.head == "softmax")
        warnings.warn(
            f"the target of {subject.model.name} is a probability: gradients through a saturated {subject.head} nearly "
            f"vanish{others}.{remedy}",
            VizcnnWarning,
            stacklevel=2,
        )


def densest(values: Tensor, side: float = 0.2) -> Box:
    """The square of `side` (share of the shorter edge) that holds the most magnitude of a map (H, W), in px; or, where
    a smaller box holds all that is not zero, that box."""
    height, width = values.shape
    edge = max(1, round(side * min(height, width)))
    rows, columns = values.any(1).nonzero().flatten().tolist(), values.any(0).nonzero().flatten().tolist()
    if rows and rows[-1] - rows[0] < edge and columns[-1] - columns[0] < edge:
        return Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    table = torch.nn.functional.pad(values.abs().double().cumsum(0).cumsum(1), (1, 0, 1, 0))  # (H + 1, W + 1)
    sums = table[edge:, edge:] - table[:-edge, edge:] - table[edge:, :-edge] + table[:-edge, :-edge]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Box(top, left, top + edge, left + edge)
