"""What an explanation of one image holds, and what its drawers and its words need to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo, Pixels
from vizcnn.results.base import Result
from vizcnn.results.maps import Prediction
from vizcnn.results.storing import AS_BYTES
from vizcnn.results.trust import Trust

_AGREED = 0.3  # the likeness from which maps agree


@dataclass(frozen=True)
class Answer:
    """One output of a classifier for an image.

    number: of the class. score: the output itself. probability: None where nothing shows what the outputs are."""

    number: int
    label: str
    score: float
    probability: float | None

    @property
    def amount(self) -> str:
        """The probability in per cent, or the score: `87%`, `<1%`, `12.3`."""
        if self.probability is None:
            return f"{self.score:.3g}"
        return f"{Prediction(self.label, self.probability).said(100, 0)}%"


@dataclass(frozen=True)
class Evidence:
    """A map of one method, and how far it can be believed.

    method: its name. meaning: what a value is. values: float32 (H, W), in input px. signed, percentile: as in a
        Heatmap. place: where the map is highest, in words and px of the photograph; "" for nowhere."""

    method: str
    meaning: str
    values: npt.NDArray[np.float32]
    signed: bool
    percentile: float
    trust: Trust
    place: str

    @property
    def is_supported(self) -> bool:
        return self.trust.verdict == "supported"

    @property
    def is_rather_against(self) -> bool:
        """Whether the strongest value speaks against what the map is of."""
        return self.signed and bool(-self.values.min() > self.values.max())


@dataclass(frozen=True)
class Consensus:
    """Where the supported maps of several methods agree.

    methods: their names. ranks: float32 (h, w) in [0, 1], over cells of the input: the mean of each map's ranks.
    likeness: from -1 to 1, the mean over all pairs of the maps. place: where the ranks are highest."""

    methods: tuple[str, ...]
    ranks: npt.NDArray[np.float32]
    likeness: float
    place: str

    @property
    def is_agreed(self) -> bool:
        """Whether the maps point at the same places; else each is better read by itself."""
        return self.likeness >= _AGREED


@dataclass(frozen=True)
class Tile:
    """A picture of a few px, (h, w, C) in [0, 1], with what stands below it."""

    pixels: Pixels = field(metadata=AS_BYTES)
    text: str


@dataclass(frozen=True)
class UnitEffect:
    """A channel of a late layer, and what the answer loses without it.

    target: its name, LAYER:CHANNEL. effect: the answer's score less that with the channel set to zero.
    activations: float32 (h, w), of this image. tiles: what the channel likes to see."""

    target: str
    effect: float
    activations: npt.NDArray[np.float32]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Change:
    """A set of cells that was covered, and what the network then says, in a run of its own.

    covered: bool (rows, columns) of a grid over what the network sees. pixels: (H, W, C) in [0, 1], the input with that
        covered."""

    covered: npt.NDArray[np.bool_]
    answer: Answer
    pixels: Pixels = field(metadata=AS_BYTES)


@dataclass(frozen=True)
class Explained(Result):
    """The fields of an `Explanation`, which says what they are: its drawers know these, and it knows its drawers."""

    parts: ClassVar[tuple[type, ...]] = (
        Answer, Box, Change, Consensus, Evidence, Tile, Trust, UnitEffect,
    )  # fmt: skip

    photo: Photo
    seen: Box
    answers: tuple[Answer, ...]
    asked: Answer
    rival: Answer
    quantity: str
    score: float
    maps: tuple[Evidence, ...]
    left_out: tuple[tuple[str, str], ...]
    consensus: Consensus | None
    rather: Evidence | None
    units: tuple[UnitEffect, ...]
    layer: str
    channels: int
    tiles_are: Literal["optimised", "crops", ""]
    units_note: str
    flip: Change | None
    keep: Change | None
    cells: int

    @property
    def top(self) -> Answer:
        """What the network says."""
        return self.answers[0]

    @property
    def is_about_top(self) -> bool:
        """Whether what is explained is what the network says."""
        return self.asked.number == self.top.number

    @property
    def supported(self) -> tuple[Evidence, ...]:
        """The maps that can be believed."""
        return tuple(one for one in self.maps if one.is_supported)

    def say_support(self) -> str:
        """Which maps are taken together, or why none are."""
        names = [one.method for one in self.supported]
        if self.consensus:
            likeness, rest = f"likeness {self.consensus.likeness:.2f}", self._say_rest()
            if self.consensus.is_agreed:
                return f"The mean of the ranks of {join_names(names)} ({likeness}){rest}"
            return f"{join_names(names)} hardly agree ({likeness}), so read each by itself{rest}"
        if names:
            return f"Only {names[0]} is supported: there is no second map that it could agree with" + self._say_rest()
        return "No map is supported, so none are put together" + self._say_rest() * bool(self.maps)

    def _say_rest(self) -> str:
        rest = [one.method for one in self.maps if not one.is_supported]
        return f". Left out, as not supported: {join_names(rest)}" if rest and self.supported else ""

    def plain_summary(self) -> dict[str, Any]:
        """The findings without the sentences, as plain values."""
        return {
            "image": self.photo.name,
            "answers": [_list_answer(one) for one in self.answers],
            "target": _list_answer(self.asked),
            "runner_up": _list_answer(self.rival),
            "quantity": self.quantity,
            "score": self.score,
            "maps": [_list_evidence(one) for one in self.maps],
            "left_out": [{"method": name, "reason": reason} for name, reason in self.left_out],
            "consensus": self.consensus
            and {
                "methods": list(self.consensus.methods),
                "likeness": self.consensus.likeness,
                "place": self.consensus.place,
            },
            "rather": self.rather and _list_evidence(self.rather),
            "layer": self.layer,
            "channels": self.channels,
            "units": [{"target": one.target, "effect": one.effect} for one in self.units],
            "units_note": self.units_note,
            "cells": self.cells,
            "flip": self.flip and _list_change(self.flip),
            "keep": self.keep and _list_change(self.keep),
        }


def join_names(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _list_answer(answer: Answer) -> dict[str, Any]:
    return {
        "number": answer.number,
        "label": answer.label,
        "score": answer.score,
        "probability": answer.probability,
    }


def _list_evidence(one: Evidence) -> dict[str, Any]:
    return {"method": one.method, "meaning": one.meaning, "place": one.place, "trust": one.trust.summary()}


def _list_change(change: Change) -> dict[str, Any]:
    """covered: the row and column of each covered cell, from 0."""
    return {"covered": np.argwhere(change.covered).tolist(), "answer": _list_answer(change.answer)}
