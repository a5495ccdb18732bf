"""Subject: a network, prepared inputs and resolved targets: all that a probe needs to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.geometry import Box
from vizcnn.inputs.datasets import Images
from vizcnn.inputs.photo import Photo
from vizcnn.models.batches import Answers
from vizcnn.models.clean import CleanRuns
from vizcnn.models.head import Head
from vizcnn.models.model import Model
from vizcnn.models.targets import Target
from vizcnn.models.two_classes import expand_probabilities
from vizcnn.results import Mark, Prediction, Provenance
from vizcnn.results.drawing import shorten
from vizcnn.version import __version__

_NAME = 36  # letters of a class in a sentence, which two lines are to hold


@dataclass(frozen=True)
class Question:
    """Who asks: the probe's name, its options and the paper it follows, for the provenance of the result.

    files, plugin, trust: as in `Provenance`."""

    probe: str
    options: Mapping[str, Any]
    paper: str
    files: tuple[tuple[str, str], ...] = ()
    plugin: str = ""
    trust: bool = False


@dataclass(frozen=True)
class Subject:
    """What a probe computes from.

    question: the probe's name, options and paper.
    identity: the model's name, digest of weights and so on for the provenance, taken before the first run.
    inputs: (N, C, H, W) in [0, 1], on the model's device; N is 0 for a probe of the network alone.
    photos, seen: the N images as results keep them, and the box of each that the network sees. Of large images these
        are smaller copies, for drawing, unless the probe says `needs_photos`.
    clean: the network's answers to the inputs, of which `output` and the like below are parts.
    dataset: for a probe of whole data sets, the images; there are then no inputs, N is 0.
    strict: whether an image that cannot be explained ends the call, instead of being refused.
    refused: names of the images that are left out, each with the reason.
    """

    question: Question
    model: Model
    identity: Mapping[str, Any]
    inputs: Tensor
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    clean: CleanRuns
    seed: int
    progress: bool
    dataset: Images | None = None
    strict: bool = False
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs in px."""
        return int(self.inputs.shape[2]), int(self.inputs.shape[3])

    @property
    def output(self) -> Tensor | None:
        """The network's raw output (N, ...) for the inputs; None where N is 0 or the output is not one tensor."""
        return self.clean.output

    @property
    def head(self) -> Head:
        """What that output is, see `vizcnn.models.head`."""
        return self.clean.head

    @property
    def targets(self) -> tuple[tuple[Target, ...], ...]:
        """For each image its T targets; for a probe of the network alone one row of them, where it has any."""
        return self.clean.targets

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """The targets' scores for the inputs, (N, T)."""
        return self.clean.scores

    @property
    def layout(self) -> torch.memory_format:
        """The memory format for runs of many images, see `vizcnn.models.scoring`."""
        return self.clean.layout

    def first(self, count: int) -> Subject:
        """The same subject with only its first images."""
        return self.select(range(count))

    def select(self, images: Sequence[int]) -> Subject:
        """The same subject with only these images."""
        chosen = [*images]
        clean = self.clean.pick(chosen)
        return replace(
            self,
            inputs=clean.inputs,
            photos=tuple(self.photos[i] for i in chosen),
            seen=tuple(self.seen[i] for i in chosen),
            clean=clean,
        )

    def keep(self, answers: Answers[Any]) -> Subject:
        """The same subject with only the images that were answered; it lists the others that were refused."""
        if len(answers.images) == len(self.photos):
            return self
        reasons = ((self.photos[i].name, str(error)) for i, error in sorted(answers.refused.items()))
        return replace(self.select(answers.images), refused=(*self.refused, *reasons))

    def run(self) -> Subject:
        """The same subject after a run of every image, without those for which the network gives NaN or infinity.

        For probes that compare with the scores of the images as they are; others get these when they ask for them."""
        return self.keep(self.clean.run(strict=self.strict))

    def add_targets(self, more: Sequence[Sequence[Target]]) -> Subject:
        """The same subject with these targets of each image too, which the output holds, such as other classes."""
        return replace(self, clean=self.clean.add_targets(more))

    def largest(self, i: int) -> float:
        """The network's largest output for image i, in magnitude; 0 where the output is not one tensor, or is empty."""
        return self.clean.measure_largest(i)

    def predictions(self, top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """The most probable classes of each image, five at most; empty where probabilities or the names of classes are
        unknown."""
        return tuple(row[:top] for row in self._best)

    @cached_property
    def _best(self) -> tuple[tuple[Prediction, ...], ...]:
        if self.model.labels is None or self.output is None or self.output.dim() != 2 or self.head == "scores":
            return ((),) * len(self.photos)
        if self.output.shape[1] == 1 and self.head in ("softmax", "log-softmax"):
            return ((),) * len(self.photos)  # the softmax of one logit is 1 whatever the image: it says nothing
        shares = expand_probabilities(self.output.float(), self.head, len(self.model.labels))  # (N, K)
        best = shares.topk(min(5, shares.shape[1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(tuple(Prediction(self.model.class_name(i), p) for i, p in zip(*row, strict=True)) for row in rows)

    def quantity(self, t: int) -> str:
        """What the scores of target t are called: logit, probability, activation of a layer, or score."""
        kinds = {row[t].quantity for row in self.targets}
        kind = kinds.pop() if len(kinds) == 1 else "score"
        return self.clean.name_quantity(kind)

    def short_quantity(self, t: int) -> str:
        """The same without the layer, for sentences and titles that name it anyway: `activation`."""
        return self.quantity(t).split(" of ")[0]

    def said(self, i: int) -> str:
        """The predicted class of image i, as the beginning of a sentence; empty where the classes are unknown."""
        best = self.predictions(1)[i]
        return f"{shorten(best[0].label, _NAME)} {best[0].said(100, 0)}%; " if best else ""

    def about(self, i: int, t: int) -> str:
        """` of TARGET`, to go on a sentence, with the place in the image that it is about, if that is not all of it;
        empty where the target is the class that `said` has named."""
        best, target = self.predictions(1)[i], self.targets[i][t]
        one = str(target)
        if one.startswith("p(") and len(target.terms) == 1:
            one = one[2:-1]  # `quantity` says that it is a probability
        if best and one == best[0].label:
            return ""
        box = self.target_mark(i, t)
        where = f" in the {self.place(i, box.box)}" if box else target.where
        return f" of {shorten(one, _NAME)}{where}"

    def target_mark(self, i: int, t: int) -> Mark | None:
        """The box that target t of image i is about, in px of its photograph; None where it is about no box."""
        target = self.targets[i][t]
        return None if target.box is None else Mark(self.in_photo(i, target.box), f"the box of {target}")

    def target_marks(self) -> tuple[tuple[Mark | None, ...], ...]:
        """The same for all images and targets, as a Heatmap has them; empty where no target is about a box."""
        rows = tuple(tuple(self.target_mark(i, t) for t in range(len(row))) for i, row in enumerate(self.targets))
        return rows if any(mark for row in rows for mark in row) else ()

    def in_photo(self, i: int, box: Box) -> Box:
        """A box in px of input i, converted to px of its photograph."""
        return box.map_onto(self.size, self.seen[i])

    def place(self, i: int, box: Box) -> str:
        """Where a box in px of photograph i lies, to stand behind `the`: `upper left (x 20-40, y 0-20 px)`.

        `upper left` is one of nine equal parts of what the network sees. A box that spans nearly all of its width or
        height lies in a `left part` or `upper part`; one with more than half of its area is the `larger part of the
        image`, and one with all of it the `whole image`."""
        seen, share = self.seen[i], self.share(i, box)
        if share > 0.5:
            return "whole image" if share > 0.99 else "larger part of the image"
        height, width = seen.bottom - seen.top, seen.right - seen.left
        down = (box.top + box.bottom - 2 * seen.top) / (2 * height)
        across = (box.left + box.right - 2 * seen.left) / (2 * width)
        row = ("upper", "middle", "lower")[min(2, int(down * 3))]
        column = ("left", "centre", "right")[min(2, int(across * 3))]
        if box.right - box.left > 0.8 * width:
            name = f"{row} part"
        elif box.bottom - box.top > 0.8 * height:
            name = f"{column.replace('centre', 'middle')} part"
        else:
            name = "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
        form = ".0f" if min(self.photos[i].size) >= 20 else ".3g"  # in tiny images, parts of a px matter
        x, y = (f"{low:{form}}-{high:{form}}" for low, high in ((box.left, box.right), (box.top, box.bottom)))
        return f"{name} (x {x}, y {y} px)"

    def is_nearly_all(self, i: int, box: Box) -> bool:
        """Whether a box in px of photograph i leaves out so little of what the network sees that it is no place."""
        return self.share(i, box) > 0.9

    def share(self, i: int, box: Box) -> float:
        """How much of what the network sees of photograph i lies in a box, in px of the photograph: from 0 to 1."""
        seen = self.seen[i]
        height = min(box.bottom, seen.bottom) - max(box.top, seen.top)
        width = min(box.right, seen.right) - max(box.left, seen.left)
        return max(0.0, height) * max(0.0, width) / ((seen.bottom - seen.top) * (seen.right - seen.left))

    def provenance(self, *, paper: str = "", **details: Any) -> Provenance:
        """The provenance of a result.

        paper: of the method that was used, where a probe has several. details: what the options came to, such as sizes
        in px or the engine that ran. Which channels of the images are drawn is added, unless they are RGB or grey."""
        if self.model.input.drawn and (self.photos or self.dataset):
            details = {**details, "drawn": self.model.input.drawn}
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
            refused=self.refused,
            paper=paper or self.question.paper,
            files=self.question.files,
            plugin=self.question.plugin,
            trust=self.question.trust,
        )
