"""Determinism: the network's answer to each image as it is, checked to be the same alone and beside others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from vizcnn.errors import DegenerateResult, NetworkError, NonFiniteResult, ParameterError, TargetError
from vizcnn.models.batches import default_batch, run_batches
from vizcnn.models.head import Head, Makers, find_head
from vizcnn.models.layers.capture import open_reader, read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target, target


@dataclass(frozen=True)
class _Answers:
    """The network's answers to a batch of images: output (B, ...), the targets of each, their scores (B, T)."""

    output: Tensor | None
    targets: tuple[tuple[Target, ...], ...]
    scores: Tensor


@dataclass(frozen=True)
class _Manner:
    """How a network is run: what its output is, and the memory format in which an image is the same beside others."""

    head: Head
    layout: torch.memory_format


class CleanRuns:
    """The network's answers to N images as they are. What no run has given yet is computed when it is asked for.

    targets: for each image its T targets. head: what the output is, see `vizcnn.models.head`.
    layout: the memory format in which an image gets the same answer beside others.
    """

    def __init__(self, model: Model, inputs: Tensor, targets: tuple[tuple[Target, ...], ...], manner: _Manner) -> None:
        self.targets, self.head, self.layout = targets, manner.head, manner.layout
        self._model, self._inputs, self._manner = model, inputs, manner
        self._known: dict[int, tuple[Tensor | None, Tensor]] = {}  # by image: its output, and its scores (T,)
        self._expected: Sequence[int] = ()

    @cached_property
    def output(self) -> Tensor | None:
        """The raw output (N, ...), in main memory; None where N is 0 or the output is not one tensor."""
        outputs = [output for output, _ in self._list_known() if output is not None]
        return torch.stack(outputs) if outputs and len(outputs) == len(self._inputs) else None

    @cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        """The targets' scores, (N, T)."""
        scores = [scores for _, scores in self._list_known()]
        return torch.stack(scores).double().numpy() if scores else np.empty((0, 0))

    def pick(self, images: Sequence[int]) -> CleanRuns:
        """The same for these images only."""
        targets = tuple(self.targets[i] for i in images) if len(self._inputs) else self.targets
        picked = CleanRuns(self._model, pick_rows(self._inputs, images), targets, self._manner)
        picked._known = {new: self._known[i] for new, i in enumerate(images) if i in self._known}
        return picked

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
        layers = frozenset({OUTPUT}).union(*(t.layers for t in (*targets, *self.targets[0])))
        activations = read_activations(self._model, images, layers)
        rows = self._expected
        if any(i not in self._known for i in rows) and torch.equal(images.detach(), pick_rows(self._inputs, rows)):
            with torch.no_grad():
                self.keep(rows, _answer(self._model, activations, self.targets[0], self.head, len(images)))
        return _pick_own(targets, activations, len(images))

    def keep(self, images: Sequence[int], answers: _Answers) -> None:
        """Keep the answers of a run to these images."""
        outputs = [None] * len(images) if answers.output is None else answers.output.detach().cpu()
        self._known.update(zip(images, zip(outputs, answers.scores.detach().cpu(), strict=True), strict=True))

    def _list_known(self) -> list[tuple[Tensor | None, Tensor]]:
        """For each image its output and scores."""
        if missing := [i for i in range(len(self._inputs)) if i not in self._known]:
            with torch.no_grad():
                for part, answers in _run_all(
                    self._model, pick_rows(self._inputs, missing), self.targets[0], self._manner
                ):
                    self.keep(missing[part], answers)
        return [self._known[i] for i in range(len(self._inputs))]


_CHECKED = WeakIdKeyDictionary()
"""For each network what its check has found, by all that the check depends on."""


