"""For probes that attribute a target to pixels: one map per image and target, checked, described and drawn.

A probe says how its maps are computed; the rest is here, and comes out as it does for `saliency` and `cam`:

    class Taylor(vizcnn.Probe[vizcnn.Heatmap]):
        "By how much would the answer change, to first order, if this pixel were black?"

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            def make_maps(images: Tensor, targets: Sequence[Target]) -> list[Map]:
                scores = score(subject, images.requires_grad_(), targets)  # (B,)
                (slopes,) = torch.autograd.grad(scores.sum(), images)  # (B, C, H, W)
                values = (slopes * images).sum(1)  # (B, H, W)
                return [Map(one, find_densest(one), "black costs most") for one in values]

            maps = each_map(subject, make_maps, label="taylor")
            return heatmap(subject, maps, meaning=lambda quantity: f"{quantity} lost", signed=True)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.errors import DegenerateResult, NonFiniteResult, NotDifferentiable, ShapeError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.models.determinism import score_images
from vizcnn.models.targets import Target
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Mark


@dataclass(frozen=True)
class Map:
    """What a method makes of one image and target.

    values: (H, W), in px of the input. box: the place to point at, in the same px; None for none.
    finding: what is said of that place, such as `gradient is strongest`. The sentence goes on with where it lies and
        with the target's score.
    """

    values: Tensor
    box: Box | None
    finding: str


@dataclass(frozen=True)
class Maps:
    """Maps by image and target. partial: Ctrl-C came before all were made, so these are of the first images only."""

    rows: list[list[Map]] = field(default_factory=list)
    partial: bool = False


Method = Callable[[Tensor, Sequence[Target]], Sequence[Map]]
"""Makes the map of each of the images (B, C, H, W) in [0, 1] for the target of each. It may write to the images, and
gradients are on."""


def one_by_one(method: Callable[[Tensor, Target], Map]) -> Method:
    """A method for a batch from one for a single image (1, C, H, W)."""

    def make_maps(images: Tensor, targets: Sequence[Target]) -> list[Map]:
        return [method(image, target) for image, target in zip(images.split(1), targets, strict=True)]

    return make_maps


def score(subject: Subject, images: Tensor, targets: Target | Sequence[Target], source: str = "the pixels") -> Tensor:
    """The target's score for each of the images (B, C, H, W), as a differentiable (B,).

    targets: one for all images, or one for each. source: what the scores should depend on, for the error.
    Raises NotDifferentiable where they do not, and TargetError."""
    of_images = [targets] * len(images) if isinstance(targets, Target) else targets
    different = list({id(target): target for target in of_images}.values())  # a person's own may be without a hash
    column = {id(target): i for i, target in enumerate(different)}
    scores = score_images(subject.model, images, different)  # (B, different targets)
    if not scores.requires_grad:
        named = ", ".join(map(str, different))
        raise NotDifferentiable(
            f"target {named} has no gradient with respect to {source}: it does not depend on it, or the network or "
            "the target function detaches it (argmax, .item(), no_grad, rounding). Use occlusion, or another target"
        )
    columns = torch.tensor([column[id(target)] for target in of_images], device=scores.device)
    return scores.gather(1, columns[:, None])[:, 0]  # (B,)


def each_map(subject: Subject, method: Method, *, label: str) -> Maps:
    """The method's map for every image and target of a subject, under a progress bar with this label.

    Today the method is given one image at a time; later it may be given several. Gradients are on, whatever the
    caller's mode. After Ctrl-C the images whose maps were all made are kept; KeyboardInterrupt where there are none.
    Raises NonFiniteResult, DegenerateResult for a map that is zero everywhere, and ShapeError for one of another size.
    """
    done: list[list[Map]] = []
    total = sum(len(row) for row in subject.targets)
    try:
        with progress.bar(total, label, "map", shown=subject.progress) as bar:
            for i, targets in enumerate(subject.targets):
                row = []
                for target in targets:
                    row.append(_make_map(subject, i, target, method))
                    bar.update(1)
                done.append(row)
    except KeyboardInterrupt:
        if not done:
            raise
        return Maps(done, partial=True)
    return Maps(done)


def _make_map(subject: Subject, i: int, target: Target, method: Method) -> Map:
    """The method's map of one image and target, checked."""
    with torch.inference_mode(False), torch.enable_grad():
        maps = method(subject.inputs[i].clone()[None], (target,))
    what = f"the map of {target} for {subject.photos[i].name}"
    size, sizes = tuple(subject.inputs.shape[2:]), [tuple(one.values.shape) for one in maps]
    if sizes != [size]:
        raise ShapeError(f"{what} must be one of the input's size {size}, got {sizes}")
    (one,) = maps
    if not one.values.isfinite().all():
        raise NonFiniteResult(f"{what} holds NaN or infinity")
    if not one.values.any():
        raise DegenerateResult(
            f"{what} is zero everywhere: by this method nothing speaks for it. A dead or saturated unit, or no "
            "positive evidence; try another method or the signed map"
        )
    return one


