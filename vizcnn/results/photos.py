"""Photographs as results keep them: parts of them, made smaller; and what a saved file knows of a large one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.geometry import Box
from vizcnn.inputs.images import Photo

Pixels = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SIDE = 256
"""px, the longer side of a photograph that a result or a saved file keeps."""


def shrink(pixels: Pixels, side: int = SIDE) -> Pixels:
    """Make pixels (H, W, C) in [0, 1] smaller, so that their longer side is `side` px; smaller ones stay."""
    h, w, _ = pixels.shape
    scale = side / max(h, w)
    if scale >= 1:
        return pixels
    return resize(pixels, (max(1, round(h * scale)), max(1, round(w * scale))), Image.Resampling.BOX).clip(0, 1)


def resize(pixels: Pixels, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    """Pixels (H, W, C) in another height and width."""
    parts = [Image.fromarray(pixels[:, :, c]).resize(size[::-1], how) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(part, np.float32) for part in parts], 2)  # (h, w, C)


def cut_out(photo: Photo, box: Box) -> Pixels:
    """Cut a box out of a photograph, with all pixels that it touches."""
    top, left = math.floor(box.top + 1e-6), math.floor(box.left + 1e-6)
    bottom, right = math.ceil(box.bottom - 1e-6), math.ceil(box.right - 1e-6)
    return photo.pixels[max(0, top) : max(top + 1, bottom), max(0, left) : max(left + 1, right)]


def as_bytes(image: npt.NDArray[np.floating]) -> Bytes:
    """Values in [0, 1] as bytes."""
    levels: Bytes = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return levels


def from_bytes(image: Bytes) -> Pixels:
    """Bytes as values in [0, 1], exactly those that reading an image file of 8 bits gives."""
    return np.divide(image, 255, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class StoredPhoto(Photo):
    """A photograph of an opened result of which the file did not keep all pixels.

    pixels: of the photograph's own height and width, so that boxes lie where they lay: the thumbnail enlarged, or
        mid-grey everywhere where none was kept.
    thumbnail: uint8 (h, w, C), at most 256 px; None where none was kept.
    original_sha256: the digest of the photograph itself, as in the result's provenance.
    """

    is_whole: ClassVar[bool] = False

    thumbnail: Bytes | None
    original_sha256: str

    @property
    def stored(self) -> Literal["thumbnail", "digest"]:
        """What the file kept of the photograph. (One that it kept whole is opened as a plain Photo.)"""
        return "digest" if self.thumbnail is None else "thumbnail"

    @classmethod
    def of(cls, thumbnail: Bytes | None, size: tuple[int, int], name: str, digest: str, channels: int) -> StoredPhoto:
        """Make one from a thumbnail, or from none, in the height and width of the photograph itself."""
        if thumbnail is None:
            pixels = np.broadcast_to(np.float32(0.5), (*size, channels))  # takes no memory
        else:
            pixels = resize(from_bytes(thumbnail), size, Image.Resampling.BILINEAR)
        return cls(pixels=pixels, name=name, thumbnail=thumbnail, original_sha256=digest)
