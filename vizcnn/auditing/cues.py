"""Cues: what a class may be recognised by. Each knows how it is found, pasted and taken away, and what its control is.

A control does the same to other px: as many at the mirrored place, a frame as thick further in, which has fewer, and
colour as far the other way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.auditing.matching import FAINTEST, TEXTURE, Found, Template
from vizcnn.auditing.places import Place, choose_control

Kind = Literal["patch", "frame", "colour"]
Corner = tuple[int, int]

_CORE = 6  # px of a side from which copies are compared without their outermost px
_ENDS = 0.5  # of the px along the inner edge of a frame, that differ from it
_BLACK, _WHITE = 0.02, 0.98  # the shares of px below the levels of a channel
_LEAST_RANGE = 0.05
_STRETCH = 2.0  # more would turn the noise of a narrow channel into a pattern
_LEAST_SPREAD = 0.2  # between the levels of a control


@dataclass(frozen=True)
class Spot:
    """Where a cue lies: top and left of it. control: whether its control is meant, which `rng` chooses."""

    corner: Corner
    rng: np.random.Generator
    control: bool = False


class Cue(ABC):
    """Something in an image (C, H, W) that may decide its class.

    place: where it lies in the image that it comes from. may_be_copied: whether a finding of this kind can say that
    pixels are copied; an orange is orange, so colour cannot."""

    kind: Kind
    place: Place
    may_be_copied = True

    @abstractmethod
    def find(self, images: Tensor) -> Found:
        """How much each of the images (n, C, H, W) has of it, and where."""

    @abstractmethod
    def paste(self, image: Tensor, donor: Tensor, spot: Spot) -> Tensor:
        """An image (C, H, W) with the cue, or its control, of a donor, which has it at this spot."""

    @abstractmethod
    def remove(self, image: Tensor, spot: Spot, other: Tensor, fill: Tensor) -> list[Tensor]:
        """Three images without the cue that lies at this spot, or without its control.

        other: an image of another class. fill: the mean of all classes. Both (C, H, W)."""

    def locate(self, corner: Corner) -> Place:
        """Where the cue lies that was found at this corner."""
        top, left, bottom, right = self.place
        return corner[0], corner[1], corner[0] + bottom - top, corner[1] + right - left


class Patch(Cue):
    """A box of px: a tag, a logo, or a part of an object.

    pixels: what is looked for, of the size of the place: the image's own, or the median of copies."""

    kind: Kind = "patch"

    def __init__(self, pixels: Tensor, place: Place, unrelated: Tensor) -> None:
        self.place = place
        self._inset = 1 if min(pixels.shape[1:]) >= _CORE else 0
        end = -self._inset or None
        self.template = Template(pixels[:, self._inset : end, self._inset : end].contiguous(), unrelated)
        self.may_be_copied = self.template.has_texture

    def find(self, images: Tensor) -> Found:
        return self._with_border(self.template.find(images), images)

    def find_alike(self, images: Tensor) -> Found:
        """Where the pattern of each of the images (n, C, H, W) is most alike, see `Template.find_alike`."""
        return self._with_border(self.template.find_alike(images), images)

    def _with_border(self, found: Found, images: Tensor) -> Found:
        top, left, bottom, right = self.place
        last = np.array(images.shape[2:]) - (bottom - top, right - left)
        return Found(found.likeness, (found.corners - self._inset).clip(0, last))

    def paste(self, image: Tensor, donor: Tensor, spot: Spot) -> Tensor:
        top, left, bottom, right = self._choose(image, spot)
        pasted = image.clone()
        pasted[:, top:bottom, left:right] = donor[:, top:bottom, left:right]
        return pasted

    def remove(self, image: Tensor, spot: Spot, other: Tensor, fill: Tensor) -> list[Tensor]:
        """By the mean image, by the same place of another image, by the mean colour around."""
        top, left, bottom, right = self._choose(image, spot)
        removed = [image.clone() for _ in range(3)]
        around = _mean_around(image, (top, left, bottom, right))
        for one, cover in zip(removed, (fill, other, around.expand_as(image)), strict=True):
            one[:, top:bottom, left:right] = cover[:, top:bottom, left:right]
        return removed

    def _choose(self, image: Tensor, spot: Spot) -> Place:
        place = self.locate(spot.corner)
        return choose_control(place, (image.shape[1], image.shape[2]), spot.rng) if spot.control else place


def _mean_around(image: Tensor, place: Place, margin: int = 2) -> Tensor:
    """The mean colour (C, 1, 1) of the px within a margin around a place; of the place where it is the whole image."""
    top, left, bottom, right = place
    rows, columns = slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)
    mask = torch.zeros(image.shape[1:], dtype=torch.bool)
    mask[rows, columns] = True
    mask[top:bottom, left:right] = False
    return image[:, mask if mask.any() else ~mask].mean(1)[:, None, None]  # (C, 1, 1)