@torch.no_grad()
def run_clean(
    model: Model, inputs: Tensor, given: tuple[Target, ...] | None, *, weights: str | None = None
) -> CleanRuns:
    """The network's answer to each of the images (N, C, H, W), for the given targets or the class predicted for each.

    The first and the last image are also run alone and beside another, to see that this changes nothing; and if the
    Model does not say what its output is, that is found out. weights: a digest of the network's weights, by which what
    was found is remembered for calls of the same kind.
    Raises DegenerateResult for a network that is random or lets images change each other's answer, NonFiniteResult,
    TargetError and ParameterError."""
    if not len(inputs):
        return CleanRuns(model, inputs, (given,) if given else (), _Manner("scores", torch.contiguous_format))
    layers = frozenset({OUTPUT}).union(*(t.layers for t in given or ()))
    key = _make_key(model, inputs, layers, weights) if weights else None
    known: dict[Any, _Manner] = _CHECKED.setdefault(model.network, {})
    manner, answers = known.get(key), list[tuple[slice, _Answers]]()
    if manner is None:
        alone = _run_alone(model, inputs[:1], given, layers)
        manner = _Manner(alone.head, _choose_layout(model, inputs[0], alone))
        if len(inputs) > 1:
            last = _choose_layout(model, inputs[-1], _run_alone(model, inputs[-1:], given, layers, alone.head))
            manner = manner if last == manner.layout else replace(manner, layout=torch.contiguous_format)
        else:
            answers = [(slice(1), alone.answers)]
        if key:
            known[key] = manner
    if given is None:
        answers = answers or [*_run_all(model, inputs, None, manner)]
        targets = tuple(targets for _, each in answers for targets in each.targets)
    else:
        targets = (tuple(each.with_head(manner.head) for each in given),) * len(inputs)
    runs = CleanRuns(model, inputs, targets, manner)
    for part, each in answers:
        runs.keep(range(len(inputs))[part], each)
    return runs


def _make_key(model: Model, inputs: Tensor, layers: frozenset[str], weights: str) -> Any:
    """What the check of a network depends on: weights and modes, hooks, plain attributes, the form of the inputs."""
    modules = [
        (
            tuple((name, value) for name, value in vars(module).items() if isinstance(value, int | float | str)),
            tuple(id(hook) for hooks in (module._forward_pre_hooks, module._forward_hooks) for hook in hooks.values()),
        )
        for module in model.network.modules()
    ]
    form = (inputs.shape[1:], inputs.dtype, inputs.device)
    return weights, model.head, model.labels and len(model.labels), layers, form, tuple(modules)


@dataclass(frozen=True)
class _Alone:
    """The run of one image alone: its answers, what the output is, and the activations."""

    answers: _Answers
    head: Head
    activations: Mapping[str, Any]


def _run_alone(
    model: Model, image: Tensor, given: tuple[Target, ...] | None, layers: frozenset[str], head: Head | None = None
) -> _Alone:
    """The network's answer to one image (1, C, H, W). head: of its output, where that is known."""
    with nullcontext() if head or model.head else Makers() as makers:
        activations = read_activations(model, image, layers)
    head = head or find_head(activations[OUTPUT], model.head, makers)
    return _Alone(_answer(model, activations, given, head, 1), head, activations)


def _run_all(
    model: Model, inputs: Tensor, given: tuple[Target, ...] | None, manner: _Manner
) -> Iterator[tuple[slice, _Answers]]:
    """The answers to images (N, C, H, W), batch after batch. One image runs as it does in the check."""
    layers = frozenset({OUTPUT}).union(*(t.layers for t in given or ()))
    layout = manner.layout if len(inputs) > 1 else torch.contiguous_format

    def run(part: slice) -> _Answers:
        images = inputs[part].contiguous(memory_format=layout)
        return _answer(model, read_activations(model, images, layers), given, manner.head, len(images))

    return run_batches(len(inputs), default_batch((inputs.shape[2], inputs.shape[3])), run)


