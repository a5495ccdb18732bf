"""Photo: an image in one form, whatever it came from: RGB or grey, upright and opaque."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ImageError, escape_invisible

Pixels = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_AT_A_TIME = 1 << 20
"""Pixels that are floats at the same time while a photograph is read row by row."""


@dataclass(frozen=True)
class Photo:
    """An image as the person knows it, before any network's resizing.

    held: its pixels, (H, W, 3) RGB or (H, W, 1) grey: float32 in [0, 1], or uint8 of which 255 is white. Images of 8
        bits are held as bytes, since floats would take four times the memory.
    """

    shortfall: ClassVar[str] = ""
    """Why it is no input for a network, where a result has kept a smaller copy only; "" for a whole photograph."""

    held: Pixels | Bytes
    name: str = "image"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.held.shape[0], self.held.shape[1]

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey."""
        return int(self.held.shape[2])

    @property
    def pixels(self) -> Pixels:
        """All pixels as float32 (H, W, C) in [0, 1], made anew where bytes are held. See `bands` for large ones."""
        return to_floats(self.held)

    def bands(self) -> Iterator[Pixels]:
        """The pixels some rows at a time, from top to bottom: float32 (h, W, C) in [0, 1]."""
        self.check_whole()
        height, width = self.size
        step = max(1, _AT_A_TIME // width)
        return (to_floats(self.held[top : top + step]) for top in range(0, height, step))

    def check_whole(self) -> None:
        """Raise ImageError where not all pixels are held."""
        if self.shortfall:
            raise ImageError(f"of {escape_invisible(self.name)} {self.shortfall}. Open the image file itself")

    def sha256(self) -> str:
        """Digest of the pixels as floats, for provenance: the same whatever the image was stored in."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr((*self.size, self.channels)).encode())
        for band in self.bands():
            digest.update(np.ascontiguousarray(band).data)
        return digest.hexdigest()


def to_floats(pixels: Pixels | Bytes) -> Pixels:
    """Pixels as float32 in [0, 1]: 255ths of bytes, and floats as they are."""
    return np.divide(pixels, 255, dtype=np.float32) if pixels.dtype == np.uint8 else pixels  # type: ignore[return-value]


def to_grey(pixels: Pixels) -> Pixels:
    """Luma (ITU-R BT.601) of an image: (H, W, 3) to (H, W, 1); grey images pass through."""
    if pixels.shape[2] == 1:
        return pixels
    return pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)  # (H, W, 1)
