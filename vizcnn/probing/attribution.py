"""For probes that attribute a target to pixels: one map per image and target, checked, described and drawn.

A probe says how the maps of some images are made, each for its own target; the rest is here, and comes out as it does
for `saliency` and `cam`:

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
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.errors import (
    DegenerateResult,
    NonFiniteResult,
    NotDifferentiable,
    ParameterError,
    ShapeError,
    VizcnnError,
    VizcnnWarning,
)
from vizcnn.geometry import Box
from vizcnn.models.batches import Answers, answer_each, default_batch
from vizcnn.models.determinism import pick_rows, score_each
from vizcnn.models.precision import advise_precision
from vizcnn.models.targets import Target
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Mark, format_score

R = TypeVar("R")


@dataclass(frozen=True)
class Map:
    """What a method makes of one image and target.

    values: (H, W), in px of the input. box: the place to point at, in the same px; None for none.
    finding: what is said of that place, such as `gradient is strongest`. The sentence goes on with where it lies and
        with the target's score.
    place: what the sentence names, where that is not the box: of a large box the part that matters most.
    mark: what the box is, in the words below the picture.
    """

    values: Tensor
    box: Box | None
    finding: str
    place: Box | None = None
    mark: str = "where it is strongest"


Method = Callable[[Tensor, Sequence[Target]], Sequence[Map]]
"""Makes the map of each of the images (B, C, H, W) in [0, 1] for the target of each. It may write to the images, and
gradients are on."""


def score(subject: Subject, images: Tensor, targets: Target | Sequence[Target], source: str = "the pixels") -> Tensor:
    """The target's score for each of the images (B, C, H, W), as a differentiable (B,).

    targets: one for all images, or one for each. source: what the scores should depend on, for the error.
    Raises NotDifferentiable where they do not, and TargetError."""
    own = [targets] * len(images) if isinstance(targets, Target) else targets
    return require_gradient(score_each(subject.model, images, own), own, source)


def score_inputs(subject: Subject, images: Tensor, targets: Sequence[Target], source: str = "the pixels") -> Tensor:
    """The same for the images that a method is given, from a network that the method has left as it was.

    What the network says is then kept, and saves the run that would else be needed for the result's scores."""
    return require_gradient(subject.clean.score_each(images, targets), targets, source)


def require_gradient(scores: Tensor, targets: Sequence[Target], source: str) -> Tensor:
    """The scores (B,). Raises NotDifferentiable where they do not depend on `source` as far as torch can tell."""
    if not scores.requires_grad:
        named = ", ".join(dict.fromkeys(map(str, targets)))
        if reason := next(filter(None, (target.no_gradient for target in targets)), ""):
            raise NotDifferentiable(f"target {named} has no gradient: {reason}")
        raise NotDifferentiable(
            f"target {named} has no gradient with respect to {source}: it does not depend on it, or the network or "
            "the target function detaches it (argmax, .item(), no_grad, rounding). Use occlusion, or another target"
        )
    return scores


def each_map(subject: Subject, method: Method, *, label: str, batch: int | None = None) -> Answers[list[Map]]:
    """The method's map for every image and target of a subject, under a progress bar with this label.

    The method is given batches of at most `batch` images, by default as many as suit their size; an image with several
    targets comes once for each. When memory runs out, batches are halved. A method that is slow, or made for a single
    image, asks for `batch=1`. Gradients are on whatever the caller's mode.

    An image with a map that holds NaN or is zero everywhere is refused, with the reason, and the others are kept; so is
    one for which the method raises NonFiniteResult or DegenerateResult. Where none is left, or with `strict`, the first
    reason is raised. After Ctrl-C the images whose maps were all made are kept; KeyboardInterrupt where there are none.
    Raises ShapeError for a map of another size than the input's."""

    def make_maps(pairs: Sequence[tuple[int, Target]]) -> list[Map | VizcnnError]:
        images = [i for i, _ in pairs]
        with torch.inference_mode(False), torch.enable_grad(), subject.clean.expect(images):
            found = method(pick_rows(subject.inputs, images), [target for _, target in pairs])
        if len(found) != len(pairs):
            raise ShapeError(f"there must be one map for each of {len(pairs)} images, got {len(found)}")
        maps = _check_maps(
            found,
            [f"the map of {target} for {subject.photos[i].name}" for i, target in pairs],
            subject.size,
            subject.model.dtype,
        )
        whole = {i for i, one in zip(images, maps, strict=True) if isinstance(one, Map)}
        refused = subject.clean.run(whole, strict=subject.strict).refused  # now, so that Ctrl-C finds maps with scores
        return [refused.get(i, one) if isinstance(one, Map) else one for i, one in zip(images, maps, strict=True)]

    return answer_pairs(subject, make_maps, label=label, unit="map", batch=batch)


