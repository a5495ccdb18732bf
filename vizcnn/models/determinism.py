"""Determinism: the network's answer to each image as it is, checked to be the same alone and beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import DegenerateResult, NetworkError, NonFiniteResult, ParameterError, TargetError
from vizcnn.models.head import Head, Makers, find_head
from vizcnn.models.layers.capture import open_reader, read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target, target


@dataclass(frozen=True)
class CleanRuns:
    """The network's answers to N images.

    output: the raw output (N, ...); None where it is not one tensor. head: what it is, see `vizcnn.models.head`.
    targets: for each image its T targets. scores: of these targets, float64 (N, T).
    layout: the memory format in which an image gets the same answer beside others.
    """

    output: Tensor | None
    head: Head
    targets: tuple[tuple[Target, ...], ...]
    scores: npt.NDArray[np.float64]
    layout: torch.memory_format


@dataclass(frozen=True)
class _CleanRun:
    """The network's answer to one image: output (1, ...), scores (T,)."""

    output: Tensor | None
    head: Head
    targets: tuple[Target, ...]
    scores: Tensor
    layout: torch.memory_format = torch.contiguous_format


def run_clean(model: Model, inputs: Tensor, given: tuple[Target, ...] | None) -> CleanRuns:
    """The network's answer to each of the images (N, C, H, W), for the given targets or the class predicted for each.

    Unless the Model says what its output is, the first run tells. Raises DegenerateResult for a network that is random
    or lets images change each other's answer, NonFiniteResult, TargetError and ParameterError."""
    runs: list[_CleanRun] = []
    for image in inputs:
        runs.append(_run_clean_image(model, image, given, runs[0].head if runs else None))
    outputs = [run.output for run in runs if run.output is not None]
    layouts = {run.layout for run in runs}
    return CleanRuns(
        torch.cat(outputs) if runs and len(outputs) == len(runs) else None,
        runs[0].head if runs else "scores",
        tuple(run.targets for run in runs) or ((given,) if given else ()),
        torch.stack([run.scores for run in runs]).double().cpu().numpy() if runs else np.empty((0, 0)),  # (N, T)
        layouts.pop() if len(layouts) == 1 else torch.contiguous_format,
    )


@torch.no_grad()
def _run_clean_image(model: Model, image: Tensor, given: tuple[Target, ...] | None, head: Head | None) -> _CleanRun:
    """The network's answer to an image (C, H, W), checked to be finite and, with targets, the same beside another."""
    layers = frozenset({OUTPUT}).union(*(t.layers for t in given or ()))
    with nullcontext() if head or model.head else Makers() as makers:
        alone = read_activations(model, image[None], layers)
    output = _check_output(model, alone[OUTPUT])
    head = head or find_head(alone[OUTPUT], model.head, makers)
    targets = (_predict_class(output).resolved(model),) if given is None else given
    targets = tuple(each.with_head(head) for each in targets)
    scores = _score_activations(targets, alone, 1)[0] if targets else image.new_empty(0)
    one = _CleanRun(output, head, targets, scores)
    return replace(one, layout=_choose_layout(model, image, one, alone)) if targets else one


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


def _choose_layout(model: Model, image: Tensor, clean: _CleanRun, alone: Mapping[str, Any]) -> torch.memory_format:
    """The memory format in which an image gets the same answer beside another: channels last, the faster, if it can be.

    alone: the activations of the image's own run. Raises DegenerateResult where the answers differ in both formats."""
    layers = [*alone]
    company = torch.stack([image, image.flip(-1) / 2])  # (2, C, H, W)
    if image.device.type == "cpu":
        try:
            last = company.contiguous(memory_format=torch.channels_last)
            _check_same(clean.targets, clean.scores, alone, read_activations(model, last, layers), model.dtype)
        except Exception:  # whatever it was, the usual format decides
            pass
        else:
            return torch.channels_last
    try:
        _check_same(clean.targets, clean.scores, alone, read_activations(model, company, layers), model.dtype)
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


def _check_output(model: Model, output: Any) -> Tensor | None:
    """The output for one image, if it is one tensor. Raises NonFiniteResult, and ParameterError for a wrong number of
    labels."""
    if not (isinstance(output, Tensor) and output.dim() and len(output) == 1):
        return None
    if not output.isfinite().all():
        raise NonFiniteResult("the network's output for these images holds NaN or infinity. Check its weights")
    if model.labels is not None and output.dim() == 2 and output.shape[1] != len(model.labels):
        raise ParameterError(
            f"{model.name} has {output.shape[1]} outputs but {len(model.labels)} labels. Give one label each"
        )
    return output


def _predict_class(output: Tensor | None) -> Target:
    """The class with the largest output. Raises TargetError where the output is not (1, classes)."""
    if output is None or output.dim() != 2 or output.shape[1] < 2:
        got = "not one tensor" if output is None else tuple(output.shape)
        raise TargetError(
            f"the network's output is {got}, not (N, classes), so there is no predicted class. Give a target"
        )
    return target(int(output.argmax(1)))


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