def _answer(
    model: Model, activations: Mapping[str, Any], given: tuple[Target, ...] | None, head: Head, images: int
) -> _Answers:
    """The output, and the scores of the given targets or of each image's predicted class, for so many images."""
    output = _check_output(model, activations[OUTPUT], images)
    if given is None:
        classes = _predict_classes(output)
        different = {one: target(one).resolved(model).with_head(head) for one in classes}
        by_class = dict(zip(different, _score_activations([*different.values()], activations, images).T, strict=True))
        own = torch.stack([by_class[one][i] for i, one in enumerate(classes)])[:, None]  # (B, 1)
        return _Answers(output, tuple((different[one],) for one in classes), own)
    targets = tuple(each.with_head(head) for each in given)
    scores = _score_activations(targets, activations, images) if targets else torch.empty(images, 0)
    return _Answers(output, (targets,) * images, scores)


def check_without_images(model: Model, given: tuple[Target, ...], size: tuple[int, int]) -> tuple[Target, ...]:
    """Check the targets of a probe that takes no images: a made-up image must score the same alone and beside another.

    size: height and width of that image in px. Returns the targets, knowing what the output is. Raises
    DegenerateResult."""
    layers = frozenset[str]().union(*(each.layers for each in given))
    grey = model.grey(size)  # (1, C, H, W)
    noise = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)).to(grey)
    with torch.no_grad(), open_reader(model, layers) as read, Makers() as makers:
        try:
            alone = read(noise)
        except NetworkError:
            if size == model.input.size:
                raise
            return given  # a probe that chose this size knows what to say of it
        if OUTPUT in layers:
            given = tuple(each.with_head(find_head(alone[OUTPUT], model.head, makers)) for each in given)
        company = read(torch.cat([noise, grey]))
    scores = _score_activations(given, alone, 1)[0]  # (T,)
    if scores.isfinite().all():
        _check_same(given, scores, alone, company, model.dtype)
    return given


def _choose_layout(model: Model, image: Tensor, alone: _Alone) -> torch.memory_format:
    """The memory format in which an image (C, H, W) gets the same answer beside another: channels last, the faster, if
    it can be. Raises DegenerateResult where the answers differ in both formats."""
    (targets,), (scores,) = alone.answers.targets, alone.answers.scores
    if not targets:
        return torch.contiguous_format
    layers = [*alone.activations]
    company = torch.stack([image, image.flip(-1) / 2])  # (2, C, H, W)
    if image.device.type == "cpu":
        try:
            last = read_activations(model, company.contiguous(memory_format=torch.channels_last), layers)
            _check_same(targets, scores, alone.activations, last, model.dtype)
        except Exception:  # whatever it was, the usual format decides
            pass
        else:
            return torch.channels_last
    try:
        _check_same(targets, scores, alone.activations, read_activations(model, company, layers), model.dtype)
    except NetworkError as error:
        error.add_context("it answers for one image, but not for two")
        raise
    return torch.contiguous_format


def _check_same(
    targets: Sequence[Target],
    scores: Tensor,
    alone: Mapping[str, Any],
    company: Mapping[str, Any],
    dtype: torch.dtype,
) -> None:
    """Raise DegenerateResult where an image's scores (T,), or the activations behind them, differ beside another image.

    alone, company: the activations of the image's own run, and of the run in which it is the first of two."""
    check_deterministic(" and ".join(map(str, targets)), scores, _score_activations(targets, company, 2)[0], dtype)
    for layer in alone.keys() & company.keys():
        one, two = alone[layer], company[layer]
        if isinstance(one, Tensor) and isinstance(two, Tensor) and (one.shape[:1], two.shape[:1]) == ((1,), (2,)):
            check_deterministic(f"layer {layer!r}" if layer else "the output", one[0], two[0], dtype)


def _check_output(model: Model, output: Any, images: int) -> Tensor | None:
    """The output for so many images, if it is one tensor. Raises NonFiniteResult, and ParameterError for a wrong number
    of labels."""
    if not (isinstance(output, Tensor) and output.dim() and len(output) == images):
        return None
    if not output.isfinite().all():
        raise NonFiniteResult("the network's output for these images holds NaN or infinity. Check its weights")
    if model.labels is not None and output.dim() == 2 and output.shape[1] != len(model.labels):
        raise ParameterError(
            f"{model.name} has {output.shape[1]} outputs but {len(model.labels)} labels. Give one label each"
        )
    return output


