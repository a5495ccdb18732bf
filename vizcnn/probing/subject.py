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
    """Who asks: the probe's name, its options and the paper it follows, for the provenance of the result."""

    probe: str
    options: Mapping[str, Any]
    paper: str


@dataclass(frozen=True)
class Subject:
    """What a probe computes from.

    question: the probe's name, options and paper.
    identity: the model's name, digest of weights and so on for the provenance, taken before the first run.
    inputs: (N, C, H, W) in [0, 1], on the model's device; N is 0 for a probe of the network alone.
    photos, seen: the N images as the person gave them, and the box of each that the network sees.
    output: the network's raw output (N, ...) for the inputs; None where N is 0 or the output is not one tensor.
    head: what that output is, see `vizcnn.models.head`.
    targets: for each image its T targets; for a probe of the network alone one row of them, where it has any.
    scores: the targets' scores for the inputs, float64 (N, T).
    layout: the memory format for runs of many images, see `vizcnn.models.scoring`.
    dataset: for a probe of whole data sets, the images; there are then no inputs, N is 0.
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
        shorter = {name: getattr(self, name)[:count] for name in ("inputs", "photos", "seen", "targets", "scores")}
        return replace(self, **shorter, output=None if self.output is None else self.output[:count])

    def largest(self, i: int) -> float:
        """The network's largest output for image i, in magnitude; 0 where the output is not one tensor."""
        return 0.0 if self.output is None else float(self.output[i].abs().max())

    def predictions(self, top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """The most probable classes of each image; empty where probabilities or the names of classes are unknown."""
        if self.model.labels is None or self.output is None or self.output.dim() != 2 or self.head == "scores":
            return ((),) * len(self.photos)
        best = to_probabilities(self.output.float(), self.head).topk(min(top, self.output.shape[1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(tuple(Prediction(self.model.class_name(i), p) for i, p in zip(*row, strict=True)) for row in rows)

    def quantity(self, t: int) -> str:
        """What the scores of target t are called: logit, probability, activation of a layer, or score."""
        kinds = {row[t].quantity for row in self.targets}
        kind = kinds.pop() if len(kinds) == 1 else "score"
        return kind if kind != "logit" or self.output is None else QUANTITIES[self.head]

    def said(self, i: int) -> str:
        """The predicted class of image i, as the beginning of a sentence; empty where the classes are unknown."""
        best = self.predictions(1)[i]
        return f"{best[0].label} {best[0].said()}; " if best else ""

    def about(self, i: int, t: int) -> str:
        """` of TARGET`, to go on a sentence; empty where the target is the class that `said` has named."""
        best, one = self.predictions(1)[i], str(self.targets[i][t])
        return "" if best and one == best[0].label else f" of {one}"

    def in_photo(self, i: int, box: Box) -> Box:
        """A box in px of input i, converted to px of its photograph."""
        return box.map_onto((self.inputs.shape[2], self.inputs.shape[3]), self.seen[i])

    def place(self, i: int, box: Box) -> str:
        """Where a box in px of photograph i lies: `upper left (x 20-40, y 0-20)`.

        `upper left` is one of nine equal parts of what the network sees."""
        seen = self.seen[i]
        down = (box.top + box.bottom - 2 * seen.top) / (2 * (seen.bottom - seen.top))
        across = (box.left + box.right - 2 * seen.left) / (2 * (seen.right - seen.left))
        row = ("upper", "middle", "lower")[min(2, int(down * 3))]
        column = ("left", "centre", "right")[min(2, int(across * 3))]
        name = "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
        form = ".0f" if min(self.photos[i].size) >= 20 else ".3g"  # in tiny images, parts of a px matter
        x, y = (f"{low:{form}}-{high:{form}}" for low, high in ((box.left, box.right), (box.top, box.bottom)))
        return f"{name} (x {x}, y {y})"

    def provenance(self, *, paper: str = "", **details: Any) -> Provenance:
        """The provenance of a result.

        paper: of the method that was used, where a probe has several. details: what the options came to, such as sizes
        in px or the engine that ran."""
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
