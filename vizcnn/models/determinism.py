"""Clean runs: what the network says of images as they are, seen to be the same alone and beside others."""

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
from vizcnn.models.head import Head, Makers, found_head
from vizcnn.models.layers.capture import activations, reading
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target, target


@dataclass(frozen=True)
class Clean:
    """What the network says of N images.

    output: the raw output (N, ...); None where it is not one tensor. head: what it is, see `vizcnn.models.head`.
    targets: for each image its T targets. scores: float64 (N, T), their numbers.
    layout: how images may lie in memory for the network to say the same beside another image.
    """

    output: Tensor | None
    head: Head
    targets: tuple[tuple[Target, ...], ...]
    scores: npt.NDArray[np.float64]
    layout: torch.memory_format


@dataclass(frozen=True)
class _One:
    """The same of one image: output (1, ...), scores (T,)."""

    output: Tensor | None
    head: Head
    targets: tuple[Target, ...]
    scores: Tensor
    layout: torch.memory_format = torch.contiguous_format


def clean_runs(model: Model, inputs: Tensor, given: tuple[Target, ...] | None) -> Clean:
    """Run the network on each of the images (N, C, H, W), for the given targets or the class predicted for each.

    What the output is shows in the first run, unless the Model says so. Raises DegenerateResult for a network that is
    random or lets images change each other's answer, NonFiniteResult, TargetError and ParameterError."""
    runs: list[_One] = []
    for image in inputs:
        runs.append(_clean_run(model, image, given, runs[0].head if runs else None))
    outputs = [run.output for run in runs if run.output is not None]
    layouts = {run.layout for run in runs}
    return Clean(
        torch.cat(outputs) if runs and len(outputs) == len(runs) else None,
        runs[0].head if runs else "scores",
        tuple(run.targets for run in runs) or ((given,) if given else ()),
        torch.stack([run.scores for run in runs]).double().cpu().numpy() if runs else np.empty((0, 0)),  # (N, T)
        layouts.pop() if len(layouts) == 1 else torch.contiguous_format,
    )


@torch.no_grad()
def _clean_run(model: Model, image: Tensor, given: tuple[Target, ...] | None, head: Head | None) -> _One:
    """The network's answer to an image, finite and, where there are targets, the same alone and in company."""
    layers = frozenset({OUTPUT}).union(*(t.layers for t in given or ()))
    with nullcontext() if head or model.head else Makers() as makers:
        alone = activations(model, image[None], layers)
    output = _checked_output(model, alone[OUTPUT])
    head = head or found_head(alone[OUTPUT], model.head, makers)
    targets = (_predicted(output).resolved(model),) if given is None else given
    targets = tuple(each.reading(head) for each in targets)
    scores = _scores(targets, alone, 1)[0] if targets else image.new_empty(0)
    one = _One(output, head, targets, scores)
    return replace(one, layout=_settled_layout(model, image, one, alone)) if targets else one


def check_without_images(model: Model, given: tuple[Target, ...], size: tuple[int, int]) -> tuple[Target, ...]:
    """The targets of a probe of the network alone, told what the output is, and seen to give the same number for an
    image whether it comes alone or beside another. size: of the images, height and width in px."""
    layers = frozenset[str]().union(*(each.layers for each in given))
    grey = model.grey(size)  # (1, C, H, W)
    noise = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)).to(grey)
    with torch.no_grad(), reading(model, layers) as read, Makers() as makers:
        try:
            alone = read(noise)
        except NetworkError:
            if size == model.input.size:
                raise
            return given  # a probe that chose this size knows what to say of it
        if OUTPUT in layers:
            given = tuple(each.reading(found_head(alone[OUTPUT], model.head, makers)) for each in given)
        company = read(torch.cat([noise, grey]))
    numbers = _scores(given, alone, 1)[0]  # (T,)
    if numbers.isfinite().all():
        _refuse_difference(given, numbers, alone, company, model.dtype)
    return given


def _settled_layout(model: Model, image: Tensor, clean: _One, alone: Mapping[str, Any]) -> torch.memory_format:
    """The layout in which the network says the same of an image beside another one: the faster one, if it can.

    alone: the activations of the image's own run. Raises DegenerateResult where it never does."""
    layers = [*alone]
    company = torch.stack([image, image.flip(-1) / 2])  # (2, C, H, W)
    if image.device.type == "cpu":
        try:
            last = company.contiguous(memory_format=torch.channels_last)
            _refuse_difference(clean.targets, clean.scores, alone, activations(model, last, layers), model.dtype)
        except Exception:  # whatever it was, the usual layout decides
            pass
        else:
            return torch.channels_last
    try:
        _refuse_difference(clean.targets, clean.scores, alone, activations(model, company, layers), model.dtype)
    except NetworkError as error:
        error.within("it answers for one image, but not for two")
        raise
    return torch.contiguous_format