def _predict_classes(output: Tensor | None) -> list[int]:
    """For each image the class with the largest output. Raises TargetError where the output is not (N, classes)."""
    if output is None or output.dim() != 2 or output.shape[1] < 2:
        got = "not one tensor" if output is None else tuple(output.shape)
        raise TargetError(
            f"the network's output is {got}, not (N, classes), so there is no predicted class. Give a target"
        )
    classes: list[int] = output.argmax(1).cpu().tolist()
    return classes


def check_deterministic(what: str, alone: Tensor, in_company: Tensor, dtype: torch.dtype) -> None:
    """Raise DegenerateResult where values for an image differ between a run of it alone and one beside other images.

    what: names the values in the message. dtype: that the network computes in; the values may be of another."""
    near = _find_tolerance(alone.dtype, dtype)
    alone, in_company = _to_reals(alone), _to_reals(in_company)
    if not (alone.isfinite().all() and in_company.isfinite().all()):
        raise NonFiniteResult(f"{what} is {alone.flatten().tolist()[:3]} for one of these images. Check the weights")
    worst = float((alone - in_company).abs().max())
    if worst > near * (1 + float(alone.abs().max())):
        raise DegenerateResult(
            f"{what} of the same image differs by {worst:.3g} between a run alone and a run beside another image, "
            "though the network is in eval mode: it is random (functional dropout without training=self.training, "
            "noise) or lets the images of a batch influence each other (batch statistics). Mend the network first"
        )


def _find_tolerance(*dtypes: torch.dtype) -> float:
    """How far values may differ by rounding, as a share of the largest; 0 for whole numbers and booleans."""
    if not (dtypes[0].is_floating_point or dtypes[0].is_complex):
        return 0.0
    return min(0.05, 1e3 * max(torch.finfo(dtype).eps for dtype in dtypes))


def _to_reals(values: Tensor) -> Tensor:
    """The values as real numbers, which can be subtracted and compared."""
    if values.is_complex():
        return torch.view_as_real(values)
    return values if values.is_floating_point() else values.double()


def score_images(model: Model, images: Tensor, targets: Sequence[Target]) -> Tensor:
    """The targets' scores for images (B, C, H, W), from one run of the network: (B, T)."""
    layers = frozenset[str]().union(*(t.layers for t in targets))
    return _score_activations(targets, read_activations(model, images, layers), len(images))


def score_each(model: Model, images: Tensor, targets: Sequence[Target]) -> Tensor:
    """For each of the images (B, C, H, W) the score of its own target, from one run of the network: (B,)."""
    layers = frozenset[str]().union(*(t.layers for t in targets))
    return _pick_own(targets, read_activations(model, images, layers), len(images))


def pick_rows(images: Tensor, rows: Sequence[int]) -> Tensor:
    """A copy of these of the images (N, C, H, W), in one operation."""
    return images.index_select(0, torch.tensor([*rows], dtype=torch.int64, device=images.device))


def _pick_own(targets: Sequence[Target], activations: Mapping[str, Any], images: int) -> Tensor:
    """For each of so many images the score of its own target: (B,)."""
    different = list({id(one): one for one in targets}.values())  # a person's own may be without a hash
    column = {id(one): i for i, one in enumerate(different)}
    scores = _score_activations(different, activations, images)  # (B, different targets)
    own = torch.tensor([column[id(one)] for one in targets], device=scores.device)  # (B,)
    return scores.gather(1, own[:, None])[:, 0]  # (B,)


def _score_activations(targets: Sequence[Target], values: Mapping[str, Any], images: int) -> Tensor:
    """The targets' scores from the activations of so many images: (B, T)."""
    scores = [t(values) for t in targets]
    for one, each in zip(targets, scores, strict=True):
        if each.shape != (images,):
            raise TargetError(
                f"target {one} gives {len(each)} numbers for {images} images. It must give one per image, in "
                "their order"
            )
    return torch.stack(scores, 1)  # (B, T)