def answer_pairs(
    subject: Subject,
    answer: Callable[[Sequence[tuple[int, Target]]], Sequence[R | VizcnnError]],
    *,
    label: str,
    unit: str,
    batch: int | None = None,
) -> Answers[list[R]]:
    """For each image what `answer` makes of it for each of its targets, under a progress bar.

    answer: from several pairs of an image's number and a target to as many answers; in place of one it may give the
        reason why there is none, see `vizcnn.models.batches.answer_each`. An image with such a reason is refused.
    label, unit: of the progress bar. batch: pairs at once, by default as many as suit the images' size.

    After Ctrl-C the images with an answer for each target are kept."""
    pairs = [(i, target) for i, targets in enumerate(subject.targets) for target in targets]
    if not pairs:
        raise ParameterError("a probe that explains no target has no maps. Leave its needs_target = True")
    with progress.bar(len(pairs), label, unit, shown=subject.progress) as bar:

        def run(part: slice) -> Sequence[R | VizcnnError]:
            answers = answer(pairs[part])
            bar.update(len(pairs[part]))
            return answers

        at_once = 1 if subject.model.one_at_a_time else batch or default_batch(subject.size, subject.inputs.device)
        by_pair = answer_each(len(pairs), run, batch=at_once, strict=subject.strict)
    rows: dict[int, list[R]] = {}
    for number, one in zip(by_pair.images, by_pair.rows, strict=True):
        rows.setdefault(pairs[number][0], []).append(one)
    whole = {i: row for i, row in rows.items() if len(row) == len(subject.targets[i])}
    if not whole:
        raise KeyboardInterrupt if by_pair.partial else next(iter(by_pair.refused.values()))
    refused: dict[int, VizcnnError] = {}
    for number, error in by_pair.refused.items():
        refused.setdefault(pairs[number][0], error)
    return Answers([*whole.values()], [*whole], refused, by_pair.partial)


def _check_maps(
    found: Sequence[Map], names: Sequence[str], size: tuple[int, ...], dtype: torch.dtype
) -> list[Map | VizcnnError]:
    """The maps, in main memory; in place of one that is none the reason. Raises ShapeError for one of another size."""
    for one, what in zip(found, names, strict=True):
        if tuple(one.values.shape) != size:
            raise ShapeError(f"{what} must be of the input's size {size}, got {tuple(one.values.shape)}")
    values = torch.stack([one.values.detach() for one in found]).float().cpu()  # (B, H, W), moved at once
    return [
        check_map(replace(one, values=own), what, dtype) for one, own, what in zip(found, values, names, strict=True)
    ]


def check_map(one: Map, what: str, dtype: torch.dtype) -> Map | VizcnnError:
    """The map, or why it is none."""
    if not one.values.isfinite().all():
        return NonFiniteResult(f"{what} holds NaN or infinity{advise_precision(dtype)}")
    if not one.values.any():
        return DegenerateResult(
            f"{what} is zero everywhere: by this method nothing speaks for it. A dead or saturated unit, or no "
            f"positive evidence; try another method or the signed map{advise_precision(dtype)}"
        )
    return one


