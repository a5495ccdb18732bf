"""Objectives: what pictures are made for, and how near they come to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import TargetError
from vizcnn.models.functions import LayerFunction, OutputFunction
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.models.outputs import Unsettled
from vizcnn.models.targets import RAW, Target


@dataclass(frozen=True)
class Objective:
    """What one picture is made for: the target to raise, or to lower.

    copy: its number, where there are several pictures for one target.
    """

    target: Target
    copy: int = 0
    lowered: bool = False

    @property
    def rng_key(self) -> str:
        """What the picture's random numbers depend on, beside the seed: the target by its name, so that a picture gets
        the same noise whether it is optimised alone or in a batch. Two functions of one name share their noise."""
        return f"{'-' if self.lowered else '+'}{self.target.spec}#{self.copy}"

    @property
    def group(self) -> tuple[object, ...]:
        """Equal for all copies of one target, and for nothing else; two functions of one name are two targets."""
        own = (OutputFunction, LayerFunction)
        functions = [id(unit.function) for _, unit in self.target.terms if isinstance(unit, own)]
        return (self.lowered, self.target.spec, *functions)


def score_pictures(model: Model, objectives: Sequence[Objective], pictures: Tensor) -> Tensor:
    """The targets' numbers for pictures (N, C, H, W) in [0, 1], one per objective, of objectives at the same layers:
    float64 (N,)."""
    layers = objectives[0].target.layers
    with torch.no_grad(), open_reader(model, layers) as read:
        outputs = split_outputs(layers, read(pictures.to(model.device, model.dtype).contiguous()), len(objectives))
        return score_outputs(objectives, outputs).cpu().double()


def score_outputs(objectives: Sequence[Objective], outputs: Mapping[str, tuple[Any, ...]]) -> Tensor:
    """Each picture's own target, (N,)."""
    scores = [
        objective.target({name: parts[i] for name, parts in outputs.items()}) for i, objective in enumerate(objectives)
    ]
    joined = torch.cat(scores)
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


def split_outputs(layers: frozenset[str], outputs: Mapping[str, Any], count: int) -> dict[str, tuple[Any, ...]]:
    """Each layer's output for each picture alone, (1, ...)."""
    split: dict[str, tuple[Any, ...]] = {}
    for layer in layers:
        values = outputs[layer]
        if count == 1 or isinstance(values, Unsettled):
            split[layer] = (values,) * count
            continue
        if not isinstance(values, Tensor) or len(values) != count:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            where = f"layer {layer!r}" if layer != RAW else "what the network returns"
            raise TargetError(f"{where} is {got} for {count} pictures; one entry for each is needed")
        split[layer] = tuple(values.split(1))  # one operation, whose backward pass joins the parts
    return split