def heatmap(
    subject: Subject,
    maps: Maps,
    *,
    meaning: Callable[[str], str],
    signed: bool,
    percentile: float = 100.0,
    paper: str = "",
    details: Mapping[str, Any] | None = None,
) -> Heatmap:
    """The maps as a result, with what the network says of each image, a sentence for each map, and its place marked.

    meaning: from what the target's score is called to what the map's values are: from `logit` to `d logit / d pixel`.
    signed: whether values have a sign, with zero in the middle of the colours; otherwise they are magnitudes.
    percentile: of the magnitudes above zero, where the colours end; the values themselves are kept.
    paper, details: for the provenance, see `Subject.provenance`.
    """
    subject = subject.first(len(maps.rows))
    values = np.stack([[one.values.detach().float().cpu().numpy() for one in row] for row in maps.rows])  # (N, T, H, W)
    marks = [
        [Mark(subject.in_photo(i, one.box), "marked: where it is strongest") if one.box else None for one in row]
        for i, row in enumerate(maps.rows)
    ]
    findings = [[_describe(subject, i, t, one) for t, one in enumerate(row)] for i, row in enumerate(maps.rows)]
    return Heatmap(
        provenance=subject.provenance(paper=paper, **(details or {})),
        values=values,
        scores=subject.scores.astype(np.float32),
        meanings=tuple(meaning(subject.quantity(t)) for t in range(values.shape[1])),
        photos=subject.photos,
        seen=subject.seen,
        predictions=subject.predictions(),
        marks=tuple(map(tuple, marks)),
        findings=tuple(map(tuple, findings)),
        partial=maps.partial,
        signed=signed,
        percentile=percentile,
    )


def _describe(subject: Subject, i: int, t: int, one: Map) -> str:
    """One sentence: what was predicted, where the map is strongest, and the target's score."""
    where = f" in the {subject.place(i, subject.in_photo(i, one.box))}" if one.box else ""
    quantity = subject.quantity(t).split(" of ")[0]
    return f"{subject.said(i)}{one.finding}{where}; {quantity}{subject.about(i, t)} {subject.scores[i, t]:.3g}"


def warn_of_softmax(subject: Subject) -> None:
    """Warn of a target that is a probability: a saturated softmax or sigmoid has hardly any gradient, and evidence
    against any other class raises the softmax of this one."""
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


def find_densest(values: Tensor, side: float = 0.2) -> Box:
    """The square, in px, in which the magnitudes of a map (H, W) add up to most; or, where a box no larger holds all
    that is not zero, that box. side: of the square, as a share of the map's shorter edge."""
    height, width = values.shape
    edge = max(1, round(side * min(height, width)))
    box = Box.around(values)
    if box and box.bottom - box.top <= edge and box.right - box.left <= edge:
        return box
    table = torch.nn.functional.pad(values.abs().double().cumsum(0).cumsum(1), (1, 0, 1, 0))  # (H + 1, W + 1)
    sums = table[edge:, edge:] - table[:-edge, edge:] - table[edge:, :-edge] + table[:-edge, :-edge]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Box(top, left, top + edge, left + edge)
