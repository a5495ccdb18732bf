"""Subject: a network, prepared inputs and resolved targets: all that a probe needs to compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.geometry import Box
from vizcnn.inputs.datasets import Images
from vizcnn.inputs.images import Photo
from vizcnn.models.head import QUANTITIES, Head, to_probabilities
from vizcnn.models.model import Model
from vizcnn.models.targets import Target
from vizcnn.results import Prediction, Provenance
from vizcnn.version import __version__


@dataclass(frozen=True)
class Question:
    """What is asked of a subject, as it is kept with the result: the probe's name, its options, and its source."""

    probe: str
    options: Mapping[str, Any]
    paper: str


@dataclass(frozen=True)
class Subject:
    """What a probe looks at.

    question: the probe that asks, by name, with its options and its source.
    identity: what names the model in a saved result, as it was before the first run.
    inputs: (N, C, H, W) in [0, 1], on the model's device; N is 0 for a probe of the network alone.
    photos, seen: the N images as the person gave them, and the box of each that the network sees.
    output: the network's raw output (N, ...) for the inputs; None when N is 0 or it is not one tensor.
    head: what that output is, see `vizcnn.models.head`.
    targets: for each image its T targets; for a probe of the network alone one row of them, where it has any.
    scores: float64 (N, T), the targets' numbers for the inputs.
    layout: how images lie in memory in runs of many, see `vizcnn.models.scoring`.
    dataset: for a probe of whole data sets its images, which are then no inputs: N is 0.
    """

    question: Question
    model: Model
    identity: Mapping[str, Any]
    inputs: Tensor
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    output: Tensor | None
    head: Head
    targets: tuple[tuple[Target, ...], ...]
    scores: npt.NDArray[np.float64]
    layout: torch.memory_format
    seed: int
    progress: bool
    dataset: Images | None = None

    def first(self, count: int) -> Subject:
        """The same subject with only its first images."""
        kept = {name: getattr(self, name)[:count] for name in ("inputs", "photos", "seen", "targets", "scores")}
        return replace(self, **kept, output=None if self.output is None else self.output[:count])

    def largest(self, i: int) -> float:
        """The network's largest output for image i, in magnitude; 0 where the output is not one tensor."""
        return 0.0 if self.output is None else float(self.output[i].abs().max())

    def predictions(self, top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """The most probable classes of each image; empty where nothing is known of probabilities or names."""
        if self.model.labels is None or self.output is None or self.output.dim() != 2 or self.head == "scores":
            return ((),) * len(self.photos)
        best = to_probabilities(self.output.float(), self.head).topk(min(top, self.output.shape[1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(tuple(Prediction(self.model.class_name(i), p) for i, p in zip(*row, strict=True)) for row in rows)

    def quantity(self, t: int) -> str:
        """What target t's numbers are called: logit, probability, activation of a layer, or score."""
        kinds = {row[t].quantity for row in self.targets}
        kind = kinds.pop() if len(kinds) == 1 else "score"
        return kind if kind != "logit" or self.output is None else QUANTITIES[self.head]

    def said(self, i: int) -> str:
        """What the network says of image i, to begin a sentence with; nothing where its classes are unknown."""
        best = self.predictions(1)[i]
        return f"{best[0].label} {best[0].said()}; " if best else ""

    def about(self, i: int, t: int) -> str:
        """` of TARGET`, unless the target is the class that `said` has named."""
        best, one = self.predictions(1)[i], str(self.targets[i][t])
        return "" if best and one == best[0].label else f" of {one}"

    def in_photo(self, i: int, box: Box) -> Box:
        """A box in px of input i, in px of its photograph."""
        return box.mapped((self.inputs.shape[2], self.inputs.shape[3]), self.seen[i])

    def place(self, i: int, box: Box) -> str:
        """Where a box in px of photograph i lies: `upper left (x 20-40, y 0-20)`, in ninths of what is seen."""
        seen = self.seen[i]
        down = (box.top + box.bottom - 2 * seen.top) / (2 * (seen.bottom - seen.top))
        across = (box.left + box.right - 2 * seen.left) / (2 * (seen.right - seen.left))
        row = ("upper", "middle", "lower")[min(2, int(down * 3))]
        column = ("left", "centre", "right")[min(2, int(across * 3))]
        name = "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
        form = ".0f" if min(self.photos[i].size) >= 20 else ".3g"
        x, y = (f"{low:{form}}-{high:{form}}" for low, high in ((box.left, box.right), (box.top, box.bottom)))
        return f"{name} (x {x}, y {y})"

    def provenance(self, *, paper: str = "", **details: Any) -> Provenance:
        """The record kept with a result; `details` are what the options came to (sizes in px, engine used), `paper` the
        source of the method that was used, where a probe has several."""
        return Provenance(
            version=__version__,
            torch=torch.__version__,
            probe=self.question.probe,
            options=self.question.options,
            details=details,
            **self.identity,
            device=str(self.model.device),
            images=tuple((photo.name, photo.sha256()) for photo in self.photos),
            targets=tuple(tuple(str(t) for t in row) for row in self.targets),
            target_specs=tuple(tuple(t.spec for t in row) for row in self.targets),
            seed=self.seed,
            paper=paper or self.question.paper,
        )
