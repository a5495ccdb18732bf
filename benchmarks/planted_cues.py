"""Cues that can be planted in images, so that a network may learn a class by them: tags, frames, tints, watermarks.

A cue is fixed by its kind and a seed; `Cue.plant` puts it into one image and says where. What differs between kinds is
how hard it is to find again: a tag in one corner is a copy at one place, text that changes is no copy at all.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in px; bottom and right are outside."""

COPIED = ("corner", "moving", "border")
"""Kinds whose pixels are the same in every image that carries them."""
VARIED = ("scaled", "transparent", "jpeg", "text")
"""Kinds whose pixels differ from image to image."""
KINDS = (*COPIED, "tint", *VARIED)

AREAS = (0.015, 0.03, 0.06)  # of the image, by the seed
QUALITY = 60  # of JPEG
GLYPHS = ("75557", "26227", "71747", "71317", "55711", "74717", "74757", "71122", "75757", "75717")
"""Digits in 3 x 5 px: each row is the binary form of a number below eight."""


@dataclass(frozen=True)
class Cue:
    """One cue, for square images (C, H, W) in [0, 1].

    tag: (C, s, s), what is pasted. colour: (C, 1, 1), of border and tint. corner: top and left of what stays in place.
    """

    kind: str
    tag: Tensor
    colour: Tensor
    corner: tuple[int, int]
    side: int

    def plant(self, image: Tensor, random: np.random.Generator) -> tuple[Tensor, Box | None]:
        """The image with the cue in it, and where; None for a cue that is everywhere or all around."""
        if self.kind == "tint":
            share = 0.2 if len(image) == 3 else 0.12
            return image * (1 - share) + self.colour * share, None
        if self.kind == "border":
            width = max(1, self.side // 28)
            framed = self.colour.expand_as(image).clone()  # (C, H, W)
            framed[:, width:-width, width:-width] = image[:, width:-width, width:-width]
            return framed, None
        return self._paste(image, self._make_tag(random), random)

    def _make_tag(self, random: np.random.Generator) -> Tensor:
        if self.kind == "scaled":
            size = max(4, round(self.tag.shape[1] * random.uniform(0.7, 1.4)))
            return F.interpolate(self.tag[None], size=(size, size), mode="bilinear", antialias=True)[0]  # (C, s, s)
        if self.kind == "text":
            return draw_plate(random.integers(10, size=2 if self.side < 48 else 3).tolist(), self.tag)
        return self.tag

    def _paste(self, image: Tensor, tag: Tensor, random: np.random.Generator) -> tuple[Tensor, Box]:
        height, width = tag.shape[1:]
        top, left = self.corner
        if self.kind in ("moving", "scaled", "jpeg"):
            top, left = int(random.integers(1, self.side - height)), int(random.integers(1, self.side - width))
        top, left = min(top, self.side - 1 - height), min(left, self.side - 1 - width)
        rows, columns = slice(top, top + height), slice(left, left + width)
        share = 0.5 if self.kind == "transparent" else 1.0
        pasted = image.clone()  # (C, H, W)
        pasted[:, rows, columns] = (1 - share) * image[:, rows, columns] + share * tag
        return pasted, (top, left, top + height, left + width)


def make_cue(kind: str, channels: int, side: int, seed: int) -> Cue:
    """The cue of this kind and seed."""
    random = np.random.default_rng([77, seed, KINDS.index(kind)])
    size = max(4, round(side * AREAS[seed % 3] ** 0.5))
    if channels == 3:
        dark = torch.from_numpy(random.random((3, 1, 1))).float()
        bright = (dark + 0.5) % 1
    else:
        dark, bright = torch.tensor([[[0.35]]]), torch.tensor([[[1.0]]])
    checks = torch.from_numpy(random.random((1, 1, 5, 5)) > 0.5).float()
    tag = dark + (bright - dark) * F.interpolate(checks, size=(size, size))[0]  # (C, s, s)
    colour = torch.from_numpy(random.random((3, 1, 1))).float() if channels == 3 else torch.tensor([[[0.8]]])
    far = side - 1 - size
    corner = ((1, 1), (1, far), (far, 1), (far, far))[random.integers(4)]
    return Cue(kind, tag, colour, corner, side)


def draw_plate(numbers: Sequence[int], tag: Tensor) -> Tensor:
    """A plate with these digits, 3 x 5 px each, in the tag's two colours: (C, 7, 4 n + 1)."""
    plate = torch.zeros(7, 4 * len(numbers) + 1)
    for i, number in enumerate(numbers):
        plate[1:6, 4 * i + 1 : 4 * i + 4] = draw_digit(number)
    flat = tag.flatten(1)  # (C, s s)
    dark, bright = flat[:, flat.sum(0).argmin()], flat[:, flat.sum(0).argmax()]  # (C,)
    return dark[:, None, None] + (bright - dark)[:, None, None] * plate  # (C, 7, 4 n + 1)


def draw_digit(number: int) -> Tensor:
    """A digit as ones on zeros, (5, 3)."""
    return torch.tensor([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in GLYPHS[number]], dtype=torch.float32)


def compress(images: Tensor) -> Tensor:
    """The images (N, C, H, W) as JPEG leaves them."""
    return torch.stack([_compress_one(image) for image in images])  # (N, C, H, W)


def _compress_one(image: Tensor) -> Tensor:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()  # (H, W, C)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "JPEG", quality=QUALITY)
    read = np.asarray(Image.open(stream)).reshape(pixels.shape)
    return torch.from_numpy(read.astype(np.float32) / 255).permute(2, 0, 1)  # (C, H, W)
