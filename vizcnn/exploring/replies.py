"""Replies: what an explorer answers, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.models.head import Head
from vizcnn.models.model import Model
from vizcnn.models.two_classes import expand_probabilities
from vizcnn.results import Heatmap, Projections, Trust

_BEST = 5  # classes that are listed, before and after
Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClassAnswer:
    """The probability of a class, for the image as it is and, where parts are covered, for that."""

    number: int
    label: str
    before: float
    after: float | None


@dataclass(frozen=True)
class Answers:
    """What the network says. target, spec: what is explained, in words and as a text that stands for it. quantity: what
    its score is. before, after: the score of the image as it is, and with parts covered; None where none are.
    classes: the five most probable before, and after, and the target's; empty where there are no probabilities."""

    target: str
    spec: str
    quantity: str
    before: float
    after: float | None
    classes: tuple[ClassAnswer, ...]


@dataclass(frozen=True)
class MapOfImage:
    """A method's map of one image. values: float32 (H, W) in px of the input. meaning: of one unit of it. end: where
    colours end. result: as the probe gives it."""

    method: str
    result: Heatmap | Projections
    values: Map
    meaning: str
    signed: bool
    end: float

    @classmethod
    def of(cls, method: str, result: Heatmap | Projections) -> MapOfImage:
        if isinstance(result, Heatmap):
            values: Map = result.values[0, 0]
            return cls(method, result, values, result.meanings[0], result.signed, result.scale(0, 0))
        values, panel = result.list_maps(0)[0], result.rows[0].panels[0]
        return cls(method, result, values, panel.meaning, False, float(values.max()) or 1.0)

    @property
    def target(self) -> str:
        return self.result.provenance.targets[0][0]

    @property
    def score(self) -> float | None:
        """Of the target, for the image as it was when the map was made; None where the result keeps none."""
        return float(self.result.scores[0, 0]) if isinstance(self.result, Heatmap) else None

    @property
    def trust(self) -> Trust | None:
        return self.result.trust[0][0] if self.result.trust else None

    @property
    def finding(self) -> str:
        found = self.result.findings[0]
        return found if isinstance(found, str) else found[0]


@dataclass(frozen=True)
class UnitMap:
    """What a unit makes of the image. values: float32 (h, w). peaks: the highest value of each of the layer's units,
    (C,). covered: how many parts of the image are."""

    layer: str
    unit: int
    values: Map
    peaks: Map
    covered: int


def list_classes(model: Model, output: Tensor | None, head: Head, spec: str = "") -> tuple[ClassAnswer, ...]:
    """The most probable classes, and the one that is explained.

    output: (1, K), or (2, K) of the image as it is and as it is covered. spec: of the target."""
    if output is None or output.dim() != 2 or head == "scores":
        return ()
    if output.shape[1] == 1 and head in ("softmax", "log-softmax"):
        return ()  # the softmax of one logit is 1 whatever the image: it says nothing
    shares = expand_probabilities(output.float(), head, len(model.labels or ()) or output.shape[1])  # (1 or 2, K)
    rows = shares.argsort(dim=1, descending=True, stable=True)[:, :_BEST].tolist()
    asked = [int(spec)] if spec.isdecimal() and int(spec) < shares.shape[1] else []
    chosen = dict.fromkeys([*(number for row in rows for number in row), *asked])
    covered = len(shares) > 1
    return tuple(
        ClassAnswer(n, model.class_name(n), float(shares[0, n]), float(shares[1, n]) if covered else None)
        for n in chosen
    )
