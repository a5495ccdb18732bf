"""Detection: boxes that a network finds, and one of them as a target.

A detector returns a list with a dictionary for each image, as torchvision's do: `boxes` (M, 4), left, top, right and
bottom in px of the input, `labels` (M,), the number of each box's class, and `scores` (M,), from 0 to 1. Another image
has other boxes, and another number of them, so that no output stays the same box's. What can be asked is whether the
altered image still has a box like it: one that lies there, of the class, and with confidence.

    score(image) = max over boxes b of the class:  IoU(box, b) * confidence(b)

which is 0 where the class is not found. `box` was found in the clean image, and stays.

This is the similarity of D-RISE (Petsiuk et al. 2021, "Black-box Explanation of Object Detectors via Saliency Maps",
arXiv:2006.03204) as far as a label and a score allow it. The paper multiplies the overlap, the cosine similarity of the
boxes' probabilities of all classes, and the probability that the box holds an object at all. torchvision gives the best
class and its score alone: the second factor is then 1 among boxes of one class, and the score stands for the third.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import NotInImage, TargetError
from vizcnn.geometry import Box
from vizcnn.models.functions import RAW, Activations
from vizcnn.models.model import Model
from vizcnn.models.terms import Unit, is_whole_name

_LISTED = 4  # classes that a message names


@dataclass(frozen=True)
class Boxes:
    """What is found in one image, the most confident first.

    corners: (M, 4), left, top, right, bottom in px of the input. labels: (M,), whole numbers. scores: (M,)."""

    corners: Tensor
    labels: Tensor
    scores: Tensor

    def of_class(self, index: int) -> Boxes:
        same = self.labels == index
        return Boxes(self.corners[same], self.labels[same], self.scores[same])


def is_detections(raw: Any) -> bool:
    """Whether what a network returns is a list with a dictionary of boxes for each image."""
    return (
        isinstance(raw, list | tuple)
        and bool(raw)
        and all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= one.keys() for one in raw)
    )


def read_detections(raw: Any, images: int) -> list[Boxes]:
    """What is found in each of so many images. Raises TargetError where a network returns something else."""
    if not is_detections(raw):
        got = f"a tensor {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
        raise TargetError(
            "boxes are asked for, and the network does not return a list with a dictionary of boxes, labels and scores "
            f"for each image, but {got}. Name a class without a box, or a layer, or say Model(forward=...) that makes "
            "such a list"
        )
    if len(raw) != images:
        raise TargetError(f"the network returns {len(raw)} lists of boxes for {images} images. It must give one each")
    return [_read_image(one) for one in raw]


def _read_image(found: Mapping[str, Any]) -> Boxes:
    corners, labels, scores = (found[key] for key in ("boxes", "labels", "scores"))
    shapes, count = [tuple(part.shape) for part in (corners, labels, scores)], len(scores)
    if shapes != [(count, 4), (count,), (count,)]:
        got = ", ".join(map(str, shapes))
        raise TargetError(f"a network's boxes are (M, 4), their labels (M,) and scores (M,), got {got}")
    order = scores.detach().argsort(descending=True, stable=True)
    return Boxes(corners.detach()[order], labels.detach()[order], scores.detach()[order])


def measure_overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of a box (4,) with others (M, 4), each left, top, right, bottom: (M,)."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])  # (M, 2)
    common = (high - low).clamp(min=0).prod(1)  # (M,)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common  # (M,)
    return torch.where(union > 0, common / union, torch.zeros_like(union))


@dataclass(frozen=True)
class BestBox:
    """The box of a class of which the network is most sure in an image, `dog#0`, or the second, `dog#1`, and so on.

    unit: the class. rank: how many boxes of the class come before. written: the text that named it, which may be the
    name of a class as a whole."""

    unit: Unit
    rank: int
    written: str = ""

    layers = frozenset({RAW})
    quantity = "detection score"

    def __str__(self) -> str:
        return f"{self.unit}#{self.rank}"

    @property
    def spec(self) -> str:
        return f"{self.unit.spec}#{self.rank}"

    def resolved(self, model: Model) -> BestBox | Unit:
        if is_whole_name(self.written, self.unit, model):
            return Unit(self.unit.layer, self.written).resolved(model)
        unit = self.unit.resolved(model)
        ambiguous = unit.ambiguous or f"{unit.channel}#{self.rank}" in (model.labels or ())
        return replace(self, unit=replace(unit, ambiguous=ambiguous), written="")

    def choose(self, activations: Activations, images: int, name_class: Callable[[int], str]) -> list[FoundBox]:
        """For each image its box. Raises NotInImage for the first image that has none."""
        return [self._find(boxes, name_class) for boxes in read_detections(activations[RAW], images)]

    def _find(self, boxes: Boxes, name_class: Callable[[int], str]) -> FoundBox:
        index = int(self.unit.channel)
        same = boxes.of_class(index)
        count = len(same.scores)
        if self.rank >= count:
            fewer = f"only {count} of them" if count else f"no box of {self.unit}"
            found = describe_boxes(boxes, name_class)
            raise NotInImage(
                f"{self} is not in this image, {fewer}. Found: {found}. Take one that is, or another image"
            )
        left, top, right, bottom = same.corners[self.rank].tolist()
        return FoundBox(str(self), self.spec, index, (left, top, right, bottom))

    def __call__(self, activations: Activations) -> Tensor:  # noqa: ARG002 - same shape as Unit's
        raise TargetError(
            f"{self} is a box that is found in an image, and here is none. Use occlusion or rise, which have"
        )


@dataclass(frozen=True)
class FoundBox:
    """A box of one clean image as a target: how much the best box of its class in an altered image is like it.

    name: `dog#0`. spec: the same with the class as a number. index: of the class. corners: left, top, right, bottom in
    px of the input."""

    name: str
    spec: str
    index: int
    corners: tuple[float, float, float, float]

    layers = frozenset({RAW})
    quantity = "detection score"
    no_gradient = (
        "boxes are chosen by a sort and by non-maximum suppression, through which no gradient reaches the pixels. "
        "Use occlusion or rise"
    )

    def __str__(self) -> str:
        return self.name

    @property
    def box(self) -> Box:
        """In px of the input."""
        left, top, right, bottom = self.corners
        return Box(top, left, bottom, right)

    def resolved(self, model: Model) -> FoundBox:  # noqa: ARG002 - same shape as Unit's
        return self

    def __call__(self, activations: Activations) -> Tensor:
        """The score of each image, (N,), without a gradient."""
        raw = activations[RAW]
        return torch.stack([self._score(boxes.of_class(self.index)) for boxes in read_detections(raw, len(raw))])

    def _score(self, boxes: Boxes) -> Tensor:
        overlaps = measure_overlap(boxes.corners.new_tensor(self.corners), boxes.corners)  # (M,)
        return torch.cat([overlaps * boxes.scores, boxes.scores.new_zeros(1)]).amax()  # (): 0 where there is none


def choose_most_confident(raw: Any, images: int) -> list[int]:
    """For each image the class of the box of which the network is most sure. Raises NotInImage for the first image in
    which it finds none."""
    found = read_detections(raw, images)
    if not all(len(boxes.labels) for boxes in found):
        raise NotInImage("the network finds no box in this image, so there is none to explain. Take another image")
    return [int(boxes.labels[0]) for boxes in found]


def describe_boxes(boxes: Boxes, name_class: Callable[[int], str]) -> str:
    """What is found in an image, in words: for each class how many boxes, and the largest confidence."""
    counts = Counter(boxes.labels.tolist())  # in the order of the best boxes
    best = {label: float(boxes.scores[boxes.labels == label][0]) for label in counts}
    named = [f"{name_class(label)} {best[label]:.2g}" + f" ({n} boxes)" * (n > 1) for label, n in counts.items()]
    rest = [f"{len(named) - _LISTED} more classes"] if len(named) > _LISTED else []
    return ", ".join([*named[:_LISTED], *rest]) or "nothing"