class Frame(Cue):
    """The outermost px on all sides, so many of them.

    A frame ends: further in, other px begin. Where they go on the same, as in photographs of things on plain white, it
    is a background, and its px were not added."""

    kind: Kind = "frame"

    def __init__(self, image: Tensor, thickness: int, unrelated: Tensor) -> None:
        height, width = image.shape[1:]
        self.thickness, self.place = thickness, (0, 0, height, width)
        self._rim = _make_ring((height, width), 0, thickness)
        self._inner = _make_ring((height, width), 2 * thickness, thickness)
        self._pixels = image[:, self._rim]  # (C, px)
        self._chance = max(float(self._measure(unrelated).median()), FAINTEST)
        self.may_be_copied = _measure_edge(image, thickness) >= _ENDS

    def _measure(self, images: Tensor) -> Tensor:
        """The mean squared difference of each image's rim to this one: (n,)."""
        return (images[:, :, self._rim] - self._pixels).square().mean((1, 2))

    def find(self, images: Tensor) -> Found:
        likeness = (1 - self._measure(images) / self._chance).double().numpy()
        return Found(likeness, np.zeros((len(images), 2), np.int64))

    def paste(self, image: Tensor, donor: Tensor, spot: Spot) -> Tensor:
        mask = self._inner if spot.control else self._rim
        return torch.where(mask, donor, image)

    def remove(self, image: Tensor, spot: Spot, other: Tensor, fill: Tensor) -> list[Tensor]:
        """By the mean image, by another image's px, by the px that lie next to it further in."""
        mask, depth = (self._inner, 3) if spot.control else (self._rim, 1)
        end = min(depth * self.thickness, (min(image.shape[1:]) - 1) // 2)  # where the px further in begin
        inside = F.pad(image[None, :, end:-end, end:-end], (end,) * 4, mode="replicate")[0]  # (C, H, W)
        return [torch.where(mask, cover, image) for cover in (fill, other, inside)]


def _make_ring(size: tuple[int, int], inset: int, thickness: int) -> Tensor:
    """A mask (H, W) of the px between two rectangles."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[inset : size[0] - inset, inset : size[1] - inset] = True
    far = inset + thickness
    mask[far : size[0] - far, far : size[1] - far] = False
    return mask


def _measure_edge(image: Tensor, thickness: int) -> float:
    """The share of the px just within a frame of an image (C, H, W) that differ from those of the frame beside them."""
    t, u = thickness, thickness + 1
    sides = [
        image[:, t, t:-t] - image[:, t - 1, t:-t],
        image[:, -u, t:-t] - image[:, -t, t:-t],
        image[:, t:-t, t] - image[:, t:-t, t - 1],
        image[:, t:-t, -u] - image[:, t:-t, -t],
    ]  # (C, length) each
    return float((torch.cat(sides, 1).abs().amax(0) >= TEXTURE).float().mean())


class Colour(Cue):
    """The black and white level of each channel, which 2% and 98% of its px lie below: a tint, a veil, contrast.

    unrelated: images (n, C, H, W) whose levels say what is usual."""

    kind: Kind = "colour"
    may_be_copied = False

    def __init__(self, image: Tensor, unrelated: Tensor) -> None:
        self.place = (0, 0, image.shape[1], image.shape[2])
        self._levels = read_levels(image[None]).flatten()  # (2 C,)
        usual = read_levels(unrelated).flatten(1)  # (n, 2 C)
        self._spread, self._median = usual.std(0).clamp_min(0.01), usual.median(0).values
        self._chance = max(float(self._measure(usual).median()), 1e-6)

    def _measure(self, levels: Tensor) -> Tensor:
        return ((levels - self._levels) / self._spread).square().mean(1)

    def find(self, images: Tensor) -> Found:
        distances = self._measure(read_levels(images).flatten(1))
        likeness = (1 - distances / self._chance).double().numpy()
        return Found(likeness, np.zeros((len(images), 2), np.int64))

    def paste(self, image: Tensor, donor: Tensor, spot: Spot) -> Tensor:
        levels = read_levels(donor[None])[0]  # (C, 2)
        return set_levels(image, _turn_over(image, levels) if spot.control else levels)

    def remove(self, image: Tensor, spot: Spot, other: Tensor, fill: Tensor) -> list[Tensor]:
        """By the levels of another image, of the mean image, and the usual ones."""
        usual = self._median.view(-1, 2)  # (C, 2)
        chosen = [read_levels(other[None])[0], read_levels(fill[None])[0], usual]
        return [set_levels(image, _turn_over(image, levels) if spot.control else levels) for levels in chosen]


def read_levels(images: Tensor) -> Tensor:
    """The black and white level of each channel of images (n, C, H, W): (n, C, 2)."""
    count = images[0, 0].numel()
    ranks = [int(_BLACK * count), max(0, int(_WHITE * count) - 1)]
    ordered = np.partition(images.flatten(2).numpy(), ranks, axis=2)  # (n, C, px), far faster than sorting
    return torch.from_numpy(ordered[:, :, ranks])


def set_levels(image: Tensor, levels: Tensor) -> Tensor:
    """An image (C, H, W) whose channels have these black and white levels (C, 2), as far as a stretch of 2 does it."""
    own = read_levels(image[None])[0]  # (C, 2)
    stretch = (levels[:, 1] - levels[:, 0]) / (own[:, 1] - own[:, 0]).clamp_min(_LEAST_RANGE)  # (C,)
    middle, wanted = own.mean(1), levels.mean(1)
    stretched = (image - middle[:, None, None]) * stretch.clamp(1 / _STRETCH, _STRETCH)[:, None, None]
    return (stretched + wanted[:, None, None]).clamp(0, 1)


def _turn_over(image: Tensor, levels: Tensor) -> Tensor:
    """Levels (C, 2) as far from the image's own as these, the other way."""
    turned = (2 * read_levels(image[None])[0] - levels).clamp(0, 1)
    return torch.stack([turned[:, 0], torch.maximum(turned[:, 1], turned[:, 0] + _LEAST_SPREAD)], 1).clamp(0, 1)
