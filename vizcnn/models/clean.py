"""Clean runs: what the network says of each image as it is, checked, and run once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from vizcnn.errors import NonFiniteResult, NotInImage, ParameterError, VizcnnError
from vizcnn.models.batches import Answers, answer_each, default_batch
from vizcnn.models.determinism import (
    check_deterministic,
    choose_layout,
    name_targets,
    pick_own,
    pick_rows,
    score_activations,
)
from vizcnn.models.head import QUANTITIES, Head, Makers, find_head, is_made_by_weights
from vizcnn.models.kept_checks import make_key
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.outputs import Unsettled
from vizcnn.models.precision import advise_precision
from vizcnn.models.predicted import predict_targets
from vizcnn.models.targets import OUTPUT, RAW, Target, is_map


@dataclass(frozen=True)
class _Asked:
    """What a network is asked: its answers to inputs (N, C, H, W), for the given targets or the classes predicted."""

    model: Model
    inputs: Tensor
    given: tuple[Target, ...] | None

    @property
    def layers(self) -> frozenset[str]:
        """The layers that are read, OUTPUT among them."""
        return frozenset({OUTPUT}).union(*(t.layers for t in self.given or ()))

    def differs_by_image(self, *, has_maps: bool) -> bool:
        """Whether only a run of an image tells its targets. has_maps: the output is (N, K, H, W)."""
        return self.given is None or any(each.differs_by_image(has_maps=has_maps) for each in self.given)


@dataclass(frozen=True)
class _Findings:
    """What the check of a network finds: what its output is, whether it is a map for each class, and the memory format
    in which an image gets the same answer beside others."""

    head: Head
    has_maps: bool
    layout: torch.memory_format


@dataclass(frozen=True)
class _Answer:
    """The network's answer to one image: the output without the axis of images, the targets, their scores (T,); in main
    memory."""

    output: Tensor | None
    targets: tuple[Target, ...]
    scores: Tensor


class CleanRuns:
    """The network's answers to N images as they are. What no run has given yet is computed when it is asked for.

    head: what the output is, see `vizcnn.models.head`. layout: the memory format in which an image gets the same answer
    beside others. refused: by the number of an image for which the network gives NaN or infinity, as far as known, why
    it is left out.
    """

    def __init__(
        self,
        asked: _Asked,
        findings: _Findings,
        alone: Mapping[int, _Answer] | None = None,
        refused: Mapping[int, VizcnnError] | None = None,
    ) -> None:
        """alone: answers to images in runs of their own, with which those beside others are compared."""
        self.head, self.layout, self.refused = findings.head, findings.layout, dict(refused or {})
        self.inputs = asked.inputs
        self._asked, self._findings, self._alone = asked, findings, dict(alone or {})
        self._known = dict(self._alone) if len(asked.inputs) == 1 else {}  # by image
        self._expected: Sequence[int] = ()

    @cached_property
    def targets(self) -> tuple[tuple[Target, ...], ...]:
        """For each image its T targets; none for one that is refused before they are known."""
        given, count = self._asked.given, len(self.inputs)
        if given is None or (count and self._asked.differs_by_image(has_maps=self._findings.has_maps)):
            return tuple(self._known[i].targets if i in self._known else () for i in range(count))
        if not count:
            return (given,) if given else ()
        return (tuple(each.with_head(self.head) for each in given),) * count

    @cached_property
    def output(self) -> Tensor | None:
        """The output (N, ...), in main memory; None where N is 0 or there is no such tensor. Raises NonFiniteResult."""
        outputs = [answer.output for answer in self._list_answers() if answer.output is not None]
        return torch.stack(outputs) if outputs and len(outputs) == len(self.inputs) else None

    @cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        """The targets' scores, (N, T). Raises NonFiniteResult."""
        scores = [answer.scores for answer in self._list_answers()]
        return torch.stack(scores).double().numpy() if scores else np.empty((0, 0))

    def measure_largest(self, i: int) -> float:
        """The magnitude of the largest output for image i; 0 where the output is not one tensor, or is empty."""
        return 0.0 if self.output is None or not self.output.numel() else float(self.output[i].abs().max())

    def name_quantity(self, kind: str) -> str:
        """What scores of a target's kind are called: the kind, but for a class what the output holds of it."""
        return kind if kind != "logit" or self.output is None else QUANTITIES[self.head]

    @property
    def remaining(self) -> Answers[None]:
        """Which images are not refused."""
        images = [i for i in range(len(self.inputs)) if i not in self.refused]
        return Answers([None] * len(images), images, self.refused)

    def pick(self, images: Sequence[int]) -> CleanRuns:
        """The same for these images only."""
        inputs = pick_rows(self.inputs, images) if len(self.inputs) else self.inputs
        alone = {new: self._alone[i] for new, i in enumerate(images) if i in self._alone}
        picked = CleanRuns(replace(self._asked, inputs=inputs), self._findings, alone)
        picked._known = {new: self._known[i] for new, i in enumerate(images) if i in self._known}
        return picked

    @torch.no_grad()
    def add_targets(self, more: Sequence[Sequence[Target]]) -> CleanRuns:
        """The same for these targets of each image too, behind its own.

        more: numbers that the output (N, ...) holds, so that no run is needed but those that are missing."""
        answers = [
            replace(
                answer,
                targets=(*answer.targets, *some),
                scores=torch.cat([answer.scores, *(each(_read_output(answer)) for each in some)]),
            )
            for answer, some in zip(self._list_answers(), more, strict=True)
        ]
        extended = CleanRuns(replace(self._asked, given=None), self._findings)  # as if each image had its own
        extended._known = dict(enumerate(answers))
        return extended

    @torch.no_grad()
    def run(self, images: Collection[int] | None = None, *, strict: bool = False) -> Answers[None]:
        """Run what has not been run. Returns which images are left, and why the others are not.

        images: run these only. strict: raise the first reason, as where none is left; see `answer_each`."""
        wanted = [i for i in self.remaining.images if images is None or i in images]
        layout = self.layout if len(wanted) > 1 else torch.contiguous_format

        def run(part: slice) -> list[None]:
            missing = [i for i in wanted[part] if i not in self._known]
            if missing:
                inputs = pick_rows(self.inputs, missing).contiguous(memory_format=layout)
                self._keep(missing, read_activations(self._asked.model, inputs, self._asked.layers))
            return [None] * len(wanted[part])

        # without targets nothing was seen beside others, so that each image runs alone
        height, width = self.inputs.shape[2:]
        batch = 1 if self._asked.given == () else default_batch((height, width), self.inputs.device)
        answers = answer_each(len(wanted), run, batch=batch, strict=strict)
        if answers.partial:
            raise KeyboardInterrupt
        self.refused |= {wanted[number]: error for number, error in answers.refused.items()}
        return self.remaining

    @contextmanager
    def expect(self, images: Sequence[int]) -> Iterator[None]:
        """While the context is open, `score_each` is about these images."""
        self._expected = images
        try:
            yield
        finally:
            self._expected = ()

    def score_each(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """As the function of this name, with what the network says kept where the images are those that are expected.

        To be called while the network is as it was given. Raises NonFiniteResult."""
        layers = self._asked.layers.union(*(t.layers for t in (*targets, *self.targets[0])))
        activations = read_activations(self._asked.model, images, layers)
        rows = self._expected
        if any(i not in self._known for i in rows) and torch.equal(images.detach(), pick_rows(self.inputs, rows)):
            with torch.no_grad():
                self._keep(rows, activations)
        return pick_own(targets, activations, len(images))

    def _keep(self, images: Sequence[int], activations: Mapping[str, Any]) -> None:
        """Keep what a run says of these images. Raises NonFiniteResult, and UnsuitableNetwork where it said something
        else of one of them alone."""
        answers = _answer(self._asked.model, activations, self._asked.given, self.head, len(images))
        for row, (i, answer) in enumerate(zip(images, answers, strict=True)):
            alone = self._alone.get(i)
            if alone and alone.targets and len(images) > 1:
                scores = score_activations(alone.targets, activations, len(images))[row]  # (T,)
                _check_beside(self._asked.model, alone, replace(answer, scores=scores.detach().cpu()))
            self._known[i] = answer

    def _list_answers(self) -> list[_Answer]:
        """For each image the answer."""
        if len(self._known) < len(self.inputs):
            self.run(strict=True)
        return [self._known[i] for i in range(len(self.inputs))]


_CHECKED = WeakIdKeyDictionary()
"""For each network what its check has found, by all that the check depends on."""

_MOST_REMEMBERED = 32  # a network that is trained meanwhile has other weights in each call


@torch.no_grad()
def run_clean(
    model: Model,
    inputs: Tensor,
    given: tuple[Target, ...] | None,
    *,
    weights: str | None = None,
    strict: bool = False,
) -> CleanRuns:
    """The network's answer to each of the images (N, C, H, W), for the given targets or the class predicted for each.

    Of the images for which the network does not give NaN or infinity, the first and the last run alone and beside
    another, to see that this changes nothing, and if the Model does not say what its output is, that is found out. The
    others run here where their predicted classes, or their strongest units, are asked for, and otherwise when they are
    needed.
    weights: a digest of the network's weights, by which what was found is remembered for calls of the same kind.
    strict: an image that is refused is an error.
    Raises UnsuitableNetwork for a network that is random or lets images change each other's answer, TargetError and
    ParameterError, and NonFiniteResult or NotInImage where no image is left."""
    asked = _Asked(model, inputs, given)
    if not len(inputs):
        return CleanRuns(asked, _Findings("scores", False, torch.contiguous_format))
    key = make_key(asked.model, asked.inputs, asked.given, weights) if weights else None
    known: dict[Any, _Findings] = _CHECKED.setdefault(model.network, {})
    findings, ends, refused = known.get(key), dict[int, _CheckedRun](), dict[int, VizcnnError]()
    if findings is None:
        ends, refused = _run_ends(asked, strict)
        layouts = {end.layout for end in ends.values()}
        layout = layouts.pop() if len(layouts) == 1 else torch.contiguous_format
        first = next(iter(ends.values()))
        findings = _Findings(first.head, first.has_maps, layout)
    runs = CleanRuns(asked, findings, {i: end.answer for i, end in ends.items()}, refused)
    if asked.differs_by_image(has_maps=findings.has_maps):
        runs.run(strict=strict)
    if key and not runs.refused and all(end.is_sure for end in ends.values()):
        if len(known) >= _MOST_REMEMBERED:
            known.clear()
        known[key] = findings
    return runs


@dataclass(frozen=True)
class _CheckedRun:
    """The run of one image alone: the answer, what the output is, whether this holds for any image, whether it is a map
    for each class, and the memory format for company."""

    answer: _Answer
    head: Head
    is_sure: bool
    has_maps: bool
    layout: torch.memory_format


def _run_ends(asked: _Asked, strict: bool) -> tuple[dict[int, _CheckedRun], dict[int, VizcnnError]]:
    """The runs alone of the first and the last image that are not refused, by number, and those refused on the way."""
    ends: dict[int, _CheckedRun] = {}
    refused: dict[int, VizcnnError] = {}
    numbers = range(len(asked.inputs))
    for way in (numbers, reversed(numbers)):
        for i in way:
            if i in ends or i in refused:
                break  # the other way has come here
            try:
                ends[i] = _run_alone(asked, i, next(iter(ends.values()), None))
                break
            except (NonFiniteResult, NotInImage) as error:
                if strict:
                    raise
                refused[i] = error
    if not ends:
        raise refused[0]
    return ends, refused


def _run_alone(asked: _Asked, i: int, other: _CheckedRun | None) -> _CheckedRun:
    """The network's answer to image i, checked to be the same beside another. other: an image that has run before."""
    model, image = asked.model, asked.inputs[i : i + 1]  # (1, C, H, W)
    head, is_sure = (other.head, other.is_sure) if other else (model.head, model.head is not None)
    with Makers() if head is None else nullcontext() as makers:
        activations = read_activations(model, image, asked.layers)
    if makers:
        head, is_sure = find_head(activations[OUTPUT], None, makers), is_made_by_weights(activations[OUTPUT], makers)
    assert head is not None
    (answer,) = _answer(model, activations, asked.given, head, 1)
    layout = choose_layout(model, image[0], answer.targets, activations)
    return _CheckedRun(answer, head, is_sure, is_map(activations[OUTPUT]), layout)


def _answer(
    model: Model, activations: Mapping[str, Any], given: tuple[Target, ...] | None, head: Head, images: int
) -> list[_Answer]:
    """The answer to each of so many images, for the given targets or its predicted class. Raises NonFiniteResult."""
    output = check_output(model, activations, images)
    if given is None:
        by_target = [predict_targets(model, activations, images, head)]
    else:
        by_target = [each.with_head(head).choose(activations, images, head, model.class_name) for each in given]
    targets = [*zip(*by_target, strict=True)] if by_target else [()] * images
    scores = torch.empty(images, 0)
    if by_target:
        scores = torch.stack([pick_own(own, activations, images) for own in by_target], 1)  # (B, T)
    scores = scores.detach().cpu()
    finite = scores.isfinite()
    if not finite.all():
        i = int((~finite).nonzero()[0, 0])
        raise NonFiniteResult(
            f"{name_targets(targets[i])} is {scores[i].tolist()[:3]} for one of these images. Check the weights"
            f"{advise_precision(model.dtype)}"
        )
    outputs = [None] * images if output is None else output
    return [_Answer(*one) for one in zip(outputs, targets, scores, strict=True)]


def _read_output(answer: _Answer) -> dict[str, Any]:
    """The output of one image, as targets read it."""
    assert answer.output is not None
    return {OUTPUT: answer.output[None]}


def _bring_near(output: Any) -> Any:
    """The network's output in main memory, moved once, before much of it is read."""
    return output.detach().cpu() if isinstance(output, Tensor) else output


def _check_beside(model: Model, alone: _Answer, beside: _Answer) -> None:
    """Raise UnsuitableNetwork where the answer to an image differs between its run alone and one beside others."""
    try:
        check_deterministic(name_targets(alone.targets), alone.scores, beside.scores, model.dtype)
        if alone.output is not None and beside.output is not None:
            check_deterministic("the output", alone.output, beside.output, model.dtype)
    except VizcnnError:
        _CHECKED.pop(model.network, None)
        raise


def check_output(model: Model, activations: Mapping[str, Any], images: int) -> Tensor | None:
    """The output for so many images; where it cannot be settled, what the network returns if that is one tensor
    (N, ...).

    Raises NonFiniteResult, and ParameterError for a wrong number of labels."""
    output = _bring_near(activations[RAW] if isinstance(activations[OUTPUT], Unsettled) else activations[OUTPUT])
    if not (isinstance(output, Tensor) and output.dim() and len(output) == images):
        return None
    if not output.isfinite().all():
        raise NonFiniteResult(
            "the network's output for these images holds NaN or infinity. Check its weights"
            f"{advise_precision(output.dtype)}"
        )
    find_head(output, model.head)  # refuses what contradicts the person
    names = len(model.labels or ())
    if names and output.dim() in (2, 4) and output.shape[1] != names and (output.shape[1], names) != (1, 2):
        raise ParameterError(f"{model.name} has {output.shape[1]} outputs but {names} labels. Give one label each")
    return output
