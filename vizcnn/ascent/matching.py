"""Matching: objectives that say how far a picture is from another one to the network. They are to be lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vizcnn.ascent.diversity import compute_gram
from vizcnn.errors import DegenerateResult
from vizcnn.models.functions import Activations


@dataclass(frozen=True, eq=False)
class ActivationDistance:
    """|a - b|^2 / |b|^2: how far a layer's activations a are from wanted ones b, 0 where they are the same.

    wanted: (1, ...) of the layer. Raises DegenerateResult where it is zero everywhere.
    """

    layer: str
    wanted: Tensor

    def __post_init__(self) -> None:
        _refuse_zero(self.layer, self.wanted)

    @property
    def __name__(self) -> str:  # what a target is called
        return f"distance({self.layer})"

    @property
    def layers(self) -> frozenset[str]:
        return frozenset({self.layer})

    def __call__(self, activations: Activations) -> Tensor:
        return _measure_share(activations[self.layer].to(self.wanted.dtype), self.wanted)  # (N,)


@dataclass(frozen=True, eq=False)
class GramDistance:
    """The mean over layers of |G(a) - G|^2 / |G|^2: how far the correlations between a layer's channels, its Gram
    matrix, are from wanted ones (Gatys, Ecker & Bethge 2015).

    wanted: each layer's Gram matrix G, (1, C, C). Raises DegenerateResult where one is zero everywhere.
    """

    wanted: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for layer, gram in self.wanted.items():
            _refuse_zero(layer, gram)

    @property
    def __name__(self) -> str:
        return f"gram-distance({', '.join(self.wanted)})"

    @property
    def layers(self) -> frozenset[str]:
        return frozenset(self.wanted)

    def __call__(self, activations: Activations) -> Tensor:
        shares = [
            _measure_share(compute_gram(activations[layer].to(gram.dtype)), gram)  # (N,)
            for layer, gram in self.wanted.items()
        ]
        return torch.stack(shares).mean(0)  # (N,)


def _measure_share(values: Tensor, wanted: Tensor) -> Tensor:
    return (values - wanted).square().flatten(1).sum(1) / wanted.square().sum()


def _refuse_zero(layer: str, wanted: Tensor) -> None:
    if not wanted.any():
        raise DegenerateResult(
            f"layer {layer!r} is zero everywhere for this picture, so there is nothing to come near to. Choose others"
        )