def _refuse_difference(
    targets: Sequence[Target],
    scores: Tensor,
    alone: Mapping[str, Any],
    company: Mapping[str, Any],
    dtype: torch.dtype,
) -> None:
    """Raise DegenerateResult where an image's scores (T,), or what they are made from, differ beside another image."""
    check_deterministic(" and ".join(map(str, targets)), scores, _scores(targets, company, 2)[0], dtype)
    for layer in alone.keys() & company.keys():
        one, two = alone[layer], company[layer]
        if isinstance(one, Tensor) and isinstance(two, Tensor) and (one.shape[:1], two.shape[:1]) == ((1,), (2,)):
            check_deterministic(f"layer {layer!r}" if layer else "the output", one[0], two[0], dtype)


def _checked_output(model: Model, output: Any) -> Tensor | None:
    if not (isinstance(output, Tensor) and output.dim() and len(output) == 1):
        return None
    if not output.isfinite().all():
        raise NonFiniteResult("the network's output for these images holds NaN or infinity. Check its weights")
    if model.labels is not None and output.dim() == 2 and output.shape[1] != len(model.labels):
        raise ParameterError(
            f"{model.name} has {output.shape[1]} outputs but {len(model.labels)} labels. Give one label each"
        )
    return output


def _predicted(output: Tensor | None) -> Target:
    if output is None or output.dim() != 2 or output.shape[1] < 2:
        got = "not one tensor" if output is None else tuple(output.shape)
        raise TargetError(
            f"the network's output is {got}, not (N, classes), so there is no predicted class. Give a target"
        )
    return target(int(output.argmax(1)))


def check_deterministic(what: str, alone: Tensor, in_company: Tensor, dtype: torch.dtype) -> None:
    """Raise DegenerateResult where numbers of an image differ between a run of it alone and beside other images.

    dtype: that the network computes in; its last numbers may be of another."""
    near = _rounding(alone.dtype, dtype)
    alone, in_company = _as_reals(alone), _as_reals(in_company)
    if not (alone.isfinite().all() and in_company.isfinite().all()):
        raise NonFiniteResult(f"{what} is {alone.flatten().tolist()[:3]} for one of these images. Check the weights")
    worst = float((alone - in_company).abs().max())
    if worst > near * (1 + float(alone.abs().max())):
        raise DegenerateResult(
            f"{what} of the same image differs by {worst:.3g} between a run alone and a run beside another image, "
            "though the network is in eval mode: it is random (functional dropout without training=self.training, "
            "noise) or lets the images of a batch influence each other (batch statistics). Mend the network first"
        )


def _rounding(*dtypes: torch.dtype) -> float:
    """How far numbers may be apart, as a share; 0 for whole ones and those that are true or false."""
    if not (dtypes[0].is_floating_point or dtypes[0].is_complex):
        return 0.0
    return min(0.05, 1e3 * max(torch.finfo(dtype).eps for dtype in dtypes))


def _as_reals(numbers: Tensor) -> Tensor:
    """Numbers that can be subtracted and compared."""
    if numbers.is_complex():
        return torch.view_as_real(numbers)
    return numbers if numbers.is_floating_point() else numbers.double()


def target_scores(model: Model, images: Tensor, targets: Sequence[Target]) -> Tensor:
    """The targets' numbers for images (B, C, H, W), from one run of the network: (B, T)."""
    layers = frozenset[str]().union(*(t.layers for t in targets))
    return _scores(targets, activations(model, images, layers), len(images))


def _scores(targets: Sequence[Target], values: Mapping[str, Any], images: int) -> Tensor:
    """The targets' numbers from the activations of so many images: (B, T)."""
    numbers = [t(values) for t in targets]
    for one, each in zip(targets, numbers, strict=True):
        if each.shape != (images,):
            raise TargetError(
                f"target {one} gives {len(each)} numbers for {images} images. It must give one per image, in "
                "their order"
            )
    return torch.stack(numbers, 1)  # (B, T)
