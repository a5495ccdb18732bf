"""Photographs as results keep them: parts of them, made smaller; and what a saved file knows of a large one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Bytes, Photo, Pixels, to_floats

SIDE = 256
"""px, the longer side of a photograph that a saved file keeps."""

DRAWN_SIDE = 1024
"""px, the longer side of a photograph that a result keeps to draw it: nearly twice what a panel of a saved picture has.
Of larger ones it keeps a copy of this size; their sizes, and the places in them, stay those of the photograph."""

DRAWN_PHOTOS = 100
"""Photographs of which a result keeps copies of DRAWN_SIDE. Of those after them it keeps SIDE px."""


def shrink(pixels: Pixels | Bytes, side: int = SIDE) -> Pixels:
    """Make pixels (H, W, C) smaller, so that their longer side is `side` px; smaller ones stay. Floats in [0, 1]."""
    h, w, _ = pixels.shape
    scale = side / max(h, w)
    if scale >= 1:
        return to_floats(pixels)
    return resize(pixels, (max(1, round(h * scale)), max(1, round(w * scale))), Image.Resampling.BOX).clip(0, 1)


def resize(pixels: Pixels | Bytes, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    """Pixels (H, W, C) in another height and width, as floats."""
    channels = range(pixels.shape[2])  # one at a time: all of a large photograph as floats would fill the memory
    parts = [Image.fromarray(to_floats(pixels[:, :, c])).resize(size[::-1], how) for c in channels]
    return np.stack([np.asarray(part, np.float32) for part in parts], 2)  # (h, w, C)


def cut_out(photo: Photo, box: Box) -> Pixels:
    """Cut a box out of a photograph, with all pixels that it touches."""
    held = photo.pixels if photo.shortfall else photo.held
    top, left = math.floor(box.top + 1e-6), math.floor(box.left + 1e-6)
    bottom, right = math.ceil(box.bottom - 1e-6), math.ceil(box.right - 1e-6)
    return to_floats(held[max(0, top) : max(top + 1, bottom), max(0, left) : max(left + 1, right)])


def as_bytes(image: npt.NDArray[np.floating] | Bytes) -> Bytes:
    """Values in [0, 1] as bytes."""
    if image.dtype == np.uint8:
        return image  # type: ignore[return-value]
    levels: Bytes = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return levels


def reduce_photo(photo: Photo, side: int = DRAWN_SIDE) -> Photo:
    """What a result keeps of a photograph: itself, or, where its longer side is above `side` px, a smaller copy."""
    if max(photo.size) <= side or photo.shortfall:
        return photo
    scale = side / max(photo.size)
    height, width = (max(1, round(length * scale)) for length in photo.size)
    if photo.held.dtype == np.uint8:
        whole = Image.fromarray(photo.held[:, :, 0] if photo.channels == 1 else photo.held)
        small = whole.resize((width, height), Image.Resampling.HAMMING, reducing_gap=2)  # by a whole number first
        held = np.array(small).reshape(height, width, photo.channels)  # (h, w, C)
    else:
        held = as_bytes(resize(photo.held, (height, width), Image.Resampling.HAMMING))
    return ReducedPhoto(held, photo.name, original_size=photo.size, original_sha256=photo.sha256())


@dataclass(frozen=True, kw_only=True)
class ReducedPhoto(Photo):
    """A photograph of which a result has kept a smaller copy, to draw it.

    held: uint8 (h, w, C), the copy. size, and all boxes, are the photograph's own.
    original_size: height and width of the photograph. original_sha256: its digest, as in the result's provenance.
    """

    shortfall: ClassVar[str] = "the result has kept a smaller copy only"

    original_size: tuple[int, int]
    original_sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph in px."""
        return self.original_size

    @property
    def pixels(self) -> Pixels:
        """The copy, enlarged to the photograph's height and width: float32 (H, W, C) in [0, 1]."""
        return resize(self.held, self.size, Image.Resampling.BILINEAR)

    def sha256(self) -> str:
        """Digest of the photograph itself."""
        return self.original_sha256


@dataclass(frozen=True, kw_only=True)
class StoredPhoto(ReducedPhoto):
    """A photograph of an opened result of which the file did not keep all pixels.

    held: the thumbnail, or one mid-grey pixel where none was kept.
    thumbnail: uint8 (h, w, C), at most 256 px; None where none was kept.
    """

    shortfall: ClassVar[str] = "a saved result kept a thumbnail only"

    thumbnail: Bytes | None

    @property
    def pixels(self) -> Pixels:
        """The thumbnail, enlarged to the photograph's height and width; mid-grey everywhere where none was kept."""
        if self.thumbnail is None:
            return np.broadcast_to(to_floats(self.held), (*self.size, self.channels))  # takes no memory
        return super().pixels

    @property
    def stored(self) -> Literal["thumbnail", "digest"]:
        """What the file kept of the photograph. (One that it kept whole is opened as a plain Photo.)"""
        return "digest" if self.thumbnail is None else "thumbnail"

    @classmethod
    def of(cls, thumbnail: Bytes | None, size: tuple[int, int], name: str, digest: str, channels: int) -> StoredPhoto:
        """Make one from a thumbnail, or from none. size: height and width of the photograph itself."""
        held = np.full((1, 1, channels), 0.5, np.float32) if thumbnail is None else thumbnail
        return cls(held, name, original_size=size, original_sha256=digest, thumbnail=thumbnail)
