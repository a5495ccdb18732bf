"""Checks: what is found out of a network and its objectives before the first step of an ascent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from vizcnn.ascent.objective import Objective, score_outputs, split_outputs
from vizcnn.errors import NetworkError, NonFiniteResult, NotDifferentiable, ShapeError
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.models.precision import advise_precision

Reader = Callable[[Tensor], Mapping[str, Any]]
"""From pictures (N, C, H, W) to the activations of the layers that the objectives need."""


def check_objectives(model: Model, objectives: Sequence[Objective], *, size: tuple[int, int] | None = None) -> None:
    """Raise what `optimize` raises until the gradient of its first step, from one run on a grey picture.

    size: of the pictures; by default the Model's. The network must be borrowed."""
    layers = frozenset[str]().union(*(objective.target.layers for objective in objectives))
    with torch.inference_mode(False), torch.enable_grad(), open_reader(model, layers) as read:
        picture = model.grey(size).requires_grad_()
        outputs = split_outputs(layers, read_picture(model, objectives[0], read, picture), 1)
        for objective in objectives:
            scores = score_outputs([objective], outputs)
            require_gradient(scores, objective)
            if not scores.isfinite().all():
                raise describe_infinite(model, scores)


def require_gradient(scores: Tensor, objective: Objective) -> None:
    """Raise NotDifferentiable for scores that do not depend on the picture, as far as torch can tell. objective: one of
    those that they belong to."""
    if not scores.requires_grad:
        if reason := objective.target.no_gradient:
            raise NotDifferentiable(f"{objective.target} has no gradient: {reason}")
        raise NotDifferentiable(
            f"{objective.target} has no gradient with respect to the picture: the network detaches or rounds what it "
            "computes before this layer. Choose an earlier layer"
        )


def describe_infinite(model: Model, scores: Tensor) -> NonFiniteResult:
    """The error for scores (N,) of which one is NaN or infinite."""
    return NonFiniteResult(
        f"a target became {scores.detach().tolist()} during the ascent. Give it or its terms less weight, take smaller "
        f"steps, or check the network's weights{advise_precision(model.dtype)}"
    )


def choose_layout(model: Model, objectives: Sequence[Objective], size: tuple[int, int] | None) -> torch.memory_format:
    """The memory format of the pictures: channels last, in which convolutions are faster, unless the network fails on
    it, as where its forward says `x.view(len(x), -1)`.

    Raises TargetError for a channel or position that the layer has not, and ShapeError for a size that the network
    cannot take, before anything is optimised."""
    grey = model.grey(size)
    pictures = grey.expand(min(2, len(objectives)), -1, -1, -1).contiguous()  # several, as in the ascent
    with torch.no_grad(), open_reader(model, objectives[0].target.layers) as read:
        found = read_picture(model, objectives[0], read, grey)
        for objective in objectives:
            objective.target(found)
        read(pictures)  # shows a network that takes one image only
        with suppress(NetworkError):
            read(pictures.contiguous(memory_format=torch.channels_last))
            return torch.channels_last
    return torch.contiguous_format


def read_picture(model: Model, objective: Objective, read: Reader, picture: Tensor) -> Mapping[str, Any]:
    """What the layers give for a picture (1, C, H, W). Raises ShapeError for a size that the network cannot take."""
    usual, size = model.input.size, tuple(picture.shape[2:])
    try:
        return read(picture)
    except NetworkError as error:
        if size == usual:
            raise
        raise ShapeError(
            f"{model.name} reaches {objective.target} with pictures of its own size only, {usual[0]} x {usual[1]} px, "
            f"got {size[0]} x {size[1]}: {error.__cause__}. Layers before the dense ones take any size"
        ) from error
