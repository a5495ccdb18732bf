"""Determinism: checks that a network says the same of an image alone and beside others; scores of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import NetworkError, NonFiniteResult, TargetError, UnsuitableNetwork
from vizcnn.models.head import Makers, find_head
from vizcnn.models.layers.capture import open_reader, read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, RAW, Target


def check_without_images(model: Model, given: tuple[Target, ...], size: tuple[int, int]) -> tuple[Target, ...]:
    """Check the targets of a probe that takes no images: a made-up image must score the same alone and beside another.

    size: height and width of that image in px. Returns the targets, knowing what the output is. Raises
    UnsuitableNetwork."""
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
    scores = score_activations(given, alone, 1)[0]  # (T,)
    if scores.isfinite().all():
        _check_same(given, scores, alone, company, model.dtype)
    return given


def choose_layout(
    model: Model, image: Tensor, targets: Sequence[Target], alone: Mapping[str, Any]
) -> torch.memory_format:
    """The memory format in which an image (C, H, W) gets the same answer beside another: channels last, the faster, if
    it can be. Raises UnsuitableNetwork where the answers differ in both formats.

    alone: the activations of the image's own run."""
    if not targets:
        return torch.contiguous_format
    layers, scores = [*alone], score_activations(targets, alone, 1)[0]  # (T,)
    company = torch.stack([image, image.flip(-1) / 2])  # (2, C, H, W)
    if image.device.type == "cpu" and not (model.is_black_box or model.one_at_a_time):
        try:
            last = read_activations(model, company.contiguous(memory_format=torch.channels_last), layers)
            _check_same(targets, scores, alone, last, model.dtype)
        except Exception:  # whatever it was, the usual format decides
            pass
        else:
            return torch.channels_last
    try:
        _check_same(targets, scores, alone, read_activations(model, company, layers), model.dtype)
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
    """Raise UnsuitableNetwork where an image's scores (T,), or the activations behind them, differ beside another.

    alone, company: the activations of the image's own run, and of the run in which it is the first of two."""
    check_deterministic(name_targets(targets), scores, score_activations(targets, company, 2)[0], dtype)
    for layer in alone.keys() & company.keys():
        one, two = alone[layer], company[layer]
        if isinstance(one, Tensor) and isinstance(two, Tensor) and (one.shape[:1], two.shape[:1]) == ((1,), (2,)):
            check_deterministic("the output" if layer in (OUTPUT, RAW) else f"layer {layer!r}", one[0], two[0], dtype)


def check_deterministic(what: str, alone: Tensor, in_company: Tensor, dtype: torch.dtype) -> None:
    """Raise UnsuitableNetwork where values for an image differ between a run of it alone and one beside other images.

    what: names the values in the message. dtype: that the network computes in; the values may be of another."""
    near = _find_tolerance(alone.dtype, dtype)
    alone, in_company = _to_reals(alone), _to_reals(in_company)
    if not (alone.isfinite().all() and in_company.isfinite().all()):
        raise NonFiniteResult(f"{what} is {alone.flatten().tolist()[:3]} for one of these images. Check the weights")
    if not alone.numel():
        return
    worst = float((alone - in_company).abs().max())
    if worst > near * (1 + float(alone.abs().max())):
        raise UnsuitableNetwork(
            f"{what} of the same image differs by {worst:.3g} between a run alone and a run beside another image, "
            "though the network is in eval mode: it is random (functional dropout without training=self.training, "
            "noise) or lets the images of a batch influence each other (batch statistics). Mend the network first"
        )


def name_targets(targets: Sequence[Target]) -> str:
    """What several targets are called together."""
    return " and ".join(map(str, targets))


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
    return score_activations(targets, read_activations(model, images, layers), len(images))


def score_each(model: Model, images: Tensor, targets: Sequence[Target]) -> Tensor:
    """For each of the images (B, C, H, W) the score of its own target, from one run of the network: (B,)."""
    layers = frozenset[str]().union(*(t.layers for t in targets))
    return pick_own(targets, read_activations(model, images, layers), len(images))


def pick_rows(images: Tensor, rows: Sequence[int]) -> Tensor:
    """A copy of these of the images (N, C, H, W), in one operation."""
    return images.index_select(0, torch.tensor([*rows], dtype=torch.int64, device=images.device))


def pick_own(targets: Sequence[Target], activations: Mapping[str, Any], images: int) -> Tensor:
    """For each of so many images the score of its own target: (B,)."""
    different = list({id(one): one for one in targets}.values())  # a person's own may be without a hash
    column = {id(one): i for i, one in enumerate(different)}
    scores = score_activations(different, activations, images)  # (B, different targets)
    if len(different) == 1:
        return scores[:, 0]
    own = torch.tensor([column[id(one)] for one in targets], device=scores.device)  # (B,)
    return scores.gather(1, own[:, None])[:, 0]  # (B,)


def score_activations(targets: Sequence[Target], values: Mapping[str, Any], images: int) -> Tensor:
    """The targets' scores from the activations of so many images: (B, T)."""
    scores = [t(values) for t in targets]
    for one, each in zip(targets, scores, strict=True):
        if each.shape != (images,):
            raise TargetError(
                f"target {one} gives {len(each)} numbers for {images} images. It must give one per image, in "
                "their order"
            )
    return torch.stack(scores, 1)  # (B, T)