def heatmap(
    subject: Subject,
    maps: Answers[list[Map]],
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
    subject = subject.keep(maps)
    left = subject.clean.run(strict=subject.strict)  # a map may be finite where not all of the output is
    subject, rows = subject.keep(left), [maps.rows[i] for i in left.images]
    values = np.stack([[one.values.detach().float().cpu().numpy() for one in row] for row in rows])  # (N, T, H, W)
    marks = [
        [Mark(subject.in_photo(i, one.box), one.mark) if one.box else None for one in row] for i, row in enumerate(rows)
    ]
    findings = [[_describe(subject, i, t, one) for t, one in enumerate(row)] for i, row in enumerate(rows)]
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
        target_marks=subject.target_marks(),
    )


def _describe(subject: Subject, i: int, t: int, one: Map) -> str:
    """One sentence: what was predicted, where the map is strongest, and the target's score."""
    quantity = subject.short_quantity(t)
    score = f"{quantity}{subject.about(i, t)} {format_score(subject.scores[i, t], quantity)}"
    return f"{subject.said(i)}{one.finding}{_describe_place(subject, i, one.place or one.box)}; {score}"


def _describe_place(subject: Subject, i: int, place: Box | None) -> str:
    """Where a place, in px of input i, lies, to go on a sentence."""
    if place is None:
        return ""
    box = subject.in_photo(i, place)
    return " almost everywhere" if subject.is_nearly_all(i, box) else f" in the {subject.place(i, box)}"


def warn_of_softmax(subject: Subject) -> None:
    """Warn of a target that is a probability: a saturated softmax or sigmoid has hardly any gradient, and evidence
    against any other class raises the softmax of this one."""
    if subject.head in ("softmax", "sigmoid") and "probability" in map(
        subject.quantity, range(len(subject.targets[0]))
    ):
        linear = [n for n, m in subject.model.layers().items() if isinstance(m, torch.nn.Linear)]
        remedy = f" Explain the logit instead, for example the target '{linear[-1]}:CLASS'." if linear else ""
        others = ", and evidence against other classes counts as evidence for this one" * (subject.head == "softmax")
        warnings.warn(
            f"the target of {subject.model.name} is a probability: gradients through a saturated {subject.head} nearly "
            f"vanish{others}.{remedy}",
            VizcnnWarning,
            stacklevel=2,
        )


def compare_sums(
    sums: npt.NDArray[np.float64], promised: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What sums of maps (N, T) lack of those that the method promises, as a share of these: 0 where all is there.

    NaN where the promised sum is too small beside the scores that it is a difference of for a share to say anything."""
    known = np.abs(promised) > _LEAST * np.maximum(np.abs(scores), np.abs(scores - promised))
    return np.divide(promised - sums, promised, out=np.full_like(promised, np.nan), where=known)


_LEAST = 1e-2


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


def find_peak(values: Tensor, share: float = 0.8) -> Box | None:
    """A box, in px, around the highest value of a map (H, W), in which all values exceed `share` of that value; None
    where no value is positive.

    It grows from there to all sides by turns, as far as it can: a tight place, of which the picture shows no part in
    another colour. NaN belongs to none."""
    strong = np.nan_to_num(values.detach().float().cpu().numpy(), nan=-np.inf)  # (H, W)
    highest = strong.max()
    if not highest > 0:
        return None
    top, left = (int(at) for at in np.unravel_index(strong.argmax(), strong.shape))
    inside, (bottom, right) = strong > share * highest, (top + 1, left + 1)
    grown = True
    while grown:
        before = (top, left, bottom, right)
        top -= top > 0 and bool(inside[top - 1, left:right].all())
        left -= left > 0 and bool(inside[top:bottom, left - 1].all())
        bottom += bottom < inside.shape[0] and bool(inside[bottom, left:right].all())
        right += right < inside.shape[1] and bool(inside[top:bottom, right].all())
        grown = before != (top, left, bottom, right)
    return Box(top, left, bottom, right)
