"""Segmentation: which pixels of an output map a class's target is about.

A segmentation network gives each class a map, (N, K, H, W). A class's number for an image is the mean of its map over
an area: one rectangle for all images, or the pixels that the network predicts as the class in the image as it is. Such
an area is found once, in the clean run, and stays where it is when parts of the image are covered or pixels move:
otherwise a map could not tell a class that fades from one that shrinks.

Positions are rows and columns of the output, from 0, as they are of a layer's map in `layer:channel@y,x`. Most networks
answer with a map as large as their input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.errors import NotInImage, TargetError
from vizcnn.models.head import Head

_BACKGROUND = ("__background__", "background")
_LISTED = 4  # classes that a message names


@dataclass(frozen=True)
class Rectangle:
    """The rows y0 to y1 and the columns x0 to x1 of a map, first and last included. rows, columns: such a pair each."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def __str__(self) -> str:
        return f"@{self.rows[0]}-{self.rows[1]},{self.columns[0]}-{self.columns[1]}"

    @property
    def where(self) -> str:
        """What is said of the place beside the target's name, which tells it already."""
        return ""

    def pick(self, maps: Tensor) -> Tensor:
        """What maps (N, K, H, W) hold there, (N, K, n). Raises TargetError for a place outside them."""
        height, width = maps.shape[2:]
        if self.rows[1] >= height or self.columns[1] >= width:
            raise TargetError(f"{self} is outside a map with rows 0 to {height - 1} and columns 0 to {width - 1}")
        return maps[:, :, self.rows[0] : self.rows[1] + 1, self.columns[0] : self.columns[1] + 1].flatten(2)


@dataclass(frozen=True, eq=False)
class PredictedArea:
    """The pixels of one image that the network predicts as a class.

    indices: int32 (n,), of the pixels in the flattened map; on the device of the network. size: height and width of
    that map."""

    indices: Tensor
    size: tuple[int, int]

    def __str__(self) -> str:
        return ""  # the class's name alone stands for it: each image has its own

    @property
    def where(self) -> str:
        """How large the area is, to go on a sentence."""
        share = len(self.indices) / (self.size[0] * self.size[1])
        named = "whole" if share == 1 else ">99%" if share > 0.99 else f"{100 * share:.2g}%"
        return f" over the {named} of the image predicted so"

    def pick(self, maps: Tensor) -> Tensor:
        """What maps (N, K, H, W) hold there, (N, K, n). Maps of another size, as of the octaves of a dream, are read
        at the same share of their height and width."""
        return maps.flatten(2).index_select(2, self._find_indices(maps.shape[2], maps.shape[3]))

    def _find_indices(self, height: int, width: int) -> Tensor:
        if (height, width) == self.size:
            return self.indices
        mask = torch.zeros(self.size[0] * self.size[1], device=self.indices.device)
        mask[self.indices.long()] = 1
        shares = F.interpolate(mask.view(1, 1, *self.size), (height, width), mode="area").flatten()  # (h w,)
        return (shares >= min(0.5, float(shares.max()))).nonzero()[:, 0].int()


Area = Rectangle | PredictedArea


def find_predicted(maps: Tensor, index: int, head: Head | None) -> Tensor:
    """Which pixels of maps (N, K, H, W) are predicted as a class: bool (N, H, W).

    Of classes of which one is right, the pixels where no other has a larger number, the first of equal ones. Of labels
    that each have a sigmoid, and of a single map, those where it is more likely than not."""
    level = _find_level(maps.shape[1], head)
    return maps[:, index] > level if level is not None else maps.argmax(1) == index


def _find_level(classes: int, head: Head | None) -> float | None:
    """The value above which a pixel has a label; None where classes are compared with each other."""
    if head == "sigmoid":
        return 0.5
    return 0.0 if classes == 1 or head == "sigmoid-logits" else None


def choose_areas(
    maps: Tensor, masks: Tensor, head: Head | None, name: str, name_class: Callable[[int], str]
) -> list[PredictedArea]:
    """For each image the pixels that are predicted as a class, from its masks (N, H, W).

    maps: the output (N, K, H, W). name: of the class, as the person has it. name_class: from numbers to names.
    Raises NotInImage, with what is predicted, for the first image in which no pixel is."""
    areas = []
    for i, mask in enumerate(masks):
        indices = mask.flatten().nonzero()[:, 0].int()  # (n,)
        if not len(indices):
            raise NotInImage(
                f"no pixel of this image is predicted as {name}: "
                f"{_describe_predicted(maps[i : i + 1], head, name_class)}, or a place: {name}@Y,X or "
                f"{name}@Y0-Y1,X0-X1, counted in the output's {maps.shape[2]} rows and {maps.shape[3]} columns"
            )
        areas.append(PredictedArea(indices, (maps.shape[2], maps.shape[3])))
    return areas


def choose_largest(maps: Tensor, head: Head | None, name_class: Callable[[int], str]) -> list[int]:
    """For each image of maps (N, K, H, W) the class that most pixels are predicted as, the background only where there
    is nothing else."""
    return [_rank_classes(counts, name_class)[0] for counts in _count_predicted(maps.detach(), head).tolist()]


def _count_predicted(maps: Tensor, head: Head | None) -> Tensor:
    """How many pixels of each image are predicted as each class, (N, K)."""
    level = _find_level(maps.shape[1], head)
    if level is not None:
        return (maps > level).flatten(2).sum(2)
    best = maps.argmax(1).flatten(1)  # (N, H W)
    return best.new_zeros(len(maps), maps.shape[1]).scatter_add_(1, best, torch.ones_like(best))


def _rank_classes(counts: Sequence[int], name_class: Callable[[int], str]) -> list[int]:
    """The classes by the number of their pixels, the largest first; the background and those without any come last."""
    named = {index: name_class(index).lower() in _BACKGROUND for index in range(len(counts))}
    return sorted(named, key=lambda index: (not counts[index], named[index], -counts[index]))


def _describe_predicted(maps: Tensor, head: Head | None, name_class: Callable[[int], str]) -> str:
    """What the pixels of one image (1, K, H, W) are predicted as, in words, and what could be explained instead."""
    if maps.shape[1] == 1:
        low, high = (float(end) for end in maps.detach().aminmax())
        border = _find_level(1, head)
        return f"its only map is from {low:.3g} to {high:.3g}, with the border at {border:g}. Take another image"
    (counts,) = _count_predicted(maps.detach(), head).tolist()
    found = [index for index in _rank_classes(counts, name_class) if counts[index]]
    pixels = maps.shape[2] * maps.shape[3]
    named = [f"{name_class(index)} {counts[index] / pixels:.0%}" for index in found[:_LISTED]]
    rest = [f"{len(found) - _LISTED} more"] if len(found) > _LISTED else []
    if not named:
        return "none is predicted as anything. Take another image"
    return f"{', '.join([*named, *rest])}. Take one of these"
